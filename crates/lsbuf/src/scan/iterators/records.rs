//! Collects the records that the BPF iterators write in one reading.
//!
//! The iterators are read in this order: tasks, fds, VMAs if that is needed, inodes of shared
//! memory, dma-bufs, tasks again. The record of a dma-buf has its count from before and after its
//! mappings. The record of an fd, or of a VMA of shared memory, has the count of its file too. If
//! the kernel has no iterator over dma-bufs, the fds are read a second time for their counts. The
//! two passes over the tasks show what ran meanwhile.
//!
//! The iterators over dma-bufs and over inodes also list the mappings, by walking trees that may
//! change meanwhile. If every VMA is looked at under its lock, those mappings are dropped. If only
//! those of some processes are looked at, because they may have memory that is in no list, then
//! only the mappings of such memory are taken from there.
//!
//! Limits: an iterator follows pointers in memory that the kernel may free and use again. If a
//! record is missing or contradicts another one for that reason, everything is read again.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use rustix::io::Errno;

use crate::kernel::activity::{Activity, Doing, Ran};
use crate::kernel::bpf::record::{
    DeviceFd, Id, InFlight, KeeperKind, KeeperRecord, MemfdPages, Record, RunRecord, SyncFd, TaskRecord, Vma,
};
use crate::kernel::bpf::{Iterator, Probes};
use crate::kernel::identity::InodeFact;
use crate::kernel::shmem::secret::SecretMemory;
use crate::kernel::shmem::sysvipc::Namespaces;
use crate::model::{Dev, Inode, Kind, Kinds, Label, Pid, Tid};

use super::known_fds::{DmaBufFds, DmaBufFiles};
use super::shmem_records::{ShmemRecords, UNLISTED};

/// What is known of one dma-buf.
#[derive(Debug)]
pub(super) struct KnownDmaBuf {
    pub(super) inode: InodeFact,
    /// The last value that was read; `None`: no file of it is open.
    pub(super) count: Option<u64>,
    /// How often the count was read.
    pub(super) readings: u32,
    /// Whether the count was the same each time.
    pub(super) stable: bool,
    pub(super) exporter: Option<Label>,
    pub(super) name: Option<Label>,
    /// `None`: no iterator reports them, or not all were reported.
    pub(super) attachments: Option<Vec<Label>>,
    /// The memfds whose pages it is made of, run by run; `None`: no iterator reports them, or not
    /// all were reported.
    pub(super) pages: Option<Vec<MemfdPages>>,
    /// The file that a graphics driver has for it; `None`: not known.
    pub(super) gem_file: Option<(Dev, Inode)>,
}

impl KnownDmaBuf {
    /// A buffer of which only the inode is known.
    pub(super) fn new(inode: InodeFact) -> KnownDmaBuf {
        KnownDmaBuf {
            inode,
            count: None,
            readings: 0,
            stable: true,
            exporter: None,
            name: None,
            attachments: None,
            pages: None,
            gem_file: None,
        }
    }

    /// Adds what another record says of the same buffer.
    fn merge(&mut self, other: KnownDmaBuf) {
        self.stable &= other.stable;
        if let Some(count) = other.count {
            self.counted(count);
            self.readings += other.readings - 1;
        }
        self.exporter = other.exporter.or(self.exporter.take());
        self.name = other.name.or(self.name.take());
        self.attachments = other.attachments.or(self.attachments.take());
        self.pages = other.pages.or(self.pages.take());
        self.gem_file = other.gem_file.or(self.gem_file);
    }

    /// Adds a value of the count.
    pub(super) fn counted(&mut self, count: u64) {
        self.stable &= self.count.is_none_or(|before| before == count);
        self.count = Some(count);
        self.readings += 1;
    }
}

/// Whose VMAs are looked at under their lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VmasOf {
    Nobody,
    /// The processes that may have mapped memory of memfd_secret, where that counts as locked, if
    /// they can be read one by one.
    SecretHolders,
    Everybody,
}

