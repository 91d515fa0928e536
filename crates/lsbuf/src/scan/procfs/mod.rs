//! Reads the machine by procfs: the kernel's list of dma-bufs, then every process, then the list
//! again.
//!
//! The two lists show whether a count changed while the processes were read. If only dma-bufs are
//! looked for, the first reading leaves out what is rare and slow to find: fdinfo of sockets and
//! rings and, where the kernel answers queries for mappings (`kernel::procmap`), private mappings.
//! Few exporters allow those and nobody needs them, while all of a process's libraries are mapped
//! privately. If a reference is missed, its buffer has a residual, and the next reading looks
//! everywhere. Without a list the counts of some buffers may be unknown, so the first reading looks
//! everywhere too.
//!
//! Limits: procfs shows no count of shared memory, and shows a buffer only through its holders.

pub(super) mod objects;
mod unheld;

use std::collections::BTreeSet;
use std::sync::Arc;

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};
use crate::kernel::activity::{self, Activity};
use crate::kernel::bufinfo::List;
use crate::kernel::devices;
use crate::kernel::hidden_refs::HiddenRefCounter;
use crate::kernel::pending;
use crate::kernel::procmap::{Queries, VmaFilter};
use crate::kernel::root::{LastPid, ProcRoot};
use crate::kernel::shmem::Filesystems;
use crate::model::{Buffer, Dev, Device, Kind, Note, Pid, Process, Source as Asked, UnheldList};

use super::budget::TimeBudget;
use super::kthreads::KernelThreads;
use super::lists::{self, ListResult};
use super::options::{Mappings, Options};
use super::reading::{Effort, Failed, Interference, Reading, ReadingCoverage, ReadingSource, Segments};
use super::shared::Shared;
use super::space::Reader;
use super::tasks;
use super::walk::{Start, Walk};

/// What is kept between two scans.
#[derive(Debug)]
pub(super) struct Procfs {
    queries: Option<Queries>,
    kernel_threads: KernelThreads,
    /// Whether this kernel counts the fds in connections that are not accepted yet; `None`: not
    /// tried.
    pending_counted: Option<bool>,
    /// The device number of the dma-buf filesystem, which does not change before the next boot.
    dev: Option<Dev>,
    /// As [`Procfs::filesystems`].
    filesystems: Option<Filesystems>,
}

/// A list, and the last pid that the kernel had given out just before and just after it was read.
#[derive(Debug)]
struct Listed {
    last_pid: (Option<LastPid>, Option<LastPid>),
    list: ListResult,
}

impl Procfs {
    /// Finds out what the procfs supports.
    ///
    /// # Errors
    /// If it has no PROCMAP_QUERY and the options allow nothing else.
    pub(super) fn new(root: &ProcRoot, options: &Options) -> Result<Procfs, Error> {
        let queries = match Queries::probe(root) {
            Err(e) if options.sources.mappings == Mappings::Procmap => {
                return Err(Error::io(e, "PROCMAP_QUERY cannot be asked".to_owned()));
            }
            // The text of maps gives the same answer.
            queries => queries.unwrap_or(None),
        };
        if options.sources.mappings == Mappings::Procmap && queries.is_none() {
            let text = format!("{} has no PROCMAP_QUERY (Linux 6.11 and later)", root.path().display());
            return Err(Error::new(ErrorKind::NoSource, text));
        }
        let kernel_threads = KernelThreads::new(queries);
        let filesystems = options.kinds.has_shmem().then(|| Filesystems::of(root));
        Ok(Procfs { queries, kernel_threads, pending_counted: None, dev: None, filesystems })
    }

    /// The filesystems of shared memory, if that is looked for.
    pub(super) fn filesystems(&self) -> Option<&Filesystems> {
        self.filesystems.as_ref()
    }

    /// Whether the kernel answers queries for mappings.
    pub(super) fn can_query(&self) -> bool {
        self.queries.is_some()
    }
}

/// Processes whose mappings are not read.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    pids: BTreeSet<Pid>,
    times: u32,
}

impl LeftOut {
    /// After so many readings that had to wait, no process's mappings are read any more.
    const MOST: u32 = 4;

    /// Adds a process that made a reading wait, and others that may do so next.
    pub(super) fn add(&mut self, pid: Option<Pid>, others: &[Pid]) {
        self.pids.extend(pid);
        self.pids.extend(others);
        self.times += 1;
    }

    fn has(&self, pid: Pid) -> bool {
        self.times >= LeftOut::MOST || self.pids.contains(&pid)
    }
}

/// The readings of one scan by procfs.
#[derive(Debug)]
pub(super) struct ProcfsSource {
    procfs: Box<Procfs>,
    root: Arc<ProcRoot>,
    options: Arc<Options>,
    budget: Option<TimeBudget>,
    left_out: LeftOut,
    /// What the last reading was made from.
    last: Walk,
}

