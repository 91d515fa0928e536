//! What a pass over the processes starts from, and what it finds.
//!
//! `walk` and `visit` fill these lists, and `procfs::objects` makes a reading of them.
//!
//! Limits: a mapping is only known to be a dma-buf's once the pass has learnt which device the
//! dma-buf filesystem has; so mappings are kept here until the pass is over.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::RandomState;
use std::io;

use crate::kernel::fds::{FdFact, FdReader, FdTable};
use crate::kernel::hidden_refs::HiddenRefCounter;
use crate::kernel::maps::{MapFact, MapsReader};
use crate::kernel::procmap::Queries;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::{Filesystems, ShmFd, ShmMap, ShmemFinder, ShmemNumber};
use crate::model::{
    Dev, Device, DeviceClass, DeviceHolder, Fd, Gaps, Inode, Kinds, Label, Pid, Process, ProcessCounts,
    Source, Tid,
};
use crate::scan::budget::TimeBudget;
use crate::scan::dmabuf_identity::{DmaBufIdentity, IsDmaBuf};
use crate::scan::space::Reader;

/// An fd that was proven to be a dma-buf's.
#[derive(Debug)]
pub(in crate::scan) struct HeldFd {
    pub(in crate::scan) pid: Pid,
    /// The thread whose own table it is in; `None`: it is in the process's.
    pub(in crate::scan) thread: Option<Tid>,
    pub(in crate::scan) ino: Inode,
    pub(in crate::scan) fact: FdFact,
}

/// A mapping that looks like a dma-buf's. After the pass, [`DmaBufIdentity::is_dmabuf_device`]
/// decides.
#[derive(Debug)]
pub(in crate::scan) struct HeldMap {
    pub(in crate::scan) pid: Pid,
    pub(in crate::scan) fact: MapFact,
}

/// An fd of a device node.
#[derive(Debug)]
pub(in crate::scan) struct HeldDevice {
    pub(in crate::scan) pid: Pid,
    pub(in crate::scan) fd: Fd,
    pub(in crate::scan) class: DeviceClass,
    pub(in crate::scan) path: Label,
}

/// An fd of shared memory. There may be millions of them.
#[derive(Debug)]
pub(in crate::scan) struct HeldShmFd {
    /// A number of [`Walk::tables`].
    pub(in crate::scan) table: u32,
    pub(in crate::scan) fact: ShmFd,
}

/// A mapping of shared memory.
#[derive(Debug)]
pub(in crate::scan) struct HeldShmMap {
    pub(in crate::scan) pid: Pid,
    pub(in crate::scan) fact: ShmMap,
}

/// What a pass starts from.
#[allow(missing_debug_implementations)]
pub(in crate::scan) struct Start<'s> {
    pub(in crate::scan) root: &'s ProcRoot,
    pub(in crate::scan) reader: Reader,
    pub(in crate::scan) queries: Option<Queries>,
    /// The device number of the dma-buf filesystem, if it is known already.
    pub(in crate::scan) dev: Option<Dev>,
    /// Whether to look for references that are in no fd table and no address space.
    pub(in crate::scan) count_hidden: bool,
    /// The filesystems of shared memory and the wanted kinds; `None`: no shared memory is looked
    /// for.
    pub(in crate::scan) shmem_kinds: Option<(&'s Filesystems, Kinds)>,
    /// When to give up; `None`: never.
    pub(in crate::scan) budget: Option<&'s TimeBudget>,
    /// Whether a process's mappings are left out.
    pub(in crate::scan) left_out: &'s dyn Fn(Pid) -> bool,
    /// Helper processes of this scan, which are left out.
    pub(in crate::scan) helpers: &'s [Pid],
    /// The listed processes, each with the inode number of its directory.
    pub(in crate::scan) listed: &'s [(Pid, u64)],
}

/// Why there is no walk.
#[derive(Debug)]
pub(in crate::scan) enum WalkError {
    /// The processes cannot be listed.
    CannotList(io::Error),
    /// It would take too long, or its residuals would be estimates where another source may prove
    /// them.
    NotWorthIt,
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> WalkError {
        WalkError::CannotList(error)
    }
}

