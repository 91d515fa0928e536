//! Reads one process: its fd tables, its address space and its identity.
//!
//! All facts of a visit belong to one process and one program. The process's directory stays open,
//! so that a reused pid cannot get in. `maps` is opened first, and checked at the end: if exec has
//! replaced the address space by then, the facts are dropped and the process is read again.
//!
//! Limits: if two processes share their address space (vfork) and one of them calls exec, that is
//! not noticed.

use std::collections::{BTreeSet, HashSet};
use std::mem::MaybeUninit;

use rustix::io::Errno;

use super::found::{HeldDevice, HeldFd, HeldMap, HeldShmFd, HeldShmMap, Start, Walk, slots};
use crate::kernel::guard;
use crate::kernel::map_files;
use crate::kernel::maps::MapFact;
use crate::kernel::process::{Image, ProcessDir, Stage};
use crate::kernel::read::LINK_ROOM;
use crate::kernel::sharing::{Resource, place};
use crate::kernel::shmem::ShmMap;
use crate::kernel::tree::{Folder, Tree};
use crate::model::{Pid, Source, Tid};
use crate::scan::digest::Digest;
use crate::scan::dmabuf_identity::{IsDmaBuf, Learnt};
use crate::scan::space::{Facts, Reader, Space};

/// How often a process is read that calls exec while it is read.
const ATTEMPTS: usize = 4;

/// How reading one process ended.
pub(super) enum Visit {
    /// All of it was read.
    Read,
    /// It is a kernel thread, which has neither fds nor mappings.
    Kernel,
    /// The caller may not read a part of it.
    Denied,
    /// Reading failed for another reason, or it kept calling exec.
    Failed,
    /// It has exited, and what it held was released.
    Gone,
}

/// How many facts there were when a visit began, or at a point in it.
#[derive(PartialEq, Eq)]
struct FactCounts {
    fds: usize,
    maps: usize,
    devices: usize,
    paths: usize,
    shm_fds: usize,
    shm_maps: usize,
    programs: usize,
}

impl Walk {
    /// Reads one process.
    pub(super) fn visit(&mut self, start: &Start<'_>, pid: Pid) -> Visit {
        guard::now_about(Some(pid));
        for _ in 0..ATTEMPTS {
            let process = match ProcessDir::open(start.root, pid) {
                Ok(process) => process,
                Err(e) => return Visit::of(start.root.tree(), e),
            };
            if let Some(visit) = self.visit_once(&process, start) {
                return visit;
            }
        }
        Visit::Failed
    }

