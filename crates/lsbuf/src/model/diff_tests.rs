//! Properties of differences, and each change by itself.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::super::ledger::tests::{any_snapshot, buffer, holder, snapshot};
use super::*;
use crate::model::Gaps;

fn of(buffers: Vec<Buffer>) -> Snapshot {
    let mut snapshot = snapshot(buffers, Gaps::default());
    snapshot.host.boot_id = Some("boot".into());
    snapshot
}

fn held_by(ino: u64, size: u64, pids: &[u32]) -> Buffer {
    let holders = pids.iter().map(|&pid| holder(pid, 1, 0, &[])).collect();
    buffer(ino, Some(size), Some(pids.len() as u64), holders)
}

/// Each change with the inode number and the difference in cost.
fn changes(before: &Snapshot, after: &Snapshot) -> Vec<(Change, u64, Option<i128>)> {
    let (before, after) = (Ledger::of(before), Ledger::of(after));
    let diff = Diff::of(&before, &after, |_| true);
    diff.buffers.iter().map(|changed| (changed.change, changed.buffer.id.ino.0, changed.cost)).collect()
}

/// Check each sort of change.
#[test]
fn each_change() {
    let before = of(vec![
        held_by(1, 10, &[7]),
        held_by(2, 10, &[7]),
        held_by(3, 10, &[7]),
        held_by(4, 10, &[7]),
        held_by(5, 10, &[7]),
    ]);
    let after = of(vec![
        held_by(2, 30, &[7]),
        held_by(3, 5, &[7]),
        held_by(4, 10, &[8]),
        held_by(5, 10, &[7]),
        held_by(6, 40, &[7]),
    ]);
    assert_eq!(
        changes(&before, &after),
        [
            (Change::Born, 6, Some(40)),
            (Change::Grown, 2, Some(20)),
            (Change::Died, 1, Some(-10)),
            (Change::Shrunk, 3, Some(-5)),
            (Change::Holders, 4, Some(0)),
        ]
    );
    let (before, after) = (Ledger::of(&before), Ledger::of(&after));
    let diff = Diff::of(&before, &after, |_| true);
    let moved = &diff.buffers[4];
    assert_eq!((&moved.gained[..], &moved.lost[..], diff.same), (&[Pid(8)][..], &[Pid(7)][..], 1));
}

/// Check that a pid which another process has got is another holder.
#[test]
fn pids_are_reused() {
    let before = of(vec![held_by(1, 10, &[7])]);
    let mut after = before.clone();
    after.processes[0].start_time += 1;
    let (old, new) = (Ledger::of(&before), Ledger::of(&after));
    let diff = Diff::of(&old, &new, |_| true);
    assert_eq!((&diff.buffers[0].gained[..], &diff.buffers[0].lost[..]), (&[Pid(7)][..], &[Pid(7)][..]));
    assert_eq!(diff.processes().len(), 2);
}

/// Check that an inode number which another file has got is another buffer, but not a dma-buf's,
/// whose times can be changed.
#[test]
fn inode_numbers_are_reused() {
    let with = |kind, seconds| {
        let mut buffer = held_by(1, 10, &[7]);
        buffer.id.kind = kind;
        buffer.charged = Some(Bytes(10));
        buffer.created_at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        of(vec![buffer])
    };
    assert_eq!(changes(&with(Kind::Memfd, 1), &with(Kind::Memfd, 2)).len(), 2);
    assert_eq!(changes(&with(Kind::DmaBuf, 1), &with(Kind::DmaBuf, 2)).len(), 0);
}

/// Check that snapshots of two boots have nothing in common, and that an unknown boot is no proof.
#[test]
fn boots() {
    let before = of(vec![held_by(1, 10, &[7])]);
    for boot in [Some("other".to_owned()), None] {
        let mut after = before.clone();
        after.host.boot_id = boot;
        assert_eq!(changes(&before, &after).len(), 2);
    }
}

/// Check that an unknown cost is no change of cost.
#[test]
fn unknown_costs() {
    let (mut known, mut unknown) = (held_by(1, 10, &[7]), held_by(1, 10, &[7]));
    (known.size, unknown.size) = (Some(Bytes(10)), None);
    assert_eq!(changes(&of(vec![known]), &of(vec![unknown.clone()])), []);
    assert_eq!(changes(&of(Vec::new()), &of(vec![unknown])), [(Change::Born, 1, None)]);
}

/// Check that groups say what was born and died in them, beside what they come to.
#[test]
fn groups() {
    let before = of(vec![held_by(1, 10, &[7]), held_by(2, 10, &[7])]);
    let after = of(vec![held_by(2, 10, &[7]), held_by(3, 50, &[7])]);
    let (old, new) = (Ledger::of(&before), Ledger::of(&after));
    let diff = Diff::of(&old, &new, |_| true);
    let groups = diff.groups(SumKey::Command, |_| true);
    let [group] = &groups[..] else { panic!("{groups:?}") };
    let cost = |figures: &Option<GroupFigures>| figures.as_ref().and_then(|figures| figures.cost);
    let costs = [cost(&group.before), cost(&group.after), cost(&group.born), cost(&group.died)];
    assert_eq!(costs, [20, 60, 50, 10].map(|bytes| Some(Bytes(bytes))));
}

proptest! {
    /// Check that the differences of all buffers are the difference of what they cost.
    #[test]
    fn differences_add_up(before in any_snapshot(), after in any_snapshot()) {
        let with_boot = |mut snapshot: Snapshot| {
            snapshot.host.boot_id = Some("boot".into());
            snapshot
        };
        let (before, after) = (with_boot(before), with_boot(after));
        let cost = |s: &Snapshot| s.buffers.iter().map(|b| b.cost().map(|c| i128::from(c.0))).sum::<Option<i128>>();
        let (old, new) = (Ledger::of(&before), Ledger::of(&after));
        let diff = Diff::of(&old, &new, |_| true);
        if let (Some(before), Some(after)) = (cost(&before), cost(&after)) {
            let changed: Option<i128> = diff.buffers.iter().map(|changed| changed.cost).sum();
            prop_assert_eq!(changed, Some(after - before));
            let totals = Change::ALL.iter().map(|&change| diff.total(change).1);
            prop_assert_eq!(totals.sum::<Option<i128>>(), Some(after - before));
        }
    }

    /// Check that a snapshot does not differ from itself.
    #[test]
    fn nothing_differs_from_itself(snapshot in any_snapshot()) {
        let mut snapshot = snapshot;
        snapshot.host.boot_id = Some("boot".into());
        let ledger = Ledger::of(&snapshot);
        let diff = Diff::of(&ledger, &ledger, |_| true);
        prop_assert!(diff.buffers.is_empty() && diff.processes().is_empty());
        prop_assert!(diff.groups(SumKey::Kind, |_| true).is_empty());
        prop_assert_eq!(diff.same, snapshot.buffers.len() as u64);
    }
}
