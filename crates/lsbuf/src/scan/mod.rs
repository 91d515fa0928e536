//! Takes a [`Snapshot`]: chooses a source, reads it one or more times, joins references with
//! buffers and decides which residuals are exact.
//!
//! A scan has six steps. Each is in modules of its own, so that only the second one depends on the
//! source:
//!
//! - *choose* a source: this file; `options` and `words`; `budget`, which says when procfs takes so
//!   long that loading BPF iterators is cheaper;
//! - *read* it: `procfs` (with `walk`, `space` and `shared`) or `iterators`. Each makes a
//!   `Reading`, the references and counts of one pass over the machine. Both use `tasks`, `lists`
//!   and `described`; procfs also needs `dmabuf_identity` and `kthreads`;
//! - *join*: `assemble` puts each reference into its buffer, and `segments` adds what the kernel's
//!   tables say of System V segments;
//! - *decide*: `settle` says which residuals are exact, and whether another reading could help;
//! - *leave out*: `own_refs` removes what the scanning process holds itself, if that was asked for;
//! - *explain*: `details` adds what was asked for of processes; `driver_shmem` says which buffers
//!   are the same memory, `lifetimes` which names go with their holder, and `notes` what was not
//!   seen.
//!
//! `reading` has the types between the second step and the third, and `packed` its long lists.
//! `doctor` tries every source and, with `advice`, says what is missing. `reconcile` collects the
//! figures for the account of `Shmem:`.
//!
//! Limits: `settle` and docs/proof.md list the cases that the proof of an exact residual does not
//! cover.

pub(crate) mod advice;
mod assemble;
#[cfg(feature = "bench")]
pub(crate) mod benching;
mod budget;
mod described;
mod details;
mod digest;
mod dmabuf_identity;
mod doctor;
mod driver_shmem;
mod huge;
mod iterators;
mod kernel_holders;
mod kthreads;
mod lifetimes;
mod lists;
mod notes;
mod open_files;
mod options;
mod origins;
mod own_refs;
mod packed;
mod page_payers;
mod procfs;
mod reading;
mod reconcile;
mod segments;
mod settle;
mod shared;
mod space;
mod tasks;
mod walk;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;

use budget::TimeBudget;
use details::KeptDetails;
pub use doctor::{Diagnosis, Refusal, SourceCheck, SourceState, Unread};
use iterators::{IteratorSource, Iterators, MissingIterator, NotUsed};
pub use options::{CONTAINER_LOGS, Mappings, Options, PASSWD, PINS, POD_LOGS, Sources, Way};
use origins::OriginReader;
use procfs::{LeftOut, Procfs, ProcfsSource};
use reading::{Failed, ReadingSource};
pub(crate) use reconcile::reconcile;
use settle::{Limits, Settled, Settling, Step};

use crate::error::{Error, ErrorKind};
use crate::kernel::guard::{self, Guarded, Stuck};
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::{Filesystems, seals};
use crate::kernel::{activity, gem_info, hugepages, map_files, smaps};
use crate::model::{
    Buffer, Coverage, Detail, Details, Device, Kind, MapRef, Note, Pid, PrivateCopies, Process, Snapshot,
    Source, UnheldList, UnheldSum,
};

/// Takes snapshots. Between two scans it keeps what does not change: the device number of dma-bufs,
/// which processes are kernel threads, and the BPF iterators, if they are used.
///
/// ```
/// let mut scanner = lsbuf::scan::Scanner::new(lsbuf::scan::Options::default())?;
/// let snapshot = scanner.scan()?;
/// for buffer in &snapshot.buffers {
///     println!("inode {}: {} holders", buffer.id.ino, buffer.holders.len());
/// }
/// # Ok::<(), lsbuf::Error>(())
/// ```
#[derive(Debug)]
pub struct Scanner {
    options: Arc<Options>,
    root: Arc<ProcRoot>,
    iterators: Iterating,
    /// Whether a scan was made before.
    again: bool,
    /// `None` while a source uses it, and after it was lost with a helper that was killed.
    procfs: Option<Box<Procfs>>,
    filesystems: Option<Filesystems>,
    origins: OriginReader,
    kept_details: KeptDetails,
}

