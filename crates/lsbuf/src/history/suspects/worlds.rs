//! Made histories, each with the state that it must have. Each is what a sampler would have seen of
//! a program that does what its name says: 241 samples, a minute apart.

use std::time::Duration;

use proptest::prelude::*;

use super::lives::{Lives, Stay};
use super::{COHORTS, Growth, Suspect, SuspectHolder, SuspectKey};
use crate::model::{Bytes, Kind, LeakShape};

const SAMPLES: usize = 241;
const END: usize = SAMPLES - 1;

fn key(command: &str) -> SuspectKey {
    let holder = SuspectHolder { comm: command.into(), cgroup: None };
    SuspectKey { holder: Some(holder), kind: Kind::DmaBuf, exporter: None, name: None, origin: None }
}

/// A buffer of 1000 bytes that lives from one sample to another.
fn stay(first: usize, last: usize, process: u32) -> Stay {
    let mut stay = Stay::new(first, last, process);
    stay.cost = Some(Bytes(1000));
    stay
}

fn every(minutes: u64) -> Vec<Duration> {
    (0..SAMPLES as u64).map(|nth| Duration::from_secs(60 * minutes * nth)).collect()
}

/// What a group with these lives looks like.
fn group(stays: impl IntoIterator<Item = Stay>) -> Suspect {
    let mut lives = Lives::new(every(1));
    stays.into_iter().for_each(|stay| lives.add(key("app"), stay));
    lives.suspects().pop().unwrap()
}

/// A program that makes a buffer in each of these samples, and releases it after that many.
fn making(samples: impl Iterator<Item = usize>, lifetime: usize) -> impl Iterator<Item = Stay> {
    samples.map(move |nth| stay(nth, (nth + lifetime - 1).min(END), 1))
}

/// Lengths of life that look random and have that mean.
fn lifetime(nth: usize, mean: f64) -> usize {
    let random = (nth * 7919 % 997) as f64 / 997.0;
    (-(1.0 - random).ln() * mean) as usize + 1
}

/// Check a leak of one buffer for each frame: everything that is born is left. A cohort is half an
/// hour, so most have 30 of 30; 240 in 4 hours are 60 an hour.
#[test]
fn fd_leak() {
    let found = group(making(1..=END, END));
    assert_eq!(found.growth, Growth::Growing);
    assert_eq!((found.born, found.died, found.left(), found.older), (240, 0, 240, 0));
    assert!(found.cohorts.iter().all(|cohort| cohort.born == cohort.left && cohort.left >= 29));
    let slope = found.slope.unwrap();
    assert!((slope.buffers_per_hour - 60.0).abs() < 0.5, "{slope:?}");
    assert!((slope.bytes_per_hour.unwrap() - 60_000.0).abs() < 500.0, "{slope:?}");
    assert!(slope.r2.unwrap() > 0.999, "{slope:?}");
    assert_eq!(found.bytes, Some(Bytes(240_000)));
    assert_eq!(found.oldest, Some(Duration::from_secs(239 * 60)));
}

/// Check leaks by mapping and by handle: the group has the shape that the survivors have.
#[test]
fn map_only_and_handle_leaks() {
    for shape in [LeakShape::Map, LeakShape::Handle] {
        let leaked = making((1..=END).step_by(4), END).map(|mut stay| {
            stay.shape = Some(shape);
            stay
        });
        let found = group(leaked);
        assert_eq!((found.growth, found.shape), (Growth::Growing, Some(shape)));
    }
}

/// Check a leak of memfds whose cost is not known: it is found, and its bytes are unknown.
#[test]
fn memfd_leak_of_unknown_cost() {
    let leaked = making((1..=END).step_by(2), END).enumerate().map(|(nth, mut stay)| {
        stay.cost = stay.cost.filter(|_| nth != 7);
        stay
    });
    let found = group(leaked);
    assert_eq!((found.growth, found.bytes), (Growth::Growing, None));
    assert_eq!(found.slope.unwrap().bytes_per_hour, None);
}

