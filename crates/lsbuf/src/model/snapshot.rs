//! One answer: the buffers, their holders, and how much of the machine was read.
//!
//! Coverage is part of the answer. Every reason why the answer may be incomplete is a [`Note`], and
//! an answer is complete exactly when no note says otherwise.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::{
    Buffer, BufferId, Detail, Details, Dev, Device, HiddenRefs, Kinds, Label, Note, Origin, Pid, Process,
    Source, UnheldList,
};

/// Everything that one scan found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Wall clock when the scan began.
    pub taken_at: SystemTime,
    /// The machine and the boot.
    pub host: Host,
    /// The kinds that were looked for.
    pub kinds: Kinds,
    /// How much of the machine was read.
    pub coverage: Coverage,
    /// Every buffer that was found, ordered by identity.
    pub buffers: Vec<Buffer>,
    /// The files of each tmpfs and hugetlbfs that nobody holds, if they were asked for
    /// ([`Options::unheld`](crate::scan::Options::unheld)). They are in no total. `None`: they were
    /// not asked for, or cannot be listed here.
    pub unheld: Option<UnheldList>,
    /// Every process that holds a buffer or a sync_file, ordered by pid. Each holder of each buffer
    /// is in this list.
    pub processes: Vec<Process>,
    /// Every open device node whose driver could hold buffers, ordered by path.
    pub devices: Vec<Device>,
    /// Where the filesystems of tmpfs and hugetlbfs files are mounted, as far as
    /// [`Detail::MountPoints`](super::Detail::MountPoints) was asked for. Where only a holder's
    /// mount table has one, the path is that holder's.
    pub mount_points: BTreeMap<Dev, Label>,
}

impl Snapshot {
    /// Leaves out buffers of other kinds, and processes that hold none of those that are left and
    /// no sync_file.
    pub fn keep_kinds(&mut self, kinds: Kinds) {
        if self.kinds.iter().all(|kind| kinds.has(kind)) {
            return;
        }
        self.kinds = self.kinds.iter().filter(|&kind| kinds.has(kind)).collect();
        self.buffers.retain(|buffer| kinds.has(buffer.id.kind));
        let holds: std::collections::BTreeSet<Pid> =
            self.buffers.iter().flat_map(|buffer| &buffer.holders).map(|holder| holder.pid).collect();
        self.processes.retain(|p| holds.contains(&p.pid) || p.sync_files.is_some_and(|files| files > 0));
    }

    /// Leaves out the details that are not in the set.
    pub fn keep_details(&mut self, wanted: Details) {
        for process in &mut self.processes {
            let known = process.details.take().filter(|_| wanted.has_any_of_processes());
            process.details = known.map(|mut details| {
                details.keep(wanted);
                details
            });
        }
        if !wanted.has(Detail::SegmentUsers) {
            for segment in self.buffers.iter_mut().filter_map(|buffer| buffer.segment.as_deref_mut()) {
                (segment.creator_comm, segment.last_comm) = (None, None);
            }
        }
        if !wanted.has(Detail::MountPoints) {
            self.mount_points.clear();
        }
        for buffer in self.buffers.iter_mut().filter(|buffer| buffer.origin.is_some()) {
            if !wanted.has(Detail::Origin) {
                buffer.origin = None;
            } else if let (false, Some(Origin::Made(birth))) =
                (wanted.has(Detail::Stacks), buffer.origin.as_deref_mut())
            {
                birth.stack = None;
            }
        }
    }

    /// The process of that id. `None`: it holds nothing, or was not found.
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

/// How much of the machine an answer covers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coverage {
    /// The kernel interfaces that were read.
    pub sources: Vec<Source>,
    /// What became of the processes that procfs listed.
    pub processes: ProcessCounts,
    /// The unreadable processes, ordered by pid.
    pub unreadable: Vec<Pid>,
    /// What was not read.
    pub gaps: Gaps,
    /// References in sockets and io_urings, as far as the kernel counts them. `None`: they were not
    /// looked for.
    pub hidden_refs: Option<HiddenRefs>,
    /// Wall time of the scan.
    pub duration: Duration,
    /// What a reader must know to trust the figures: the gaps, and the reasons for estimates, in
    /// words. No figure follows from these.
    pub notes: Vec<Note>,
}

impl Coverage {
    /// Whether every process and the kernel's own list were read, and nothing contradicted itself.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.notes.iter().any(Note::is_partial)
    }

    /// Whether no process can have a reference that was not seen. An exact residual needs this.
    #[must_use]
    pub fn saw_every_process(&self) -> bool {
        !self.gaps.hide_references()
    }
}

/// What a scan did not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gaps {
    /// Processes that could not be read for lack of permission.
    pub denied: u64,
    /// Processes that could not be read because of any other error.
    pub failed: u64,
    /// Processes whose mappings were left out, because reading them would have waited for longer
    /// than the deadline.
    pub stuck: Vec<Pid>,
    /// The procfs shows no kernel threads. It is a container's, or it hides other users' processes.
    pub not_whole_machine: bool,
    /// Processes that started faster than they could be read.
    pub new_processes: u64,
    /// Facts that were dropped because their text did not parse, by source.
    pub malformed: BTreeMap<Source, u64>,
    /// Fds and mappings with the name of a dma-buf of which it could not be proven whether they are
    /// one.
    pub unproven: u64,
    /// Processes that the kernel's list of tasks does not show, although they are there. So their
    /// fds were not seen.
    pub unlisted: Vec<Pid>,
}

impl Gaps {
    /// Whether a process may have references that were not seen.
    #[must_use]
    pub fn hide_references(&self) -> bool {
        let Gaps { denied, failed, stuck, not_whole_machine, new_processes, malformed, unproven, unlisted } =
            self;
        denied + failed + new_processes + unproven > 0
            || *not_whole_machine
            || !stuck.is_empty()
            || !malformed.is_empty()
            || !unlisted.is_empty()
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
    /// Exited before they were read. What they held was released.
    pub vanished: u64,
}
