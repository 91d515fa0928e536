//! Who pays for a buffer's memory: the cgroups that the kernel charges its pages to.
//!
//! A page is charged to the cgroup of the task that touched it first. That task may have exited,
//! and its cgroup need not be that of a holder.
//!
//! Limits: for pages in swap the payer is not known. The figures of a buffer that changes while it
//! is read are not those of one moment.

use std::sync::Arc;

use super::{Bytes, Label};

/// A cgroup that pays.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct PayingCgroup {
    /// Its path in its hierarchy, as `/proc/PID/cgroup` shows paths to the first cgroup namespace.
    pub path: Label,
    /// Whether it has been removed. Up to Linux 6.18 such a cgroup still pays for its pages. From
    /// Linux 7 on its parent does.
    pub removed: bool,
    /// Whether it is in the unified hierarchy (version 2); otherwise in one of version 1.
    pub unified: bool,
    /// Its inode number in that hierarchy, by which cgroups with the same path are told apart.
    pub id: u64,
}

/// What one cgroup pays of a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payer {
    /// Which cgroup.
    pub cgroup: Arc<PayingCgroup>,
    /// Bytes in memory.
    pub bytes: Bytes,
}

/// Who pays for a buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payers {
    /// The cgroups, those that pay most first.
    pub cgroups: Vec<Payer>,
    /// Bytes in memory that are charged to no cgroup.
    pub nobody: Bytes,
    /// Bytes in swap, whose payer is not known.
    pub swapped: Bytes,
    /// Bytes in memory whose payer could not be read, because the buffer changed meanwhile or has
    /// too many payers.
    pub unknown: Bytes,
}

impl Payers {
    /// All of these bytes.
    #[must_use]
    pub fn total(&self) -> Bytes {
        let charged: Bytes = self.cgroups.iter().map(|payer| payer.bytes).sum();
        charged + self.nobody + self.swapped + self.unknown
    }
}
