//! Tries every source, and says what is missing for a complete answer.
//!
//! Each state comes from trying the source, not from the kernel's version or from credentials; only
//! the advice depends on the caller's rights. Advice names what a complete answer needs. What would
//! only add details is optional.
//!
//! Limits: advice may come in steps. If procfs hides processes, or debugfs is not mounted, more
//! rights may turn out to be missing afterwards; so run it again after each step.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat, statfs};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use super::advice::{Right, obtain};
use super::iterators::NotUsed;
use super::{Iterating, Scanner};
use crate::error::Error;
use crate::kernel::bpf::Unavailable;
use crate::kernel::fds::{self, FdReader};
use crate::kernel::maps::MapsReader;
use crate::kernel::process::ProcessDir;
use crate::kernel::procmap::Queries;
use crate::kernel::rights::Rights;
use crate::kernel::{bufinfo, magic, read};
use crate::model::{Coverage, Label, Note, Pid, Snapshot, Source, counted};
use crate::probes;

/// How much of a source works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// All of it.
    Works,
    /// A part of it.
    Partly,
    /// None of it.
    Missing,
}

impl SourceState {
    /// The state as one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SourceState::Works => "works",
            SourceState::Partly => "partly",
            SourceState::Missing => "missing",
        }
    }
}

/// The result of trying one source.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceCheck {
    /// The source, or something on which sources depend.
    pub what: &'static str,
    /// What lsbuf learns from it.
    pub gives: &'static str,
    /// How much of it works.
    pub state: SourceState,
    /// What was found.
    pub seen: String,
    /// What to do so that the answer becomes complete.
    pub advice: Option<String>,
    /// What to do to see more, although the answer is complete without it.
    pub optional: Option<String>,
}

/// A process that could not be read by procfs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unread {
    /// The process.
    pub pid: Pid,
    /// Its command name; `None`: that cannot be read either.
    pub comm: Option<Label>,
    /// The reason, found by trying again.
    pub why: Refusal,
}

/// Why a process was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller may not read this part of it.
    Denied(&'static str),
    /// Reading this part of it fails, with this error.
    Failed(&'static str, String),
    /// It had exited when it was tried again.
    Gone,
    /// It could be read when it was tried again.
    Passed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Denied(part) => write!(f, "permission denied to read its {part}"),
            Refusal::Failed(part, error) => write!(f, "reading its {part} failed: {error}"),
            Refusal::Gone => f.write_str("it exited while it was read"),
            Refusal::Passed => f.write_str("it could not be read at first, and can be now"),
        }
    }
}

/// The result of trying everything.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// One check for each source.
    pub checks: Vec<SourceCheck>,
    /// The coverage of a scan.
    pub coverage: Coverage,
    /// Processes that procfs could not read, ordered by pid. The BPF iterators read them
    /// nevertheless.
    pub unread: Vec<Unread>,
}

impl Diagnosis {
    /// Whether a scan's answer is complete here and procfs could read every process.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.coverage.is_complete() && self.unread.is_empty()
    }
}

impl Scanner {
    /// Tries every source and takes a snapshot.
    ///
    /// # Errors
    /// As [`Scanner::scan`].
    pub fn diagnose(&mut self) -> Result<Diagnosis, Error> {
        self.load_iterators();
        let Snapshot { coverage, .. } = self.scan()?;
        let rights = Rights::own();
        // How far procfs works is shown even if the answer does not need it.
        let by_iterators = matches!(self.iterators, Iterating::Ready(_));
        let procfs = if by_iterators { self.by_procfs()?.coverage() } else { coverage.clone() };
        let (unread, needed) = self.look_again(&procfs.unreadable, &rights);
        let mut of_procfs = [
            self.whole_machine(&procfs, &rights),
            self.processes(&procfs, &unread, &needed, &rights),
            identity(&procfs, &rights),
        ];
        let mut list = self.bufinfo(&rights);
        let listed = coverage.sources.contains(&Source::DmaBufIterator);
        let unneeded = of_procfs.iter_mut().filter(|_| by_iterators);
        unneeded.chain(Some(&mut list).filter(|_| listed)).for_each(SourceCheck::make_optional);
        let mut checks = vec![self.iterators(&rights)];
        checks.extend(of_procfs);
        let mut follow = self.map_files(&rights);
        if coverage.notes.iter().any(|note| matches!(note, Note::Unsized { .. })) {
            follow.advice = follow.optional.take();
        }
        checks.extend([self.procmap(), list, follow]);
        checks.extend(self.recorder());
        Ok(Diagnosis { checks, coverage, unread })
    }

