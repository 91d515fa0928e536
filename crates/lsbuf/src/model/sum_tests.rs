//! Properties: sums add up for any facts and any key. Examples: each group by itself.

use proptest::prelude::*;

use super::super::ledger::tests::{any_snapshot, made, made_for};
use super::super::{BufferId, Dev, Inode, Pod, PodName};
use super::*;

/// A snapshot whose processes have commands, cgroups, users and pods, some of them in common and
/// some unknown.
fn any_workloads() -> impl Strategy<Value = (Snapshot, SumKey)> {
    let keys = proptest::sample::select(SumKey::ALL);
    (any_snapshot(), proptest::collection::vec(0..4u8, 8), keys).prop_map(|(mut snapshot, choices, key)| {
        for (process, choice) in snapshot.processes.iter_mut().zip(choices.into_iter().cycle()) {
            let name = |word: &str| Label::from(format!("{word}{choice}").as_str());
            let mut workload = Workload::default();
            (workload.unit, workload.container) = ((choice > 1).then(|| name("u")), Some(name("c")));
            workload.pod = (choice > 2).then(|| Pod::new(name("p")));
            process.comm = name("comm");
            process.uid = (choice > 0).then_some(choice.into());
            process.cgroup = (choice > 0).then(|| name("/"));
            let workload = (choice > 0).then_some(workload);
            process.details = Some(Box::new(ProcessDetails { workload, ..ProcessDetails::default() }));
        }
        (snapshot, key)
    })
}

fn all_of(snapshot: &Snapshot) -> Vec<usize> {
    (0..snapshot.buffers.len()).collect()
}

proptest! {
    /// Check that the costs of all groups, less what is counted again, are the cost of the buffers;
    /// and that the parts of the holders are what is held, to the byte.
    #[test]
    fn groups_add_up((snapshot, key) in any_workloads()) {
        let ledger = Ledger::of(&snapshot);
        let Sum { groups, totals, .. } = Sum::of(&ledger, &all_of(&snapshot), key);
        let sum = |figure: fn(&GroupFigures) -> Option<Bytes>| Bytes::total(groups.iter().map(figure));
        if let (Some(costs), Some(cost)) = (sum(|g| g.cost), totals.cost) {
            prop_assert_eq!(costs, cost + totals.counted_again.unwrap());
        }
        if let (Some(pss), Some(held)) = (sum(|g| g.pss), totals.held) {
            prop_assert_eq!(pss, held);
            // The figures of processes count memory once that is in two buffers.
            let is_shared = ledger.totals.same_memory > Bytes(0);
            prop_assert!(totals.held == ledger.totals.pss || is_shared);
        }
        prop_assert_eq!(totals.buffers, snapshot.buffers.len() as u64);
        let memberships: u64 = groups.iter().map(|g| g.buffers).sum();
        prop_assert!(memberships >= totals.buffers + totals.in_several);
        prop_assert!(key.is_of_holders() || memberships == totals.buffers);
    }

    /// Check that fds and mappings count once in all groups together.
    #[test]
    fn references_add_up((snapshot, key) in any_workloads()) {
        let ledger = Ledger::of(&snapshot);
        let sum = Sum::of(&ledger, &all_of(&snapshot), key);
        let found = |count: fn(&GroupFigures) -> u64| sum.groups.iter().map(count).sum::<u64>();
        prop_assert_eq!(found(|g| g.fds), ledger.rows().map(|row| row.account.fd).sum::<u64>());
        prop_assert_eq!(found(|g| g.maps), ledger.rows().map(|row| row.account.map).sum::<u64>());
    }

    /// Check that of each group the parts and what only it holds are no more than its cost, and
    /// that what it shares and what only it holds are different buffers.
    #[test]
    fn figures_of_a_group((snapshot, key) in any_workloads()) {
        let ledger = Ledger::of(&snapshot);
        for group in Sum::of(&ledger, &all_of(&snapshot), key).groups {
            let Some(cost) = group.cost else { continue };
            prop_assert!(group.pss.is_some_and(|pss| pss <= cost));
            if let (Some(uss), Some(shared)) = (group.uss, group.shared) {
                prop_assert!(uss + shared <= cost);
            }
            prop_assert!(group.group != Group::Unheld || (group.pss, group.processes) == (Some(Bytes(0)), 0));
        }
    }

    /// Check that a group of one process has the figures of that process, where no memory is in two
    /// buffers.
    #[test]
    fn a_group_of_one((mut snapshot, _) in any_workloads()) {
        for process in &mut snapshot.processes {
            process.comm = Label::from(format!("only {}", process.pid).as_str());
        }
        let ledger = Ledger::of(&snapshot);
        for group in Sum::of(&ledger, &all_of(&snapshot), SumKey::Command).groups {
            let Group::Key(key) = &group.group else { continue };
            let row = ledger.processes().find(|row| row.process.comm == *key).unwrap();
            let is_shared = ledger.totals.same_memory > Bytes(0);
            let of_one = (row.figures.rss, row.figures.pss);
            prop_assert!((group.cost, group.pss) == of_one || is_shared);
            prop_assert_eq!((group.processes, group.buffers), (1, row.figures.buffers));
            if group.uss.is_some() && !is_shared {
                prop_assert_eq!(group.uss, row.figures.uss);
            }
        }
    }
}

fn buffer(kind: Kind, ino: u64, name: &str) -> Buffer {
    let mut buffer = Buffer::new(BufferId::new(kind, Some(Dev { major: 0, minor: 27 }), Inode(ino)));
    buffer.name = Some(name.into());
    (buffer.size, buffer.charged) = (Some(Bytes(10)), Some(Bytes(10)));
    buffer
}

