//! Adds to processes and segments the details that are asked for ([`Details`]), by procfs whichever
//! source found them.
//!
//! The folder of a process is opened once, and its start time is compared after everything else was
//! read through it. So what is read belongs to the process that the scan found, or is left out. The
//! program may be another one by now, if the process has called exec.
//!
//! Command lines are read in a helper that can be killed, because a process can make their reader
//! wait. What was read before is kept. The process that made it wait, and others that may do so
//! next, have no command line then.
//!
//! Limits: a segment's creator is known by a pid alone. A process that has this pid now is named if
//! it started before the segment was last changed or attached, as far as the wall clock tells.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::options::Options;
use crate::kernel::details::{self, Users};
use crate::kernel::guard::{self, Guarded, Stuck};
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::mounts::Mounts;
use crate::kernel::tree::Folder;
use crate::kernel::workload::{self, ContainerNames, PodNames};
use crate::kernel::{activity, task};
use crate::model::{
    Args, Buffer, Detail, Details, Dev, Kind, Label, Pid, Process, ProcessDetails, Segment, Workload,
};

/// How often reading command lines may be made to wait before the rest is left out.
const MOST_WAITS: usize = 4;

/// Adds details to processes. Of command lines no more than [`Options::longest_args`] is read.
pub(super) fn add<'p>(
    root: &Arc<ProcRoot>,
    options: &Options,
    wanted: Details,
    processes: impl Iterator<Item = &'p mut Process>,
) {
    if !wanted.has_any_of_processes() {
        return;
    }
    let users = options.passwd.as_deref().filter(|_| wanted.has(Detail::User));
    let users = users.and_then(|path| Users::read(path).ok()).unwrap_or_default();
    let pods = names(options, wanted, options.pod_logs.as_deref(), PodNames::read);
    let containers = names(options, wanted, options.container_logs.as_deref(), ContainerNames::read);
    let mut described: Vec<&mut Process> = processes.collect();
    for process in &mut described {
        let mut details = of_process(root, process, wanted).unwrap_or_default();
        details.user = process.uid.and_then(|uid| users.name(uid));
        if let Some(Workload { pod: Some(pod), container, .. }) = &mut details.workload {
            pod.name = pods.of(&pod.uid);
            pod.container = container.as_ref().and_then(|id| containers.of(id));
        }
        process.details = Some(Box::new(details));
    }
    if wanted.has(Detail::Args) {
        let asked: Vec<Asked> =
            described.iter().map(|p| Asked { pid: p.pid, started: p.start_time }).collect();
        let lines = command_lines(root, options, asked);
        for (process, args) in described.into_iter().zip(lines) {
            process.details.get_or_insert_default().args = args;
        }
    }
}

/// Names that a folder tells, if workloads are wanted. Without the folder it is none.
fn names<N: Default + Send + 'static>(
    options: &Options,
    wanted: Details,
    folder: Option<&Path>,
    read: fn(&Path) -> rustix::io::Result<N>,
) -> N {
    let folder = folder.filter(|_| wanted.has(Detail::Workload)).map(Path::to_path_buf);
    let names =
        folder.and_then(|folder| guard::guarded(options.deadline, move || read(&folder).ok()).ok()?.value);
    names.unwrap_or_default()
}

/// What a scanner has read of processes before ([`Options::details_for`]).
#[derive(Debug, Default)]
pub(super) struct KeptDetails {
    /// By pid and start time.
    of: BTreeMap<(Pid, u64), Kept>,
}

#[derive(Debug)]
struct Kept {
    read: Instant,
    /// What the process was when it was read.
    comm: Label,
    uid: Option<u32>,
    cgroup: Option<Label>,
    details: Option<Box<ProcessDetails>>,
}

impl Kept {
    fn is_of(&self, process: &Process) -> bool {
        (&self.comm, self.uid, &self.cgroup) == (&process.comm, process.uid, &process.cgroup)
    }
}

