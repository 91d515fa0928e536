//! The journal: what happened in the world, written by the processes that did it.
//!
//! All processes append to one file, one line for each step, when the step is done. A line has the
//! times at which the step began and ended. From the journal the conductor knows every state since
//! the last pause, the world at any moment, and the buffers that no step touched.
//!
//! Limits: each process writes its own steps in their order. Between processes the order of the
//! lines means nothing; their times do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use anyhow::Context;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What a player and its children hold.
pub(super) type PlayerReport = BTreeMap<u32, Holds>;

/// The path of the journal.
const PATH: &str = "/dev/shm/soak-journal";

/// The time in nanoseconds, by a clock that all processes share.
pub(super) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// One process's references to one buffer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Hold {
    pub(super) fds: BTreeSet<u32>,
    pub(super) opaths: BTreeSet<u32>,
    /// Start address, end address, and offset in the buffer.
    pub(super) maps: BTreeSet<(usize, usize, u64)>,
    /// Whether the process's open DRM device has a GEM handle of the buffer.
    pub(super) handle: bool,
}

impl Hold {
    /// Whether no reference is one that `/proc` shows.
    pub(super) fn is_unseen(&self) -> bool {
        self.fds.is_empty() && self.opaths.is_empty() && self.maps.is_empty()
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.is_unseen() && !self.handle
    }

    /// Adds everything that `other` has.
    pub(super) fn absorb(&mut self, other: &Hold) {
        self.fds.extend(&other.fds);
        self.opaths.extend(&other.opaths);
        self.maps.extend(&other.maps);
        self.handle |= other.handle;
    }
}

/// What one process holds, by inode number.
pub(super) type Holds = BTreeMap<u64, Hold>;

/// What a step did.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum Entry {
    /// A buffer was made.
    Made { ino: u64, size: u64, exporter: String },
    /// The buffer got this name.
    Named { ino: u64, name: Vec<u8> },
    /// The process now holds exactly this of the buffer, possibly nothing.
    Holds { pid: u32, ino: u64, hold: Hold },
    /// The process now holds exactly this, of all buffers: it was forked, or it called exec.
    Is { pid: u32, holds: Holds },
    /// A message with the buffer was sent.
    Sent { message: u64, ino: u64 },
    /// The message was received.
    Received { message: u64, ino: u64 },
    /// The process moved a reference to the buffer within itself. `way` has every place that the
    /// reference had in between.
    Moved { pid: u32, ino: u64, way: Hold },
    /// The kernel may have held an additional reference to the buffer for a moment.
    Busy { ino: u64 },
    /// The process executed another program, or the same again, and holds what it held.
    Runs { pid: u32 },
    /// The process is about to end.
    Leaving { pid: u32 },
    /// The process has ended and is reaped.
    Gone { pid: u32 },
}

/// A step with its times.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct JournalRecord {
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) entry: Entry,
}

/// The journal, open for appending.
#[derive(Debug)]
pub(super) struct Journal(File);

impl Journal {
    /// Opens the journal, and makes it if there is none.
    pub(super) fn open() -> anyhow::Result<Journal> {
        Journal::at(Path::new(PATH))
    }

    fn at(path: &Path) -> anyhow::Result<Journal> {
        let file = File::options().read(true).append(true).create(true).open(path);
        Ok(Journal(file.with_context(|| format!("opening {}", path.display()))?))
    }

    /// Appends what a step that began at `began` did.
    pub(super) fn note(&self, began: u64, entries: Vec<Entry>) -> anyhow::Result<()> {
        let ended = now();
        let mut text = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut text, &JournalRecord { began, ended, entry })?;
            text.push(b'\n');
        }
        // The file system appends one write as a whole.
        (&self.0).write_all(&text).context("writing the journal")
    }

    /// Reads all records and empties the journal. No other process may be writing.
    pub(super) fn take(&mut self) -> anyhow::Result<Vec<JournalRecord>> {
        let mut text = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut text).context("reading the journal")?;
        self.0.set_len(0).context("emptying the journal")?;
        text.lines().map(|line| serde_json::from_str(line).context("understanding the journal")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each record is taken once, in order.
    #[test]
    fn taken_once() {
        let path = std::env::temp_dir().join(format!("soak-journal-{}", std::process::id()));
        let mut journal = Journal::at(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let holds = Holds::from([(7, Hold { fds: [3].into(), ..Hold::default() })]);
        let began = now();
        journal
            .note(began, vec![Entry::Is { pid: 1, holds: holds.clone() }, Entry::Busy { ino: 7 }])
            .unwrap();
        let records = journal.take().unwrap();
        assert!(matches!(&records[0].entry, Entry::Is { pid: 1, holds: read } if *read == holds));
        assert!(matches!(records[1].entry, Entry::Busy { ino: 7 }));
        assert!(records[0].began == began && records[0].ended >= began);
        assert!(journal.take().unwrap().is_empty());
    }
}
