//! Everything that existed between two pauses, and when each buffer was touched.
//!
//! An answer about a moving world can only be judged by what was possible: every reference that
//! ever existed, and the buffers that no step touched during the scan.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Entry, Hold, Holds, JournalRecord};
use super::world::{Made, SoakWorld, first_name};

/// A span of time in which a step touched a buffer.
#[derive(Clone, Copy, Debug)]
struct Touch {
    ino: u64,
    /// The process whose references were touched, if it was a process's.
    pid: Option<u32>,
    began: u64,
    ended: u64,
    /// Whether references that no process shows may have appeared or gone.
    unseen: bool,
}

/// Everything between two pauses.
#[derive(Debug)]
pub(super) struct History {
    /// The world at the first pause.
    pub(super) start: SoakWorld,
    pub(super) records: Vec<JournalRecord>,
    pub(super) made: BTreeMap<u64, Made>,
    names: BTreeMap<u64, BTreeSet<Vec<u8>>>,
    held: BTreeMap<(u32, u64), Hold>,
    touches: Vec<Touch>,
}

impl History {
    /// Collects what happened after `start`.
    pub(super) fn of(start: SoakWorld, records: Vec<JournalRecord>) -> History {
        let mut history = History {
            made: start.made.clone(),
            names: start.made.keys().map(|&ino| (ino, [start.name(ino).to_vec()].into())).collect(),
            held: BTreeMap::new(),
            touches: Vec::new(),
            start,
            records,
        };
        for (&pid, holds) in &history.start.holds {
            absorb(&mut history.held, pid, holds);
        }
        let mut world = history.start.clone();
        let mut leaving = BTreeMap::new();
        for record in &history.records {
            match &record.entry {
                Entry::Made { ino, size, exporter } => {
                    history.made.insert(*ino, Made { size: *size, exporter: exporter.clone() });
                    history.names.insert(*ino, [first_name(exporter).to_vec()].into());
                }
                Entry::Named { ino, name } => {
                    history.names.entry(*ino).or_default().insert(name.clone());
                }
                Entry::Holds { pid, ino, hold } | Entry::Moved { pid, ino, way: hold } => {
                    history.held.entry((*pid, *ino)).or_default().absorb(hold);
                }
                Entry::Is { pid, holds } => absorb(&mut history.held, *pid, holds),
                Entry::Leaving { pid } => {
                    leaving.insert(*pid, record.began);
                }
                Entry::Sent { .. }
                | Entry::Received { .. }
                | Entry::Busy { .. }
                | Entry::Runs { .. }
                | Entry::Gone { .. } => {}
            }
            let began = match &record.entry {
                Entry::Gone { pid } => leaving.remove(pid).unwrap_or(record.began),
                Entry::Leaving { .. } => continue,
                Entry::Made { .. }
                | Entry::Named { .. }
                | Entry::Holds { .. }
                | Entry::Is { .. }
                | Entry::Sent { .. }
                | Entry::Received { .. }
                | Entry::Moved { .. }
                | Entry::Runs { .. }
                | Entry::Busy { .. } => record.began,
            };
            let touched = touched_by(&record.entry, &world);
            history.touches.extend(touched.into_iter().map(|(ino, pid, unseen)| Touch {
                ino,
                pid,
                began,
                ended: record.ended,
                unseen,
            }));
            world.apply(&record.entry);
        }
        history
    }

    /// What that process ever held of the buffer.
    pub(super) fn held(&self, pid: u32, ino: u64) -> Option<&Hold> {
        self.held.get(&(pid, ino))
    }

    /// Whether the process ever held anything.
    pub(super) fn was_holder(&self, pid: u32) -> bool {
        self.held.range((pid, 0)..=(pid, u64::MAX)).next().is_some()
    }

    /// Every name that the buffer ever had.
    pub(super) fn names(&self, ino: u64) -> impl Iterator<Item = &[u8]> {
        self.names.get(&ino).into_iter().flatten().map(Vec::as_slice)
    }

    /// The buffers that a step touched in that span.
    pub(super) fn touched(&self, from: u64, to: u64) -> BTreeSet<u64> {
        self.touches_in(from, to).map(|touch| touch.ino).collect()
    }

    /// The buffers for which references that no process shows may have appeared or gone in that
    /// span.
    pub(super) fn touched_unseen(&self, from: u64, to: u64) -> BTreeSet<u64> {
        self.touches_in(from, to).filter(|touch| touch.unseen).map(|touch| touch.ino).collect()
    }

    /// The processes whose references to the buffer a step touched in that span.
    pub(super) fn touched_holders(&self, ino: u64, from: u64, to: u64) -> BTreeSet<u32> {
        self.touches_in(from, to).filter(|touch| touch.ino == ino).filter_map(|touch| touch.pid).collect()
    }

