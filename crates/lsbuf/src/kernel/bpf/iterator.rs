//! The list of iterators: their names and programs, which records they write, and why one may be
//! unavailable.

use std::fmt;

use rustix::io::Errno;

use super::record::Record;
use crate::model::Kinds;

/// One of the iterators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Iterator {
    Task,
    TaskFile,
    TaskVma,
    DmaBuf,
    /// The same iterators with shared memory.
    TaskFileShmem,
    TaskVmaShmem,
    DmaBufShmem,
    TaskShmem,
    /// Every inode of shared memory that is in the kernel's lists.
    ShmemInodes,
    /// The same, with who pays for the pages of each inode.
    ShmemPayers,
}

/// Who will read the iterators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// This process alone, one reading after the other.
    One,
    /// Others as well: they are pinned.
    Many,
}

impl Iterator {
    pub(crate) const ALL: [Iterator; 10] = [
        Iterator::Task,
        Iterator::TaskFile,
        Iterator::TaskVma,
        Iterator::DmaBuf,
        Iterator::TaskFileShmem,
        Iterator::TaskVmaShmem,
        Iterator::DmaBufShmem,
        Iterator::TaskShmem,
        Iterator::ShmemInodes,
        Iterator::ShmemPayers,
    ];

    /// The iterators that cover these kinds; and the one for payers, if it is wanted.
    pub(crate) fn of(kinds: Kinds, payers: bool) -> impl std::iter::Iterator<Item = Iterator> {
        let both = [Iterator::Task, Iterator::TaskFile, Iterator::TaskVma, Iterator::DmaBuf];
        let both = both.into_iter().map(move |iterator| iterator.with(kinds.has_shmem()));
        let shmem = kinds.has_shmem();
        let payers = (shmem && payers).then_some(Iterator::ShmemPayers);
        both.chain(shmem.then_some(Iterator::ShmemInodes)).chain(payers)
    }

    /// The variant of this iterator with or without shared memory.
    pub(crate) fn with(self, shmem: bool) -> Iterator {
        match (self.base(), shmem) {
            (Iterator::Task, true) => Iterator::TaskShmem,
            (Iterator::TaskFile, true) => Iterator::TaskFileShmem,
            (Iterator::TaskVma, true) => Iterator::TaskVmaShmem,
            (Iterator::DmaBuf, true) => Iterator::DmaBufShmem,
            (iterator, _) => iterator,
        }
    }

    /// The variant of this iterator without shared memory, if there is one.
    pub(crate) fn base(self) -> Iterator {
        match self {
            Iterator::TaskShmem => Iterator::Task,
            Iterator::TaskFileShmem => Iterator::TaskFile,
            Iterator::TaskVmaShmem => Iterator::TaskVma,
            Iterator::DmaBufShmem => Iterator::DmaBuf,
            Iterator::ShmemPayers => Iterator::ShmemInodes,
            iterator => iterator,
        }
    }

    /// Whether it covers shared memory.
    pub(crate) fn has_shmem(self) -> bool {
        self != self.base() || self == Iterator::ShmemInodes
    }

