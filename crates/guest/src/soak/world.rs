//! The truth: which process holds what at one moment, by the journal of the players.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::{Entry, Hold, Holds, JournalRecord, PlayerReport};
use super::names::{MEMFD, MEMFD_NAME};
use crate::make;

/// The properties of a buffer that do not change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) size: u64,
    pub(super) exporter: String,
}

/// The name that a buffer has when it is made.
pub(super) fn first_name(exporter: &str) -> &'static [u8] {
    if exporter == MEMFD { MEMFD_NAME } else { b"" }
}

/// The state of the world at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct SoakWorld {
    pub(super) made: BTreeMap<u64, Made>,
    names: BTreeMap<u64, Vec<u8>>,
    /// By process; only processes that hold something.
    pub(super) holds: BTreeMap<u32, Holds>,
    /// Messages that were sent and not received, with their buffers. Sender and receiver write
    /// their records in any order, so the number may be negative for a while.
    flying: BTreeMap<u64, (u64, i32)>,
}

/// References to one buffer that no process shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unseen {
    pub(super) in_flight: u64,
    pub(super) kernel: u64,
    /// How many devices are attached to the buffer.
    pub(super) attached: u64,
}

impl Unseen {
    /// All references that lsbuf cannot find in processes.
    pub(super) fn total(self) -> u64 {
        self.in_flight + self.kernel
    }
}

impl SoakWorld {
    /// Applies one step.
    pub(super) fn apply(&mut self, entry: &Entry) {
        match entry {
            Entry::Made { ino, size, exporter } => {
                self.made.insert(*ino, Made { size: *size, exporter: exporter.clone() });
                self.names.insert(*ino, first_name(exporter).to_vec());
            }
            Entry::Named { ino, name } => {
                self.names.insert(*ino, name.clone());
            }
            Entry::Holds { pid, ino, hold } if hold.is_nothing() => {
                if let Some(holds) = self.holds.get_mut(pid) {
                    holds.remove(ino);
                }
            }
            Entry::Holds { pid, ino, hold } => {
                self.holds.entry(*pid).or_default().insert(*ino, hold.clone());
            }
            Entry::Is { pid, holds } => {
                self.holds.insert(*pid, holds.clone());
            }
            Entry::Sent { message, ino } => self.fly(*message, *ino, 1),
            Entry::Received { message, ino } => self.fly(*message, *ino, -1),
            Entry::Gone { pid } => {
                self.holds.remove(pid);
            }
            Entry::Busy { .. } | Entry::Moved { .. } | Entry::Runs { .. } | Entry::Leaving { .. } => {}
        }
    }

    fn fly(&mut self, message: u64, ino: u64, by: i32) {
        let (_, copies) = self.flying.entry(message).or_insert((ino, 0));
        *copies += by;
        if *copies == 0 {
            self.flying.remove(&message);
        }
    }

    /// The world at `moment`, if `self` is the world before the first record.
    pub(super) fn at(&self, records: &[JournalRecord], moment: u64) -> SoakWorld {
        let mut world = self.clone();
        records.iter().filter(|record| record.ended < moment).for_each(|record| world.apply(&record.entry));
        world
    }

    /// Whether the buffer is a memfd.
    pub(super) fn is_memfd(&self, ino: u64) -> bool {
        self.made.get(&ino).is_some_and(|made| made.exporter == MEMFD)
    }

    /// The buffers that exist.
    pub(super) fn alive(&self) -> BTreeSet<u64> {
        let held = self.holds.values().flat_map(Holds::keys);
        held.chain(self.flying.values().map(|(ino, _)| ino)).copied().collect()
    }

    /// Removes buffers that no longer exist.
    pub(super) fn prune(&mut self) {
        let alive = self.alive();
        self.made.retain(|ino, _| alive.contains(ino));
        self.names.retain(|ino, _| alive.contains(ino));
        self.holds.retain(|_, holds| !holds.is_empty());
    }

    /// The buffer's name; empty if it has none.
    pub(super) fn name(&self, ino: u64) -> &[u8] {
        self.names.get(&ino).map_or(&[], Vec::as_slice)
    }

    /// The processes that show a reference to the buffer.
    pub(super) fn holders(&self, ino: u64) -> impl Iterator<Item = (u32, &Hold)> {
        let holds = self.holds.iter().filter_map(move |(&pid, holds)| Some((pid, holds.get(&ino)?)));
        holds.filter(|(_, hold)| !hold.is_unseen())
    }

