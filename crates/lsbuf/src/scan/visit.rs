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

use super::Mappings;
use super::proof::Verdict;
use super::walk::{HeldDevice, HeldFd, HeldMap, Walk};
use crate::kernel::fdinfo_table;
use crate::kernel::fds;
use crate::kernel::map_files;
use crate::kernel::maps::{self, MapFact, Mapped};
use crate::kernel::process::{Image, ProcessDir};
use crate::kernel::read::Buffers;
use crate::kernel::root::ProcRoot;
use crate::kernel::sharing::Sharing;
use crate::model::{Pid, Source, Tid};

/// How often a process is read that keeps replacing its image.
const ATTEMPTS: usize = 4;

/// What reading one process came to.
pub(super) enum Visit {
    /// All of it was read.
    Read,
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
    pub(super) fn visit(
        &mut self,
        root: &ProcRoot,
        pid: Pid,
        mappings: Mappings,
        sharing: &Sharing,
        buffers: &mut Buffers,
    ) -> Visit {
        for _ in 0..ATTEMPTS {
            let process = match ProcessDir::open(root, pid) {
                Ok(process) => process,
                Err(e) => return Visit::of(e),
            };
            if let Some(visit) = self.visit_image(&process, mappings, sharing, buffers) {
                return visit;
            }
        }
        Visit::Failed
    }

    /// Reads one process; `None`: its image was replaced meanwhile, and nothing is kept.
    fn visit_image(
        &mut self,
        process: &ProcessDir,
        mappings: Mappings,
        sharing: &Sharing,
        buffers: &mut Buffers,
    ) -> Option<Visit> {
        let mark = self.mark();
        let image = process.image();
        let threads = process.threads(buffers);
        let tids = threads.as_deref().unwrap_or_default();
        let fds = self.visit_tables(process, tids, sharing, buffers);
        let (maps, image) = match self.visit_maps(process, image, tids, mappings, buffers) {
            Ok(image) => (Ok(()), image),
            // A process without an address space: a kernel thread, or one that is exiting.
            Err(Errno::SRCH) => (Ok(()), None),
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
            if process.is_live() && image.is_some_and(|image| !image.lives()) {
                self.drop_since(&mark);
                self.processes.pop();
                return None;
            }
        }
        Some(match fds.and(maps).and(threads.map(drop)) {
            Ok(()) => Visit::Read,
            // A kernel thread has neither fds nor mappings, whoever asks.
            Err(_) if process.is_kernel_thread(&mut buffers.text) => Visit::Read,
            Err(e) => match Visit::of(e) {
                // It is there, but its files are not: a tree recorded in part.
                Visit::Gone if !process.is_live() || process.identify(&mut buffers.text).is_ok() => {
                    Visit::Failed
                }
                visit => visit,
            },
        })
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

    /// Reads the process's fd table and those of threads that have one of their own.
    fn visit_tables(
        &mut self,
        process: &ProcessDir,
        threads: &[Tid],
        sharing: &Sharing,
        buffers: &mut Buffers,
    ) -> rustix::io::Result<()> {
        let begin = self.fds.len();
        let mut done = self.visit_fds(process, None, buffers);
        let mut tables = vec![Tid(process.pid().0)];
        for &tid in threads {
            let same: Vec<Option<bool>> =
                tables.iter().map(|&table| sharing.of_threads(process, table, tid)).collect();
            if same.contains(&Some(true)) {
                continue;
            }
            let before = self.mark();
            match process.thread(tid).and_then(|thread| self.visit_fds(&thread, Some(tid), buffers)) {
                // The thread has exited.
                Ok(()) | Err(Errno::NOENT | Errno::SRCH) => {}
                Err(e) => done = done.and(Err(e)),
            }
            if same.contains(&None) && self.shows_again(begin, before.fds) {
                // A copy or the same: the same, which threads are born with, and marked.
                if self.fds.len() > before.fds {
                    self.uncompared.insert(process.pid());
                }
                self.drop_since(&before);
            } else {
                tables.push(tid);
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
        let mut table = fds::Table::default();
        let walked = fdinfo_table::walk_any_way(process.dir(), buffers, &mut table, self.elsewhere.as_mut());
        for fact in table.facts {
            let ino = if fact.info.dmabuf.is_some() {
                let ino = self.proof.learn_fd(process.dir(), &fact);
                // A thread's own table is out of reach by the process's id.
                if thread.is_none() {
                    self.proof.duplicate(process, &fact, &mut buffers.text);
                }
                ino
            } else if fact.info.path_only {
                match self.proof.judge_path(process, &fact, &mut buffers.text) {
                    // Its fdinfo has no size, so the inode is asked however it was proven.
                    Verdict::Yes => self.proof.learn_fd(process.dir(), &fact),
                    Verdict::No => continue,
                    Verdict::Unknown => {
                        self.paths.push((pid, thread, fact));
                        continue;
                    }
                }
            } else {
                continue;
            };
            match ino {
                Some(ino) => self.fds.push(HeldFd { pid, thread, ino, fact }),
                None => self.unproven += 1,
            }
        }
        let devices = table.devices.into_iter();
        self.devices.extend(devices.map(|(fd, class, path)| HeldDevice { pid, fd, class, path }));
        self.garble(Source::Fdinfo, table.garbled);
        walked
    }

    /// Reads the address space, through a thread where the leader has exited. Returns what tells whether it still lives.
    fn visit_maps(
        &mut self,
        process: &ProcessDir,
        image: rustix::io::Result<Image>,
        threads: &[Tid],
        mappings: Mappings,
        buffers: &mut Buffers,
    ) -> rustix::io::Result<Option<Image>> {
        // By which `map_files` is reached.
        let mut alone = None;
        let (facts, image) = match mappings {
            Mappings::Maps => {
                let mut read = read_maps(image, buffers);
                for &tid in threads {
                    if !matches!(read, Ok(None) | Err(Errno::SRCH)) {
                        break;
                    }
                    read = read_maps(process.thread(tid).and_then(|thread| thread.image()), buffers);
                    alone = process.thread_alone(tid).ok();
                }
                let Some((image, mapped)) = read? else { return Ok(None) };
                self.garble(Source::Maps, mapped.garbled);
                (mapped.facts, Some(image))
            }
            Mappings::MapFiles => {
                let mut links = Vec::new();
                let garbled = map_files::walk(process.dir(), buffers, &mut links)?;
                self.garble(Source::MapFiles, garbled);
                (self.follow(process.dir(), links), image.ok())
            }
        };
        let process = alone.as_ref().unwrap_or(process);
        let pid = process.pid();
        let mut named = BTreeSet::new();
        for mut fact in facts {
            if fact.name.is_none() && named.insert(fact.ino) {
                fact.name = map_files::name(process.dir(), &fact.vma, &mut buffers.link);
            }
            self.proof.learn_map(process, &fact, &mut buffers.text);
            if self.proof.verdict_on_dev(fact.dev) != Verdict::No {
                self.maps.push(HeldMap { pid, fact });
            }
        }
        Ok(image)
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

/// `None`: there is no address space behind it.
fn read_maps(
    image: rustix::io::Result<Image>,
    buffers: &mut Buffers,
) -> rustix::io::Result<Option<(Image, Mapped)>> {
    let image = image?;
    let mapped = maps::walk(image.maps(), &mut buffers.chunk)?;
    Ok(mapped.map(|mapped| (image, mapped)))
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
