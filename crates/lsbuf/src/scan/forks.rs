//! Whether references that are left over may be those of a child that is being forked.
//!
//! A fork has copied its parent's fds and mappings long before the child is listed or counted (`copy_process` in kernel/fork.c),
//! and the parent may lose the processor in between for as long as others keep it busy: no pause between rounds is proof against
//! that. But the parent neither sleeps interruptibly nor runs its program meanwhile, and ends with one more fork that the kernel
//! has counted. So after a round every thread of those who hold a buffer with references left over is looked at until it has
//! been seen at rest; if the kernel has counted no fork since before the round, none of theirs was under way in it. And each must
//! have been at rest between the round and the one before, so that nothing else that it was in the middle of, an unshare for one,
//! spans both.
//!
//! Limits: a parent that holds the buffer no more, as another thread has closed it during the fork, is not looked at. That a
//! thread has run its program is taken from times that the kernel samples. A call that sleeps with a reference of its own (poll,
//! an ioctl that waits for a fence) keeps it for that long, and it is the kernel's, as whatever else the kernel keeps.

use std::collections::{BTreeSet, HashMap};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::kernel::process::{ProcessDir, Pulse};
use crate::kernel::root::{Forks, ProcRoot};
use crate::model::{Pid, Tid};

/// So far apart are the end of a round and the one that is to confirm what it left over.
const APART: Duration = Duration::from_millis(20);

/// How long a scan waits in all for holders to come to rest.
const PATIENCE: Duration = Duration::from_millis(250);

/// The first time between two looks, and the longest.
const STEPS: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(8));

/// Watches over the rounds of one scan.
#[derive(Debug)]
pub(super) struct Watch<'s> {
    root: &'s ProcRoot,
    /// Whether anything can go on meanwhile: a recorded tree stands still.
    live: bool,
    patience: Duration,
    /// The forks counted when the present round began, if that could be asked.
    before: Option<Forks>,
    /// Who was not seen at rest between the round before and this one.
    restless: BTreeSet<Pid>,
}

impl<'s> Watch<'s> {
    /// No round was made yet.
    pub(super) fn new(root: &'s ProcRoot) -> Watch<'s> {
        let (live, patience) = (root.is_live(), PATIENCE);
        Watch { root, live, patience, before: None, restless: BTreeSet::new() }
    }

    /// Waits for the time of a round that is to confirm what an earlier one left over of what these hold.
    pub(super) fn pause(&mut self, mut holders: BTreeSet<Pid>) {
        if !self.live {
            return;
        }
        let begun = Instant::now();
        self.look(&mut holders, |_| true);
        self.restless = holders;
        sleep(APART.saturating_sub(begun.elapsed()));
        self.before = self.root.forks();
    }

    /// After a round that confirms another: which of these may have been forking in it.
    pub(super) fn forking(&mut self, mut holders: BTreeSet<Pid>) -> BTreeSet<Pid> {
        if !self.live {
            return BTreeSet::new();
        }
        let restless: BTreeSet<Pid> = holders.intersection(&self.restless).copied().collect();
        let before = self.before;
        // Who is at rest by now proves nothing if it may have ended a fork before that.
        let none_ended = |root: &ProcRoot| before.is_some() && root.forks() == before;
        self.look(&mut holders, none_ended);
        holders.extend(restless);
        holders
    }

    /// Drops of these who is seen at rest, for as long as the patience lasts and `counts` says that being at rest proves anything.
    fn look(&mut self, holders: &mut BTreeSet<Pid>, counts: impl Fn(&ProcRoot) -> bool) {
        let begun = Instant::now();
        let mut looks = Looks::default();
        let mut step = STEPS.0;
        'looks: loop {
            for pid in holders.clone() {
                if looks.sees_at_rest(self.root, pid) {
                    if !counts(self.root) {
                        break 'looks;
                    }
                    holders.remove(&pid);
                }
            }
            if !holders.iter().any(|pid| looks.may_see(*pid)) || begun.elapsed() >= self.patience {
                break;
            }
            sleep(step);
            step = STEPS.1.min(step * 2);
        }
        self.patience = self.patience.saturating_sub(begun.elapsed());
    }
}

/// What was seen of processes: their tasks that have not been at rest at any look; `None` of one that cannot be asked.
#[derive(Debug, Default)]
struct Looks(HashMap<Pid, Option<Vec<(Tid, Pulse)>>>);

impl Looks {
    /// Looks at a process; whether each of its tasks has been seen at rest by now.
    fn sees_at_rest(&mut self, root: &ProcRoot, pid: Pid) -> bool {
        let tasks = self.0.entry(pid).or_insert_with(|| Some(Vec::new()));
        let Some(busy) = tasks else { return false };
        let looked = if busy.is_empty() {
            first_look(root, pid).map(|found| *busy = found)
        } else {
            look_again(root, pid, busy)
        };
        match looked {
            Ok(()) => busy.is_empty(),
            // It has exited, unless it is hidden.
            Err(Errno::NOENT | Errno::SRCH) if root.shows_kernel_threads() => true,
            Err(_) => {
                *tasks = None;
                false
            }
        }
    }

    /// Whether one more look may tell more.
    fn may_see(&self, pid: Pid) -> bool {
        self.0.get(&pid).is_some_and(Option::is_some)
    }
}

