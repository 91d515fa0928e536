//! Arithmetic of one group: counts within a window of samples, and a line through them.

use std::time::Duration;

use super::judge::YOUNG;
use super::lives::Stay;
use super::{COHORTS, Cohort, Slope};

/// Some samples of a range, by their indices, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Window {
    /// Up to `most` samples that divide it evenly, its first and last among them.
    pub(super) fn points(self, most: usize) -> Vec<usize> {
        let steps = self.last.saturating_sub(self.first).min(most.saturating_sub(1));
        let at = |step: usize| self.first + (self.last - self.first) * step / steps.max(1);
        (0..=steps).map(at).collect()
    }
}

/// What was born and died in a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) samples: usize,
    pub(super) cohorts: [Cohort; COHORTS],
    /// Buffers that were there at its start.
    pub(super) older: u64,
    pub(super) older_died: u64,
    /// Those that died in the second quarter or later.
    pub(super) older_aged_died: u64,
    /// Buffers that were born in it and lived for a quarter of it.
    pub(super) aged: u64,
    /// Those of them that died.
    pub(super) aged_died: u64,
    /// Deaths in its last quarter.
    pub(super) late_died: u64,
}

impl Counts {
    /// Counts the buffers of a window. `times` has the time of each sample, in order.
    pub(super) fn of(stays: &[Stay], times: &[Duration], window: Window) -> Counts {
        let time = |sample: usize| times.get(sample).copied().unwrap_or_default();
        let (begin, end) = (time(window.first), time(window.last));
        let length = end.saturating_sub(begin);
        let quarter = length * YOUNG as u32 / COHORTS as u32;
        let mut counts =
            Counts { samples: window.last.saturating_sub(window.first) + 1, ..Counts::default() };
        for stay in stays.iter().filter(|stay| stay.is_in(window)) {
            let (first, last) = (stay.first(), stay.last());
            let died = last < window.last;
            let until = time(last.min(window.last));
            counts.late_died += u64::from(died && until >= end.saturating_sub(quarter));
            if first <= window.first {
                counts.older += 1;
                counts.older_died += u64::from(died);
                counts.older_aged_died += u64::from(died && until.saturating_sub(begin) >= quarter);
                continue;
            }
            let cohort = &mut counts.cohorts[part(time(first).saturating_sub(begin), length)];
            cohort.born += 1;
            cohort.left += u64::from(!died);
            let aged = until.saturating_sub(time(first)) >= quarter;
            counts.aged += u64::from(aged);
            counts.aged_died += u64::from(aged && died);
        }
        counts
    }

    pub(super) fn born(&self) -> u64 {
        self.cohorts.iter().map(|cohort| cohort.born).sum()
    }

    pub(super) fn left(&self) -> u64 {
        self.cohorts.iter().map(|cohort| cohort.left).sum()
    }

    pub(super) fn died(&self) -> u64 {
        self.born() - self.left()
    }

    /// The cohorts of the last quarter.
    pub(super) fn young(&self) -> &[Cohort] {
        &self.cohorts[COHORTS - YOUNG..]
    }

    /// The others.
    pub(super) fn old(&self) -> &[Cohort] {
        &self.cohorts[..COHORTS - YOUNG]
    }
}

/// In which cohort a time after the start of a window of that length is.
fn part(after: Duration, length: Duration) -> usize {
    let part = after.as_micros() * COHORTS as u128 / length.as_micros().max(1);
    usize::try_from(part).unwrap_or(COHORTS).min(COHORTS - 1)
}

