//! Sets of pinned iterators: each has a name in a bpf filesystem, outlives the process that loaded
//! it, and can be read by every user whom the file's mode allows.
//!
//! A caller names a folder. It contains one subfolder, called a set, for each layout of the records
//! ([`LAYOUT`]), and another for the flight recorder ([`PinSet`]). So a lsbuf of another version
//! never reads these programs, nor this one its. A new set is made beside the old one and takes its
//! place in one step. A reader keeps the set's folder open, so that all iterators that it reads
//! were loaded together; ids of one load mean nothing to another.
//!
//! A set is checked before it is used. The folder and the files must be on a bpf filesystem, which
//! cannot have FIFOs or devices. They must belong to root or the caller, and nobody else may be
//! able to change the folder. Whether a file is an iterator of lsbuf shows only in its records
//! ([`super::Probes::read`]).
//!
//! A change works on open folders, from the root down and without following links, so that no other
//! folder can be put in their place. Changes exclude each other by a lock that only the folder's
//! owner can take ([`Lock`]).
//!
//! Before a pin is removed, its readers lose the right to open it, because a process may have kept
//! an fd of the pin and could open it again through that.
//!
//! Limits:
//! - Before Linux 5.17 (commit 3871cb8cf741) a bpf filesystem cannot exchange two folders. For a
//!   moment of a replacement nothing is pinned.
//! - A process that opened an iterator before it was unpinned can read on, to the end of that
//!   reading, including tasks that start later. The link of an iterator cannot be detached
//!   (`bpf_iter_link_lops` in kernel/bpf/bpf_iter.c has no `detach`), and an open iterator keeps
//!   its program.

use std::ffi::{CString, OsString};
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

use super::hooks::ORIGINS_LAYOUT;
use super::iterator::Unavailable;
use super::loading;
use super::lock::{Deadline, Lock};
use super::record::LAYOUT;
use super::trust::{Failure, is_on_bpf_fs, is_same, is_trusted, others_may};
use crate::kernel::identity::device_of;
use crate::kernel::read;

/// The source, in `mountinfo`, of a bpf filesystem that [`PinFolder::make`] has mounted.
const MOUNT_SOURCE: &str = "lsbuf";

/// The names of a set that is being made, and of one that was just replaced. (A bpf filesystem
/// allows no dots in names.)
const NEW: &str = "new";
const OLD: &str = "old";

/// Every user may list the folder and see who may read a set. Only those users can enter the set.
const OPEN_MODE: Mode = Mode::from_raw_mode(0o755);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o750);

fn file_mode(readers: Readers) -> Mode {
    match readers {
        Readers::Group => Mode::RUSR | Mode::RGRP,
        Readers::Owner => Mode::RUSR,
    }
}

/// Flags to open a folder, and not through a link.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Which set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinSet {
    /// The iterators over the kernel's own tables.
    Iterators,
    /// The flight recorder: what it runs, and the iterators over its records.
    Origins,
}

impl PinSet {
    /// What the names of all sets of the flight recorder begin with.
    const ORIGINS: &str = "origins-";

    /// The name of this version's folder.
    fn name(self) -> String {
        match self {
            PinSet::Iterators => LAYOUT.to_string(),
            PinSet::Origins => format!("{}{ORIGINS_LAYOUT}", PinSet::ORIGINS),
        }
    }

    /// Whether a folder has the name of a set, of any version.
    fn is_one(name: &str) -> bool {
        name.strip_prefix(PinSet::ORIGINS).unwrap_or(name).parse::<u32>().is_ok()
    }
}

/// Who may open a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner, and the members of the group.
    Group,
    /// Its owner alone.
    #[cfg_attr(not(feature = "bpf"), allow(dead_code, reason = "only what is loaded is pinned so"))]
    Owner,
}

/// An open set of pinned iterators.
#[derive(Debug)]
pub(crate) struct Pins {
    dir: OwnedFd,
    path: PathBuf,
}

impl Pins {
    /// The path of the set of this version.
    pub(crate) fn path(below: &Path, set: PinSet) -> PathBuf {
        below.join(set.name())
    }

