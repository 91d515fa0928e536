//! Decides which residuals are exact, and whether another reading could prove the others.
//!
//! This is the only place where it is decided, whatever source was read.
//!
//! # The proof
//!
//! A reading finds some references of a buffer, and the kernel has counted `n` more. The residual
//! `n` is wrong if a counted reference belongs to a process and was not found, or if a reference
//! that was found was released before the kernel counted. Each of these has a cause *during the
//! reading*:
//!
//! - a task moved, closed, received or mapped a reference while it was read: then it ran
//!   ([`Interference::ran`]);
//! - a task was inside a call that keeps references in no table, such as fork. If the call ended
//!   before the reading did, then the task ran; otherwise the reading sees the task in the call
//!   ([`Interference::in_call`]);
//! - a task had given up its tables and not yet released what was in them
//!   ([`Interference::exiting`]);
//! - a process was started after the processes were listed ([`Interference::processes_changed`]).
//!
//! So a residual is exact if none of these occurred during the reading. If it is 0, less is enough:
//! all counted references were found, so it is wrong only if one of those was released. Then only
//! the holders that were found can have made it wrong. A message has no holder: if one was found,
//! any process that ran can have.
//!
//! On a busy machine something always runs. There, several readings prove a residual together if
//! they found the same references and the same count, and if no process ran in every one of them: a
//! process that hid a reference from all of them ran in all of them.
//!
//! # Limits
//!
//! The proof does not cover these cases. Such references count as the kernel's.
//!
//! - Several readings that different processes made wrong by the same number: one process hid a
//!   reference from the first reading and then passed it on or released it, and another process hid
//!   one from the second. This cannot happen to a single reading in which nothing ran.
//! - By procfs, an address space that several processes share (CLONE_VM). lsbuf does not know that
//!   a process shares it while that process shows no mapping of the buffer. Such a process can map
//!   and unmap the buffer while the others sleep.
//! - A message that an io_uring worker waits to send, and a message whose receiver sleeps while it
//!   takes fds out of it (because it waits for a page of its buffer that another process has to
//!   supply).
//! - References that a system call takes for itself while it sleeps (poll, an ioctl that waits for
//!   a fence).

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::assemble::assemble;
use super::lifetimes::FewKeep;
use super::reading::{Assembled, Effort, Interference, Reading, ReadingCoverage};
use crate::model::{Buffer, BufferId, Holder, Kind, Pid, Residual, UnheldSum, Why};

/// How many readings a scan may make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Up to this many readings, however long they take.
    pub(super) readings: u32,
    /// After those, up to [`Limits::MORE`] more if they begin within this time from the begin of
    /// the scan.
    pub(super) time: Duration,
    /// A scan that has taken this long makes another reading only if that is worth it: if the last
    /// one helped, and not for a few buffers of many. One buffer with a count that never stands
    /// still must not have the whole of a large machine read again.
    pub(super) slow: Duration,
}

impl Limits {
    /// How many readings may be made beyond [`Limits::readings`].
    const MORE: u32 = 5;
    /// One of so many buffers is few.
    const FEW: usize = 1000;
}

/// What to do after a reading.
#[derive(Debug)]
pub(super) enum Step {
    /// Read again after this pause: what disturbed the reading may be over by then.
    Again(Effort, Duration),
    /// Stop; this is the answer.
    Done(Box<Settled>),
}

/// The answer, and what its notes are made from.
#[derive(Debug)]
pub(super) struct Settled {
    /// Ordered by identity.
    pub(super) buffers: Vec<Buffer>,
    pub(super) seen: ReadingCoverage,
    /// As [`Reading::unheld`], of the last reading.
    pub(super) unheld: Vec<UnheldSum>,
    /// As [`Reading::few_keep`], of the last reading.
    pub(super) few_keep: FewKeep,
    /// Processes that ran in every reading and for that reason leave a residual an estimate.
    pub(super) ran: BTreeSet<Pid>,
    /// Processes that were inside a call that keeps references in no table, in the last reading.
    pub(super) in_call: BTreeSet<Pid>,
    /// `None`: no buffer can be missing. Else some may be missing, of a kind that nothing lists,
    /// and these processes may hold them; empty if it is not known which processes.
    pub(super) may_miss: Option<BTreeSet<Pid>>,
}

