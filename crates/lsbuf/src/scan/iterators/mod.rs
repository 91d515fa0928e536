//! Reads the machine by BPF iterators, programs in the kernel that walk its tables and write a
//! record for each entry.
//!
//! This sees every process at a low cost, however many processes run. Mappings are found in one of
//! two ways. The kernel keeps the mappings of each file in a tree. The iterators over dma-bufs
//! (Linux 6.16) and over inodes of shared memory walk it without its lock. If the tree changes
//! meanwhile, the walk may miss some. The other way is slower: to look at every VMA of the machine,
//! under the `mmap_lock` of its process. It is used if the kernel has no iterator over dma-bufs,
//! and in the next reading after the walk may have missed some.
//!
//! Memory of memfd_secret is in no list and has no such tree. Where its mappings count as locked,
//! and a process has locked memory, only the VMAs of those processes are looked at that may have
//! mapped some. If the kernel says beforehand that memory is locked, the first reading does that.
//! Where processes cannot be read one by one (without the rights of root, before Linux 6.1), the
//! next reading looks at every VMA of the machine.
//!
//! Limits: an io_uring is not seen if it has neither an fd nor a mapping, or if it has no fd and no
//! task that still exists has used it: a child can inherit its mapping.

mod known_fds;
mod objects;
mod payers;
mod records;
mod shmem_objects;
mod shmem_records;
mod unheld_files;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use self::objects::Rings;
use self::records::{Records, VmasOf};
use self::unheld_files::unheld_files;
use super::lists;
use super::options::Options;
use super::reading::{
    Effort, Failed, Interference, Object, Reading, ReadingCoverage, ReadingSource, Segments,
};
use super::tasks;
use super::walk::by_node;
use crate::kernel::activity::{self, Doing};
use crate::kernel::bpf::record::{DeviceFd, Record};
use crate::kernel::bpf::{Iterator, Probes, Unavailable};
use crate::kernel::hidden_refs::{FileKeeper, HiddenRefCounter};
use crate::kernel::process::ProcessDir;
use crate::kernel::rights::Rights;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::kept_ipc;
use crate::kernel::shmem::secret::SecretMemory;
use crate::kernel::{devices, fds, meminfo};
use crate::model::{
    Buffer, Dev, Device, DeviceClass, HiddenRefs, Kind, Kinds, Label, Note, Pid, Process, ProcessCounts,
    Source as Asked, UnheldList,
};

/// The iterators, and what is kept between two scans.
#[derive(Debug)]
pub(super) struct Iterators {
    probes: Probes,
    /// Why the pinned ones are not used, if these were loaded instead.
    not_pinned: Option<MissingIterator>,
    dev: Option<Dev>,
    /// The cgroups of holders, by their ids in version 2.
    cgroups: HashMap<u64, Cgroup>,
    /// The device nodes whose drivers can hold dma-bufs; `None`: another device.
    nodes: HashMap<Dev, Option<Node>>,
}

/// A device node.
#[derive(Clone, Debug)]
struct Node {
    class: DeviceClass,
    path: Label,
    /// The name of the device behind it.
    name: Option<Label>,
}

/// A cgroup's path, and the process from which it was read. It is read again once that process is
/// not in the cgroup any more: it may have moved between the iterator's record and the reading of
/// the path.
#[derive(Clone, Debug)]
struct Cgroup {
    pid: Pid,
    started: u64,
    path: Label,
}

impl Iterators {
    fn new(probes: Probes, not_pinned: Option<MissingIterator>) -> Iterators {
        Iterators { probes, not_pinned, dev: None, cgroups: HashMap::new(), nodes: HashMap::new() }
    }

    /// The folder where they are pinned. An error: they were loaded; and why the pinned ones are
    /// not used.
    pub(super) fn origin(&self) -> Result<&Path, Option<&MissingIterator>> {
        self.probes.folder().ok_or(self.not_pinned.as_ref())
    }

    /// Whether an iterator lists every dma-buf.
    fn list_dmabufs(&self, kinds: Kinds) -> bool {
        self.probes.why_not(Iterator::DmaBuf.with(kinds.has_shmem())).is_none()
    }

