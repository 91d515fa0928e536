//! What the iterators tell in one reading, record by record.
//!
//! The order is tasks, fds, buffers with their mappings, and tasks again: a count is thereby read before its references are
//! gathered and after, and what every task did meanwhile is known.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use rustix::io::Errno;

use crate::kernel::activity::{Activity, Doing};
use crate::kernel::bpf::record::{
    DeviceFd, FdRecord, Id, InFlight, KeeperKind, KeeperRecord, MemfdPages, Record, RunRecord, ShmFileRecord,
    ShmFilesystem, SyncFd, TaskRecord, Vma,
};
use crate::kernel::bpf::{Iterator, Probes};
use crate::kernel::identity::InodeFact;
use crate::kernel::shmem::inode::ShmInode;
use crate::kernel::shmem::sysvipc::Namespaces;
use crate::model::{Inode, IpcNamespace, Kind, Kinds, Label, Pid, Seals, Tid};

/// What is known of one buffer.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) inode: InodeFact,
    /// The latest reading; `None`: nothing holds it open.
    pub(super) count: Option<u64>,
    /// How many readings there were.
    pub(super) readings: u32,
    /// Whether they all agree.
    pub(super) agree: bool,
    pub(super) exporter: Option<Label>,
    pub(super) name: Option<Label>,
    /// `None`: no iterator tells, or not all of them.
    pub(super) attachments: Option<Vec<Label>>,
    /// Whose pages it is made of, run by run; `None`: no iterator tells, or not of all.
    pub(super) pages: Option<Vec<MemfdPages>>,
}

impl Known {
    /// Nothing but its inode.
    pub(super) fn new(inode: InodeFact) -> Known {
        Known {
            inode,
            count: None,
            readings: 0,
            agree: true,
            exporter: None,
            name: None,
            attachments: None,
            pages: None,
        }
    }

    /// Adds what another record tells of the same buffer.
    fn merge(&mut self, other: Known) {
        self.agree &= other.agree;
        if let Some(count) = other.count {
            self.counted(count);
            self.readings += other.readings - 1;
        }
        self.exporter = other.exporter.or(self.exporter.take());
        self.name = other.name.or(self.name.take());
        self.attachments = other.attachments.or(self.attachments.take());
        self.pages = other.pages.or(self.pages.take());
    }

    /// Adds a reading of the count.
    pub(super) fn counted(&mut self, count: u64) {
        self.agree &= self.count.is_none_or(|before| before == count);
        self.count = Some(count);
        self.readings += 1;
    }
}

/// Everything that one reading found.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The tasks as they were at first, ordered by process and thread.
    pub(super) tasks: Vec<TaskRecord>,
    /// The tasks as they were when all else had been read, in the same order.
    pub(super) tasks_after: Vec<TaskRecord>,
    pub(super) fds: Vec<FdRecord<Inode>>,
    pub(super) vmas: Vec<Vma<Inode>>,
    /// Ordered by inode number, each once.
    pub(super) buffers: Vec<Known>,
    pub(super) devices: Vec<DeviceFd>,
    pub(super) in_flight: Vec<InFlight<Inode>>,
    pub(super) shm_fds: Vec<FdRecord<Id>>,
    pub(super) shm_vmas: Vec<Vma<Id>>,
    pub(super) shm_in_flight: Vec<InFlight<Id>>,
    pub(super) shm_files: HashMap<Id, OpenFile>,
    pub(super) sync_files: Vec<SyncFd>,
    pub(super) keepers: Vec<KeeperRecord>,
    /// What every task was doing at these two times.
    pub(super) runs: Vec<Activity>,
    pub(super) runs_after: Vec<Activity>,
    /// Whether the mappings may lack some.
    pub(super) cut: bool,
    /// Whether something could not be told at that moment.
    pub(super) torn: bool,
}

impl Records {
    /// Reads all that there is, and again if something could not be told, or made no sense, at that moment: what a program
    /// looks at may be freed and used anew meanwhile. `BADMSG`: nor could it later, so it is no passing state.
    pub(super) fn read_all(probes: &mut Probes, kinds: Kinds, locked: bool) -> Result<Records, Errno> {
        const TRIES: u32 = 4;
        for _ in 0..TRIES {
            match Records::read_once(probes, kinds, locked) {
                Ok(found) if found.torn => {}
                Err(Errno::BADMSG) => {}
                outcome => return outcome,
            }
        }
        Err(Errno::BADMSG)
    }