    /// Opens the set, if it can be trusted.
    pub(crate) fn open(below: &Path, set: PinSet) -> Result<Pins, Unavailable> {
        let path = Pins::path(below, set);
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

    /// Its path.
    pub(crate) fn folder(&self) -> &Path {
        &self.path
    }

    /// Opens the iterator with this name for one reading.
    pub(super) fn read(&self, name: &str) -> Result<OwnedFd, Unavailable> {
        self.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    }

    /// Opens an iterator itself, not for a reading. Root has the right to do that; a member of the
    /// group may only read.
    pub(super) fn link(&self, name: &str) -> Result<OwnedFd, Unavailable> {
        let file = self.open_file(name, OFlags::PATH)?;
        // The system call takes a path. This path leads to the open file, which was checked.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let path = CString::new(path).map_err(|_| Unavailable::Refused(Errno::INVAL))?;
        loading::pinned(&path).map_err(Unavailable::Refused)
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Unavailable> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Err(Unavailable::NotPinned),
            // Not an iterator is pinned, but a map or a program.
            Err(Errno::LOOP | Errno::NXIO | Errno::IO) => return Err(Unavailable::Foreign),
            // The readers of a set that was replaced have lost the right to open its files.
            Err(Errno::ACCESS) if !self.is_current() => return Err(Unavailable::NotPinned),
            Err(errno) => return Err(Unavailable::Refused(errno)),
        };
        // Another file can be mounted over a pin.
        match is_on_bpf_fs(&file).map_err(Unavailable::Refused)? {
            Some(facts) if is_trusted(&facts) => Ok(file),
            _ => Err(Unavailable::Foreign),
        }
    }

    /// Whether this set is still at its path.
    fn is_current(&self) -> bool {
        matches!((fstat(&self.dir), facts(&self.path)), (Ok(own), Ok(there)) if is_same(&own, &there))
    }
}

/// The `stat` of a path, which has its owner, group and mode. Does not follow a link.
pub(crate) fn facts(path: &Path) -> Result<Stat, Errno> {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}

