//! Proof that a file is a dma-buf, and what its inode says.
//!
//! The proof is the magic number of the file's filesystem. To read it can hang if the file belongs
//! to a dead network server or to a hostile FUSE daemon. So it is read only of
//! - an fd whose fdinfo has just shown `exp_name`, which only dma-bufs print, or
//! - a candidate by name whose filesystem is not among its process's mounts, because the dma-buf
//!   filesystem belongs to the kernel and is never mounted. Here `statx` comes first, with
//!   `AT_STATX_DONT_SYNC`: network filesystems and FUSE answer that from memory. The magic number
//!   is read only if the inode has no file type. `alloc_anon_inode` makes such inodes, and no
//!   filesystem that can be mounted does.
//!
//! A recorded tree has no inodes. For each link it keeps what the inode said in a file: `.lsbuf/`
//! and the link, below the folder of the process. Its form is `MAGIC MAJOR:MINOR INO SIZE UID CTIME
//! MTIME`, with the filesystem's magic number in hex and times in seconds.
//!
//! Limits: a process may replace the fd between two calls, and a lazily unmounted network mount is
//! in no mount table. In either case a file called `/dmabuf:…` on a server that is gone delays the
//! open.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, OFlags, Stat, Statx, StatxFlags, StatxTimestamp, fstatfs, major, minor, statx};
use rustix::io::Result;
use rustix::path::Arg;

use super::guard;
use super::magic;
use super::parse::{Malformed, cut, number, number32};
use crate::model::{Bytes, Dev, Inode};

/// What the inode of a proven dma-buf says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InodeFact {
    pub(crate) dev: Dev,
    pub(crate) ino: Inode,
    pub(crate) size: Bytes,
    pub(crate) creator_uid: u32,
    pub(crate) created_at: Option<SystemTime>,
}

/// The file behind a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkTarget {
    /// Proven to be a dma-buf.
    DmaBuf(InodeFact),
    /// Proven to be another file, on that device.
    Other(Dev),
}

/// Reads the inode behind a link of procfs (`fd/N` or `map_files/…`). If it is on the `known`
/// device of the dma-buf filesystem, one call is enough. Else the file is pinned, so that inode and
/// magic number belong to the same file.
pub(crate) fn ask<P: Arg + Copy>(process: BorrowedFd<'_>, link: P, known: Option<Dev>) -> Result<LinkTarget> {
    let unsynced = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    if known.is_some() {
        let mask = StatxFlags::BASIC_STATS;
        let inode = link.into_with_c_str(|link| guard::stat_at(process, link, unsynced, mask))?;
        if known == Some(device(&inode)) {
            return Ok(LinkTarget::DmaBuf(fact(&inode)));
        }
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    object(link.into_with_c_str(|link| guard::open_at(None, process, link, flags))?.as_fd())
}

/// Reads the inode of an open file.
pub(crate) fn object(pinned: BorrowedFd<'_>) -> Result<LinkTarget> {
    const S_IFMT: u16 = 0o170_000;
    let unsynced = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let inode = statx(pinned, c"", unsynced | AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    if inode.stx_mode & S_IFMT != 0 || fstatfs(pinned)?.f_type != magic::DMA_BUF {
        return Ok(LinkTarget::Other(device(&inode)));
    }
    Ok(LinkTarget::DmaBuf(fact(&inode)))
}

/// Parses what a recorded tree keeps of an inode.
pub(crate) fn parse_recorded(text: &[u8]) -> std::result::Result<LinkTarget, Malformed> {
    let mut words = text.strip_suffix(b"\n").unwrap_or(text).split(|&b| b == b' ');
    let mut word = || words.next().ok_or(Malformed);
    let magic = number(word()?, 16)?;
    let dev = device_text(word()?)?;
    let (ino, size, creator_uid) =
        (Inode(number(word()?, 10)?), Bytes(number(word()?, 10)?), number32(word()?, 10)?);
    let (changed, modified) = (time_text(word()?)?, time_text(word()?)?);
    if words.next().is_some() {
        return Err(Malformed);
    }
    if i64::try_from(magic) != Ok(magic::DMA_BUF) {
        return Ok(LinkTarget::Other(dev));
    }
    Ok(LinkTarget::DmaBuf(InodeFact { dev, ino, size, creator_uid, created_at: created(changed, modified) }))
}

/// `MAJOR:MINOR`, in decimal.
pub(crate) fn device_text(text: &[u8]) -> std::result::Result<Dev, Malformed> {
    let (major, minor) = cut(text, b':')?;
    Ok(Dev { major: number32(major, 10)?, minor: number32(minor, 10)? })
}

/// The device of a filesystem, from `st_dev` of stat(2).
pub(crate) fn device_of(stat: &Stat) -> Dev {
    Dev { major: major(stat.st_dev), minor: minor(stat.st_dev) }
}

/// The device of a filesystem, from statx(2).
pub(crate) fn device(inode: &Statx) -> Dev {
    Dev { major: inode.stx_dev_major, minor: inode.stx_dev_minor }
}

fn fact(inode: &Statx) -> InodeFact {
    InodeFact {
        dev: device(inode),
        ino: Inode(inode.stx_ino),
        size: Bytes(inode.stx_size),
        creator_uid: inode.stx_uid,
        created_at: created(time(inode.stx_ctime), time(inode.stx_mtime)),
    }
}

/// The time of creation. Creation sets all times of the inode to the same value. The owner may
/// change them later: to another time, which shows, or to the current time, which does not.
pub(crate) fn created(changed: Option<SystemTime>, modified: Option<SystemTime>) -> Option<SystemTime> {
    changed.filter(|_| changed == modified)
}

fn time(stamp: StatxTimestamp) -> Option<SystemTime> {
    since_epoch(u64::try_from(stamp.tv_sec).ok()?, stamp.tv_nsec)
}

/// Parses seconds, a point and nine digits.
fn time_text(text: &[u8]) -> std::result::Result<Option<SystemTime>, Malformed> {
    let (seconds, nanoseconds) = cut(text, b'.')?;
    if nanoseconds.len() != 9 {
        return Err(Malformed);
    }
    Ok(since_epoch(number(seconds, 10)?, number32(nanoseconds, 10)?))
}

pub(crate) fn since_epoch(seconds: u64, nanoseconds: u32) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))?
        .checked_add(Duration::from_nanos(nanoseconds.into()))
}