    /// Reads all that there is about these kinds. With `locked`, or if shmem is among them, which has no list of its mappings,
    /// every VMA of the machine is looked at under its lock; else those in the buffers' own trees are.
    fn read_once(probes: &mut Probes, kinds: Kinds, locked: bool) -> Result<Records, Errno> {
        let mut found = Records::default();
        let shmem = kinds.has_shmem();
        let locked = locked || shmem;
        let dmabufs = Iterator::DmaBuf.with(shmem);
        let listed = probes.why_not(dmabufs).is_none();
        found.read(probes, Iterator::Task.with(shmem), true)?;
        found.read(probes, Iterator::TaskFile.with(shmem), true)?;
        if locked || !listed {
            found.read(probes, Iterator::TaskVma.with(shmem), true)?;
        }
        if listed && kinds.has(Kind::DmaBuf) {
            found.read(probes, dmabufs, !locked)?;
        } else if kinds.has(Kind::DmaBuf) {
            // The counts once more.
            let mut again = Records::default();
            again.read(probes, Iterator::TaskFile.with(shmem), true)?;
            found.buffers.append(&mut again.buffers);
            found.torn |= again.torn;
        }
        let mut after = Records::default();
        after.read(probes, Iterator::Task.with(shmem), true)?;
        (found.tasks_after, found.runs_after) = (after.tasks, after.runs);
        for tasks in [&mut found.tasks, &mut found.tasks_after] {
            tasks.sort_unstable_by_key(|task| (task.pid, task.tid));
        }
        found.cut &= !locked;
        found.buffers.sort_by_key(|known| known.inode.ino);
        found.buffers.dedup_by(|later, first| {
            let same = later.inode.ino == first.inode.ino;
            if same {
                first.merge(std::mem::replace(later, Known::new(first.inode)));
            }
            same
        });
        // If what lists them was at hand when the others were pinned, these do not describe them.
        let described = |fd: &FdRecord<Inode>| {
            found.buffers.binary_search_by_key(&fd.of, |known| known.inode.ino).is_ok()
        };
        let unlisted = listed || found.fds.iter().all(described);
        // A file is described before the first reference to it.
        let known = |file| found.shm_files.contains_key(file);
        let files = found.shm_fds.iter().map(|fd| &fd.of).chain(found.shm_vmas.iter().map(|vma| &vma.of));
        if unlisted && files.chain(found.shm_in_flight.iter().map(|one| &one.of)).all(known) {
            Ok(found)
        } else {
            Err(Errno::BADMSG)
        }
    }

    /// Adds what one iterator tells; its mappings only `with_vmas`.
    fn read(&mut self, probes: &mut Probes, iterator: Iterator, with_vmas: bool) -> Result<(), Errno> {
        let mut attachments = Some(Vec::new());
        let mut pages = Some(Vec::new());
        probes.read(iterator, |record| match record {
            Record::Task(task) => self.tasks.push(task),
            Record::Fd(fd) => self.fds.push(fd),
            Record::Attachment(name) => match (name, &mut attachments) {
                (Some(name), Some(attachments)) => attachments.push(name.into()),
                _ => attachments = None,
            },
            Record::Buffer(buffer) => {
                self.cut |= !buffer.whole;
                let attached = attachments.replace(Vec::new());
                let mut known = Known::new(buffer.inode);
                known.exporter = buffer.exporter.map(Label::from);
                known.name = buffer.name.map(Label::from);
                if let Some((before, after)) = buffer.counts {
                    known.counted(before);
                    if iterator.kernels() == Iterator::DmaBuf {
                        known.counted(after);
                        known.attachments = attached.filter(|_| buffer.whole);
                    }
                }
                // Nothing tells of the pages of a buffer that is only mapped, or only named.
                let told = matches!(iterator, Iterator::DmaBufShmem | Iterator::TaskFileShmem);
                if told && buffer.counts.is_some() {
                    known.pages = pages.replace(Vec::new());
                }
                self.buffers.push(known);
            }
            Record::Vma(vma) if with_vmas => self.vmas.push(vma),
            Record::Vma(_) => {}
            Record::Device(device) => self.devices.push(device),
            Record::InFlight(message) => self.in_flight.push(message),
            Record::Keeper(keeper) => self.keepers.push(keeper),
            Record::SyncFile(fd) => self.sync_files.push(fd),
            Record::ShmFile(file) => {
                let count = file.count;
                let known = self.shm_files.entry(file.file).or_insert_with(|| OpenFile::of(&file));
                // Some iterators tell only the name.
                if known.path.is_err() {
                    known.path = file.path.map(Label::from).map_err(Label::from);
                }
                known.counted(count);
            }
            Record::ShmFd(fd) => {
                if !fd.path_only {
                    self.count(fd.of, fd.count);
                }
                self.shm_fds.push(fd);
            }
            Record::ShmVma(vma, count) => {
                self.count(vma.of, count);
                self.shm_vmas.push(vma);
            }
            Record::ShmInFlight(message) => self.shm_in_flight.push(message),
            Record::MemfdPages(run) => match (run, &mut pages) {
                (Some(run), Some(pages)) => pages.push(run),
                _ => pages = None,
            },
            Record::ShmUndescribed(_) | Record::Torn => self.torn = true,
            Record::Run(run) => self.runs.push(activity(&run)),
            Record::End => {}
        })
    }