/// Opens the parent of a folder. Returns it with the folder's name in it. `None`: the parent does
/// not exist; with `make`, missing parents are made.
fn open_parent(path: &Path, make: bool) -> Result<Option<(OwnedFd, OsString)>, Errno> {
    // What exists already may be reached through links. From here on no link is followed.
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

/// A folder of a bpf filesystem that contains sets, locked for a change.
#[derive(Debug)]
pub(crate) struct PinFolder {
    /// Its parent, and its name there.
    above: OwnedFd,
    name: OsString,
    dir: OwnedFd,
    path: PathBuf,
    lock: Lock,
}

impl PinFolder {
    /// Opens and locks the folder. `None`: it does not exist, or is not on a bpf filesystem.
    pub(crate) fn open(path: &Path) -> Result<Option<PinFolder>, Failure> {
        let fail = |errno| (format!("cannot open {}", path.display()), Some(errno));
        let deadline = Deadline::begin();
        loop {
            let Some((above, name)) = open_parent(path, false).map_err(fail)? else { return Ok(None) };
            let dir = match openat(&above, &name, FOLDER, Mode::empty()) {
                Ok(dir) => dir,
                Err(Errno::NOENT) => return Ok(None),
                Err(errno) => return Err(fail(errno)),
            };
            let Some(facts) = is_on_bpf_fs(&dir).map_err(fail)? else { return Ok(None) };
            if !is_trusted(&facts) || others_may(&facts, Mode::WGRP | Mode::WOTH) {
                let (uid, mode) = (facts.st_uid, facts.st_mode & 0o7777);
                let whose =
                    format!("belongs to user {uid} and has mode {mode:04o}: others could put files in it");
                return Err((format!("{} {whose}", path.display()), None));
            }
            let lock = Lock::take(&dir, path, &deadline)?;
            // The process that had the lock before may have removed the folder.
            let there = statat(&above, &name, AtFlags::SYMLINK_NOFOLLOW);
            if let (Some(lock), Ok(true)) = (lock, there.map(|there| is_same(&there, &facts))) {
                return Ok(Some(PinFolder { above, name, dir, path: path.to_owned(), lock }));
            }
            if deadline.has_passed() {
                return Err((format!("another process keeps removing {}", path.display()), None));
            }
        }
    }

    /// Makes the folder and locks it. If its parent is on a bpf filesystem, so is the folder. Else,
    /// if the folder is empty, a bpf filesystem is mounted on it.
    pub(crate) fn make(path: &Path) -> Result<PinFolder, Failure> {
        let fail = |what: &str, errno| (format!("cannot {what} {}", path.display()), Some(errno));
        let way = open_parent(path, true).and_then(|way| way.ok_or(Errno::NOENT));
        let (above, name) = way.map_err(|errno| fail("make", errno))?;
        let made = match mkdirat(&above, &name, OPEN_MODE) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(fail("make", errno)),
        };
        let dir = openat(&above, &name, FOLDER, Mode::empty()).map_err(|errno| fail("open", errno))?;
        if made {
            // mkdirat has applied this process's umask.
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
                return Err(fail("mount a bpf filesystem on", Errno::NOTEMPTY));
            }
            mount_on(&dir).map_err(|errno| fail("mount a bpf filesystem on", errno))?;
        }
        PinFolder::open(path)?.ok_or_else(|| fail("mount a bpf filesystem on", Errno::NODEV))
    }

    /// Pins what is loaded for a group, in place of the pinned set. `loaded` has the name of each
    /// pin and who may open it, and `pin` pins what has that name in a folder.
    pub(crate) fn install<'n>(
        &self,
        set: PinSet,
        loaded: impl IntoIterator<Item = (&'n str, Readers)>,
        pin: impl Fn(&str, &Path) -> Result<(), Errno>,
        group: u32,
    ) -> Result<(), Failure> {
        let fail = |what: &str, errno| (format!("cannot {what} in {}", self.path.display()), Some(errno));
        self.clear(NEW)?;
        self.clear(OLD)?;
        let made = mkdirat(&self.dir, NEW, Mode::RWXU);
        let made = made.and_then(|()| openat(&self.dir, NEW, FOLDER, Mode::empty()));
        let new = made.map_err(|errno| fail("make a folder", errno))?;
        // A pin is made by its path. This path leads to the open folder.
        let folder = PathBuf::from(format!("/proc/self/fd/{}", new.as_raw_fd()));
        let owner = (Some(geteuid()), Some(Gid::from_raw(group)));
        for (name, readers) in loaded {
            let own = |errno| fail(&format!("pin {name}"), errno);
            pin(name, &folder).map_err(own)?;
            chownat(&new, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW).map_err(own)?;
            chmodat(&new, name, file_mode(readers), AtFlags::empty()).map_err(own)?;
        }
        let own = |errno| fail("give the files to the group", errno);
        fchown(&new, owner.0, owner.1).map_err(own)?;
        fchmod(&new, FOLDER_MODE).map_err(own)?;
        self.replace(set).map_err(|errno| fail("replace what is pinned", errno))?;
        self.clear(NEW)?;
        self.clear(OLD)
    }

    /// Gives a pinned set to another group.
    pub(crate) fn give_to(&self, set: PinSet, group: u32) -> Result<(), Failure> {
        let fail = |errno| {
            (format!("cannot change who may read {}", self.path.join(set.name()).display()), Some(errno))
        };
        let dir = openat(&self.dir, set.name(), FOLDER, Mode::empty()).map_err(fail)?;
        let owner = (Some(geteuid()), Some(Gid::from_raw(group)));
        read::entries(dir.as_fd(), |name, _| {
            chownat(&dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)
        })
        .map_err(fail)?;
        fchown(&dir, owner.0, owner.1).map_err(fail)
    }

    /// Puts the new set in the place of the old one. The old one then has one of the names that are
    /// cleared.
    fn replace(&self, set: PinSet) -> Result<(), Errno> {
        let current = set.name();
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

    /// Removes every set, of any layout, and the folder, with its filesystem if that was mounted
    /// for it. Returns whether there was a set.
    pub(crate) fn remove(self) -> Result<bool, Failure> {
        let fail = |errno| (format!("cannot list {}", self.path.display()), Some(errno));
        let mut sets = Vec::new();
        let dir = read::open_dir(&self.dir, c".").map_err(fail)?;
        read::entries(dir.as_fd(), |name, _| {
            let name = name.to_string_lossy().into_owned();
            if name == NEW || name == OLD || PinSet::is_one(&name) {
                sets.push(name);
            }
            Ok(())
        })
        .map_err(fail)?;
        for set in &sets {
            self.clear(set)?;
        }
        if self.is_own_mount() {
            // Done under the lock. A process that waits for the lock then sees that the folder is
            // gone.
            unmount(format!("/proc/self/fd/{}", self.dir.as_raw_fd()), UnmountFlags::DETACH)
                .map_err(|errno| (format!("cannot unmount {}", self.path.display()), Some(errno)))?;
        }
        let PinFolder { above, name, path, lock, .. } = self;
        drop(lock);
        // The folder stays if something else is in it, or if somebody else has mounted a filesystem
        // on it.
        match unlinkat(&above, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::BUSY | Errno::EXIST | Errno::NOENT) => Ok(!sets.is_empty()),
            Err(errno) => Err((format!("cannot remove {}", path.display()), Some(errno))),
        }
    }

    /// Whether the folder is the root of a filesystem that [`PinFolder::make`] has mounted.
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
        // A folder below the root of the filesystem has a parent on the same filesystem.
        let parent = statat(&self.dir, c"..", AtFlags::empty());
        parent.is_ok_and(|parent| parent.st_dev != facts.st_dev) && text.split(|&b| b == b'\n').any(is_it)
    }

    /// Removes a set. Its readers cannot open it any more, not even through an fd of a pin that
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
            // Only regular files of this filesystem: not the target of a link, and not a file that
            // is mounted over a pin.
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

/// The first folder of the path, from its end upwards, that members of the group cannot enter, and
/// its mode. Folders that do not exist are skipped.
pub(crate) fn closed_to(group: u32, path: &Path) -> Option<(PathBuf, u32)> {
    // A folder that is not on a bpf filesystem yet will be covered by the root of one.
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
