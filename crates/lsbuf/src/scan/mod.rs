//! From questions to a [`Snapshot`]: picks the sources, joins their facts, repeats what raced, states coverage.
//!
//! A scan is one or more rounds. A round reads the kernel's list, walks every process, and reads the list again. It is
//! settled when no buffer's count moved meanwhile, none has more references than the kernel counts, and for each buffer
//! of which references are left over
//! - the rounds before found the same: a reference that is handed from a process not yet read to one already read leaves
//!   every count as it was, and would look like the kernel's;
//! - no process was exiting: what it held is out of sight before it is released;
//! - at least one round was calm: no process was started, for a child born after the last look at the list of processes, in
//!   place of one that had gone before the first, leaves every count as it was, too; and no fd was closed while its table
//!   was read, for it may have moved to a slot that was read before.
//!
//! After [`Options::rounds`] rounds the last one is the answer, and what is not settled is marked an estimate.
//!
//! Limits: a reference that is sent on over a socket so that the first two rounds both miss it, with a count that stands
//! still, is taken for the kernel's; so is one in a message whose sender waits for room in the queue.

mod advice;
mod doctor;
mod join;
mod proof;
mod shared;
mod visit;
mod walk;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

pub use doctor::{Diagnosis, Probe, ProbeState};
use shared::Shared;

use crate::error::Error;
use crate::kernel::bufinfo::{self, List};
use crate::kernel::devices;
use crate::kernel::elsewhere::Elsewhere;
use crate::kernel::gem_info;
use crate::kernel::pending;
use crate::kernel::read::Buffers;
use crate::kernel::root::{Births, ProcRoot};
use crate::kernel::sharing::Sharing;
use crate::model::{Account, Buffer, Coverage, Dev, KeptElsewhere, Note, Pid, Snapshot, Source};

/// How mappings are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mappings {
    /// The text of `/proc/P/maps`.
    #[default]
    Maps,
    /// The links of `/proc/P/map_files`; needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
    MapFiles,
}

/// Which sources are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// How the processes' mappings are read.
    pub mappings: Mappings,
    /// Read the kernel's own list (debugfs `bufinfo`).
    pub kernel_list: bool,
    /// Read which GEM handles stand for a buffer, where a driver's debugfs lists them (amdgpu). Takes every client's lock.
    pub gem_handles: bool,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources { mappings: Mappings::Maps, kernel_list: true, gem_handles: false }
    }
}

/// What to scan and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The procfs, or a recorded tree of one.
    pub proc_root: PathBuf,
    /// The sysfs with debugfs in it; `None`: there is none that belongs to this procfs.
    pub sys_root: Option<PathBuf>,
    /// Which sources are asked.
    pub sources: Sources,
    /// How many rounds may be made; at least one is. With only one, references left over are always an estimate.
    pub rounds: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            proc_root: "/proc".into(),
            sys_root: Some("/sys".into()),
            sources: Sources::default(),
            rounds: 3,
        }
    }
}

/// Takes snapshots; keeps its buffers from one to the next.
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
    sharing: Sharing,
    /// Whether this kernel counts fds in connections that nobody has accepted, once that was tried.
    pending_counted: Option<bool>,
    /// The dma-buf filesystem's device, once it is known: it is the same for the whole boot.
    dev: Option<Dev>,
    buffers: Buffers,
}

/// The kernel's list, or why there is none.
type Listing = Result<List, String>;

/// A list, and how many processes had been started just before and just after it was read.
#[derive(Debug)]
struct Listed {
    births: (Option<Births>, Option<Births>),
    list: Listing,
}

impl Scanner {
    /// Opens the procfs.
    ///
    /// # Errors
    /// If it cannot be opened or is none.
    pub fn new(options: Options) -> Result<Scanner, Error> {
        let root = ProcRoot::open(&options.proc_root)?;
        let sharing = Sharing::of(&root);
        Ok(Scanner { options, root, sharing, pending_counted: None, dev: None, buffers: Buffers::default() })
    }