    /// How many messages are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// The references to the buffer that no process shows.
    pub(super) fn unseen(&self, ino: u64) -> Unseen {
        let handles = self.holds.values().filter_map(|holds| holds.get(&ino)).filter(|hold| hold.handle);
        let handles = handles.count() as u64;
        let own = self.made.get(&ino).is_some_and(|made| made.exporter == make::DRM);
        // Each open device's table of handles has one reference. A GEM object that was exported has
        // one more for all devices together. An imported buffer is a separate object in each
        // device; that object has a reference of its own and one for its attachment.
        let kernel = if own { handles + u64::from(handles > 0) } else { 3 * handles };
        let in_flight = self.flying.values().filter(|(flying, _)| *flying == ino).count() as u64;
        Unseen { in_flight, kernel, attached: if own { 0 } else { handles } }
    }

    /// The numbers of references by fds and mappings: counted ones, and those by `O_PATH`.
    pub(super) fn seen(&self, ino: u64) -> (u64, u64) {
        let sum = |f: fn(&Hold) -> usize| self.holders(ino).map(|(_, hold)| f(hold)).sum::<usize>() as u64;
        (sum(|hold| hold.fds.len() + hold.maps.len()), sum(|hold| hold.opaths.len()))
    }

    /// The first difference between the players' reports and the journal, which is a mistake of the
    /// soak test itself.
    pub(super) fn differs(&self, report: &PlayerReport) -> Option<String> {
        let nonempty = |holds: &BTreeMap<u32, Holds>| {
            let mut holds = holds.clone();
            holds.retain(|_, holds| !holds.is_empty());
            holds
        };
        let (journal, report) = (nonempty(&self.holds), nonempty(report));
        let pids: BTreeSet<&u32> = journal.keys().chain(report.keys()).collect();
        let pid = pids.into_iter().find(|pid| journal.get(pid) != report.get(pid))?;
        Some(format!(
            "process {pid} wrote down {:?} and reports {:?}",
            journal.get(pid).unwrap_or(&Holds::new()),
            report.get(pid).unwrap_or(&Holds::new()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd(number: u32, handle: bool) -> Hold {
        Hold { fds: [number].into(), handle, ..Hold::default() }
    }

    fn made(exporter: &str) -> SoakWorld {
        let mut world = SoakWorld::default();
        world.apply(&Entry::Made { ino: 7, size: 4096, exporter: exporter.to_owned() });
        world.apply(&Entry::Holds { pid: 1, ino: 7, hold: fd(3, true) });
        world
    }

    /// Check that a handle counts as the exporter's own, or as an import.
    #[test]
    fn handles() {
        assert_eq!(made(make::DRM).unseen(7), Unseen { kernel: 2, ..Unseen::default() });
        assert_eq!(made(make::HEAP).unseen(7), Unseen { kernel: 3, attached: 1, ..Unseen::default() });
        let mut shared = made(make::DRM);
        shared.apply(&Entry::Holds { pid: 2, ino: 7, hold: fd(3, true) });
        assert_eq!(shared.unseen(7).kernel, 3);
    }

    /// Check that a message keeps its buffer alive until it is received, in whatever order sending
    /// and receiving were recorded.
    #[test]
    fn messages() {
        let (sent, received) = (Entry::Sent { message: 9, ino: 7 }, Entry::Received { message: 9, ino: 7 });
        let mut world = made(make::HEAP);
        world.apply(&Entry::Gone { pid: 1 });
        assert!(world.alive().is_empty());
        world.apply(&sent);
        assert!(world.alive().contains(&7));
        assert_eq!(world.unseen(7).total(), 1);
        world.apply(&received);
        world.apply(&received);
        world.apply(&sent);
        assert!(world.alive().is_empty());
    }

    /// Check that a step counts only if it was over before the moment.
    #[test]
    fn moments() {
        let record = |ended, entry| JournalRecord { began: ended - 1, ended, entry };
        let records = [
            record(10, Entry::Made { ino: 7, size: 1, exporter: make::HEAP.to_owned() }),
            record(20, Entry::Holds { pid: 1, ino: 7, hold: fd(3, false) }),
        ];
        assert!(SoakWorld::default().at(&records, 20).alive().is_empty());
        assert!(SoakWorld::default().at(&records, 21).alive().contains(&7));
    }
}