    /// The flight recorder, if one is installed.
    fn recorder(&self) -> Option<SourceCheck> {
        let check = SourceCheck::new("flight recorder", "who made each buffer, and when");
        let crate::origins::Status { access: Some(_), recorder, unusable, .. } =
            crate::origins::status(&self.options.pins)
        else {
            return None;
        };
        let Some(recorded) = recorder else {
            let mut check = check.is(SourceState::Missing, unusable.unwrap_or_default());
            check.make_optional();
            return Some(check);
        };
        let lost = recorded.full.saturating_add(recorded.skipped.unwrap_or(0));
        let mut seen = format!("{} births recorded, at most {lost} lost", recorded.births);
        if !recorded.unseen.is_empty() {
            seen.push_str(&format!("; this kernel does not show those of {}", recorded.unseen.join(", ")));
        }
        if !recorded.clients {
            seen.push_str("; this kernel does not show who receives buffers");
        }
        let is_whole = recorded.unseen.is_empty() && recorded.clients;
        let state = if is_whole { SourceState::Works } else { SourceState::Partly };
        Some(check.is(state, seen))
    }

    fn iterators(&self, rights: &Rights) -> SourceCheck {
        let check = SourceCheck::new("BPF iterators", "fds, mappings, dma-bufs and counts in one pass");
        let state = match &self.iterators {
            Iterating::Ready(iterators) => {
                return match iterators.origin() {
                    Ok(folder) => check.works(format!("used, as pinned in {}", folder.display())),
                    Err(why) => {
                        let pinned = why.map_or(String::new(), |missing| format!("; {}", missing.of_pins()));
                        check.works(format!("used, loaded for each run{pinned}"))
                    }
                };
            }
            Iterating::No(state) => state,
            Iterating::MayLoad(missing) => {
                return check.is(SourceState::Missing, format!("not loaded; {}", missing.of_pins()));
            }
        };
        let mut check = check.is(SourceState::Missing, format!("{state}; procfs is used"));
        if let NotUsed::Neither { pinned, loaded } = state {
            let by_pins = probes::advise(&self.options.pins, &pinned.why);
            let denied = matches!(loaded.why, Unavailable::Refused(Errno::PERM | Errno::ACCESS));
            let by_load = denied.then(|| obtain(&[Right::Load, Right::Observe].into(), rights));
            let loadable = !matches!(loaded.why, Unavailable::Missing);
            check.optional = match by_load {
                Some(by_load) => Some(format!("{by_load}; or {by_pins}")),
                None => loadable.then_some(by_pins),
            };
        }
        check
    }

    fn whole_machine(&self, coverage: &Coverage, rights: &Rights) -> SourceCheck {
        let check = SourceCheck::new("procfs", "the list of processes");
        if !coverage.notes.contains(&Note::NotWholeMachine) {
            return check.works("kernel threads are listed: this is the whole machine");
        }
        let advice = if !self.root.is_live() {
            RECORD.to_owned()
        } else if !rights.first_pid_namespace {
            "run in the first pid namespace (for a container: --pid=host), with its /proc".to_owned()
        } else if Right::Trace.is_had(rights) {
            "use a /proc that is mounted in the first pid namespace".to_owned()
        } else {
            format!("{}; or mount /proc without hidepid", obtain(&BTreeSet::from([Right::Trace]), rights))
        };
        check.is(SourceState::Partly, "no kernel threads are listed").advise(advice)
    }

    fn processes(
        &self,
        coverage: &Coverage,
        unread: &[Unread],
        needed: &BTreeSet<Right>,
        rights: &Rights,
    ) -> SourceCheck {
        let counts = &coverage.processes;
        let check = SourceCheck::new("fd, fdinfo, maps", "fds and mappings of each process");
        let all = counted(counts.total - counts.vanished, "process", "processes");
        let seen = format!("{} of {all} can be read", counts.read);
        let state = match (counts.unreadable, counts.read) {
            (0, _) => return check.works(seen),
            (_, 0) => SourceState::Missing,
            _ => SourceState::Partly,
        };
        let check = check.is(state, format!("{seen}; the others are listed below"));
        if !self.root.is_live() {
            return check.advise(RECORD.to_owned());
        }
        let refuses = |unread: &&Unread| matches!(unread.why, Refusal::Denied(_) | Refusal::Failed(..));
        match unread.iter().find(refuses).map(|unread| &unread.why) {
            None => check.advise("run it again: they can be read now, or have exited".to_owned()),
            Some(Refusal::Failed(..)) if needed.is_empty() => check.advise("see the error below".to_owned()),
            Some(_) => check.advise(obtain(needed, rights)),
        }
    }