/// Whether BPF iterators are used.
#[derive(Debug)]
enum Iterating {
    Ready(Box<Iterators>),
    /// They may be loaded, but are not yet: on a small machine, reading procfs costs less. The
    /// value says why the pinned ones are not used.
    MayLoad(MissingIterator),
    No(NotUsed),
}

impl Iterating {
    /// Opens the pinned iterators; if that fails, says whether others may be loaded.
    fn pinned(root: &ProcRoot, options: &Options, unread: Option<Errno>) -> Iterating {
        match iterators::pinned(root, options, unread) {
            Ok(Ok(iterators)) => Iterating::Ready(Box::new(iterators)),
            Ok(Err(missing)) if options.sources.load_bpf => Iterating::MayLoad(missing),
            Ok(Err(missing)) => Iterating::No(NotUsed::only_pinned(missing)),
            Err(why) => Iterating::No(why),
        }
    }

    /// Loads iterators, if none are open and they may be loaded.
    fn loaded(self, options: &Options) -> Iterating {
        match self {
            Iterating::MayLoad(missing) => match iterators::load(options, missing) {
                Ok(iterators) => Iterating::Ready(Box::new(iterators)),
                Err(why) => Iterating::No(why),
            },
            ready => ready,
        }
    }
}

impl Scanner {
    /// Opens the procfs and, unless the options exclude them, the pinned iterators. If the options
    /// ask for BPF iterators alone and allow loading them, loads them.
    ///
    /// # Errors
    /// If the procfs cannot be opened or is not a procfs; if the options allow only BPF iterators
    /// and they cannot be used.
    pub fn new(options: Options) -> Result<Scanner, Error> {
        let root = ProcRoot::open(&options.proc_root)?;
        let procfs = Procfs::new(&root, &options)?;
        let iterators = match options.sources.way {
            Way::Procfs => Iterating::No(NotUsed::NotRequested),
            Way::Auto => Iterating::pinned(&root, &options, None),
            Way::Iterators => Iterating::pinned(&root, &options, None).loaded(&options),
        };
        if let (Way::Iterators, Iterating::No(why)) = (options.sources.way, &iterators) {
            return Err(no_iterators(why));
        }
        let filesystems = procfs.filesystems().cloned();
        let (options, root, procfs) = (Arc::new(options), Arc::new(root), Some(Box::new(procfs)));
        let origins = OriginReader::new(&root, options.deadline);
        Ok(Scanner {
            options,
            root,
            iterators,
            again: false,
            procfs,
            filesystems,
            origins,
            kept_details: KeptDetails::default(),
        })
    }

    /// Whether there is a process with this pid, by procfs or by the BPF iterators.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn has_process(&mut self, pid: Pid) -> Result<bool, Error> {
        let listed = self.root.has_process(pid).map_err(|e| self.cannot_list(e))?;
        match &mut self.iterators {
            Iterating::Ready(iterators) if !listed => Ok(iterators.have_process(pid).unwrap_or(false)),
            _ => Ok(listed),
        }
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// If the processes cannot be listed, or if the options allow only BPF iterators and reading
    /// them fails. If only a part cannot be read, the snapshot says so in [`Snapshot::coverage`].
    pub fn scan(&mut self) -> Result<Snapshot, Error> {
        self.scan_all().map(|scanned| scanned.snapshot)
    }

