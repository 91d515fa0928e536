//! Decides whether to keep reading procfs or to load the BPF iterators instead.
//!
//! Loading costs the same on every machine. Reading procfs costs more the more there is to read,
//! mostly fds. Since Linux 6.2 the size of a process's `fd` folder tells how many it has. If the
//! fds alone would take longer than loading, reading procfs does not begin. Else it begins, and
//! stops as soon as the remainder, at the pace so far, would take longer than loading.
//!
//! Limits: the time that loading takes is not measured here. It is estimated as a number of small
//! reads, a few of which are timed.

use std::cell::Cell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::kernel::fds;
use crate::kernel::root::ProcRoot;
use crate::model::Pid;

/// Loading takes as long as this many times opening, reading and closing a small file of procfs: on
/// Linux 6.18 about 6.5 ms, against 7 µs for one.
const LOADING_IN_READS: u32 = 930;

/// Reading this many fds takes at least as long as such a read.
const FDS_IN_A_READ: u64 = 6;

/// What a process costs besides its fds, expressed in fds.
const PROCESS: u64 = 8;

/// How long a scan by procfs may take.
#[derive(Debug)]
pub(super) struct TimeBudget {
    loading: Duration,
    read: Duration,
    begun: Instant,
    work: HashMap<Pid, u64>,
    /// What has been read, and what is left of this reading, expressed in fds.
    done: Cell<u64>,
    left: Cell<u64>,
}

impl TimeBudget {
    /// Finds out how much there is to read.
    pub(super) fn new(root: &ProcRoot) -> TimeBudget {
        let timed = || {
            let begun = Instant::now();
            root.own_stat();
            begun.elapsed()
        };
        let read = (0..4).map(|_| timed()).min().unwrap_or_default();
        let mut budget = TimeBudget {
            loading: read * LOADING_IN_READS,
            read,
            begun: Instant::now(),
            work: HashMap::new(),
            done: Cell::new(0),
            left: Cell::new(0),
        };
        for (pid, _) in root.processes().unwrap_or_default() {
            let work = PROCESS + fds::number(root, pid).unwrap_or(0);
            budget.work.insert(pid, work);
            budget.left.set(budget.left.get() + work);
            if budget.is_exceeded() {
                break;
            }
        }
        budget
    }

    /// A reading begins: everything is left to read.
    pub(super) fn begin(&self) {
        self.left.set(self.work.values().sum());
    }

    /// A process has been read, or there was nothing to read.
    pub(super) fn done_with(&self, pid: Pid) {
        let work = self.work.get(&pid).copied().unwrap_or(PROCESS);
        self.done.set(self.done.get() + work);
        self.left.set(self.left.get().saturating_sub(work));
    }

    /// Whether to stop reading procfs.
    pub(super) fn is_exceeded(&self) -> bool {
        is_exceeded(self.begun.elapsed(), self.loading, self.read, self.done.get(), self.left.get())
    }
}

fn is_exceeded(spent: Duration, loading: Duration, read: Duration, done: u64, left: u64) -> bool {
    // A pace that was measured for only a moment is not used.
    let known = done > 0 && spent > loading / 20;
    let each =
        if known { spent.as_secs_f64() / done as f64 } else { read.as_secs_f64() / FDS_IN_A_READ as f64 };
    each * left as f64 > loading.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a machine with little left is read to the end however long it took so far, that
    /// one with very many fds is not begun, that one which turns out slow is stopped, and that the
    /// first moments decide nothing.
    #[test]
    fn when_it_is_exceeded() {
        let exceeded = |spent, done, left| {
            let (loading, read) = (Duration::from_millis(20), Duration::from_micros(6));
            is_exceeded(Duration::from_millis(spent), loading, read, done, left)
        };
        assert!(!exceeded(100, 10_000, 1000));
        assert!(exceeded(0, 0, 30_000));
        assert!(!exceeded(0, 0, 10_000));
        assert!(exceeded(4, 1000, 10_000));
        assert!(!exceeded(1, 100, 10_000));
    }
}