    /// Adds a reading of a file's references.
    fn count(&mut self, file: Id, count: u64) {
        if let Some(known) = self.shm_files.get_mut(&file) {
            known.counted(count);
        }
    }

    /// Drops what is told of these processes, which only read for this scan.
    pub(super) fn forget(&mut self, helpers: &[Pid]) {
        let stays = |pid: Pid| !helpers.contains(&pid);
        self.tasks.retain(|task| stays(task.pid));
        self.tasks_after.retain(|task| stays(task.pid));
        self.fds.retain(|fd| stays(fd.pid));
        self.shm_fds.retain(|fd| stays(fd.pid));
        self.sync_files.retain(|fd| stays(fd.pid));
        self.devices.retain(|fd| stays(fd.pid));
    }

    /// How many processes there are.
    pub(super) fn processes(&self) -> u64 {
        self.tasks.iter().filter(|task| task.tid.0 == task.pid.0).count() as u64
    }

    /// Whether any of them, but these, was exiting, with what it held out of sight.
    pub(super) fn exiting(&self, own: &[Pid]) -> bool {
        let mut tasks = self.tasks.iter().chain(&self.tasks_after);
        tasks.any(|task| task.exiting && !task.kernel && !own.contains(&task.pid))
    }

    /// Those of the processes that ran which changed their mappings or their program between the two times; or whose mappings
    /// cannot be told.
    pub(super) fn remapped(&self, ran: &BTreeSet<Pid>) -> BTreeSet<Pid> {
        let leader = |tasks, pid: Pid| {
            let task: &TaskRecord = find(tasks, pid, Tid(pid.0))?;
            Some((task.program, task.mm, task.mm_writes?))
        };
        let same = |&pid: &Pid| {
            let before = leader(&self.tasks, pid);
            before.is_some() && before == leader(&self.tasks_after, pid)
        };
        ran.iter().copied().filter(|pid| !same(pid)).collect()
    }

    /// Whether a task that has that fd table when fds are read had it at first, too. The number of a table that has gone may
    /// soon stand for another process's.
    pub(super) fn kept_table(&self, pid: Pid, tid: Tid, files: Id) -> bool {
        find(&self.tasks, pid, tid).is_some_and(|task| task.files == Some(files))
    }

    /// Who a process is, or who it was afterwards if it was started meanwhile.
    pub(super) fn task(&self, pid: Pid) -> Option<&TaskRecord> {
        [&self.tasks, &self.tasks_after].into_iter().find_map(|tasks| {
            let at = tasks.partition_point(|task| task.pid < pid);
            tasks.get(at).filter(|task| task.pid == pid)
        })
    }

    /// Every IPC namespace, with tasks that are in it.
    pub(super) fn ipc_namespaces(&self) -> Namespaces {
        let mut namespaces = Namespaces::default();
        for task in &self.tasks {
            if let Some(ipc) = task.ipc {
                // procfs opens a thread's folder like a process's.
                namespaces.add(ipc, Pid(task.tid.0));
            }
        }
        namespaces
    }

    /// How many sync_files each process has, a table counted once however many threads share it.
    pub(super) fn sync_files(&self) -> HashMap<Pid, u64> {
        let mut slots: Vec<_> = self.sync_files.iter().map(|fd| (fd.pid, fd.files, fd.fd)).collect();
        slots.sort_unstable();
        slots.dedup();
        let mut counts = HashMap::new();
        slots.into_iter().for_each(|(pid, ..)| *counts.entry(pid).or_default() += 1);
        counts
    }

    /// Which processes have an address space; a thread that has one of its own counts for its process. Several have one only
    /// if they had it both times: the number of a space that has gone may soon stand for another process's.
    pub(super) fn address_spaces(&self) -> Vec<(Id, Pid)> {
        let (before, after) = (spaces(&self.tasks), spaces(&self.tasks_after));
        // What a process has only afterwards may be another program's, which is not the one it is named by.
        let started =
            |&&(_, pid): &&(Id, Pid)| self.tasks.binary_search_by_key(&pid, |task| task.pid).is_err();
        let mut all: Vec<(Id, Pid)> = before.iter().chain(after.iter().filter(started)).copied().collect();
        all.sort_unstable();
        all.dedup();
        let kept = |of_one: &[(Id, Pid)], one: &(Id, Pid)| {
            of_one.len() == 1 || before.binary_search(one).is_ok() && after.binary_search(one).is_ok()
        };
        let alike = all.chunk_by(|a, b| a.0 == b.0);
        alike.flat_map(|of_one| of_one.iter().filter(|one| kept(of_one, one))).copied().collect()
    }