/// The readings so far, and what they prove together.
#[derive(Debug)]
pub(super) struct Settling {
    limits: Limits,
    begun: Instant,
    taken: u32,
    effort: Effort,
    evidence: HashMap<BufferId, Evidence>,
    /// How many residuals of the last reading another one could have improved.
    unproven: Option<usize>,
    /// A hash of the identities that the last reading found.
    found: Option<u64>,
    /// Processes that changed mappings, or were inside a call, in each of the readings that found
    /// the same buffers and in which no process was started or seen exiting. `None`: there was no
    /// such reading.
    remapped: Option<BTreeSet<Pid>>,
    hasher: RandomState,
}

/// What the readings so far prove about one buffer.
#[derive(Clone, Debug)]
struct Evidence {
    /// A hash of its holders, count and residual.
    account: u64,
    /// Who could have made it wrong in each reading that found this same account. `None`: something
    /// else disturbed each of these readings.
    suspects: Option<Suspects>,
}

/// The processes that ran in a reading, or in each of several.
type Ran = Rc<BTreeSet<Pid>>;

/// The processes that may have made a buffer's residual wrong. Buffers share the set of those that
/// ran, so that no buffer has a list of its own.
#[derive(Clone, Debug, Default)]
struct Suspects {
    ran: Ran,
    /// Only those that hold the buffer.
    only_holders: bool,
}

impl Suspects {
    /// Whether there is none, for a buffer with these holders.
    fn is_none(&self, holders: &[Holder]) -> bool {
        if self.only_holders { self.among(holders).next().is_none() } else { self.ran.is_empty() }
    }

    /// Those that hold the buffer.
    fn among<'a>(&'a self, holders: &'a [Holder]) -> impl Iterator<Item = Pid> + 'a {
        // A search in the holders for each of a few that ran costs less than the opposite.
        let by_ran = self.ran.len() < holders.len() / 16;
        let (ran, held) = if by_ran { (self.ran.len(), 0) } else { (0, holders.len()) };
        let is_holder = |pid: &Pid| holders.binary_search_by_key(pid, |holder| holder.pid).is_ok();
        let by_ran = self.ran.iter().take(ran).copied().filter(is_holder);
        let by_holder = holders[..if self.ran.is_empty() { 0 } else { held }].iter().map(|holder| holder.pid);
        by_ran.chain(by_holder.filter(|pid| self.ran.contains(pid)))
    }
}

/// The processes that ran in this reading and in all readings of an earlier set: one set for all
/// buffers with the same earlier set.
#[derive(Default)]
struct Intersections(HashMap<*const BTreeSet<Pid>, (Ran, Ran)>);

impl Intersections {
    fn of(&mut self, before: Ran, now: &Ran) -> Ran {
        if before.is_empty() || now.is_empty() {
            return Rc::default();
        }
        let both = || Rc::new(&*before & &**now);
        // The set before is kept, so that no other set can get its address.
        let (_, both) = self.0.entry(Rc::as_ptr(&before)).or_insert_with(|| (Rc::clone(&before), both()));
        Rc::clone(both)
    }
}

/// What one reading proves about one residual.
enum ReadingVerdict {
    /// The evidence of other readings does not change this.
    Fixed(Residual),
    /// Proven: no process can have made it wrong.
    Proved(u64),
    /// These processes may have made it wrong.
    Suspects(u64, Suspects),
    /// Something else may have made it wrong.
    Disturbed(u64, Why),
}

