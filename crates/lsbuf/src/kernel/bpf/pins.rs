//! Iterators that have a name in a bpf filesystem: they outlive who loaded them, and whom the files' modes let reads them.
//!
//! Below the folder that a caller names there is one for each layout of the records ([`LAYOUT`]), so that the programs of
//! another lsbuf are never taken for ours. A new set is made beside the old one and takes its place at once. Who reads
//! keeps the folder open: what it holds comes from one load, and ids of one load mean nothing to another.
//!
//! What is found is proven first: folder and files must lie on a bpf filesystem, which has neither FIFOs nor devices, and
//! belong to root or the caller, and nobody else may change the folder. That a file is an iterator of ours only its records
//! can show ([`super::Probes::read`]).
//!
//! Whoever changes a place works on open folders, from the root down and through no link, so nobody
//! can put another folder in its way. Changes exclude each other by a lock that only the place's
//! owner can open ([`Lock`]).
//!
//! What is unpinned is first taken from its readers: they may have kept an fd of a pin, through
//! which they could open it anew.
//!
//! Limits: where a kernel has no way to exchange two folders (before Linux 5.17), nothing is pinned
//! for a moment of a replacement. An iterator that somebody has opened before it is unpinned can be
//! read on, to its end and then of tasks that start later: no iterator's link can be detached
//! (`bpf_iter_link_lops` in the kernel's `kernel/bpf/bpf_iter.c` has no `detach`), and an open one
//! keeps its program.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, chmodat, chownat, fchmod, fchown, fstat,
    mkdirat, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use rustix::process::{getegid, geteuid};

use super::facts::{Failure, is_on_bpf_fs, is_same, is_trusted, others_may};
use super::iterator::{Iterator, Unavailable};
use super::lock::{Deadline, Lock};
use super::record::LAYOUT;
use crate::kernel::identity::device_of;
use crate::kernel::read;

/// What a bpf filesystem that [`PinFolder::make`] has mounted is called in `mountinfo`.
const MOUNT_SOURCE: &str = "lsbuf";

/// A set that is being made, and one that has just been replaced. (Names in a bpf filesystem have no dots.)
const NEW: &str = "new";
const OLD: &str = "old";

/// Everybody may see who may read, and only those enter.
const OPEN_MODE: Mode = Mode::from_raw_mode(0o755);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o750);
const FILE_MODE: Mode = Mode::from_raw_mode(0o440);

/// A folder, and no link to one.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open set.
#[derive(Debug)]
pub(crate) struct Pins {
    dir: OwnedFd,
    path: PathBuf,
}

impl Pins {
    /// Where the set of this layout is below a folder.
    pub(crate) fn path(below: &Path) -> PathBuf {
        below.join(LAYOUT.to_string())
    }

    /// Opens it, if it is one that may be trusted.
    pub(crate) fn open(below: &Path) -> Result<Pins, Unavailable> {
        let path = Pins::path(below);
        let dir = match openat(CWD, &path, FOLDER, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Err(Unavailable::NotPinned),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(Unavailable::Foreign),
            Err(errno) => return Err(Unavailable::Refused(errno)),
        };
        let facts = is_on_bpf_fs(&dir).map_err(Unavailable::Refused)?.ok_or(Unavailable::Foreign)?;
        if !is_trusted(&facts) || others_may(&facts, Mode::WGRP | Mode::WOTH) {
            return Err(Unavailable::Foreign);
        }
        Ok(Pins { dir, path })
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.path
    }

    /// Opens an iterator for one reading.
    pub(super) fn read(&self, iterator: Iterator) -> Result<OwnedFd, Unavailable> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.dir, iterator.name(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(Unavailable::NotPinned),
            // What is pinned is no iterator, but a map or a program.
            Err(Errno::LOOP | Errno::NXIO | Errno::IO) => return Err(Unavailable::Foreign),
            // A set that another one has replaced is taken from its readers.
            Err(Errno::ACCESS) if !self.is_current() => return Err(Unavailable::NotPinned),
            Err(errno) => return Err(Unavailable::Refused(errno)),
        };
        // Something else can be mounted over a file.
        match is_on_bpf_fs(&file).map_err(Unavailable::Refused)? {
            Some(facts) if is_trusted(&facts) => Ok(file),
            _ => Err(Unavailable::Foreign),
        }
    }

    /// Whether it still is where it was.
    fn is_current(&self) -> bool {
        matches!((fstat(&self.dir), facts(&self.path)), (Ok(own), Ok(there)) if is_same(&own, &there))
    }
}