/// How many buffers there were at each of these samples, which are in order; and what they cost.
/// `None`: the cost of one is unknown.
pub(super) fn series(stays: &[Stay], points: &[usize]) -> (Vec<u64>, Option<Vec<u128>>) {
    let mut number = vec![0i64; points.len() + 1];
    let mut cost = vec![0i128; points.len() + 1];
    let mut known = true;
    for stay in stays {
        let from = points.partition_point(|&point| point < stay.first());
        let until = points.partition_point(|&point| point <= stay.last());
        if from >= until {
            continue;
        }
        let bytes = i128::from(stay.cost.map_or(0, |cost| cost.0));
        known &= stay.cost.is_some();
        (number[from], number[until]) = (number[from] + 1, number[until] - 1);
        (cost[from], cost[until]) = (cost[from] + bytes, cost[until] - bytes);
    }
    let (mut buffers, mut total) = (0i64, 0i128);
    let numbers = number.iter().take(points.len()).map(|change| {
        buffers += change;
        buffers.unsigned_abs()
    });
    let costs = cost.iter().take(points.len()).map(|change| {
        total += change;
        total.unsigned_abs()
    });
    (numbers.collect(), known.then(|| costs.collect()))
}

/// The line through the buffers of a window. `None`: no time passes in it.
pub(super) fn slope(stays: &[Stay], times: &[Duration], window: Window) -> Option<Slope> {
    let points = window.points(LinePoints::MOST);
    let line = LinePoints::new(times, &points);
    let (numbers, costs) = series(stays, &points);
    let (buffers_per_hour, r2) = line.line(numbers.iter().map(|&number| number as f64))?;
    let bytes_per_hour = costs.and_then(|costs| Some(line.line(costs.iter().map(|&cost| cost as f64))?.0));
    Some(Slope { buffers_per_hour, bytes_per_hour, r2 })
}

/// Moments through whose values a line is drawn.
pub(super) struct LinePoints {
    /// In hours, less their mean.
    moments: Vec<f64>,
}

impl LinePoints {
    /// How many points a line is drawn through at most.
    pub(super) const MOST: usize = 128;

    /// These samples.
    pub(super) fn new(times: &[Duration], points: &[usize]) -> LinePoints {
        let hours = |&point: &usize| times.get(point).copied().unwrap_or_default().as_secs_f64() / 3600.0;
        LinePoints { moments: centred(points.iter().map(hours)) }
    }

    /// The slope of the line with the least squares, for an hour, and r² if the values differ.
    /// `None`: all are at one time.
    pub(super) fn line(&self, values: impl Iterator<Item = f64>) -> Option<(f64, Option<f64>)> {
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (x, y) in self.moments.iter().zip(centred(values)) {
            (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
        }
        let slope = xy / xx;
        (xx > 0.0 && slope.is_finite()).then(|| (slope, (yy > 0.0).then(|| (xy * xy / (xx * yy)).min(1.0))))
    }
}

/// Numbers less their mean.
fn centred(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    let mean = numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
    numbers.iter_mut().for_each(|number| *number -= mean);
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check a line that fits, a flat one, one through scattered points, and one without time. Of
    /// the scattered ones: slope 3/5 and r² 9/25 by hand, from sums of squares 5, 3 and 5.
    #[test]
    fn lines() {
        let line = |hours: &[u64], values: &[f64]| {
            let times: Vec<Duration> = hours.iter().map(|hour| Duration::from_secs(3600 * hour)).collect();
            let points: Vec<usize> = (0..times.len()).collect();
            LinePoints::new(&times, &points).line(values.iter().copied())
        };
        let hours = [0, 1, 2, 3];
        assert_eq!(line(&hours, &[1.0, 3.0, 5.0, 7.0]), Some((2.0, Some(1.0))));
        assert_eq!(line(&hours, &[4.0; 4]), Some((0.0, None)));
        let (slope, r2) = line(&hours, &[1.0, 0.0, 3.0, 2.0]).unwrap();
        assert!((slope - 0.6).abs() < 1e-12 && (r2.unwrap() - 0.36).abs() < 1e-12);
        assert_eq!(line(&[2; 3], &[1.0, 2.0, 3.0]), None);
    }

    /// Check that points divide a window evenly, and that there are no more than samples.
    #[test]
    fn points() {
        let points = |first, last, most| Window { first, last }.points(most);
        assert_eq!(points(2, 10, 5), [2, 4, 6, 8, 10]);
        assert_eq!(points(3, 5, 100), [3, 4, 5]);
        assert_eq!(points(7, 7, 5), [7]);
    }
}