/// All records of one reading.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The tasks before everything else was read, ordered by process and thread.
    pub(super) tasks: Vec<TaskRecord>,
    /// The tasks after everything else was read, in the same order.
    pub(super) tasks_after: Vec<TaskRecord>,
    pub(super) fds: DmaBufFds,
    pub(super) vmas: Vec<Vma<Inode>>,
    /// Ordered by inode number, each once.
    pub(super) buffers: Vec<KnownDmaBuf>,
    pub(super) devices: Vec<DeviceFd>,
    pub(super) in_flight: Vec<InFlight<Inode>>,
    pub(super) shmem: ShmemRecords,
    /// Whether a task has used an io_uring that still exists.
    pub(super) used_rings: bool,
    /// Whether every VMA was looked at under its lock.
    pub(super) locked: bool,
    /// Whether the VMAs of each process were looked at that may have mapped memory of memfd_secret,
    /// and of no other process.
    pub(super) secret_seen: bool,
    pub(super) sync_files: Vec<SyncFd>,
    pub(super) keepers: Vec<KeeperRecord>,
    /// What every task was doing at these two times.
    pub(super) runs: Vec<Activity>,
    pub(super) runs_after: Vec<Activity>,
    /// Whether mappings may be missing.
    pub(super) cut: bool,
    /// Whether a record is missing, because the kernel freed what it is about while it was read.
    pub(super) torn: bool,
}

impl Records {
    /// Reads everything, and again if records were missing or contradicted each other: an iterator
    /// may look at memory that is freed and used again meanwhile. `BADMSG`: they still did in the
    /// last attempt, so another cause is more likely.
    pub(super) fn read_all(probes: &mut Probes, kinds: Kinds, vmas: VmasOf) -> Result<Records, Errno> {
        const TRIES: u32 = 4;
        for _ in 0..TRIES {
            match Records::read_once(probes, kinds, vmas) {
                Ok(found) if found.torn => {}
                Err(Errno::BADMSG) => {}
                outcome => return outcome,
            }
        }
        Err(Errno::BADMSG)
    }

    /// Reads everything once. Unless every VMA is looked at, the mappings in the buffers' own trees
    /// are read.
    fn read_once(probes: &mut Probes, kinds: Kinds, vmas: VmasOf) -> Result<Records, Errno> {
        let mut found = Records::default();
        let shmem = kinds.has_shmem();
        let dmabufs = Iterator::DmaBuf.with(shmem);
        let listed = !kinds.has(Kind::DmaBuf) || probes.why_not(dmabufs).is_none();
        found.read(probes, Iterator::Task.with(shmem), true)?;
        found.tasks.sort_unstable_by_key(|task| (task.pid, task.tid));
        found.read(probes, Iterator::TaskFile.with(shmem), true)?;
        let locked = vmas == VmasOf::Everybody || !listed;
        found.locked = locked;
        if locked {
            found.read(probes, Iterator::TaskVma.with(shmem), true)?;
        } else if vmas == VmasOf::SecretHolders {
            found.secret_seen = found.read_secret(probes)?;
        }
        if shmem {
            let payers = probes.why_not(Iterator::ShmemPayers).is_none();
            let inodes = if payers { Iterator::ShmemPayers } else { Iterator::ShmemInodes };
            found.read(probes, inodes, !locked)?;
        }
        if kinds.has(Kind::DmaBuf) && listed {
            found.read(probes, dmabufs, !locked)?;
        } else if kinds.has(Kind::DmaBuf) {
            // Without a list, the counts are read again through the fds.
            let mut again = Records::default();
            again.read(probes, Iterator::TaskFile.with(shmem), true)?;
            found.buffers.append(&mut again.buffers);
            found.torn |= again.torn;
        }
        let mut after = Records::default();
        after.read(probes, Iterator::Task.with(shmem), true)?;
        (found.tasks_after, found.runs_after) = (after.tasks, after.runs);
        found.tasks_after.sort_unstable_by_key(|task| (task.pid, task.tid));
        found.cut &= !locked;
        found.buffers.sort_by_key(|known| known.inode.ino);
        found.buffers.dedup_by(|later, first| {
            let same = later.inode.ino == first.inode.ino;
            if same {
                first.merge(std::mem::replace(later, KnownDmaBuf::new(first.inode)));
            }
            same
        });
        // If the pinned iterators were made where the kernel lists dma-bufs, they do not describe a
        // dma-buf at its fds.
        let described = |files: &DmaBufFiles| {
            found.buffers.binary_search_by_key(&files.ino, |known| known.inode.ino).is_ok()
        };
        if listed || found.fds.files.iter().all(described) { Ok(found) } else { Err(Errno::BADMSG) }
    }

