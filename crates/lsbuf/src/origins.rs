//! The flight recorder: who made each living buffer, when, and where in its code.
//!
//! Root installs it once per boot ([`install`]). It consists of programs that the kernel runs when
//! a buffer is born or dies, and a map with one record for each living buffer. No process has to
//! run. From then on a scan that asks for it ([`Detail::Origin`](crate::model::Detail::Origin))
//! knows the birth of each buffer that is younger than the recorder
//! ([`Buffer::origin`](crate::model::Buffer::origin)).
//!
//! The members of the group that the recorder is installed for can then see of every living buffer
//! its maker's pid, names, user and cgroup, and the calls in the maker's code: build ids of files
//! with offsets in them, or addresses. They see no address of the kernel and nothing of what is in
//! a buffer, and cannot change or empty the records. Only root could, through the kernel's numbers
//! of maps.
//!
//! Limits: the recorder does not see the births of secret memory and of the memory of virtual
//! machines. A birth is lost if the map is full, and if the same program was interrupted on the
//! same processor; both are counted.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use crate::error::Error;
use crate::kernel::bpf::hooks::{Hook, HookRole, View};
use crate::kernel::bpf::origins::{self, OriginCounts, OriginRow};
use crate::kernel::bpf::pins::{self, PinFolder, PinSet, Pins, Readers};
use crate::kernel::bpf::{Unavailable, pin_as};
use crate::probes::{self, Access, Pin};

/// For how many living buffers there is room, unless another number is chosen. A record takes 2 KiB
/// of the kernel's memory, as long as its buffer lives.
pub const MOST: u32 = 65_536;

/// The result of [`install`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Installed {
    /// The folder with its pins.
    pub folder: PathBuf,
    /// Whether a recorder of this version was there already. It was kept, with its records.
    pub kept: bool,
    /// The programs that do not run, and why. The recorder works without them, and does not know
    /// who made the buffers that they would have seen.
    pub left_out: Vec<(&'static str, String)>,
}

/// What is known of an installed recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The folder with its pins, or where it would be.
    pub folder: PathBuf,
    /// Who may enter the folder; `None`: there is none, or it cannot be seen.
    pub access: Option<Access>,
    /// The iterators over the records.
    pub pins: Vec<Pin>,
    /// What it says of itself; `None`: it cannot be read.
    pub recorder: Option<Recorded>,
    /// Why the caller cannot read it, and what to do; `None`: it works.
    pub unusable: Option<String>,
}

/// What a recorder says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// From when on it has recorded, as time after boot.
    pub after_boot: Duration,
    /// The same by the wall clock, as that was then.
    pub since: SystemTime,
    /// How many living buffers have a record.
    pub living: u64,
    /// For how many there is room.
    pub most: u32,
    /// Births and deaths that were recorded.
    pub births: u64,
    /// Deaths of what was recorded.
    pub deaths: u64,
    /// Births for which there was no room.
    pub full: u64,
    /// Births, at most, that the kernel did not show to the recorder, because all copies of the
    /// same program were interrupted on the same processor. Folders and links of a tmpfs count
    /// here, too.
    /// `None`: the caller may not ask.
    pub skipped: Option<u64>,
    /// The same of deaths. The record of such a buffer stays until another gets its address, and is
    /// not shown.
    pub skipped_deaths: Option<u64>,
    /// First receipts of a buffer from its maker, at most, that the recorder did not see. From the
    /// first one on, no buffer has a client. `None`: the caller may not ask.
    pub skipped_receipts: Option<u64>,
    /// Of what it does not record the births, because this kernel has no place for it.
    pub unseen: Vec<&'static str>,
    /// Whether it records which process receives a buffer first from its maker. Not if this kernel
    /// has no place for that.
    pub clients: bool,
}

/// Loads the programs of the recorder, attaches them, and pins them below a folder, as
/// [`probes::install`] does with the iterators. Members of the group may read the records (`None`:
/// only root). If a recorder of this version is there, it is kept with its records, and given to
/// the group.
///
/// # Errors
/// If the caller lacks a right; if the kernel has none of the functions where a birth can be
/// recorded; and as for [`probes::install`].
pub fn install(below: &Path, group: Option<u32>, most: u32) -> Result<Installed, Error> {
    let folder = Pins::path(below, PinSet::Origins);
    let give = group.unwrap_or(0);
    if read(below).is_ok() {
        let place = PinFolder::make(below).map_err(|failure| probes::cannot_pin(&failure))?;
        place.give_to(PinSet::Origins, give).map_err(|failure| probes::cannot_pin(&failure))?;
        return Ok(Installed { folder, kept: true, left_out: Vec::new() });
    }
    probes::can_enter(below, group)?;
    let started = start(most).map_err(|why| probes::cannot_load("flight recorder", None, &why))?;
    let place = PinFolder::make(below).map_err(|failure| probes::cannot_pin(&failure))?;
    probes::can_enter(below, group)?;
    let (links, left_out) = started;
    let named = links.iter().map(|Link(name, readers, _)| (name.as_str(), *readers));
    let pin = |name: &str, folder: &Path| {
        let found = links.iter().find(|Link(called, ..)| called == name);
        found.map_or(Err(Errno::NOENT), |Link(_, _, link)| pin_as(link, name, folder))
    };
    place.install(PinSet::Origins, named, pin, give).map_err(|failure| probes::cannot_pin(&failure))?;
    Ok(Installed { folder, kept: false, left_out })
}

