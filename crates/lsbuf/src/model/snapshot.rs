//! One answer: the buffers, who holds them, and how much of the machine was seen.
//!
//! Coverage is part of the answer. Every reason for which it may be incomplete is a [`Note`], and an
//! answer is complete exactly when no note says otherwise.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::{Buffer, BufferId, Device, HiddenRefs, Kinds, Note, Pid, Process, Source};

/// Everything that one scan found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Wall clock when the scan began.
    pub taken_at: SystemTime,
    /// Where it was taken.
    pub host: Host,
    /// Which kinds of buffer were looked for.
    pub kinds: Kinds,
    /// How much of the machine was seen.
    pub coverage: Coverage,
    /// Every buffer found, ordered by identity.
    pub buffers: Vec<Buffer>,
    /// Every process that holds one, or a sync_file, ordered by pid. Every holder of every buffer is in here.
    pub processes: Vec<Process>,
    /// Every open device node whose driver could hold buffers, ordered by path.
    pub devices: Vec<Device>,
}

impl Snapshot {
    /// The process of that id; `None`: it holds nothing, or was not found.
    #[must_use]
    pub fn process(&self, pid: Pid) -> Option<&Process> {
        self.process_index(pid).map(|index| &self.processes[index])
    }

    pub(super) fn process_index(&self, pid: Pid) -> Option<usize> {
        self.processes.binary_search_by_key(&pid, |process| process.pid).ok()
    }

    /// The buffer of that identity.
    #[must_use]
    pub fn buffer(&self, id: &BufferId) -> Option<&Buffer> {
        let index = self.buffers.binary_search_by(|buffer| buffer.id.cmp(id)).ok()?;
        Some(&self.buffers[index])
    }
}

/// The machine and the boot. Inode numbers mean nothing across boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Host {
    /// `kernel.hostname`.
    pub hostname: Option<String>,
    /// `kernel.osrelease`.
    pub kernel: Option<String>,
    /// `kernel.random.boot_id`.
    pub boot_id: Option<String>,
}

/// How much of the machine an answer speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coverage {
    /// What the answer was made from.
    pub sources: Vec<Source>,
    /// What became of the processes that procfs listed.
    pub processes: ProcessCounts,
    /// The unreadable ones, ordered by pid.
    pub unreadable: Vec<Pid>,
    /// What was not seen.
    pub gaps: Gaps,
    /// Files that are in no fd table, as far as the kernel counts them; `None`: not looked for.
    pub hidden_refs: Option<HiddenRefs>,
    /// Wall time from the first question to the joined answer.
    pub duration: Duration,
    /// What a reader must know to trust the figures: the gaps and the residuals' reasons in words. No
    /// figure follows from these.
    pub notes: Vec<Note>,
}

impl Coverage {
    /// Whether every process and the kernel's own list were read, and nothing contradicted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.notes.iter().any(Note::is_partial)
    }

    /// Whether no reference can have stayed unseen in a process: what an exact residual needs.
    #[must_use]
    pub fn saw_every_process(&self) -> bool {
        !self.gaps.hide_references()
    }
}

/// What a scan did not see, as facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gaps {
    /// Processes that refused to be read for want of permission.
    pub denied: u64,
    /// Processes that could not be read because of any other error.
    pub failed: u64,
    /// Processes of which reading would have waited for longer than is allowed: their mappings were
    /// left out.
    pub stuck: Vec<Pid>,
    /// The procfs shows no kernel threads: it is a container's, or hides other users' processes.
    pub not_whole_machine: bool,
    /// Processes that kept appearing faster than they could be read.
    pub newcomers: u64,
    /// Text that did not parse, by where it stood; each such fact was dropped.
    pub malformed: BTreeMap<Source, u64>,
    /// Fds and mappings named like a dma-buf's that could neither be proven nor ruled out.
    pub unproven: u64,
}

impl Gaps {
    /// Whether a process may have references that were not seen.
    #[must_use]
    pub fn hide_references(&self) -> bool {
        let Gaps { denied, failed, stuck, not_whole_machine, newcomers, malformed, unproven } = self;
        denied + failed + newcomers + unproven > 0
            || *not_whole_machine
            || !stuck.is_empty()
            || !malformed.is_empty()
    }
}

/// `total` = `read` + `unreadable` + `vanished`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessCounts {
    /// Processes that procfs listed, kernel threads among them.
    pub total: u64,
    /// Both their fd table and their mappings were read.
    pub read: u64,
    /// At least one of the two was refused.
    pub unreadable: u64,
    /// Gone before they were read; what they held went with them.
    pub vanished: u64,
}
