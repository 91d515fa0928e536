//! Scans by BPF iterators: the whole machine in three readings, whatever else runs on it.
//!
//! A round is steady when every count stood still while its references were gathered. Mostly these explain it, and one
//! round is the answer. Where they do not, what is left over must be left over again, in rounds that look at every VMA
//! under its lock, by the rules of [`super`], some time apart. A round that was not calm does not count as one of
//! [`Options::rounds`], a few times: one's own threads that loaded the iterators may still be exiting, for one.
//!
//! Limits: a reference that moves back and forth between two slots of one fd table can be missed by a round, as the kernel
//! visits slot after slot; it would have to be missed by all of them. An io_uring that is neither an fd nor mapped is not
//! seen.

mod join;
mod round;
mod shmem;

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use rustix::io::Errno;

use self::join::Joined;
use self::round::Round;
use super::forks::Watch;
use super::settle::{self, has_rest, settle};
use super::walk::by_node;
use super::{Found, Options, contradiction, read_list};
use crate::kernel::bpf::record::{DeviceFd, Record};
use crate::kernel::bpf::{Iterator, Probes, Unavailable};
use crate::kernel::elsewhere::{self, Elsewhere};
use crate::kernel::process::ProcessDir;
use crate::kernel::rights::Rights;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::Filesystems;
use crate::kernel::{devices, fds};
use crate::model::{
    Buffer, Coverage, Dev, Device, DeviceClass, KeptElsewhere, Kind, Kinds, Label, Note, Pid, Process,
    ProcessCounts, Source,
};
use crate::scan;

/// So many rounds that somebody disturbed do not count.
const MOST_IN_VAIN: u32 = 3;

/// The iterators, and what is remembered from scan to scan.
#[derive(Debug)]
pub(super) struct Iterators {
    probes: Probes,
    /// Why not those that are pinned, if these are not.
    not_pinned: Option<Lack>,
    dev: Option<Dev>,
    /// The cgroups that holders were in, by their numbers.
    cgroups: HashMap<u64, Cgroup>,
    /// Nodes whose drivers can hold dma-bufs; `None`: another device.
    nodes: HashMap<Dev, Option<Node>>,
}

/// A node of a device.
#[derive(Clone, Debug)]
struct Node {
    class: DeviceClass,
    path: Label,
    /// The device's name.
    name: Option<Label>,
}

/// A cgroup's path, and the process that was asked for it. It is asked again unless that one is still found in there: it may
/// have been elsewhere by the time it was asked.
#[derive(Clone, Debug)]
struct Cgroup {
    pid: Pid,
    started: u64,
    path: Label,
}

impl Iterators {
    fn new(probes: Probes, not_pinned: Option<Lack>) -> Iterators {
        Iterators { probes, not_pinned, dev: None, cgroups: HashMap::new(), nodes: HashMap::new() }
    }

    /// Where they are pinned; or else, as they are loaded, why not those that are pinned.
    pub(super) fn origin(&self) -> Result<&Path, Option<&Lack>> {
        self.probes.folder().ok_or(self.not_pinned.as_ref())
    }

    /// Whether there is a process of that id. procfs may hide it from who can read the iterators.
    pub(super) fn have_process(&mut self, pid: Pid) -> Result<bool, Errno> {
        let mut found = false;
        self.probes.read(self.probes.either(Iterator::Task), |record| {
            found |= matches!(record, Record::Task(task) if task.pid == pid && task.tid.0 == pid.0);
        })?;
        Ok(found)
    }

