//! Loads the BPF iterators and pins them, so that members of a group can read them without any
//! privilege. Root does this once per boot; it also saves each scan the time to load them. This
//! module also says what is pinned, and removes it.
//!
//! The members can then see the whole machine, all containers included:
//!
//! - of every dma-buf its size, exporter, name, creator, count and attached devices;
//! - of every memfd, System V segment and tmpfs file that a process holds, its size, path, owner
//!   and how much is charged for it;
//! - who holds each: pid, command name, user and cgroup, the fd numbers, and the addresses of the
//!   mappings (which reveal the results of address space layout randomization);
//! - who has a GPU, video or similar device open;
//! - of every thread, how long it has run and in which system call it is.
//!
//! They see nothing of what is in a buffer, and get nothing that opens one.
//!
//! Limits: what needs another privilege still needs it. The fdinfo of other users' io_urings cannot
//! be read, so residuals that an io_uring could explain are estimates. Before Linux 6.16 there is
//! no iterator over dma-bufs, and only root can read their list in debugfs; so buffers that no
//! process holds do not show.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};
use crate::kernel::bpf::pins::{self, PinFolder, PinSet, Pins, Readers};
use crate::kernel::bpf::trust::Failure;
use crate::kernel::bpf::{Iterator, Probes, Unavailable};
use crate::kernel::rights::Rights;
use crate::model::Kinds;
use crate::scan::advice::{Right, obtain};

/// The result of [`install`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The folder with the iterators.
    pub folder: PathBuf,
    /// The iterators that are pinned.
    pub iterators: Vec<&'static str>,
    /// The iterators that are not pinned, and why; the pinned ones work without them.
    pub left_out: Vec<(&'static str, String)>,
}

/// Owner, group and mode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
}

/// What is pinned for one iterator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The iterator's name.
    pub name: &'static str,
    /// Who may read it; `None`: there is no such file, or it cannot be seen.
    pub access: Option<Access>,
    /// Why the caller cannot read it; `None`: reading it worked.
    pub unreadable: Option<String>,
}

/// The result of [`status`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The folder with the iterators of this version of lsbuf, or where it would be.
    pub folder: PathBuf,
    /// Who may enter the folder; `None`: there is none, or it cannot be seen.
    pub access: Option<Access>,
    /// One entry for each iterator.
    pub pins: Vec<Pin>,
    /// Why the caller cannot get an answer from them, and what to do; `None`: it works.
    pub unusable: Option<String>,
}

/// Loads the iterators and pins them below a folder, in place of those that are pinned there.
/// Members of the group may read them (`None`: only root).
///
/// The folder must be in a bpf filesystem, or be empty, or not exist; in the last two cases a bpf
/// filesystem is mounted on it. The iterators stay until [`remove`] or the end of the boot.
///
/// # Errors
/// If the caller lacks a right or the kernel an iterator; if the folder has something in it and is
/// not in a bpf filesystem, can be changed by others, or is in a place that the group's members
/// cannot enter; if another change of the pins went on for seconds.
pub fn install(below: &Path, group: Option<u32>) -> Result<Installed, Error> {
    let cannot = |iterator: Option<Iterator>, why: &Unavailable| {
        cannot_load("BPF iterators", iterator.map(Iterator::name), why)
    };
    let probes = Probes::load(Path::new("/sys"), &Iterator::ALL).map_err(|why| cannot(None, &why))?;
    if let Some((iterator, why)) = probes.lacking(Kinds::DMABUF).or_else(|| probes.lacking(Kinds::ALL)) {
        return Err(cannot(Some(iterator), why));
    }
    can_enter(below, group)?;
    let place = PinFolder::make(below).map_err(|failure| cannot_pin(&failure))?;
    // The mode of newly made folders depends on this process's umask.
    can_enter(below, group)?;
    let loaded = || Iterator::ALL.into_iter().filter(|&iterator| probes.why_not(iterator).is_none());
    let named = loaded().map(|iterator| (iterator.name(), Readers::Group));
    let pin = |name: &str, folder: &Path| probes.pin(name, folder);
    place
        .install(PinSet::Iterators, named, pin, group.unwrap_or(0))
        .map_err(|failure| cannot_pin(&failure))?;
    let left_out = |iterator: Iterator| Some((iterator.name(), probes.why_not(iterator)?.to_string()));
    Ok(Installed {
        folder: Pins::path(below, PinSet::Iterators),
        iterators: loaded().map(Iterator::name).collect(),
        left_out: Iterator::ALL.into_iter().filter_map(left_out).collect(),
    })
}