impl ReadingVerdict {
    fn of(
        one: &Assembled,
        seen: &ReadingCoverage,
        interference: &Interference,
        ran: Option<&Ran>,
    ) -> ReadingVerdict {
        match undisturbed_residual(one, seen) {
            Err(residual) => ReadingVerdict::Fixed(residual),
            Ok(number) => match suspects(one, number, interference, ran) {
                Ok(Some(suspects)) => ReadingVerdict::Suspects(number, suspects),
                Ok(None) => ReadingVerdict::Proved(number),
                Err(why) => ReadingVerdict::Disturbed(number, why),
            },
        }
    }

    /// Whether no other reading can give a better answer.
    fn is_final(&self, one: &Assembled, seen: &ReadingCoverage) -> bool {
        match self {
            ReadingVerdict::Fixed(residual) => residual.why().is_none_or(|why| !may_improve(one, why, seen)),
            ReadingVerdict::Proved(_) => true,
            ReadingVerdict::Suspects(..) | ReadingVerdict::Disturbed(..) => false,
        }
    }
}

impl Settling {
    /// Begins with no reading.
    pub(super) fn new(limits: Limits) -> Settling {
        Settling {
            limits,
            begun: Instant::now(),
            taken: 0,
            effort: Effort::default(),
            evidence: HashMap::new(),
            unproven: None,
            found: None,
            remapped: None,
            hasher: RandomState::new(),
        }
    }

    /// How thorough the first reading is to be.
    pub(super) fn effort(&self) -> Effort {
        self.effort
    }

    /// Takes a reading: decides every residual, and whether to read again.
    pub(super) fn take(&mut self, mut reading: Reading) -> Step {
        self.taken += 1;
        let mut assembled = assemble(&mut reading);
        let Reading { interference, coverage: seen, unheld, few_keep, .. } = reading;
        let mut outcome = Settled {
            buffers: Vec::new(),
            seen,
            unheld,
            few_keep,
            ran: BTreeSet::new(),
            in_call: interference.in_call.clone().unwrap_or_default(),
            may_miss: None,
        };
        let (mut again, mut calls) = (false, false);
        if !outcome.seen.unlisted_passed_over.is_empty() {
            // That they changed nothing is no evidence: nobody looked.
            (outcome.may_miss, again) = (Some(outcome.seen.unlisted_passed_over.clone()), true);
        } else if !outcome.seen.listed {
            (outcome.may_miss, again) = self.may_miss(&assembled, &interference);
        }
        let ran = interference.ran.clone().map(Rc::new);
        let verdicts: Vec<ReadingVerdict> = assembled
            .iter()
            .map(|one| ReadingVerdict::of(one, &outcome.seen, &interference, ran.as_ref()))
            .collect();
        let mut intersections = Intersections::default();
        let mut in_outcome: Vec<Ran> = Vec::new();
        let (mut unproven, mut passed_over) = (0, 0);
        // The evidence has to be kept only if there was or will be another reading.
        let complete = outcome.seen.listed && !outcome.seen.passed_over && !again;
        let is_final = |(one, verdict): (_, &ReadingVerdict)| verdict.is_final(one, &outcome.seen);
        let alone = self.evidence.is_empty() && complete && assembled.iter().zip(&verdicts).all(is_final);
        for (one, verdict) in assembled.iter_mut().zip(verdicts) {
            let (residual, suspects) = self.residual(one, verdict, alone, &mut intersections);
            unproven += usize::from(residual.why().is_some_and(|why| may_improve(one, why, &outcome.seen)));
            // The reading did not look everywhere: what it left out may be in the residual, or may
            // be hidden by a count that changed.
            passed_over += usize::from(outcome.seen.passed_over && residual != Residual::Exact(0));
            calls |= residual.number() > Some(0) && interference.in_call.is_none();
            if let Some(Suspects { ran, only_holders: false }) = &suspects {
                if !in_outcome.iter().any(|added| Rc::ptr_eq(added, ran)) {
                    outcome.ran.extend(ran.iter());
                    in_outcome.push(Rc::clone(ran));
                }
            } else {
                outcome.ran.extend(suspects.iter().flat_map(|s| s.among(&one.buffer.holders)));
            }
            if residual == Residual::Exact(0) && one.buffer.id.kind == Kind::DmaBuf {
                // All counted references were found, so none is in a message, an io_uring or a
                // running program.
                for kept in [&mut one.buffer.in_flight, &mut one.buffer.io_uring, &mut one.buffer.exe] {
                    *kept = kept.or(Some(0));
                }
            }
            one.buffer.residual = residual;
        }
        outcome.buffers = assembled.into_iter().map(|one| one.buffer).collect();
        let is_slow = self.begun.elapsed() >= self.limits.slow;
        let is_worth_it = |of: usize| of > 0 && !(is_slow && of <= outcome.buffers.len() / Limits::FEW);
        let thorough = is_worth_it(passed_over);
        let before = self.unproven.replace(unproven);
        let same_effort = self.effort.thorough >= thorough && self.effort.calls >= calls;
        let no_help = same_effort && before.is_some_and(|before| before > 0 && before <= unproven);
        again |= is_worth_it(unproven);
        self.effort.thorough |= thorough;
        self.effort.calls |= calls;
        let more = self.taken < self.limits.readings
            || self.limits.readings > 1
                && self.taken < self.limits.readings.saturating_add(Limits::MORE)
                && self.begun.elapsed() < self.limits.time;
        if (again || thorough) && more && !(no_help && is_slow) {
            Step::Again(self.effort, self.pause())
        } else {
            Step::Done(Box::new(outcome))
        }
    }

