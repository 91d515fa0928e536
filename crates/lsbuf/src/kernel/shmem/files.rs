//! Walks the folders of one filesystem and finds its regular files.
//!
//! No link is followed, and the walk never leaves the filesystem: other people may mount a server
//! that does not answer on one of its folders or files. If the caller may, the mount is copied
//! first without what is mounted below it (`open_tree` with `OPEN_TREE_CLONE`, Linux 5.2, commit
//! a07b20004793). Nobody can mount anything in the copy, and it shows what other mounts hide.
//! Otherwise each name is opened by `openat2` with `RESOLVE_NO_XDEV` (Linux 5.6, commit
//! 72ba29297e14), which fails at a mount point.
//!
//! Files may come and go meanwhile. Each file that was there all the time is found once, unless a
//! folder above it was moved.
//!
//! Limits: folders that are nested deeper than [`DEEPEST`] are not read, because each takes an fd.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags, openat2, statx};
use rustix::io::{Errno, Result};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::kernel::identity::device;
use crate::model::Dev;

/// How many folders may be nested.
const DEEPEST: usize = 256;

/// Room for the names in a folder that are read at once, in bytes.
const ROOM: usize = 32 << 10;

/// What a walk did not see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NotSeen {
    /// Folders that could not be read.
    pub(crate) folders: u64,
    /// Files and folders that something is mounted over.
    pub(crate) hidden: u64,
}

/// A folder whose subfolders are read one after the other.
struct Open {
    folder: OwnedFd,
    /// Those that are left, each with a NUL, the next one last.
    subfolders: Vec<std::ffi::CString>,
    /// How long the path of the folder is.
    path: usize,
}

/// What is called for a file: with the path of its folder, its name, and its inode.
type Each<'e> = dyn FnMut(&[u8], &[u8], &Statx) + 'e;

/// A walk.
struct Walk<'e> {
    dev: Dev,
    /// Whether nothing can be mounted in what is walked.
    is_copy: bool,
    not_seen: NotSeen,
    each: &'e mut Each<'e>,
}

/// Calls `each` for every regular file of the filesystem with this device, with the path of its
/// folder below `top`, its name, and its inode. `top` is a folder of that filesystem, opened by
/// `O_PATH`.
pub(crate) fn walk(top: &OwnedFd, dev: Dev, mut each: impl FnMut(&[u8], &[u8], &Statx)) -> NotSeen {
    let copied = open_tree(
        top,
        c"",
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH,
    );
    let mut walk = Walk { dev, is_copy: copied.is_ok(), not_seen: NotSeen::default(), each: &mut each };
    let top = copied.as_ref().unwrap_or(top);
    let mut path = Vec::new();
    let mut open = Vec::new();
    open.extend(walk.enter(top.as_fd(), c".", &path));
    while let Some(Open { folder, subfolders, path: length }) = open.last_mut() {
        path.truncate(*length);
        let Some(name) = subfolders.pop() else {
            open.pop();
            continue;
        };
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
        let entered = walk.enter(folder.as_fd(), &name, &path);
        if open.len() < DEEPEST {
            open.extend(entered);
        } else {
            walk.not_seen.folders += entered.map_or(0, |inner| inner.subfolders.len() as u64);
        }
    }
    walk.not_seen
}

