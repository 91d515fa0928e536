//! What is left of a buffer's count when every reference that was found is taken off, and how sure that is.
//!
//! This type is the only carrier of certainty: `scan` decides it once, in one place, and everything
//! above shows it. What cannot be proven is an estimate or unknown, and always says why.

/// References that the kernel counts beyond those that were found: GEM handles, importers, queues,
/// drivers, and whatever could not be attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Residual {
    /// Proven: no reference of a process can be among these.
    Exact(u64),
    /// The kernel counts so many more, but some of them may be a process's.
    Estimate(u64, Why),
    /// No number can be given.
    Unknown(Why),
}

impl Residual {
    /// The number, however sure it is.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        match self {
            Residual::Exact(number) | Residual::Estimate(number, _) => Some(number),
            Residual::Unknown(_) => None,
        }
    }

    /// Why it is not exact, if it is not.
    #[must_use]
    pub fn why(self) -> Option<Why> {
        match self {
            Residual::Exact(_) => None,
            Residual::Estimate(_, why) | Residual::Unknown(why) => Some(why),
        }
    }

    /// Whether it is proven.
    #[must_use]
    pub fn is_exact(self) -> bool {
        matches!(self, Residual::Exact(_))
    }
}

/// Why a residual is not exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Why {
    /// The source has no count of this buffer's references.
    NotCounted,
    /// More references were found than the kernel counts: the readings are of different moments.
    Overcounted,
    /// Processes could not be read, or appeared too late; one of them may hold it.
    Unread,
    /// Holders may share an fd table or an address space, which could not be asked: one reference may
    /// have been counted twice.
    Uncompared,
    /// Some of the references may be in messages not yet received, or registered with an io_uring.
    MaybeInFlight,
    /// More files are open on its inode than were found.
    MoreFiles,
    /// The count changed while references were gathered, or could be read only once.
    CountMoved,
    /// References were closed or moved while they were read.
    Moved,
    /// A task was inside a call that keeps references in no table: a fork, an exec, an exit, or a
    /// message that waits to be sent.
    InCall,
    /// Processes were started or ended in every reading.
    ProcessesChanged,
    /// The same processes ran in every reading: each of them may have moved a reference unseen.
    Ran,
    /// What processes were doing meanwhile could not be asked.
    NotWatched,
}

impl Why {
    /// Every reason, in the order in which the first that applies is given.
    pub const ALL: &'static [Why] = &[
        Why::NotCounted,
        Why::Overcounted,
        Why::Unread,
        Why::Uncompared,
        Why::MaybeInFlight,
        Why::MoreFiles,
        Why::CountMoved,
        Why::Moved,
        Why::InCall,
        Why::ProcessesChanged,
        Why::Ran,
        Why::NotWatched,
    ];

    /// The word for it in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Why::NotCounted => "not-counted",
            Why::Overcounted => "overcounted",
            Why::Unread => "unread-processes",
            Why::Uncompared => "uncompared-holders",
            Why::MaybeInFlight => "maybe-in-flight",
            Why::MoreFiles => "more-open-files",
            Why::CountMoved => "count-moved",
            Why::Moved => "references-moved",
            Why::InCall => "task-in-call",
            Why::ProcessesChanged => "processes-changed",
            Why::Ran => "processes-ran",
            Why::NotWatched => "not-watched",
        }
    }

    /// Whether what is left over is somebody's for certain, so that a holder's exit frees nothing. Not
    /// so where it may be the holder's own reference, seen at another moment.
    pub(super) fn is_anothers(self) -> bool {
        matches!(self, Why::Unread | Why::MaybeInFlight | Why::MoreFiles)
    }
}