    /// Scans. The kernel's own list is read where no iterator lists the buffers. `filesystems`: the shmem family's own, if it is
    /// looked for.
    pub(super) fn scan(
        &mut self,
        root: &ProcRoot,
        options: &Options,
        filesystems: Option<&Filesystems>,
    ) -> Result<Found, Errno> {
        let kinds = options.kinds;
        let (shmem, dmabufs) = (kinds.has_shmem(), kinds.has(Kind::DmaBuf));
        let listed = self.probes.why_not(Iterator::DmaBuf.with(shmem)).is_none();
        let mut sources = vec![Source::TaskIterator, Source::TaskFileIterator];
        sources.extend((shmem || !listed).then_some(Source::TaskVmaIterator));
        sources.extend((dmabufs && listed).then_some(Source::DmaBufIterator));
        let mut earlier = Vec::new();
        let mut watch = Watch::new(root);
        let mut calm = false;
        let mut locked = false;
        let (mut nth, mut in_vain) = (0, 0);
        loop {
            nth += 1;
            let births = root.births();
            let mut round = Round::make(&mut self.probes, kinds, locked)?;
            if round.cut {
                round = Round::make(&mut self.probes, kinds, true)?;
                locked = true;
            }
            if locked && listed && !sources.contains(&Source::TaskVmaIterator) {
                sources.push(Source::TaskVmaIterator);
            }
            let mut notes = Vec::new();
            let list = (!listed && dmabufs).then(|| read_list(options));
            let list = match list {
                Some(Ok(list)) => {
                    if !sources.contains(&Source::Bufinfo) {
                        sources.push(Source::Bufinfo);
                    }
                    notes.extend(contradiction(&list));
                    Some(list)
                }
                Some(Err(why)) => {
                    notes.push(Note::NoKernelList { why });
                    None
                }
                None => None,
            };
            let quiet = births.is_some() && births == root.births();
            self.dev = round.buffers.first().map(|known| known.inode.dev).or(self.dev);
            let Joined { buffers: mut joined, mut restless } =
                join::join(&mut round, list.as_ref(), self.dev);
            joined.retain(|buffer| kinds.has(buffer.id.kind));
            let (kept, rings) = look_elsewhere(&round, &mut joined, root);
            if let Some(filesystems) = filesystems {
                let mut found = shmem::join(&round, kinds, filesystems, rings);
                joined.append(&mut found.buffers);
                restless |= found.restless;
            }
            let exiting = round.exiting();
            let mut disturbed = !quiet || restless || exiting > 0;
            calm |= !disturbed;
            if joined.iter().any(has_rest) {
                notes.extend(settle::disturbances(exiting, calm));
            }
            let total = round.processes();
            let processes = ProcessCounts { total, read: total, ..ProcessCounts::default() };
            let mut coverage = Coverage {
                sources: sources.clone(),
                processes,
                kept: Some(kept),
                notes,
                ..Coverage::default()
            };
            let holders = settle::holders_of_rests(&joined);
            let settled = settle(&mut joined, &earlier, &coverage, |suspects| {
                let forking = watch.forking(suspects);
                disturbed |= !forking.is_empty();
                forking
            });
            if settled || nth >= options.rounds + in_vain {
                if kinds.has(Kind::Sysv) {
                    let namespaces = round.ipc_namespaces();
                    scan::shmem::add_segments(&mut joined, &namespaces, root, &mut coverage);
                }
                if shmem && kept.unknown {
                    coverage.notes.push(Note::HiddenInFlight { fds: 0 });
                }
                let processes = self.processes_of(&round, &joined, root);
                let devices = self.devices_of(&round, options.sys_root.as_deref());
                return Ok(Found { coverage, buffers: joined, processes, devices });
            }
            earlier.push(settle::Round { buffers: joined, only_shared: false });
            // Rounds are over in no time; whoever comes or goes needs some.
            watch.pause(holders);
            in_vain += u32::from(disturbed && in_vain < MOST_IN_VAIN);
            locked = self.probes.why_not(Iterator::TaskVma.with(shmem)).is_none();
        }
    }

    /// Who the holders are.
    fn processes_of(&mut self, round: &Round, buffers: &[Buffer], root: &ProcRoot) -> Vec<Process> {
        let mut pids: Vec<Pid> = buffers.iter().flat_map(|b| &b.holders).map(|h| h.pid).collect();
        let sync_files = round.sync_files();
        pids.extend(sync_files.keys());
        pids.sort_unstable();
        pids.dedup();
        self.cgroups.retain(|&number, known| {
            round.task(known.pid).is_some_and(|task| task.started == known.started && task.cgroup == number)
        });
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        let who = |pid: Pid| {
            let task = round.task(pid)?;
            let known = self.cgroups.get(&task.cgroup).map(|cgroup| cgroup.path.clone());
            let cgroup = known.or_else(|| {
                let path = ProcessDir::open(root, pid).ok()?.cgroup()?;
                let cgroup = Cgroup { pid, started: task.started, path: path.clone() };
                self.cgroups.insert(task.cgroup, cgroup);
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
            })
        };
        pids.into_iter().filter_map(who).collect()
    }

    /// The open device nodes whose drivers can hold dma-bufs.
    fn devices_of(&mut self, round: &Round, sys: Option<&Path>) -> Vec<Device> {
        // What another program had open is not put under this one's name.
        let still = |held: &&DeviceFd| round.task(held.pid).is_some_and(|task| task.program == held.program);
        for held in round.devices.iter().filter(still) {
            self.nodes.entry(held.dev).or_insert_with(|| {
                let path = devices::node(sys?, held.dev)?;
                let class = DeviceClass::of(path.as_bytes())?;
                let name = devices::name(sys?, &path);
                Some(Node { class, path, name })
            });
        }
        let node = |held: &DeviceFd| self.nodes.get(&held.dev)?.as_ref();
        let held = round.devices.iter().filter(still).filter_map(|held| {
            let node = node(held)?;
            Some((&node.path, node.class, held.pid, held.fd))
        });
        let comm = |pid| round.task(pid).map(|task| task.comm());
        let name = |path: &Label| self.nodes.values().flatten().find(|node| node.path == *path)?.name.clone();
        by_node(held, comm, name)
    }
}