    /// Tries again to read each of these processes; returns why they cannot be read, and which
    /// rights are missing.
    fn look_again(&mut self, pids: &[Pid], rights: &Rights) -> (Vec<Unread>, BTreeSet<Right>) {
        let mut needed = BTreeSet::new();
        let mut look = |&pid: &Pid| {
            let (comm, why) = self.refused(pid, rights, &mut needed);
            Unread { pid, comm, why }
        };
        (pids.iter().map(&mut look).collect(), needed)
    }

    fn procmap(&self) -> SourceCheck {
        let check = SourceCheck::new("procmap", "mappings, several times faster than as text");
        if self.procfs.as_ref().is_some_and(|procfs| procfs.can_query()) {
            return check.works("this kernel has PROCMAP_QUERY");
        }
        let why = match Queries::probe(&self.root) {
            Err(e) => format!("PROCMAP_QUERY cannot be tried: {}", std::io::Error::from(e)),
            Ok(_) if self.root.is_live() => "this kernel has no PROCMAP_QUERY".to_owned(),
            Ok(_) => "a recorded tree has no PROCMAP_QUERY".to_owned(),
        };
        check.is(SourceState::Missing, format!("{why}: lsbuf reads maps as text, with the same answer"))
    }

    /// Tries again to read one process: its command name, what it refuses, and the missing rights.
    fn refused(
        &mut self,
        pid: Pid,
        rights: &Rights,
        needed: &mut BTreeSet<Right>,
    ) -> (Option<Label>, Refusal) {
        const LISTED_BY_ALL: u32 = 0o005;
        let denied = |error: Option<Errno>| matches!(error, Some(Errno::ACCESS | Errno::PERM));
        let process = match ProcessDir::open(&self.root, pid) {
            Ok(process) => process,
            // With hidepid the whole directory is closed.
            Err(error) => {
                needed.extend(denied(Some(error)).then_some(Right::Trace));
                return (None, Refusal::of("directory", error));
            }
        };
        let comm = process.identify().ok().map(|process| process.comm);
        let mut table = fds::FdTable::default();
        let fds = FdReader::default().read(process.dir(), &mut table, None, None).err();
        let maps = process.image().and_then(|image| MapsReader::default().read(image.maps(), None)).err();
        if denied(fds) || denied(maps) {
            needed.insert(Right::Trace);
        }
        let by_mode = statat(process.dir().fd(), c"fdinfo", AtFlags::empty())
            .is_ok_and(|dir| dir.st_mode & LISTED_BY_ALL != LISTED_BY_ALL && dir.st_uid != rights.uid);
        if denied(fds) && by_mode {
            needed.insert(Right::Search);
        }
        let refusal = fds.map(|error| ("fd table", error)).or(maps.map(|error| ("mappings", error)));
        (comm, refusal.map_or(Refusal::Passed, |(part, error)| Refusal::of(part, error)))
    }

    fn bufinfo(&mut self, rights: &Rights) -> SourceCheck {
        let check = SourceCheck::new("bufinfo", "dma-bufs that no process holds, counts, attached devices");
        let Some(sys) = self.options.sys_root.clone() else {
            let check = check.is(SourceState::Missing, "no sysfs goes with this procfs");
            return check.advise("give it with --sys-root".to_owned());
        };
        match bufinfo::read_list(&sys) {
            Ok(list) if list.agrees() => {
                check.works(format!("lists {}", counted(list.buffers.len() as u64, "buffer", "buffers")))
            }
            Ok(list) => check
                .is(
                    SourceState::Partly,
                    format!("{} readable rows, but its last line says otherwise", list.buffers.len()),
                )
                .advise("look for a buffer with a newline in its name".to_owned()),
            Err(error) => {
                let seen = format!("{}: {}", sys.join(bufinfo::PATH).display(), std::io::Error::from(error));
                let advice =
                    if self.root.is_live() { advise_bufinfo(&sys, error, rights) } else { RECORD.to_owned() };
                check.is(SourceState::Missing, seen).advise(advice)
            }
        }
    }

    fn map_files(&mut self, rights: &Rights) -> SourceCheck {
        let gives = "creator and age of buffers that are only mapped, and size of such shmem";
        let mut check = SourceCheck::new("map_files", gives);
        match self.follow_a_mapping() {
            Ok(()) => check.works("links can be followed"),
            Err(error) => {
                check = check.is(SourceState::Missing, std::io::Error::from(error).to_string());
                let needed = BTreeSet::from([Right::Trace, Right::Search, Right::FollowMappings]);
                check.optional =
                    matches!(error, Errno::ACCESS | Errno::PERM).then(|| obtain(&needed, rights));
                check
            }
        }
    }

