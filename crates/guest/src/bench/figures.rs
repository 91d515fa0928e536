//! What was measured, in the words in which it leaves the guest.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::measure::Taken;

/// How many of each a world has.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct References {
    /// Buffers.
    pub buffers: u64,
    /// References by fd.
    pub fd: u64,
    /// References by mapping.
    pub map: u64,
}

impl References {
    /// By fd and by mapping together.
    pub fn all(&self) -> u64 {
        self.fd + self.map
    }
}

/// One world and all that was measured in it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Results {
    /// Its name.
    pub world: String,
    /// What it is made of.
    pub description: String,
    /// How many references every way was seen to find; `None` where that is not known.
    pub references: Option<References>,
    /// Release of the kernel.
    pub kernel: String,
    /// Processors of the machine.
    pub processors: usize,
    /// The ways, in the order of their table.
    pub ways: Vec<WayResults>,
}

/// One way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WayResults {
    /// Its name.
    pub way: String,
    /// Whether its answer was all of it, as lsbuf itself says; `None`: another program's.
    pub complete: Option<bool>,
    /// As a command that is started, answers and ends.
    pub one_shot: Measured,
    /// A further scan of a scanner that is kept; `None` for what is no scanner.
    pub warm: Option<Measured>,
}

/// What came of measuring.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// These.
    Figures(Figures),
    /// Nothing, because of this.
    Missing(String),
}

/// What one run costs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Figures {
    /// Median of the time from start to end, milliseconds.
    pub wall: f64,
    /// Median of the CPU time, milliseconds.
    pub cpu: f64,
    /// The kernel's part of all CPU time of all runs, 0 to 1. Kernels tell the two apart by samples at their clock's tick, so
    /// that a single run's parts mean nothing.
    pub in_kernel: f64,
    /// How many runs the medians are of.
    pub runs: usize,
    /// Largest resident set, KiB.
    pub peak_kib: u64,
    /// System calls of one run, or why they are not known.
    pub system_calls: Result<u64, String>,
    /// Of a scanner: the first scan's time, milliseconds.
    pub first: Option<f64>,
    /// Of a scanner: allocations of one scan, median.
    pub allocations: Option<f64>,
}

/// One scan of `lsbuf-bench`, as it prints it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Scan {
    /// What it took.
    pub taken: Taken,
    /// What it found.
    pub references: References,
    /// How often memory was allocated.
    pub allocations: u64,
}

impl Figures {
    /// From several runs of one way; `None`: there were none.
    pub(super) fn of(runs: &[Taken], peak_kib: u64, system_calls: Result<u64, String>) -> Option<Figures> {
        let all = |part: fn(&Taken) -> Duration| runs.iter().map(part).map(millis).sum::<f64>();
        let (user, kernel) = (all(|run| run.user), all(|run| run.kernel));
        Some(Figures {
            wall: median(runs.iter().map(|run| millis(run.wall)))?,
            cpu: median(runs.iter().map(|run| millis(run.user + run.kernel)))?,
            in_kernel: if user + kernel > 0.0 { kernel / (user + kernel) } else { 0.0 },
            runs: runs.len(),
            peak_kib,
            system_calls,
            first: None,
            allocations: None,
        })
    }
}

/// In milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The one in the middle, or the mean of the two that are; `None`: there is none.
pub(super) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let (low, high) = (figures.len().checked_sub(1)? / 2, figures.len() / 2);
    Some(figures[low].midpoint(figures[high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the median is the middle of the sorted figures, and that nothing has none.
    #[test]
    fn medians() {
        assert_eq!(median([9.0, 1.0, 5.0].into_iter()), Some(5.0));
        assert_eq!(median([9.0, 1.0, 5.0, 3.0].into_iter()), Some(4.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    /// Check that the kernel's part is that of all runs together, not of the middle one.
    #[test]
    fn parts_are_of_all_runs() {
        let run = |user, kernel| Taken {
            wall: Duration::from_millis(user + kernel),
            user: Duration::from_millis(user),
            kernel: Duration::from_millis(kernel),
        };
        let figures = Figures::of(&[run(4, 0), run(0, 4), run(2, 6)], 1, Ok(2)).unwrap();
        assert_eq!((figures.wall, figures.cpu, figures.in_kernel), (4.0, 4.0, 0.625));
    }
}
