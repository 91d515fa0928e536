//! What the shmem family tells beyond what every buffer has.

use std::fmt;

use super::{BufferId, Bytes, Dev, Label, Pid};

/// A System V segment by the kernel's own table (`/proc/sysvipc/shm`, `sysvipc_shm_proc_show` in ipc/shm.c) of its
/// namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// The key by which it is found; 0 for `IPC_PRIVATE`, and for one that was removed while attached.
    pub key: u32,
    /// User id of the owner.
    pub owner: u32,
    /// Who created it; it may have exited. `None`: a process outside the reader's pid namespace.
    pub creator: Option<Pid>,
    /// Who attached or detached it last.
    pub last: Option<Pid>,
    /// Attachments (`nattch`): the VMAs of all processes.
    pub attached: u64,
    /// Marked for removal by the last detachment (`SHM_DEST`).
    pub removed: bool,
    /// Bytes in memory.
    pub rss: Bytes,
    /// Bytes in swap.
    pub swap: Bytes,
}

/// Seals of a memfd: what can no longer be done with it (`F_SEAL_…` of include/uapi/linux/fcntl.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seals(pub u32);

impl Seals {
    const WORDS: [(u32, &'static str); 6] =
        [(1, "seal"), (2, "shrink"), (4, "grow"), (8, "write"), (16, "future_write"), (32, "exec")];

    /// The words for those that are set; for bits that nobody has named yet, none.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Seals::WORDS.into_iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, word)| word)
    }
}

impl fmt::Display for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for word in self.words() {
            write!(f, "{separator}{word}")?;
            separator = ",";
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// Memory of a buffer that is another buffer's too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overlap {
    /// The other one.
    pub of: BufferId,
    /// So much of it.
    pub bytes: Bytes,
}

/// A mounted tmpfs, or devtmpfs, or root filesystem that is one: a superblock, however many mounts it has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TmpfsMount {
    /// Which one.
    pub dev: Dev,
    /// One of its mount points, as those see it who share that mount namespace and root.
    pub point: Label,
    /// One of those, if it is not the reader itself.
    pub seen_by: Option<Pid>,
    /// What is used of it.
    pub usage: TmpfsUsage,
}

/// What a tmpfs says of itself by statfs(2) (`shmem_statfs` in mm/shmem.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TmpfsUsage {
    /// Bytes charged for all of its files, in memory, in swap and allocated in advance, whether somebody holds them or not.
    Used(Bytes),
    /// It is mounted without a limit (`size=0`), and so the kernel does not count what is used.
    Uncounted,
    /// It is a ramfs: the first root of a kernel that was told so is called `rootfs` either way. Its pages are not shmem.
    Ramfs,
    /// Another filesystem is mounted over each of its mount points.
    Hidden,
    /// It could not be asked.
    Unreadable,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that seals are named by their bits, and that none is a word of its own.
    #[test]
    fn seals() {
        assert_eq!(Seals(0b1011).to_string(), "seal,shrink,write");
        assert_eq!(Seals(0).to_string(), "none");
    }
}