    /// The first two readings follow one another at once. Before later ones there is a pause, so
    /// that processes that start, exit or run can finish.
    fn pause(&self) -> Duration {
        const STEP: Duration = Duration::from_millis(4);
        const LONGEST: Duration = Duration::from_millis(20);
        (STEP * self.taken.saturating_sub(1)).min(LONGEST)
    }

    /// The residual of one buffer by all readings so far, or by this one if it is `alone`; and the
    /// processes for which it is not exact.
    fn residual(
        &mut self,
        one: &Assembled,
        verdict: ReadingVerdict,
        alone: bool,
        intersections: &mut Intersections,
    ) -> (Residual, Option<Suspects>) {
        let (number, now) = match verdict {
            ReadingVerdict::Fixed(residual) => return (residual, None),
            ReadingVerdict::Proved(number) if alone => return (Residual::Exact(number), None),
            ReadingVerdict::Proved(number) => (number, Ok(Suspects::default())),
            ReadingVerdict::Suspects(number, suspects) => (number, Ok(suspects)),
            ReadingVerdict::Disturbed(number, why) => (number, Err(why)),
        };
        let account = self.hasher.hash_one((&one.buffer.holders, one.buffer.count, number));
        let evidence = self.evidence.entry(one.buffer.id).or_insert(Evidence { account, suspects: None });
        if evidence.account != account {
            *evidence = Evidence { account, suspects: None };
        }
        let disturbed = match now {
            Ok(suspects) => {
                let suspects = match evidence.suspects.take() {
                    Some(before) => Suspects {
                        ran: intersections.of(before.ran, &suspects.ran),
                        only_holders: before.only_holders || suspects.only_holders,
                    },
                    None => suspects,
                };
                let is_none = suspects.is_none(&one.buffer.holders);
                evidence.suspects = Some(if is_none { Suspects::default() } else { suspects });
                Why::Ran
            }
            Err(why) => why,
        };
        match &evidence.suspects {
            Some(suspects) if suspects.ran.is_empty() => (Residual::Exact(number), None),
            Some(suspects) => (Residual::Estimate(number, Why::Ran), Some(suspects.clone())),
            None => (Residual::Estimate(number, disturbed), None),
        }
    }

