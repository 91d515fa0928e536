//! What a pass over the processes starts from, and what it finds.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

use crate::kernel::fds::{self, FdFact, FdReader};
use crate::kernel::hidden_refs::HiddenRefCounter;
use crate::kernel::maps::{MapFact, MapsReader};
use crate::kernel::procmap::Queries;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::{Filesystems, ShmFd, ShmMap, ShmemFinder};
use crate::model::{
    BufferId, Dev, Device, DeviceClass, DeviceHolder, Fd, Gaps, Inode, Kinds, Label, Pid, Process,
    ProcessCounts, Source, Tid,
};
use crate::scan::budget::TimeBudget;
use crate::scan::dmabuf_identity::{DmaBufIdentity, IsDmaBuf};
use crate::scan::space::Reader;

/// An fd proven to be a dma-buf's.
#[derive(Debug)]
pub(in crate::scan) struct HeldFd {
    pub(in crate::scan) pid: Pid,
    /// Whose table it is in, if not the process's.
    pub(in crate::scan) thread: Option<Tid>,
    pub(in crate::scan) ino: Inode,
    pub(in crate::scan) fact: FdFact,
}

/// A mapping that looks like a dma-buf's; [`DmaBufIdentity::is_dmabuf_device`] decides when the pass is over.
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

/// An fd of the shmem family.
#[derive(Debug)]
pub(in crate::scan) struct HeldShmFd {
    pub(in crate::scan) pid: Pid,
    /// As [`HeldFd::thread`].
    pub(in crate::scan) thread: Option<Tid>,
    pub(in crate::scan) fact: ShmFd,
}

/// A mapping of the shmem family.
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
    /// The dma-buf filesystem's device, if it is known already.
    pub(in crate::scan) dev: Option<Dev>,
    /// Whether to look for references that are in no fd table and no address space.
    pub(in crate::scan) count_hidden: bool,
    /// The family's filesystems and the kinds that are wanted, if any of them is.
    pub(in crate::scan) shmem_kinds: Option<(&'s Filesystems, Kinds)>,
    /// When to give up, if that is allowed.
    pub(in crate::scan) budget: Option<&'s TimeBudget>,
    /// Whose mappings are left out.
    pub(in crate::scan) left_out: &'s dyn Fn(Pid) -> bool,
    /// Processes that only read for this scan, which are passed over.
    pub(in crate::scan) helpers: &'s [Pid],
    /// The processes that are listed, each with its directory's inode number.
    pub(in crate::scan) listed: &'s [(Pid, u64)],
}

/// Why there is no walk.
#[derive(Debug)]
pub(in crate::scan) enum WalkError {
    /// The processes cannot be listed.
    CannotList(io::Error),
    /// It would take too long, or leave uncertain residuals that another way would not.
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
    pub(in crate::scan) shm_maps: Vec<HeldShmMap>,
    /// Processes whose program is a buffer of the shmem family.
    pub(in crate::scan) programs: Vec<(Pid, BufferId)>,
    /// Processes whose mappings were left out.
    pub(in crate::scan) stuck: Vec<Pid>,
    /// The processes that were listed last.
    pub(in crate::scan) listed: Vec<(Pid, u64)>,
    /// Kernel threads, which hold nothing.
    pub(in crate::scan) kernel_threads: BTreeSet<Pid>,
    /// Fds of sync_files, by process.
    pub(in crate::scan) sync_files: BTreeMap<Pid, u64>,
    /// The shmem family, if it is looked for.
    pub(in crate::scan) shmem_finder: Option<ShmemFinder>,
    pub(in crate::scan) identity: DmaBufIdentity,
    /// Buffers whose names are known by one of their references.
    pub(in crate::scan) named: HashSet<Inode>,
    /// Those that may hold something, ordered by pid.
    pub(in crate::scan) processes: Vec<Process>,
    pub(in crate::scan) counts: ProcessCounts,
    /// Those of which at least a part could not be read, ordered by pid.
    pub(in crate::scan) unreadable: Vec<Pid>,
    /// A second reading of each buffer's count, where one was asked for.
    pub(in crate::scan) rechecked: BTreeMap<Inode, u64>,
    /// `None`: not looked for.
    pub(in crate::scan) hidden: Option<HiddenRefCounter>,
    /// Whether an fd table changed while it was read: an fd may have moved to a slot that was read before.
    pub(in crate::scan) table_changed: bool,
    /// Processes in the middle of exiting, whose references are out of sight and may still count.
    pub(in crate::scan) exiting: u64,
    /// Processes with a thread that may have an fd table of its own, which could not be asked.
    pub(in crate::scan) uncompared: HashSet<Pid>,
    /// `O_PATH` fds that cannot be judged until a dma-buf's mount is known; as in [`HeldFd`].
    pub(in crate::scan) paths: Vec<(Pid, Option<Tid>, FdFact)>,
    pub(super) denied: u64,
    pub(super) failed: u64,
    pub(in crate::scan) unproven: u64,
    /// What reads fd tables and address spaces.
    pub(super) fd_reader: FdReader,
    pub(super) maps_reader: MapsReader,
    /// What one fd table is read into; empty in between.
    pub(in crate::scan) table: fds::FdTable,
    /// Processes that appeared when the last generation had been read.
    pub(super) newcomers: u64,
    pub(super) malformed: BTreeMap<Source, u64>,
}

