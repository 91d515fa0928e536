//! One process read: its fd tables, its address space, who it is.
//!
//! All facts of a visit are of one process and one program image: the process's directory stays open, so a recycled pid
//! cannot slip in, and the `maps` that was opened first is asked at the end whether its address space still lives; if an
//! exec has replaced it, what was found is dropped and the process is read again.
//!
//! Limits: an exec by one of two processes that share their address space (vfork) does not show.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::proof::{Learnt, Verdict};
use super::shared;
use super::space::{Facts, Space};
use super::walk::{HeldDevice, HeldFd, HeldMap, Start, Walk};
use crate::kernel::fdinfo_table;
use crate::kernel::map_files;
use crate::kernel::maps::MapFact;
use crate::kernel::process::{ProcessDir, Stage};
use crate::kernel::read::Buffers;
use crate::kernel::sharing::Resource;
use crate::model::{Pid, Source, Tid};

/// How often a process is read that keeps replacing its image.
const ATTEMPTS: usize = 4;

/// What reading one process came to.
pub(super) enum Visit {
    /// All of it was read.
    Read,
    /// It is a kernel thread, which has neither fds nor mappings.
    Kernel,
    /// Something was refused.
    Denied,
    /// Something went wrong, or it never held still.
    Failed,
    /// It has exited; what it held went with it.
    Gone,
}

/// How many facts there were before a visit.
#[derive(PartialEq, Eq)]
struct Mark {
    fds: usize,
    maps: usize,
    devices: usize,
    paths: usize,
}

impl Walk {
    /// Reads one process.
    pub(super) fn visit(&mut self, start: &Start<'_>, pid: Pid, buffers: &mut Buffers) -> Visit {
        for _ in 0..ATTEMPTS {
            let process = match ProcessDir::open(start.root, pid) {
                Ok(process) => process,
                Err(e) => return Visit::of(e),
            };
            if let Some(visit) = self.visit_image(&process, start, buffers) {
                return visit;
            }
        }
        Visit::Failed
    }

    /// Reads one process; `None`: its image was replaced meanwhile, and nothing is kept.
    fn visit_image(
        &mut self,
        process: &ProcessDir,
        start: &Start<'_>,
        buffers: &mut Buffers,
    ) -> Option<Visit> {
        let mark = self.mark();
        // Before the fds, so that what is read between the two ends of this belongs together.
        let mut space = Space::read(process, process.image(), start.reader, &mut self.proof, buffers);
        let mut leaderless = false;
        if matches!(space, Ok(None)) {
            match process.stage(&mut buffers.text) {
                Ok(Stage::Kernel) => return Some(Visit::Kernel),
                Ok(Stage::Exiting) => self.exiting += 1,
                Ok(Stage::Zombie) => leaderless = true,
                Ok(Stage::Running) => {}
                // A tree recorded in part.
                Err(_) if !process.is_live() => {}
                Err(e) => return Some(Visit::of(e)),
            }
        }
        let threads = process.threads(buffers);
        let tids = threads.as_deref().unwrap_or_default();
        for &tid in tids {
            if !matches!(space, Ok(None)) {
                break;
            }
            space = self.through_thread(process, tid, start, buffers);
        }
        let rings = self.rings();
        let fds = self.visit_tables(process, tids, leaderless, start, buffers);
        let (maps, space) = match space {
            Ok(None) => (Ok(()), None),
            Ok(Some(mut space)) => {
                // Kept by its mapping alone, and what is registered with it does not show.
                if space.ring && self.rings() == rings {
                    self.elsewhere.iter_mut().for_each(|elsewhere| elsewhere.unknown = true);
                }
                let facts = std::mem::take(&mut space.facts);
                let followed = self.visit_maps(process, &space, facts, buffers);
                self.garble(space.garbled.0, space.garbled.1);
                (followed, Some(space))
            }
            Err(e) => (Err(e), None),
        };
        if self.mark() != mark {
            match process.identify(&mut buffers.text) {
                Ok(identity) => self.processes.push(identity),
                Err(e) => {
                    self.drop_since(&mark);
                    return Some(if process.is_live() { Visit::of(e) } else { Visit::Failed });
                }
            }
            if process.is_live() && space.is_some_and(|space| !space.lives()) {
                self.drop_since(&mark);
                self.processes.pop();
                return None;
            }
        }
        Some(match fds.and(maps).and(threads.map(drop)) {
            Ok(()) => Visit::Read,
            Err(e) => match Visit::of(e) {
                // A kernel thread has neither fds nor mappings, whoever asks.
                Visit::Denied if process.stage(&mut buffers.text) == Ok(Stage::Kernel) => Visit::Kernel,
                // It is there, but its files are not: a tree recorded in part.
                Visit::Gone if !process.is_live() || process.identify(&mut buffers.text).is_ok() => {
                    Visit::Failed
                }
                visit => visit,
            },
        })
    }

