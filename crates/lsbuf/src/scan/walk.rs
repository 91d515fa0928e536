//! One pass over the processes: every reference that can be proven, and what could not be read.
//!
//! A process's directory stays open while it is read, so all its facts are of one process. Processes that
//! appear during the pass are read too: a child that inherited an fd must not look like the kernel.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::Mappings;
use super::proof::{Proof, Verdict};
use crate::kernel::elsewhere::Elsewhere;
use crate::kernel::fdinfo::{self, DmaBufInfo};
use crate::kernel::fds::{self, FdFact};
use crate::kernel::map_files;
use crate::kernel::maps::{self, MapFact};
use crate::kernel::process::ProcessDir;
use crate::kernel::read::{self, Buffers};
use crate::kernel::root::ProcRoot;
use crate::model::{Buffer, Inode, Note, Pid, Process, ProcessCounts, Source};

/// How often the listing of processes is repeated for newcomers. Each repetition reads only those, so a
/// machine that forks all the time is followed for a few generations and then let go.
const GENERATIONS: usize = 4;

/// An fd proven to be a dma-buf's.
#[derive(Debug)]
pub(super) struct HeldFd {
    pub(super) pid: Pid,
    pub(super) ino: Inode,
    pub(super) fact: FdFact,
}

/// A mapping that looks like a dma-buf's; [`Proof::verdict_on_dev`] decides when the pass is over.
#[derive(Debug)]
pub(super) struct HeldMap {
    pub(super) pid: Pid,
    pub(super) fact: MapFact,
}

/// What one pass found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) fds: Vec<HeldFd>,
    pub(super) maps: Vec<HeldMap>,
    pub(super) proof: Proof,
    /// Those that may hold something, ordered by pid.
    pub(super) processes: Vec<Process>,
    pub(super) counts: ProcessCounts,
    /// A second reading of each buffer's count, where one was asked for.
    pub(super) rechecked: BTreeMap<Inode, u64>,
    /// `None`: not looked for.
    pub(super) elsewhere: Option<Elsewhere>,
    denied: u64,
    failed: u64,
    unproven: u64,
    /// Processes that appeared when the last generation had been read.
    newcomers: u64,
    garbled: BTreeMap<Source, u64>,
}

/// What reading one process came to.
enum Visit {
    Read,
    Denied,
    Failed,
    Gone,
}

impl Walk {
    /// Walks every process of `root`; looks for references elsewhere if asked.
    pub(super) fn of(
        root: &ProcRoot,
        mappings: Mappings,
        look_elsewhere: bool,
        buffers: &mut Buffers,
    ) -> io::Result<Walk> {
        let mut walk = Walk {
            proof: Proof::new(root.recorded_dev()),
            elsewhere: look_elsewhere.then(Elsewhere::default),
            ..Walk::default()
        };
        let mut seen: HashSet<Pid> = HashSet::new();
        for generation in 0.. {
            let newcomers: Vec<Pid> =
                root.pids(buffers)?.into_iter().filter(|&pid| seen.insert(pid)).collect();
            if newcomers.is_empty() {
                break;
            }
            if generation == GENERATIONS {
                walk.newcomers = newcomers.len() as u64;
                break;
            }
            for pid in newcomers {
                walk.counts.total += 1;
                match walk.visit(root, pid, mappings, buffers) {
                    Visit::Read => walk.counts.read += 1,
                    Visit::Gone => walk.counts.vanished += 1,
                    Visit::Denied => walk.denied += 1,
                    Visit::Failed => walk.failed += 1,
                }
            }
        }
        walk.counts.unreadable = walk.denied + walk.failed;
        walk.processes.sort_by_key(|p| p.pid);
        Ok(walk)
    }

    /// Reads each buffer's count once more, through one of its fds.
    pub(super) fn recheck(&mut self, root: &ProcRoot, buffers: &mut Buffers) {
        for held in &self.fds {
            if held.fact.info.dmabuf.is_none() || self.rechecked.contains_key(&held.ino) {
                continue;
            }
            let again = ProcessDir::open(root, held.pid)
                .and_then(|p| {
                    read::record(p.dir(), fds::fdinfo_path(held.fact.fd).as_str(), &mut buffers.text)
                })
                .ok()
                .and_then(|()| fdinfo::parse(&buffers.text).ok());
            if let Some(info) = again
                && info.ino == held.fact.info.ino
                && let Some(DmaBufInfo { count, .. }) = info.dmabuf
            {
                self.rechecked.insert(held.ino, count);
            }
        }
    }

