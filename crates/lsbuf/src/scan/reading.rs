//! What a source says of the machine after one reading: facts alone, with nothing decided yet.
//!
//! Every source gives the same [`Reading`], so that the rest of `scan` does not know which one it was.
//! References name a *distinct* fd table or address space: procfs has compared tasks by kcmp before it
//! returns, the BPF iterators tell them by identity. [`Witness`] says what could have disturbed the
//! reading; what follows from that is decided in [`settle`](super::settle) alone.

use std::collections::BTreeSet;
use std::io;

use rustix::io::Errno;

use crate::error::Error;
use crate::kernel::shmem::sysvipc::SegmentRow;
use crate::model::{
    Buffer, Device, Fd, Gaps, HiddenRefs, IpcNamespace, MapRef, Pid, Process, ProcessCounts, Tid,
};

use super::walk::WalkError;

/// Why there is no reading.
#[derive(Debug)]
pub(super) enum Failed {
    /// The processes cannot be listed.
    CannotList(io::Error),
    /// The BPF iterators could be opened, but not be read.
    Unreadable(Errno),
    /// A process, where it is known which, made the reading wait for too long. What was read with is lost.
    Stuck(Option<Pid>),
    /// Another reason, in words.
    Other(Error),
    /// It would take too long, or leave open what another way would not.
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

/// A way to read the machine.
pub(super) trait ReadingSource {
    /// Reads it once.
    ///
    /// # Errors
    /// If there can be no answer by this source. What can only be read in part is part of the reading.
    fn read(&mut self, effort: Effort) -> Result<Reading, Failed>;

    /// Whether such a reading may wait for a stranger.
    fn may_wait(&self, effort: Effort) -> bool;

    /// Who these processes of the last reading are, ordered by pid; of those that are known to have ended
    /// since, nothing.
    fn identify(&mut self, pids: &BTreeSet<Pid>) -> Vec<Process>;

    /// The device nodes that were open in the last reading and whose drivers can hold buffers, by path.
    fn devices(&mut self) -> Vec<Device>;
}

/// How much a reading looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Effort {
    /// Look also where references seldom are and which takes long: private mappings, messages in
    /// sockets, each VMA under its lock.
    pub(super) thorough: bool,
    /// Ask also in which system call each task is.
    pub(super) calls: bool,
}

/// Tasks of different processes that have one fd table, ordered. `Tid`: a thread that does not share its
/// process's table.
pub(super) type TableOwners = Vec<(Pid, Option<Tid>)>;

/// What one reading found.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Ordered by identity, each once.
    pub(super) objects: Vec<Object>,
    pub(super) fds: Vec<FdRef>,
    pub(super) maps: Vec<Mapping>,
    /// Programs that run from a buffer's memory.
    pub(super) programs: Vec<RunningProgram>,
    /// Who has each fd table.
    pub(super) tables: Vec<TableOwners>,
    /// Who has each address space, ordered.
    pub(super) spaces: Vec<Vec<Pid>>,
    /// Processes that may share a table or a space with another one, which could not be asked.
    pub(super) uncompared: BTreeSet<Pid>,
    /// The kernel's tables of System V segments.
    pub(super) segments: Segments,
    pub(super) witness: Witness,
    pub(super) coverage: Seen,
}

/// One buffer without its references.
#[derive(Clone, Debug)]
pub(super) struct Object {
    /// What is known of it. Its holders, `exe` and residual are assembled.
    pub(super) buffer: Buffer,
    pub(super) counted: Counted,
}

/// A buffer with all its references, before anything is said of what is left over.
#[derive(Clone, Debug)]
pub(super) struct Assembled {
    pub(super) buffer: Buffer,
    pub(super) counted: Counted,
    /// Whether some of its holders could not be compared.
    pub(super) uncompared: bool,
}

/// How far a buffer's count can be trusted. The count itself is in [`Buffer::count`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Counted {
    /// It was read before or while references were gathered and again afterwards, and every reading was
    /// the same.
    pub(super) held_still: bool,
    /// Files open on its inode that were not found; the count has one reference for each, and there may be more.
    pub(super) more_files: u64,
}

/// One slot of an fd table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FdRef {
    /// Which of [`Reading::objects`].
    pub(super) object: usize,
    /// Which of [`Reading::tables`].
    pub(super) table: usize,
    pub(super) fd: Fd,
    pub(super) path_only: bool,
}

/// One VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Which of [`Reading::objects`].
    pub(super) object: usize,
    /// Which of [`Reading::spaces`].
    pub(super) space: usize,
    pub(super) map: MapRef,
}

/// An address space whose program is a buffer's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunningProgram {
    /// Which of [`Reading::objects`].
    pub(super) object: usize,
    /// Which of [`Reading::spaces`].
    pub(super) space: usize,
}

/// The kernel's own tables of System V segments, one for each IPC namespace that a task was seen in.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// `None` for the namespace: that of a recorded tree.
    pub(super) tables: Vec<(Option<IpcNamespace>, Vec<SegmentRow>)>,
    /// As [`Seen::unread_segments`].
    pub(super) unread: u64,
    /// Whether they were asked for at all.
    pub(super) asked: bool,
    /// Fds in messages of a segment of which no message was found; `None`: one may be there.
    pub(super) in_flight: Option<u64>,
}

/// What could have disturbed a reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Witness {
    /// Processes that ran at any time between the reading's begin and its end, or ended meanwhile. `None`:
    /// that could not be asked.
    pub(super) ran: Option<BTreeSet<Pid>>,
    /// Those of them that changed their mappings or their program, where that can be told; else all.
    pub(super) remapped: BTreeSet<Pid>,
    /// Processes with a task that was inside a call which keeps references in no table when the reading
    /// had ended. `None`: that was not asked.
    pub(super) in_call: Option<BTreeSet<Pid>>,
    /// Tasks were seen exiting: what they held is out of sight and may still count.
    pub(super) exiting: bool,
    /// Processes were started or ended meanwhile, or that could not be told.
    pub(super) processes_changed: bool,
    /// A reference was seen to go while it was read.
    pub(super) moved: bool,
}

/// How much of the machine a reading saw.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) sources: Vec<crate::model::Source>,
    pub(super) processes: ProcessCounts,
    pub(super) unreadable: Vec<Pid>,
    pub(super) gaps: Gaps,
    pub(super) hidden_refs: Option<HiddenRefs>,
    /// IPC namespaces whose table of segments could not be read.
    pub(super) unread_segments: u64,
    /// What is seldom there and takes long was passed over: private mappings, messages, rings without an fd.
    pub(super) passed_over: bool,
    /// Something has every buffer in it, or nothing could be missing from what was asked for.
    pub(super) listed: bool,
    /// What else a reader must know: of the source, not of any buffer.
    pub(super) notes: Vec<crate::model::Note>,
}