/// Who may read something.
pub(crate) fn facts(path: &Path) -> Result<Stat, Errno> {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}

/// A folder's own folder, and its name in that.
fn way_to(path: &Path, make: bool) -> Result<Option<(OwnedFd, OsString)>, Errno> {
    // What is there already may be reached through links; from here on nothing may become one.
    let (mut real, mut missing) = (path.to_owned(), Vec::new());
    let real = loop {
        match real.canonicalize() {
            Ok(real) => break real,
            Err(error) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
                Errno::NOENT => missing.push(real.file_name().ok_or(Errno::INVAL)?.to_owned()),
                errno => return Err(errno),
            },
        }
        if !real.pop() || real.as_os_str().is_empty() {
            real = PathBuf::from(".");
        }
    };
    let there = real.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    });
    let mut steps: Vec<OsString> = there.chain(missing.into_iter().rev()).collect();
    let name = steps.pop().ok_or(Errno::INVAL)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = openat(CWD, "/", flags, Mode::empty())?;
    for step in steps {
        let mut next = openat(&dir, &step, flags, Mode::empty());
        if let (Err(Errno::NOENT), true) = (&next, make) {
            match mkdirat(&dir, &step, OPEN_MODE) {
                Ok(()) | Err(Errno::EXIST) => next = openat(&dir, &step, flags, Mode::empty()),
                Err(errno) => return Err(errno),
            }
        }
        dir = match next {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
    }
    Ok(Some((dir, name)))
}

/// A folder of a bpf filesystem in which sets are made and removed, by one at a time.
#[derive(Debug)]
pub(crate) struct PinFolder {
    /// Its own folder, and its name in that.
    above: OwnedFd,
    name: OsString,
    dir: OwnedFd,
    path: PathBuf,
    lock: Lock,
}

impl PinFolder {
    /// Opens the folder, when nobody else changes it; `None`: there is none, or none of a bpf
    /// filesystem.
    pub(crate) fn open(path: &Path) -> Result<Option<PinFolder>, Failure> {
        let fail = |errno| (format!("cannot open {}", path.display()), Some(errno));
        let deadline = Deadline::begin();
        loop {
            let Some((above, name)) = way_to(path, false).map_err(fail)? else { return Ok(None) };
            let dir = match openat(&above, &name, FOLDER, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(fail(errno)),
            };
            let Some(facts) = is_on_bpf_fs(&dir).map_err(fail)? else { return Ok(None) };
            if !is_trusted(&facts) || others_may(&facts, Mode::WGRP | Mode::WOTH) {
                let (uid, mode) = (facts.st_uid, facts.st_mode & 0o7777);
                let whose = format!("is user {uid}'s with mode {mode:04o}, so others could put pins in it");
                return Err((format!("{} {whose}", path.display()), None));
            }
            let lock = Lock::take(&dir, path, &deadline)?;
            // Whoever had the lock before may have removed the folder.
            let there = statat(&above, &name, AtFlags::SYMLINK_NOFOLLOW);
            if let (Some(lock), Ok(true)) = (lock, there.map(|there| is_same(&there, &facts))) {
                return Ok(Some(PinFolder { above, name, dir, path: path.to_owned(), lock }));
            }
            if deadline.has_passed() {
                return Err((format!("somebody keeps removing {}", path.display()), None));
            }
        }
    }