    /// Adds the records of one iterator; those of mappings only if `with_vmas`.
    fn read(&mut self, probes: &mut Probes, iterator: Iterator, with_vmas: bool) -> Result<(), Errno> {
        let mut attachments = Some(Vec::new());
        let mut pages = Some(Vec::new());
        let mut gem_file = None;
        probes.read(iterator, |record| match record {
            Record::Task(task) => self.tasks.push(task),
            Record::Fd(fd) => self.fds.add(&fd),
            Record::Attachment(name) => match (name, &mut attachments) {
                (Some(name), Some(attachments)) => attachments.push(name.into()),
                _ => attachments = None,
            },
            Record::Buffer(buffer) => {
                self.cut |= !buffer.whole;
                let attached = attachments.replace(Vec::new());
                let mut known = KnownDmaBuf::new(buffer.inode);
                known.exporter = buffer.exporter.map(Label::from);
                known.name = buffer.name.map(Label::from);
                if let Some((before, after)) = buffer.counts {
                    known.counted(before);
                    if iterator.base() == Iterator::DmaBuf {
                        known.counted(after);
                        known.attachments = attached.filter(|_| buffer.whole);
                    }
                }
                // Of a buffer that is only mapped, or has only `O_PATH` fds, the pages are not
                // reported.
                let reports_pages = matches!(iterator, Iterator::DmaBufShmem | Iterator::TaskFileShmem);
                if reports_pages && buffer.counts.is_some() {
                    known.pages = pages.replace(Vec::new());
                }
                known.gem_file = gem_file.take();
                self.buffers.push(known);
            }
            Record::Vma(vma) if with_vmas => self.vmas.push(vma),
            Record::Vma(_) => {}
            Record::Device(device) => self.devices.push(device),
            Record::InFlight(message) => self.in_flight.push(message),
            Record::Keeper(keeper) => self.keepers.push(keeper),
            Record::SyncFile(fd) => self.sync_files.push(fd),
            Record::ShmInode(inode) if inode.unheld => self.shmem.add_unheld(&inode),
            Record::ShmInode(inode) => self.shmem.add_inode(&inode),
            Record::ShmFd(fd) => self.shmem.add_fd(&fd),
            Record::ShmVma(vma) if with_vmas => self.shmem.add_vma(&vma),
            // What the mapping tells of its segment stays.
            Record::ShmVma(vma) => self.shmem.add_namespace(&vma),
            Record::ShmInFlight(message) => self.shmem.add_in_flight(&message),
            Record::ShmExe(exe) => self.shmem.add_exe(&exe),
            Record::ShmFilesystem(filesystem) => self.shmem.add_filesystem(&filesystem),
            Record::ShmCgroup(cgroup) => self.shmem.payers.add_cgroup(&cgroup),
            Record::ShmPages(pages) => self.shmem.payers.add(&pages),
            Record::ShmWalk(walk) => {
                self.shmem.cut |= walk.inodes_cut;
                self.shmem.end_unheld(&walk);
                self.cut |= walk.mappings_cut;
            }
            Record::MemfdPages(run) => match (run, &mut pages) {
                (Some(run), Some(pages)) => pages.push(run),
                _ => pages = None,
            },
            Record::GemFile(dev, ino) => gem_file = Some((dev, ino)),
            Record::Torn if iterator.base() == Iterator::ShmemInodes => self.cut = true,
            Record::Torn => self.torn = true,
            Record::Run(run) => {
                self.used_rings |= run.rings;
                self.runs.push(activity(&run));
            }
            Record::End => {}
        })
    }