impl ProcfsSource {
    /// With a `budget`, reading stops when that is exceeded, and does not begin without the
    /// kernel's list: residuals would be estimates then.
    pub(super) fn new(
        procfs: Box<Procfs>,
        root: Arc<ProcRoot>,
        options: Arc<Options>,
        budget: Option<TimeBudget>,
        left_out: LeftOut,
    ) -> ProcfsSource {
        ProcfsSource { procfs, root, options, budget, left_out, last: Walk::default() }
    }

    /// What is kept for the next scan.
    pub(super) fn procfs(self) -> Box<Procfs> {
        self.procfs
    }
}

impl ReadingSource for ProcfsSource {
    fn read(&mut self, effort: Effort) -> Result<Reading, Failed> {
        if self.budget.as_ref().is_some_and(TimeBudget::is_exceeded) {
            return Err(Failed::NotWorthIt);
        }
        let listed = self.root.processes()?;
        let look = self.look(&listed, false);
        let before = self.kernel_list();
        if self.budget.is_some() && before.list.is_err() {
            return Err(Failed::NotWorthIt);
        }
        // A missing reference shows only as a residual, and only the list has the count of every
        // buffer.
        let thorough = effort.thorough || !before.list.as_ref().is_ok_and(List::agrees);
        // Without a count, no residual shows that a private mapping of shared memory is missing.
        let all_mappings = thorough || self.procfs.filesystems.is_some();
        let reader = self.reader(if all_mappings { VmaFilter::All } else { VmaFilter::Shared });
        if let Some(budget) = &self.budget {
            budget.begin();
        }
        // Frees the memory of the last reading before the next one.
        self.last = Walk::default();
        let mut walk = self.walk(&listed, reader, thorough, before.list.as_ref().ok())?;
        let after = self.kernel_list();
        let shared = Shared::of(&walk, &self.root);
        let shm_fds = std::mem::take(&mut walk.shm_fds);
        let mut reading = objects::read(
            &walk,
            shm_fds,
            &shared,
            before.list.as_ref().ok(),
            after.list.as_ref().ok(),
            self.options.kinds,
        );
        reading.segments = self.segments(&walk);
        reading.coverage = self.seen(&walk, reader, &after.list, &reading);
        reading.coverage.passed_over = !thorough;
        let processes_started = before.last_pid.0.is_none() || before.last_pid.0 != after.last_pid.1;
        reading.interference = self.interference(look, &walk, effort.calls || walk.shmem_finder.is_some());
        reading.interference.processes_changed |= processes_started;
        reading.interference.moved = walk.table_changed;
        reading.interference.exiting = walk.exiting > 0;
        walk.forget_references();
        self.last = walk;
        Ok(reading)
    }

    fn may_wait(&self, _effort: Effort) -> bool {
        self.root.is_live()
    }

    fn identify(&mut self, pids: &BTreeSet<Pid>) -> Vec<Process> {
        self.last.describe(pids)
    }

    fn devices(&mut self) -> Vec<Device> {
        let sys = self.options.sys_root.as_deref();
        self.last.devices(|node| devices::name(sys?, node))
    }

    fn unheld(&mut self, held: &[Buffer]) -> Option<UnheldList> {
        let wanted = self.options.lists_unheld() && self.root.is_live();
        wanted.then(|| {
            let mut unheld = unheld::unheld_files(&self.root);
            unheld.leave_out(self.options.kinds, held);
            unheld
        })
    }
}

impl ProcfsSource {
    /// How address spaces are read, if mappings of the kind `filter` are looked for.
    fn reader(&self, filter: VmaFilter) -> Reader {
        match (self.options.sources.mappings, self.procfs.queries) {
            (Mappings::Procfs | Mappings::Procmap, Some(_)) => Reader::Query(filter),
            (Mappings::Procfs | Mappings::Procmap, None) | (Mappings::Maps, _) => Reader::Text,
            (Mappings::MapFiles, _) => Reader::Links,
        }
    }

    /// Reads the processes. Only a `thorough` walk looks for references that are in no fd table and
    /// no address space.
    fn walk(
        &mut self,
        processes: &[(Pid, u64)],
        reader: Reader,
        thorough: bool,
        listed: Option<&List>,
    ) -> Result<Walk, Failed> {
        let start = Start {
            root: &self.root,
            reader,
            queries: self.procfs.queries,
            dev: self.procfs.dev,
            budget: self.budget.as_ref(),
            left_out: &|pid| self.left_out.has(pid),
            helpers: &lists::helpers(&self.root),
            listed: processes,
            // If the kernel lists no dma-buf, there is no residual to explain.
            count_hidden: self.procfs.filesystems.is_some()
                || thorough && listed.is_none_or(|list| !list.buffers.is_empty()),
            shmem_kinds: self
                .procfs
                .filesystems
                .as_ref()
                .map(|filesystems| (filesystems, self.options.kinds)),
        };
        let mut walk = Walk::of(&start, &mut self.procfs.kernel_threads)?;
        self.procfs.dev = walk.identity.dev();
        if let Some(hidden) = walk.hidden.as_mut().filter(|_| self.root.is_live()) {
            let counted =
                *self.procfs.pending_counted.get_or_insert_with(|| pending::are_counted(&self.root));
            hidden.unknown |= !counted && pending::are_there(&self.root);
        }
        if listed.is_none() {
            walk.recheck(&self.root);
        }
        Ok(walk)
    }

