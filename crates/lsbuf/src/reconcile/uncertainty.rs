//! Why the row `left over` of a reconciliation may be wrong ([`Uncertainty`]).

use std::fmt;

use crate::model::{Bytes, Label, TmpfsUsage, counted};

/// Why the row `left over` may be too large or too small.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Uncertainty {
    /// The scan was partial, for the reasons that its [`Coverage`](crate::model::Coverage) gives.
    Partial,
    /// `Shmem:` changed during the scan.
    Moved {
        /// Bytes before.
        before: Bytes,
        /// Bytes after.
        after: Bytes,
    },
    /// The kernel could not be made to add up its per-CPU counters first.
    NotFolded {
        /// Why not.
        why: String,
    },
    /// Some of the memory may be in swap; it is unknown how much.
    MaybeSwapped {
        /// At most this much.
        bytes: Bytes,
    },
    /// Buffers whose CHARGED is unknown.
    Uncharged {
        /// How many.
        buffers: u64,
    },
    /// Segments that no process has attached may have huge pages.
    MaybeHuge {
        /// How many.
        segments: u64,
        /// Bytes charged for them.
        bytes: Bytes,
    },
    /// It is unknown how much of a tmpfs is used.
    UnknownUsage {
        /// Where it is mounted.
        point: Label,
        /// Why.
        usage: TmpfsUsage,
    },
    /// The mounts of processes could not be read; a tmpfs that only they see is in the last row.
    UnseenMounts {
        /// How many.
        processes: u64,
    },
}

impl Uncertainty {
    /// Whether something was not seen at all. Otherwise it was seen, and its figure is inexact.
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
            Uncertainty::Partial => f.write_str(
                "the scan was partial: what it did not see is in the last row, or in a row 'not held'",
            ),
            Uncertainty::Moved { before, after } => write!(
                f,
                "Shmem went from {} to {} bytes during the scan: the last row may be off by that much, or more",
                before.0, after.0
            ),
            Uncertainty::NotFolded { why } => write!(
                f,
                "the kernel could not be made to add up its counters (/proc/sys/vm/stat_refresh: {why}): Shmem may be \
                 behind by up to 125 pages for each processor"
            ),
            Uncertainty::MaybeSwapped { bytes } => {
                write!(
                    f,
                    "up to {} more bytes may be in swap: the last row may be up to that much larger",
                    bytes.0
                )
            }
            Uncertainty::Uncharged { buffers } => {
                let buffers = counted(*buffers, "buffer", "buffers");
                write!(f, "what is charged for {buffers} is unknown, and is in the last row")
            }
            Uncertainty::MaybeHuge { segments, bytes } => write!(
                f,
                "{} that no process has attached ({} bytes) may have huge pages, which are not in Shmem",
                counted(*segments, "segment", "segments"),
                bytes.0
            ),
            Uncertainty::UnknownUsage { point, usage } => {
                let why = match usage {
                    TmpfsUsage::Uncounted => "it has no limit (size=0), so the kernel does not count",
                    TmpfsUsage::Hidden => "another filesystem is mounted over it",
                    TmpfsUsage::Used(_)
                    | TmpfsUsage::Ramfs
                    | TmpfsUsage::Unmounted
                    | TmpfsUsage::Unreadable => "it could not be read",
                };
                let point = crate::escape::escape(point.as_bytes());
                write!(
                    f,
                    "the use of the tmpfs at {point} is unknown ({why}): its files that no process holds are in the last row"
                )
            }
            Uncertainty::UnseenMounts { processes } => write!(
                f,
                "{} mounts be read: a tmpfs that no other process sees is in the last row",
                counted(*processes, "process did not let its", "processes did not let their")
            ),
        }
    }
}