    /// Whether there is a process with this pid. procfs may hide it from a user who may read the
    /// iterators.
    pub(super) fn have_process(&mut self, pid: Pid) -> Result<bool, Errno> {
        let mut found = false;
        self.probes.read(self.probes.either(Iterator::Task), |record| {
            found |= matches!(record, Record::Task(task) if task.pid == pid && task.tid.0 == pid.0);
        })?;
        Ok(found)
    }

    /// Describes these processes, and all that have sync_files.
    fn processes_of(&mut self, records: &Records, pids: &BTreeSet<Pid>, root: &ProcRoot) -> Vec<Process> {
        let sync_files = records.sync_files();
        let pids: BTreeSet<Pid> = pids.iter().chain(sync_files.keys()).copied().collect();
        self.cgroups.retain(|&number, known| {
            records.task(known.pid).is_some_and(|task| task.started == known.started && task.cgroup == number)
        });
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let describe = |pid: Pid| {
            let task = records.task(pid)?;
            let known = self.cgroups.get(&task.cgroup).map(|cgroup| cgroup.path.clone());
            let cgroup = known.or_else(|| {
                let (path, unified) = ProcessDir::open(root, pid).ok()?.cgroup()?;
                // In a hierarchy of version 1 the next process may be in another cgroup.
                if unified {
                    let cgroup = Cgroup { pid, started: task.started, path: path.clone() };
                    self.cgroups.insert(task.cgroup, cgroup);
                }
                Some(path)
            });
            let start_time = task.started / tick;
            Some(Process {
                pid,
                start_time,
                comm: task.comm(),
                uid: Some(task.uid),
                cgroup,
                sync_files: Some(sync_files.get(&pid).copied().unwrap_or(0)),
                details: None,
            })
        };
        pids.into_iter().filter_map(describe).collect()
    }

    /// The open device nodes whose drivers can hold dma-bufs.
    fn devices_of(&mut self, records: &Records, sys: Option<&Path>) -> Vec<Device> {
        // Not if the process runs another program by now: that one did not open it.
        let same_program =
            |held: &&DeviceFd| records.task(held.pid).is_some_and(|task| task.program == held.program);
        for held in records.devices.iter().filter(same_program) {
            self.nodes.entry(held.dev).or_insert_with(|| {
                let path = devices::node(sys?, held.dev)?;
                let class = DeviceClass::of(path.as_bytes())?;
                let name = devices::name(sys?, &path);
                Some(Node { class, path, name })
            });
        }
        let node = |held: &DeviceFd| self.nodes.get(&held.dev)?.as_ref();
        let held = records.devices.iter().filter(same_program).filter_map(|held| {
            let node = node(held)?;
            Some((&node.path, node.class, held.pid, held.fd))
        });
        let comm = |pid| records.task(pid).map(|task| task.comm());
        let name = |path: &Label| self.nodes.values().flatten().find(|node| node.path == *path)?.name.clone();
        by_node(held, comm, name)
    }
}

/// Why the iterators are not used.
#[derive(Clone, Debug)]
pub(super) enum NotUsed {
    /// The options exclude them.
    NotRequested,
    /// They do not describe the machine of this procfs, for this reason.
    WrongPlace(&'static str),
    /// Neither the pinned ones can be used nor can others be loaded.
    Neither { pinned: MissingIterator, loaded: MissingIterator },
    /// They were opened, but reading them fails.
    Unread(Errno),
    /// They waited for a process for too long.
    Stuck,
}

/// Why iterators cannot be used. If one of them is the reason, which one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MissingIterator {
    iterator: Option<Iterator>,
    pub(super) why: Unavailable,
}

impl MissingIterator {
    /// Why what is pinned is not used.
    pub(super) fn of_pins(&self) -> String {
        match (self.iterator, &self.why) {
            (None, Unavailable::NotPinned) => "not pinned".to_owned(),
            (Some(iterator), Unavailable::NotPinned) => format!("{} is not pinned", iterator.name()),
            _ => format!("pinned: {self}"),
        }
    }
}