    /// Follows a mapping's link of the first process that maps a file and can be followed; an error
    /// says why that fails.
    fn follow_a_mapping(&mut self) -> Result<(), Errno> {
        let processes = self.root.processes().map_err(|_| Errno::IO)?;
        let mut refused = Errno::NOENT;
        for (pid, _) in processes {
            match self.follow_a_mapping_of(pid) {
                Err(Errno::NOENT | Errno::SRCH) | Ok(false) => {}
                // One protected process says nothing about the others.
                Err(Errno::ACCESS) => refused = Errno::ACCESS,
                Err(error) => return Err(error),
                Ok(true) => return Ok(()),
            }
        }
        Err(refused)
    }

    /// The same for one process; `false`: it maps no file.
    fn follow_a_mapping_of(&mut self, pid: Pid) -> Result<bool, Errno> {
        let process = ProcessDir::open(&self.root, pid)?;
        let links = process.dir().folder(c"map_files")?;
        let mut first = None;
        read::entries(links.fd(), |entry, _| {
            first.get_or_insert_with(|| entry.to_owned());
            Ok(())
        })?;
        let Some(first) = first else { return Ok(false) };
        links.pin(first).map(|_| true)
    }
}

/// Advice for a recorded tree.
const RECORD: &str = "record the tree again, as root";

fn identity(coverage: &Coverage, rights: &Rights) -> SourceCheck {
    let check = SourceCheck::new("identity", "proof of which files with such names are dma-bufs");
    let unproven = coverage
        .notes
        .iter()
        .find_map(|note| if let Note::Unproven { references } = note { Some(references) } else { None });
    let Some(references) = unproven else { return check.works("every candidate was decided") };
    let check = check.is(
        SourceState::Partly,
        counted(*references, "reference cannot be decided", "references cannot be decided"),
    );
    if !coverage.unreadable.is_empty() {
        // They may be proven by the processes that cannot be read yet.
        return check;
    }
    // One fd of any dma-buf would prove them all. If there is none, only following a mapping can.
    let next = if Right::Search.is_had(rights) { Right::FollowMappings } else { Right::Search };
    check.advise(obtain(&BTreeSet::from([next]), rights))
}

fn advise_bufinfo(sys: &Path, error: Errno, rights: &Rights) -> String {
    let debug = sys.join("kernel/debug");
    let is_there = |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).is_ok();
    match error {
        Errno::ACCESS | Errno::PERM => obtain(&BTreeSet::from([Right::Search]), rights),
        Errno::NOENT if statfs(&debug).is_ok_and(|fs| fs.f_type == magic::DEBUGFS) => {
            "nothing: this kernel was built without dma-bufs (CONFIG_DMA_SHARED_BUFFER)".to_owned()
        }
        Errno::NOENT if !is_there(&sys.join("kernel")) => {
            format!("{} is not a sysfs: give one with --sys-root", sys.display())
        }
        Errno::NOENT if !is_there(&debug) => {
            "nothing: this kernel was built without debugfs (CONFIG_DEBUG_FS)".to_owned()
        }
        Errno::NOENT => {
            let where_to = match (rights.first_user_namespace, rights.has(CapabilitySet::SYS_ADMIN)) {
                (false, _) => "outside this user namespace: ",
                (true, false) => "as root: ",
                (true, true) => "",
            };
            format!("{where_to}mount -t debugfs none {}", debug.display())
        }
        _ => "mend the cause of that error".to_owned(),
    }
}

impl Refusal {
    fn of(part: &'static str, error: Errno) -> Refusal {
        match error {
            Errno::ACCESS | Errno::PERM => Refusal::Denied(part),
            Errno::NOENT | Errno::SRCH => Refusal::Gone,
            error => Refusal::Failed(part, std::io::Error::from(error).to_string()),
        }
    }
}

impl SourceCheck {
    fn new(what: &'static str, gives: &'static str) -> SourceCheck {
        SourceCheck {
            what,
            gives,
            state: SourceState::Works,
            seen: String::new(),
            advice: None,
            optional: None,
        }
    }

    fn is(self, state: SourceState, seen: impl Into<String>) -> SourceCheck {
        SourceCheck { state, seen: seen.into(), ..self }
    }

    fn works(self, seen: impl Into<String>) -> SourceCheck {
        self.is(SourceState::Works, seen)
    }

    fn advise(self, advice: String) -> SourceCheck {
        SourceCheck { advice: Some(advice), ..self }
    }

    /// The advice is not needed for a complete answer.
    fn make_optional(&mut self) {
        self.optional = self.advice.take().or(self.optional.take());
    }
}
