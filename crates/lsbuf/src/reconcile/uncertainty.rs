//! Why what is left over of `Shmem:` may be other than it should be, and what it may be where nothing is in doubt.

use std::fmt;

use crate::model::{Bytes, Label, TmpfsUsage, counted};

/// Why what is left over may be other than it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Uncertainty {
    /// The scan was partial, for the reasons that its [`Coverage`](crate::model::Coverage) gives.
    Partial,
    /// `Shmem:` was another one before the scan than after it.
    Moved {
        /// Bytes before.
        before: Bytes,
        /// Bytes after.
        after: Bytes,
    },
    /// The kernel could not be told to add up its counters.
    NotFolded {
        /// Why not.
        why: String,
    },
    /// A part may be in swap, nobody tells which.
    MaybeSwapped {
        /// So much at most.
        bytes: Bytes,
    },
    /// Buffers of which it is unknown what is charged for them.
    Uncharged {
        /// How many.
        buffers: u64,
    },
    /// Segments that nobody has attached may be of huge pages.
    MaybeHuge {
        /// How many.
        segments: u64,
        /// Bytes charged for them.
        bytes: Bytes,
    },
    /// What is used of a tmpfs is unknown.
    UnknownUsage {
        /// Where it is mounted.
        point: Label,
        /// Why.
        usage: TmpfsUsage,
    },
    /// Processes would not say which mounts they see; a tmpfs that only they see is left over.
    UnseenMounts {
        /// How many.
        processes: u64,
    },
}

impl Uncertainty {
    /// Whether something was not seen; else it was, and is inexact.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        match self {
            Uncertainty::Partial
            | Uncertainty::Uncharged { .. }
            | Uncertainty::UnknownUsage { .. }
            | Uncertainty::UnseenMounts { .. } => true,
            Uncertainty::Moved { .. }
            | Uncertainty::NotFolded { .. }
            | Uncertainty::MaybeSwapped { .. }
            | Uncertainty::MaybeHuge { .. } => false,
        }
    }
}

impl fmt::Display for Uncertainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Uncertainty::Partial => {
                f.write_str("the scan was partial: what was not seen is left over, or seems not to be held")
            }
            Uncertainty::Moved { before, after } => write!(
                f,
                "Shmem went from {} to {} bytes during the scan: what is left over may be off by as much, or more",
                before.0, after.0
            ),
            Uncertainty::NotFolded { why } => write!(
                f,
                "the kernel's counters could not be added up at once (/proc/sys/vm/stat_refresh: {why}): Shmem may lag \
                 behind by up to 125 pages for each processor"
            ),
            Uncertainty::MaybeSwapped { bytes } => {
                write!(f, "up to {} more bytes may be in swap: so much more may be left over", bytes.0)
            }
            Uncertainty::Uncharged { buffers } => {
                write!(
                    f,
                    "what {} could not be asked: that is left over",
                    counted(*buffers, "buffer takes", "buffers take")
                )
            }
            Uncertainty::MaybeHuge { segments, bytes } => write!(
                f,
                "{} that nobody has attached, of {} bytes, may be of huge pages, which are not in Shmem",
                counted(*segments, "segment", "segments"),
                bytes.0
            ),
            Uncertainty::UnknownUsage { point, usage } => {
                let why = match usage {
                    TmpfsUsage::Uncounted => "it has no limit (size=0), so the kernel does not count",
                    TmpfsUsage::Hidden => "another filesystem is mounted over it",
                    TmpfsUsage::Used(_) | TmpfsUsage::Ramfs | TmpfsUsage::Unreadable => {
                        "it could not be asked"
                    }
                };
                let point = crate::escape::escape(point.as_bytes());
                write!(
                    f,
                    "what is used of the tmpfs at {point} is unknown ({why}): files of it that no process holds are left over"
                )
            }
            Uncertainty::UnseenMounts { processes } => write!(
                f,
                "{} could not be asked what is mounted for it: a tmpfs that shows nowhere else is left over",
                counted(*processes, "process", "processes")
            ),
        }
    }
}

/// What may be left over on a machine where nothing is in doubt.
pub const CAUSES: &str = "GPU drivers' objects that no process has mapped, memfds that only a message or the kernel holds, \
                          and files of a tmpfs that is mounted nowhere any more";
