//! Whether to go on by procfs, or to load the BPF iterators after all.
//!
//! Loading costs the same whatever runs on the machine, procfs costs more the more there is. Which is less nobody can tell
//! before having begun; so procfs begins, and gives up as soon as what it has left to read would take longer than loading.
//!
//! Limits: what loading takes is not measured here but taken for so many small reads, of which a few are timed; the rest of
//! the machine is taken to be like what was read of it.

use std::time::{Duration, Instant};

use crate::kernel::root::ProcRoot;

/// Loading takes as long as so many times opening, reading and closing a small file of procfs: on Linux 6.18 some 18 ms
/// against 7 µs.
const LOADING_IN_READS: u32 = 2500;

/// How long one scan by procfs may last.
#[derive(Debug)]
pub(super) struct Patience {
    begun: Instant,
    loading: Duration,
}

impl Patience {
    /// Begins.
    pub(super) fn new(root: &ProcRoot) -> Patience {
        let mut text = Vec::new();
        let mut timed = || {
            let begun = Instant::now();
            root.own_stat(&mut text);
            begun.elapsed()
        };
        let read = (0..4).map(|_| timed()).min().unwrap_or_default();
        Patience { begun: Instant::now(), loading: read * LOADING_IN_READS }
    }

    /// Whether to give up, when `done` processes were worth reading and `left` are not read yet.
    pub(super) fn is_over(&self, done: usize, left: usize) -> bool {
        is_over(self.begun.elapsed(), self.loading, done, left)
    }
}

fn is_over(spent: Duration, loading: Duration, done: usize, left: usize) -> bool {
    // With too little read, one process would speak for all.
    const LEAST: usize = 4;
    let each = spent.as_secs_f64() / done.max(1) as f64;
    done >= LEAST && each * left as f64 > loading.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a machine with little left is read to its end however long it took so far, one with much is given up
    /// early, and the first few processes decide nothing.
    #[test]
    fn when_it_is_over() {
        let over =
            |spent, done, left| is_over(Duration::from_millis(spent), Duration::from_millis(20), done, left);
        assert!(!over(100, 100, 10));
        assert!(over(1, 4, 400));
        assert!(!over(10, 3, 1000));
        assert!(!over(1, 10, 40));
    }
}
