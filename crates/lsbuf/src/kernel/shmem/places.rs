//! By which path a file of a tmpfs or hugetlbfs can be reached, whatever mount namespace shows its
//! filesystem.
//!
//! The mount table of the reader comes first. If it does not show the filesystem, the tables of
//! other processes are read, one for each mount namespace and root. Through such a process the
//! reader reaches the file by a path that begins with `/proc/PID/root`.
//!
//! A mount table does not say which mounts are hidden by one on a folder above. So a mount point is
//! looked up before a path through it is given, as [`usage`](super::usage) does it: from the
//! kernel's cache of names, so that nobody is waited for. Its device proves that it is the right
//! one.
//!
//! Mount namespaces without a process come last ([`kept_mounts`](super::kept_mounts)). There is no
//! path from outside into these, so a path there begins with `(nsenter --mount=PATH)`.
//!
//! Limits: a filesystem that is mounted only below other mounts is not reached. A path is right at
//! the moment when it is made.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::MountView;
use super::kept_mounts::{self, KeptMounts};
use super::mounts::Mounts;
use super::name::Filesystem;
use super::usage::{is_of, look_up};
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::model::{Dev, Label, Pid};

/// What the processes of one mount namespace and root see.
#[derive(Debug)]
struct Table {
    mounts: Mounts,
    /// The root of one of these processes.
    root: OwnedFd,
    /// What comes before their paths.
    prefix: Vec<u8>,
}

/// What of the machine's mounts was not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unread {
    /// Processes that did not let their mounts be read.
    pub(crate) processes: u64,
    /// Mount namespaces without a process that could not be entered.
    pub(crate) namespaces: u64,
}

/// The mount tables.
#[derive(Debug)]
pub(crate) struct Places<'r> {
    root: &'r ProcRoot,
    tables: Vec<Table>,
    /// Processes whose tables have not been read yet. The next one is the last of these.
    unread: Vec<Pid>,
    seen: HashSet<MountView>,
    denied: Unread,
    /// Whether the mount namespaces without a process have been read.
    has_read_kept: bool,
    /// Whether each mount point that was looked up leads to its filesystem.
    reached: HashMap<(usize, Vec<u8>, Dev), bool>,
}