impl KeptDetails {
    /// Adds the details that the options ask for to all processes of a scan.
    pub(super) fn add(&mut self, root: &Arc<ProcRoot>, options: &Options, processes: &mut [Process]) {
        if options.details_for.is_zero() {
            return add(root, options, options.details, processes.iter_mut());
        }
        let now = Instant::now();
        let mut kept = std::mem::take(&mut self.of);
        let mut new = Vec::new();
        for process in processes {
            let key = (process.pid, process.start_time);
            match kept.remove(&key) {
                Some(kept) if kept.is_of(process) && now - kept.read < options.details_for => {
                    process.details.clone_from(&kept.details);
                    self.of.insert(key, kept);
                }
                _ => new.push(process),
            }
        }
        add(root, options, options.details, new.iter_mut().map(|process| &mut **process));
        for process in new {
            let Process { comm, uid, cgroup, details, .. } = &*process;
            let (comm, cgroup, details) = (comm.clone(), cgroup.clone(), details.clone());
            let kept = Kept { read: now, comm, uid: *uid, cgroup, details };
            self.of.insert((process.pid, process.start_time), kept);
        }
    }
}

/// A process of which the command line is wanted.
#[derive(Clone, Copy)]
struct Asked {
    pid: Pid,
    started: u64,
}

/// All details of one process but those that other files are needed for.
fn of_process(root: &ProcRoot, process: &Process, wanted: Details) -> Option<ProcessDetails> {
    let dir = ProcessDir::open(root, process.pid).ok()?;
    let mut text = Vec::new();
    let mut read = |detail, file: &str| {
        let is_read = wanted.has(detail) && dir.dir().read_record(file, &mut text).is_ok();
        is_read.then(|| std::mem::take(&mut text))
    };
    let mut found = ProcessDetails {
        fd_limit: read(Detail::FdLimit, "limits").and_then(|text| details::fd_limit(&text)),
        rss_shmem: read(Detail::RssShmem, "status").and_then(|text| details::rss_shmem(&text)),
        ..ProcessDetails::default()
    };
    let cgroup = read(Detail::Workload, "cgroup");
    found.workload = cgroup.and_then(|text| workload::path(&text).map(workload::of_path));
    if wanted.has(Detail::Exe) {
        found.exe = details::exe(&dir).ok();
    }
    // The last file that is read: by its start time, everything before it was this process's.
    dir.dir().read_record(c"stat", &mut text).ok()?;
    if wanted.has(Detail::Parent) {
        found.parent = task::parent(&text).ok().flatten().map(Pid);
    }
    is_start(&text, process.start_time).then_some(found)
}

/// Whether the folder is that of a process that started then.
fn is_same(dir: &ProcessDir, started: u64) -> bool {
    let mut text = Vec::new();
    dir.dir().read_record(c"stat", &mut text).is_ok() && is_start(&text, started)
}

/// Whether a line of `stat` is that of a process that started then.
fn is_start(stat: &[u8], started: u64) -> bool {
    task::stat(stat).is_ok_and(|(_, now)| now == started)
}

/// The command line of each process, in the same order.
fn command_lines(root: &Arc<ProcRoot>, options: &Options, asked: Vec<Asked>) -> Vec<Option<Args>> {
    let longest = usize::try_from(options.longest_args.0).unwrap_or(usize::MAX - 1);
    let number = asked.len();
    // Shared with the helper, so that what it has read outlives it. It holds the lock between two
    // reads alone, and is never killed then.
    let lines = Arc::new(Mutex::new(vec![None; number]));
    let mut left: Vec<(usize, Asked)> = asked.into_iter().enumerate().collect();
    let mut slow: BTreeSet<Pid> = BTreeSet::new();
    for _ in 0..MOST_WAITS {
        let (root_of_work, into, work) = (Arc::clone(root), Arc::clone(&lines), left.clone());
        let done = Arc::new(Mutex::new(0));
        let count = Arc::clone(&done);
        let read = move || {
            for (nth, asked) in work {
                let args = command_line(&root_of_work, asked, longest);
                into.lock().unwrap_or_else(PoisonError::into_inner)[nth] = args;
                *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }
        };
        match guard::guarded(options.deadline, read) {
            Ok(Guarded { .. }) => break,
            Err(Stuck { pid, .. }) => {
                slow.extend(pid);
                slow.extend(activity::changing_mappings(root));
                let done = *done.lock().unwrap_or_else(PoisonError::into_inner);
                // The one that it waited for is the next one, whether the helper named it or not.
                left.drain(..(done + 1).min(left.len()));
                left.retain(|(_, asked)| !slow.contains(&asked.pid));
            }
        }
    }
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut *lines)
}