    fn rings(&self) -> u64 {
        self.elsewhere.as_ref().map_or(0, |elsewhere| elsewhere.rings)
    }

    fn mark(&self) -> Mark {
        let (fds, maps) = (self.fds.len(), self.maps.len());
        Mark { fds, maps, devices: self.devices.len(), paths: self.paths.len() }
    }

    fn drop_since(&mut self, mark: &Mark) {
        self.fds.truncate(mark.fds);
        self.maps.truncate(mark.maps);
        self.devices.truncate(mark.devices);
        self.paths.truncate(mark.paths);
    }

    /// Reads the process's fd table and those of threads that have one of their own. `leaderless`: the leader has exited.
    fn visit_tables(
        &mut self,
        process: &ProcessDir,
        threads: &[Tid],
        leaderless: bool,
        start: &Start<'_>,
        buffers: &mut Buffers,
    ) -> rustix::io::Result<()> {
        let sharing = start.sharing;
        let begin = self.fds.len();
        let mut done = self.visit_fds(process, None, buffers);
        let mut tables = vec![Tid(process.pid().0)];
        for &tid in threads {
            let place = match sharing.recorded_own_table(process, tid) {
                Some(own) => Some(if own { Err(tables.len()) } else { Ok(0) }),
                None => shared::place(&tables, tid, &|a, b| sharing.of_tasks(Resource::Files, a, b)),
            };
            let before = self.mark();
            if !matches!(place, Some(Ok(_))) {
                match process.thread(tid).and_then(|thread| self.visit_fds(&thread, Some(tid), buffers)) {
                    // The thread has exited.
                    Ok(()) | Err(Errno::NOENT | Errno::SRCH) => {}
                    Err(e) => done = done.and(Err(e)),
                }
            }
            match place {
                None if self.shows_again(begin, before.fds) => {
                    // A copy or the same: the same, which threads are born with, and marked.
                    if self.fds.len() > before.fds {
                        self.uncompared.insert(process.pid());
                    }
                    self.drop_since(&before);
                }
                Some(Err(at)) => tables.insert(at, tid),
                None | Some(Ok(_)) => {}
            }
            // A table that shows nothing may be one that an exiting thread has parted with and not yet closed. Such a thread
            // shares its want of a table with a leader that has exited.
            let nothing = self.mark() == before && (leaderless || !matches!(place, Some(Ok(_))));
            if nothing
                && process.is_live()
                && process.thread(tid).and_then(|thread| thread.stage(&mut buffers.text))
                    == Ok(Stage::Exiting)
            {
                self.exiting += 1;
            }
        }
        done
    }

    /// Whether the facts from `facts` on are those of one of the process's tables before, which begin at `begin`.
    fn shows_again(&self, begin: usize, facts: usize) -> bool {
        let slots = |table: &[HeldFd]| -> BTreeSet<_> { table.iter().map(|h| (h.fact.fd, h.ino)).collect() };
        let again = slots(&self.fds[facts..]);
        let mut tables = self.fds[begin..facts].chunk_by(|a, b| a.thread == b.thread);
        again.is_empty() || tables.any(|table| slots(table) == again)
    }

