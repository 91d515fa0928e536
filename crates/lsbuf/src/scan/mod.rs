//! From questions to a [`Snapshot`]: picks a source, lets it read, and puts together what it read.
//!
//! | module | does |
//! |---|---|
//! | `reading` | what a source says after one reading, whatever source it is |
//! | `procfs`, `iterators` | the two sources |
//! | `assemble` | references are put together with the buffers that they are of |
//! | `settle` | whether what a count leaves over is exact, and whether another reading could mend it |
//! | `notes` | the outcome in words; no figure follows from them |
//!
//! What is proven, and by what, `settle` and docs/proof.md say; the limits stand there, too.

pub(crate) mod advice;
mod assemble;
#[cfg(feature = "bench")]
pub(crate) mod benching;
mod budget;
mod described;
mod dmabuf_identity;
mod doctor;
mod driver_shmem;
mod iterators;
mod kthreads;
mod lists;
mod notes;
mod options;
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

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustix::io::Errno;

use budget::TimeBudget;
pub use doctor::{Diagnosis, Refusal, SourceCheck, SourceState, Unread};
use iterators::{IteratorSource, Iterators, MissingIterator, NotUsed};
pub use options::{Mappings, Options, PINS, Sources, Way};
use procfs::{LeftOut, Procfs, ProcfsSource};
use reading::{Failed, ReadingSource};
pub(crate) use reconcile::reconcile;
use settle::{Limits, Settled, Settling, Step};

use crate::error::{Error, ErrorKind};
use crate::kernel::guard::{self, Guarded, Stuck};
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::{Filesystems, seals};
use crate::kernel::{activity, gem_info, map_files};
use crate::model::{Buffer, Coverage, Device, Kind, Note, Pid, Process, Snapshot};

/// Takes snapshots. From one to the next it keeps the dma-bufs' device, and which processes are kernel threads.
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
    /// Whether this is not the first scan.
    again: bool,
    /// `None` while a source has it.
    procfs: Option<Box<Procfs>>,
    filesystems: Option<Filesystems>,
}

/// What is done about the iterators.
#[derive(Debug)]
enum Iterating {
    Ready(Box<Iterators>),
    /// They are not loaded yet, which costs more than a small machine's procfs; and why those that are pinned are not used.
    MayLoad(MissingIterator),
    No(NotUsed),
}

impl Iterating {
    /// Those that are pinned, or what may be done instead.
    fn pinned(root: &ProcRoot, options: &Options, unread: Option<Errno>) -> Iterating {
        match iterators::pinned(root, options, unread) {
            Ok(Ok(iterators)) => Iterating::Ready(Box::new(iterators)),
            Ok(Err(missing)) if options.sources.load_bpf => Iterating::MayLoad(missing),
            Ok(Err(missing)) => Iterating::No(NotUsed::only_pinned(missing)),
            Err(why) => Iterating::No(why),
        }
    }