/// What one pass found.
#[derive(Debug, Default)]
pub(in crate::scan) struct Walk {
    pub(in crate::scan) fds: Vec<HeldFd>,
    pub(in crate::scan) maps: Vec<HeldMap>,
    pub(in crate::scan) devices: Vec<HeldDevice>,
    pub(in crate::scan) shm_fds: Vec<HeldShmFd>,
    /// The tables with fds of shared memory, in the order in which they were read.
    pub(in crate::scan) tables: Vec<TableOwner>,
    pub(in crate::scan) shm_maps: Vec<HeldShmMap>,
    /// Processes that run a program from a buffer of shared memory.
    pub(in crate::scan) programs: Vec<(Pid, ShmemNumber)>,
    /// Processes whose mappings were left out.
    pub(in crate::scan) stuck: Vec<Pid>,
    /// The processes of the last listing.
    pub(in crate::scan) listed: Vec<(Pid, u64)>,
    /// Kernel threads. They hold no buffer.
    pub(in crate::scan) kernel_threads: BTreeSet<Pid>,
    /// How many fds of sync_files each process has.
    pub(in crate::scan) sync_files: BTreeMap<Pid, u64>,
    /// What finds shared memory; `None`: none is looked for.
    pub(in crate::scan) shmem_finder: Option<ShmemFinder>,
    pub(in crate::scan) identity: DmaBufIdentity,
    /// Dma-bufs whose names are known from one of their references.
    pub(in crate::scan) named: HashSet<Inode>,
    /// Processes that may hold something, ordered by pid.
    pub(in crate::scan) processes: Vec<Process>,
    pub(in crate::scan) counts: ProcessCounts,
    /// Processes of which some part could not be read, ordered by pid.
    pub(in crate::scan) unreadable: Vec<Pid>,
    /// Counts that were read a second time.
    pub(in crate::scan) rechecked: BTreeMap<Inode, u64>,
    /// References in sockets and io_urings; `None`: not looked for.
    pub(in crate::scan) hidden: Option<HiddenRefCounter>,
    /// An fd table changed while it was read: an fd may have moved to an entry that was read
    /// before.
    pub(in crate::scan) table_changed: bool,
    /// How many tasks were exiting: their references are in no table any more, and may still be
    /// counted.
    pub(in crate::scan) exiting: u64,
    /// Processes with a thread that may have an fd table of its own; comparing the tables failed.
    pub(in crate::scan) uncompared: HashSet<Pid>,
    /// `O_PATH` fds that cannot be judged until the dma-buf filesystem's mount is known. Process
    /// and thread as in [`HeldFd`].
    pub(in crate::scan) paths: Vec<(Pid, Option<Tid>, FdFact)>,
    /// Makes digests of tables and address spaces.
    pub(in crate::scan) hasher: RandomState,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(in crate::scan) unproven: u64,
    /// Readers of fd tables and address spaces, with their scratch memory.
    pub(super) fd_reader: FdReader,
    pub(super) maps_reader: MapsReader,
    /// Scratch memory for one fd table.
    pub(in crate::scan) table: FdTable,
    /// New processes that were listed last and not read.
    pub(super) new_processes: u64,
    pub(super) malformed: BTreeMap<Source, u64>,
}

impl Walk {
    /// Whether a mapping is a dma-buf's, by everything that the pass has learnt.
    pub(in crate::scan) fn is_dmabuf(&self, map: &HeldMap) -> bool {
        self.identity.is_dmabuf_device(map.fact.dev) == IsDmaBuf::Yes
    }

    /// Those of these processes that were read, and all that have sync_files.
    pub(in crate::scan) fn describe(&self, pids: &BTreeSet<Pid>) -> Vec<Process> {
        let counted = |process: &Process| Process {
            sync_files: Some(self.sync_files.get(&process.pid).copied().unwrap_or(0)),
            ..process.clone()
        };
        let asked = |p: &&Process| pids.contains(&p.pid) || self.sync_files.contains_key(&p.pid);
        self.processes.iter().filter(asked).map(counted).collect()
    }

    /// The open device nodes. `name` gives the name of the device behind a node.
    pub(in crate::scan) fn devices(&self, name: impl Fn(&Label) -> Option<Label>) -> Vec<Device> {
        let comm = |pid| {
            let at = self.processes.binary_search_by_key(&pid, |p| p.pid).ok()?;
            Some(self.processes[at].comm.clone())
        };
        let held = self.devices.iter().map(|held| (&held.path, held.class, held.pid, held.fd));
        by_node(held, comm, name)
    }