impl Walk<'_> {
    /// Opens a folder and looks at what is in it. `None`: it cannot be read, or is gone.
    fn enter(&mut self, at: BorrowedFd<'_>, name: &std::ffi::CStr, path: &[u8]) -> Option<Open> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let read = self.open(at, name, flags).and_then(|folder| {
            let subfolders = self.read(&folder, path)?;
            Ok(Open { folder, subfolders, path: path.len() })
        });
        match read {
            Ok(open) => return Some(open),
            Err(Errno::XDEV) => self.not_seen.hidden += 1,
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(_) => self.not_seen.folders += 1,
        }
        None
    }

    /// Calls `each` for the files in a folder. Returns the names of its subfolders.
    fn read(&mut self, folder: &OwnedFd, path: &[u8]) -> Result<Vec<std::ffi::CString>> {
        let mut room = [MaybeUninit::uninit(); ROOM];
        let mut entries = RawDir::new(folder, &mut room);
        let mut subfolders = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            match entry.file_type() {
                _ if matches!(name.to_bytes(), b"." | b"..") => {}
                FileType::Directory => subfolders.push(name.to_owned()),
                FileType::RegularFile => match self.inode(folder, name) {
                    Ok(inode) if device(&inode) == self.dev => (self.each)(path, name.to_bytes(), &inode),
                    Ok(_) | Err(Errno::XDEV) => self.not_seen.hidden += 1,
                    // It is gone.
                    Err(_) => {}
                },
                _ => {}
            }
        }
        Ok(subfolders)
    }

    fn inode(&self, folder: &OwnedFd, name: &std::ffi::CStr) -> Result<Statx> {
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        if self.is_copy {
            return statx(folder, name, flags, mask);
        }
        let file = self.open(folder.as_fd(), name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)?;
        statx(&file, c"", flags | AtFlags::EMPTY_PATH, mask)
    }

    fn open(&self, at: BorrowedFd<'_>, name: &std::ffi::CStr, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        openat2(at, name, flags, Mode::empty(), resolve)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{File, create_dir, create_dir_all};
    use std::os::unix::fs::symlink;

    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

    use super::*;
    use crate::kernel::identity::device_of;

    fn top_of(path: &std::path::Path) -> (OwnedFd, Dev) {
        let top = openat2(
            rustix::fs::CWD,
            path,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::empty(),
        )
        .unwrap();
        let dev = device_of(&rustix::fs::fstat(&top).unwrap());
        (top, dev)
    }

    fn found(path: &std::path::Path) -> (BTreeSet<String>, NotSeen) {
        let (top, dev) = top_of(path);
        let mut files = BTreeSet::new();
        let not_seen = walk(&top, dev, |folder, name, _| {
            let path = [folder, b"/", name].concat();
            assert!(files.insert(String::from_utf8_lossy(&path).into_owned()), "twice: {path:?}");
        });
        (files, not_seen)
    }

    /// Check that each regular file is found once, also below folders, and nothing by a link.
    #[test]
    fn files_and_folders() {
        let top = tempfile::tempdir().unwrap();
        create_dir_all(top.path().join("a/b\n\x1b")).unwrap();
        for name in ["x", "a/y", "a/b\n\x1b/z"] {
            File::create(top.path().join(name)).unwrap();
        }
        symlink("..", top.path().join("a/up")).unwrap();
        symlink("x", top.path().join("link")).unwrap();
        let (files, not_seen) = found(top.path());
        assert_eq!(files.iter().map(String::as_str).collect::<Vec<_>>(), ["/a/b\n\x1b/z", "/a/y", "/x"]);
        assert_eq!(not_seen, NotSeen::default());
    }

    /// Check that a chain of more folders than may be open is read up to there, and that this is
    /// said.
    #[test]
    fn nested_too_deep() {
        let top = tempfile::tempdir().unwrap();
        let mut path = top.path().to_owned();
        for _ in 0..DEEPEST + 2 {
            path.push("d");
            create_dir(&path).unwrap();
        }
        File::create(path.join("x")).unwrap();
        let (files, not_seen) = found(top.path());
        assert_eq!((files.len(), not_seen.folders), (0, 1));
    }

    /// Check that a mount in the filesystem is not entered, in a copy of the mount and otherwise: a
    /// folder that is mounted below itself ends no walk twice.
    #[test]
    fn mounts_are_not_entered() {
        let place = tempfile::tempdir().unwrap();
        if mount("lsbuf-test", place.path(), "tmpfs", MountFlags::empty(), None).is_err() {
            eprintln!("skipped: mounting is not allowed here");
            return;
        }
        let inner = place.path().join("a");
        create_dir(&inner).unwrap();
        File::create(inner.join("hidden")).unwrap();
        File::create(place.path().join("x")).unwrap();
        mount_bind(place.path(), &inner).unwrap();
        let (top, dev) = top_of(place.path());
        let mut files = Vec::new();
        let mut each = |_: &[u8], name: &[u8], _: &Statx| files.push(name.to_vec());
        let mut by_name = Walk { dev, is_copy: false, not_seen: NotSeen::default(), each: &mut each };
        let open = by_name.enter(top.as_fd(), c".", b"").unwrap();
        assert!(by_name.enter(open.folder.as_fd(), &open.subfolders[0], b"/a").is_none());
        assert_eq!(by_name.not_seen.hidden, 1);
        let (copied, _) = found(place.path());
        unmount(&inner, UnmountFlags::DETACH).unwrap();
        unmount(place.path(), UnmountFlags::DETACH).unwrap();
        assert_eq!(files, [b"x"]);
        assert!(copied.contains("/x") && (copied.len() == 1 || copied.contains("/a/hidden")), "{copied:?}");
    }
}