impl fmt::Display for MissingIterator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.iterator {
            Some(iterator) => write!(f, "{}: {}", iterator.name(), self.why),
            None => self.why.fmt(f),
        }
    }
}

impl NotUsed {
    /// Whether they were tried and failed, although the kernel has them: one does not fit the
    /// kernel, cannot be read, or is not lsbuf's.
    pub(super) fn is_failure(&self) -> bool {
        let fails =
            |missing: &MissingIterator| matches!(missing.why, Unavailable::Unfit(_) | Unavailable::Foreign);
        match self {
            NotUsed::Unread(_) => true,
            NotUsed::Neither { pinned, loaded } => fails(pinned) || fails(loaded),
            NotUsed::NotRequested | NotUsed::WrongPlace(_) | NotUsed::Stuck => false,
        }
    }

    /// The pinned ones cannot be used, for this reason, and the options allow loading no others.
    pub(super) fn only_pinned(pinned: MissingIterator) -> NotUsed {
        let loaded = MissingIterator { iterator: None, why: Unavailable::NotRequested };
        NotUsed::Neither { pinned, loaded }
    }
}

impl fmt::Display for NotUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotUsed::NotRequested => f.write_str("not in --source"),
            NotUsed::WrongPlace(why) => f.write_str(why),
            NotUsed::Neither { pinned, loaded } => write!(f, "{}; loading: {loaded}", pinned.of_pins()),
            NotUsed::Stuck => f.write_str("they waited too long for a process"),
            NotUsed::Unread(errno) => write!(f, "they cannot be read: {}", std::io::Error::from(*errno)),
        }
    }
}

/// Opens the pinned iterators. The inner error: they are not all that is needed. The outer error:
/// the iterators do not describe the machine of this procfs. `unread`: the pinned ones were opened,
/// but reading them failed.
pub(super) fn pinned(
    root: &ProcRoot,
    options: &Options,
    unread: Option<Errno>,
) -> Result<Result<Iterators, MissingIterator>, NotUsed> {
    if !root.is_live() || options.sys_root.is_none() {
        return Err(NotUsed::WrongPlace("they need the /proc and /sys of the running kernel"));
    }
    if !root.has_own_pids() || !Rights::own().first_pid_namespace {
        return Err(NotUsed::WrongPlace("they describe the first pid namespace, and this is another one"));
    }
    let pinned = match unread {
        None => Probes::pinned(&options.pins, options.kinds, options.payers),
        Some(errno) => Err(Unavailable::of_reading(errno)),
    };
    Ok(require_all(pinned, options.kinds).map(|probes| Iterators::new(probes, None)))
}

/// Loads iterators in place of the pinned ones.
pub(super) fn load(options: &Options, pinned: MissingIterator) -> Result<Iterators, NotUsed> {
    let sys = options.sys_root.as_deref();
    let loaded =
        sys.ok_or(Unavailable::Missing).and_then(|sys| Probes::load_for(sys, options.kinds, options.payers));
    match require_all(loaded, options.kinds) {
        Ok(probes) => Ok(Iterators::new(probes, Some(pinned))),
        Err(loaded) => Err(NotUsed::Neither { pinned, loaded }),
    }
}

/// Makes sure that no iterator is missing that these kinds need.
fn require_all(opened: Result<Probes, Unavailable>, kinds: Kinds) -> Result<Probes, MissingIterator> {
    let probes = opened.map_err(|why| MissingIterator { iterator: None, why })?;
    let lacking = probes.lacking(kinds);
    let missing =
        lacking.map(|(iterator, why)| MissingIterator { iterator: Some(iterator), why: why.clone() });
    missing.map_or(Ok(probes), Err)
}

/// The readings of one scan by the iterators.
#[derive(Debug)]
pub(super) struct IteratorSource {
    iterators: Box<Iterators>,
    root: Arc<ProcRoot>,
    options: Arc<Options>,
    /// Which processes may have mapped secret memory, if that is looked for.
    secret: SecretMemory,
    /// Whether to look at every VMA under its lock, because the tree of a buffer may not have shown
    /// all mappings.
    locked: bool,
    /// Whether to look at the VMAs of the processes that may have mapped secret memory.
    one_by_one: bool,
    /// The files that nobody held when the first reading was made, if they are listed.
    unheld: Option<UnheldList>,
    /// What the last reading was made from.
    last: Records,
}

