//! The numbers of sync_files over time.
//!
//! A sync_file has no identity that can be seen, so nobody can tell which ones are new: only how
//! many a process has. A number whose lowest value rises from each part of the range to the next
//! looks like a leak.
//!
//! Limit: that is weaker evidence than survivors are. Load that grows all the time looks the same.

use std::collections::BTreeMap;
use std::time::Duration;

use super::figures::{LinePoints, Window};
use super::judge::LEAST_SAMPLES;
use super::{COHORTS, SuspectHolder};

/// How many sync_files the processes of one command and cgroup had.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Fences {
    /// Who has them.
    pub holder: SuspectHolder,
    /// How many at the start of the range.
    pub first: u64,
    /// How many at its end.
    pub last: u64,
    /// By how many the number grows in an hour; `None`: no time passed.
    pub per_hour: Option<f64>,
    /// How well that line fits, from 0 to 1; `None`: the number never changed.
    pub r2: Option<f64>,
    /// Whether the lowest number rises from each eighth of the range to the next, with at most one
    /// exception.
    pub is_rising: bool,
}

/// Numbers of sync_files, by holder.
#[derive(Debug, Default)]
pub(super) struct FenceCounts {
    /// The change of the number at each sample where it changes.
    changes: BTreeMap<u32, BTreeMap<usize, i64>>,
}

impl FenceCounts {
    /// A process had that many from one sample to another, both included.
    pub(super) fn add(&mut self, holder: u32, number: u64, from: usize, until: usize) {
        if number > 0 {
            let number = i64::try_from(number).unwrap_or(i64::MAX);
            let changes = self.changes.entry(holder).or_default();
            let mut add = |at: usize, number: i64| {
                let change = changes.entry(at).or_default();
                *change = change.saturating_add(number);
            };
            add(from, number);
            add(until + 1, -number);
        }
    }

    /// What is known of each holder, the steepest first.
    pub(super) fn fences(self, holders: &[SuspectHolder], times: &[Duration]) -> Vec<Fences> {
        let of = |(holder, changes): (u32, BTreeMap<usize, i64>)| {
            let holder = holders.get(holder as usize)?.clone();
            Some(fences(holder, &changes, times))
        };
        let mut all: Vec<Fences> = self.changes.into_iter().filter_map(of).collect();
        let steepness = |one: &Fences| (one.is_rising, one.per_hour.unwrap_or_default());
        all.sort_by(|a, b| {
            let (a, b) = (steepness(a), steepness(b));
            b.0.cmp(&a.0).then(b.1.total_cmp(&a.1))
        });
        all
    }
}

fn fences(holder: SuspectHolder, changes: &BTreeMap<usize, i64>, times: &[Duration]) -> Fences {
    let mut number = 0i64;
    let mut numbers = Vec::with_capacity(times.len());
    for sample in 0..times.len() {
        number = number.saturating_add(changes.get(&sample).copied().unwrap_or_default());
        numbers.push(number.unsigned_abs());
    }
    let window = Window { first: 0, last: times.len().saturating_sub(1) };
    let points = window.points(LinePoints::MOST);
    let line = LinePoints::new(times, &points).line(points.iter().map(|&point| numbers[point] as f64));
    let is_rising = times.len() >= LEAST_SAMPLES && {
        let part = |nth: usize| &numbers[numbers.len() * nth / COHORTS..numbers.len() * (nth + 1) / COHORTS];
        let lowest: Vec<u64> = (0..COHORTS).filter_map(|nth| part(nth).iter().min().copied()).collect();
        lowest.windows(2).filter(|pair| pair[0] < pair[1]).count() + 2 >= COHORTS
            && lowest.windows(2).all(|pair| pair[0] <= pair[1])
    };
    Fences {
        holder,
        first: numbers.first().copied().unwrap_or_default(),
        last: numbers.last().copied().unwrap_or_default(),
        per_hour: line.map(|(slope, _)| slope),
        r2: line.and_then(|(_, r2)| r2),
        is_rising,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of a process that has that many at each sample, a minute apart.
    fn of(numbers: &[u64]) -> Fences {
        let times: Vec<Duration> = (0..numbers.len() as u64).map(|n| Duration::from_secs(60 * n)).collect();
        let mut counts = FenceCounts::default();
        numbers.iter().enumerate().for_each(|(at, &number)| counts.add(0, number, at, at));
        let holder = SuspectHolder { comm: "app".into(), cgroup: None };
        counts.fences(&[holder], &times).pop().unwrap()
    }

    /// Check that one sync_file for each frame rises, at 60 an hour, and that what falls back, what
    /// stands, and what is short does not.
    #[test]
    fn rising() {
        let leak = of(&(1..=80).collect::<Vec<_>>());
        assert!(leak.is_rising && (leak.first, leak.last) == (1, 80));
        assert!((leak.per_hour.unwrap() - 60.0).abs() < 1e-9 && leak.r2.unwrap() > 0.999);
        assert!(!of(&(1..=80).map(|n| n % 20 + 1).collect::<Vec<_>>()).is_rising);
        assert!(!of(&[7; 80]).is_rising);
        assert!(!of(&(1..=12).collect::<Vec<_>>()).is_rising);
    }
}