    /// Reads one process. `None`: it called exec meanwhile, and its facts were dropped.
    fn visit_once(&mut self, process: &ProcessDir, start: &Start<'_>) -> Option<Visit> {
        let mark = self.mark();
        let threads = process.threads();
        let tids = threads.as_deref().unwrap_or_default();
        if let Some(finder) = &mut self.shmem_finder {
            finder.enter(process, tids);
        }
        // Opened before the fds are read, and checked afterwards: what was read between belongs to
        // one program.
        let left_out = (start.left_out)(process.pid());
        let mut space = if left_out { Ok(None) } else { self.space(process, process.image(), start.reader) };
        let mut leader_exited = false;
        if matches!(space, Ok(None)) {
            match process.stage() {
                Ok(Stage::Kernel) => return Some(Visit::Kernel),
                Ok(Stage::Exiting) => self.exiting += 1,
                Ok(Stage::Zombie) => leader_exited = true,
                Ok(Stage::Running) if left_out => self.stuck.push(process.pid()),
                Ok(Stage::Running) => {}
                Err(e) if process.tree().says_exited(e) => return Some(Visit::Gone),
                // Its fds may still be readable.
                Err(_) => {}
            }
        }
        for &tid in tids {
            if left_out || !matches!(space, Ok(None)) {
                break;
            }
            space = self.through_thread(process, tid, start);
        }
        let rings = self.rings();
        let fds = self.visit_tables(process, tids, leader_exited, start);
        let (maps, space) = match space {
            Ok(None) => (Ok(()), None),
            Ok(Some(mut space)) => {
                // The process has mapped the ring but has no fd of it, so its registered files
                // cannot be read.
                if space.ring && self.rings() == rings {
                    self.hidden.iter_mut().for_each(|hidden| hidden.unknown = true);
                }
                let facts = std::mem::take(&mut space.facts);
                let shmem = std::mem::take(&mut space.shmem);
                self.visit_shmem(process, &space, shmem);
                self.visit_program(process);
                let followed = self.visit_maps(process, &space, facts);
                self.count_malformed(space.malformed.0, space.malformed.1);
                (followed, Some(space))
            }
            Err(e) => (Err(e), None),
        };
        if self.mark() != mark || self.sync_files.contains_key(&process.pid()) {
            match process.identify() {
                Ok(identity) => self.processes.push(identity),
                Err(e) => {
                    self.drop_since(&mark);
                    self.sync_files.remove(&process.pid());
                    return Some(Visit::of(process.tree(), e));
                }
            }
            if space.is_some_and(|space| !space.lives()) {
                self.drop_since(&mark);
                self.sync_files.remove(&process.pid());
                self.processes.pop();
                return None;
            }
        }
        Some(match fds.and(maps).and(threads.map(drop)) {
            Ok(()) => Visit::Read,
            Err(e) => match Visit::of(process.tree(), e) {
                // A kernel thread has neither fds nor mappings, although reading them is denied.
                Visit::Denied if process.stage() == Ok(Stage::Kernel) => Visit::Kernel,
                // The process exists, but its files do not.
                Visit::Gone if process.identify().is_ok() => Visit::Failed,
                visit => visit,
            },
        })
    }

    fn rings(&self) -> u64 {
        self.hidden.as_ref().map_or(0, |hidden| hidden.rings)
    }

    fn mark(&self) -> FactCounts {
        let (fds, maps) = (self.fds.len(), self.maps.len());
        let (shm_fds, shm_maps) = (self.shm_fds.len(), self.shm_maps.len());
        let (devices, paths, programs) = (self.devices.len(), self.paths.len(), self.programs.len());
        FactCounts { fds, maps, devices, paths, shm_fds, shm_maps, programs }
    }

    fn drop_since(&mut self, mark: &FactCounts) {
        self.fds.truncate(mark.fds);
        self.maps.truncate(mark.maps);
        self.devices.truncate(mark.devices);
        self.paths.truncate(mark.paths);
        self.shm_fds.truncate(mark.shm_fds);
        self.shm_maps.truncate(mark.shm_maps);
        self.programs.truncate(mark.programs);
    }

    /// Reads an address space, and the shared memory in it if that is looked for.
    fn space(
        &mut self,
        process: &ProcessDir,
        image: rustix::io::Result<Image>,
        reader: Reader,
    ) -> rustix::io::Result<Option<Space>> {
        Space::read(
            process,
            image,
            reader,
            &mut self.identity,
            self.shmem_finder.as_mut(),
            &mut self.maps_reader,
        )
    }