impl IteratorSource {
    pub(super) fn new(
        mut iterators: Box<Iterators>,
        root: Arc<ProcRoot>,
        options: Arc<Options>,
    ) -> IteratorSource {
        if options.lists_unheld() {
            iterators.probes.list_unheld(true);
        }
        let secret = match &options.sys_root {
            Some(sys) if options.kinds.has(Kind::Secretmem) => SecretMemory::of(sys),
            _ => SecretMemory::Nowhere,
        };
        let unlisted = options.kinds.has(Kind::DmaBuf) && !iterators.list_dmabufs(options.kinds);
        let locked = unlisted || secret == SecretMemory::Anywhere;
        // A reading that may wait needs a helper process. On a small machine that costs a tenth of
        // the scan, so it is not made where no memory is locked.
        let one_by_one = secret == SecretMemory::Locked
            && meminfo::has_locked(root.dir())
            && iterators.probes.may_read_process();
        let (unheld, last) = (None, Records::default());
        IteratorSource { iterators, root, options, secret, locked, one_by_one, unheld, last }
    }

    /// What is kept for the next scan.
    pub(super) fn iterators(self) -> Box<Iterators> {
        self.iterators
    }
}

impl ReadingSource for IteratorSource {
    fn read(&mut self, effort: Effort) -> Result<Reading, Failed> {
        let kinds = self.options.kinds;
        // Frees the memory of the last reading before the next one.
        self.last = Records::default();
        self.locked |= effort.thorough;
        let last_pid = self.root.last_pid();
        let vmas = match (self.locked, self.one_by_one) {
            (true, _) => VmasOf::Everybody,
            (false, true) => VmasOf::SecretHolders,
            (false, false) => VmasOf::Nobody,
        };
        let mut records = Records::read_all(&mut self.iterators.probes, kinds, vmas)?;
        // `may_wait` has to know this before a reading begins, so it applies to the next one.
        let cut = records.cut;
        self.locked |= cut;
        if !self.secret_passed_over(&records).is_empty() {
            self.look_for_secret(&records);
        }
        // Before `objects::read` moves what was found out of the records.
        let unseen_mappings = records.may_have_unseen_mappings(kinds);
        records.forget(&lists::helpers(&self.root));
        let listed = self.iterators.list_dmabufs(kinds);
        let list = (!listed && kinds.has(Kind::DmaBuf)).then(|| lists::read(&self.options));
        let processes_started = last_pid.is_none() || last_pid != self.root.last_pid();
        let first = records.buffers.first();
        self.iterators.dev = first.map(|known| known.inode.dev).or(self.iterators.dev);
        let (counts, rings, hidden) = self.hidden_refs(&records);
        let root = Arc::clone(&self.root);
        let shmem = kinds.has_shmem().then_some((&*root, rings));
        let of_list = list.as_ref().and_then(|list| list.as_ref().ok());
        if self.options.lists_unheld() && self.unheld.is_none() {
            self.unheld = Some(unheld_files(&mut records, &self.root));
            // There may be a million, and another reading is to prove what is held.
            self.iterators.probes.list_unheld(false);
        }
        // Of each attached segment, a mapping told the namespace.
        let attached = records.shmem.namespaces.len();
        let mut reading = objects::read(&mut records, of_list, self.iterators.dev, kinds, shmem);
        let in_messages = records.in_messages().filter(|_| hidden.in_flight_of_one().is_some());
        for Object { buffer, .. } in reading.objects.iter_mut().filter(|o| o.buffer.id.kind == Kind::DmaBuf) {
            let ino = buffer.id.ino;
            buffer.in_flight =
                in_messages.as_ref().map(|in_messages| in_messages.get(&ino).copied().unwrap_or(0));
            buffer.io_uring = hidden.fixed_of_one().filter(|_| in_messages.is_some());
        }
        if kinds.has(Kind::Sysv) {
            reading.segments.in_flight = (!counts.unknown).then_some(0);
            let mut namespaces = records.ipc_namespaces();
            lists::add_segments(&mut reading.segments, &namespaces, &self.root);
            let segments = reading.objects.iter().filter(|one| one.buffer.id.kind == Kind::Sysv);
            // Segments that nobody has attached. The others are found by their holders.
            let listed = segments.count().saturating_sub(attached);
            let shown = |segments: &Segments| {
                let rows = segments.tables.iter().flat_map(|(_, rows)| rows);
                rows.filter(|row| row.segment.attached == 0).count()
            };
            if listed > shown(&reading.segments) {
                // Some are in a namespace that was not read, because no process is in it.
                kept_ipc::search(&mut namespaces, &self.root);
                reading.segments.tables.clear();
                reading.segments.unread = 0;
                lists::add_segments(&mut reading.segments, &namespaces, &self.root);
                if listed > shown(&reading.segments) {
                    reading.segments.unread = reading.segments.unread.max(1);
                }
            }
        }
        reading.coverage = self.seen(&records, counts, (listed, unseen_mappings), &reading);
        if let Some(list) = &list {
            lists::add(&mut reading.coverage, list, kinds);
        }
        self.watch(&mut reading.interference, &mut records, effort.calls);
        reading.interference.processes_changed |= processes_started;
        self.add_unlisted(&mut reading, &records, processes_started);
        reading.interference.moved |= cut;
        reading.interference.exiting = records.exiting(&lists::own_pids(&self.root));
        self.last = records;
        Ok(reading)
    }

