//! One pass over the processes: every reference that can be proven, and what could not be read.
//!
//! Processes that appear during the pass are read too: a child that inherited an fd must not look like the kernel. [`Visit`]
//! is what reading one process comes to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use super::kthreads::KernelThreads;
use super::patience::Patience;
use super::proof::{Proof, Verdict};
use super::space::Reader;
use super::visit::Visit;
use crate::kernel::elsewhere::Elsewhere;
use crate::kernel::fdinfo::{self, DmaBufInfo};
use crate::kernel::fds::{self, FdFact};
use crate::kernel::maps::MapFact;
use crate::kernel::process::ProcessDir;
use crate::kernel::procmap::Queries;
use crate::kernel::read::{self, Buffers};
use crate::kernel::root::ProcRoot;
use crate::kernel::sharing::Sharing;
use crate::kernel::shmem::{Family, Filesystems, ShmFd, ShmMap};
use crate::model::{
    Buffer, Dev, Device, DeviceClass, DeviceHolder, Fd, Inode, Kinds, Label, Note, Pid, Process,
    ProcessCounts, Source, Tid,
};

/// How often the listing of processes is repeated for newcomers. Each repetition reads only those, so a
/// machine that forks all the time is followed for a few generations and then let go.
const GENERATIONS: usize = 4;

/// An fd proven to be a dma-buf's.
#[derive(Debug)]
pub(super) struct HeldFd {
    pub(super) pid: Pid,
    /// Whose table it is in, if not the process's.
    pub(super) thread: Option<Tid>,
    pub(super) ino: Inode,
    pub(super) fact: FdFact,
}

/// A mapping that looks like a dma-buf's; [`Proof::verdict_on_dev`] decides when the pass is over.
#[derive(Debug)]
pub(super) struct HeldMap {
    pub(super) pid: Pid,
    pub(super) fact: MapFact,
}

/// An fd of a device node.
#[derive(Debug)]
pub(super) struct HeldDevice {
    pub(super) pid: Pid,
    pub(super) fd: Fd,
    pub(super) class: DeviceClass,
    pub(super) path: Label,
}

/// An fd of the shmem family.
#[derive(Debug)]
pub(super) struct HeldShmFd {
    pub(super) pid: Pid,
    /// As [`HeldFd::thread`].
    pub(super) thread: Option<Tid>,
    pub(super) fact: ShmFd,
}

/// A mapping of the shmem family.
#[derive(Debug)]
pub(super) struct HeldShmMap {
    pub(super) pid: Pid,
    pub(super) fact: ShmMap,
}

/// What a pass starts from.
#[derive(Debug)]
pub(super) struct Start<'s> {
    pub(super) root: &'s ProcRoot,
    pub(super) sharing: &'s Sharing,
    pub(super) reader: Reader,
    pub(super) queries: Option<Queries>,
    /// The dma-buf filesystem's device, if it is known already.
    pub(super) dev: Option<Dev>,
    /// Whether to look for references that are in no fd table and no address space.
    pub(super) look_elsewhere: bool,
    /// The family's filesystems and the kinds that are wanted, if any of them is.
    pub(super) family: Option<(&'s Filesystems, Kinds)>,
    /// When to give up, if that is allowed.
    pub(super) patience: Option<&'s Patience>,
}

/// Why there is no walk.
#[derive(Debug)]
pub(super) enum Halt {
    /// The processes cannot be listed.
    CannotList(io::Error),
    /// It would take too long, or leave doubts that another way would not.
    NotWorthIt,
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Halt {
        Halt::CannotList(error)
    }
}