    /// Makes the folder: in a bpf filesystem if its parent is in one; else, if nothing is in it, by mounting a filesystem of
    /// its own.
    pub(crate) fn make(path: &Path) -> Result<PinFolder, Failure> {
        let fail = |what: &str, errno| (format!("cannot {what} {}", path.display()), Some(errno));
        let way = way_to(path, true).and_then(|way| way.ok_or(Errno::NOENT));
        let (above, name) = way.map_err(|errno| fail("make", errno))?;
        let made = match mkdirat(&above, &name, OPEN_MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(fail("make", errno)),
        };
        let dir = openat(&above, &name, FOLDER, Mode::empty()).map_err(|errno| fail("open", errno))?;
        if made {
            // Whatever this process's mask is.
            fchmod(&dir, OPEN_MODE).map_err(|errno| fail("open", errno))?;
        }
        if is_on_bpf_fs(&dir).map_err(|errno| fail("open", errno))?.is_none() {
            let mut empty = true;
            read::entries(dir.as_fd(), |_, _| {
                empty = false;
                Ok(())
            })
            .map_err(|errno| fail("list", errno))?;
            if !empty {
                return Err(fail("mount a bpf filesystem over what is in", Errno::NOTEMPTY));
            }
            mount_on(&dir).map_err(|errno| fail("mount a bpf filesystem on", errno))?;
        }
        PinFolder::open(path)?.ok_or_else(|| fail("mount a bpf filesystem on", Errno::NODEV))
    }

