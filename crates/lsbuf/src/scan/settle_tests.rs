//! Tests of each rule of the proof by itself. `settle_model` tests every interleaving of a small
//! model of the kernel with a scan.

use super::super::reading::{Counted, FdRef, Object};
use super::*;
use crate::model::{Fd, Inode};

/// One buffer that process 7 holds by fd 3 and of which the kernel counts `count` references.
fn reading(count: u64) -> Reading {
    held_by_fd(Fd(3), count)
}

fn held_by_fd(fd: Fd, count: u64) -> Reading {
    let mut buffer = Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(1)));
    (buffer.count, buffer.in_flight, buffer.io_uring) = (Some(count), Some(0), Some(0));
    let counted = Counted { stable: true, pinned: false };
    Reading {
        objects: vec![Object { buffer, counted }],
        fds: [FdRef { object: 0, table: 0, fd, path_only: false }].into_iter().collect(),
        tables: vec![vec![(Pid(7), None)]],
        interference: Interference {
            ran: Some(pids(&[])),
            in_call: Some(pids(&[])),
            ..Interference::default()
        },
        coverage: ReadingCoverage { listed: true, ..ReadingCoverage::default() },
        ..Reading::default()
    }
}

fn pids(pids: &[u32]) -> BTreeSet<Pid> {
    pids.iter().copied().map(Pid).collect()
}

fn ran(count: u64, who: &[u32]) -> Reading {
    let mut reading = reading(count);
    reading.interference.ran = Some(pids(who));
    reading
}

/// The buffer's residual, after how many readings it was decided, and the answer.
fn settle(readings: impl IntoIterator<Item = Reading>) -> (Residual, usize, Settled) {
    let mut settling = Settling::new(Limits { readings: 3, time: Duration::ZERO, slow: Duration::MAX });
    for (nth, reading) in readings.into_iter().enumerate() {
        if let Step::Done(outcome) = settling.take(reading) {
            return (outcome.buffers[0].residual, nth + 1, *outcome);
        }
    }
    panic!("another reading is asked for");
}

fn residual(readings: impl IntoIterator<Item = Reading>) -> (Residual, usize) {
    let (residual, readings, _) = settle(readings);
    (residual, readings)
}

/// Check that one reading in which nothing ran proves a residual, whether it is 0 or not.
#[test]
fn an_undisturbed_reading_proves() {
    assert_eq!(residual([reading(1)]), (Residual::Exact(0), 1));
    assert_eq!(residual([reading(3)]), (Residual::Exact(2), 1));
}

/// Check that only its holders can make a residual of 0 an estimate.
#[test]
fn only_holders_disturb_a_residual_of_0() {
    assert_eq!(residual([ran(1, &[8, 9])]), (Residual::Exact(0), 1));
    let each = || [ran(1, &[7]), ran(1, &[7]), ran(1, &[7])];
    assert_eq!(residual(each()), (Residual::Estimate(0, Why::Ran), 3));
    assert_eq!(settle(each()).2.ran, pids(&[7]));
}

/// Check that a process that ran in one reading and not in the other is no suspect, and that one
/// that ran in all is.
#[test]
fn who_ran_in_every_reading() {
    assert_eq!(residual([ran(2, &[7, 8]), ran(2, &[9])]), (Residual::Exact(1), 2));
    let (residual, _, outcome) = settle([ran(2, &[7, 8]), ran(2, &[8, 9]), ran(2, &[8])]);
    assert_eq!((residual, outcome.ran), (Residual::Estimate(1, Why::Ran), pids(&[8])));
}

/// Check that readings with another account are no evidence for the present account.
#[test]
fn only_the_same_counts() {
    let mut other = held_by_fd(Fd(4), 2);
    other.interference.ran = Some(pids(&[9]));
    let readings = [ran(2, &[8]), other, ran(2, &[8])];
    assert_eq!(residual(readings), (Residual::Estimate(1, Why::Ran), 3));
}

/// Check that a residual stays proven while more readings are made for another buffer, as long as
/// its account stays the same.
#[test]
fn a_proof_stays() {
    let with_other = |who: &[u32]| {
        let mut reading = ran(2, who);
        let mut other = reading.objects[0].clone();
        other.buffer.id.ino = Inode(2);
        other.counted.stable = false;
        reading.objects.push(other);
        reading
    };
    let (residual, readings, outcome) = settle([with_other(&[]), with_other(&[8]), with_other(&[8])]);
    assert_eq!((residual, readings), (Residual::Exact(1), 3));
    assert_eq!(outcome.buffers[1].residual, Residual::Estimate(2, Why::CountMoved));
}