    /// Drops all facts about a process.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.fds.retain(|held| held.pid != pid);
        self.maps.retain(|held| held.pid != pid);
        self.devices.retain(|held| held.pid != pid);
        self.shm_fds.retain(|held| self.tables[held.table as usize].0 != pid);
        self.shm_maps.retain(|held| held.pid != pid);
        self.programs.retain(|(runs, _)| *runs != pid);
        self.sync_files.remove(&pid);
        self.paths.retain(|(holder, ..)| *holder != pid);
        self.processes.retain(|process| process.pid != pid);
        self.uncompared.remove(&pid);
    }

    /// Frees the fds and mappings of buffers. A reading has been made of them.
    pub(in crate::scan) fn forget_references(&mut self) {
        (self.fds, self.maps) = (Vec::new(), Vec::new());
        (self.shm_fds, self.shm_maps) = (Vec::new(), Vec::new());
        self.tables = Vec::new();
        self.table = FdTable::default();
    }

    /// What could not be read or decided.
    pub(in crate::scan) fn gaps(&self) -> Gaps {
        let undecided = |map: &&HeldMap| self.identity.is_dmabuf_device(map.fact.dev) == IsDmaBuf::Unknown;
        Gaps {
            denied: self.denied,
            failed: self.failed,
            stuck: self.stuck.clone(),
            new_processes: self.new_processes,
            malformed: self.malformed.clone(),
            unproven: self.unproven + self.maps.iter().filter(undecided).count() as u64,
            ..Gaps::default()
        }
    }

    pub(in crate::scan) fn count_malformed(&mut self, source: Source, facts: u64) {
        if facts > 0 {
            *self.malformed.entry(source).or_default() += facts;
        }
    }
}

/// Each open device node with all of its holders, ordered by path.
pub(in crate::scan) fn by_node<'n>(
    held: impl Iterator<Item = (&'n Label, DeviceClass, Pid, Fd)>,
    comm: impl Fn(Pid) -> Option<Label>,
    name: impl Fn(&Label) -> Option<Label>,
) -> Vec<Device> {
    let mut nodes: BTreeMap<&Label, (DeviceClass, BTreeMap<Pid, Vec<Fd>>)> = BTreeMap::new();
    for (path, class, pid, fd) in held {
        let (_, holders) = nodes.entry(path).or_insert_with(|| (class, BTreeMap::new()));
        holders.entry(pid).or_default().push(fd);
    }
    let holder = |(pid, mut fds): (Pid, Vec<Fd>)| {
        fds.sort_unstable();
        fds.dedup();
        DeviceHolder { pid, comm: comm(pid), fds }
    };
    let device = |(path, (class, holders)): (&Label, (DeviceClass, BTreeMap<Pid, Vec<Fd>>))| Device {
        path: path.clone(),
        name: name(path),
        class,
        holders: holders.into_iter().map(holder).collect(),
    };
    nodes.into_iter().map(device).collect()
}

/// An fd table: the process that shows it, and the thread that it belongs to if not to the process.
pub(in crate::scan) type TableOwner = (Pid, Option<Tid>);

/// What an entry of an fd table refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::scan) enum SlotFile {
    DmaBuf(Inode),
    Shmem(ShmemNumber),
}

/// The entries of the fd tables since these numbers of facts, each with its table.
pub(in crate::scan) fn slots(
    walk: &Walk,
    (fds, shm_fds): (usize, usize),
) -> impl Iterator<Item = (TableOwner, (Fd, SlotFile))> {
    let dmabufs = walk.fds[fds..].iter();
    let dmabufs = dmabufs.map(|held| ((held.pid, held.thread), (held.fact.fd, SlotFile::DmaBuf(held.ino))));
    let shmem = walk.shm_fds[shm_fds..].iter();
    let shmem = shmem.map(|held| {
        let ShmFd { object, fd, .. } = held.fact;
        (walk.tables[held.table as usize], (fd, SlotFile::Shmem(object)))
    });
    dmabufs.chain(shmem)
}
