//! How much of each mounted tmpfs and devtmpfs is used, whether processes hold its files or not.
//!
//! A tmpfs with a size limit counts its pages, in memory or in swap, exactly, and reports them by
//! statfs(2) (`shmem_statfs` in mm/shmem.c). Every tmpfs has a limit unless it was mounted with
//! `size=0`. Which tmpfs are mounted is read from mount tables, one for each mount namespace and
//! root that a process has. A filesystem that shows in several tables is read once.
//!
//! **What may hang.** lsbuf opens only mount points that a table lists as a tmpfs with nothing
//! mounted over it. It opens them by `O_PATH`, below the root of a process that sees them, through
//! no link, and from the kernel's cache of names alone (`RESOLVE_CACHED`, Linux 5.12, commit
//! 99668f618062). The whole path of a mount point is always in that cache. If a folder on the way
//! needs an answer of a server, the open fails. The names in a sysfs may be missing from the cache.
//! Below a sysfs, which is recognised by its device first, names are looked up as usual, which
//! waits for nobody. Finally the device proves that the right mount was opened, before anything
//! else is read of it. Two cases are left: a process with a root on a dead network server, and,
//! before Linux 5.12, such a folder on the way.
//!
//! Limits: a namespace without a process, and mounts below a root that cannot be opened, are not
//! seen. A tmpfs counts the pages that it has charged. A clean page of a hole that the kernel has
//! dropped stays charged until the file's inode is read.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, fstatfs, openat2, statx};
use rustix::io::{Errno, Result};

use super::MountView;
use super::mounts::Mounts;
use crate::kernel::identity::device;
use crate::kernel::magic;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::model::{Bytes, Dev, Pid, TmpfsMount, TmpfsUsage};

/// The result of a survey.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// Every mounted tmpfs and devtmpfs, by its device.
    pub(crate) mounts: BTreeMap<Dev, TmpfsMount>,
    /// How many processes did not let their mount namespace be read.
    pub(crate) unseen: u64,
}

/// Reads the mounts of every process, and the usage of each tmpfs among them.
pub(crate) fn survey(root: &ProcRoot) -> std::io::Result<Survey> {
    let own = root.tree().reader(root.dir());
    let listed = root.processes()?.into_iter().map(|(pid, _)| pid);
    let mut survey = Survey::default();
    let mut seen = HashSet::new();
    let mut text = Vec::new();
    // What lsbuf sees itself needs no privilege, so it comes first.
    for pid in own.into_iter().chain(listed.filter(|&pid| Some(pid) != own)) {
        let Ok(process) = ProcessDir::open(root, pid) else { continue };
        match MountView::of(&process) {
            Ok(view) if seen.insert(view.clone()) => {}
            Ok(_) => continue,
            Err(Errno::ACCESS | Errno::PERM) => {
                survey.unseen += 1;
                continue;
            }
            // It has exited; or the tree has no record of its namespace, but perhaps of its mounts.
            Err(_) => {}
        }
        if process.dir().read_file(c"mountinfo", &mut text).is_ok() {
            let seen_by = own.and(Some(pid)).filter(|_| Some(pid) != own);
            survey.add(&Mounts::parse(&text), MountLookup { process: &process, root: None, seen_by });
        }
    }
    Ok(survey)
}

/// Where mount points are looked up.
struct MountLookup<'p> {
    process: &'p ProcessDir,
    /// Opened when it is first needed.
    root: Option<Result<OwnedFd>>,
    seen_by: Option<Pid>,
}

impl Survey {
    fn add(&mut self, mounts: &Mounts, mut place: MountLookup<'_>) {
        for (point, dev, is_top) in mounts.tmpfs() {
            let known = self.mounts.entry(dev);
            let is_told =
                |mount: &TmpfsMount| !matches!(mount.usage, TmpfsUsage::Hidden | TmpfsUsage::Unreadable);
            if matches!(&known, Entry::Occupied(known) if is_told(known.get())) {
                continue;
            }
            let (usage, limit) =
                if is_top { place.ask(mounts, point, dev) } else { (TmpfsUsage::Hidden, None) };
            let found = TmpfsMount { dev, point: point.into(), seen_by: place.seen_by, usage, limit };
            match known {
                Entry::Vacant(known) => _ = known.insert(found),
                Entry::Occupied(mut known) if usage != TmpfsUsage::Hidden => _ = known.insert(found),
                Entry::Occupied(_) => {}
            }
        }
    }
}

impl MountLookup<'_> {
    /// How much of the tmpfs is used, and its limit.
    fn ask(&mut self, mounts: &Mounts, point: &[u8], dev: Dev) -> (TmpfsUsage, Option<Bytes>) {
        if let Some(kept) = self.process.tree().kept_usage(dev) {
            return (kept, None);
        }
        let root = self.root.get_or_insert_with(|| self.process.dir().pin(c"root"));
        let asked = root.as_ref().map_err(|&error| error);
        let asked = asked.and_then(|root| usage(root.as_fd(), mounts, point, dev));
        asked.unwrap_or((TmpfsUsage::Unreadable, None))
    }
}

