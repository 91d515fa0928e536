//! The residual of a buffer: its reference count less every reference that was found, and how sure
//! that number is.
//!
//! This type is the only carrier of certainty. `scan` decides it in one place (`settle`), and
//! everything above shows it. A residual that is not proven is an estimate or unknown, and always
//! has a reason.

/// References that the kernel counts beyond those that were found: GEM handles, importers, queues,
/// drivers, and whatever could not be attributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Residual {
    /// Proven: no reference of a process can be among them.
    Exact(u64),
    /// The kernel counts that many more references than were found, but some of them may be a
    /// process's.
    Estimate(u64, Why),
    /// No number can be given.
    Unknown(Why),
}

impl Residual {
    /// From what [`Residual::number`] and [`Residual::why`] return. `None`: no residual returns
    /// these.
    #[must_use]
    pub fn of_parts(number: Option<u64>, why: Option<Why>) -> Option<Residual> {
        match (number, why) {
            (Some(number), None) => Some(Residual::Exact(number)),
            (Some(number), Some(why)) => Some(Residual::Estimate(number, why)),
            (None, Some(why)) => Some(Residual::Unknown(why)),
            (None, None) => None,
        }
    }

    /// The number, proven or estimated.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        match self {
            Residual::Exact(number) | Residual::Estimate(number, _) => Some(number),
            Residual::Unknown(_) => None,
        }
    }

    /// Why it is not exact. `None`: it is exact.
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
    /// More references were found than the kernel counts, because they were read at different
    /// moments.
    Overcounted,
    /// Processes could not be read, or started too late to be read. One of them may hold the
    /// buffer.
    Unread,
    /// Holders may share an fd table or an address space, and could not be compared. One reference
    /// may have been counted twice.
    Uncompared,
    /// Some references may be in messages that nobody has received, or registered with an io_uring.
    MaybeInFlight,
    /// The count changed while references were read, or could be read only once.
    CountMoved,
    /// References were closed or moved while they were read.
    Moved,
    /// A task was inside a system call that keeps references in no table: a fork, an exec, an exit,
    /// or the sending of a message.
    InCall,
    /// Processes were started or ended in every reading.
    ProcessesChanged,
    /// The same processes ran in every reading. Each of them may have moved a reference without
    /// being seen.
    Ran,
    /// It could not be read what processes were doing meanwhile.
    NotWatched,
    /// Something that opens no file refers to its inode: a fanotify or inotify mark, or a Landlock
    /// rule. A mark goes with the last reference, but a rule keeps the memory.
    Pinned,
}

impl Why {
    /// Every reason. If several apply, the first in this order is given.
    pub const ALL: &'static [Why] = &[
        Why::NotCounted,
        Why::Overcounted,
        Why::Unread,
        Why::Uncompared,
        Why::MaybeInFlight,
        Why::CountMoved,
        Why::Moved,
        Why::InCall,
        Why::ProcessesChanged,
        Why::Ran,
        Why::NotWatched,
        Why::Pinned,
    ];

    /// The word for the reason in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Why::NotCounted => "not-counted",
            Why::Overcounted => "overcounted",
            Why::Unread => "unread-processes",
            Why::Uncompared => "uncompared-holders",
            Why::MaybeInFlight => "maybe-in-flight",
            Why::CountMoved => "count-moved",
            Why::Moved => "references-moved",
            Why::InCall => "task-in-call",
            Why::ProcessesChanged => "processes-changed",
            Why::Ran => "processes-ran",
            Why::NotWatched => "not-watched",
            Why::Pinned => "inode-pinned",
        }
    }

    /// The reason for which [`Why::as_str`] has that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Why> {
        Why::ALL.iter().copied().find(|why| why.as_str() == word)
    }

    /// The reason in a few words.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Why::NotCounted => "this source has no count of its references",
            Why::Overcounted => "more references were found than are counted: they changed meanwhile",
            Why::Unread => "a process that could not be read may hold it",
            Why::Uncompared => "holders may share an fd table or address space, and could not be compared",
            Why::MaybeInFlight => "some references may be in messages or io_urings",
            Why::CountMoved => "the count changed while references were read",
            Why::Moved => "references changed while they were read",
            Why::InCall => "a process was inside a fork, exec, exit or send",
            Why::ProcessesChanged => "processes started or ended in every reading",
            Why::Ran => "the same processes ran in every reading, and may have moved references",
            Why::NotWatched => "it could not be read what processes did meanwhile",
            Why::Pinned => "a Landlock rule may keep it, or a fanotify or inotify mark refers to it",
        }
    }

    /// Whether the residual is certainly not the holder's own, so that the holder's exit frees
    /// nothing. Otherwise the residual may be the holder's own reference, seen at another moment.
    pub(super) fn is_anothers(self) -> bool {
        matches!(self, Why::Unread | Why::MaybeInFlight)
    }
}
