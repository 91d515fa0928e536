//! Compares the activity of all tasks before and after a reading: what ran, started or exited
//! meanwhile?
//!
//! Both sources need this to know what could have disturbed a reading. A task ran if its time on a
//! processor grew, if it is on a processor now, or if it existed only before or only after.
//!
//! Limits: a process that starts and exits between the two does not show here; the sources compare
//! the last pid for that.

use std::collections::BTreeSet;

use crate::kernel::activity::{Activity, Doing, keeps_references};
use crate::model::Pid;

/// What happened between the two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Processes with a task that ran, or that existed at only one of the two times.
    pub(super) ran: BTreeSet<Pid>,
    /// Whether a process existed only afterwards.
    pub(super) started: bool,
    /// Processes with a task that was exiting, or inside a call that keeps references, afterwards.
    pub(super) in_call: BTreeSet<Pid>,
    /// Whether the call of every task could be read.
    pub(super) calls_known: bool,
}

/// Compares the tasks before and after, each in any order. Processes of `own` are this scan itself,
/// and are left out.
pub(super) fn compare(mut before: Vec<Activity>, mut after: Vec<Activity>, own: &[Pid]) -> Changes {
    let mut found = Changes { calls_known: true, ..Changes::default() };
    for look in [&mut before, &mut after] {
        look.retain(|task| !own.contains(&task.pid));
        look.sort_unstable_by_key(|task| (task.pid, task.tid));
    }
    let mut was = before.iter().peekable();
    for now in &after {
        while let Some(gone) = was.next_if(|then| (then.pid, then.tid) < (now.pid, now.tid)) {
            found.ran.insert(gone.pid);
        }
        let then = was.next_if(|then| (then.pid, then.tid) == (now.pid, now.tid));
        let same = then.is_some_and(|then| then.ran == now.ran);
        if !same || [then.map(|then| then.doing), Some(now.doing)].contains(&Some(Doing::Running)) {
            found.ran.insert(now.pid);
        }
        match now.doing {
            Doing::Call(call) if keeps_references(call) => _ = found.in_call.insert(now.pid),
            Doing::Exiting => _ = found.in_call.insert(now.pid),
            Doing::Unknown => found.calls_known = false,
            Doing::Call(_) | Doing::Running | Doing::Nothing => {}
        }
    }
    found.ran.extend(was.map(|gone| gone.pid));
    let listed = |pid: Pid| before.binary_search_by_key(&pid, |task| task.pid).is_ok();
    found.started = after.iter().any(|task| !listed(task.pid));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::activity::Ran;
    use crate::model::Tid;

    fn task((pid, tid): (u32, u32), runtime: u64, doing: Doing) -> Activity {
        Activity { pid: Pid(pid), tid: Tid(tid), ran: Ran { runtime, turns: 1 }, doing }
    }

    fn pids(set: &BTreeSet<Pid>) -> Vec<u32> {
        set.iter().map(|pid| pid.0).collect()
    }

    /// Check that a task which had a turn has run, although the clock stood still meanwhile.
    #[test]
    fn a_turn_without_time() {
        let before = vec![task((1, 1), 5, Doing::Nothing), task((2, 2), 5, Doing::Nothing)];
        let mut after = before.clone();
        after[1].ran.turns += 1;
        assert_eq!(pids(&compare(before, after, &[]).ran), vec![2]);
    }

    /// Check that a process ran if one of its tasks ran, started or exited, and that the scan's own
    /// process is left out.
    #[test]
    fn who_ran() {
        let idle = |id, runtime| task(id, runtime, Doing::Nothing);
        let before = vec![
            idle((1, 1), 5),
            idle((2, 2), 5),
            idle((2, 3), 5),
            idle((4, 4), 5),
            idle((6, 6), 5),
            idle((6, 7), 5),
            idle((9, 9), 5),
        ];
        let after = vec![
            idle((9, 9), 6),
            idle((1, 1), 5),
            idle((2, 3), 6),
            idle((2, 2), 5),
            task((8, 8), 5, Doing::Running),
            idle((6, 6), 5),
        ];
        let found = compare(before, after, &[Pid(9)]);
        assert_eq!((pids(&found.ran), found.started), (vec![2, 4, 6, 8], true));
    }

    /// Check that a task on a processor has run although its time did not grow yet, and that a task
    /// which sleeps inside a fork shows.
    #[test]
    fn what_they_do() {
        let fork = Doing::Call(libc::SYS_clone3 as i32);
        let before = vec![task((1, 1), 5, Doing::Unknown), task((2, 2), 5, Doing::Unknown)];
        let after = vec![task((1, 1), 5, Doing::Running), task((2, 2), 5, fork)];
        let found = compare(before.clone(), after, &[]);
        assert_eq!((pids(&found.ran), pids(&found.in_call)), (vec![1], vec![2]));
        assert!(found.calls_known && !found.started);
        assert!(!compare(before.clone(), before, &[]).calls_known);
    }
}