    /// Looking at a VMA under its lock may wait for the process that has the lock.
    fn may_wait(&self, effort: Effort) -> bool {
        self.locked || effort.thorough || self.one_by_one
    }

    fn identify(&mut self, pids: &BTreeSet<Pid>) -> Vec<Process> {
        self.iterators.processes_of(&self.last, pids, &self.root)
    }

    fn devices(&mut self) -> Vec<Device> {
        self.iterators.devices_of(&self.last, self.options.sys_root.as_deref())
    }

    fn unheld(&mut self, held: &[Buffer]) -> Option<UnheldList> {
        let mut unheld = self.unheld.take()?;
        unheld.leave_out(self.options.kinds, held);
        Some(unheld)
    }
}

/// The process that every machine has.
const INIT: Pid = Pid(1);

impl IteratorSource {
    /// Counts the processes that the list of tasks does not show although they were there all the
    /// time. A kernel that has been changed may hide some from the iterators. Another process that
    /// has mapped a buffer and is in no list has started and exited during the reading.
    fn add_unlisted(&self, reading: &mut Reading, records: &Records, processes_started: bool) {
        let there = |&pid: &Pid| !processes_started || ProcessDir::open(&self.root, pid).is_ok();
        let (hidden, gone): (BTreeSet<Pid>, BTreeSet<Pid>) =
            std::mem::take(&mut reading.unlisted).into_iter().partition(there);
        reading.interference.moved |= !gone.is_empty();
        let init = Some(INIT).filter(|&init| records.task(init).is_none());
        let unlisted: BTreeSet<Pid> = hidden.into_iter().chain(init).collect();
        let ReadingCoverage { processes, unreadable, gaps, .. } = &mut reading.coverage;
        processes.total += unlisted.len() as u64;
        processes.unreadable += unlisted.len() as u64;
        unreadable.extend(&unlisted);
        gaps.unlisted = unlisted.into_iter().collect();
    }

    /// References that are in no fd table and no address space; and what io_urings may have
    /// registered.
    fn hidden_refs(&mut self, records: &Records) -> (HiddenRefs, Rings, HiddenRefCounter) {
        let (rings, has_ring_without_fd) = records.rings();
        let mut hidden = HiddenRefCounter::default();
        let mut text = Vec::new();
        for ring in rings {
            let read = ProcessDir::open(&self.root, ring.pid)
                .and_then(|process| process.thread(ring.tid))
                .and_then(|thread| thread.dir().read_record(fds::fdinfo_path(ring.fd).as_str(), &mut text));
            hidden.add(FileKeeper::Ring, read.is_ok().then_some(&text));
        }
        hidden.unknown |= has_ring_without_fd;
        let (in_messages, shmem) = (records.in_messages(), records.shm_in_messages());
        let mut counts = hidden.counts();
        counts.in_flight =
            in_messages.iter().flat_map(HashMap::values).chain(shmem.iter().flat_map(HashMap::values)).sum();
        counts.unknown |= in_messages.is_none();
        // A ring may be in a message, and a socket may be registered.
        let rings = Rings {
            may_have_sockets: hidden.in_flight_of_one().is_none(),
            may_have_shmem: !hidden.is_empty(),
        };
        (counts, rings, hidden)
    }