/// Check that one buffer an hour is found in a day of samples, also if the hours are not exact.
#[test]
fn slow_leak() {
    for jitter in [0, 3] {
        let mut lives = Lives::new(every(6));
        for hour in 0..24 {
            lives.add(key("app"), stay(hour * 10 + 1 + hour * 7 % (jitter + 1), END, 1));
        }
        let found = lives.suspects().pop().unwrap();
        assert_eq!((found.growth, found.born), (Growth::Growing, 24));
        let slope = found.slope.unwrap();
        assert!((slope.buffers_per_hour - 1.0).abs() < 0.05, "{slope:?}");
    }
}

/// Check that a cache which fills and then stands is no suspect: at once, slowly, ever more slowly.
#[test]
fn cache_filling() {
    for until in [20, 100, 140, 170] {
        assert_eq!(group(making(1..=until, END)).growth, Growth::Plateau, "{until}");
    }
    let slower = (1..30).map(|nth: usize| nth * nth / 5 + 1);
    assert_ne!(group(making(slower.filter(|at| *at <= 110), END)).growth, Growth::Growing);
}

/// Check a pool that breathes: it grows and is emptied, quickly and slowly, wholly and in part.
#[test]
fn pool_breathing() {
    for period in [10, 24, 60, 80, 120] {
        let breath = (1..=END).map(|nth| stay(nth, (nth / period * period + period - 1).min(END), 1));
        assert_eq!(group(breath).growth, Growth::Churn, "{period}");
    }
    for mean in [3.0, 12.0, 30.0, 60.0] {
        let some = (1..=END).map(|nth| stay(nth, (nth + lifetime(nth, mean)).min(END), 1));
        assert_eq!(group(some).growth, Growth::Churn, "{mean}");
    }
}

/// Check that growth under growing load is no leak: more and more are alive, and none is old.
#[test]
fn load_growing() {
    for lifetime in [5, 20, 50, 90] {
        let load = (1..=END).flat_map(|nth| (0..nth / 12).map(move |_| nth));
        let found = group(making(load, lifetime));
        assert_eq!(found.growth, Growth::Churn, "{lifetime}");
        assert!(found.slope.unwrap().buffers_per_hour > 0.0, "{lifetime}");
    }
}

/// Check that a leak is found again after its holder was restarted, wherever in the range that was,
/// also with little time after it, and also if there were two restarts.
#[test]
fn restart_of_the_holder() {
    let leak = |ends: &[usize]| {
        let end_of = |nth: usize| ends.iter().position(|&end| nth < end);
        let life = |nth: usize| match end_of(nth) {
            Some(process) => stay(nth, ends[process] - 1, process as u32),
            None => stay(nth, END, ends.len() as u32),
        };
        group((1..=END).map(life))
    };
    for ends in [&[30][..], &[120], &[200], &[230], &[80, 160], &[120, 230]] {
        let found = leak(ends);
        assert_eq!(found.growth, Growth::Growing, "{ends:?}");
        assert_eq!(found.restarts, ends.len() as u64);
        let died = ends.last().map_or(0, |end| end - 1) as u64;
        assert_eq!((found.born, found.died), (240, died), "what died with it died");
    }
    // A holder that fills its pool when it starts is restarted, and is none.
    let pool =
        |from: usize, until: usize, process| (from..from + 9).map(move |nth| stay(nth, until, process));
    assert_eq!(group(pool(0, 120, 1).chain(pool(121, END, 2))).growth, Growth::Plateau);
    // The new release of a program that leaked does not.
    let old = (1..120).map(|nth| stay(nth, 119, 1));
    assert_eq!(group(old.chain(pool(121, END, 2))).growth, Growth::Plateau);
}

/// Check that short programs which start one after the other are no leak, whatever they hold until
/// they exit.
#[test]
fn jobs() {
    for length in [3, 12, 30] {
        let job =
            |nth: usize| stay(nth, (nth / length * length + length - 1).min(END), (nth / length) as u32);
        assert_eq!(group((1..=END).map(job)).growth, Growth::Churn, "{length}");
    }
}

/// Check that a fixed number of buffers which are replaced by new ones is no leak, quickly and so
/// slowly that each lives for most of the range.
#[test]
fn rotation() {
    for number in [3, 16, 60, 120, 200] {
        let first = (0..number).map(|nth| stay(0, nth, 1));
        let rest = (1..=END).map(|nth| stay(nth, (nth + number - 1).min(END), 1));
        assert_eq!(group(first.chain(rest)).growth, Growth::Churn, "{number}");
    }
}

