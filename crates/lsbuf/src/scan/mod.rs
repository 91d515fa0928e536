//! From questions to a [`Snapshot`]: picks the sources, joins their facts, repeats what raced, states coverage.
//!
//! A scan is one or more rounds. A round reads the kernel's list, walks every process, and reads the list again. It is
//! settled when no buffer's count moved meanwhile, none has more references than the kernel counts, and for each buffer
//! of which references are left over
//! - the rounds before, some time ago, found the same: a reference that is handed from a process not yet read to one already
//!   read leaves every count as it was, and would look like the kernel's;
//! - no holder was forking: it has copied its references long before the child shows (`forks`);
//! - no process was exiting: what it held is out of sight before it is released;
//! - at least one round was calm: no process was started, for a child born after the last look at the list of processes, in
//!   place of one that had gone before the first, leaves every count as it was, too; no fd was closed while its table was
//!   read, for it may have moved to a slot that was read before; and nobody was exiting, in whose place such a child may
//!   hold as much.
//!
//! After [`Options::rounds`] rounds the last one is the answer, and what is not settled is marked an estimate.
//!
//! By procfs the first round passes over what is seldom there and dear to look for: sockets' and rings' fdinfo and, where the
//! kernel answers queries for mappings (`kernel::procmap`), private ones: few exporters allow them and nobody needs them,
//! while all of a process's libraries are mapped so. A reference that is missed leaves its buffer with a rest, and then the
//! rounds that follow look at everything, before the rest is called the kernel's. Where no list vouches that each buffer's
//! count is known, and in the last round, everything is looked at in any case.
//!
//! Limits: a reference that is sent on over a socket so that the first two rounds both miss it, with a count that stands
//! still, is taken for the kernel's; so is one in a message whose sender waits for room in the queue, and that of a
//! child that is being forked while another thread of its parent's gives up the parent's own.

pub(crate) mod advice;
#[cfg(feature = "bench")]
pub(crate) mod benching;
mod disguises;
mod doctor;
mod doubts;
mod forks;
mod iterators;
mod join;
mod kthreads;
mod patience;
mod procfs;
mod proof;
mod reconcile;
mod settle;
mod shared;
mod shmem;
mod space;
mod walk;
mod words;

use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use rustix::io::Errno;

pub use doctor::{Diagnosis, Probe, ProbeState, Refusal, Unread};
use iterators::{Iterators, Lack, NotUsed};
use patience::Patience;
use procfs::Procfs;
pub(crate) use reconcile::reconcile;
use walk::Halt;

use crate::error::{Error, ErrorKind};
use crate::kernel::bufinfo::{self, List};
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::seals;
use crate::kernel::{gem_info, map_files};
use crate::model::{Buffer, Coverage, Device, Kind, Kinds, Note, Pid, Process, Snapshot};

/// How mappings are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mappings {
    /// The cheapest that the kernel has: queries, or else the text.
    #[default]
    Procfs,
    /// Queries (PROCMAP_QUERY, Linux 6.11 and later), which do not print what is no dma-buf's.
    Procmap,
    /// The text of `/proc/P/maps`.
    Maps,
    /// The links of `/proc/P/map_files`; needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
    MapFiles,
}

/// By which way references are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// The BPF iterators if they are pinned; else procfs, unless loading them costs less or they could tell more. From the
    /// second scan of a scanner on they are loaded in any case, where that can be done.
    #[default]
    Auto,
    /// The BPF iterators or no answer: those that are pinned, or else loaded for the purpose.
    Iterators,
    /// procfs alone.
    Procfs,
}

/// Which sources are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// By which way.
    pub way: Way,
    /// How the processes' mappings are read.
    pub mappings: Mappings,
    /// Read the kernel's own list (debugfs `bufinfo`), where nothing better lists the buffers.
    pub kernel_list: bool,
    /// Read which GEM handles stand for a buffer, where a driver's debugfs lists them (amdgpu). Takes every client's lock.
    pub gem_handles: bool,
    /// Find out which driver's shmem is a dma-buf's memory, where such shmem is mapped: each dma-buf that could be it is mapped
    /// for a moment, without being accessed, which raises its count by one while it lasts.
    pub disguises: bool,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources {
            way: Way::Auto,
            mappings: Mappings::default(),
            kernel_list: true,
            gem_handles: false,
            disguises: false,
        }
    }
}