    /// Makes the next reading look for memory of memfd_secret: process by process, or, where this
    /// reading has shown that this is not possible, at every VMA.
    fn look_for_secret(&mut self, records: &Records) {
        let can_be_tried = !self.one_by_one && self.secret == SecretMemory::Locked;
        let few = can_be_tried && records.to_look_at().is_some();
        self.one_by_one = few && self.iterators.probes.may_read_process();
        self.locked |= !self.one_by_one;
    }

    /// A note, if payers were asked for and cannot be read.
    fn no_payers(&self) -> Option<Note> {
        let wanted = self.options.payers && self.options.kinds.has_shmem();
        let why = wanted.then(|| self.iterators.probes.why_not(Iterator::ShmemPayers)).flatten()?;
        Some(Note::NoPayers { why: format!("{}: {why}", Iterator::ShmemPayers.name()) })
    }

    /// The processes that may have mapped memory of memfd_secret, if they were not looked at.
    fn secret_passed_over(&self, records: &Records) -> BTreeSet<Pid> {
        let looked_at = records.locked || records.secret_seen;
        if looked_at { BTreeSet::new() } else { records.may_have(self.secret) }
    }

    fn seen(
        &self,
        records: &Records,
        counts: HiddenRefs,
        (listed, unseen_mappings): (bool, bool),
        reading: &Reading,
    ) -> ReadingCoverage {
        let kinds = self.options.kinds;
        let mut sources = vec![Asked::TaskIterator, Asked::TaskFileIterator];
        let vmas = records.locked || records.secret_seen;
        let first = !listed && kinds.has(Kind::DmaBuf);
        sources.extend(first.then_some(Asked::TaskVmaIterator));
        sources.extend(kinds.has_shmem().then_some(Asked::ShmemInodesIterator));
        sources.extend((kinds.has(Kind::DmaBuf) && listed).then_some(Asked::DmaBufIterator));
        sources.extend((vmas && !first).then_some(Asked::TaskVmaIterator));
        sources.extend(reading.segments.asked.then_some(Asked::Sysvipc));
        let total = records.processes();
        ReadingCoverage {
            sources,
            processes: ProcessCounts { total, read: total, ..ProcessCounts::default() },
            hidden_refs: Some(counts),
            unread_segments: reading.segments.unread,
            // A ring that is mapped and has no fd shows only if every VMA is looked at.
            passed_over: !records.locked && records.used_rings || unseen_mappings,
            listed: records.may_have(self.secret).is_empty() && !records.shmem.cut,
            unlisted_passed_over: self.secret_passed_over(records),
            notes: self.no_payers().into_iter().collect(),
            ..ReadingCoverage::default()
        }
    }

    /// Fills in what could have disturbed the reading. Calls that the iterators do not report are
    /// read from procfs.
    fn watch(&mut self, interference: &mut Interference, records: &mut Records, calls: bool) {
        let (before, mut after) =
            (std::mem::take(&mut records.runs), std::mem::take(&mut records.runs_after));
        if calls {
            for task in after.iter_mut().filter(|task| task.doing == Doing::Unknown) {
                task.doing = activity::doing(&self.root, task.pid, task.tid);
            }
        }
        let changes = tasks::compare(before, after, &lists::own_pids(&self.root));
        if self.options.kinds.has_shmem() {
            interference.remapped = records.remapped(&changes.ran);
        }
        interference.processes_changed |= changes.started;
        interference.ran = Some(changes.ran);
        interference.in_call = changes.calls_known.then_some(changes.in_call);
    }
}