    fn scan_all(&mut self) -> Result<Scanned, Error> {
        let begun = Instant::now();
        let taken_at = SystemTime::now();
        let mut found = self.find()?;
        if self.options.without_self {
            found.leave_out(&lists::own_pids(&self.root));
        }
        let mut coverage = found.coverage();
        let Found { outcome, unheld_files, processes, devices, only_own } = found;
        let Settled { mut buffers, unheld, few_keep, .. } = outcome;
        let sys = self.options.sys_root.as_deref();
        if let Some(sys) = sys.filter(|_| self.options.sources.gem_handles) {
            let mut handles = gem_info::read_all(sys);
            for buffer in &mut buffers {
                buffer.handles = handles.remove(&buffer.id.ino).into_iter().flatten().collect();
            }
        }
        kernel_holders::add(&self.root, &self.options, &mut buffers);
        if self.options.payers {
            self.ask_payers_by_pages(&mut coverage, &mut buffers);
        }
        lifetimes::add(&self.root, &few_keep, &mut buffers);
        if let Some(sys) = sys {
            segments::correct(&mut buffers, || hugepages::sizes(sys).unwrap_or_default());
        }
        if self.options.sources.driver_shmem && self.root.has_own_pids() {
            driver_shmem::link(&self.root, &mut buffers);
        }
        let host = self.root.host();
        let kinds = self.options.kinds;
        let mount_points = BTreeMap::new();
        let mut snapshot = Snapshot {
            taken_at,
            host,
            kinds,
            coverage,
            buffers,
            unheld: unheld_files,
            processes,
            devices,
            mount_points,
        };
        notes::add(&mut snapshot);
        self.kept_details.add(&self.root, &self.options, &mut snapshot.processes);
        if self.options.details.has(Detail::SegmentUsers) {
            details::add_segment_users(&self.root, snapshot.buffers.iter_mut());
        }
        if self.options.details.has(Detail::OpenFiles) {
            open_files::add(&self.root, &snapshot.processes, snapshot.buffers.iter_mut());
        }
        if self.options.details.has(Detail::Origin) {
            self.ask_origins(&mut snapshot);
        }
        if self.options.details.has(Detail::MountPoints) {
            snapshot.mount_points = details::mount_points(&self.root, &snapshot.buffers);
        }
        snapshot.coverage.duration = begun.elapsed();
        Ok(Scanned { snapshot, unheld, only_own })
    }

    /// Reads by the source that the options choose, or else by the cheapest one that gives the best
    /// answer. If the options allow loading the iterators, that is worth its cost from the second
    /// scan on: a caller who scans twice will scan many more times.
    fn find(&mut self) -> Result<Found, Error> {
        let mut second_best = None;
        if matches!(self.iterators, Iterating::MayLoad(_)) {
            // procfs has no count for shared memory other than System V segments, so an answer with
            // such a buffer is never proven. It would be proven if there is none, but to learn that
            // every process must be read.
            let may_prove = !self.options.kinds.has_shmem() && lists::can_read(&self.options);
            if !std::mem::replace(&mut self.again, true) && may_prove {
                let budget = TimeBudget::new(&self.root);
                match self.ask_procfs(Some(budget)) {
                    Ok(found) if found.is_proven() => return Ok(found),
                    Ok(found) => second_best = Some(found),
                    Err(Failed::NotWorthIt) => {}
                    Err(failed) => return Err(self.failed(failed)),
                }
            }
            self.load_iterators();
        }
        if let Some(found) = self.by_iterators()? {
            return Ok(found);
        }
        let mut found = second_best.map_or_else(|| self.by_procfs(), Ok)?;
        if let Iterating::No(why) = &self.iterators
            && why.is_failure()
        {
            found.outcome.seen.notes.push(Note::IteratorsFailed { why: why.to_string() });
        }
        Ok(found)
    }

    /// Reads details of some buffers of a snapshot that this scanner took, by their indices, and of
    /// the processes that hold one of them. What was known of these processes' details is replaced.
    pub fn add_details(&mut self, snapshot: &mut Snapshot, buffers: &[usize], wanted: Details) {
        let holders = buffers.iter().flat_map(|&index| &snapshot.buffers[index].holders);
        let pids: BTreeSet<Pid> = holders.map(|holder| holder.pid).collect();
        let processes = snapshot.processes.iter_mut().filter(|process| pids.contains(&process.pid));
        details::add(&self.root, &self.options, wanted, processes);
        let chosen: BTreeSet<usize> = buffers.iter().copied().collect();
        let Snapshot { buffers, processes, .. } = snapshot;
        let rows = buffers.iter_mut().enumerate().filter(|(row, _)| chosen.contains(row));
        let mut rows: Vec<&mut Buffer> = rows.map(|(_, buffer)| buffer).collect();
        if wanted.has(Detail::SegmentUsers) {
            details::add_segment_users(&self.root, rows.iter_mut().map(|buffer| &mut **buffer));
        }
        if wanted.has(Detail::Origin) {
            // Why not is said where all buffers are asked for (`Options::details`).
            let each = rows.iter_mut().map(|buffer| &mut **buffer);
            let _ = self.origins.add(&self.options.pins, wanted, each);
        }
        if wanted.has(Detail::OpenFiles) {
            open_files::add(&self.root, processes, rows.into_iter());
        }
    }