/// Reads the usage of the tmpfs with that device at a mount point, and its limit.
fn usage(
    root: BorrowedFd<'_>,
    mounts: &Mounts,
    point: &[u8],
    dev: Dev,
) -> Result<(TmpfsUsage, Option<Bytes>)> {
    let mounted = look_up(root, mounts, point)?;
    if !is_of(&mounted, dev)? {
        // Another filesystem has been mounted over it meanwhile.
        return Ok((TmpfsUsage::Hidden, None));
    }
    let told = fstatfs(&mounted)?;
    let block = u64::try_from(told.f_bsize).map_err(|_| Errno::BADMSG)?;
    Ok(match told.f_type {
        magic::TMPFS => {
            let limit = (told.f_blocks > 0).then(|| Bytes(told.f_blocks.saturating_mul(block)));
            (used(told.f_blocks, told.f_bfree, block), limit)
        }
        magic::RAMFS => (TmpfsUsage::Ramfs, None),
        _ => (TmpfsUsage::Unreadable, None),
    })
}

/// Whether it is on the filesystem with that device.
pub(super) fn is_of(file: &OwnedFd, dev: Dev) -> Result<bool> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    Ok(device(&statx(file, c"", flags, StatxFlags::TYPE)?) == dev)
}

fn used(blocks: u64, free: u64, size: u64) -> TmpfsUsage {
    match blocks.checked_sub(free) {
        _ if blocks == 0 => TmpfsUsage::Uncounted,
        Some(used) => TmpfsUsage::Used(Bytes(used.saturating_mul(size))),
        // Cannot happen: the kernel refuses a limit below the current usage.
        None => TmpfsUsage::Unreadable,
    }
}

/// Opens a mount point below a root, from the cache alone if the kernel has a flag for that. Names
/// in a sysfs may be missing from the cache (`kernfs_dop_revalidate` in fs/kernfs/dir.c), but a
/// lookup there waits for nobody.
pub(super) fn look_up(root: BorrowedFd<'_>, mounts: &Mounts, point: &[u8]) -> Result<OwnedFd> {
    let opened = open(root, point, ResolveFlags::CACHED);
    let (Err(Errno::AGAIN), Some((outer, top))) = (&opened, mounts.around(point)) else { return opened };
    let around = look_up(root, mounts, outer)?;
    if !is_of(&around, top.dev)? {
        return Err(Errno::STALE);
    }
    let below = point.strip_prefix(outer).unwrap_or(point);
    open(around.as_fd(), below, if top.is_sysfs { ResolveFlags::empty() } else { ResolveFlags::CACHED })
}

fn open(root: BorrowedFd<'_>, path: &[u8], cached: ResolveFlags) -> Result<OwnedFd> {
    /// A lookup in the cache may fail for a moment, during a rename or a mount.
    const ATTEMPTS: usize = 5;
    let below = match path.strip_prefix(b"/").unwrap_or(path) {
        b"" => b".",
        below => below,
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let open = |more| openat2(root, below, flags, Mode::empty(), resolve | more);
    let mut opened = open(cached);
    for _ in 1..ATTEMPTS {
        match opened {
            Err(Errno::AGAIN) => opened = open(cached),
            // The kernel does not know the flag.
            Err(Errno::INVAL) => return open(ResolveFlags::empty()),
            _ => break,
        }
    }
    opened
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Check that the usage of each tmpfs that this test can reach is known.
    #[test]
    fn live() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let survey = survey(&root).unwrap();
        assert!(survey.mounts.iter().all(|(dev, mount)| *dev == mount.dev));
        for mount in survey.mounts.values().filter(|mount| mount.seen_by.is_none()) {
            assert_ne!(mount.usage, TmpfsUsage::Unreadable, "{mount:?}");
        }
    }

    /// Check that no link is followed, and that a mount with another device is not taken for the
    /// wanted one.
    #[test]
    fn looked_up() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::openat(rustix::fs::CWD, folder.path(), flags, Mode::empty()).unwrap();
        let root = root.as_fd();
        let none = Mounts::default();
        assert!(look_up(root, &none, b"/real").is_ok() && look_up(root, &none, b"/").is_ok());
        assert_eq!(look_up(root, &none, b"/link/.").map(drop), Err(Errno::LOOP));
        let other = usage(root, &none, b"/real", Dev { major: 0, minor: u32::MAX });
        assert_eq!(other, Ok((TmpfsUsage::Hidden, None)));
    }

    /// Check that a tmpfs without a limit is not reported as empty.
    #[test]
    fn without_a_limit() {
        assert_eq!(used(0, 0, 4096), TmpfsUsage::Uncounted);
        assert_eq!(used(10, 7, 4096), TmpfsUsage::Used(Bytes(3 * 4096)));
        assert_eq!(used(10, 11, 4096), TmpfsUsage::Unreadable);
    }

    /// Check that a mount that is hidden in one namespace is read through another.
    #[test]
    fn hidden_here_and_shown_there() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let process = ProcessDir::open(&root, Pid(std::process::id())).unwrap();
        let mut survey = Survey::default();
        let text = b"1 0 0:4294967295 / /proc rw - tmpfs - rw\n2 1 0:22 / /proc rw - proc - rw\n";
        let place = || MountLookup { process: &process, root: None, seen_by: None };
        let usages = |survey: &Survey| survey.mounts.values().map(|mount| mount.usage).collect::<Vec<_>>();
        survey.add(&Mounts::parse(text), place());
        assert_eq!(usages(&survey), [TmpfsUsage::Hidden]);
        survey.add(&Mounts::parse(b"1 0 0:4294967295 / /nosuch rw - tmpfs - rw\n"), place());
        assert_eq!(usages(&survey), [TmpfsUsage::Unreadable]);
    }
}
