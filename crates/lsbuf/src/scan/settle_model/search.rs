//! Searches every interleaving of a world's steps with those of a scan, depth first, each state
//! once.
//!
//! Limits: a state is known by a 64-bit hash, so two states could be taken for one by chance.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::rc::Rc;
use std::time::Duration;

use super::scan::{At, BUFFER, Facts, How, Order, Scan, reading};
use super::world::{Stage, Steps, TASKS, World};
use crate::model::{Buffer, BufferId, Inode, Kind, Residual};
use crate::scan::assemble::assemble;
use crate::scan::reading::{Counted, Effort, Interference, Object, Reading};
use crate::scan::settle::{Limits, Settling, Step, suspects, undisturbed_residual};

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    pub(super) world: World,
    pub(super) steps: Steps,
    pub(super) how: How,
    pub(super) readings: u32,
    /// Whether a second buffer stays an estimate, so that each scan makes all of its readings.
    pub(super) all_readings: bool,
    /// The most steps of the world in one path.
    pub(super) budget: u8,
    /// Removes something from the evidence of each reading before it is judged.
    pub(super) remove: Option<fn(&mut Interference)>,
}

/// The result of a search.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) states: usize,
    /// How many different series of readings end in an `Exact` that is true.
    pub(super) exact: usize,
    /// How many end in an `Exact` that is wrong because of the limit of several processes, and
    /// because of that of a receiver that sleeps.
    pub(super) several: usize,
    pub(super) asleep: usize,
    /// The path to the first one that is wrong for another reason.
    pub(super) wrong: Option<String>,
    /// The path to the first one that is wrong because of several processes.
    pub(super) limit: Option<String>,
}

/// One reading, and what was true while it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Past {
    facts: Facts,
    /// How many references the kernel itself had, as a set with one bit for each number: `since`
    /// the reading before, and `during` this one.
    since: u8,
    during: u8,
    /// The processes whose references were not found as they were.
    misread: u8,
    /// References that receivers held which slept during the whole reading.
    asleep: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    world: World,
    scan: Scan,
    effort: Effort,
    history: u32,
    left: u8,
    since: u8,
    during: u8,
    misread: u8,
}

#[derive(Clone, Copy, Debug)]
enum Verdict {
    Again(Effort),
    Done,
    Exact,
    Several(u64),
    Asleep,
    Wrong(u64),
}

enum Move {
    World(&'static str, usize),
    Scan(At),
}

struct Run<'s> {
    search: &'s Search,
    seen: HashSet<u64, BuildHasherDefault<DefaultHasher>>,
    histories: Vec<Vec<Past>>,
    verdicts: HashMap<(u32, Past), (u32, Verdict)>,
    path: Vec<Move>,
    found: Found,
}

impl Search {
    pub(super) fn run(&self) -> Found {
        let mut run = Run {
            search: self,
            seen: HashSet::default(),
            histories: vec![Vec::new()],
            verdicts: HashMap::new(),
            path: Vec::new(),
            found: Found::default(),
        };
        let effort = match self.how.order {
            Order::Procfs if self.readings > 1 => Effort::default(),
            _ => Effort { thorough: true, calls: true },
        };
        run.visit(State {
            world: self.world,
            scan: Scan::new(),
            effort,
            history: 0,
            left: self.budget,
            since: 0,
            during: 0,
            misread: 0,
        });
        run.found.states = run.seen.len();
        run.found
    }

    fn judge(&self, past: &[Past]) -> Verdict {
        let limits = Limits { readings: self.readings, time: Duration::ZERO, slow: Duration::MAX };
        let mut settling = Settling::new(limits);
        let mut last = None;
        for one in past {
            last = Some(settling.take(self.reading(one)));
        }
        let residual = match last {
            Some(Step::Again(effort, _)) => {
                return Verdict::Again(match self.how.order {
                    Order::Procfs => effort,
                    _ => Effort { thorough: true, calls: true },
                });
            }
            Some(Step::Done(outcome)) => {
                outcome.buffers.iter().find(|b| b.id.ino == BUFFER).map(|b| b.residual)
            }
            None => None,
        };
        match residual {
            Some(Residual::Exact(number)) => self.truth(past, number),
            _ => Verdict::Done,
        }
    }