/// Tries to read what is pinned below a folder.
#[must_use]
pub fn status(below: &Path) -> Status {
    let folder = Pins::path(below, PinSet::Iterators);
    let access = |path: &Path| pins::facts(path).ok().map(|facts| Access::of(&facts));
    let mut opened = [Kinds::DMABUF, Kinds::ALL].map(|kinds| Probes::pinned(below, kinds, true));
    let mut try_one = |iterator: Iterator| match &mut opened[usize::from(iterator.has_shmem())] {
        Err(why) => Err(why.clone()),
        Ok(probes) => match probes.why_not(iterator) {
            Some(why) => Err(why.clone()),
            None => probes.read(iterator, |_| ()).map_err(Unavailable::of_reading),
        },
    };
    let tried = Iterator::ALL.map(|iterator| (iterator, try_one(iterator).err()));
    let pins = tried.iter().map(|(iterator, why)| Pin {
        name: iterator.name(),
        access: access(&folder.join(iterator.name())),
        unreadable: why.as_ref().map(ToString::to_string),
    });
    let pins = pins.collect();
    let broken = tried.iter().find_map(|(iterator, why)| match why {
        None | Some(Unavailable::NotPinned) => None,
        Some(why) => Some((*iterator, why.clone())),
    });
    let unusable = match &opened {
        [Err(why), _] | [_, Err(why)] => Some((None, why.clone())),
        [Ok(dmabufs), Ok(all)] => {
            let lacking = dmabufs.lacking(Kinds::DMABUF).or_else(|| all.lacking(Kinds::ALL));
            let lacking = lacking.map(|(iterator, why)| (iterator, why.clone()));
            lacking.or(broken).map(|(iterator, why)| (Some(iterator), why))
        }
    };
    let namespace = || {
        let inner_namespace = !Rights::own().first_pid_namespace;
        inner_namespace.then(|| "they describe the first pid namespace, and this is another one".to_owned())
    };
    let access = access(&folder);
    let unusable = unusable.map(|(iterator, why)| {
        let what = iterator.map_or(String::new(), |iterator| format!("{}: ", iterator.name()));
        format!("{what}{why}; {}", advise(below, &why))
    });
    Status { folder, access, pins, unusable: unusable.or_else(namespace) }
}

/// Removes everything that [`install`] has pinned below a folder, by any version; and the folder
/// with its filesystem, if `install` mounted that. Returns whether anything was pinned.
///
/// Afterwards no process can open the pins again, not even through an fd of a pin that it kept. A
/// reader that had opened an iterator before can still read that to its end, and then the tasks
/// that start later.
///
/// # Errors
/// If the caller lacks a right; if the folder is not in a bpf filesystem or can be changed by
/// others; if another change of the pins went on for seconds.
pub fn remove(below: &Path) -> Result<bool, Error> {
    let cannot = |(what, errno): Failure| {
        let denied = matches!(errno, Some(Errno::PERM | Errno::ACCESS));
        Error::new(ErrorKind::NotPinned, describe(&what, errno, if denied { ": run as root" } else { "" }))
    };
    match PinFolder::open(below).map_err(cannot)? {
        Some(place) => place.remove().map_err(cannot),
        None if below.exists() => {
            let text = format!("{} is not in a bpf filesystem", below.display());
            Err(Error::new(ErrorKind::NotPinned, text))
        }
        None => Ok(false),
    }
}

/// Checks that the members of the group can get to a folder.
pub(crate) fn can_enter(below: &Path, group: Option<u32>) -> Result<(), Error> {
    let Some((folder, mode)) = group.and_then(|group| pins::closed_to(group, below)) else { return Ok(()) };
    let folder = folder.display();
    let text = format!(
        "the group cannot enter {folder} (mode {mode:04o}): choose another folder with --pins, or change the mode"
    );
    Err(Error::new(ErrorKind::NotPinned, text))
}

/// What to do so that the caller can use pinned iterators.
pub(crate) fn advise(below: &Path, why: &Unavailable) -> String {
    advise_for(below, PinSet::Iterators, "lsbuf probes install", why)
}

/// The same for a set that `command` pins.
pub(crate) fn advise_for(below: &Path, set: PinSet, command: &str, why: &Unavailable) -> String {
    let group = pins::facts(&Pins::path(below, set)).ok().map(|facts| facts.st_gid).filter(|&gid| gid != 0);
    match (why, group) {
        (Unavailable::Refused(Errno::ACCESS | Errno::PERM), Some(gid)) => {
            format!("become a member of group {gid}")
        }
        (Unavailable::Refused(Errno::ACCESS | Errno::PERM), None) => {
            format!("as root: {command} --group GROUP")
        }
        _ => format!("as root: {command}"),
    }
}

/// The error for programs that cannot be loaded; `one`: the name of that one.
pub(crate) fn cannot_load(what: &str, one: Option<&str>, why: &Unavailable) -> Error {
    let one = one.map_or(String::new(), |name| format!("{name}: "));
    let advice = match why {
        Unavailable::Refused(Errno::PERM | Errno::ACCESS) => format!(": {}", rights()),
        _ => String::new(),
    };
    let text = format!("the {what} cannot be loaded: {one}{why}{advice}");
    Error::new(ErrorKind::NoSource, text)
}

pub(crate) fn cannot_pin((what, errno): &Failure) -> Error {
    let advice = match *errno {
        Some(Errno::PERM | Errno::ACCESS) => format!(": {}", rights()),
        Some(Errno::NODEV) => ": this kernel has no bpf filesystem".to_owned(),
        _ => String::new(),
    };
    Error::new(ErrorKind::NotPinned, describe(what, *errno, &advice))
}

fn describe(what: &str, errno: Option<Errno>, advice: &str) -> String {
    errno.map_or(what.to_owned(), |errno| format!("{what}: {}{advice}", std::io::Error::from(errno)))
}

/// How to get the rights that loading and pinning need.
fn rights() -> String {
    obtain(&[Right::Load, Right::Observe, Right::Mount].into(), &Rights::own())
}

impl Access {
    pub(crate) fn of(facts: &rustix::fs::Stat) -> Access {
        Access { uid: facts.st_uid, gid: facts.st_gid, mode: facts.st_mode & 0o7777 }
    }
}