impl<'r> Places<'r> {
    /// Reads the reader's own mount table.
    pub(crate) fn of(root: &'r ProcRoot) -> Places<'r> {
        let own = root.tree().reader(root.dir());
        let others = root.processes().unwrap_or_default();
        let mut unread: Vec<Pid> = others.into_iter().map(|(pid, _)| pid).rev().collect();
        unread.retain(|&pid| Some(pid) != own);
        let mut places = Places {
            root,
            tables: Vec::new(),
            unread,
            seen: HashSet::new(),
            denied: Unread::default(),
            has_read_kept: false,
            reached: HashMap::new(),
        };
        if let Some(own) = own {
            places.read(own, Vec::new());
        }
        places
    }

    /// The path by which the reader can open a file, from its path below the root of the
    /// filesystem. `None`: no process that lets its mounts be read sees it.
    pub(crate) fn path_of(&mut self, dev: Dev, below: &[u8]) -> Option<Vec<u8>> {
        self.find(|places, nth| {
            let (path, point) = places.tables[nth].mounts.open_path_of(dev, below)?;
            let point = point.to_vec();
            places.leads_to(nth, &point, dev).then(|| [&places.tables[nth].prefix[..], &path].concat())
        })
    }

    /// The root folder of a filesystem, opened by `O_PATH`, and the path by which the reader
    /// reaches it.
    pub(crate) fn folder(&mut self, dev: Dev) -> Option<(OwnedFd, Vec<u8>)> {
        self.find(|places, nth| {
            let Table { mounts, root, prefix } = &places.tables[nth];
            let point = mounts.of_root(dev)?;
            let folder = look_up(root.as_fd(), mounts, point).ok()?;
            is_of(&folder, dev).ok()?.then(|| (folder, [&prefix[..], point].concat()))
        })
    }

    /// Every tmpfs, devtmpfs and hugetlbfs that is mounted, ordered by device; and what was not
    /// read.
    pub(crate) fn devices(&mut self) -> (Vec<(Dev, Filesystem)>, Unread) {
        while self.read_next() {}
        let all = self.tables.iter().flat_map(|table| table.mounts.devices());
        let mut devices: Vec<(Dev, Filesystem)> = all.collect::<HashMap<_, _>>().into_iter().collect();
        devices.sort_unstable_by_key(|&(dev, _)| dev);
        (devices, self.denied)
    }

    /// Asks each table, until one gives an answer.
    fn find<T>(&mut self, mut ask: impl FnMut(&mut Places<'r>, usize) -> Option<T>) -> Option<T> {
        let mut nth = 0;
        loop {
            while nth < self.tables.len() {
                if let Some(found) = ask(self, nth) {
                    return Some(found);
                }
                nth += 1;
            }
            if !self.read_next() {
                return None;
            }
        }
    }

    /// Whether a mount point leads to a filesystem.
    fn leads_to(&mut self, nth: usize, point: &[u8], dev: Dev) -> bool {
        let Table { mounts, root, .. } = &self.tables[nth];
        *self.reached.entry((nth, point.to_vec(), dev)).or_insert_with(|| {
            look_up(root.as_fd(), mounts, point).and_then(|found| is_of(&found, dev)).unwrap_or(false)
        })
    }

    /// Reads the table of the next process, and at last those of the namespaces without a process.
    /// `false`: there is none left.
    fn read_next(&mut self) -> bool {
        let Some(pid) = self.unread.pop() else {
            return !std::mem::replace(&mut self.has_read_kept, true) && self.read_kept();
        };
        self.read(pid, format!("{}/{pid}/root", self.root.path().display()).into_bytes());
        true
    }

    /// Reads the tables of the mount namespaces without a process. Paths there begin with the
    /// command by which root can enter the namespace, in brackets. `false`: there is none.
    fn read_kept(&mut self) -> bool {
        if !self.root.is_live() {
            return false;
        }
        let known: HashSet<Label> = self.seen.iter().map(|view| view.namespace().clone()).collect();
        let (kept, refused) = kept_mounts::read(self.root, &known);
        self.denied.namespaces += refused;
        let found = !kept.is_empty();
        for KeptMounts { path, mountinfo, root } in kept {
            let prefix = [b"(nsenter --mount=", path.as_bytes(), b")"].concat();
            self.tables.push(Table { mounts: Mounts::parse(&mountinfo), root, prefix });
        }
        found
    }

    /// Reads the mounts that a process sees, unless another one sees the same.
    fn read(&mut self, pid: Pid, prefix: Vec<u8>) {
        let Ok(process) = ProcessDir::open(self.root, pid) else { return };
        match MountView::of(&process) {
            Ok(view) if self.seen.insert(view.clone()) => {}
            Ok(_) => return,
            Err(error) => {
                self.denied.processes += u64::from(matches!(error, Errno::ACCESS | Errno::PERM));
                return;
            }
        }
        let mut text = Vec::new();
        let mounts = process.dir().read_file(c"mountinfo", &mut text);
        match mounts.and_then(|()| process.dir().pin(c"root")) {
            Ok(root) => self.tables.push(Table { mounts: Mounts::parse(&text), root, prefix }),
            Err(error) => self.denied.processes += u64::from(matches!(error, Errno::ACCESS | Errno::PERM)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::metadata;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use super::*;
    use crate::kernel::identity::device_of;

    /// Check that the path of a folder on a tmpfs leads to that tmpfs, and that the path of a
    /// device that nobody sees is not known.
    #[test]
    fn own() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let mut places = Places::of(&root);
        let shm = Path::new("/dev/shm");
        let dev = device_of(&rustix::fs::stat(shm).unwrap());
        let path = places.path_of(dev, b"").unwrap();
        let found = metadata(std::ffi::OsStr::from_bytes(&path)).unwrap();
        assert_eq!(found.dev(), metadata(shm).unwrap().dev());
        assert!(places.folder(dev).is_some());
        assert_eq!(places.path_of(Dev { major: 0, minor: u32::MAX }, b"/x"), None);
        assert!(places.devices().0.iter().any(|&(known, _)| known == dev));
    }
}