    /// Whether the procfs lists a process of that id.
    ///
    /// # Errors
    /// If the processes cannot be listed.
    pub fn has_process(&mut self, pid: Pid) -> Result<bool, Error> {
        self.root.has_process(pid, &mut self.buffers).map_err(|e| self.cannot_list(e))
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// If the processes cannot be listed. What can only be read in part is part of the answer instead.
    pub fn scan(&mut self) -> Result<Snapshot, Error> {
        let begun = Instant::now();
        let taken_at = SystemTime::now();
        let mut before = self.kernel_list();
        let mut earlier = Vec::new();
        let (mut round, mut calm) = (0, false);
        loop {
            round += 1;
            let walk = self.walk(before.list.as_ref().ok())?;
            let after = self.kernel_list();
            calm |= !walk.restless && before.births.0.is_some() && before.births.0 == after.births.1;
            let shared = Shared::of(&walk, &self.sharing, &self.root);
            let mut buffers = join::join(&walk, &shared, before.list.as_ref().ok(), after.list.as_ref().ok());
            let mut coverage = self.coverage(&walk, &after.list);
            if coverage.saw_every_process() && buffers.iter().any(join::has_rest) {
                coverage
                    .notes
                    .extend((walk.exiting > 0).then_some(Note::Exiting { processes: walk.exiting }));
                coverage.notes.extend((!calm).then_some(Note::Busy));
            }
            let settled = join::settle(&mut buffers, &earlier, &coverage);
            if settled || round >= self.options.rounds {
                let processes = walk.holders_of(&buffers);
                let host = self.root.host();
                let sys = self.options.sys_root.as_deref();
                if let Some(sys) = sys.filter(|_| self.options.sources.gem_handles) {
                    let mut handles = gem_info::read_all(sys, &mut self.buffers);
                    for buffer in &mut buffers {
                        buffer.handles = handles.remove(&buffer.id.ino).into_iter().flatten().collect();
                    }
                }
                let devices = walk.devices(|node| devices::name(sys?, node));
                let mut snapshot = Snapshot { taken_at, host, coverage, buffers, processes, devices };
                note_doubts(&mut snapshot);
                snapshot.coverage.duration = begun.elapsed();
                return Ok(snapshot);
            }
            before = after;
            earlier.push(buffers);
        }
    }

    fn walk(&mut self, listed: Option<&List>) -> Result<walk::Walk, Error> {
        // Where the list shows no buffer at all, no account can lack anything.
        let look_elsewhere = listed.is_none_or(|list| !list.buffers.is_empty());
        let mappings = self.options.sources.mappings;
        let (sharing, dev) = (&self.sharing, self.dev);
        let mut walk = walk::Walk::of(&self.root, mappings, sharing, look_elsewhere, dev, &mut self.buffers)
            .map_err(|e| self.cannot_list(e))?;
        self.dev = walk.proof.dev();
        if let Some(elsewhere) = walk.elsewhere.as_mut().filter(|_| self.root.is_live()) {
            let counted = *self.pending_counted.get_or_insert_with(|| pending::are_counted(&self.root));
            elsewhere.unknown |= !counted && pending::are_there(&self.root, &mut self.buffers.text);
        }
        if listed.is_none() {
            walk.recheck(&self.root, &mut self.buffers);
        }
        Ok(walk)
    }

    fn cannot_list(&self, error: std::io::Error) -> Error {
        Error::io(error, format!("cannot list the processes of {}", self.root.path().display()))
    }

    fn kernel_list(&mut self) -> Listed {
        let begin = self.root.births();
        let list = self.read_list();
        Listed { births: (begin, self.root.births()), list }
    }

    fn read_list(&mut self) -> Listing {
        if !self.options.sources.kernel_list {
            return Err("it was not asked for".into());
        }
        let Some(sys) = &self.options.sys_root else { return Err("no sysfs goes with this procfs".into()) };
        bufinfo::read_list(sys, &mut self.buffers.text)
            .map_err(|e| format!("{}: {}", sys.join(bufinfo::PATH).display(), std::io::Error::from(e)))
    }

    fn coverage(&self, walk: &walk::Walk, list: &Listing) -> Coverage {
        let mappings = match self.options.sources.mappings {
            Mappings::Maps => Source::Maps,
            Mappings::MapFiles => Source::MapFiles,
        };
        let mut sources = vec![Source::Fd, Source::Fdinfo, mappings];
        let mut notes = walk.notes();
        if !self.root.shows_kernel_threads() {
            notes.push(Note::NotWholeMachine);
        }
        match list {
            Ok(list) => {
                sources.push(Source::Bufinfo);
                if !list.agrees() {
                    let stated = list.stated.map_or(0, |(buffers, _)| buffers);
                    notes.push(Note::ListContradicts { rows: list.buffers.len() as u64, stated });
                }
            }
            Err(why) => notes.push(Note::NoKernelList { why: why.clone() }),
        }
        let kept = walk.elsewhere.as_ref().map(Elsewhere::kept);
        let unreadable = walk.unreadable.clone();
        Coverage { sources, processes: walk.counts, unreadable, notes, kept, duration: Duration::ZERO }
    }
}

/// Adds the notes that follow from the joined answer.
fn note_doubts(snapshot: &mut Snapshot) {
    let accounts = Account::of_each(snapshot);
    let count = |doubtful: fn(&Buffer, &Account) -> bool| {
        snapshot.buffers.iter().zip(&accounts).filter(|(b, a)| doubtful(b, a)).count() as u64
    };
    let unsteady = count(|b, _| b.count.is_some() && !b.steady);
    let overcounted = count(|_, a| a.kernel.is_none() && a.estimate);
    let unattributed =
        count(|b, a| b.steady && a.kernel > Some(0) && (a.in_flight.is_none() || a.io_uring.is_none()));
    let uncompared = count(|b, _| b.uncompared);
    let unheld = count(|b, _| b.holders.is_empty());
    let unheld_size = snapshot.buffers.iter().filter(|b| b.holders.is_empty()).filter_map(|b| b.size).sum();
    let saw_every_process = snapshot.coverage.saw_every_process();
    let notes = &mut snapshot.coverage.notes;
    if unsteady > 0 {
        notes.push(Note::Unsteady { buffers: unsteady });
    }
    if overcounted > 0 {
        notes.push(Note::Overcounted { buffers: overcounted });
    }
    if uncompared > 0 {
        notes.push(Note::Uncompared { buffers: uncompared });
    }
    if let Some(kept) =
        snapshot.coverage.kept.filter(|kept| unattributed > 0 && *kept != KeptElsewhere::default())
    {
        notes.push(Note::MaybeElsewhere { buffers: unattributed, kept });
    }
    if unheld > 0 && !saw_every_process {
        notes.push(Note::Unexplained { buffers: unheld, size: unheld_size });
    }
}