fn command_line(root: &ProcRoot, asked: Asked, longest: usize) -> Option<Args> {
    let dir = ProcessDir::open(root, asked.pid).ok()?;
    let args = details::args(&dir, longest).ok()?;
    is_same(&dir, asked.started).then_some(args)
}

/// Adds to segments the commands of the processes that created and last used them.
pub(super) fn add_segment_users<'b>(root: &ProcRoot, buffers: impl Iterator<Item = &'b mut Buffer>) {
    let mut segments = buffers.filter_map(|buffer| buffer.segment.as_deref_mut()).peekable();
    let Some(clock) = segments.peek().and_then(|_| root.boot_time()).map(Clock::new) else { return };
    for segment in segments {
        let Segment { creator, last, changed, used, .. } = *segment;
        let comm = |pid: Option<Pid>, at: u64| clock.comm_of(root, pid?, at);
        (segment.creator_comm, segment.last_comm) = (comm(creator, changed), comm(last, used));
    }
}

/// Where the filesystems of files are mounted: by lsbuf's own mount table, or else by that of the
/// first process that holds a file there.
pub(super) fn mount_points(root: &ProcRoot, buffers: &[Buffer]) -> BTreeMap<Dev, Label> {
    let table = |folder: &Folder, path: &str| {
        let mut text = Vec::new();
        folder.read_file(path, &mut text).ok().map(|()| Mounts::parse(&text))
    };
    let point = |mounts: &Option<Mounts>, dev| mounts.as_ref()?.path_of(dev, b"");
    let own = table(root.dir(), "self/mountinfo");
    let mut points: BTreeMap<Dev, Option<Vec<u8>>> = BTreeMap::new();
    let is_file = |buffer: &&Buffer| matches!(buffer.id.kind, Kind::Tmpfs | Kind::Hugetlbfs);
    for buffer in buffers.iter().filter(is_file) {
        let Some(dev) = buffer.id.dev else { continue };
        let holder = buffer.holders.first().map(|holder| holder.pid);
        points.entry(dev).or_insert_with(|| {
            let of_holder = || point(&table(ProcessDir::open(root, holder?).ok()?.dir(), "mountinfo"), dev);
            point(&own, dev).or_else(of_holder)
        });
    }
    points.into_iter().filter_map(|(dev, point)| Some((dev, Label::from(&point?[..])))).collect()
}

/// Compares start times with the times of segments.
struct Clock {
    /// Seconds of the wall clock at boot.
    boot: u64,
    /// Clock ticks in a second.
    ticks: u64,
}

impl Clock {
    fn new(boot: u64) -> Clock {
        Clock { boot, ticks: rustix::param::clock_ticks_per_second().max(1) }
    }

    /// The command of the process that has this pid, if it started no later than at a time. Both
    /// times are cut to seconds, so one second more is allowed.
    fn comm_of(&self, root: &ProcRoot, pid: Pid, at: u64) -> Option<Label> {
        let mut text = Vec::new();
        ProcessDir::open(root, pid).ok()?.dir().read_record(c"stat", &mut text).ok()?;
        let (comm, started) = task::stat(&text).ok()?;
        (self.boot.checked_add(started / self.ticks)? <= at.saturating_add(1)).then_some(comm)
    }
}