    /// Which processes may hold buffers that were not found, where nothing lists the buffers; and
    /// whether another reading may clear more of them. It may not if this reading cleared none:
    /// those that are left change their mappings all the time.
    fn may_miss(
        &mut self,
        assembled: &[Assembled],
        interference: &Interference,
    ) -> (Option<BTreeSet<Pid>>, bool) {
        let mut ids = self.hasher.build_hasher();
        assembled.iter().for_each(|one| one.buffer.id.hash(&mut ids));
        let found = ids.finish();
        if self.found.replace(found).is_some_and(|before| before != found) {
            // The readings before are evidence about what they found, and this one found something
            // else.
            self.remapped = None;
        }
        let disturbed = interference.processes_changed || interference.exiting || interference.ran.is_none();
        // Processes whose calls could not be read are in the unreadable ones already.
        let in_call = interference.in_call.clone().unwrap_or_default();
        let now = (!disturbed).then(|| &interference.remapped | &in_call);
        let left = match (&self.remapped, now) {
            (Some(before), Some(now)) => Some(before & &now),
            (None, Some(now)) => Some(now),
            (_, None) => None,
        };
        let is_stuck = left.is_some() && left == self.remapped;
        self.remapped = left.or(self.remapped.take());
        match &self.remapped {
            Some(always) if always.is_empty() => (None, false),
            Some(always) => (Some(always.clone()), !is_stuck),
            None => (Some(BTreeSet::new()), true),
        }
    }
}

/// The residual, if only something that happened during the reading can make it wrong; else what
/// can be said of it.
fn undisturbed_residual(one: &Assembled, seen: &ReadingCoverage) -> Result<u64, Residual> {
    let Assembled { buffer, counted, uncompared } = one;
    let Some(count) = buffer.count else { return Err(Residual::Unknown(Why::NotCounted)) };
    let Some(number) = count.checked_sub(buffer.found()) else {
        return Err(Residual::Unknown(Why::Overcounted));
    };
    let kept_is_known = buffer.in_flight.is_some() && buffer.io_uring.is_some();
    let why = [
        (number > 0 && seen.gaps.hide_references(), Why::Unread),
        (*uncompared, Why::Uncompared),
        (!counted.stable, Why::CountMoved),
        (number > 0 && (seen.passed_over || !kept_is_known), Why::MaybeInFlight),
        (number == 0 && counted.pinned, Why::Pinned),
    ];
    match why.into_iter().find(|(applies, _)| *applies) {
        Some((_, why)) => Err(Residual::Estimate(number, why)),
        None => Ok(number),
    }
}

/// The processes that may have made a reading's residual wrong; `None`: there is none. An error:
/// something else may have.
fn suspects(
    one: &Assembled,
    number: u64,
    interference: &Interference,
    ran: Option<&Ran>,
) -> Result<Option<Suspects>, Why> {
    let Some(ran) = ran else { return Err(Why::NotWatched) };
    let holders = &one.buffer.holders;
    let that_ran = |only_holders| {
        Some(Suspects { ran: Rc::clone(ran), only_holders }).filter(|suspects| !suspects.is_none(holders))
    };
    if number == 0 {
        let in_message_or_ring =
            [one.buffer.in_flight, one.buffer.io_uring].into_iter().flatten().any(|kept| kept > 0);
        // Any process that ran may have sent a message and received it again.
        return Ok(that_ran(!in_message_or_ring));
    }
    match &interference.in_call {
        None => Err(Why::NotWatched),
        Some(_) if interference.moved => Err(Why::Moved),
        Some(in_call) if !in_call.is_empty() || interference.exiting => Err(Why::InCall),
        Some(_) if interference.processes_changed => Err(Why::ProcessesChanged),
        Some(_) => Ok(that_ran(false)),
    }
}

/// Whether another reading could give a better answer.
fn may_improve(one: &Assembled, why: Why, seen: &ReadingCoverage) -> bool {
    match why {
        Why::NotCounted | Why::Unread | Why::Pinned => false,
        Why::Uncompared | Why::MaybeInFlight => seen.passed_over,
        // One reading reads a segment's attachments once, so no other reading can show that they
        // did not change.
        Why::CountMoved => one.buffer.id.kind != Kind::Sysv,
        Why::Overcounted | Why::Moved | Why::InCall | Why::ProcessesChanged | Why::Ran | Why::NotWatched => {
            true
        }
    }
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "settle_model/mod.rs"]
mod model;