    /// Pins what is loaded for a group, in place of what is pinned. `pin` gives one of those iterators a name in a folder.
    pub(crate) fn install(
        &self,
        loaded: impl IntoIterator<Item = Iterator>,
        pin: impl Fn(Iterator, &Path) -> Result<(), Errno>,
        group: u32,
    ) -> Result<Vec<Iterator>, Failure> {
        let fail = |what: &str, errno| (format!("cannot {what} in {}", self.path.display()), Some(errno));
        self.clear(NEW)?;
        self.clear(OLD)?;
        let made = mkdirat(&self.dir, NEW, Mode::RWXU);
        let made = made.and_then(|()| openat(&self.dir, NEW, FOLDER, Mode::empty()));
        let new = made.map_err(|errno| fail("make a folder", errno))?;
        // Pins are made by path: this one leads to the open folder.
        let folder = PathBuf::from(format!("/proc/self/fd/{}", new.as_raw_fd()));
        let owner = (Some(geteuid()), Some(Gid::from_raw(group)));
        let mut pinned = Vec::new();
        for iterator in loaded {
            let own = |errno| fail(&format!("pin {}", iterator.name()), errno);
            pin(iterator, &folder).map_err(own)?;
            chownat(&new, iterator.name(), owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(own)?;
            chmodat(&new, iterator.name(), FILE_MODE, AtFlags::empty()).map_err(own)?;
            pinned.push(iterator);
        }
        let own = |errno| fail("hand over to the group", errno);
        fchown(&new, owner.0, owner.1).map_err(own)?;
        fchmod(&new, FOLDER_MODE).map_err(own)?;
        self.replace().map_err(|errno| fail("replace what is pinned", errno))?;
        self.clear(NEW)?;
        self.clear(OLD)?;
        Ok(pinned)
    }

    /// Gives the new set the place of the old one, which is then called one of the names that are cleared.
    fn replace(&self) -> Result<(), Errno> {
        let current = LAYOUT.to_string();
        let rename = |from: &str, to: &str, flags| renameat_with(&self.dir, from, &self.dir, to, flags);
        match rename(NEW, &current, RenameFlags::EXCHANGE) {
            Err(Errno::INVAL) => {
                match rename(&current, OLD, RenameFlags::NOREPLACE) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno),
                }
                rename(NEW, &current, RenameFlags::NOREPLACE)
            }
            Err(Errno::NOENT) => rename(NEW, &current, RenameFlags::NOREPLACE),
            done => done,
        }
    }

    /// Removes every set, of other layouts too, and the folder with its filesystem if that was made for it. Returns whether
    /// there was a set.
    pub(crate) fn remove(self) -> Result<bool, Failure> {
        let fail = |errno| (format!("cannot list {}", self.path.display()), Some(errno));
        let mut sets = Vec::new();
        let dir = read::open_dir(&self.dir, c".").map_err(fail)?;
        read::entries(dir.as_fd(), |name, _| {
            let name = name.to_string_lossy().into_owned();
            if name == NEW || name == OLD || name.parse::<u32>().is_ok() {
                sets.push(name);
            }
            Ok(())
        })
        .map_err(fail)?;
        for set in &sets {
            self.clear(set)?;
        }
        if self.is_own_mount() {
            // While it is locked: who waits for that then sees that the folder has gone.
            unmount(format!("/proc/self/fd/{}", self.dir.as_raw_fd()), UnmountFlags::DETACH)
                .map_err(|errno| (format!("cannot unmount {}", self.path.display()), Some(errno)))?;
        }
        let PinFolder { above, name, path, lock, .. } = self;
        drop(lock);
        // It stays if there is something else in it, or if it is a mount of somebody else's.
        match unlinkat(&above, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::BUSY | Errno::EXIST | Errno::NOENT) => Ok(!sets.is_empty()),
            Err(errno) => Err((format!("cannot remove {}", path.display()), Some(errno))),
        }
    }

    /// Whether the folder is where a filesystem is mounted that [`PinFolder::make`] has made.
    fn is_own_mount(&self) -> bool {
        let mut text = Vec::new();
        let (Ok(facts), Ok(())) = (fstat(&self.dir), read::file(CWD, "/proc/self/mountinfo", &mut text))
        else {
            return false;
        };
        let device = format!(" {} / ", device_of(&facts));
        let kind = format!(" - bpf {MOUNT_SOURCE} ");
        let is_it = |line: &[u8]| {
            memchr::memmem::find(line, device.as_bytes()).is_some()
                && memchr::memmem::find(line, kind.as_bytes()).is_some()
        };
        // Something below the filesystem's root has a parent in it.
        let parent = statat(&self.dir, c"..", AtFlags::empty());
        parent.is_ok_and(|parent| parent.st_dev != facts.st_dev) && text.split(|&b| b == b'\n').any(is_it)
    }

    /// Removes a set, which its readers can then open no more, not even through an fd of a pin that
    /// they kept.
    fn clear(&self, set: &str) -> Result<(), Failure> {
        let fail = |errno| (format!("cannot remove {}", self.path.join(set).display()), Some(errno));
        let dir = match openat(&self.dir, set, FOLDER, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(fail(errno)),
        };
        let owner = (Some(geteuid()), Some(getegid()));
        fchmod(&dir, Mode::RWXU).map_err(fail)?;
        fchown(&dir, owner.0, owner.1).map_err(fail)?;
        let device = fstat(&dir).map_err(fail)?.st_dev;
        let mut names = Vec::new();
        read::entries(dir.as_fd(), |name, _| {
            names.push(name.to_owned());
            Ok(())
        })
        .map_err(fail)?;
        for name in names {
            let facts = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            // Not a link's target, nor what is mounted over a pin.
            if FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile && facts.st_dev == device {
                chmodat(&dir, &name, Mode::empty(), AtFlags::empty()).map_err(fail)?;
                chownat(&dir, &name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?;
            }
            unlinkat(&dir, name, AtFlags::empty()).map_err(fail)?;
        }
        unlinkat(&self.dir, set, AtFlags::REMOVEDIR).map_err(fail)
    }
}

/// Mounts a bpf filesystem on an open folder.
fn mount_on(dir: &OwnedFd) -> Result<(), Errno> {
    let fs = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", MOUNT_SOURCE)?;
    fsconfig_set_string(&fs, "mode", "0755")?;
    fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let by_fd = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mount, c"", dir, c"", by_fd)
}

/// The first folder on the way, as far as there is one, that members of a group cannot enter, with its mode.
pub(crate) fn closed_to(group: u32, path: &Path) -> Option<(PathBuf, u32)> {
    // What is not a bpf filesystem's yet will be covered by the root of one.
    let on_bpf_fs = read::open_dir(CWD, path).and_then(is_on_bpf_fs).is_ok_and(|facts| facts.is_some());
    let begin =
        path.ancestors().skip(usize::from(!on_bpf_fs)).find_map(|folder| folder.canonicalize().ok())?;
    begin.ancestors().find_map(|folder| {
        let facts = statat(CWD, folder, AtFlags::empty()).ok()?;
        let mode = Mode::from_raw_mode(facts.st_mode);
        let open = if facts.st_gid == group { Mode::XGRP } else { Mode::XOTH };
        (!mode.intersects(open)).then(|| (folder.to_owned(), mode.as_raw_mode() & 0o777))
    })
}