/// What rings may have registered, as far as that can be told.
#[derive(Clone, Copy, Debug)]
struct Rings {
    /// Sockets or rings, which may have more in turn.
    may_have_sockets: bool,
    /// Files of any other kind.
    may_have_shmem: bool,
}

/// Why they are not used.
#[derive(Clone, Debug)]
pub(super) enum NotUsed {
    /// They were not asked for.
    Unasked,
    /// They say nothing of the machine that is asked about, and why.
    Elsewhere(&'static str),
    /// Neither those that are pinned nor some of one's own can be used.
    Neither { pinned: Lack, loaded: Lack },
    /// They could be opened, but not be read.
    Unread(Errno),
}

/// Why iterators of one origin cannot be used, and which one if not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lack {
    iterator: Option<Iterator>,
    pub(super) why: Unavailable,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.iterator {
            Some(iterator) => write!(f, "{}: {}", iterator.name(), self.why),
            None => self.why.fmt(f),
        }
    }
}

impl fmt::Display for NotUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotUsed::Unasked => f.write_str("they were not asked for"),
            NotUsed::Elsewhere(why) => f.write_str(why),
            NotUsed::Neither { pinned, loaded } => write!(f, "pinned: {pinned}; to be loaded: {loaded}"),
            NotUsed::Unread(errno) => write!(f, "they cannot be read: {}", std::io::Error::from(*errno)),
        }
    }
}

/// Those that are pinned, or why they are not all that is needed; unless iterators and that procfs speak of different
/// machines. `unread`: what is pinned could be opened, but not be read.
pub(super) fn pinned(
    root: &ProcRoot,
    options: &Options,
    unread: Option<Errno>,
) -> Result<Result<Iterators, Lack>, NotUsed> {
    if !root.is_live() || options.sys_root.is_none() {
        return Err(NotUsed::Elsewhere("this is not the procfs of a running kernel with its sysfs"));
    }
    if !root.has_own_pids() || !Rights::own().first_pid_namespace {
        return Err(NotUsed::Elsewhere("they speak of the first pid namespace, which this is not"));
    }
    let pinned = match unread {
        None => Probes::pinned(&options.pins, options.kinds),
        Some(errno) => Err(Unavailable::of_reading(errno)),
    };
    Ok(whole(pinned, options.kinds).map(|probes| Iterators::new(probes, None)))
}

/// Loads some of one's own in place of those that are pinned.
pub(super) fn load(options: &Options, pinned: Lack) -> Result<Iterators, NotUsed> {
    let sys = options.sys_root.as_deref();
    let wanted: Vec<Iterator> = Iterator::of(options.kinds).collect();
    let loaded = sys.ok_or(Unavailable::Missing).and_then(|sys| Probes::load(sys, &wanted));
    match whole(loaded, options.kinds) {
        Ok(probes) => Ok(Iterators::new(probes, Some(pinned))),
        Err(loaded) => Err(NotUsed::Neither { pinned, loaded }),
    }
}

/// Makes sure that there is all that is needed.
fn whole(opened: Result<Probes, Unavailable>, kinds: Kinds) -> Result<Probes, Lack> {
    let probes = opened.map_err(|why| Lack { iterator: None, why })?;
    let lacking = probes.lacking(kinds);
    let lack = lacking.map(|(iterator, why)| Lack { iterator: Some(iterator), why: why.clone() });
    lack.map_or(Ok(probes), Err)
}

/// Adds what is in no fd table and no address space; says what rings may have registered besides.
fn look_elsewhere(round: &Round, buffers: &mut [Buffer], root: &ProcRoot) -> (KeptElsewhere, Rings) {
    let (rings, hidden) = round.rings();
    let mut elsewhere = Elsewhere::default();
    let mut text = Vec::new();
    for ring in rings {
        let read = ProcessDir::open(root, ring.pid)
            .and_then(|process| process.thread(ring.tid))
            .and_then(|thread| thread.dir().read_record(fds::fdinfo_path(ring.fd).as_str(), &mut text));
        elsewhere.add(elsewhere::Keeper::Ring, read.is_ok().then_some(&text));
    }
    elsewhere.unknown |= hidden;
    let waiting = round.waiting();
    let mut kept = elsewhere.kept();
    let shmem = round.shm_waiting();
    kept.in_flight =
        waiting.iter().flat_map(HashMap::values).chain(shmem.iter().flat_map(HashMap::values)).sum();
    kept.unknown |= waiting.is_none();
    // A ring may be in flight, and a socket be registered.
    let waiting = waiting.filter(|_| elsewhere.in_flight_of_one().is_some());
    for buffer in buffers {
        buffer.in_flight = waiting.as_ref().map(|waiting| waiting.get(&buffer.id.ino).copied().unwrap_or(0));
        buffer.io_uring = elsewhere.fixed_of_one().filter(|_| waiting.is_some());
    }
    let rings = Rings {
        may_have_sockets: elsewhere.in_flight_of_one().is_none(),
        may_have_shmem: !elsewhere.is_empty(),
    };
    (kept, rings)
}
