//! What was measured, in the form in which the guest sends it to the host.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sys::measure::Taken;

/// How many buffers and references a world has.
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

impl Display for References {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} buffers, {} references by fd and {} by mapping", self.buffers, self.fd, self.map)
    }
}

/// One world, and all that was measured in it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Results {
    /// The world's name.
    pub world: String,
    /// What the world is made of.
    pub description: String,
    /// How many references every way found; `None` if that is not known.
    pub references: Option<References>,
    /// The release of the kernel.
    pub kernel: String,
    /// How many processors the machine has.
    pub processors: usize,
    /// The results of the ways, in the order of their table; none if the world was not made.
    pub ways: Vec<WayResults>,
    /// Why the world was not made; `None` if it was.
    pub not_made: Option<String>,
}

/// The results of one way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct WayResults {
    /// The way's name.
    pub way: String,
    /// Whether lsbuf says that its answer is complete; `None` for another program.
    pub complete: Option<bool>,
    /// As a command that is started, answers and ends.
    pub one_shot: Measured,
    /// As a further scan of one scanner; `None` if the way is not a scanner.
    pub warm: Option<Measured>,
}

/// Figures, or why there are none.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// The figures.
    Figures(Figures),
    /// Why there are none.
    Missing(String),
}

/// What one run costs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Figures {
    /// The median of the time from start to end, in milliseconds.
    pub wall: f64,
    /// The median of the CPU time, in milliseconds.
    pub cpu: f64,
    /// The kernel's part of all CPU time of all runs, from 0 to 1. Kernels split user and system
    /// time by samples at the clock's tick, so the parts of a single run mean nothing.
    pub in_kernel: f64,
    /// How far the CPU times of the runs are apart: the largest less the smallest, as a part of the
    /// median.
    pub spread: f64,
    /// The number of runs behind the medians.
    pub runs: usize,
    /// The peak of the resident set, in KiB.
    pub peak_kib: u64,
    /// The system calls of one run, or why they are not known.
    pub system_calls: Result<u64, String>,
    /// For a scanner: the time of the first scan, in milliseconds.
    pub first: Option<f64>,
    /// For a scanner: the median of the allocations of one scan.
    pub allocations: Option<f64>,
}

/// One scan of `lsbuf-bench`, as it prints it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct WarmScan {
    /// What the scan took.
    pub taken: Taken,
    /// What the scan found.
    pub references: References,
    /// How often the scan allocated memory.
    pub allocations: u64,
}

impl Figures {
    /// The figures of several runs of one way; `None` if there were no runs.
    pub(super) fn of(runs: &[Taken], peak_kib: u64, system_calls: Result<u64, String>) -> Option<Figures> {
        let all = |part: fn(&Taken) -> Duration| runs.iter().map(part).map(millis).sum::<f64>();
        let (user, kernel) = (all(|run| run.user), all(|run| run.kernel));
        let cpu = runs.iter().map(|run| millis(run.user + run.kernel));
        let range = cpu.clone().fold(f64::MIN, f64::max) - cpu.clone().fold(f64::MAX, f64::min);
        let cpu = median(cpu)?;
        Some(Figures {
            wall: median(runs.iter().map(|run| millis(run.wall)))?,
            cpu,
            spread: if cpu > 0.0 { range / cpu } else { 0.0 },
            in_kernel: if user + kernel > 0.0 { kernel / (user + kernel) } else { 0.0 },
            runs: runs.len(),
            peak_kib,
            system_calls,
            first: None,
            allocations: None,
        })
    }
}

/// A time in milliseconds.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The middle figure, or the mean of the two middle ones; `None` if there are no figures.
pub(super) fn median(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let (low, high) = (figures.len().checked_sub(1)? / 2, figures.len() / 2);
    Some(figures[low].midpoint(figures[high]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the median is the middle of the sorted figures, and that there is none of no
    /// figures.
    #[test]
    fn medians() {
        assert_eq!(median([9.0, 1.0, 5.0].into_iter()), Some(5.0));
        assert_eq!(median([9.0, 1.0, 5.0, 3.0].into_iter()), Some(4.0));
        assert_eq!(median(std::iter::empty()), None);
    }

    /// Check that the kernel's part and the spread are computed from all runs together, and not
    /// from the median run.
    #[test]
    fn parts_are_of_all_runs() {
        let run = |user, kernel| Taken {
            wall: Duration::from_millis(user + kernel),
            user: Duration::from_millis(user),
            kernel: Duration::from_millis(kernel),
        };
        let figures = Figures::of(&[run(4, 0), run(0, 4), run(2, 6)], 1, Ok(2)).unwrap();
        assert_eq!((figures.wall, figures.cpu, figures.in_kernel), (4.0, 4.0, 0.625));
        assert_eq!(figures.spread, 1.0);
    }
}