/// What one pass found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) fds: Vec<HeldFd>,
    pub(super) maps: Vec<HeldMap>,
    pub(super) devices: Vec<HeldDevice>,
    pub(super) shm_fds: Vec<HeldShmFd>,
    pub(super) shm_maps: Vec<HeldShmMap>,
    /// Fds of sync_files, by process.
    pub(super) sync_files: BTreeMap<Pid, u64>,
    /// The shmem family, if it is looked for.
    pub(super) family: Option<Family>,
    pub(super) proof: Proof,
    /// Buffers whose names are known by one of their references.
    pub(super) named: HashSet<Inode>,
    /// Those that may hold something, ordered by pid.
    pub(super) processes: Vec<Process>,
    pub(super) counts: ProcessCounts,
    /// Those of which at least a part could not be read, ordered by pid.
    pub(super) unreadable: Vec<Pid>,
    /// A second reading of each buffer's count, where one was asked for.
    pub(super) rechecked: BTreeMap<Inode, u64>,
    /// `None`: not looked for.
    pub(super) elsewhere: Option<Elsewhere>,
    /// Whether an fd was closed while its table was read: it may have moved to a slot that was read before.
    pub(super) restless: bool,
    /// Processes in the middle of exiting, whose references are out of sight and may still count.
    pub(super) exiting: u64,
    /// Processes with a thread that may have an fd table of its own, which could not be asked.
    pub(super) uncompared: HashSet<Pid>,
    /// `O_PATH` fds that cannot be judged until a dma-buf's mount is known; as in [`HeldFd`].
    pub(super) paths: Vec<(Pid, Option<Tid>, FdFact)>,
    denied: u64,
    failed: u64,
    pub(super) unproven: u64,
    /// What one fd table is read into; empty in between.
    pub(super) table: fds::Table,
    /// Processes that appeared when the last generation had been read.
    newcomers: u64,
    garbled: BTreeMap<Source, u64>,
}

impl Walk {
    /// Walks every process but known kernel threads.
    pub(super) fn of(
        start: &Start<'_>,
        kernel_threads: &mut KernelThreads,
        buffers: &mut Buffers,
    ) -> Result<Walk, Halt> {
        let mut walk = Walk {
            proof: Proof::new(start.root, start.dev, start.queries),
            elsewhere: start.look_elsewhere.then(Elsewhere::default),
            family: start.family.map(|(filesystems, kinds)| Family::new(kinds, filesystems.clone())),
            ..Walk::default()
        };
        let mut seen: HashMap<Pid, u64> = HashMap::new();
        for generation in 0.. {
            let mut newcomers = Vec::new();
            for (pid, directory) in start.root.processes(buffers)? {
                match seen.insert(pid, directory) {
                    Some(before) if before == directory => {}
                    Some(_) => {
                        // The pid has been recycled, and what its former bearer held went with it.
                        walk.forget(pid);
                        newcomers.push((pid, directory));
                    }
                    None => newcomers.push((pid, directory)),
                }
            }
            if newcomers.is_empty() {
                break;
            }
            if generation == GENERATIONS {
                walk.newcomers = newcomers.len() as u64;
                break;
            }
            for &(pid, directory) in &newcomers {
                walk.counts.total += 1;
                let known = kernel_threads.knows(pid, directory);
                let visit = if known { Visit::Kernel } else { walk.visit(start, pid, buffers) };
                if let Some(patience) = start.patience {
                    patience.done_with(pid);
                    if patience.is_over() {
                        return Err(Halt::NotWorthIt);
                    }
                }
                match visit {
                    Visit::Read => walk.counts.read += 1,
                    Visit::Kernel => {
                        walk.counts.read += 1;
                        kernel_threads.remember(pid, directory);
                    }
                    Visit::Gone => walk.counts.vanished += 1,
                    Visit::Denied => walk.denied += 1,
                    Visit::Failed => walk.failed += 1,
                }
                if matches!(visit, Visit::Denied | Visit::Failed) {
                    walk.unreadable.push(pid);
                }
            }
        }
        kernel_threads.keep(&seen);
        walk.counts.unreadable = walk.denied + walk.failed;
        walk.unreadable.sort_unstable();
        walk.unreadable.dedup();
        walk.judge_paths();
        walk.processes.sort_by_key(|p| p.pid);
        Ok(walk)
    }

    /// Decides on the `O_PATH` fds that were put off.
    fn judge_paths(&mut self) {
        for (pid, thread, fact) in std::mem::take(&mut self.paths) {
            match (self.proof.verdict_on_mount(fact.info.mnt_id), fact.info.ino) {
                (Verdict::Yes, Some(ino)) => self.fds.push(HeldFd { pid, thread, ino, fact }),
                (Verdict::No, _) => {}
                (Verdict::Yes, None) | (Verdict::Unknown, _) => self.unproven += 1,
            }
        }
    }

