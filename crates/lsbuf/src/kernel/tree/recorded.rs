//! A recorded tree: an ordinary folder with the shape of a procfs.
//!
//! What only a running kernel could answer is kept in folders named `.lsbuf`, which a procfs cannot
//! contain:
//! - `.lsbuf/dmabuf-dev`: the device of the dma-buf filesystem, `MAJOR:MINOR`;
//! - `.lsbuf/shared`: a line `files TID TID` or `vm TID TID` for each two tasks of different
//!   processes that share their fd table or address space; all others do not. Threads share their
//!   process's fd table unless an `fd` folder of their own was recorded;
//! - `.lsbuf/shmem`: the devices of the kernel's own shmem filesystems, lines of `kernel`, `huge`
//!   or `secret` and `MAJOR:MINOR`;
//! - `.lsbuf/tmpfs-usage`: how much of each mounted tmpfs is used, lines of `MAJOR:MINOR BYTES`,
//!   with `uncounted` or `ramfs` in place of the bytes where there is no number;
//! - `P/.lsbuf/fd/N` and `P/.lsbuf/map_files/RANGE`: what the inode behind that link said, in the
//!   form of [`identity`] or of [`shmem::inode`](crate::kernel::shmem::inode).
//!
//! **Hostile trees.** A user, perhaps root, may look at a recording that somebody else has made. It
//! must not make lsbuf show files of this machine. So everything below the root is opened without
//! following a link and without leaving the root (openat2(2), Linux 5.6, commit fddb5d430ad9). Only
//! folders and regular files are opened, and only files of at most [`LARGEST`] bytes. Links in `fd`
//! are read as text.
//!
//! Limits: the root itself may be any path. lsbuf waits for a filesystem that answers slowly, such
//! as FUSE, so do not mount a filesystem that an untrusted person serves.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat_raw};
use rustix::io::{Errno, Result};

use super::{Folder, Tree};
use crate::kernel::identity::{self, LinkTarget, device_text};
use crate::kernel::kcmp::Resource;
use crate::kernel::parse::{Malformed, number};
use crate::kernel::read;
use crate::kernel::shmem::inode::{self, ShmFile};
use crate::kernel::shmem::name::Filesystem;
use crate::model::{Bytes, Dev, Pid, Tid, TmpfsUsage};

/// The size of the largest file that is opened, in bytes. The text of ten million mappings is
/// smaller.
pub(crate) const LARGEST: u64 = 1 << 30;

/// The kernel's answers that a recorded tree keeps.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    dmabuf_dev: Option<Dev>,
    /// `None`: it was not recorded which tasks share.
    shared: Option<Groups>,
    shmem: HashMap<Dev, Filesystem>,
    usage: HashMap<Dev, TmpfsUsage>,
}

impl Recorded {
    /// Reads the answers that a tree keeps. Lines that cannot be parsed are skipped.
    pub(crate) fn at(root: BorrowedFd<'_>) -> Recorded {
        let text = |path: &CStr| {
            let mut text = Vec::new();
            read::one_record(&open_file(root, path).ok()?, &mut text).ok()?;
            Some(String::from_utf8_lossy(&text).trim_end().to_owned())
        };
        let lines = |path: &CStr| text(path).unwrap_or_default();
        Recorded {
            dmabuf_dev: text(c".lsbuf/dmabuf-dev").and_then(|dev| device_text(dev.as_bytes()).ok()),
            shared: text(c".lsbuf/shared").map(|lines| groups(lines.lines().filter_map(pair))),
            shmem: lines(c".lsbuf/shmem").lines().filter_map(filesystem).collect(),
            usage: lines(c".lsbuf/tmpfs-usage").lines().filter_map(usage).collect(),
        }
    }
}

#[cfg(any(test, fuzzing))]
impl Recorded {
    /// A tree that records only which tasks share.
    pub(crate) fn sharing(pairs: impl Iterator<Item = (Resource, u32, u32)>) -> Recorded {
        Recorded { shared: Some(groups(pairs)), ..Recorded::default() }
    }
}