/// Check that each disturbance makes a residual an estimate that names it, unless the residual is
/// 0.
#[test]
fn disturbances() {
    type Disturb = fn(&mut Interference);
    let cases: [(Disturb, Why); 6] = [
        (|w| w.ran = None, Why::NotWatched),
        (|w| w.in_call = None, Why::NotWatched),
        (|w| w.moved = true, Why::Moved),
        (|w| w.in_call = Some(pids(&[9])), Why::InCall),
        (|w| w.exiting = true, Why::InCall),
        (|w| w.processes_changed = true, Why::ProcessesChanged),
    ];
    for (disturb, why) in cases {
        let disturbed = |count| {
            let mut reading = reading(count);
            disturb(&mut reading.interference);
            reading
        };
        assert_eq!(residual([disturbed(2), disturbed(2), disturbed(2)]), (Residual::Estimate(1, why), 3));
        if why != Why::NotWatched {
            assert_eq!(residual([disturbed(1)]), (Residual::Exact(0), 1));
        }
    }
}

/// Check that other readings do not make a residual exact if each reading's own facts make it an
/// estimate or unknown.
#[test]
fn facts_that_no_reading_changes() {
    type Change = fn(&mut Reading);
    let cases: [(Change, Residual); 5] = [
        (|r| r.objects[0].buffer.count = None, Residual::Unknown(Why::NotCounted)),
        (|r| r.objects[0].buffer.count = Some(0), Residual::Unknown(Why::Overcounted)),
        (|r| r.coverage.gaps.denied = 1, Residual::Estimate(1, Why::Unread)),
        (|r| _ = r.uncompared.insert(Pid(7)), Residual::Estimate(1, Why::Uncompared)),
        (|r| r.objects[0].buffer.in_flight = None, Residual::Estimate(1, Why::MaybeInFlight)),
    ];
    for (change, expected) in cases {
        let changed = || {
            let mut reading = reading(2);
            change(&mut reading);
            reading
        };
        assert_eq!(settle([changed(), changed(), changed()]).0, expected);
    }
}

/// Check that a reading that did not look everywhere is followed by one that does, and that reads
/// calls, if there is a residual; and that it is the answer if there is none.
#[test]
fn what_was_passed_over() {
    let passing = |count| {
        let mut reading = reading(count);
        reading.coverage.passed_over = true;
        reading.interference.in_call = None;
        reading
    };
    assert_eq!(residual([passing(1)]), (Residual::Exact(0), 1));
    let mut settling = Settling::new(Limits { readings: 3, time: Duration::ZERO, slow: Duration::MAX });
    let step = settling.take(passing(2));
    assert!(matches!(step, Step::Again(Effort { thorough: true, calls: true }, _)), "{step:?}");
}

