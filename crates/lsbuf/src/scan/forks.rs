//! Whether references that are left over may be those of a child that is being forked.
//!
//! A fork has copied its parent's fds and mappings long before the child is listed or counted (`copy_process` in kernel/fork.c),
//! and the parent may lose the processor in between for as long as others keep it busy: no pause between rounds is proof against
//! that. But the parent is a holder, neither sleeps interruptibly nor runs its program meanwhile, and ends with one more fork
//! that the kernel has counted. So after a round every thread of those who hold a buffer with references left over is looked at
//! until it has been seen at rest; if the kernel has counted no fork since before the round, none was under way in it.
//!
//! Limits: a fork that fails after it has copied is not counted. What else a holder is in the middle of, a dup for one, is told
//! by the pause before the round alone. A call that sleeps with a reference of its own (poll, an ioctl that waits for a fence)
//! keeps it for that long, and it is the kernel's, as whatever else the kernel keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::settle::has_rest;
use crate::kernel::process::{ProcessDir, Pulse};
use crate::kernel::read::Buffers;
use crate::kernel::root::{Forks, ProcRoot};
use crate::model::{Buffer, Pid, Tid};

/// So far apart are the end of a round and the one that is to confirm what it left over.
pub(super) const APART: Duration = Duration::from_millis(20);

/// How long a scan waits in all for holders to come to rest.
const PATIENCE: Duration = Duration::from_millis(250);

/// The first time between two looks, and the longest.
const STEPS: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(8));

/// Watches over the rounds of one scan.
#[derive(Debug)]
pub(super) struct Watch<'s> {
    root: &'s ProcRoot,
    patience: Duration,
    /// The forks counted when the present round began, if that could be asked; `None`: it is not one that confirms another.
    before: Option<Option<Forks>>,
}

impl<'s> Watch<'s> {
    /// No round was made yet.
    pub(super) fn new(root: &'s ProcRoot) -> Watch<'s> {
        Watch { root, patience: PATIENCE, before: None }
    }

    /// Waits for the time of a round that is to confirm what an earlier one left over. A recorded tree stands still.
    pub(super) fn pause(&mut self, scratch: &mut Buffers) {
        if self.root.is_live() {
            sleep(APART);
            self.before = Some(self.root.forks(&mut scratch.text));
        }
    }

    /// After a round that confirms another: who may have been forking in it, among the holders of buffers with references left
    /// over.
    pub(super) fn forking(&mut self, buffers: &[Buffer], scratch: &mut Buffers) -> BTreeSet<Pid> {
        let with_rest = buffers.iter().filter(|buffer| has_rest(buffer));
        let mut left: BTreeSet<Pid> = with_rest.flat_map(|b| &b.holders).map(|holder| holder.pid).collect();
        let Some(before) = self.before.filter(|_| !left.is_empty()) else { return BTreeSet::new() };
        let begun = Instant::now();
        let mut busy = Busy::of(self.root, &left, scratch);
        let mut step = STEPS.0;
        // Who was at rest at the latest look proves nothing if it may have ended a fork before that.
        while before.is_some() && self.root.forks(&mut scratch.text) == before {
            left = busy.pids();
            if left.is_empty() || begun.elapsed() >= self.patience {
                break;
            }
            sleep(step);
            step = STEPS.1.min(step * 2);
            busy.look_again(self.root, scratch);
        }
        self.patience = self.patience.saturating_sub(begun.elapsed());
        left
    }
}

/// Tasks that have not been seen at rest, by process; of a process that cannot be asked none is known.
#[derive(Debug)]
struct Busy(BTreeMap<Pid, Option<Vec<(Tid, Pulse)>>>);

impl Busy {
    /// Those of some processes, at a first look.
    fn of(root: &ProcRoot, pids: &BTreeSet<Pid>, scratch: &mut Buffers) -> Busy {
        let mut busy = Busy(pids.iter().map(|&pid| (pid, tasks(root, pid, scratch).ok())).collect());
        busy.drop_resting();
        busy
    }

    fn look_again(&mut self, root: &ProcRoot, scratch: &mut Buffers) {
        for (&pid, tasks) in &mut self.0 {
            let (Some(tasks), Ok(process)) = (tasks, ProcessDir::open(root, pid)) else { continue };
            tasks.retain(|(tid, before)| match process.pulse(*tid, &mut scratch.text) {
                Ok(now) => !now.is_past(before),
                // It has exited.
                Err(Errno::NOENT | Errno::SRCH) => false,
                Err(_) => true,
            });
        }
        self.drop_resting();
    }

    fn drop_resting(&mut self) {
        self.0.retain(|_, tasks| tasks.as_ref().is_none_or(|tasks| !tasks.is_empty()));
    }

    fn pids(&self) -> BTreeSet<Pid> {
        self.0.keys().copied().collect()
    }
}

/// The tasks of a process that are not at rest.
fn tasks(root: &ProcRoot, pid: Pid, scratch: &mut Buffers) -> rustix::io::Result<Vec<(Tid, Pulse)>> {
    let process = ProcessDir::open(root, pid)?;
    let mut tids = process.threads(scratch)?;
    tids.push(Tid(pid.0));
    let mut tasks = Vec::new();
    for tid in tids {
        match process.pulse(tid, &mut scratch.text) {
            Ok(pulse) if !pulse.is_at_rest() => tasks.push((tid, pulse)),
            Ok(_) | Err(Errno::NOENT | Errno::SRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Writes a task's stat.
    fn task(root: &Path, (pid, tid): (u32, u32), state: &str, user: u64) {
        let folder = root.join(format!("{pid}/task/{tid}"));
        fs::create_dir_all(&folder).unwrap();
        let stat = format!("{tid} (x) {state} 1 7 7 0 -1 64 0 0 0 0 {user} 9 0 0 20 0 1 0 4711 0\n");
        fs::write(folder.join("stat"), stat).unwrap();
    }

    /// Check that a process counts as busy until each of its threads has been seen at rest or has run its program or has exited,
    /// at whatever look; one that cannot be asked always does.
    #[test]
    fn each_thread_comes_to_rest() {
        let folder = tempfile::tempdir().unwrap();
        let tree = folder.path();
        fs::create_dir_all(tree.join("sys/kernel")).unwrap();
        fs::write(tree.join("sys/kernel/osrelease"), "6.12\n").unwrap();
        task(tree, (7, 7), "S", 0);
        for (tid, state) in [(8, "S"), (9, "R"), (10, "D"), (11, "R"), (12, "R")] {
            task(tree, (8, tid), state, 5);
        }
        let root = ProcRoot::open(tree).unwrap();
        let mut scratch = Buffers::default();
        let pids = BTreeSet::from([7, 8, 9].map(Pid));
        let mut busy = Busy::of(&root, &pids, &mut scratch);
        assert_eq!(busy.pids(), BTreeSet::from([Pid(8), Pid(9)]));
        let mut still_busy = |busy: &mut Busy| {
            busy.look_again(&root, &mut scratch);
            busy.pids().contains(&Pid(8))
        };
        task(tree, (8, 9), "S", 5);
        task(tree, (8, 10), "Z", 5);
        assert!(still_busy(&mut busy));
        // It goes on, but has been seen at rest.
        task(tree, (8, 9), "R", 5);
        task(tree, (8, 11), "R", 7);
        assert!(still_busy(&mut busy));
        fs::remove_dir_all(tree.join("8/task/12")).unwrap();
        assert!(!still_busy(&mut busy));
        assert_eq!(busy.pids(), BTreeSet::from([Pid(9)]));
    }
}