/// Check that a leak is found within a hundred times as many buffers that come and go, in a group
/// with them.
#[test]
fn leak_within_churn() {
    let churn = (1..=END).flat_map(|nth| (0..10).map(move |other| stay(nth, nth + other % 4, 1)));
    let before = (0..20).map(|nth| stay(0, nth / 5, 1));
    let leak = (1..=END).step_by(10).map(|nth| stay(nth, END, 1));
    let clipped = churn.map(|one| stay(one.first(), one.last().min(END), 1));
    let found = group(before.chain(clipped).chain(leak));
    assert_eq!(found.growth, Growth::Growing);
    assert_eq!((found.older, found.older_died), (20, 20));
}

/// Check that what only stands is a plateau, and that few samples, or few new buffers, are too
/// short.
#[test]
fn nothing() {
    let still = group((0..50).map(|_| stay(0, END, 1)));
    assert_eq!((still.growth, still.born, still.slope.unwrap().r2), (Growth::Plateau, 0, None));
    assert_eq!(group([stay(100, END, 1), stay(230, END, 1)]).growth, Growth::TooShort);
    let mut lives = Lives::new(every(1)[..12].to_vec());
    (1..12).for_each(|nth| lives.add(key("app"), stay(nth, 11, 1)));
    assert_eq!(lives.suspects()[0].growth, Growth::TooShort);
    assert!(Lives::new(Vec::new()).suspects().is_empty());
}

/// Check that the worst comes first: what grows by more bytes, then what cannot be judged.
#[test]
fn worst_first() {
    let mut lives = Lives::new(every(1));
    (1..=END).for_each(|nth| lives.add(key("small"), stay(nth, END, 1)));
    (1..=END).step_by(2).for_each(|nth| {
        let mut large = stay(nth, END, 2);
        large.cost = Some(Bytes(1 << 20));
        lives.add(key("large"), large);
    });
    lives.add(key("still"), stay(0, END, 3));
    lives.add(key("late"), stay(230, END, 4));
    let names: Vec<String> =
        lives.suspects().iter().map(|one| one.key.holder.as_ref().unwrap().comm.to_string()).collect();
    assert_eq!(names, ["large", "small", "late", "still"]);
}

/// Two samples, a process, a name and a cost.
type AnyLife = (usize, usize, u32, u8, Option<u64>);

fn any_history() -> impl Strategy<Value = (Vec<u64>, Vec<AnyLife>)> {
    let life = (0..60usize, 0..60usize, 0..4u32, 0..3u8, prop::option::of(any::<u64>()));
    (prop::collection::vec(0..1000u64, 0..60), prop::collection::vec(life, 0..80))
}

proptest! {
    /// Check of any history that nothing panics, that what was born has died or is left, that each
    /// buffer is counted once, and that a group without new buffers does not grow.
    #[test]
    fn any_history_adds_up((steps, lives_of) in any_history()) {
        let mut now = 0;
        let times: Vec<Duration> = steps.iter().map(|step| { now += step; Duration::from_millis(now) }).collect();
        let end = times.len().saturating_sub(1);
        let mut lives = Lives::new(times);
        for (a, b, process, name, cost) in &lives_of {
            let mut one = Stay::new(*a.min(b).min(&end), (*a.max(b)).min(end), *process);
            one.cost = cost.map(Bytes);
            lives.add(key(&name.to_string()), one);
        }
        let found = lives.suspects();
        let mut total = 0;
        for one in &found {
            prop_assert_eq!(one.cohorts.len(), COHORTS);
            prop_assert_eq!(one.cohorts.iter().map(|cohort| cohort.born).sum::<u64>(), one.born);
            prop_assert_eq!(one.born, one.died + one.left());
            prop_assert!(one.older_died <= one.older);
            prop_assert_eq!(one.trend.last().copied(), Some(one.now()));
            prop_assert!(one.born > 0 || one.growth != Growth::Growing);
            prop_assert!(one.slope.and_then(|slope| slope.r2).is_none_or(|r2| (0.0..=1.0).contains(&r2)));
            total += one.born + one.older;
        }
        prop_assert_eq!(total as usize, lives_of.len());
    }
}