/// Where iterators are pinned unless somebody says otherwise. Not below `/sys/fs/bpf`, which systemd mounts so that only root
/// can enter it.
pub const PINS: &str = "/run/lsbuf";

/// What to scan and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The procfs, or a recorded tree of one.
    pub proc_root: PathBuf,
    /// The sysfs with debugfs in it; `None`: there is none that belongs to this procfs.
    pub sys_root: Option<PathBuf>,
    /// Which sources are asked.
    pub sources: Sources,
    /// Which kinds of buffer are looked for. Dma-bufs alone cost less than any other kind.
    pub kinds: Kinds,
    /// How many rounds may be made; at least one is, and a few more by iterators if none is calm. With only one, references
    /// left over are always an estimate.
    pub rounds: u32,
    /// Where iterators may be pinned: a folder of a bpf filesystem (see [`probes`](crate::probes)).
    pub pins: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            proc_root: "/proc".into(),
            sys_root: Some("/sys".into()),
            sources: Sources::default(),
            kinds: Kinds::ALL,
            rounds: 3,
            pins: PINS.into(),
        }
    }
}

/// Takes snapshots. From one to the next it keeps its buffers, the dma-bufs' device, and which processes are kernel threads.
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
    options: Options,
    root: ProcRoot,
    iterators: Iterating,
    /// Whether this is not the first scan.
    again: bool,
    procfs: Procfs,
}

/// The kernel's list, or why there is none.
type Listing = Result<List, String>;

/// What is done about the iterators.
#[derive(Debug)]
enum Iterating {
    Ready(Box<Iterators>),
    /// They are not loaded yet, which costs more than a small machine's procfs; and why those that are pinned are not used.
    MayLoad(Lack),
    No(NotUsed),
}

impl Iterating {
    /// Those that are pinned, or what may be done instead.
    fn pinned(root: &ProcRoot, options: &Options, unread: Option<Errno>) -> Iterating {
        match iterators::pinned(root, options, unread) {
            Ok(Ok(iterators)) => Iterating::Ready(Box::new(iterators)),
            Ok(Err(lack)) => Iterating::MayLoad(lack),
            Err(why) => Iterating::No(why),
        }
    }