    /// Reads one fd table: the process's, or that of `thread`, whose directory `process` then is.
    fn visit_fds(
        &mut self,
        process: &ProcessDir,
        thread: Option<Tid>,
        buffers: &mut Buffers,
    ) -> rustix::io::Result<()> {
        let pid = process.pid();
        let mut table = std::mem::take(&mut self.table);
        let walked = fdinfo_table::walk_any_way(process.dir(), buffers, &mut table, self.elsewhere.as_mut());
        for mut fact in table.facts.drain(..) {
            let learnt = if fact.info.dmabuf.is_some() {
                let learnt = self.proof.learn_fd(process, &mut fact, &mut buffers.text);
                // A thread's own table is out of reach by the process's id.
                if thread.is_none() {
                    self.proof.duplicate(process, &fact, &mut buffers.text);
                }
                learnt
            } else if fact.info.path_only {
                match self.proof.judge_path(process, &fact, &mut buffers.text) {
                    // Its fdinfo has no size, so the inode is asked however it was proven.
                    Verdict::Yes => self.proof.learn_fd(process, &mut fact, &mut buffers.text),
                    Verdict::No => continue,
                    Verdict::Unknown => {
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
        self.garble(Source::Fdinfo, std::mem::take(&mut table.garbled));
        self.restless |= std::mem::take(&mut table.closed);
        self.table = table;
        walked
    }

    /// The address space as one of the threads shows it, where the leader has exited.
    fn through_thread(
        &mut self,
        process: &ProcessDir,
        tid: Tid,
        start: &Start<'_>,
        buffers: &mut Buffers,
    ) -> rustix::io::Result<Option<Space>> {
        let Ok(thread) = process.thread(tid) else { return Ok(None) };
        // What is not below `task`.
        let alone = process.thread_alone(tid).ok();
        let shown = alone.as_ref().unwrap_or(&thread);
        let space = Space::read(shown, thread.image(), start.reader, &mut self.proof, buffers)?;
        if space.is_none() && thread.stage(&mut buffers.text) == Ok(Stage::Exiting) {
            self.exiting += 1;
        }
        Ok(space.map(|space| space.through(alone)))
    }

    /// Decides on what an address space maps, which gave these facts.
    fn visit_maps(
        &mut self,
        process: &ProcessDir,
        space: &Space,
        facts: Facts,
        buffers: &mut Buffers,
    ) -> rustix::io::Result<()> {
        let process = space.alone().unwrap_or(process);
        let facts = match facts {
            Facts::Maps(facts) => facts,
            Facts::Links(links) => self.follow(process.dir(), links),
        };
        let pid = process.pid();
        let mut nameless = BTreeSet::new();
        for mut fact in facts {
            if fact.name.is_none() && !self.named.contains(&fact.ino) && nameless.insert(fact.ino) {
                fact.name = space.name(process, &fact, buffers);
            }
            self.proof.learn_map(process, &fact, &mut buffers.text);
            let verdict = self.proof.verdict_on_dev(fact.dev);
            if verdict == Verdict::Yes && fact.name.is_some() {
                self.named.insert(fact.ino);
            }
            if verdict != Verdict::No {
                self.maps.push(HeldMap { pid, fact });
            }
        }
        Ok(())
    }

    fn follow(&mut self, process: BorrowedFd<'_>, links: Vec<map_files::LinkFact>) -> Vec<MapFact> {
        let mut facts = Vec::new();
        for link in links {
            match self.proof.follow(process, &link.vma) {
                Ok(Some((dev, ino))) => {
                    facts.push(MapFact { dev, ino, name: Some(link.name), vma: link.vma });
                }
                // Something else of that name, or unmapped by now.
                Ok(None) | Err(Errno::NOENT) => {}
                Err(_) => self.unproven += 1,
            }
        }
        facts
    }
}

impl Visit {
    fn of(error: Errno) -> Visit {
        match error {
            Errno::NOENT | Errno::SRCH => Visit::Gone,
            Errno::ACCESS | Errno::PERM => Visit::Denied,
            _ => Visit::Failed,
        }
    }
}