impl Walk {
    /// Whether a mapping is a dma-buf's, by all that the pass learnt.
    pub(in crate::scan) fn is_dmabuf(&self, map: &HeldMap) -> bool {
        self.identity.is_dmabuf_device(map.fact.dev) == IsDmaBuf::Yes
    }

    /// Those of these processes that were read, and those with sync_files.
    pub(in crate::scan) fn who_are(&self, pids: &BTreeSet<Pid>) -> Vec<Process> {
        let counted = |process: &Process| Process {
            sync_files: Some(self.sync_files.get(&process.pid).copied().unwrap_or(0)),
            ..process.clone()
        };
        let asked = |p: &&Process| pids.contains(&p.pid) || self.sync_files.contains_key(&p.pid);
        self.processes.iter().filter(asked).map(counted).collect()
    }

    /// The open device nodes, with the names that `name` gives to the devices behind them.
    pub(in crate::scan) fn devices(&self, name: impl Fn(&Label) -> Option<Label>) -> Vec<Device> {
        let comm = |pid| {
            let at = self.processes.binary_search_by_key(&pid, |p| p.pid).ok()?;
            Some(self.processes[at].comm.clone())
        };
        let held = self.devices.iter().map(|held| (&held.path, held.class, held.pid, held.fd));
        by_node(held, comm, name)
    }

    /// Drops what was found of a process.
    pub(super) fn forget(&mut self, pid: Pid) {
        self.fds.retain(|held| held.pid != pid);
        self.maps.retain(|held| held.pid != pid);
        self.devices.retain(|held| held.pid != pid);
        self.shm_fds.retain(|held| held.pid != pid);
        self.shm_maps.retain(|held| held.pid != pid);
        self.programs.retain(|(runs, _)| *runs != pid);
        self.sync_files.remove(&pid);
        self.paths.retain(|(holder, ..)| *holder != pid);
        self.processes.retain(|process| process.pid != pid);
        self.uncompared.remove(&pid);
    }

    /// What could not be read or decided.
    pub(in crate::scan) fn gaps(&self) -> Gaps {
        let undecided = |map: &&HeldMap| self.identity.is_dmabuf_device(map.fact.dev) == IsDmaBuf::Unknown;
        Gaps {
            denied: self.denied,
            failed: self.failed,
            stuck: self.stuck.clone(),
            newcomers: self.newcomers,
            malformed: self.malformed.clone(),
            unproven: self.unproven + self.maps.iter().filter(undecided).count() as u64,
            ..Gaps::default()
        }
    }

    pub(in crate::scan) fn garble(&mut self, source: Source, facts: u64) {
        if facts > 0 {
            *self.malformed.entry(source).or_default() += facts;
        }
    }
}

/// Open device nodes, each once and with all that hold it, by path.
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

/// An fd table, by the process that shows it and the thread that has it, if that is not the process's.
pub(in crate::scan) type TableOwner = (Pid, Option<Tid>);

/// What is in a slot of a table: a dma-buf by its inode number, or a buffer of the shmem family.
type Slot = (Fd, Inode, Option<BufferId>);

/// The slots of those fds, each with its table.
pub(in crate::scan) fn slots(
    fds: &[HeldFd],
    shmem: &[HeldShmFd],
) -> impl Iterator<Item = (TableOwner, Slot)> {
    let dmabufs = fds.iter().map(|held| ((held.pid, held.thread), (held.fact.fd, held.ino, None)));
    let shmem = shmem.iter().map(|held| {
        let id = held.fact.id;
        ((held.pid, held.thread), (held.fact.fd, id.ino, Some(id)))
    });
    dmabufs.chain(shmem)
}