/// Check that where nothing lists the buffers, the answer names the processes that may hold missing
/// ones, but not if they were different ones in each reading; and that it names none if processes
/// came or went in every reading.
#[test]
fn what_may_be_missing() {
    let unlisted = |remapped: &[u32], in_call: &[u32], changed: bool| {
        let mut reading = reading(1);
        reading.coverage.listed = false;
        reading.interference.remapped = pids(remapped);
        reading.interference.in_call = Some(pids(in_call));
        reading.interference.processes_changed = changed;
        reading
    };
    let may_miss = |readings: [Reading; 3]| settle(readings).2.may_miss;
    let undisturbed = || unlisted(&[], &[], false);
    assert_eq!(may_miss([undisturbed(), undisturbed(), undisturbed()]), None);
    let moves = |who: &[u32]| unlisted(who, &[], false);
    assert_eq!(may_miss([moves(&[8]), moves(&[9]), undisturbed()]), None);
    assert_eq!(may_miss([moves(&[8]), moves(&[8, 9]), moves(&[8])]), Some(pids(&[8])));
    // A process that changed mappings in every reading will do so again. Another reading is made
    // only if the last one cleared somebody.
    let taken = |readings: [Reading; 3]| settle(readings).1;
    assert_eq!(taken([moves(&[8]), moves(&[8, 9]), undisturbed()]), 2);
    assert_eq!(taken([moves(&[8, 9]), moves(&[8, 7]), undisturbed()]), 3);
    // A reading without disturbance that found another buffer is no evidence for a reading that did
    // not find it.
    let mut found_more = undisturbed();
    let mut other = found_more.objects[0].clone();
    other.buffer.id.ino = Inode(2);
    found_more.objects.push(other);
    found_more.objects[0].counted.stable = false;
    assert_eq!(may_miss([found_more, moves(&[8]), moves(&[8])]), Some(pids(&[8])));
    // Nor is one that did not look at processes which may hold some.
    let mut passing = moves(&[8]);
    passing.coverage.unlisted_passed_over = pids(&[7]);
    assert_eq!(may_miss([passing, moves(&[9]), moves(&[9])]), Some(pids(&[9])));
    let forks = || unlisted(&[], &[8], false);
    assert_eq!(may_miss([forks(), forks(), forks()]), Some(pids(&[8])));
    let changes = || unlisted(&[], &[], true);
    assert_eq!(may_miss([changes(), changes(), changes()]), Some(pids(&[])));
}

/// Check that the holders that ran are found, whether few ran or few hold the buffer.
#[test]
fn holders_that_ran() {
    let among = |ran: &[u32], holders: std::ops::Range<u32>| {
        let holders: Vec<Holder> = holders.map(|pid| Holder::new(Pid(pid))).collect();
        let suspects = Suspects { ran: Rc::new(pids(ran)), only_holders: true };
        let found: Vec<u32> = suspects.among(&holders).map(|pid| pid.0).collect();
        assert_eq!(suspects.is_none(&holders), found.is_empty());
        found
    };
    assert_eq!(among(&[3, 50, 200], 10..100), [50]);
    assert_eq!(among(&[3, 10, 11, 200], 10..12), [10, 11]);
    assert_eq!(among(&[3], 10..100), [0; 0]);
    assert_eq!(among(&[], 10..12), [0; 0]);
}

/// Check that a message makes every process that ran a suspect, and that a reading that found none
/// leaves only the holders.
#[test]
fn suspects_of_a_message() {
    let with_message = |who: &[u32]| {
        let mut reading = ran(2, who);
        reading.objects[0].buffer.in_flight = Some(1);
        reading
    };
    let with_program = |who: &[u32]| {
        let mut reading = ran(2, who);
        reading.objects[0].buffer.exe = Some(1);
        reading
    };
    let (residual, _, outcome) = settle([with_message(&[7, 8]), with_message(&[7, 8]), with_message(&[8])]);
    assert_eq!((residual, outcome.ran), (Residual::Estimate(0, Why::Ran), pids(&[8])));
    let (residual, readings, _) = settle([with_message(&[8]), with_program(&[7, 8])]);
    assert_eq!((residual, readings), (Residual::Exact(0), 2));
}

/// Check that one buffer of a thousand is not worth another reading of a large machine, that two of
/// them are, and that one is if the machine is small.
#[test]
fn few_of_many() {
    let taken = |unproven: usize, slow| {
        let reading = || {
            let mut reading = ran(2, &[]);
            let one = reading.objects[0].clone();
            reading.objects.extend((2..=1000).map(|ino| {
                let mut one = one.clone();
                one.buffer.id.ino = Inode(ino);
                one
            }));
            reading.objects[..unproven].iter_mut().for_each(|one| one.counted.stable = false);
            reading
        };
        let mut settling = Settling::new(Limits { readings: 3, time: Duration::ZERO, slow });
        1 + (0..2).take_while(|_| matches!(settling.take(reading()), Step::Again(..))).count()
    };
    assert_eq!([1, 2].map(|unproven| taken(unproven, Duration::ZERO)), [1, 2]);
    assert_eq!(taken(1, Duration::MAX), 3);
}

/// Check that any number of readings may be allowed.
#[test]
fn limits_do_not_overflow() {
    let mut settling = Settling::new(Limits { readings: u32::MAX, time: Duration::MAX, slow: Duration::MAX });
    assert!(matches!(settling.take(ran(2, &[8])), Step::Again(..)));
}
