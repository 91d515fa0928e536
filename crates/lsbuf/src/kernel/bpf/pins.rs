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
//! Limit: where a kernel has no way to exchange two folders (before Linux 5.17), nothing is pinned for a moment of a
//! replacement.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Gid, Mode, OFlags, RenameFlags, Stat, Uid, chmodat, chownat, flock, fstat,
    fstatfs, mkdirat, openat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::geteuid;

use super::record::LAYOUT;
use super::{Iterator, Probes, Unavailable};
use crate::kernel::identity::device_of;
use crate::kernel::magic;
use crate::kernel::read;

/// What a bpf filesystem that [`Place::make`] has mounted is called in `mountinfo`.
const MOUNT_SOURCE: &str = "lsbuf";

/// A set that is being made, and one that has just been replaced. (Names in a bpf filesystem have no dots.)
const NEW: &str = "new";
const OLD: &str = "old";

/// Everybody may see who may read, and only those enter.
const OPEN_MODE: Mode = Mode::from_raw_mode(0o755);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o750);
const FILE_MODE: Mode = Mode::from_raw_mode(0o440);

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
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match openat(CWD, &path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Err(Unavailable::NotPinned),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(Unavailable::Foreign),
            Err(errno) => return Err(Unavailable::Refused(errno)),
        };
        let facts = is_on_bpf_fs(&dir).map_err(Unavailable::Refused)?.ok_or(Unavailable::Foreign)?;
        let others = Mode::WGRP | Mode::WOTH;
        if !is_trusted(&facts) || Mode::from_raw_mode(facts.st_mode).intersects(others) {
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
            Err(errno) => return Err(Unavailable::Refused(errno)),
        };
        // Something else can be mounted over a file.
        match is_on_bpf_fs(&file).map_err(Unavailable::Refused)? {
            Some(facts) if is_trusted(&facts) => Ok(file),
            _ => Err(Unavailable::Foreign),
        }
    }
}

/// Who may read something.
pub(crate) fn facts(path: &Path) -> Result<Stat, Errno> {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
}

/// What an open file is, if it lies on a bpf filesystem.
fn is_on_bpf_fs(file: impl AsFd) -> Result<Option<Stat>, Errno> {
    let magic = fstatfs(&file)?.f_type;
    let facts = fstat(&file)?;
    Ok((magic == magic::BPF).then_some(facts))
}

fn is_trusted(facts: &Stat) -> bool {
    facts.st_uid == 0 || facts.st_uid == geteuid().as_raw()
}

/// A step of a change, and why it failed.
pub(crate) type Failure = (String, Errno);

/// A folder of a bpf filesystem in which sets are made and removed, by one at a time.
#[derive(Debug)]
pub(crate) struct Place {
    dir: OwnedFd,
    path: PathBuf,
}