/// The tasks of a process that are not at rest. The caller's own thread, which looks, is not in the middle of anything else.
fn first_look(root: &ProcRoot, pid: Pid) -> rustix::io::Result<Vec<(Tid, Pulse)>> {
    let process = ProcessDir::open(root, pid)?;
    let own = root.has_own_pids().then(|| Tid(rustix::thread::gettid().as_raw_pid().unsigned_abs()));
    let mut tids = process.threads()?;
    tids.push(Tid(pid.0));
    let mut tasks = Vec::new();
    for tid in tids.into_iter().filter(|&tid| Some(tid) != own) {
        match process.pulse(tid) {
            Ok(pulse) if !pulse.is_at_rest() => tasks.push((tid, pulse)),
            Ok(_) | Err(Errno::NOENT | Errno::SRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(tasks)
}

/// Drops those that have been at rest since.
fn look_again(root: &ProcRoot, pid: Pid, tasks: &mut Vec<(Tid, Pulse)>) -> rustix::io::Result<()> {
    let process = ProcessDir::open(root, pid)?;
    tasks.retain(|(tid, before)| match process.pulse(*tid) {
        Ok(now) => !now.is_past(before),
        // It has exited.
        Err(Errno::NOENT | Errno::SRCH) => false,
        Err(_) => true,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// A tree with the machine's count of forks in it.
    fn tree(forks: u64) -> (tempfile::TempDir, ProcRoot) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("sys/kernel")).unwrap();
        fs::write(folder.path().join("sys/kernel/osrelease"), "6.12\n").unwrap();
        fs::write(folder.path().join("stat"), format!("cpu 1 2\nprocesses {forks}\n")).unwrap();
        let root = ProcRoot::open(folder.path()).unwrap();
        (folder, root)
    }

    /// Writes a task's stat.
    fn task(root: &Path, (pid, tid): (u32, u32), state: &str, user: u64) {
        let folder = root.join(format!("{pid}/task/{tid}"));
        fs::create_dir_all(&folder).unwrap();
        let stat = format!("{tid} (x) {state} 1 7 7 0 -1 64 0 0 0 0 {user} 9 0 0 20 0 1 0 4711 0\n");
        fs::write(folder.join("stat"), stat).unwrap();
    }

    /// Check that a process is seen at rest when each of its threads has been, or has run its program, or has exited, at
    /// whatever look; and that one of which a thread cannot be understood never is.
    #[test]
    fn each_thread_comes_to_rest() {
        let (folder, root) = tree(5);
        let tree = folder.path();
        task(tree, (7, 7), "S", 0);
        for (tid, state) in [(8, "S"), (9, "R"), (10, "D"), (11, "R"), (12, "R")] {
            task(tree, (8, tid), state, 5);
        }
        task(tree, (9, 9), "garbled in", 0);
        fs::write(tree.join("9/task/9/stat"), "9").unwrap();
        let mut looks = Looks::default();
        let mut sees = |pid| {
            let rests = looks.sees_at_rest(&root, Pid(pid));
            (rests, looks.may_see(Pid(pid)))
        };
        assert!(sees(7).0);
        assert_eq!([sees(8), sees(9)], [(false, true), (false, false)]);
        task(tree, (8, 9), "S", 5);
        task(tree, (8, 10), "Z", 5);
        assert!(!sees(8).0);
        // It goes on, but has been seen at rest.
        task(tree, (8, 9), "R", 5);
        task(tree, (8, 11), "R", 7);
        assert!(!sees(8).0);
        fs::remove_dir_all(tree.join("8/task/12")).unwrap();
        assert!(sees(8).0);
        // Who is not to be found has exited only where nobody is hidden.
        assert!(!sees(10).0);
        fs::create_dir_all(tree.join("2")).unwrap();
        fs::write(tree.join("2/stat"), "2 (kthreadd) S 0 0 0 0 -1 2129984 0\n").unwrap();
        fs::remove_dir_all(tree.join("7")).unwrap();
        assert!(sees(7).0 && sees(11).0);
    }

    /// Check that to be seen at rest says something only while the count of forks stands, and can be read, and of who was at rest
    /// before the round, too.
    #[test]
    fn a_fork_in_between_spoils_the_look() {
        let forking = |before: Option<u64>, restless: &[u32]| {
            let (folder, root) = tree(before.unwrap_or(0));
            task(folder.path(), (7, 7), "S", 0);
            task(folder.path(), (8, 8), "R", 0);
            let mut watch = Watch {
                live: true,
                patience: Duration::ZERO,
                before: before.and_then(|_| root.forks()),
                restless: restless.iter().copied().map(Pid).collect(),
                ..Watch::new(&root)
            };
            fs::write(folder.path().join("stat"), "processes 5\n").unwrap();
            let found = watch.forking(BTreeSet::from([Pid(7), Pid(8)]));
            found.into_iter().map(|pid| pid.0).collect::<Vec<_>>()
        };
        assert_eq!(forking(Some(5), &[]), [8]);
        assert_eq!([forking(Some(4), &[]), forking(None, &[])], [[7, 8], [7, 8]]);
        assert_eq!(forking(Some(5), &[7, 9]), [7, 8]);
    }
}
