//! One pass over all processes by procfs: finds every reference that can be proven, and notes what
//! could not be read.
//!
//! Processes that start during the pass are read too, because a child may have inherited an fd,
//! which would otherwise count as the kernel's. `visit` reads one process, `found` has what a pass
//! starts from and what it finds. Where the kernel's list of dma-bufs cannot be read, each count is
//! read once more after the pass, through an fd, to see whether it changed.
//!
//! Limits: on a machine that forks all the time, only a few generations of new processes are
//! followed; the others are reported as a gap.

mod found;
mod visit;

use std::collections::HashMap;

#[cfg(feature = "bench")]
pub(super) use found::HeldMap;
pub(super) use found::{HeldFd, HeldShmFd, SlotFile, Start, TableOwner, Walk, WalkError, by_node, slots};
use visit::Visit;

use super::dmabuf_identity::{DmaBufIdentity, IsDmaBuf};
use super::kthreads::KernelThreads;
use crate::kernel::fdinfo::{self, DmaBufInfo};
use crate::kernel::fds;
use crate::kernel::hidden_refs::HiddenRefCounter;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::ShmemFinder;
use crate::model::Pid;

/// How often the processes are listed again to find new ones. Each time only the new ones are read.
const GENERATIONS: usize = 4;

impl Walk {
    /// Reads every process except known kernel threads.
    pub(super) fn of(start: &Start<'_>, kernel_threads: &mut KernelThreads) -> Result<Walk, WalkError> {
        let mut walk = Walk {
            identity: DmaBufIdentity::new(start.root, start.dev, start.queries),
            hidden: start.count_hidden.then(HiddenRefCounter::default),
            shmem_finder: start
                .shmem_kinds
                .map(|(filesystems, kinds)| ShmemFinder::new(kinds, filesystems.clone())),
            ..Walk::default()
        };
        let mut seen: HashMap<Pid, u64> = HashMap::new();
        let mut listed = start.listed.to_vec();
        for generation in 0.. {
            if generation > 0 {
                listed = start.root.processes()?;
            }
            listed.retain(|(pid, _)| !start.helpers.contains(pid));
            let mut new_processes = Vec::new();
            for &(pid, directory) in &listed {
                match seen.insert(pid, directory) {
                    Some(before) if before == directory => {}
                    Some(_) => {
                        // The pid was reused: the earlier process has exited, and what it held was
                        // released.
                        walk.forget(pid);
                        new_processes.push((pid, directory));
                    }
                    None => new_processes.push((pid, directory)),
                }
            }
            if new_processes.is_empty() {
                break;
            }
            if generation == GENERATIONS {
                walk.new_processes = new_processes.len() as u64;
                break;
            }
            for &(pid, directory) in &new_processes {
                walk.counts.total += 1;
                let known = kernel_threads.knows(pid, directory);
                let visit = if known { Visit::Kernel } else { walk.visit(start, pid) };
                if let Some(budget) = start.budget {
                    budget.done_with(pid);
                    if budget.is_exceeded() {
                        return Err(WalkError::NotWorthIt);
                    }
                }
                match visit {
                    Visit::Read => walk.counts.read += 1,
                    Visit::Kernel => {
                        walk.counts.read += 1;
                        walk.kernel_threads.insert(pid);
                        kernel_threads.remember(pid, directory);
                    }
                    Visit::Gone => walk.counts.vanished += 1,
                    Visit::Denied => walk.denied += 1,
                    Visit::Failed => walk.failed += 1,
                }
                if matches!(visit, Visit::Denied | Visit::Failed) {
                    walk.unreadable.push(pid);
                    // The answer cannot be complete any more.
                    if start.budget.is_some() {
                        return Err(WalkError::NotWorthIt);
                    }
                }
            }
        }
        kernel_threads.keep(&seen);
        walk.listed = listed;
        walk.counts.unreadable = walk.denied + walk.failed;
        walk.unreadable.sort_unstable();
        walk.unreadable.dedup();
        walk.judge_paths();
        walk.processes.sort_by_key(|p| p.pid);
        Ok(walk)
    }

    /// Decides on the `O_PATH` fds for which the dma-buf filesystem's mount was not known in time.
    fn judge_paths(&mut self) {
        for (pid, thread, fact) in std::mem::take(&mut self.paths) {
            match (self.identity.is_dmabuf_mount(fact.info.mnt_id), fact.info.ino) {
                (IsDmaBuf::Yes, Some(ino)) => self.fds.push(HeldFd { pid, thread, ino, fact }),
                (IsDmaBuf::No, _) => {}
                (IsDmaBuf::Yes, None) | (IsDmaBuf::Unknown, _) => self.unproven += 1,
            }
        }
    }

    /// Reads each dma-buf's count once more, through one of its fds.
    pub(super) fn recheck(&mut self, root: &ProcRoot) {
        let mut text = Vec::new();
        for held in &self.fds {
            if held.fact.info.dmabuf.is_none() || self.rechecked.contains_key(&held.ino) {
                continue;
            }
            let again = ProcessDir::open(root, held.pid)
                .and_then(|process| match held.thread {
                    Some(tid) => process.thread(tid),
                    None => Ok(process),
                })
                .and_then(|p| p.dir().read_record(fds::fdinfo_path(held.fact.fd).as_str(), &mut text))
                .ok()
                .and_then(|()| fdinfo::parse(&text).ok());
            let before = &held.fact.info;
            let same = |now: &DmaBufInfo, was: &DmaBufInfo| {
                now.size == was.size && now.exporter == was.exporter && now.name == was.name
            };
            if let (Some(info), Some(was)) = (again, &before.dmabuf)
                && info.ino == before.ino
                && let Some(now) = info.dmabuf
                // fdinfo shows no inode number, so the fd may refer to another buffer by now.
                && (info.ino.is_some() || same(&now, was))
            {
                self.rechecked.insert(held.ino, now.count);
            }
        }
    }
}