    /// The same, loaded if that may be done.
    fn loaded(self, options: &Options) -> Iterating {
        match self {
            Iterating::MayLoad(lack) => match iterators::load(options, lack) {
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
            Way::Procfs => Iterating::No(NotUsed::Unasked),
            Way::Auto => Iterating::pinned(&root, &options, None),
            Way::Iterators => Iterating::pinned(&root, &options, None).loaded(&options),
        };
        if let (Way::Iterators, Iterating::No(why)) = (options.sources.way, &iterators) {
            return Err(no_iterators(why));
        }
        Ok(Scanner { options, root, iterators, again: false, procfs })
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
        let Found { coverage, mut buffers, processes, devices } = self.find()?;
        let sys = self.options.sys_root.as_deref();
        if let Some(sys) = sys.filter(|_| self.options.sources.gem_handles) {
            let mut handles = gem_info::read_all(sys);
            for buffer in &mut buffers {
                buffer.handles = handles.remove(&buffer.id.ino).into_iter().flatten().collect();
            }
        }
        if self.options.sources.disguises && self.root.has_own_pids() {
            disguises::unmask(&self.root, &mut buffers);
        }
        let host = self.root.host();
        let kinds = self.options.kinds;
        let mut snapshot = Snapshot { taken_at, host, kinds, coverage, buffers, processes, devices };
        doubts::note(&mut snapshot);
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
                let patience = Patience::new(&self.root);
                match self.procfs.scan(&self.root, &self.options, Some(&patience)) {
                    Ok(found) if found.is_beyond_doubt() => return Ok(found),
                    Ok(found) => second_best = Some(found),
                    Err(Halt::NotWorthIt) => {}
                    Err(halt) => return Err(self.halted(halt)),
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

    fn halted(&self, halt: Halt) -> Error {
        match halt {
            Halt::CannotList(error) => self.cannot_list(error),
            Halt::NotWorthIt => Error::io(Errno::CANCELED, "reading the processes was given up".to_owned()),
        }
    }

    /// Loads the iterators, if that may be done and has not been yet.
    fn load_iterators(&mut self) {
        let iterators = std::mem::replace(&mut self.iterators, Iterating::No(NotUsed::Unasked));
        self.iterators = iterators.loaded(&self.options);
    }

    /// `None`: they cannot be used, and another way may be.
    fn by_iterators(&mut self) -> Result<Option<Found>, Error> {
        let mut found = self.ask_iterators();
        if let (Some(Err(error)), Iterating::Ready(iterators)) = (&found, &self.iterators)
            && iterators.origin().is_ok()
        {
            // They may have been replaced or removed meanwhile, or be none of ours.
            let unread = Some(*error).filter(|&error| error != Errno::STALE);
            self.iterators = Iterating::pinned(&self.root, &self.options, unread).loaded(&self.options);
            found = self.ask_iterators();
        }
        match (found, self.options.sources.way) {
            (Some(Ok(found)), _) => Ok(Some(found)),
            (Some(Err(error)), Way::Iterators) => {
                Err(Error::io(error, "BPF iterators cannot be read".to_owned()))
            }
            (Some(Err(error)), _) => {
                self.iterators = Iterating::No(NotUsed::Unread(error));
                Ok(None)
            }
            (None, way) => match &self.iterators {
                Iterating::No(why) if way == Way::Iterators => Err(no_iterators(why)),
                _ => Ok(None),
            },
        }
    }

    /// One scan by them; `None`: they are not used.
    fn ask_iterators(&mut self) -> Option<Result<Found, Errno>> {
        let Iterating::Ready(iterators) = &mut self.iterators else { return None };
        Some(iterators.scan(&self.root, &self.options, self.procfs.filesystems()))
    }

    /// One scan by procfs, however long it takes.
    fn by_procfs(&mut self) -> Result<Found, Error> {
        let found = self.procfs.scan(&self.root, &self.options, None);
        found.map_err(|halt| self.halted(halt))
    }

    fn cannot_list(&self, error: std::io::Error) -> Error {
        Error::io(error, format!("cannot list the processes of {}", self.root.path().display()))
    }
}

/// What a scan came to by either way; the rest is the same for both.
#[derive(Debug)]
struct Found {
    coverage: Coverage,
    /// Ordered by identity.
    buffers: Vec<Buffer>,
    /// Those that hold one, ordered by pid.
    processes: Vec<Process>,
    /// Ordered by path.
    devices: Vec<Device>,
}

impl Found {
    /// Whether no other way could tell more: every process was seen, and what each buffer's count is made of.
    fn is_beyond_doubt(&self) -> bool {
        let told = |buffer: &Buffer| {
            let attributed = buffer.in_flight.is_some() && buffer.io_uring.is_some();
            buffer.steady && !buffer.uncompared && (attributed || !settle::has_rest(buffer))
        };
        self.coverage.is_complete() && self.coverage.saw_every_process() && self.buffers.iter().all(told)
    }
}

fn no_iterators(why: &NotUsed) -> Error {
    Error::new(ErrorKind::NoSource, format!("BPF iterators cannot be used: {why}"))
}

/// The kernel's list, if it is asked for.
fn read_list(options: &Options) -> Listing {
    if !options.sources.kernel_list || !options.kinds.has(Kind::DmaBuf) {
        return Err("it was not asked for".into());
    }
    let Some(sys) = &options.sys_root else { return Err("no sysfs goes with this procfs".into()) };
    bufinfo::read_list(sys)
        .map_err(|e| format!("{}: {}", sys.join(bufinfo::PATH).display(), std::io::Error::from(e)))
}

/// What is wrong with a list in itself.
fn contradiction(list: &List) -> Option<Note> {
    let stated = list.stated.map_or(0, |(buffers, _)| buffers);
    (!list.agrees()).then_some(Note::ListContradicts { rows: list.buffers.len() as u64, stated })
}