    /// Whether a mapping is a dma-buf's, by all that the pass learnt.
    pub(super) fn is_dmabuf(&self, map: &HeldMap) -> bool {
        self.proof.verdict_on_dev(map.fact.dev) == Verdict::Yes
    }

    /// The processes that hold one of those buffers.
    pub(super) fn holders_of(&self, buffers: &[Buffer]) -> Vec<Process> {
        let pids: BTreeSet<Pid> = buffers.iter().flat_map(|b| &b.holders).map(|h| h.pid).collect();
        self.processes.iter().filter(|p| pids.contains(&p.pid)).cloned().collect()
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

    fn visit(&mut self, root: &ProcRoot, pid: Pid, mappings: Mappings, buffers: &mut Buffers) -> Visit {
        let process = match ProcessDir::open(root, pid) {
            Ok(process) => process,
            Err(e) => return Visit::of(e),
        };
        let (fds_before, maps_before) = (self.fds.len(), self.maps.len());
        let fds = self.visit_fds(&process, pid, buffers);
        let maps = match self.visit_maps(&process, pid, mappings, buffers) {
            // A process without an address space: a kernel thread, or one that is exiting.
            Err(Errno::SRCH) => Ok(()),
            done => done,
        };
        if self.fds.len() > fds_before || self.maps.len() > maps_before {
            match process.identify(&mut buffers.text) {
                Ok(identity) => self.processes.push(identity),
                Err(e) => {
                    self.fds.truncate(fds_before);
                    self.maps.truncate(maps_before);
                    return if root.is_live() { Visit::of(e) } else { Visit::Failed };
                }
            }
        }
        match fds.and(maps) {
            Ok(()) => Visit::Read,
            // A kernel thread has neither fds nor mappings, whoever asks.
            Err(_) if process.is_kernel_thread(&mut buffers.text) => Visit::Read,
            Err(e) => match Visit::of(e) {
                // It is there, but its files are not: a tree recorded in part.
                Visit::Gone if !root.is_live() || process.identify(&mut buffers.text).is_ok() => {
                    Visit::Failed
                }
                visit => visit,
            },
        }
    }

    fn visit_fds(&mut self, process: &ProcessDir, pid: Pid, buffers: &mut Buffers) -> rustix::io::Result<()> {
        let mut facts = Vec::new();
        let walked = fds::walk(process.dir(), buffers, &mut facts, self.elsewhere.as_mut());
        for fact in facts {
            let ino = if fact.info.dmabuf.is_some() {
                self.proof.learn_fd(process.dir(), &fact)
            } else if fact.info.path_only {
                match self.proof.judge_path(process, &fact, &mut buffers.text) {
                    Verdict::Yes => fact.info.ino.or_else(|| self.proof.learn_fd(process.dir(), &fact)),
                    Verdict::No => continue,
                    Verdict::Unknown => None,
                }
            } else {
                continue;
            };
            match ino {
                Some(ino) => self.fds.push(HeldFd { pid, ino, fact }),
                None => self.unproven += 1,
            }
        }
        // What was read before an error is true all the same.
        walked.map(|garbled| self.garble(Source::Fdinfo, garbled))
    }

    fn visit_maps(
        &mut self,
        process: &ProcessDir,
        pid: Pid,
        mappings: Mappings,
        buffers: &mut Buffers,
    ) -> rustix::io::Result<()> {
        let mut facts = Vec::new();
        match mappings {
            Mappings::Maps => {
                let garbled = maps::walk(process.dir(), &mut buffers.chunk, &mut facts)?;
                self.garble(Source::Maps, garbled);
            }
            Mappings::MapFiles => {
                let mut links = Vec::new();
                let garbled = map_files::walk(process.dir(), buffers, &mut links)?;
                self.garble(Source::MapFiles, garbled);
                facts.extend(self.follow(process.dir(), links));
            }
        }
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

    fn garble(&mut self, source: Source, facts: u64) {
        if facts > 0 {
            *self.garbled.entry(source).or_default() += facts;
        }
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