/// The mounts that a process sees (`/proc/P/mountinfo`): mount ids, as in `mnt_id` of fdinfo, and
/// devices, as in `maps`.
pub(crate) fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = (u64, Dev)> {
    mountinfo.split(|&b| b == b'\n').filter_map(|line| mount(line).ok())
}

/// Parses a line of mountinfo: `ID PARENT MAJ:MIN …`, in decimal.
pub(crate) fn mount(line: &[u8]) -> std::result::Result<(u64, Dev), Malformed> {
    let (id, rest) = cut(line, b' ')?;
    let (_parent, rest) = cut(rest, b' ')?;
    let (dev, _) = cut(rest, b' ')?;
    Ok((number(id, 10)?, device_text(dev)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that a mount's own id is read, and its device, which is decimal here and hex in maps.
    #[test]
    fn a_mount() {
        let line = b"36 35 0:27 / /tmp rw,nosuid - tmpfs tmpfs rw";
        assert_eq!(mount(line), Ok((36, Dev { major: 0, minor: 27 })));
        assert_eq!(mount(b"36 35"), Err(Malformed));
    }

    fn own(fd: BorrowedFd<'_>) -> LinkTarget {
        let process = crate::kernel::read::open_dir(rustix::fs::CWD, c"/proc/self").unwrap();
        ask(process.as_fd(), format!("fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)).as_str(), None).unwrap()
    }

    /// Check that a memfd, whose inode has a file type, is not a dma-buf.
    #[test]
    fn a_memfd_is_other() {
        let memfd = rustix::fs::memfd_create(c"/dmabuf:x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert!(matches!(own(memfd.as_fd()), LinkTarget::Other(_)));
    }

    /// Check that an eventfd, whose inode has no file type either, is recognised by the magic
    /// number.
    #[test]
    fn an_eventfd_is_other() {
        let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        assert!(matches!(own(eventfd.as_fd()), LinkTarget::Other(_)));
    }

    /// Check that a recorded inode is read back as the dma-buf that it was, with a time of creation
    /// only if its times agree.
    #[test]
    fn a_recorded_inode() {
        let created_at = SystemTime::UNIX_EPOCH.checked_add(Duration::new(5, 7));
        let fact = InodeFact {
            dev: Dev { major: 0, minor: 12 },
            ino: Inode(7),
            size: Bytes(4096),
            creator_uid: 1000,
            created_at,
        };
        let parsed = parse_recorded(b"444d4142 0:12 7 4096 1000 5.000000007 5.000000007\n");
        assert_eq!(parsed, Ok(LinkTarget::DmaBuf(fact)));
        let touched = InodeFact { created_at: None, ..fact };
        let parsed = parse_recorded(b"444d4142 0:12 7 4096 1000 5.000000007 6.000000007\n");
        assert_eq!(parsed, Ok(LinkTarget::DmaBuf(touched)));
    }

    /// Check that an inode of another filesystem is not a dma-buf.
    #[test]
    fn a_recorded_impostor() {
        let parsed = parse_recorded(b"1021994 0:27 7 4096 0 5.000000007 5.000000007\n");
        assert_eq!(parsed, Ok(LinkTarget::Other(Dev { major: 0, minor: 27 })));
        assert_eq!(parse_recorded(b"444d4142 0:12 7"), Err(Malformed));
    }

    proptest! {
        /// Check that no bytes make a parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (mount(&text), parse_recorded(&text));
        }

        /// Check that a mount is read back, whatever root and mount point follow.
        #[test]
        fn mount_points_shift_nothing(id: u64, minor: u32, rest in proptest::collection::vec(any::<u8>(), 0..40)) {
            let line = [format!("{id} 1 0:{minor} ").as_bytes(), &rest].concat();
            prop_assert_eq!(mount(&line), Ok((id, Dev { major: 0, minor })));
        }
    }
}