impl Place {
    /// Opens the folder; `None`: there is none, or none of a bpf filesystem.
    pub(crate) fn open(path: &Path) -> Result<Option<Place>, Failure> {
        let fail = |errno| (format!("cannot open {}", path.display()), errno);
        let dir = match read::open_dir(CWD, path) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        };
        if is_on_bpf_fs(&dir).map_err(fail)?.is_none() {
            return Ok(None);
        }
        read::retry(|| flock(&dir, FlockOperation::LockExclusive)).map_err(fail)?;
        Ok(Some(Place { dir, path: path.to_owned() }))
    }

    /// Makes the folder: in a bpf filesystem if its parent is in one; else, if nothing is in it, by mounting a filesystem of
    /// its own.
    pub(crate) fn make(path: &Path) -> Result<Place, Failure> {
        let fail = |what: &str, errno| (format!("cannot {what} {}", path.display()), errno);
        if let Some(above) = path.parent()
            && let Err(error) = std::fs::create_dir_all(above)
        {
            return Err(fail("make", Errno::from_io_error(&error).unwrap_or(Errno::IO)));
        }
        match mkdirat(CWD, path, OPEN_MODE) {
            // Whatever this process's mask is.
            Ok(()) => chmodat(CWD, path, OPEN_MODE, AtFlags::empty()).map_err(|errno| fail("open", errno))?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail("make", errno)),
        }
        if Place::open(path)?.is_none() {
            let dir = read::open_dir(CWD, path).map_err(|errno| fail("open", errno))?;
            let mut empty = true;
            read::entries(dir.as_fd(), |_, _| {
                empty = false;
                Ok(())
            })
            .map_err(|errno| fail("list", errno))?;
            if !empty {
                return Err(fail("mount a bpf filesystem over what is in", Errno::NOTEMPTY));
            }
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount(MOUNT_SOURCE, path, "bpf", flags, Some(c"mode=0755"))
                .map_err(|errno| fail("mount a bpf filesystem on", errno))?;
        }
        Place::open(path)?.ok_or_else(|| fail("mount a bpf filesystem on", Errno::NODEV))
    }

    /// Pins what is loaded for a group, in place of what is pinned.
    pub(crate) fn install(&self, probes: &Probes, group: u32) -> Result<Vec<Iterator>, Failure> {
        let fail = |what: &str, errno| (format!("cannot {what} in {}", self.path.display()), errno);
        self.clear(NEW)?;
        self.clear(OLD)?;
        mkdirat(&self.dir, NEW, Mode::RWXU).map_err(|errno| fail("make a folder", errno))?;
        let folder = self.path.join(NEW);
        let owner = (Some(Uid::from_raw(geteuid().as_raw())), Some(Gid::from_raw(group)));
        let mut pinned = Vec::new();
        for iterator in Iterator::ALL.into_iter().filter(|&iterator| probes.why_not(iterator).is_none()) {
            let own = |errno| fail(&format!("pin {}", iterator.name()), errno);
            probes.pin(iterator, &folder).map_err(own)?;
            let name = Path::new(NEW).join(iterator.name());
            chownat(&self.dir, &name, owner.0, owner.1, AtFlags::empty()).map_err(own)?;
            chmodat(&self.dir, &name, FILE_MODE, AtFlags::empty()).map_err(own)?;
            pinned.push(iterator);
        }
        let own = |errno| fail("hand over to the group", errno);
        chownat(&self.dir, NEW, owner.0, owner.1, AtFlags::empty()).map_err(own)?;
        chmodat(&self.dir, NEW, FOLDER_MODE, AtFlags::empty()).map_err(own)?;
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
        let fail = |errno| (format!("cannot list {}", self.path.display()), errno);
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
        let mounted = self.is_own_mount();
        let Place { dir: locked, path } = self;
        drop((dir, locked));
        if mounted {
            unmount(&path, UnmountFlags::DETACH)
                .map_err(|errno| (format!("cannot unmount {}", path.display()), errno))?;
        }
        // It stays if there is something else in it, or if it is a mount of somebody else's.
        match unlinkat(CWD, &path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOTEMPTY | Errno::BUSY | Errno::EXIST) => Ok(!sets.is_empty()),
            Err(errno) => Err((format!("cannot remove {}", path.display()), errno)),
        }
    }

    /// Whether the folder is where a filesystem is mounted that [`Place::make`] has made.
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

    /// Removes a set.
    fn clear(&self, set: &str) -> Result<(), Failure> {
        let fail = |errno| (format!("cannot remove {}", self.path.join(set).display()), errno);
        let dir = match read::open_dir(&self.dir, set) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(fail(errno)),
        };
        let mut names = Vec::new();
        read::entries(dir.as_fd(), |name, _| {
            names.push(name.to_owned());
            Ok(())
        })
        .map_err(fail)?;
        for name in names {
            unlinkat(&dir, name, AtFlags::empty()).map_err(fail)?;
        }
        unlinkat(&self.dir, set, AtFlags::REMOVEDIR).map_err(fail)
    }
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