    /// The same, loaded if that may be done.
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
    /// Opens the procfs, and the iterators if they are asked for.
    ///
    /// # Errors
    /// If the procfs cannot be opened or is none; if the only source that may be asked is not there.
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
        Ok(Scanner { options, root, iterators, again: false, procfs, filesystems })
    }

    /// Whether the procfs lists a process of that id.
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
    /// If the processes cannot be listed, or iterators that alone may be used fail. What can only be read in part is part of
    /// the answer instead.
    pub fn scan(&mut self) -> Result<Snapshot, Error> {
        let begun = Instant::now();
        let taken_at = SystemTime::now();
        let found = self.find()?;
        let coverage = found.coverage();
        let Found { outcome: Settled { mut buffers, .. }, processes, devices } = found;
        let sys = self.options.sys_root.as_deref();
        if let Some(sys) = sys.filter(|_| self.options.sources.gem_handles) {
            let mut handles = gem_info::read_all(sys);
            for buffer in &mut buffers {
                buffer.handles = handles.remove(&buffer.id.ino).into_iter().flatten().collect();
            }
        }
        if self.options.sources.driver_shmem && self.root.has_own_pids() {
            driver_shmem::link(&self.root, &mut buffers);
        }
        let host = self.root.host();
        let kinds = self.options.kinds;
        let mut snapshot = Snapshot { taken_at, host, kinds, coverage, buffers, processes, devices };
        notes::add(&mut snapshot);
        snapshot.coverage.duration = begun.elapsed();
        Ok(snapshot)
    }

    /// Asks by the way that is chosen, or by the cheapest that gives the best answer. Who scans once more will do so many
    /// times, which is worth loading the iterators.
    fn find(&mut self) -> Result<Found, Error> {
        let mut second_best = None;
        if matches!(self.iterators, Iterating::MayLoad(_)) {
            // procfs never tells all of shmem.
            if !std::mem::replace(&mut self.again, true) && !self.options.kinds.has_shmem() {
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
        match (self.by_iterators()?, second_best) {
            (Some(found), _) | (None, Some(found)) => Ok(found),
            (None, None) => self.by_procfs(),
        }
    }

    /// Asks for the seals of a memfd that a scan of this scanner's found, unless asking would be noticed; see
    /// [`Buffer::seals`]. They are asked of its first holder that can be read.
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

    fn failed(&self, failed: Failed) -> Error {
        match failed {
            Failed::CannotList(error) => self.cannot_list(error),
            Failed::Unreadable(errno) => Error::io(errno, "BPF iterators cannot be read".to_owned()),
            Failed::Stuck(_) => Error::io(Errno::TIMEDOUT, "reading waited for too long".to_owned()),
            Failed::Other(error) => error,
            Failed::NotWorthIt => Error::io(Errno::CANCELED, "reading the processes was given up".to_owned()),
        }
    }

    /// Loads the iterators, if that may be done and has not been yet.
    fn load_iterators(&mut self) {
        let iterators = std::mem::replace(&mut self.iterators, Iterating::No(NotUsed::NotRequested));
        self.iterators = iterators.loaded(&self.options);
    }

    /// `None`: they cannot be used, and another way may be.
    fn by_iterators(&mut self) -> Result<Option<Found>, Error> {
        let mut found = self.ask_iterators();
        if let (Some(Err(Failed::Unreadable(error))), Iterating::Ready(iterators)) = (&found, &self.iterators)
            && iterators.origin().is_ok()
        {
            // They may have been replaced or removed meanwhile, or be none of ours.
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

    /// One scan by them; `None`: they are not used.
    fn ask_iterators(&mut self) -> Option<Result<Found, Failed>> {
        let unasked = Iterating::No(NotUsed::NotRequested);
        match std::mem::replace(&mut self.iterators, unasked) {
            Iterating::Ready(iterators) => {
                let root = Arc::clone(&self.root);
                let source =
                    IteratorSource::new(iterators, root, Arc::clone(&self.options), self.filesystems.clone());
                let (found, source) = Found::by(source, &self.options);
                // What a helper was killed over is not to be touched again.
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

    /// An answer by procfs, which says that it is one in their place, and for whom they waited as far as that shows.
    fn instead_of_stuck_iterators(&mut self) -> Result<Found, Error> {
        let mut found = self.by_procfs()?;
        let processes = activity::changing_mappings(&self.root);
        found.outcome.seen.notes.push(Note::IteratorsStuck { processes });
        Ok(found)
    }

    /// One scan by procfs, however many processes there are.
    fn by_procfs(&mut self) -> Result<Found, Error> {
        self.ask_procfs(None).map_err(|failed| self.failed(failed))
    }

    /// One scan by procfs. Who makes it wait for too long is left out, and then it begins anew.
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
            // As above: if there is none, it was lost to a helper that was killed.
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

/// What a scan came to by either source.
#[derive(Debug)]
struct Found {
    outcome: Settled,
    /// Those that hold a buffer, ordered by pid.
    processes: Vec<Process>,
    /// Ordered by path.
    devices: Vec<Device>,
}

impl Found {
    /// Reads until what counts leave over is proven, or not worth another reading. The source comes back unless it was lost.
    fn by<S: ReadingSource + 'static>(
        mut source: S,
        options: &Options,
    ) -> (Result<Found, Failed>, Option<S>) {
        let mut settling = Settling::new(Limits { readings: options.readings, time: options.time });
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
        (Ok(Found { devices: source.devices(), outcome, processes }), Some(source))
    }

    /// How much of the machine it speaks of.
    fn coverage(&self) -> Coverage {
        notes::coverage(&self.outcome)
    }

    /// Whether no other source could tell more: everything was seen, and every residual is proven.
    fn is_proven(&self) -> bool {
        let complete = self.coverage().is_complete();
        complete && self.outcome.buffers.iter().all(|buffer| buffer.residual.is_exact())
    }
}

fn no_iterators(why: &NotUsed) -> Error {
    Error::new(ErrorKind::NoSource, format!("BPF iterators cannot be used: {why}"))
}