    /// Reads the seals of a memfd that this scanner found, through the first holder that can be
    /// read. Does nothing if this could be noticed; see [`Buffer::seals`].
    pub fn ask_seals(&mut self, buffer: &mut Buffer) {
        let (Kind::Memfd, Some(dev), None) = (buffer.id.kind, buffer.id.dev, buffer.seals) else { return };
        let id = (dev, buffer.id.ino);
        let links = buffer.holders.iter().flat_map(|holder| {
            let fd = holder.fds.iter().chain(&holder.opaths).map(|fd| format!("fd/{fd}"));
            let map = holder.maps.iter().map(|map| map_files::link(map).as_str().to_owned());
            fd.chain(map).take(1).map(|link| (holder.pid, link))
        });
        let mut seals = links.filter_map(|(pid, link)| {
            let process = ProcessDir::open(&self.root, pid).ok()?;
            seals::ask(&self.root, &process, &link, id).ok()
        });
        buffer.seals = if self.root.is_live() { seals.next() } else { None };
    }

    /// Asks the flight recorder who made each buffer.
    fn ask_origins(&mut self, snapshot: &mut Snapshot) {
        let options = &self.options;
        let why = match self.origins.add(&options.pins, options.details, snapshot.buffers.iter_mut()) {
            Ok(true) => return snapshot.coverage.sources.push(Source::Origins),
            Ok(false) => return,
            Err(why) => why.to_string(),
        };
        snapshot.coverage.notes.push(Note::NoOrigins { why });
    }

    /// Finds out by the page frames of buffers who pays for them, if the iterators could not.
    fn ask_payers_by_pages(&self, coverage: &mut Coverage, buffers: &mut [Buffer]) {
        let is_it = |note: &Note| matches!(note, Note::NoPayers { .. });
        let Some(at) = coverage.notes.iter().position(is_it) else { return };
        match page_payers::add(&self.root, &self.options, buffers.iter_mut()) {
            Ok(()) => {
                coverage.notes[at] = Note::PayersByPages;
                coverage.sources.push(Source::Kpagecgroup);
            }
            Err(why_not) => {
                if let Note::NoPayers { why } = &mut coverage.notes[at] {
                    why.push_str("; ");
                    why.push_str(&why_not);
                }
            }
        }
    }

    /// Finds out who pays for a buffer by its page frames. Does nothing if that is known, or if it
    /// cannot be found out without an effect on the buffer; see [`Buffer::payers`].
    pub fn ask_payers(&self, buffer: &mut Buffer) {
        // Why not is said where payers were asked for (`Options::payers`).
        let _ = page_payers::add(&self.root, &self.options, std::iter::once(buffer));
    }