    /// Adds the mappings of memory that is in no list, process by process. Returns whether each
    /// process was looked at that may have mapped memory of memfd_secret.
    fn read_secret(&mut self, probes: &mut Probes) -> Result<bool, Errno> {
        let Some(pids) = self.to_look_at().filter(|pids| !pids.is_empty()) else { return Ok(false) };
        for pid in pids {
            let possible = probes.read_process(pid, |record| match record {
                Record::ShmInode(inode) => self.shmem.add_inode(&inode),
                // The description of such an inode comes before each of its mappings. Mappings of
                // other inodes are reported with the kernel's lists.
                Record::ShmVma(vma) if self.shmem.is_unlisted(vma.vma.of.object) => {
                    self.shmem.add_vma(&vma);
                }
                Record::Torn => self.torn = true,
                _ => {}
            })?;
            if !possible {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The processes that may have mapped memory of memfd_secret, where that counts as locked;
    /// empty if no process has locked memory. A process that was forked may have inherited a
    /// mapping, and an inherited mapping does not count as locked. `None`: too many, or one that
    /// cannot be read alone, because its leader has exited.
    pub(super) fn to_look_at(&self) -> Option<BTreeSet<Pid>> {
        /// A process with a hundred VMAs takes about 0.05 ms. The other way is another reading of
        /// the whole machine, which takes longer even for more. But the longer one reading lasts,
        /// the more processes run during it.
        const MOST: usize = 256;
        if self.may_have(SecretMemory::Locked).is_empty() {
            return Some(BTreeSet::new());
        }
        let may_have = |task: &&TaskRecord| task.mm.is_some() && (task.locked_pages > 0 || task.forked);
        let of_leader = |task: &TaskRecord| {
            find(&self.tasks, task.pid, Tid(task.pid.0)).is_some_and(|leader| leader.mm == task.mm)
        };
        let found: Option<BTreeSet<Pid>> =
            self.tasks.iter().filter(may_have).map(|task| of_leader(task).then_some(task.pid)).collect();
        found.filter(|pids| pids.len() <= MOST)
    }

    /// Drops the records of these processes, which belong to this scan.
    pub(super) fn forget(&mut self, helpers: &[Pid]) {
        let stays = |pid: Pid| !helpers.contains(&pid);
        self.tasks.retain(|task| stays(task.pid));
        self.tasks_after.retain(|task| stays(task.pid));
        self.fds.fds.forget(helpers);
        self.shmem.fds.forget(helpers);
        self.shmem.forget_mappings(helpers);
        self.sync_files.retain(|fd| stays(fd.pid));
        self.devices.retain(|fd| stays(fd.pid));
    }

    /// How many processes there are.
    pub(super) fn processes(&self) -> u64 {
        self.tasks.iter().filter(|task| task.tid.0 == task.pid.0).count() as u64
    }

    /// Whether a task of another process than `own` was exiting: what it held is in no table any
    /// more.
    pub(super) fn exiting(&self, own: &[Pid]) -> bool {
        let mut tasks = self.tasks.iter().chain(&self.tasks_after);
        tasks.any(|task| task.exiting && !task.kernel && !own.contains(&task.pid))
    }

    /// Those of `ran` that changed their mappings or their program between the two passes over the
    /// tasks, or for which that is unknown.
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

    /// Whether a task had this fd table in the first pass over the tasks already. The id of a freed
    /// table may soon be another process's.
    pub(super) fn had_table(&self, pid: Pid, tid: Tid, files: Id) -> bool {
        find(&self.tasks, pid, tid).is_some_and(|task| task.files == Some(files))
    }

    /// A process as it was in the first pass over the tasks; or in the second, if it was started
    /// meanwhile.
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
                // procfs opens the directory of a thread like that of a process.
                namespaces.add(ipc, Pid(task.tid.0));
            }
        }
        namespaces
    }