    fn kernel_list(&mut self) -> Listed {
        let begin = self.root.last_pid();
        let list = lists::read(&self.options);
        Listed { last_pid: (begin, self.root.last_pid()), list }
    }

    /// Reads the activity of every task of these processes, except kernel threads. `None`: it
    /// cannot be read here.
    fn look(&self, listed: &[(Pid, u64)], calls: bool) -> Option<Vec<Activity>> {
        let mut found = Vec::new();
        // In a recorded tree nothing runs.
        let looked_at = listed.iter().filter(|_| self.root.is_live());
        for &(pid, _) in looked_at.filter(|&&(pid, dir)| !self.procfs.kernel_threads.knows(pid, dir)) {
            match activity::of_process(&self.root, pid, calls, &mut found) {
                // It has exited; or it cannot be read, which the walk reports.
                Ok(()) | Err(Errno::NOENT | Errno::SRCH | Errno::PERM | Errno::ACCESS) => {}
                Err(_) => return None,
            }
        }
        Some(found)
    }

    /// Compares the activity before and after the walk. A process that started after the walk shows
    /// in the last pid.
    fn interference(&self, before: Option<Vec<Activity>>, walk: &Walk, calls: bool) -> Interference {
        let after = self.look(&walk.listed, calls);
        let (Some(mut before), Some(mut after)) = (before, after) else { return Interference::default() };
        // Kernel threads hold no buffer, and some of them always run.
        for look in [&mut before, &mut after] {
            look.retain(|task| !walk.kernel_threads.contains(&task.pid));
        }
        let calls_known = calls || !self.root.is_live();
        let own = lists::own_pids(&self.root);
        let changes = tasks::compare(before, after, &own);
        Interference {
            remapped: changes.ran.clone(),
            ran: Some(changes.ran),
            in_call: (calls_known && changes.calls_known).then_some(changes.in_call),
            processes_changed: changes.started,
            ..Interference::default()
        }
    }

    /// The kernel's tables of segments, if they are wanted.
    fn segments(&self, walk: &Walk) -> Segments {
        let mut segments = Segments::default();
        let Some(finder) = walk.shmem_finder.as_ref().filter(|_| self.options.kinds.has(Kind::Sysv)) else {
            return segments;
        };
        let hidden_refs = walk.hidden.as_ref().map(HiddenRefCounter::counts);
        segments.in_flight = hidden_refs.filter(|hidden| hidden.in_flight == 0 && !hidden.unknown).map(|_| 0);
        lists::add_segments(&mut segments, &finder.namespaces, &self.root);
        segments
    }

    fn seen(&self, walk: &Walk, reader: Reader, list: &ListResult, reading: &Reading) -> ReadingCoverage {
        let mut seen = ReadingCoverage {
            sources: vec![Asked::Fd, Asked::Fdinfo, reader.source()],
            processes: walk.counts,
            unreadable: walk.unreadable.clone(),
            gaps: walk.gaps(),
            hidden_refs: walk.hidden.as_ref().map(HiddenRefCounter::counts),
            unread_segments: reading.segments.unread,
            listed: walk.shmem_finder.is_none(),
            ..ReadingCoverage::default()
        };
        seen.gaps.not_whole_machine = !self.root.shows_kernel_threads();
        if self.options.payers && self.options.kinds.has_shmem() {
            seen.notes.push(Note::NoPayers { why: "no BPF iterators are read".to_owned() });
        }
        lists::add(&mut seen, list, self.options.kinds);
        if reading.segments.asked {
            seen.sources.push(Asked::Sysvipc);
        }
        let Some(finder) = &walk.shmem_finder else { return seen };
        if let Some(hidden) = seen.hidden_refs
            && (hidden.in_flight > 0 || hidden.unknown)
        {
            seen.notes.push(Note::HiddenInFlight { fds: hidden.in_flight });
        }
        if finder.unfollowed > 0 {
            seen.notes.push(Note::OnlyFdinfo { processes: finder.unfollowed });
        }
        if finder.refusing > 0 {
            seen.notes.push(Note::Refusing { files: finder.refusing });
        }
        seen
    }
}
