//! What one reading of the machine found: facts alone, with nothing decided.
//!
//! Every source makes the same [`Reading`], so that the code that joins and decides does not depend
//! on the source. References name an fd table or an address space by its number in the reading. A
//! table that several processes share has one number: procfs compares the processes by kcmp(2), and
//! BPF iterators read the identity of each table. Where comparing fails, [`Reading::uncompared`]
//! says so. [`Interference`] says what could have disturbed the reading.
//!
//! Limits: nothing here says whether a residual is exact; [`settle`](super::settle) alone decides
//! that.

use std::collections::BTreeSet;
use std::io;

use rustix::io::Errno;

use crate::error::Error;
use crate::kernel::shmem::sysvipc::SegmentRow;
use crate::model::{
    Buffer, Device, Fd, Gaps, HiddenRefs, IpcNamespace, MapRef, Pid, Process, ProcessCounts, Tid, UnheldList,
    UnheldSum,
};

use super::lifetimes::FewKeep;
pub(super) use super::packed::{FdRefs, Mappings};
use super::walk::WalkError;

/// Why there is no reading.
#[derive(Debug)]
pub(super) enum Failed {
    /// The processes cannot be listed.
    CannotList(io::Error),
    /// The BPF iterators were opened, but reading them fails.
    Unreadable(Errno),
    /// A process made the reading wait for too long; which one, if that is known. The source is
    /// lost.
    Stuck(Option<Pid>),
    /// Another error.
    Other(Error),
    /// It would take too long, or its residuals would be estimates where another source may prove
    /// them.
    NotWorthIt,
}

impl From<WalkError> for Failed {
    fn from(error: WalkError) -> Failed {
        match error {
            WalkError::CannotList(error) => Failed::CannotList(error),
            WalkError::NotWorthIt => Failed::NotWorthIt,
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::CannotList(error)
    }
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Failed {
        Failed::Unreadable(errno)
    }
}

/// A source that can read the machine.
pub(super) trait ReadingSource {
    /// Makes one reading.
    ///
    /// # Errors
    /// If this source can give no answer. If only a part cannot be read, the reading says so.
    fn read(&mut self, effort: Effort) -> Result<Reading, Failed>;

    /// Whether such a reading may wait for another process.
    fn may_wait(&self, effort: Effort) -> bool;

    /// Describes these processes, ordered by pid, as the last reading saw them. Those that are
    /// known to have exited since are left out.
    fn identify(&mut self, pids: &BTreeSet<Pid>) -> Vec<Process>;

    /// The device nodes that were open in the last reading and whose drivers can hold buffers,
    /// ordered by path.
    fn devices(&mut self) -> Vec<Device>;

    /// The files that nobody held when the first reading was made, if they were asked for and can
    /// be listed. `held` has the buffers that the last reading found.
    fn unheld(&mut self, held: &[Buffer]) -> Option<UnheldList>;
}

/// How thorough a reading is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Effort {
    /// Look also where references are rare and slow to find: private mappings, messages in sockets,
    /// each VMA under its lock.
    pub(super) thorough: bool,
    /// Read also in which system call each task is.
    pub(super) calls: bool,
}

/// The processes that share one fd table, ordered. `Tid`: the table belongs to this thread, which
/// does not share its process's table.
pub(super) type TableOwners = Vec<(Pid, Option<Tid>)>;

/// What one reading found.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Ordered by identity, each once.
    pub(super) objects: Vec<Object>,
    pub(super) fds: FdRefs,
    pub(super) maps: Mappings,
    /// Processes that run a program from a buffer.
    pub(super) programs: Vec<RunningProgram>,
    /// The owners of each fd table.
    pub(super) tables: Vec<TableOwners>,
    /// The owners of each address space, ordered.
    pub(super) spaces: Vec<Vec<Pid>>,
    /// Processes that may share a table or an address space with another one; comparing them
    /// failed.
    pub(super) uncompared: BTreeSet<Pid>,
    /// The kernel's tables of System V segments.
    pub(super) segments: Segments,
    /// What the kernel's lists say of each tmpfs besides its files that somebody holds; empty if
    /// they were not read.
    pub(super) unheld: Vec<UnheldSum>,
    /// What is known of filesystems and namespaces that few keep.
    pub(super) few_keep: FewKeep,
    /// Processes that have mapped a buffer and are not in the list of processes. Those mappings are
    /// left out.
    pub(super) unlisted: BTreeSet<Pid>,
    pub(super) interference: Interference,
    pub(super) coverage: ReadingCoverage,
}