    /// How many sync_files each process has. A table counts once, however many threads share it.
    pub(super) fn sync_files(&self) -> HashMap<Pid, u64> {
        let mut slots: Vec<_> = self.sync_files.iter().map(|fd| (fd.pid, fd.files, fd.fd)).collect();
        slots.sort_unstable();
        slots.dedup();
        let mut counts = HashMap::new();
        slots.into_iter().for_each(|(pid, ..)| *counts.entry(pid).or_default() += 1);
        counts
    }

    /// The processes of each address space; a thread with an address space of its own counts for
    /// its process. If several processes had it, only those are listed that had it in both passes
    /// over the tasks: the id of a freed address space may soon be another process's.
    pub(super) fn address_spaces(&self) -> Vec<(Id, Pid)> {
        let (before, after) = (spaces(&self.tasks), spaces(&self.tasks_after));
        // What a process has only in the second pass may be another program's than the one that it
        // is listed with.
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

    /// How many references to each dma-buf are in messages; `None`: there may be more than were
    /// seen.
    pub(super) fn in_messages(&self) -> Option<HashMap<Inode, u64>> {
        self.all_queues_read().then(|| in_messages(&self.in_flight))
    }

    /// The same for files of shared memory, by their numbers.
    pub(super) fn shm_in_messages(&self) -> Option<HashMap<u32, u64>> {
        self.all_queues_read().then(|| in_messages(&self.shmem.in_flight))
    }

    /// The processes that may have mapped memory of memfd_secret, which is in no list; without
    /// those that may only have inherited a mapping.
    pub(super) fn may_have(&self, secret: SecretMemory) -> BTreeSet<Pid> {
        let may_have = |task: &&TaskRecord| match secret {
            SecretMemory::Nowhere => false,
            SecretMemory::Locked => task.locked_pages > 0,
            SecretMemory::Anywhere => task.mm.is_some(),
        };
        self.tasks.iter().filter(may_have).map(|task| task.pid).collect()
    }

    /// Whether memory of these kinds was found of which mappings may not have been looked at,
    /// because it is in no list.
    pub(super) fn may_have_unseen_mappings(&self, kinds: Kinds) -> bool {
        let looked_at = |kind| self.locked || self.secret_seen && kind == Kind::Secretmem;
        let mut found = UNLISTED.into_iter().zip(self.shmem.found_unlisted);
        found.any(|(kind, found)| found && kinds.has(kind) && !looked_at(kind))
    }

    /// Whether every queue was read to its end, and no queue is in a message of another one.
    fn all_queues_read(&self) -> bool {
        let hidden = |keeper: &KeeperRecord| matches!(keeper.what, KeeperKind::Socket | KeeperKind::Nested);
        !self.keepers.iter().any(hidden)
    }

    /// The io_urings that have an fd, each once; and whether one is mapped and has no fd, as far as
    /// mappings were looked at.
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

/// The processes of each address space, each pair once, ordered by address space.
fn spaces(tasks: &[TaskRecord]) -> Vec<(Id, Pid)> {
    let mut spaces: Vec<(Id, Pid)> =
        tasks.iter().filter_map(|task| task.mm.map(|mm| (mm, task.pid))).collect();
    spaces.sort_unstable();
    spaces.dedup();
    spaces
}

fn activity(run: &RunRecord) -> Activity {
    let ran = Ran { runtime: run.runtime, turns: run.switches };
    Activity { pid: run.pid, tid: run.tid, ran, doing: doing(run) }
}

/// What a task is doing. A kernel worker is in no system call, and a task that has ended holds
/// nothing any more.
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

/// How many references to each buffer are in messages. A queue that several fds showed counts once.
fn in_messages<K: Copy + Eq + Hash>(in_flight: &[InFlight<K>]) -> HashMap<K, u64> {
    let mut first = HashMap::new();
    let mut in_messages = HashMap::new();
    for message in in_flight {
        if *first.entry(message.socket).or_insert(message.seen_by) == message.seen_by {
            *in_messages.entry(message.of).or_default() += 1;
        }
    }
    in_messages
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
