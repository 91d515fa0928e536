//! What happens to buffers, one event at a time, as a trace sees it.
//!
//! Limits: a trace sees how fds and mappings come, and not how each of them goes: the kernel has no
//! place to see that cheaply. What holds a buffer at one time is the answer of a scan. Nor does it
//! see what a child inherits when a process forks.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Bytes, Dev, Fd, Inode, IpcNamespace, Kind, Label, Pid, Stack, Tid};

/// Something that happened to a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// When: time after boot, which goes on while the machine sleeps.
    pub after_boot: Duration,
    /// The same by the wall clock, as that was set when the trace began.
    pub at: SystemTime,
    /// What happened.
    pub what: Happening,
    /// To which buffer.
    pub buffer: TracedBuffer,
    /// Who did it.
    pub by: Actor,
    /// Where in the code. `None`: not asked for.
    pub stack: Option<Arc<Stack>>,
}

/// What can happen to a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happening {
    /// It was made: exported, or the file or segment was created.
    Made,
    /// A process has got an fd of it, by its own doing.
    Fd {
        /// The fd.
        fd: Fd,
        /// It was opened with `O_PATH`.
        path_only: bool,
    },
    /// A process has got an fd of it from another one.
    Received {
        /// The fd that it has there now.
        fd: Fd,
        /// How.
        way: Way,
        /// From whom. `None`: the kernel has not told.
        from: Option<Giver>,
    },
    /// It was mapped.
    Mapped(TracedMapping),
    /// A device was attached to the dma-buf, by this name.
    Attached(Label),
    /// A device was detached from it.
    Detached(Label),
    /// The dma-buf has got another name, or none.
    Renamed,
    /// It is gone, and its memory is given back. Whoever lets go last does it, or the kernel.
    Freed,
}

impl Happening {
    /// All words of [`Happening::word`].
    pub const WORDS: [&'static str; 8] =
        ["made", "fd", "received", "mapped", "attached", "detached", "renamed", "freed"];

    /// The word in tables and in JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        Happening::WORDS[self.nth()]
    }

    /// Which of [`Happening::WORDS`] that is.
    pub(crate) fn nth(&self) -> usize {
        match self {
            Happening::Made => 0,
            Happening::Fd { .. } => 1,
            Happening::Received { .. } => 2,
            Happening::Mapped(_) => 3,
            Happening::Attached(_) => 4,
            Happening::Detached(_) => 5,
            Happening::Renamed => 6,
            Happening::Freed => 7,
        }
    }
}

/// How an fd came from another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Way {
    /// In a message over a Unix socket.
    Message,
    /// The process took it itself (`pidfd_getfd`).
    Taken,
    /// In another way, such as binder or a seccomp notification.
    Other,
}

impl Way {
    /// The word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Way::Message => "message",
            Way::Taken => "taken",
            Way::Other => "other",
        }
    }
}

/// The process from which an fd came.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Giver {
    /// Its process id.
    pub pid: Pid,
    /// When it was started, in time after boot.
    pub started: Duration,
    /// Its command name.
    pub command: Label,
}

/// A mapping that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracedMapping {
    /// Its first address. `None`: not told, as of a System V segment.
    pub start: Option<u64>,
    /// How long it is.
    pub length: Bytes,
    /// Whether it can be read.
    pub read: bool,
    /// Whether it can be written to.
    pub write: bool,
    /// Whether it can be executed.
    pub execute: bool,
    /// Whether what is written to it is seen by others.
    pub shared: bool,
}

/// Names one buffer among all events of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceKey(pub u64);

/// A buffer as it was at an event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TracedBuffer {
    /// The same in all its events of one trace.
    pub key: TraceKey,
    /// Its kind. `None`: it is freed, and older than the trace, so its name is gone already.
    pub kind: Option<Kind>,
    /// The device number of its filesystem; `None` of a dma-buf.
    pub dev: Option<Dev>,
    /// Its inode number, or the id of a segment. `None`: not known any more.
    pub ino: Option<Inode>,
    /// The IPC namespace of a segment, if it was made during the trace.
    pub ipc: Option<IpcNamespace>,
    /// Its size, which may still be 0 of a file.
    pub size: Bytes,
    /// The memory that it has: of a dma-buf its size.
    pub memory: Bytes,
    /// Its name: of a file the last part of its path; `None`: it has none, or it is not known any
    /// more.
    pub name: Option<Label>,
    /// Whether the name is longer than what is kept of it.
    pub name_cut: bool,
    /// The exporter of a dma-buf.
    pub exporter: Option<Label>,
}

/// Who has caused an event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Actor {
    /// The process.
    pub pid: Pid,
    /// When it was started, in time after boot.
    pub started: Duration,
    /// Its command name.
    pub command: Label,
    /// The thread.
    pub tid: Tid,
    /// The name of the thread.
    pub thread: Label,
    /// The real user id.
    pub uid: u32,
    /// The number of its cgroup in the unified hierarchy.
    pub cgroup: u64,
    /// Whether it is a thread of the kernel.
    pub kernel: bool,
    /// Whether the process is just exiting.
    pub exiting: bool,
}