    /// How many references of each buffer wait in sockets; `None`: more may wait than was seen.
    pub(super) fn waiting(&self) -> Option<HashMap<Inode, u64>> {
        self.all_is_seen().then(|| waiting(&self.in_flight))
    }

    /// The same of files of shared memory.
    pub(super) fn shm_waiting(&self) -> Option<HashMap<Id, u64>> {
        self.all_is_seen().then(|| waiting(&self.shm_in_flight))
    }

    /// Whether every queue was read to its end, and none has another one in it.
    fn all_is_seen(&self) -> bool {
        let hidden = |keeper: &KeeperRecord| matches!(keeper.what, KeeperKind::Socket | KeeperKind::Nested);
        !self.keepers.iter().any(hidden)
    }

    /// The io_urings that have an fd, each once; and whether one has none and is mapped, as far as mappings were looked at.
    pub(super) fn rings(&self) -> (Vec<KeeperRecord>, bool) {
        let of = |what| self.keepers.iter().filter(move |keeper| keeper.what == what);
        let mut rings: Vec<KeeperRecord> = of(KeeperKind::Ring).copied().collect();
        rings.sort_unstable_by_key(|ring| ring.ino);
        rings.dedup_by_key(|ring| ring.ino);
        let hidden = of(KeeperKind::RingMapped)
            .any(|mapped| rings.binary_search_by_key(&mapped.ino, |ring| ring.ino).is_err());
        (rings, hidden)
    }
}

/// One of the tasks, which are ordered by process and thread.
fn find(tasks: &[TaskRecord], pid: Pid, tid: Tid) -> Option<&TaskRecord> {
    tasks.binary_search_by_key(&(pid, tid), |task| (task.pid, task.tid)).ok().map(|at| &tasks[at])
}

/// Which processes have which address space, ordered, each pair once.
fn spaces(tasks: &[TaskRecord]) -> Vec<(Id, Pid)> {
    let mut spaces: Vec<(Id, Pid)> =
        tasks.iter().filter_map(|task| task.mm.map(|mm| (mm, task.pid))).collect();
    spaces.sort_unstable();
    spaces.dedup();
    spaces
}

fn activity(run: &RunRecord) -> Activity {
    Activity { pid: run.pid, tid: run.tid, runtime: run.runtime, doing: doing(run) }
}

/// What a task is doing. A worker is in no call; one that has ended has nothing any more.
fn doing(run: &RunRecord) -> Doing {
    match run.call {
        _ if run.running => Doing::Running,
        _ if run.worker || run.dead || run.stopped => Doing::Nothing,
        _ if run.exiting => Doing::Exiting,
        Some(call) if call >= 0 => Doing::Call(call),
        Some(_) => Doing::Nothing,
        None => Doing::Unknown,
    }
}

/// How many references of each wait in sockets, each socket asked once.
fn waiting<K: Copy + Eq + Hash>(in_flight: &[InFlight<K>]) -> HashMap<K, u64> {
    let mut first = HashMap::new();
    let mut waiting = HashMap::new();
    for message in in_flight {
        if *first.entry(message.socket).or_insert(message.seen_by) == message.seen_by {
            *waiting.entry(message.of).or_default() += 1;
        }
    }
    waiting
}

/// What is known of an open file of shared memory.
#[derive(Clone, Debug)]
pub(super) struct OpenFile {
    pub(super) inode: ShmInode,
    pub(super) filesystem: ShmFilesystem,
    pub(super) swapped: Option<u64>,
    pub(super) seals: Option<Seals>,
    pub(super) ipc: Option<IpcNamespace>,
    /// It only names the inode (`O_PATH`); its references hold nothing open.
    pub(super) path_only: bool,
    /// How many open files its dentry has, this one among them; `None`: that cannot be told.
    pub(super) opens: Option<u64>,
    /// Which dentry that is.
    pub(super) dentry: Option<Id>,
    /// The whole path, or the name alone.
    pub(super) path: Result<Label, Label>,
    /// The latest reading of its references, and whether all readings agree.
    pub(super) count: u64,
    pub(super) steady: bool,
}

impl OpenFile {
    fn of(file: &ShmFileRecord<'_>) -> OpenFile {
        OpenFile {
            inode: file.inode,
            filesystem: file.filesystem,
            swapped: file.swapped,
            seals: file.seals,
            ipc: file.ipc,
            path_only: file.path_only,
            opens: file.opens,
            dentry: file.dentry,
            path: file.path.map(Label::from).map_err(Label::from),
            count: file.count,
            steady: true,
        }
    }

    fn counted(&mut self, count: u64) {
        self.steady &= self.count == count;
        self.count = count;
    }
}