/// What is pinned: its name, who may open it, and the attached program.
struct Link(String, Readers, OwnedFd);

/// What was started, and what could not be, with the reason.
type Started = (Vec<Link>, Vec<(&'static str, String)>);

#[cfg(feature = "bpf")]
fn start(most: u32) -> Result<Started, Unavailable> {
    let recorder = crate::kernel::bpf::recorder::Recorder::start(Path::new("/sys"), most)?;
    let (mut links, mut left_out) = (Vec::new(), Vec::new());
    let views = recorder.views.into_iter();
    links.extend(views.map(|(view, link)| Link(view.name().to_owned(), Readers::Group, link)));
    for (hook, attached) in recorder.hooks {
        match attached {
            Ok(copies) => {
                links.extend(hook.pins().zip(copies).map(|(name, link)| Link(name, Readers::Owner, link)));
            }
            Err(why) => left_out.push((hook.name(), why.to_string())),
        }
    }
    Ok((links, left_out))
}

#[cfg(not(feature = "bpf"))]
fn start(_: u32) -> Result<Started, Unavailable> {
    Err(Unavailable::NotBuilt)
}

/// Tries to read the recorder that is pinned below a folder.
#[must_use]
pub fn status(below: &Path) -> Status {
    let folder = Pins::path(below, PinSet::Origins);
    let access = |path: &Path| pins::facts(path).ok().map(|facts| Access::of(&facts));
    let recorder = read(below);
    let stacks = || origins::read(&Pins::open(below, PinSet::Origins)?, View::Stacks, |_| ());
    let tried = View::ALL.map(|view| match view {
        View::Origins => recorder.as_ref().err().cloned(),
        View::Stacks => stacks().err(),
    });
    let pins = View::ALL.iter().zip(&tried).map(|(view, why)| Pin {
        name: view.name(),
        access: access(&folder.join(view.name())),
        unreadable: why.as_ref().map(ToString::to_string),
    });
    let pins = pins.collect();
    let unusable = tried.iter().flatten().next().map(|why| format!("{why}; {}", advise(below, why)));
    let access = access(&folder);
    Status { folder, access, pins, recorder: recorder.ok(), unusable }
}

/// What the recorder that is pinned below a folder says of itself. `None`: none can be read there
/// ([`status`] says why).
#[must_use]
pub fn recorded(below: &Path) -> Option<Recorded> {
    read(below).ok()
}

/// What to do so that the caller can read the recorder.
pub(crate) fn advise(below: &Path, why: &Unavailable) -> String {
    probes::advise_for(below, PinSet::Origins, "lsbuf probes install --origins", why)
}

/// What the recorder says of itself.
fn read(below: &Path) -> Result<Recorded, Unavailable> {
    let pins = Pins::open(below, PinSet::Origins)?;
    let mut living = 0;
    let counts = origins::read(&pins, View::Origins, |row| {
        living += u64::from(matches!(row, OriginRow::Birth(_)));
    })?;
    let OriginCounts { births, deaths, full, about, .. } = counts;
    let skipped = |role: HookRole| {
        let hooks = Hook::ALL.into_iter().filter(|hook| hook.role() == role);
        hooks.filter_map(|hook| origins::skipped(&pins, hook)).reduce(|sum, one| sum.saturating_add(one))
    };
    Ok(Recorded {
        after_boot: Duration::from_nanos(about.since),
        since: SystemTime::UNIX_EPOCH + Duration::from_nanos(about.since_wall),
        living,
        most: about.most,
        births,
        deaths,
        full,
        skipped: skipped(HookRole::Birth),
        skipped_deaths: skipped(HookRole::Death),
        skipped_receipts: origins::skipped_receipts(&pins),
        unseen: Hook::ALL
            .into_iter()
            .filter(|hook| hook.is_birth() && about.watched & hook.bit() == 0)
            .map(Hook::sees)
            .collect(),
        clients: Hook::can_know_clients(about.watched),
    })
}