    fn reading(&self, one: &Past) -> Reading {
        let mut reading = reading(&one.facts, self.how.order);
        if self.all_readings {
            let other = Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(8)));
            let other = Buffer { count: Some(1), in_flight: Some(0), io_uring: Some(0), ..other };
            reading.objects.push(Object { buffer: other, counted: Counted::default() });
        }
        self.remove.iter().for_each(|remove| remove(&mut reading.interference));
        reading
    }

    /// Whether an `Exact` is true: at some moment of each reading that proves it alone; or else at
    /// some moment from the first reading that proves it to the last.
    fn truth(&self, past: &[Past], number: u64) -> Verdict {
        let is = |mask: u8, number: u64| mask & 1 << number != 0;
        // The readings with the same account as the last one that could be compared, and whether
        // each proves it alone.
        let mut same = None;
        let mut agreeing: Vec<(usize, bool)> = Vec::new();
        for at in (0..past.len()).rev() {
            let mut reading = self.reading(&past[at]);
            let assembled = assemble(&mut reading);
            let Some(one) = assembled.iter().find(|a| a.buffer.id.ino == BUFFER) else { continue };
            let Ok(left) = undisturbed_residual(one, &reading.coverage) else { continue };
            let account = (one.buffer.holders.clone(), one.buffer.count, left);
            if *same.get_or_insert(account.clone()) != account {
                break;
            }
            let ran = reading.interference.ran.clone().map(Rc::new);
            if let Ok(suspects) = suspects(one, left, &reading.interference, ran.as_ref()) {
                agreeing.push((at, suspects.is_none()));
            }
        }
        let mut asleep = false;
        let mut proven_alone = false;
        for (at, _) in agreeing.iter().filter(|(_, alone)| *alone) {
            proven_alone = true;
            let one = &past[*at];
            if !is(one.during, number) {
                let hidden = u64::from(one.asleep);
                if hidden == 0 || number < hidden || !is(one.during, number - hidden) {
                    return Verdict::Wrong(number);
                }
                asleep = true;
            }
        }
        if asleep {
            return Verdict::Asleep;
        }
        let (Some((last, _)), Some((first, _))) = (agreeing.first(), agreeing.last()) else {
            return Verdict::Wrong(number);
        };
        let window = past[*first..=*last].iter().enumerate();
        let window = window.fold(0, |mask, (at, one)| mask | one.during | if at > 0 { one.since } else { 0 });
        if proven_alone || is(window, number) {
            return Verdict::Exact;
        }
        let always = agreeing.iter().fold(u8::MAX, |mask, (at, _)| mask & past[*at].misread);
        match agreeing.iter().any(|(at, _)| past[*at].asleep > 0) {
            _ if always == 0 => Verdict::Several(number),
            true => Verdict::Asleep,
            false => Verdict::Wrong(number),
        }
    }
}

impl Run<'_> {
    fn visit(&mut self, state: State) {
        if self.found.wrong.is_some()
            || !self.seen.insert(BuildHasherDefault::<DefaultHasher>::default().hash_one(state))
        {
            return;
        }
        self.read_on(state);
        if state.left > 0 {
            let mut next = Vec::new();
            state.world.next(&self.search.steps, &mut next);
            for (what, who, world) in next {
                let mut then = State { world, left: state.left - 1, ..state };
                then.add_truth();
                self.path.push(Move::World(what, who));
                self.visit(then);
                self.path.pop();
            }
        }
    }

    /// Makes the scan's next step.
    fn read_on(&mut self, mut state: State) {
        let at = state.scan.at;
        if at == At::Begin {
            (state.during, state.misread) = (0, 0);
        }
        let facts =
            state.scan.step(&mut state.world, &self.search.how, state.effort.thorough, state.effort.calls);
        state.add_truth();
        self.path.push(Move::Scan(at));
        // The residual is computed from the last count, so what was misread by then matters.
        if at == At::CountAgain || state.scan.at == At::End && at != At::End {
            state.misread = state.scan.misread(&state.world, self.search.how.order);
        }
        match facts {
            None => self.visit(state),
            Some(facts) => self.conclude(state, facts),
        }
        self.path.pop();
    }

    fn conclude(&mut self, state: State, facts: Facts) {
        let asleep = |at: usize| {
            let task = state.world.tasks[at];
            if task.stage == Stage::Receiving && !task.ran { task.held_in_call } else { 0 }
        };
        let past = Past {
            facts,
            since: state.since,
            during: state.during,
            misread: state.misread,
            asleep: (0..TASKS).map(asleep).sum(),
        };
        let known = self.verdicts.get(&(state.history, past)).copied();
        let (history, verdict) = known.unwrap_or_else(|| {
            let mut all = self.histories[state.history as usize].clone();
            all.push(past);
            let verdict = self.search.judge(&all);
            let mut history = 0;
            if let Verdict::Again(_) = verdict {
                history = self.histories.len() as u32;
                self.histories.push(all);
            }
            self.verdicts.insert((state.history, past), (history, verdict));
            match verdict {
                Verdict::Again(_) | Verdict::Done => {}
                Verdict::Exact => self.found.exact += 1,
                Verdict::Several(number) => {
                    self.found.several += 1;
                    if self.found.limit.is_none() {
                        self.found.limit = Some(self.path_in_words(&state, number));
                    }
                }
                Verdict::Asleep => self.found.asleep += 1,
                Verdict::Wrong(number) => self.found.wrong = Some(self.path_in_words(&state, number)),
            }
            (history, verdict)
        });
        if let Verdict::Again(effort) = verdict {
            let mut next = State { scan: Scan::new(), effort, history, since: 0, ..state };
            next.since = 1 << state.world.kernel;
            self.visit(next);
        }
    }

    /// The path so far, in words.
    fn path_in_words(&self, state: &State, number: u64) -> String {
        let mut text = String::new();
        for one in &self.path {
            let _ = match one {
                Move::World(what, TASKS) => write!(text, "\n  {what}"),
                Move::World(what, who) => write!(text, "\n  process {} {what}", who + 1),
                Move::Scan(at) => write!(text, "\n                      scan: {at:?}"),
            };
        }
        let _ = write!(text, "\nExact({number}), and the kernel has {}", state.world.kernel);
        text
    }
}

impl State {
    fn add_truth(&mut self) {
        let now = 1 << self.world.kernel;
        if self.scan.at == At::Begin { self.since |= now } else { self.during |= now }
    }
}