    /// Reads how much of the private mappings of a buffer are copies, which are the process's own
    /// memory. Does nothing for a buffer without private mappings. A process that cannot be read is
    /// left out, and so are one that makes the reader wait and all that come after it.
    pub fn ask_private_copies(&mut self, buffer: &mut Buffer) {
        let is_private = |map: &MapRef| map.perms.is_some_and(|perms| !perms.is_shared());
        let mut found = Vec::new();
        for holder in buffer.holders.iter().filter(|holder| holder.maps.iter().any(is_private)) {
            let (pid, maps) = (holder.pid, holder.maps.to_vec());
            let Ok(process) = ProcessDir::open(&self.root, pid) else { continue };
            match guard::guarded(self.options.deadline, move || smaps::copies(&process, &maps)) {
                Ok(Guarded { value: Ok(copies), .. }) => {
                    found.push(PrivateCopies::new(pid, copies.small, copies.huge));
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        buffer.private_copies = found.into();
    }

    fn failed(&self, failed: Failed) -> Error {
        match failed {
            Failed::CannotList(error) => self.cannot_list(error),
            Failed::Unreadable(errno) => Error::io(errno, "BPF iterators cannot be read".to_owned()),
            Failed::Stuck(_) => Error::io(Errno::TIMEDOUT, "reading waited for too long".to_owned()),
            Failed::Other(error) => error,
            Failed::NotWorthIt => Error::io(Errno::CANCELED, "reading the processes was given up".to_owned()),
        }
    }

    /// Loads the iterators, unless they are open already or may not be loaded.
    fn load_iterators(&mut self) {
        let iterators = std::mem::replace(&mut self.iterators, Iterating::No(NotUsed::NotRequested));
        self.iterators = iterators.loaded(&self.options);
    }

    /// Scans by BPF iterators. `None`: they cannot be used, and another source may be.
    fn by_iterators(&mut self) -> Result<Option<Found>, Error> {
        let mut found = self.ask_iterators();
        if let (Some(Err(Failed::Unreadable(error))), Iterating::Ready(iterators)) = (&found, &self.iterators)
            && iterators.origin().is_ok()
        {
            // The pins may have been replaced or removed since they were opened, or may not be
            // lsbuf's.
            let unread = Some(*error).filter(|&error| error != Errno::STALE);
            self.iterators = Iterating::pinned(&self.root, &self.options, unread).loaded(&self.options);
            found = self.ask_iterators();
        }
        match (found, self.options.sources.way) {
            (Some(Ok(found)), _) => Ok(Some(found)),
            (Some(Err(Failed::Stuck(_))), _) => self.instead_of_stuck_iterators().map(Some),
            (Some(Err(Failed::Unreadable(error))), way) if way != Way::Iterators => {
                self.iterators = Iterating::No(NotUsed::Unread(error));
                Ok(None)
            }
            (Some(Err(failed)), _) => Err(self.failed(failed)),
            (None, way) => match &self.iterators {
                Iterating::No(why) if way == Way::Iterators => Err(no_iterators(why)),
                _ => Ok(None),
            },
        }
    }

    /// Makes one scan by BPF iterators; `None`: they are not used.
    fn ask_iterators(&mut self) -> Option<Result<Found, Failed>> {
        let unasked = Iterating::No(NotUsed::NotRequested);
        match std::mem::replace(&mut self.iterators, unasked) {
            Iterating::Ready(iterators) => {
                let root = Arc::clone(&self.root);
                let source = IteratorSource::new(iterators, root, Arc::clone(&self.options));
                let (found, source) = Found::by(source, &self.options);
                // A helper that was killed had them open; they are not used again.
                self.iterators = match source {
                    Some(source) => Iterating::Ready(source.iterators()),
                    None => Iterating::No(NotUsed::Stuck),
                };
                Some(found)
            }
            others => {
                self.iterators = others;
                None
            }
        }
    }

    /// Scans by procfs because the iterators waited for too long, and adds a note that says so,
    /// with the processes that they may have waited for.
    fn instead_of_stuck_iterators(&mut self) -> Result<Found, Error> {
        let mut found = self.by_procfs()?;
        let processes = activity::changing_mappings(&self.root);
        found.outcome.seen.notes.push(Note::IteratorsStuck { processes });
        Ok(found)
    }

    /// Makes one scan by procfs, without a time budget.
    fn by_procfs(&mut self) -> Result<Found, Error> {
        self.ask_procfs(None).map_err(|failed| self.failed(failed))
    }

    /// Makes one scan by procfs. If a process makes it wait for too long, the scan begins again
    /// without that process's mappings.
    fn ask_procfs(&mut self, mut budget: Option<TimeBudget>) -> Result<Found, Failed> {
        let mut left_out = LeftOut::default();
        loop {
            let procfs = match self.procfs.take() {
                Some(procfs) => procfs,
                None => Box::new(Procfs::new(&self.root, &self.options).map_err(Failed::Other)?),
            };
            let (root, options) = (Arc::clone(&self.root), Arc::clone(&self.options));
            let source = ProcfsSource::new(procfs, root, options, budget.take(), left_out.clone());
            let (found, source) = Found::by(source, &self.options);
            // `None` if a helper that was killed had it.
            self.procfs = source.map(ProcfsSource::procfs);
            match found {
                Err(Failed::Stuck(pid)) => left_out.add(pid, &activity::changing_mappings(&self.root)),
                found => return found,
            }
        }
    }

    fn cannot_list(&self, error: std::io::Error) -> Error {
        Error::io(error, format!("cannot list the processes of {}", self.root.path().display()))
    }
}

/// A snapshot, and what only the account of `Shmem:` needs besides.
#[derive(Debug)]
struct Scanned {
    snapshot: Snapshot,
    /// What the kernel's lists say of the files that nobody holds; empty if they were not read.
    unheld: Vec<UnheldSum>,
    /// Buffers that only this process holds, if it was left out.
    only_own: Vec<Buffer>,
}

/// The result of a scan by either source.
#[derive(Debug)]
struct Found {
    outcome: Settled,
    /// The holders, ordered by pid.
    processes: Vec<Process>,
    /// Ordered by path.
    devices: Vec<Device>,
    unheld_files: Option<UnheldList>,
    /// Buffers that only this process holds, if it was left out.
    only_own: Vec<Buffer>,
}

/// As [`Limits::slow`].
const SLOW: Duration = Duration::from_millis(100);

impl Found {
    /// Reads until every residual is proven or another reading would not help. Returns the source
    /// too, unless it was lost with a helper that was killed.
    fn by<S: ReadingSource + 'static>(
        mut source: S,
        options: &Options,
    ) -> (Result<Found, Failed>, Option<S>) {
        let Options { readings, time, .. } = *options;
        let mut settling = Settling::new(Limits { readings, time, slow: SLOW });
        let mut effort = settling.effort();
        let mut unguarded = false;
        let mut outcome = loop {
            let reading = if source.may_wait(effort) {
                let read = move || {
                    let reading = source.read(effort);
                    (source, reading)
                };
                match guard::guarded(options.deadline, read) {
                    Ok(Guarded { value: (back, reading), unguarded: why }) => {
                        source = back;
                        unguarded |= why.is_some();
                        reading
                    }
                    Err(Stuck { pid, .. }) => return (Err(Failed::Stuck(pid)), None),
                }
            } else {
                source.read(effort)
            };
            let reading = match reading {
                Ok(reading) => reading,
                Err(failed) => return (Err(failed), Some(source)),
            };
            match settling.take(reading) {
                Step::Again(next, pause) => {
                    effort = next;
                    std::thread::sleep(pause);
                }
                Step::Done(outcome) => break *outcome,
            }
        };
        outcome.seen.notes.extend(unguarded.then_some(Note::NoDeadline));
        let holders = outcome.buffers.iter().flat_map(|buffer| &buffer.holders);
        let processes = source.identify(&holders.map(|holder| holder.pid).collect::<BTreeSet<Pid>>());
        let (devices, unheld_files) = (source.devices(), source.unheld(&outcome.buffers));
        (Ok(Found { devices, outcome, processes, unheld_files, only_own: Vec::new() }), Some(source))
    }

    /// Leaves out these processes.
    fn leave_out(&mut self, own: &[Pid]) {
        self.only_own = own_refs::leave_out(&mut self.outcome.buffers, own);
        own_refs::add_unheld(&mut self.outcome.unheld, &self.only_own);
        own_refs::leave_out_of_devices(&mut self.devices, own);
        let held_by = |pid| self.outcome.buffers.iter().flat_map(|b| &b.holders).any(|held| held.pid == pid);
        self.processes.retain(|process| !own.contains(&process.pid) || held_by(process.pid));
    }

    /// What was read, and what was not.
    fn coverage(&self) -> Coverage {
        notes::coverage(&self.outcome)
    }

    /// Whether no other source could give a better answer: everything was read, and every residual
    /// is exact.
    fn is_proven(&self) -> bool {
        let complete = self.coverage().is_complete();
        complete && self.outcome.buffers.iter().all(|buffer| buffer.residual.is_exact())
    }
}

fn no_iterators(why: &NotUsed) -> Error {
    Error::new(ErrorKind::NoSource, format!("BPF iterators cannot be used: {why}"))
}