    /// Reads each buffer's count once more, through one of its fds.
    pub(super) fn recheck(&mut self, root: &ProcRoot, buffers: &mut Buffers) {
        for held in &self.fds {
            if held.fact.info.dmabuf.is_none() || self.rechecked.contains_key(&held.ino) {
                continue;
            }
            let again = ProcessDir::open(root, held.pid)
                .and_then(|process| match held.thread {
                    Some(tid) => process.thread(tid),
                    None => Ok(process),
                })
                .and_then(|p| {
                    read::record(p.dir(), fds::fdinfo_path(held.fact.fd).as_str(), &mut buffers.text)
                })
                .ok()
                .and_then(|()| fdinfo::parse(&buffers.text).ok());
            let before = &held.fact.info;
            let same = |now: &DmaBufInfo, was: &DmaBufInfo| {
                now.size == was.size && now.exporter == was.exporter && now.name == was.name
            };
            if let (Some(info), Some(was)) = (again, &before.dmabuf)
                && info.ino == before.ino
                && let Some(now) = info.dmabuf
                // Without an inode number the fd may have been replaced.
                && (info.ino.is_some() || same(&now, was))
            {
                self.rechecked.insert(held.ino, now.count);
            }
        }
    }

    /// Whether a mapping is a dma-buf's, by all that the pass learnt.
    pub(super) fn is_dmabuf(&self, map: &HeldMap) -> bool {
        self.proof.verdict_on_dev(map.fact.dev) == Verdict::Yes
    }

    /// The processes that hold one of those buffers, or sync_files.
    pub(super) fn holders_of(&self, buffers: &[Buffer]) -> Vec<Process> {
        let mut pids: BTreeSet<Pid> = buffers.iter().flat_map(|b| &b.holders).map(|h| h.pid).collect();
        pids.extend(self.sync_files.keys());
        let counted = |process: &Process| Process {
            sync_files: Some(self.sync_files.get(&process.pid).copied().unwrap_or(0)),
            ..process.clone()
        };
        self.processes.iter().filter(|p| pids.contains(&p.pid)).map(counted).collect()
    }

    /// The open device nodes, with the names that `name` gives to the devices behind them.
    pub(super) fn devices(&self, name: impl Fn(&Label) -> Option<Label>) -> Vec<Device> {
        let comm = |pid| {
            let at = self.processes.binary_search_by_key(&pid, |p| p.pid).ok()?;
            Some(self.processes[at].comm.clone())
        };
        let held = self.devices.iter().map(|held| (&held.path, held.class, held.pid, held.fd));
        by_node(held, comm, name)
    }

    /// Drops what was found of a process.
    fn forget(&mut self, pid: Pid) {
        self.fds.retain(|held| held.pid != pid);
        self.maps.retain(|held| held.pid != pid);
        self.devices.retain(|held| held.pid != pid);
        self.shm_fds.retain(|held| held.pid != pid);
        self.shm_maps.retain(|held| held.pid != pid);
        self.sync_files.remove(&pid);
        self.paths.retain(|(holder, ..)| *holder != pid);
        self.processes.retain(|process| process.pid != pid);
        self.uncompared.remove(&pid);
    }

    /// What could not be read or decided.
    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        if self.denied + self.failed > 0 {
            notes.push(Note::Unreadable { denied: self.denied, failed: self.failed });
        }
        notes.extend(self.garbled.iter().map(|(&source, &facts)| Note::Garbled { source, facts }));
        let undecided = |map: &&HeldMap| self.proof.verdict_on_dev(map.fact.dev) == Verdict::Unknown;
        let references = self.unproven + self.maps.iter().filter(undecided).count() as u64;
        if references > 0 {
            notes.push(Note::Unproven { references });
        }
        if self.newcomers > 0 {
            notes.push(Note::Newcomers { processes: self.newcomers });
        }
        notes
    }

    pub(super) fn garble(&mut self, source: Source, facts: u64) {
        if facts > 0 {
            *self.garbled.entry(source).or_default() += facts;
        }
    }
}

/// Open device nodes, each once and with all that hold it, by path.
pub(super) fn by_node<'n>(
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