    /// The smallest number of counted references to the buffer that processes can have had in that
    /// span: the sum of each process's minimum. `before` is the world when the span began.
    pub(super) fn least(&self, before: &SoakWorld, ino: u64, from: u64, to: u64) -> u64 {
        let counted = |hold: &Hold| (hold.fds.len() + hold.maps.len()) as u64;
        let mut least: BTreeMap<u32, u64> =
            before.holders(ino).map(|(pid, hold)| (pid, counted(hold))).collect();
        for record in self.records.iter().filter(|r| r.began <= to && r.ended >= from) {
            let (pid, left) = match &record.entry {
                Entry::Holds { pid, ino: of, hold } if *of == ino => (pid, counted(hold)),
                Entry::Is { pid, holds } => (pid, holds.get(&ino).map_or(0, counted)),
                Entry::Leaving { pid } | Entry::Gone { pid } => (pid, 0),
                _ => continue,
            };
            least.entry(*pid).and_modify(|fewest| *fewest = left.min(*fewest));
        }
        // A process that has announced its end may exit at any time.
        let began_to_leave = |r: &&JournalRecord| matches!(r.entry, Entry::Leaving { .. }) && r.began <= to;
        for record in self.records.iter().filter(began_to_leave) {
            if let Entry::Leaving { pid } = &record.entry {
                least.remove(pid);
            }
        }
        least.values().sum()
    }

    /// The buffers that certainly still existed at that moment. A step that had begun counts as
    /// done.
    pub(super) fn survivors(&self, moment: u64) -> BTreeSet<u64> {
        let mut world = self.start.clone();
        for record in self.records.iter().filter(|record| record.began <= moment) {
            match &record.entry {
                Entry::Leaving { pid } => world.apply(&Entry::Gone { pid: *pid }),
                entry => world.apply(entry),
            }
        }
        world.alive()
    }

    /// Whether two things happened in that span: one process got references to the buffer and
    /// another one lost some, and both moved references to it within themselves. This is the limit
    /// of several readings that lsbuf's documents state.
    pub(super) fn changed_hands_in_motion(&self, before: &SoakWorld, ino: u64, from: u64, to: u64) -> bool {
        let (mut movers, mut takers, mut givers) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut counts: BTreeMap<u32, usize> =
            before.holders(ino).map(|(pid, hold)| (pid, hold.fds.len() + hold.maps.len())).collect();
        for record in self.records.iter().filter(|r| r.began <= to && r.ended >= from) {
            let (pid, now) = match &record.entry {
                Entry::Moved { pid, ino: of, .. } if *of == ino => {
                    movers.insert(*pid);
                    continue;
                }
                Entry::Holds { pid, ino: of, hold } if *of == ino => (*pid, hold.fds.len() + hold.maps.len()),
                Entry::Is { pid, holds } => {
                    (*pid, holds.get(&ino).map_or(0, |hold| hold.fds.len() + hold.maps.len()))
                }
                Entry::Leaving { pid } | Entry::Gone { pid } => (*pid, 0),
                _ => continue,
            };
            let had = counts.insert(pid, now).unwrap_or(0);
            if now > had {
                takers.insert(pid);
            } else if now < had {
                givers.insert(pid);
            }
        }
        let [takers, givers] = [takers, givers].map(|pids| &pids & &movers);
        takers.iter().any(|taker| givers.iter().any(|giver| giver != taker))
    }

    fn touches_in(&self, from: u64, to: u64) -> impl Iterator<Item = &Touch> {
        self.touches.iter().filter(move |touch| touch.began <= to && touch.ended >= from)
    }

    /// The steps around that span that concern the buffer, to explain an error.
    pub(super) fn story(&self, ino: u64, from: u64, to: u64) -> String {
        let concerns = |record: &&JournalRecord| match &record.entry {
            Entry::Made { ino: of, .. }
            | Entry::Named { ino: of, .. }
            | Entry::Holds { ino: of, .. }
            | Entry::Sent { ino: of, .. }
            | Entry::Received { ino: of, .. }
            | Entry::Moved { ino: of, .. }
            | Entry::Busy { ino: of } => *of == ino,
            Entry::Is { holds, .. } => holds.contains_key(&ino),
            Entry::Runs { pid } | Entry::Leaving { pid } | Entry::Gone { pid } => {
                self.held(*pid, ino).is_some()
            }
        };
        let near =
            |record: &&JournalRecord| record.began <= to && record.ended.saturating_add(20_000_000) >= from;
        let micros = |time: u64| (i128::from(time) - i128::from(from)) / 1000;
        let line = |record: &JournalRecord| {
            let entry = match &record.entry {
                Entry::Is { pid, holds } => format!("Is {{ pid: {pid}, {:?} }}", holds.get(&ino)),
                Entry::Moved { pid, way, .. } => {
                    format!("Moved {{ pid: {pid}, {} fds, {} maps }}", way.fds.len(), way.maps.len())
                }
                entry => format!("{entry:?}"),
            };
            format!("    {:>8}..{:<8} µs {entry}\n", micros(record.began), micros(record.ended))
        };
        self.records.iter().filter(concerns).filter(near).take(60).map(line).collect()
    }
}