    /// Its name: the kernel's, with a suffix for shared memory. The kernel has no iterator over
    /// inodes, so that one has a name of its own. It is also the name of its pin.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Iterator::Task => "task",
            Iterator::TaskFile => "task_file",
            Iterator::TaskVma => "task_vma",
            Iterator::DmaBuf => "dmabuf",
            Iterator::TaskFileShmem => "task_file_shmem",
            Iterator::TaskVmaShmem => "task_vma_shmem",
            Iterator::DmaBufShmem => "dmabuf_shmem",
            Iterator::TaskShmem => "task_shmem",
            Iterator::ShmemInodes => "shmem_inodes",
            Iterator::ShmemPayers => "shmem_payers",
        }
    }

    /// Whether its last record is [`Record::End`].
    pub(super) fn has_end(self) -> bool {
        self.base() != Iterator::DmaBuf
    }

    /// Whether it may write this record.
    pub(super) fn writes(self, record: &Record<'_>) -> bool {
        use Record::{Attachment, Buffer, Device, End, Fd, InFlight, Keeper, SyncFile, Task, Vma};
        use Record::{GemFile, MemfdPages, Run, ShmCgroup, ShmExe, ShmFd, ShmFilesystem, ShmInFlight};
        use Record::{ShmInode, ShmPages, ShmVma, ShmWalk, Torn};
        match self {
            Iterator::Task => matches!(record, Task(_) | Run(_) | End),
            Iterator::TaskShmem => matches!(record, ShmInode(_) | ShmExe(_)) || Iterator::Task.writes(record),
            Iterator::TaskFile => {
                matches!(record, Fd(_) | Buffer(_) | Device(_) | InFlight(_) | Keeper(_) | SyncFile(_) | End)
            }
            Iterator::TaskVma => matches!(record, Vma(_) | Torn | Buffer(_) | Keeper(_) | End),
            Iterator::DmaBuf => matches!(record, Buffer(_) | Attachment(_) | Vma(_) | Torn),
            Iterator::TaskFileShmem => {
                matches!(record, ShmInode(_) | ShmFd(_) | ShmInFlight(_) | MemfdPages(_) | GemFile(..))
                    || Iterator::TaskFile.writes(record)
            }
            Iterator::TaskVmaShmem => {
                matches!(record, ShmInode(_) | ShmVma(_)) || Iterator::TaskVma.writes(record)
            }
            Iterator::DmaBufShmem => {
                matches!(record, MemfdPages(_) | GemFile(..)) || Iterator::DmaBuf.writes(record)
            }
            Iterator::ShmemInodes => {
                matches!(record, ShmInode(_) | ShmVma(_) | Torn | ShmFilesystem(_) | ShmWalk(_) | End)
            }
            Iterator::ShmemPayers => {
                matches!(record, ShmCgroup(_) | ShmPages(_)) || Iterator::ShmemInodes.writes(record)
            }
        }
    }
}

/// Why an iterator cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "some come only with the feature bpf, one only without it")]
pub(crate) enum Unavailable {
    /// The kernel's type information cannot be read.
    NoTypes(Errno),
    /// The kernel has no such iterator.
    Missing,
    /// The kernel has no such function, or has it only as a part of others.
    NoFunction,
    /// The kernel runs no programs when its functions begin and return. On arm64 it can since Linux
    /// 6.4 (commit 2aa6ac03516d).
    NoTrampolines,
    /// It would record births, and the deaths could not be noticed.
    NoDeaths,
    /// It was not requested.
    NotRequested,
    /// The library was built without the loader.
    NotBuilt,
    /// It is not pinned.
    NotPinned,
    /// The file in its place is not on a bpf filesystem, is not an iterator, or belongs neither to
    /// root nor to the caller.
    Foreign,
    /// It tells pids of the first pid namespace, and the procfs has those of another one.
    OtherPids,
    /// This process may not load or read it.
    Refused(Errno),
    /// This kernel cannot run it.
    Unfit(String),
}

impl Unavailable {
    /// The reason that the error of a failed reading stands for.
    pub(crate) fn of_reading(errno: Errno) -> Unavailable {
        match errno {
            Errno::BADMSG => Unavailable::Foreign,
            errno => Unavailable::Refused(errno),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unavailable::NoTypes(errno) => {
                write!(f, "the kernel's type information cannot be read: {}", std::io::Error::from(*errno))
            }
            Unavailable::Missing => f.write_str("this kernel has no such iterator"),
            Unavailable::NoFunction => f.write_str("this kernel has no such function of its own"),
            Unavailable::NoTrampolines => {
                f.write_str("this kernel runs no BPF programs at its functions (arm64: since Linux 6.4)")
            }
            Unavailable::NoDeaths => f.write_str("it could not be noticed when what it records is gone"),
            Unavailable::NotRequested => f.write_str("not requested"),
            Unavailable::NotBuilt => f.write_str("lsbuf was built without BPF support"),
            Unavailable::NotPinned => f.write_str("not pinned"),
            Unavailable::Foreign => f.write_str("what is there was not pinned by root"),
            Unavailable::OtherPids => {
                f.write_str("it tells pids of the first pid namespace, and this /proc has others")
            }
            Unavailable::Refused(errno) => write!(f, "{}", std::io::Error::from(*errno)),
            Unavailable::Unfit(why) => write!(f, "does not fit this kernel: {why}"),
        }
    }
}
