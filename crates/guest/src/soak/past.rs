//! What ever was between two pauses, and when which buffer was touched.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Entry, Hold, Holds, Record};
use super::world::{Made, World};

/// A span of time in which something was done to a buffer.
#[derive(Clone, Copy, Debug)]
struct Touch {
    ino: u64,
    began: u64,
    ended: u64,
    /// References that no process shows may have come or gone.
    unseen: bool,
}

/// Everything between two pauses.
#[derive(Debug)]
pub(super) struct Past {
    /// The world at the first pause.
    pub(super) start: World,
    pub(super) records: Vec<Record>,
    pub(super) made: BTreeMap<u64, Made>,
    names: BTreeMap<u64, BTreeSet<Vec<u8>>>,
    held: BTreeMap<(u32, u64), Hold>,
    touches: Vec<Touch>,
}

impl Past {
    /// Puts together what happened after `start`.
    pub(super) fn of(start: World, records: Vec<Record>) -> Past {
        let mut past = Past {
            made: start.made.clone(),
            names: start.made.keys().map(|&ino| (ino, [start.name(ino).to_vec()].into())).collect(),
            held: BTreeMap::new(),
            touches: Vec::new(),
            start,
            records,
        };
        for (&pid, holds) in &past.start.holds {
            absorb(&mut past.held, pid, holds);
        }
        let mut world = past.start.clone();
        let mut leaving = BTreeMap::new();
        for record in &past.records {
            match &record.entry {
                Entry::Made { ino, size, exporter } => {
                    past.made.insert(*ino, Made { size: *size, exporter: exporter.clone() });
                    past.names.insert(*ino, [Vec::new()].into());
                }
                Entry::Named { ino, name } => {
                    past.names.entry(*ino).or_default().insert(name.clone());
                }
                Entry::Holds { pid, ino, hold } => past.held.entry((*pid, *ino)).or_default().absorb(hold),
                Entry::Is { pid, holds } => absorb(&mut past.held, *pid, holds),
                Entry::Leaving { pid } => {
                    leaving.insert(*pid, record.began);
                }
                Entry::Sent { .. } | Entry::Received { .. } | Entry::Busy { .. } | Entry::Gone { .. } => {}
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
                | Entry::Busy { .. } => record.began,
            };
            let touched = touched_by(&record.entry, &world);
            past.touches.extend(touched.into_iter().map(|(ino, unseen)| Touch {
                ino,
                began,
                ended: record.ended,
                unseen,
            }));
            world.apply(&record.entry);
        }
        past
    }

    /// What that process ever held of that buffer.
    pub(super) fn held(&self, pid: u32, ino: u64) -> Option<&Hold> {
        self.held.get(&(pid, ino))
    }

    /// Whether that process ever held anything.
    pub(super) fn was_holder(&self, pid: u32) -> bool {
        self.held.range((pid, 0)..=(pid, u64::MAX)).next().is_some()
    }

    /// Every name that the buffer ever had.
    pub(super) fn names(&self, ino: u64) -> impl Iterator<Item = &[u8]> {
        self.names.get(&ino).into_iter().flatten().map(Vec::as_slice)
    }

    /// The buffers that somebody touched in that span.
    pub(super) fn touched(&self, from: u64, to: u64) -> BTreeSet<u64> {
        self.touches_in(from, to).map(|touch| touch.ino).collect()
    }

    /// The buffers of which references that no process shows may have come or gone in that span.
    pub(super) fn touched_unseen(&self, from: u64, to: u64) -> BTreeSet<u64> {
        self.touches_in(from, to).filter(|touch| touch.unseen).map(|touch| touch.ino).collect()
    }

    fn touches_in(&self, from: u64, to: u64) -> impl Iterator<Item = &Touch> {
        self.touches.iter().filter(move |touch| touch.began <= to && touch.ended >= from)
    }

    /// The steps around that span that had to do with the buffer, for an explanation.
    pub(super) fn story(&self, ino: u64, from: u64, to: u64) -> String {
        let concerns = |record: &&Record| match &record.entry {
            Entry::Made { ino: of, .. }
            | Entry::Named { ino: of, .. }
            | Entry::Holds { ino: of, .. }
            | Entry::Sent { ino: of, .. }
            | Entry::Received { ino: of, .. }
            | Entry::Busy { ino: of } => *of == ino,
            Entry::Is { holds, .. } => holds.contains_key(&ino),
            Entry::Leaving { pid } | Entry::Gone { pid } => self.held(*pid, ino).is_some(),
        };
        let near = |record: &&Record| record.began <= to && record.ended.saturating_add(20_000_000) >= from;
        let micros = |time: u64| (i128::from(time) - i128::from(from)) / 1000;
        let line = |record: &Record| {
            let entry = match &record.entry {
                Entry::Is { pid, holds } => format!("Is {{ pid: {pid}, {:?} }}", holds.get(&ino)),
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

/// The buffers that a step touched, in the world before it, and whether it may have touched what no process shows.
fn touched_by(entry: &Entry, before: &World) -> Vec<(u64, bool)> {
    let all_of =
        |pid: &u32| before.holds.get(pid).into_iter().flatten().map(|(&ino, hold)| (ino, hold.handle));
    match entry {
        Entry::Made { ino, .. }
        | Entry::Busy { ino }
        | Entry::Sent { ino, .. }
        | Entry::Received { ino, .. } => {
            vec![(*ino, true)]
        }
        Entry::Named { ino, .. } | Entry::Holds { ino, .. } => vec![(*ino, false)],
        Entry::Is { pid, holds } => {
            holds.iter().map(|(&ino, hold)| (ino, hold.handle)).chain(all_of(pid)).collect()
        }
        Entry::Gone { pid } => all_of(pid).collect(),
        Entry::Leaving { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd(number: u32) -> Hold {
        Hold { fds: [number].into(), ..Hold::default() }
    }

    fn past() -> Past {
        let record = |began, ended, entry| Record { began, ended, entry };
        Past::of(
            World::default(),
            vec![
                record(10, 11, Entry::Made { ino: 7, size: 1, exporter: "system".into() }),
                record(10, 12, Entry::Holds { pid: 1, ino: 7, hold: fd(3) }),
                record(20, 21, Entry::Named { ino: 7, name: b"x".to_vec() }),
                record(30, 31, Entry::Holds { pid: 1, ino: 7, hold: fd(4) }),
                record(40, 41, Entry::Leaving { pid: 1 }),
                record(50, 51, Entry::Gone { pid: 1 }),
            ],
        )
    }

    /// Check that everything that ever was is known, and nothing else.
    #[test]
    fn whatever_was() {
        let past = past();
        assert_eq!(past.held(1, 7).unwrap().fds, [3, 4].into());
        assert!(past.held(2, 7).is_none() && past.was_holder(1) && !past.was_holder(2));
        assert_eq!(past.names(7).collect::<Vec<_>>(), [&b""[..], b"x"]);
    }

    /// Check that a buffer counts as touched from a step's beginning to its end, and while its holder ends.
    #[test]
    fn touches() {
        let past = past();
        assert!(past.touched(13, 19).is_empty());
        assert!(past.touched(13, 20).contains(&7) && past.touched(21, 29).contains(&7));
        assert!(past.touched(32, 39).is_empty() && past.touched(45, 46).contains(&7));
        assert!(past.touched_unseen(20, 31).is_empty() && past.touched_unseen(11, 11).contains(&7));
    }
}
