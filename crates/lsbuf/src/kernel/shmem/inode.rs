//! What stat(2) says about an inode of shared memory: identity, size, and the pages charged to it.
//!
//! A recorded tree has no inodes. For each link it keeps what the inode said in a file: `.lsbuf/`
//! and the link, below the folder of the process, as for dma-bufs
//! ([`identity`](crate::kernel::identity)), but in another form: `shmem MAJOR:MINOR INO SIZE BLOCKS
//! LINKS PAGE UID`, where `PAGE` is the size of its pages.

use std::time::SystemTime;

use rustix::fs::{Statx, StatxFlags};

use crate::kernel::identity::{device, device_text, since_epoch};
use crate::kernel::parse::{Malformed, number, number32};
use crate::model::{Bytes, Dev, Inode};

/// The unit of `st_blocks` in stat(2), in bytes.
pub(crate) const BLOCK: u64 = 512;

/// Pages of at least this size are huge. The smallest on a filesystem of huge pages have 64 KiB
/// (arm64 with pages of 4 KiB). Other filesystems, whose pages have 64 KiB on some kernels, do not
/// count.
const HUGE: u64 = 64 << 10;

/// What an inode says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmInode {
    pub(crate) dev: Dev,
    pub(crate) ino: Inode,
    pub(crate) size: Bytes,
    /// Pages in memory, in swap, and allocated in advance.
    pub(crate) charged: Bytes,
    /// How many names it has in its filesystem.
    pub(crate) links: u32,
    /// The size of its pages if they are huge. Or the size that it prefers: a tmpfs with
    /// transparent huge pages reports that, too.
    pub(crate) huge_page: Option<Bytes>,
    pub(crate) owner: u32,
    /// `None` if the filesystem does not keep it (tmpfs does from Linux 6.0 on, commit
    /// f7cd16a55837).
    pub(crate) created_at: Option<SystemTime>,
}

impl ShmInode {
    /// `None`: it is not a regular file.
    pub(crate) fn of(inode: &Statx) -> Option<ShmInode> {
        const S_IFMT: u16 = 0o170_000;
        const S_IFREG: u16 = 0o100_000;
        let born = inode.stx_btime;
        let known = inode.stx_mask & StatxFlags::BTIME.bits() != 0;
        let created_at =
            if known { since_epoch(u64::try_from(born.tv_sec).ok()?, born.tv_nsec) } else { None };
        (inode.stx_mode & S_IFMT == S_IFREG).then(|| ShmInode {
            dev: device(inode),
            ino: Inode(inode.stx_ino),
            size: Bytes(inode.stx_size),
            charged: Bytes(inode.stx_blocks.saturating_mul(BLOCK)),
            links: inode.stx_nlink,
            huge_page: huge(inode.stx_blksize.into()),
            owner: inode.stx_uid,
            created_at,
        })
    }
}

/// The file behind a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShmFile {
    /// A regular file, on any filesystem.
    Regular(ShmInode),
    /// Another file, such as a device node.
    Irregular,
    /// The tree has no record of it.
    Unknown,
}

/// The page size, if it is huge.
pub(crate) fn huge(page: u64) -> Option<Bytes> {
    (page >= HUGE).then_some(Bytes(page))
}

/// Parses what a recorded tree keeps of an inode.
pub(crate) fn parse(text: &[u8]) -> std::result::Result<ShmInode, Malformed> {
    let mut words = text.strip_suffix(b"\n").unwrap_or(text).split(|&b| b == b' ');
    let mut word = || words.next().ok_or(Malformed);
    if word()? != b"shmem" {
        return Err(Malformed);
    }
    let inode = ShmInode {
        dev: device_text(word()?)?,
        ino: Inode(number(word()?, 10)?),
        size: Bytes(number(word()?, 10)?),
        charged: Bytes(number(word()?, 10)?.saturating_mul(BLOCK)),
        links: number32(word()?, 10)?,
        huge_page: huge(number(word()?, 10)?),
        owner: number32(word()?, 10)?,
        created_at: None,
    };
    if words.next().is_some() { Err(Malformed) } else { Ok(inode) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, BorrowedFd};

    use proptest::prelude::*;
    use rustix::fs::{AtFlags, MemfdFlags, ftruncate, memfd_create, statx};

    use super::*;

    fn of(file: BorrowedFd<'_>) -> ShmInode {
        let all = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        ShmInode::of(&statx(file, c"", AtFlags::EMPTY_PATH, all).unwrap()).unwrap()
    }

    /// Check that a memfd is charged for the page that was written, not for its size.
    #[test]
    fn charged() {
        let memfd = memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memfd, 1 << 20).unwrap();
        assert_eq!((of(memfd.as_fd()).size, of(memfd.as_fd()).charged), (Bytes(1 << 20), Bytes(0)));
        rustix::io::pwrite(&memfd, b"x", 8192).unwrap();
        let page = rustix::param::page_size() as u64;
        assert_eq!((of(memfd.as_fd()).charged, of(memfd.as_fd()).links), (Bytes(page), 0));
    }

    /// Check that a file that is not regular is refused.
    #[test]
    fn a_folder() {
        let found = statx(rustix::fs::CWD, c"/dev", AtFlags::empty(), StatxFlags::BASIC_STATS).unwrap();
        assert_eq!(ShmInode::of(&found), None);
    }

    /// Check that each word of a recorded inode is read into its field.
    #[test]
    fn a_recorded_inode() {
        let inode = parse(b"shmem 0:1 7 8192 8 0 2097152 1000\n").unwrap();
        assert_eq!((inode.dev, inode.ino), (Dev { major: 0, minor: 1 }, Inode(7)));
        assert_eq!((inode.size, inode.charged, inode.links), (Bytes(8192), Bytes(4096), 0));
        assert_eq!((inode.huge_page, inode.owner), (Some(Bytes(2 << 20)), 1000));
    }

    proptest! {
        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&text);
        }
    }
}
