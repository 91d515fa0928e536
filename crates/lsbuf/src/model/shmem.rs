//! Facts that only shared memory has.

use std::fmt;

use super::{BufferId, Bytes, Dev, Inode, Label, Pid};
use crate::escape::shell_word;

/// A System V segment as the kernel lists it in `/proc/sysvipc/shm` of its IPC namespace
/// (`sysvipc_shm_proc_show` in ipc/shm.c).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// The key by which processes find it. 0 for `IPC_PRIVATE`, and for a segment that was removed
    /// while attached.
    pub key: u32,
    /// User id of the owner.
    pub owner: u32,
    /// The process that created it; it may have exited. `None`: a process outside the reader's pid
    /// namespace.
    pub creator: Option<Pid>,
    /// The command of the process that has the creator's pid now, if that started before the
    /// segment was last changed. `None`: there is none, it could not be read, or it was not asked
    /// for ([`Detail::SegmentUsers`](super::Detail::SegmentUsers)).
    pub creator_comm: Option<Label>,
    /// The process that attached or detached it last.
    pub last: Option<Pid>,
    /// As `creator_comm`, of the process that has the pid of `last` now.
    pub last_comm: Option<Label>,
    /// Attachments (`nattch`): the VMAs of all processes.
    pub attached: u64,
    /// How its IPC namespace can be entered. `None`: unknown, as in a recorded tree.
    pub reached: Option<SegmentReach>,
    /// Marked for removal, which happens at the last detachment (`SHM_DEST`).
    pub removed: bool,
    /// Bytes in memory.
    pub rss: Bytes,
    /// Bytes in swap.
    pub swap: Bytes,
    /// When it was made, or its owner or permissions were changed (`shm_ctime`), in seconds of the
    /// wall clock.
    pub(crate) changed: u64,
    /// When it was attached or detached last, likewise; 0 for never.
    pub(crate) used: u64,
}

impl Segment {
    /// The command line that removes it, if no process has it attached. `None`: one has, it is
    /// marked for removal, or nothing is known by which its namespace can be entered.
    #[must_use]
    pub fn remove_command(&self, id: Inode) -> Option<String> {
        let reached = self.reached.as_ref().filter(|_| self.attached == 0 && !self.removed)?;
        Some(match reached {
            SegmentReach::Own => format!("ipcrm -m {id}"),
            SegmentReach::Process(pid) => format!("nsenter -t {pid} -i ipcrm -m {id}"),
            SegmentReach::Path(path) => {
                let word = [b"--ipc=", path.as_bytes()].concat();
                format!("nsenter {} ipcrm -m {id}", shell_word(&word))
            }
        })
    }
}

/// How the IPC namespace of a segment can be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentReach {
    /// It is the reader's own.
    Own,
    /// Through a process or thread in it, by its id below `/proc`.
    Process(Pid),
    /// No process is in it. This path leads to what keeps it: a bind mount of its file, or an fd.
    Path(Label),
}

/// Seals of a memfd: operations that are forbidden for good (`F_SEAL_…` of
/// include/uapi/linux/fcntl.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seals(pub u32);

impl Seals {
    const WORDS: [(u32, &'static str); 6] =
        [(1, "seal"), (2, "shrink"), (4, "grow"), (8, "write"), (16, "future_write"), (32, "exec")];

    /// The seals with these words. `None`: there is no seal with one of them.
    #[must_use]
    pub fn of_words<S: AsRef<str>>(words: &[S]) -> Option<Seals> {
        let bit = |word: &S| Seals::WORDS.iter().find(|(_, w)| *w == word.as_ref()).map(|(bit, _)| bit);
        words.iter().try_fold(Seals(0), |seals, word| Some(Seals(seals.0 | bit(word)?)))
    }

    /// The words for the seals that are set. A bit that this version does not know has no word.
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

/// Memory that a buffer has in common with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overlap {
    /// The other buffer.
    pub of: BufferId,
    /// How many bytes they have in common.
    pub bytes: Bytes,
}

/// A mounted tmpfs, devtmpfs, or root filesystem in memory: one superblock, however many mounts it
/// has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TmpfsMount {
    /// Its device number.
    pub dev: Dev,
    /// One of its mount points, as processes of that mount namespace and root see it.
    pub point: Label,
    /// One of these processes. `None`: the reader itself sees it.
    pub seen_by: Option<Pid>,
    /// How much of it is used.
    pub usage: TmpfsUsage,
    /// How much of it may be used. `None`: it has no limit, or that could not be read.
    pub limit: Option<Bytes>,
}

/// What statfs(2) reports of a tmpfs (`shmem_statfs` in mm/shmem.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TmpfsUsage {
    /// Bytes charged for all of its files: in memory, in swap, and allocated in advance; held or
    /// not.
    Used(Bytes),
    /// It is mounted without a limit (`size=0`), and then the kernel does not count what is used.
    Uncounted,
    /// It is a ramfs, whose pages are not shmem. A kernel's first root is named `rootfs` whether it
    /// is a ramfs or a tmpfs.
    Ramfs,
    /// Another filesystem is mounted over each of its mount points.
    Hidden,
    /// No mount table that could be read shows it. The kernel's own list of filesystems has it.
    Unmounted,
    /// It could not be read.
    Unreadable,
}

/// A pool of huge pages of one size, in pages (`/sys/kernel/mm/hugepages`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugePool {
    /// The size of each page.
    pub size: Bytes,
    /// All pages, used or not (`nr_hugepages`).
    pub total: u64,
    /// Pages that nobody uses.
    pub free: u64,
    /// Those of the free pages that are promised to mappings which have not touched them yet.
    pub reserved: u64,
    /// Those of all pages that were allocated beyond the fixed size of the pool.
    pub surplus: u64,
}

/// What the kernel's lists of inodes say of one tmpfs besides the files that somebody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnheldSum {
    /// Its device number.
    pub dev: Dev,
    /// How many regular files nobody holds.
    pub files: u64,
    /// Bytes of them in memory, and of folders and symbolic links.
    pub resident: Bytes,
    /// Bytes of them in swap.
    pub swapped: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each seal has its word, and that no other bit has one.
    #[test]
    fn seals() {
        assert_eq!(Seals(0b1011).to_string(), "seal,shrink,write");
        assert_eq!(Seals(0).to_string(), "none");
        let words: Vec<&str> = Seals(0b11_1111).words().collect();
        assert_eq!(
            (Seals::of_words(&words), Seals::of_words(&["grow", "?"])),
            (Some(Seals(0b11_1111)), None)
        );
    }
}