/// Opens a path below a folder, without following a link and without leaving the folder.
fn open(at: BorrowedFd<'_>, path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    openat2(at, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// Opens a regular file of at most [`LARGEST`] bytes. Other files are refused before they are
/// opened, because opening a device may have an effect. `ENOTSUP`: not a regular file. `EFBIG`: too
/// large.
fn open_file(at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
    let check = |file: &OwnedFd| {
        let stat = fstat(file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Errno::NOTSUP);
        }
        if u64::try_from(stat.st_size).map_or(true, |size| size > LARGEST) {
            return Err(Errno::FBIG);
        }
        Ok(())
    };
    check(&open(at, path, OFlags::PATH)?)?;
    let file = open(at, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    // It may have been replaced in between.
    check(&file)?;
    Ok(file)
}

impl Tree for Recorded {
    fn is_live(&self) -> bool {
        false
    }

    fn has_own_pids(&self) -> bool {
        false
    }

    /// A file that is missing was not recorded; that says nothing about the process.
    fn says_exited(&self, _error: Errno) -> bool {
        false
    }

    /// No process starts in a recording.
    fn last_pid(&self, _root: &Folder) -> Option<u32> {
        Some(0)
    }

    fn open_folder(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
        open(at, path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn open_file(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
        open_file(at, path)
    }

    fn pin(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
        open(at, path, OFlags::PATH)
    }

    fn read_link<'r>(
        &self,
        at: BorrowedFd<'_>,
        path: &CStr,
        room: &'r mut [MaybeUninit<u8>],
    ) -> Result<&'r [u8]> {
        let link = open(at, path, OFlags::PATH | OFlags::NOFOLLOW)?;
        readlinkat_raw(&link, c"", room).map(|(text, _)| &*text)
    }

    /// There is no kernel to test.
    fn own_maps(&self, _root: &Folder) -> Result<OwnedFd> {
        Err(Errno::NOTTY)
    }

    /// A process without `task` was recorded without threads.
    fn may_have_threads(&self, at: &Folder, task: &str) -> Result<bool> {
        match at.folder(task) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn has_own_fds(&self, process: &Folder, thread: Tid) -> Option<bool> {
        Some(process.folder(format!("task/{thread}/fd")).is_ok())
    }

    fn compare(&self, what: Resource, a: Tid, b: Tid) -> Option<Ordering> {
        let groups = self.shared.as_ref()?;
        let group = |tid: Tid| groups.get(&(what, tid.0)).copied().unwrap_or(tid.0);
        Some(group(a).cmp(&group(b)))
    }

    fn still_runs(&self, _root: &Folder, _task: Tid) -> bool {
        true
    }

    /// `EBADMSG`: the record cannot be parsed.
    fn object(&self, process: &Folder, link: &str, _known: Option<Dev>) -> Result<LinkTarget> {
        let mut text = Vec::new();
        process.read_record(format!(".lsbuf/{link}"), &mut text)?;
        identity::parse_recorded(&text).map_err(|Malformed| Errno::BADMSG)
    }

    fn shm_file(&self, process: &Folder, link: &str) -> Result<ShmFile> {
        let mut text = Vec::new();
        match process.read_record(format!(".lsbuf/{link}"), &mut text) {
            Ok(()) => Ok(inode::parse(&text).map_or(ShmFile::Unknown, ShmFile::Regular)),
            Err(Errno::NOENT) => Ok(ShmFile::Unknown),
            Err(error) => Err(error),
        }
    }

    /// On an ordinary filesystem all links have the same mode.
    fn shows_access(&self, _process: &Folder, _link: &str) -> Result<bool> {
        Ok(false)
    }

    fn magic(&self, _process: &Folder, _link: &str, _dev: Dev) -> Option<i64> {
        None
    }

    fn dmabuf_dev(&self) -> Option<Dev> {
        self.dmabuf_dev
    }

    fn own_shmem(&self) -> HashMap<Dev, Filesystem> {
        self.shmem.clone()
    }

    fn kept_usage(&self, dev: Dev) -> Option<TmpfsUsage> {
        Some(self.usage.get(&dev).copied().unwrap_or(TmpfsUsage::Unreadable))
    }

    fn reader(&self, _root: &Folder) -> Option<Pid> {
        None
    }
}

/// For each task that shares, the lowest id of the tasks that it shares with.
type Groups = HashMap<(Resource, u32), u32>;

fn groups(pairs: impl Iterator<Item = (Resource, u32, u32)>) -> Groups {
    let mut groups = Groups::new();
    for (what, a, b) in pairs {
        let lowest = a.min(b);
        for tid in [a, b] {
            groups.entry((what, tid)).and_modify(|group| *group = lowest.min(*group)).or_insert(lowest);
        }
    }
    groups
}

/// Parses a line of `.lsbuf/shared`.
pub(crate) fn pair(line: &str) -> Option<(Resource, u32, u32)> {
    let mut words = line.split_ascii_whitespace();
    let what = match words.next()? {
        "files" => Resource::Files,
        "vm" => Resource::Vm,
        _ => return None,
    };
    Some((what, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Parses a line of `.lsbuf/shmem`.
fn filesystem(line: &str) -> Option<(Dev, Filesystem)> {
    let (word, dev) = line.split_once(' ')?;
    let filesystem = match word {
        "kernel" => Filesystem::Kernel,
        "huge" => Filesystem::KernelHuge,
        "secret" => Filesystem::Secret,
        _ => return None,
    };
    Some((device_text(dev.as_bytes()).ok()?, filesystem))
}

/// Parses a line of `.lsbuf/tmpfs-usage`.
fn usage(line: &str) -> Option<(Dev, TmpfsUsage)> {
    let (dev, word) = line.split_once(' ')?;
    let usage = match word {
        "uncounted" => TmpfsUsage::Uncounted,
        "ramfs" => TmpfsUsage::Ramfs,
        bytes => TmpfsUsage::Used(Bytes(number(bytes.as_bytes(), 10).ok()?)),
    };
    Some((device_text(dev.as_bytes()).ok()?, usage))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    /// Check that a line of `shared` holds in both directions and for its resource alone, and that
    /// other lines are skipped.
    #[test]
    fn sharing() {
        let pairs = "files 1 2\nnonsense\nvm 3\nvm x y\n".lines().filter_map(pair);
        let tree = Recorded::sharing(pairs);
        assert_eq!(tree.compare(Resource::Files, Tid(2), Tid(1)), Some(Ordering::Equal));
        assert_eq!(tree.compare(Resource::Vm, Tid(1), Tid(2)), Some(Ordering::Less));
        assert_eq!(tree.compare(Resource::Files, Tid(2), Tid(3)), Some(Ordering::Less));
    }

    /// Check that it is unknown whether tasks share if that was not recorded.
    #[test]
    fn unknown_sharing() {
        assert_eq!(Recorded::default().compare(Resource::Vm, Tid(1), Tid(2)), None);
    }

    /// Check that a line of `shmem` is read, and another one skipped.
    #[test]
    fn filesystems() {
        assert_eq!(filesystem("huge 0:17"), Some((Dev { major: 0, minor: 17 }, Filesystem::KernelHuge)));
        assert_eq!(filesystem("tmpfs 0:17"), None);
        assert_eq!(filesystem("kernel"), None);
    }

    /// Check that no links, no paths out of the folder, and nothing but folders and files of a
    /// limited size are opened.
    #[test]
    fn refused() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        fs::create_dir_all(below.join("real")).unwrap();
        fs::write(folder.path().join("secret"), "x").unwrap();
        fs::write(below.join("file"), "x").unwrap();
        fs::File::create(below.join("huge")).unwrap().set_len(LARGEST + 1).unwrap();
        for (link, target) in [
            ("out", "../secret"),
            ("in", "file"),
            ("folder", "real"),
            ("zero", "/dev/zero"),
            ("self", "/proc/self"),
        ] {
            symlink(target, below.join(link)).unwrap();
        }
        let fifo = rustix::fs::mknodat(
            rustix::fs::CWD,
            below.join("fifo"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        );
        fifo.unwrap();
        let root = read::open_dir(rustix::fs::CWD, below.as_path()).unwrap();
        let opened = |path: &CStr| Recorded::default().open_file(root.as_fd(), path).map(drop);
        assert_eq!(opened(c"file"), Ok(()));
        for link in [c"out", c"in", c"zero", c"self/status", c"folder/x"] {
            assert_eq!(opened(link), Err(Errno::LOOP), "{link:?}");
        }
        assert_eq!(opened(c"../secret"), Err(Errno::XDEV));
        assert_eq!(opened(c"/proc/version"), Err(Errno::XDEV));
        assert_eq!((opened(c"fifo"), opened(c"real")), (Err(Errno::NOTSUP), Err(Errno::NOTSUP)));
        assert_eq!(opened(c"huge"), Err(Errno::FBIG));
        let folders = |path: &CStr| Recorded::default().open_folder(root.as_fd(), path).map(drop);
        assert_eq!(
            (folders(c"real"), folders(c"folder"), folders(c"..")),
            (Ok(()), Err(Errno::LOOP), Err(Errno::XDEV))
        );
    }

    /// Check that a link is read as text, and that no other link on the way to it is followed.
    #[test]
    fn links_are_text() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("fd")).unwrap();
        symlink("/dmabuf:x", folder.path().join("fd/3")).unwrap();
        symlink("fd", folder.path().join("other")).unwrap();
        let root = read::open_dir(rustix::fs::CWD, folder.path()).unwrap();
        let mut room = [MaybeUninit::uninit(); 64];
        let tree = Recorded::default();
        assert_eq!(tree.read_link(root.as_fd(), c"fd/3", &mut room), Ok(&b"/dmabuf:x"[..]));
        assert_eq!(tree.read_link(root.as_fd(), c"other/3", &mut room), Err(Errno::LOOP));
    }

    proptest! {
        /// Check that a line of `tmpfs-usage` is read back, and that no text makes its parser
        /// panic.
        #[test]
        fn usages(bytes: u64, minor: u32, text in ".{0,40}") {
            let expected = (Dev { major: 0, minor }, TmpfsUsage::Used(Bytes(bytes)));
            prop_assert_eq!(usage(&format!("0:{minor} {bytes}")), Some(expected));
            let _ = usage(&text);
        }
    }
}
