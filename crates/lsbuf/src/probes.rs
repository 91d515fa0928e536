//! Iterators that root loads and pins once per boot, so that members of a group read them without
//! any privilege, and without loading anything.
//!
//! What they can then see is the whole machine, all containers of it: of every dma-buf its size,
//! exporter, name, creator, count and attached devices; of every memfd, System V segment and file
//! of a tmpfs that somebody holds its size, path, owner and what is charged for it; who holds it,
//! with pid, command name, user and cgroup, by which fd numbers and at which addresses it is mapped
//! (which tells where address space layout randomization has put it); and who has a GPU, video or
//! such device open; and of every thread how long it has run, and by which system call it is in the
//! kernel. Not what is in the buffers, nor anything to open them by.
//!
//! Limits: what needs a privilege besides still does. The fdinfo of io_urings of others cannot be
//! read, so where there is one, accounts that it could explain are estimates; and before Linux
//! 6.16, which has no iterator of dma-bufs, debugfs's list of them is root's, so buffers that no
//! process holds do not show.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};
use crate::kernel::bpf::facts::Failure;
use crate::kernel::bpf::pins::{self, PinFolder, Pins};
use crate::kernel::bpf::{Iterator, Probes, Unavailable};
use crate::kernel::rights::Rights;
use crate::model::Kinds;
use crate::scan::advice::{Right, obtain};

/// What [`install`] has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Where the iterators are.
    pub folder: PathBuf,
    /// Those that are pinned.
    pub iterators: Vec<&'static str>,
    /// Those that are not, and why; what is pinned does without.
    pub left_out: Vec<(&'static str, String)>,
}

/// Who may read something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
}

/// What is pinned in place of one iterator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The iterator's name.
    pub name: &'static str,
    /// Who may read it; `None`: there is nothing, or not even that can be seen.
    pub access: Option<Access>,
    /// Why the caller cannot read it, if so: it was tried.
    pub unreadable: Option<String>,
}

/// What is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Where iterators of this version are, or would be.
    pub folder: PathBuf,
    /// Who may enter that; `None`: it is not there, or not even that can be seen.
    pub access: Option<Access>,
    /// Iterator by iterator.
    pub pins: Vec<Pin>,
    /// Why the caller cannot answer from them, and what to do, if so.
    pub unusable: Option<String>,
}

/// Loads the iterators and pins them below a folder for the members of a group (`None`: for root alone), in place of those that
/// are pinned there.
///
/// The folder has to be in a bpf filesystem, or not to exist, or to be empty: then one is mounted on it. The iterators stay until
/// [`remove`] or the end of the boot.
///
/// # Errors
/// The caller lacks a right, the kernel an iterator; or the folder is another filesystem's and has
/// something in it, could be changed by others, or lies where the group's members cannot enter; or
/// somebody else was at work in it for seconds.
pub fn install(below: &Path, group: Option<u32>) -> Result<Installed, Error> {
    let probes = Probes::load(Path::new("/sys"), &Iterator::ALL).map_err(|why| cannot_load(None, &why))?;
    if let Some((iterator, why)) = probes.lacking(Kinds::DMABUF).or_else(|| probes.lacking(Kinds::ALL)) {
        return Err(cannot_load(Some(iterator), why));
    }
    let can_enter = || match group.and_then(|group| pins::closed_to(group, below)) {
        None => Ok(()),
        Some((folder, mode)) => {
            let folder = folder.display();
            let text = format!(
                "the group cannot enter {folder} (mode {mode:04o}): pin elsewhere, or open that folder"
            );
            Err(Error::new(ErrorKind::NotPinned, text))
        }
    };
    can_enter()?;
    let place = PinFolder::make(below).map_err(|failure| cannot_pin(&failure))?;
    // The folders that were made are as this process's mask lets them.
    can_enter()?;
    let loaded = Iterator::ALL.into_iter().filter(|&iterator| probes.why_not(iterator).is_none());
    let pin = |iterator, folder: &Path| probes.pin(iterator, folder);
    let pinned = place.install(loaded, pin, group.unwrap_or(0)).map_err(|failure| cannot_pin(&failure))?;
    let left_out = |iterator: Iterator| Some((iterator.name(), probes.why_not(iterator)?.to_string()));
    Ok(Installed {
        folder: Pins::path(below),
        iterators: pinned.into_iter().map(Iterator::name).collect(),
        left_out: Iterator::ALL.into_iter().filter_map(left_out).collect(),
    })
}

/// Tries what is pinned below a folder.
#[must_use]
pub fn status(below: &Path) -> Status {
    let folder = Pins::path(below);
    let access = |path: &Path| pins::facts(path).ok().map(|facts| Access::of(&facts));
    let mut opened = [Kinds::DMABUF, Kinds::ALL].map(|kinds| Probes::pinned(below, kinds));
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
        let elsewhere = !Rights::own().first_pid_namespace;
        elsewhere.then(|| "they speak of the first pid namespace, which this is not".to_owned())
    };
    let access = access(&folder);
    let unusable = unusable.map(|(iterator, why)| {
        let what = iterator.map_or(String::new(), |iterator| format!("{}: ", iterator.name()));
        format!("{what}{why}; {}", advise(below, &why))
    });
    Status { folder, access, pins, unusable: unusable.or_else(namespace) }
}

/// Removes all that [`install`] has pinned below a folder, of other versions too, and the folder with its filesystem if that was made
/// for it. Returns whether anything was pinned.
///
/// Who was a reader cannot open it again, not even through an fd of a pin that was kept. What
/// somebody had opened before can still be read on, to its end and then of tasks that start later.
///
/// # Errors
/// The caller lacks a right, the folder is not in a bpf filesystem or could be changed by others,
/// or somebody else was at work in it for seconds.
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

/// What would make pinned iterators usable for the caller.
pub(crate) fn advise(below: &Path, why: &Unavailable) -> String {
    let group = pins::facts(&Pins::path(below)).ok().map(|facts| facts.st_gid).filter(|&gid| gid != 0);
    match (why, group) {
        (Unavailable::Refused(Errno::ACCESS | Errno::PERM), Some(gid)) => {
            format!("become a member of group {gid}")
        }
        (Unavailable::Refused(Errno::ACCESS | Errno::PERM), None) => {
            "as root: lsbuf probes install --group GROUP".to_owned()
        }
        _ => "as root: lsbuf probes install".to_owned(),
    }
}

fn cannot_load(iterator: Option<Iterator>, why: &Unavailable) -> Error {
    let what = iterator.map_or(String::new(), |iterator| format!("{}: ", iterator.name()));
    let advice = match why {
        Unavailable::Refused(Errno::PERM | Errno::ACCESS) => format!(": {}", rights()),
        _ => String::new(),
    };
    let text = format!("the BPF iterators cannot be loaded: {what}{why}{advice}");
    Error::new(ErrorKind::NoSource, text)
}

fn cannot_pin((what, errno): &Failure) -> Error {
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

/// How to come by what loading and pinning take.
fn rights() -> String {
    obtain(&[Right::Load, Right::Observe, Right::Mount].into(), &Rights::own())
}

impl Access {
    fn of(facts: &rustix::fs::Stat) -> Access {
        Access { uid: facts.st_uid, gid: facts.st_gid, mode: facts.st_mode & 0o7777 }
    }
}