    /// Reads the process's fd table, and the table of each thread that has its own.
    /// `leader_exited`: the leader has exited.
    fn visit_tables(
        &mut self,
        process: &ProcessDir,
        threads: &[Tid],
        leader_exited: bool,
        start: &Start<'_>,
    ) -> rustix::io::Result<()> {
        let tree = start.root.tree();
        // What the tables show that were read before, if there may be more than one.
        let mut shown = HashSet::new();
        let begin = self.mark();
        let mut done = self.visit_fds(process, None);
        if !threads.is_empty() {
            shown.insert(self.digest_since(&begin));
        }
        let mut tables = vec![Tid(process.pid().0)];
        for &tid in threads {
            let place = match tree.has_own_fds(process.dir(), tid) {
                Some(own) => Some(if own { Err(tables.len()) } else { Ok(0) }),
                None => place(&tables, tid, &|a, b| tree.compare(Resource::Files, a, b)),
            };
            let before = self.mark();
            if !matches!(place, Some(Ok(_))) {
                match process.thread(tid).and_then(|thread| self.visit_fds(&thread, Some(tid))) {
                    // The thread has exited.
                    Ok(()) | Err(Errno::NOENT | Errno::SRCH) => {}
                    Err(e) => done = done.and(Err(e)),
                }
            }
            match place {
                None => {
                    let digest = self.digest_since(&before);
                    if digest == Digest::default() || shown.contains(&digest) {
                        // Comparing failed, so this may be the same table or a copy. It is taken
                        // for the same, because threads start with the table of their process, and
                        // the process is marked as uncompared.
                        if self.mark() != before {
                            self.uncompared.insert(process.pid());
                        }
                        self.drop_since(&before);
                    } else {
                        shown.insert(digest);
                    }
                }
                Some(Err(at)) => {
                    tables.insert(at, tid);
                    shown.insert(self.digest_since(&before));
                }
                Some(Ok(_)) => {}
            }
            // A table that shows nothing may be one that an exiting thread has given up and not yet
            // closed. Such a thread and an exited leader look like two tasks that share a table.
            // Both have `files == NULL`, which kcmp reports as equal.
            let nothing = self.mark() == before && (leader_exited || !matches!(place, Some(Ok(_))));
            if nothing && process.thread(tid).and_then(|thread| thread.stage()) == Ok(Stage::Exiting) {
                self.exiting += 1;
            }
        }
        done
    }

    /// What the fds since then show.
    fn digest_since(&self, mark: &FactCounts) -> Digest {
        let mut digest = Digest::default();
        slots(self, (mark.fds, mark.shm_fds)).for_each(|(_, slot)| digest.add(&self.hasher, &slot));
        digest
    }

    /// Reads one fd table: the process's own, or that of `thread`; `process` is then the thread's
    /// directory.
    fn visit_fds(&mut self, process: &ProcessDir, thread: Option<Tid>) -> rustix::io::Result<()> {
        let pid = process.pid();
        let mut table = std::mem::take(&mut self.table);
        let walked =
            self.fd_reader.read(process.dir(), &mut table, self.hidden.as_mut(), self.shmem_finder.as_mut());
        for mut fact in table.facts.drain(..) {
            let learnt = if fact.info.dmabuf.is_some() {
                let learnt = self.identity.learn_fd(process, &mut fact);
                // A thread's own table cannot be reached by the process's pid.
                if thread.is_none() {
                    self.identity.duplicate(process, &fact);
                }
                learnt
            } else if fact.info.path_only {
                match self.identity.judge_path(process, &fact) {
                    // The fdinfo of an `O_PATH` fd has no size, so the inode has to be read as
                    // well.
                    IsDmaBuf::Yes => self.identity.learn_fd(process, &mut fact),
                    IsDmaBuf::No => continue,
                    IsDmaBuf::Unknown => {
                        self.paths.push((pid, thread, fact));
                        continue;
                    }
                }
            } else {
                continue;
            };
            match learnt {
                Learnt::Inode(ino) => {
                    if fact.info.dmabuf.is_some() {
                        self.named.insert(ino);
                    }
                    self.fds.push(HeldFd { pid, thread, ino, fact });
                }
                Learnt::Gone => {}
                Learnt::Nothing => self.unproven += 1,
            }
        }
        let devices = table.devices.drain(..);
        self.devices.extend(devices.map(|(fd, class, path)| HeldDevice { pid, fd, class, path }));
        if !table.shmem.is_empty() {
            // There are no more tables than tasks, of which Linux has at most 2^22.
            let number = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
            self.tables.push((pid, thread));
            self.shm_fds.extend(table.shmem.drain(..).map(|fact| HeldShmFd { table: number, fact }));
        }
        match std::mem::take(&mut table.sync_files) {
            0 => {}
            more => *self.sync_files.entry(pid).or_default() += more,
        }
        self.count_malformed(Source::Fdinfo, std::mem::take(&mut table.malformed));
        self.table_changed |= std::mem::take(&mut table.changed);
        self.table = table;
        walked
    }