fn absorb(held: &mut BTreeMap<(u32, u64), Hold>, pid: u32, holds: &Holds) {
    for (&ino, hold) in holds {
        held.entry((pid, ino)).or_default().absorb(hold);
    }
}

/// The buffers that a step touches: for each, the process whose references it touches, and whether
/// it may touch references that no process shows. `before` is the world before the step.
fn touched_by(entry: &Entry, before: &SoakWorld) -> Vec<(u64, Option<u32>, bool)> {
    let whose = |pid: u32| move |(&ino, hold): (&u64, &Hold)| (ino, Some(pid), hold.handle);
    let all_of = |pid: &u32| before.holds.get(pid).into_iter().flatten().map(whose(*pid));
    match entry {
        Entry::Made { ino, .. }
        | Entry::Busy { ino }
        | Entry::Sent { ino, .. }
        | Entry::Received { ino, .. } => {
            vec![(*ino, None, true)]
        }
        Entry::Named { ino, .. } => vec![(*ino, None, false)],
        Entry::Holds { pid, ino, .. } | Entry::Moved { pid, ino, .. } => vec![(*ino, Some(*pid), false)],
        Entry::Is { pid, holds } => holds.iter().map(whose(*pid)).chain(all_of(pid)).collect(),
        Entry::Runs { pid } | Entry::Gone { pid } => all_of(pid).collect(),
        Entry::Leaving { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd(number: u32) -> Hold {
        Hold { fds: [number].into(), ..Hold::default() }
    }

    fn history() -> History {
        let record = |began, ended, entry| JournalRecord { began, ended, entry };
        History::of(
            SoakWorld::default(),
            vec![
                record(10, 11, Entry::Made { ino: 7, size: 1, exporter: "system".into() }),
                record(10, 12, Entry::Holds { pid: 1, ino: 7, hold: fd(3) }),
                record(20, 21, Entry::Named { ino: 7, name: b"x".to_vec() }),
                record(30, 31, Entry::Holds { pid: 1, ino: 7, hold: fd(4) }),
                record(34, 36, Entry::Runs { pid: 1 }),
                record(40, 41, Entry::Leaving { pid: 1 }),
                record(50, 51, Entry::Gone { pid: 1 }),
            ],
        )
    }

    /// Check that everything that ever existed is known, and nothing else.
    #[test]
    fn whatever_was() {
        let history = history();
        assert_eq!(history.held(1, 7).unwrap().fds, [3, 4].into());
        assert!(history.held(2, 7).is_none() && history.was_holder(1) && !history.was_holder(2));
        assert_eq!(history.names(7).collect::<Vec<_>>(), [&b""[..], b"x"]);
    }

    /// Check that a buffer counts as touched from a step's beginning to its end, and while its
    /// holder executes another program or exits.
    #[test]
    fn touches() {
        let history = history();
        assert!(history.touched(13, 19).is_empty());
        assert!(history.touched(13, 20).contains(&7) && history.touched(21, 29).contains(&7));
        assert!(history.touched(32, 33).is_empty() && history.touched(37, 39).is_empty());
        assert!(history.touched(35, 35).contains(&7) && history.touched_unseen(35, 35).is_empty());
        assert!(history.touched(45, 46).contains(&7));
        assert!(history.touched_unseen(20, 31).is_empty() && history.touched_unseen(11, 11).contains(&7));
    }

    /// Check that a buffer certainly survives a moment only if no step that had begun by then can
    /// have freed it.
    #[test]
    fn survivors() {
        let history = history();
        assert!(history.survivors(30).contains(&7));
        assert!(!history.survivors(40).contains(&7), "its holder was leaving");
    }

    /// Check that the minimum of each process counts, and that a process about to end counts as 0.
    #[test]
    fn least() {
        let history = history();
        let at = |moment: u64| history.start.at(&history.records, moment);
        assert_eq!(history.least(&at(15), 7, 15, 35), 1);
        assert_eq!(history.least(&at(35), 7, 35, 45), 0);
        assert_eq!(history.touched_holders(7, 30, 30), [1].into());
    }
}