/// One buffer without its references.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// The buffer; holders, `exe` and residual are added when the reading is assembled.
    pub(super) buffer: Buffer,
    pub(super) counted: Counted,
}

/// A buffer with all its references, before its residual is decided.
#[derive(Clone, Debug)]
pub(super) struct Assembled {
    pub(super) buffer: Buffer,
    pub(super) counted: Counted,
    /// Whether it is unknown for some of its holders if they share a table or an address space.
    pub(super) uncompared: bool,
}

/// How far a buffer's count can be trusted. The count itself is in [`Buffer::count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Counted {
    /// The count was read before or while the references were gathered, and again afterwards, and
    /// was the same each time.
    pub(super) stable: bool,
    /// Something that opens no file refers to its inode, and may keep its memory.
    pub(super) pinned: bool,
}

/// An entry of an fd table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FdRef {
    /// An index into [`Reading::objects`].
    pub(super) object: usize,
    /// An index into [`Reading::tables`].
    pub(super) table: usize,
    pub(super) fd: Fd,
    pub(super) path_only: bool,
}

/// A VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// An index into [`Reading::objects`].
    pub(super) object: usize,
    /// An index into [`Reading::spaces`].
    pub(super) space: usize,
    pub(super) map: MapRef,
}

/// An address space whose program runs from a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunningProgram {
    /// An index into [`Reading::objects`].
    pub(super) object: usize,
    /// An index into [`Reading::spaces`].
    pub(super) space: usize,
}

/// The kernel's own tables of System V segments, one for each IPC namespace in which a task was
/// found.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Without a namespace: the table of a recorded tree.
    pub(super) tables: Vec<(Option<IpcNamespace>, Vec<SegmentRow>)>,
    /// As [`ReadingCoverage::unread_segments`].
    pub(super) unread: u64,
    /// Whether segments were looked for.
    pub(super) asked: bool,
    /// `Some(0)`: a segment that was found in no message is in none. `None`: it may be in one that
    /// was not read.
    pub(super) in_flight: Option<u64>,
}

/// What could have disturbed a reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interference {
    /// Processes that ran or exited during the reading. `None`: unknown.
    pub(super) ran: Option<BTreeSet<Pid>>,
    /// Those of them that changed their mappings or their program; all of them if the source cannot
    /// tell.
    pub(super) remapped: BTreeSet<Pid>,
    /// Processes with a task that, at the end of the reading, was inside a call that keeps
    /// references in no table. `None`: the calls were not read.
    pub(super) in_call: Option<BTreeSet<Pid>>,
    /// A task was exiting: what it held is in no table any more, and may still be counted.
    pub(super) exiting: bool,
    /// A process was started during the reading, or it is unknown whether one was.
    pub(super) processes_changed: bool,
    /// A reference or its owner changed while it was read.
    pub(super) moved: bool,
}

/// How much of the machine a reading saw.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadingCoverage {
    pub(super) sources: Vec<crate::model::Source>,
    pub(super) processes: ProcessCounts,
    pub(super) unreadable: Vec<Pid>,
    pub(super) gaps: Gaps,
    pub(super) hidden_refs: Option<HiddenRefs>,
    /// IPC namespaces whose table of segments could not be read.
    pub(super) unread_segments: u64,
    /// The reading did not look where references are rare and slow to find: private mappings,
    /// messages, rings without an fd.
    pub(super) passed_over: bool,
    /// A list of the kernel's has every buffer that was looked for. If the list of dma-bufs could
    /// not be read, a note says so.
    pub(super) listed: bool,
    /// Processes that may have mapped buffers which are in no list, if their mappings were not
    /// looked at. The next reading does.
    pub(super) unlisted_passed_over: BTreeSet<Pid>,
    /// Notes about the source, not about a buffer.
    pub(super) notes: Vec<crate::model::Note>,
}