    /// Reads the address space through one of the threads, where the leader has exited.
    fn through_thread(
        &mut self,
        process: &ProcessDir,
        tid: Tid,
        start: &Start<'_>,
    ) -> rustix::io::Result<Option<Space>> {
        let Ok(thread) = process.thread(tid) else { return Ok(None) };
        // `/proc/TID` has the files that `/proc/PID/task/TID` lacks, such as `map_files`.
        let thread_dir = process.thread_alone(tid).ok();
        let shown = thread_dir.as_ref().unwrap_or(&thread);
        let space = self.space(shown, thread.image(), start.reader)?;
        if space.is_none() && thread.stage() == Ok(Stage::Exiting) {
            self.exiting += 1;
        }
        Ok(space.map(|space| space.through(thread_dir)))
    }

    /// Adds the shared memory that an address space maps.
    fn visit_shmem(&mut self, process: &ProcessDir, space: &Space, maps: Vec<ShmMap>) {
        let (pid, process) = (process.pid(), space.thread_dir().unwrap_or(process));
        for fact in maps {
            if self.shmem_finder.as_mut().is_none_or(|finder| finder.complete(process, &fact)) {
                self.shm_maps.push(HeldShmMap { pid, fact });
            }
        }
    }

    /// Adds the process's program, if it runs from a buffer of shared memory. Nothing else may show
    /// that reference: the program can have unmapped its own text.
    fn visit_program(&mut self, process: &ProcessDir) {
        let Some(finder) = &mut self.shmem_finder else { return };
        let mut room = [MaybeUninit::uninit(); LINK_ROOM];
        if let Ok(link) = process.dir().link(c"exe", &mut room)
            && finder.suspects(link)
            && let Ok(Some(id)) = finder.ask(process.dir(), "exe", link)
        {
            self.programs.push((process.pid(), id));
        }
    }

    /// Adds the dma-bufs among the mappings of an address space.
    fn visit_maps(&mut self, process: &ProcessDir, space: &Space, facts: Facts) -> rustix::io::Result<()> {
        let process = space.thread_dir().unwrap_or(process);
        let facts = match facts {
            Facts::Maps(facts) => facts,
            Facts::Links(links) => self.follow(process.dir(), links),
        };
        let pid = process.pid();
        let mut nameless = BTreeSet::new();
        for mut fact in facts {
            if fact.name.is_none() && !self.named.contains(&fact.ino) && nameless.insert(fact.ino) {
                fact.name = space.name(process, &fact);
            }
            self.identity.learn_map(process, &fact);
            let verdict = self.identity.is_dmabuf_device(fact.dev);
            if verdict == IsDmaBuf::Yes && fact.name.is_some() {
                self.named.insert(fact.ino);
            }
            if verdict != IsDmaBuf::No {
                self.maps.push(HeldMap { pid, fact });
            }
        }
        Ok(())
    }

    fn follow(&mut self, process: &Folder, links: Vec<map_files::LinkFact>) -> Vec<MapFact> {
        let mut facts = Vec::new();
        for link in links {
            match self.identity.follow(process, &link.vma) {
                Ok(Some((dev, ino))) => {
                    facts.push(MapFact { dev, ino, name: Some(link.name), vma: link.vma });
                }
                // Not a dma-buf despite its name, or unmapped by now.
                Ok(None) | Err(Errno::NOENT) => {}
                Err(_) => self.unproven += 1,
            }
        }
        facts
    }
}

impl Visit {
    fn of(tree: &dyn Tree, error: Errno) -> Visit {
        match error {
            gone if tree.says_exited(gone) => Visit::Gone,
            Errno::ACCESS | Errno::PERM => Visit::Denied,
            _ => Visit::Failed,
        }
    }
}
