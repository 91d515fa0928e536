//! Gathers the lives of buffers in groups, and says what each group looks like. Reads nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::figures::{Counts, Window, series, slope};
use super::judge::{Growth, judge};
use super::{Judged, Suspect, SuspectKey};
use crate::model::{Bytes, LeakShape};

/// How many moments a trend has at most.
const TREND: usize = 24;

/// For how long a holder had a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stay {
    first: u32,
    last: u32,
    /// A number for the process that had it first.
    pub(super) process: u32,
    /// What it cost at last.
    pub(super) cost: Option<Bytes>,
    /// Its shape at last.
    pub(super) shape: Option<LeakShape>,
    /// Whether it counts in another group, too.
    pub(super) is_shared: bool,
}

impl Stay {
    /// From one sample of the range to another, both included, by their indices. What is older than
    /// the range begins with its first sample.
    pub(super) fn new(first: usize, last: usize, process: u32) -> Stay {
        // A recording has no room for so many samples.
        let index = |sample: usize| u32::try_from(sample).unwrap_or(u32::MAX);
        Stay {
            first: index(first),
            last: index(last.max(first)),
            process,
            cost: None,
            shape: None,
            is_shared: false,
        }
    }

    pub(super) fn first(&self) -> usize {
        self.first as usize
    }

    pub(super) fn last(&self) -> usize {
        self.last as usize
    }

    pub(super) fn is_in(&self, window: Window) -> bool {
        self.first() <= window.last && self.last() >= window.first
    }
}

/// What was held, by groups.
#[derive(Debug)]
pub(super) struct Lives {
    /// The time of each sample after the first one, in order.
    times: Vec<Duration>,
    groups: HashMap<SuspectKey, Vec<Stay>>,
}

impl Lives {
    /// Nothing yet, in samples at these times.
    pub(super) fn new(times: Vec<Duration>) -> Lives {
        Lives { times, groups: HashMap::new() }
    }

    /// Adds a buffer to a group.
    pub(super) fn add(&mut self, key: SuspectKey, stay: Stay) {
        self.groups.entry(key).or_default().push(stay);
    }

    /// What each group looks like, the worst first.
    pub(super) fn suspects(self) -> Vec<Suspect> {
        let Lives { times, groups } = self;
        let mut all: Vec<Suspect> =
            groups.into_iter().map(|(key, stays)| suspect(key, stays, &times)).collect();
        all.sort_by(|a, b| {
            let badness = |one: &Suspect| one.slope.and_then(|slope| slope.bytes_per_hour);
            let by_bytes = badness(b).unwrap_or_default().total_cmp(&badness(a).unwrap_or_default());
            a.growth
                .cmp(&b.growth)
                .then(by_bytes)
                .then_with(|| b.left().cmp(&a.left()))
                .then_with(|| a.key.cmp(&b.key))
        });
        all
    }
}

fn suspect(key: SuspectKey, mut stays: Vec<Stay>, times: &[Duration]) -> Suspect {
    stays.sort_unstable_by_key(|stay| (stay.first, stay.last));
    let whole = Window { first: 0, last: times.len().saturating_sub(1) };
    let time = |sample: usize| times.get(sample).copied().unwrap_or_default();
    let counts = Counts::of(&stays, times, whole);
    let windows = windows(&stays, whole);
    let (window, growth) = judged(&stays, times, &windows, whole);
    let end = time(whole.last);
    let there = || stays.iter().filter(|stay| stay.last() >= whole.last);
    let left = || there().filter(|stay| stay.first() > whole.first);
    let first = stays.first().map_or(0, Stay::first);
    let last = stays.iter().map(|stay| stay.last().min(whole.last)).max().unwrap_or(0);
    Suspect {
        key,
        growth,
        older: counts.older,
        older_died: counts.older_died,
        born: counts.born(),
        died: counts.died(),
        cohorts: counts.cohorts.to_vec(),
        bytes: Bytes::total(left().map(|stay| stay.cost)),
        shared: left().filter(|stay| stay.is_shared).count() as u64,
        slope: slope(&stays, times, window),
        restarts: windows.len().saturating_sub(1) as u64,
        judged: Judged { from: time(window.first), until: time(window.last) },
        span: time(last).saturating_sub(time(first)),
        oldest: there().map(|stay| end.saturating_sub(time(stay.first()))).max(),
        shape: commonest(left().map(|stay| stay.shape)),
        trend: series(&stays, &whole.points(TREND)).0,
    }
}

/// Of the range, how much a time between two restarts must have to be judged by itself: a quarter.
const SHORTEST: u32 = 4;

/// The window that is judged, and what it looks like. After a restart little time may have passed;
/// then the time before it speaks, and if that is short, too, the whole. So programs that start one
/// after the other are one whole: each holds more and more until it exits, and none leaks.
fn judged(stays: &[Stay], times: &[Duration], windows: &[Window], whole: Window) -> (Window, Growth) {
    let judge_of = |window: Window| (window, judge(&Counts::of(stays, times, window)));
    let time = |sample: usize| times.get(sample).copied().unwrap_or_default();
    let length = |window: &Window| time(window.last).saturating_sub(time(window.first));
    let is_long = |window: &&Window| length(window) * SHORTEST >= length(&whole);
    let mut newest = windows.iter().rev().take(2).filter(is_long).map(|&window| judge_of(window));
    newest.find(|(_, growth)| *growth != Growth::TooShort).unwrap_or_else(|| judge_of(whole))
}

/// The range from each restart to the next. A restart is a moment that no buffer of the group
/// outlives, and behind which none of the processes before it has one. `stays` are in order of
/// their first samples.
fn windows(stays: &[Stay], whole: Window) -> Vec<Window> {
    let mut last_use: HashMap<u32, usize> = HashMap::new();
    for (nth, stay) in stays.iter().enumerate() {
        last_use.insert(stay.process, nth);
    }
    let mut windows = Vec::new();
    let (mut first, mut until, mut in_use) = (whole.first, 0, 0);
    let mut before = HashSet::new();
    for (nth, stay) in stays.iter().enumerate() {
        // All processes seen so far had their last buffer before this one.
        if nth > 0 && stay.first() > until && in_use < nth && !before.contains(&stay.process) {
            windows.push(Window { first, last: until });
            first = stay.first();
        }
        until = until.max(stay.last());
        in_use = in_use.max(last_use.get(&stay.process).copied().unwrap_or(nth));
        before.insert(stay.process);
    }
    windows.push(Window { first, last: whole.last });
    windows
}

/// The commonest shape; of two that are equally common the one that is a shape.
fn commonest(shapes: impl Iterator<Item = Option<LeakShape>>) -> Option<LeakShape> {
    let mut numbers: BTreeMap<Option<LeakShape>, u64> = BTreeMap::new();
    shapes.for_each(|shape| *numbers.entry(shape).or_default() += 1);
    numbers.into_iter().max_by_key(|&(shape, number)| (number, shape)).and_then(|(shape, _)| shape)
}