/// A snapshot of these buffers, which nobody holds.
fn of_buffers(buffers: Vec<Buffer>) -> Snapshot {
    Snapshot {
        taken_at: std::time::SystemTime::UNIX_EPOCH,
        host: super::super::Host::default(),
        kinds: super::super::Kinds::ALL,
        coverage: super::super::Coverage::default(),
        buffers,
        unheld: None,
        processes: Vec::new(),
        devices: Vec::new(),
        mount_points: BTreeMap::new(),
    }
}

fn groups(snapshot: &Snapshot, by: SumKey) -> Vec<(Group, u64)> {
    let sum = Sum::of(&Ledger::of(snapshot), &all_of(snapshot), by);
    sum.groups.into_iter().map(|group| (group.group, group.buffers)).collect()
}

/// Check that buffers are grouped by the command that received each first from its maker, and that
/// the others have no known client.
#[test]
fn by_client() {
    let of = |ino, origin: Option<Origin>| Buffer {
        origin: origin.map(Box::new),
        ..buffer(Kind::Memfd, ino, "a")
    };
    let snapshot = of_buffers(vec![
        of(1, Some(made_for("server", "app", 7))),
        of(2, Some(made_for("server", "app", 8))),
        of(3, Some(made_for("server", "other", 9))),
        of(4, Some(made("app", 7, &[]))),
        of(5, Some(Origin::Before)),
        of(6, None),
    ]);
    let key = |command: &str| Group::Key(command.into());
    assert_eq!(groups(&snapshot, SumKey::Client), [(key("app"), 2), (key("other"), 1), (Group::Unknown, 3)]);
}

/// Check that names are folded, that unnamed buffers are a group of their own, and that an unknown
/// name is unknown.
#[test]
fn by_name() {
    let mut buffers: Vec<Buffer> =
        (0..3).map(|n| buffer(Kind::Memfd, n, &format!("torch_{n}_{}", 7 * n))).collect();
    buffers.extend([buffer(Kind::Memfd, 8, ""), Buffer { name: None, ..buffer(Kind::Memfd, 9, "") }]);
    let expected = [(Group::Key("torch_#_#".into()), 3), (Group::None, 1), (Group::Unknown, 1)];
    assert_eq!(groups(&of_buffers(buffers), SumKey::Name), expected);
}

/// Check that what nobody holds is a group of its own by keys of holders alone.
#[test]
fn unheld() {
    let snapshot = of_buffers(vec![buffer(Kind::Sysv, 1, "0x00000001")]);
    assert_eq!(groups(&snapshot, SumKey::Command), [(Group::Unheld, 1)]);
    assert_eq!(groups(&snapshot, SumKey::Kind), [(Group::Key("sysv".into()), 1)]);
    assert_eq!(groups(&snapshot, SumKey::Exporter), [(Group::None, 1)]);
}

/// Check that files are grouped by their filesystem, with its mount point where that is known.
#[test]
fn by_mount() {
    let mut snapshot = of_buffers(vec![buffer(Kind::Tmpfs, 1, "/dev/shm/a"), buffer(Kind::Tmpfs, 2, "/x")]);
    snapshot.buffers[1].id.dev = Some(Dev { major: 0, minor: 99 });
    snapshot.mount_points.insert(Dev { major: 0, minor: 27 }, "/dev/shm".into());
    let key = |text: &str| Group::Key(text.into());
    assert_eq!(groups(&snapshot, SumKey::Mount), [(key("0:27 /dev/shm"), 1), (key("0:99"), 1)]);
}

/// Check that a buffer with holders in two pods counts in both, and the amount is said.
#[test]
fn counted_in_several() {
    let mut shared = buffer(Kind::Memfd, 1, "pool");
    shared.holders = vec![Holder::new(Pid(1)), Holder::new(Pid(2)), Holder::new(Pid(3))];
    let mut snapshot = of_buffers(vec![shared, buffer(Kind::Memfd, 2, "")]);
    for (pid, pod) in [(1, Some("a")), (2, Some("b")), (3, None)] {
        let pod =
            pod.map(|pod| Pod { name: Some(PodName::new("ns".into(), pod.into())), ..Pod::new("u".into()) });
        let workload = Some(Workload { pod, ..Workload::default() });
        let details = Some(Box::new(ProcessDetails { workload, ..ProcessDetails::default() }));
        let comm = "c".into();
        let process = Process {
            pid: Pid(pid),
            start_time: 1,
            comm,
            uid: None,
            cgroup: None,
            sync_files: None,
            details,
        };
        snapshot.processes.push(process);
    }
    let ledger = Ledger::of(&snapshot);
    let sum = Sum::of(&ledger, &all_of(&snapshot), SumKey::Pod);
    let figures: Vec<_> = sum.groups.iter().map(|g| (g.group.clone(), g.cost, g.pss, g.shared)).collect();
    let ten = Some(Bytes(10));
    assert_eq!(
        figures,
        [
            (Group::Key("ns/a".into()), ten, Some(Bytes(4)), ten),
            (Group::Key("ns/b".into()), ten, Some(Bytes(3)), ten),
            (Group::None, ten, Some(Bytes(3)), ten),
            (Group::Unheld, ten, Some(Bytes(0)), Some(Bytes(0))),
        ]
    );
    let SumTotals { buffers, cost, counted_again, in_several, .. } = sum.totals;
    assert_eq!((buffers, cost, counted_again, in_several), (2, Some(Bytes(20)), Some(Bytes(20)), 1));
}
