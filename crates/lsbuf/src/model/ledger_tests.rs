//! Properties: the figures add up for any facts. Examples: each rule of the account by itself.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::{
    Birth, BufferId, BuildId, Client, CodePlace, Coverage, DeviceClass, DeviceHolder, Fd, Function, Gaps,
    Holder, Host, Inode, Kind, Kinds, MapRef, Origin, Overlap, Part, Process, Receipt, Residual, Segment,
    Source, Stack, StackEnd, Tid, UserFrame, Why,
};
use super::*;

pub(crate) fn holder(pid: u32, fds: usize, opaths: usize, maps: &[u64]) -> Holder {
    let fds = (0..fds as u32).map(Fd).collect();
    let opaths = (0..opaths as u32).map(|n| Fd(1000 + n)).collect();
    let maps = maps
        .iter()
        .map(|&len| MapRef { start: 4096, end: 4096 + len, offset: Some(0), perms: None })
        .collect();
    Holder { fds, opaths, maps, ..Holder::new(Pid(pid)) }
}

pub(crate) fn buffer(ino: u64, size: Option<u64>, count: Option<u64>, holders: Vec<Holder>) -> Buffer {
    let mut buffer = Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(ino)));
    buffer.size = size.map(Bytes);
    buffer.count = count;
    buffer.holders = holders;
    settled(buffer)
}

/// The birth of a buffer that a process made by these calls, the innermost first. Each is a
/// function of the program.
pub(crate) fn made(command: &str, pid: u32, calls: &[&str]) -> Origin {
    let call = |(nth, name): (u64, &&str)| {
        let place = CodePlace::File { build_id: BuildId([7; 20]), offset: 0x1000 + nth };
        let functions = vec![Function::new((*name).into())];
        UserFrame { module: Some(command.into()), functions, ..UserFrame::new(place) }
    };
    let user = (0..).zip(calls).map(call).collect();
    let stack = (!calls.is_empty()).then(|| Stack { user, user_end: StackEnd::Complete, ..Stack::default() });
    Origin::Made(Box::new(Birth {
        after_boot: Duration::from_secs(9),
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(102),
        pid: Pid(pid),
        started: Duration::from_secs(1),
        command: command.into(),
        tid: Tid(pid),
        thread: command.into(),
        uid: 0,
        cgroup: 1,
        stack: stack.map(Arc::new),
        client: Client::NotSeen,
    }))
}

/// The same of a buffer that another process was the first to receive.
pub(crate) fn made_for(command: &str, client: &str, pid: u32) -> Origin {
    let mut origin = made(command, 1, &[]);
    if let Origin::Made(birth) = &mut origin {
        birth.client = Client::Received(Receipt {
            after_boot: Duration::from_secs(10),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(103),
            pid: Pid(pid),
            started: Duration::from_secs(2),
            command: client.into(),
            uid: 1000,
            cgroup: 7,
        });
    }
    origin
}

/// With the residual that a scan would give it, had nothing disturbed it.
fn settled(mut buffer: Buffer) -> Buffer {
    let left = buffer.count.map(|count| count.checked_sub(buffer.found()));
    buffer.residual = match left {
        None => Residual::Unknown(Why::NotCounted),
        Some(None) => Residual::Unknown(Why::Overcounted),
        Some(Some(0)) => Residual::Exact(0),
        Some(Some(n)) if buffer.in_flight.is_none() || buffer.io_uring.is_none() => {
            Residual::Estimate(n, Why::MaybeInFlight)
        }
        Some(Some(n)) => Residual::Exact(n),
    };
    if buffer.residual == Residual::Exact(0) && buffer.id.kind == Kind::DmaBuf {
        for kept in [&mut buffer.in_flight, &mut buffer.io_uring, &mut buffer.exe] {
            *kept = kept.or(Some(0));
        }
    }
    buffer
}

/// A snapshot of these buffers, with a process for each holder.
pub(crate) fn snapshot(buffers: Vec<Buffer>, gaps: Gaps) -> Snapshot {
    let mut pids: Vec<Pid> = buffers.iter().flat_map(|b| &b.holders).map(|h| h.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let process = |pid| Process {
        pid,
        start_time: 1,
        comm: "p".into(),
        uid: Some(0),
        cgroup: None,
        sync_files: None,
        details: None,
    };
    Snapshot {
        taken_at: SystemTime::UNIX_EPOCH,
        host: Host::default(),
        kinds: Kinds::ALL,
        coverage: Coverage {
            gaps,
            sources: vec![Source::Bufinfo],
            duration: Duration::ZERO,
            ..Coverage::default()
        },
        processes: pids.into_iter().map(process).collect(),
        devices: Vec::new(),
        mount_points: BTreeMap::new(),
        buffers,
        unheld: None,
    }
}

fn any_holders() -> impl Strategy<Value = Vec<Holder>> {
    let one = (0..4usize, 0..2usize, vec(1..1u64 << 40, 0..3));
    vec(option::of(one), 0..6).prop_map(|slots| {
        let found = slots.into_iter().enumerate().filter_map(|(pid, slot)| slot.map(|s| (pid, s)));
        let holders = found.map(|(pid, (fds, opaths, maps))| holder(pid as u32, fds, opaths, &maps));
        holders.filter(|h| h.fds.len() + h.opaths.len() + h.maps.len() > 0).collect()
    })
}

/// Sizes of real buffers, and now and then one that nobody's memory has: a memfd can be as long.
fn any_size() -> impl Strategy<Value = u64> {
    prop_oneof![30 => 0..1u64 << 50, 1 => (1u64 << 63) - 9..=u64::MAX]
}

fn any_buffer() -> impl Strategy<Value = Buffer> {
    let known = (option::weighted(0.9, any_size()), option::weighted(0.9, 0..20u64));
    let kept = (option::of(0..3u64), option::of(0..3u64), option::of(0..3u64));
    let shmem = (0..Kind::ALL.len(), option::weighted(0.9, any_size()), option::of(any::<bool>()));
    (known, any_holders(), any::<bool>(), kept, shmem).prop_map(
        |((size, count), holders, steady, kept, (kind, charged, deleted))| {
            let mut b = buffer(0, size, count, holders);
            (b.in_flight, b.io_uring, b.exe) = kept;
            b.id.kind = Kind::ALL[kind];
            b.charged = charged.map(Bytes);
            b.deleted = deleted;
            let mut b = settled(b);
            if let (Residual::Exact(n), false) = (b.residual, steady) {
                b.residual = Residual::Estimate(n, Why::CountMoved);
            }
            b
        },
    )
}

/// Numbers the buffers, and lets some be said to have memory in common with another.
fn any_buffers() -> impl Strategy<Value = Vec<Buffer>> {
    let overlaps = vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..1u64 << 50), 0..6);
    (vec(any_buffer(), 0..12), overlaps).prop_map(|(mut buffers, overlaps)| {
        for (ino, buffer) in buffers.iter_mut().enumerate() {
            buffer.id.ino = Inode(ino as u64);
            buffer.origin = [
                None,
                Some(Origin::Before),
                Some(made("app", ino as u32, &[])),
                Some(made("app", 1, &["make", "main"])),
                Some(made_for("server", "app", ino as u32)),
            ][ino % 5]
                .clone()
                .map(Box::new);
        }
        buffers.sort_by_key(|b| b.id);
        for (one, other, bytes) in if buffers.is_empty() { Vec::new() } else { overlaps } {
            let of = buffers[other.index(buffers.len())].id;
            let one = one.index(buffers.len());
            if buffers[one].id.kind == Kind::DmaBuf && of.kind == Kind::Memfd {
                buffers[one].overlaps.get_or_insert_default().push(Overlap { of, bytes: Bytes(bytes) });
            }
        }
        buffers
    })
}

pub(crate) fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    (any_buffers(), any::<bool>()).prop_map(|(buffers, partial)| {
        snapshot(buffers, Gaps { not_whole_machine: partial, ..Gaps::default() })
    })
}

proptest! {
    /// Check that what is exported is what processes hold, what only the kernel holds, and segments
    /// of somebody unseen.
    #[test]
    fn held_and_kernel_only_are_the_size(s in any_snapshot()) {
        let totals = Ledger::of(&s).totals;
        if let Some(size) = totals.size {
            let unseen = Bytes::total(s.buffers.iter().filter(|b| b.is_held_unseen()).map(Buffer::cost));
            prop_assert_eq!(size, totals.held.unwrap() + totals.kernel_only.unwrap() + unseen.unwrap());
        }
    }

    /// Check that the processes' PSS add up to what they hold, to the byte; and to what the buffers
    /// that they hold cost, where no memory is two buffers'.
    #[test]
    fn pss_adds_up_to_held(s in any_snapshot()) {
        let totals = Ledger::of(&s).totals;
        let held = Bytes::total(s.buffers.iter().filter(|b| !b.holders.is_empty()).map(Buffer::cost));
        if held.is_some() {
            prop_assert_eq!(totals.pss, totals.held);
        }
        if totals.same_memory == Bytes(0) {
            prop_assert_eq!(totals.held, held);
        }
    }

    /// Check that memory which is two buffers' is never taken off more often than it was counted,
    /// and that the kinds add up to the whole.
    #[test]
    fn each_memory_once(s in any_snapshot()) {
        let ledger = Ledger::of(&s);
        let costs = Bytes::total(s.buffers.iter().map(Buffer::cost));
        if let Some(costs) = costs {
            prop_assert_eq!(ledger.totals.size.unwrap() + ledger.totals.same_memory, costs);
            let kinds = Bytes::total(ledger.kinds.iter().flat_map(|k| [k.held, k.kernel_only]));
            let unseen = Bytes::total(s.buffers.iter().filter(|b| b.is_held_unseen()).map(Buffer::cost));
            prop_assert_eq!(kinds.unwrap() + unseen.unwrap(), costs);
        }
        prop_assert_eq!(ledger.kinds.iter().map(|k| k.buffers).sum::<u64>(), ledger.totals.buffers);
    }

    /// Check that the mapped PSS add up to the sizes of the buffers that somebody maps, and to no
    /// more than that where memory is two buffers'.
    #[test]
    fn mapped_pss_adds_up_to_mapped(s in any_snapshot()) {
        let ledger = Ledger::of(&s);
        let mapped = s.buffers.iter().filter(|b| b.holders.iter().any(|h| !h.maps.is_empty()));
        let mapped = Bytes::total(mapped.map(Buffer::cost));
        let sum = Bytes::total(ledger.processes.iter().map(|p| p.mapped_pss));
        if mapped.is_some() {
            prop_assert!(sum <= mapped);
            prop_assert!(sum == mapped || ledger.totals.same_memory > Bytes(0));
        }
    }

    /// Check that no process's figures exceed one another: USS and PSS are parts of RSS.
    #[test]
    fn parts_are_no_larger_than_the_whole(s in any_snapshot()) {
        for p in Ledger::of(&s).processes {
            if let (Some(rss), Some(pss)) = (p.rss, p.pss) {
                prop_assert!(pss <= rss);
                prop_assert!(p.uss.is_none_or(|uss| uss <= pss));
            }
        }
    }

    /// Check that an account which is not an estimate explains the whole count.
    #[test]
    fn exact_accounts_balance(s in any_snapshot()) {
        for BufferRow { buffer: b, account: a, .. } in Ledger::of(&s).rows() {
            if let (false, Some(kernel)) = (a.is_estimate(), a.kernel()) {
                let hidden = [a.in_flight, a.io_uring, a.exe];
                let known: u64 = hidden.iter().flatten().sum();
                prop_assert_eq!(b.count, Some(a.fd + a.map + known + kernel));
                prop_assert!(b.id.kind != Kind::DmaBuf || a.in_flight.is_some() && a.io_uring.is_some());
            }
        }
    }

    /// Check that the exporters' sizes add up to the dma-bufs'.
    #[test]
    fn exporters_add_up(s in any_snapshot()) {
        let ledger = Ledger::of(&s);
        let dmabufs = ledger.kinds.iter().find(|k| k.kind == Kind::DmaBuf).map_or(Some(Bytes(0)), |k| k.size);
        prop_assert_eq!(Bytes::total(ledger.exporters.iter().map(|e| e.size)), dmabufs);
    }

    /// Check that no total is a number unless it is the true sum, and that what it is at least is
    /// no more than that.
    #[test]
    fn totals_are_true_or_unknown(s in any_snapshot()) {
        let Ledger { totals, kinds, .. } = Ledger::of(&s);
        let true_sum = |costs: &[Option<Bytes>]| {
            costs.iter().try_fold(0u128, |sum, cost| Some(sum + u128::from((*cost)?.0)))
        };
        let costs: Vec<_> = s.buffers.iter().map(Buffer::cost).collect();
        let known: Vec<_> = costs.iter().copied().filter(Option::is_some).collect();
        if let Some(size) = totals.size {
            prop_assert_eq!(Some(u128::from(size.0) + u128::from(totals.same_memory.0)), true_sum(&costs));
            prop_assert_eq!(totals.at_least, size);
        }
        prop_assert!(Some(u128::from(totals.at_least.0)) <= true_sum(&known));
        for kind in kinds {
            let sizes: Vec<_> = s.buffers.iter().filter(|b| b.id.kind == kind.kind).map(|b| b.size).collect();
            prop_assert!(kind.size.is_none_or(|size| Some(u128::from(size.0)) == true_sum(&sizes)));
        }
    }

    /// Check that all kinds together are the machine, but for memory that two buffers share.
    #[test]
    fn all_kinds_are_the_machine(s in any_snapshot()) {
        let ledger = Ledger::of(&s);
        let part = Part::of(&ledger, Kinds::ALL);
        prop_assert_eq!(part.buffers, ledger.totals.buffers);
        if ledger.totals.same_memory == Bytes(0) {
            prop_assert_eq!((part.cost, part.held), (ledger.totals.size, ledger.totals.held));
            prop_assert_eq!((part.kernel_only, part.at_least), (ledger.totals.kernel_only, ledger.totals.at_least));
        }
        prop_assert_eq!(part.estimate, ledger.totals.estimate);
    }
}

/// Check that three memfds of 2^63 - 1 bytes, all charged, make totals that are unknown and said to
/// be at least so much, and that two of them still make a number.
#[test]
fn totals_beyond_64_bits() {
    let memfd = |ino| {
        let size = Some((1 << 63) - 1);
        let mut b = buffer(ino, size, Some(1), vec![holder(1, 1, 0, &[])]);
        (b.id.kind, b.charged) = (Kind::Memfd, size.map(Bytes));
        b
    };
    let measured = |number| {
        let s = snapshot((0..number).map(memfd).collect(), Gaps::default());
        let ledger = Ledger::of(&s);
        let part = Part::of(&ledger, Kinds::SHMEM);
        assert_eq!((part.cost, part.size), (ledger.totals.size, ledger.kinds[0].size));
        let Totals { size, at_least, held, rss, pss, .. } = ledger.totals;
        ([size, held, rss, pss, ledger.kinds[0].size, ledger.processes[0].rss], at_least)
    };
    assert_eq!(measured(2), ([Some(Bytes(u64::MAX - 1)); 6], Bytes(u64::MAX - 1)));
    assert_eq!(measured(3), ([None; 6], Bytes(u64::MAX)));
}

/// Check that held udmabufs over a memfd that nobody holds are held once as far as it has no room
/// for both, and that nothing of it is then left for the kernel alone.
#[test]
fn parts_of_an_unheld_memfd() {
    let held = |charged: u64, parts: [u64; 2]| {
        let mut memfd = buffer(9, Some(charged), Some(1), vec![]);
        (memfd.id.kind, memfd.charged) = (Kind::Memfd, Some(Bytes(charged)));
        let udmabuf = |nth: usize| {
            let overlaps = vec![Overlap { of: memfd.id, bytes: Bytes(parts[nth]) }];
            let holders = vec![holder(7, 1, 0, &[])];
            Buffer { overlaps: Some(overlaps), ..buffer(nth as u64, Some(parts[nth]), Some(1), holders) }
        };
        let totals =
            Ledger::of(&snapshot(vec![udmabuf(0), udmabuf(1), memfd.clone()], Gaps::default())).totals;
        [totals.size, totals.held, totals.kernel_only].map(|part| part.unwrap().0)
    };
    assert_eq!(held(100, [100, 100]), [100, 100, 0]);
    assert_eq!(held(100, [70, 40]), [100, 100, 0]);
    assert_eq!(held(100, [30, 40]), [100, 70, 30]);
}

/// Check that a segment that somebody unseen has attached is neither held nor kernel-only, and one
/// that nobody has is the latter.
#[test]
fn a_segment_of_somebody_unseen() {
    let segment = |ino, attached| Buffer {
        charged: Some(Bytes(8)),
        id: BufferId::new(Kind::Sysv, None, Inode(ino)),
        segment: Some(Box::new(Segment {
            key: 0,
            owner: 0,
            creator: None,
            creator_comm: None,
            last_comm: None,
            changed: 0,
            used: 0,
            last: None,
            attached,
            reached: None,
            removed: false,
            rss: Bytes(8),
            swap: Bytes(0),
        })),
        ..buffer(ino, Some(8), Some(attached), Vec::new())
    };
    let s = snapshot(vec![segment(1, 0), segment(2, 1)], Gaps::default());
    let Ledger { totals, kinds, .. } = Ledger::of(&s);
    assert_eq!(
        (totals.size, totals.held, totals.kernel_only),
        (Some(Bytes(16)), Some(Bytes(0)), Some(Bytes(8)))
    );
    assert_eq!((kinds[0].held, kinds[0].kernel_only), (Some(Bytes(0)), Some(Bytes(8))));
}

/// Check that a holder that is not among the processes counts in the totals.
#[test]
fn a_holder_that_is_gone() {
    let holders = vec![holder(1, 1, 0, &[]), holder(2, 1, 0, &[]), holder(3, 1, 0, &[])];
    let mut s = snapshot(vec![buffer(1, Some(9), Some(3), holders)], Gaps::default());
    s.processes.remove(1);
    let ledger = Ledger::of(&s);
    assert_eq!((ledger.totals.rss, ledger.totals.pss), (Some(Bytes(27)), Some(Bytes(9))));
    assert_eq!(ledger.processes.iter().map(|p| p.pss).collect::<Vec<_>>(), [Some(Bytes(3)); 2]);
}

/// Check that buffers with the same exporter and attachments have the same candidates, and that
/// others have their own.
#[test]
fn candidates_of_each_buffer() {
    let of = |ino, exporter: &str| Buffer {
        exporter: Some(exporter.into()),
        ..buffer(ino, Some(1), Some(1), vec![])
    };
    let explained = Buffer { residual: Residual::Exact(0), ..of(4, "drm") };
    let mut s = snapshot(vec![of(1, "drm"), of(2, "videobuf2"), of(3, "drm"), explained], Gaps::default());
    let device = |path: &str, class, pid| {
        let holders = vec![DeviceHolder { pid: Pid(pid), comm: None, fds: vec![Fd(3)] }];
        Device { path: path.into(), name: None, class, holders }
    };
    s.devices =
        vec![device("/dev/dri/card0", DeviceClass::Drm, 7), device("/dev/video0", DeviceClass::Video, 8)];
    let ledger = Ledger::of(&s);
    let found: Vec<&[Pid]> = ledger.rows().map(|row| row.candidates).collect();
    assert_eq!(found, [&[Pid(7)][..], &[Pid(8)], &[Pid(7)], &[]]);
    assert_eq!(ledger.candidates.lists.len(), 3);
}

/// Check that without the kernel's own list nobody claims to know what only the kernel holds.
#[test]
fn kernel_only_is_unknown_without_the_list() {
    let mut s = snapshot(vec![buffer(1, Some(8), Some(1), vec![holder(1, 1, 0, &[])])], Gaps::default());
    s.coverage.sources.clear();
    let totals = Ledger::of(&s).totals;
    assert_eq!((totals.held, totals.kernel_only), (Some(Bytes(8)), None));
}

/// Check that forged sizes and mappings past 64 bits together are still handed out to the byte.
#[test]
fn mapped_pss_of_forged_addresses() {
    let size = u64::MAX;
    let holders = vec![holder(1, 0, 0, &[u64::MAX - 4096]), holder(2, 0, 0, &[u64::MAX - 4096])];
    let s = snapshot(vec![buffer(1, Some(size), Some(2), holders)], Gaps::default());
    let ledger = Ledger::of(&s);
    let sum: u128 = ledger.processes.iter().map(|p| u128::from(p.mapped_pss.unwrap().0)).sum();
    assert_eq!(sum, u128::from(size));
}

/// Check that a buffer is not called a handle leak when somebody who could not be read may hold it.
#[test]
fn no_shape_without_sight() {
    let s = snapshot(
        vec![buffer(1, Some(8), Some(1), Vec::new())],
        Gaps { not_whole_machine: true, ..Gaps::default() },
    );
    assert_eq!(Ledger::of(&s).row(0).shape, None);
}

fn account(b: Buffer) -> Account {
    Ledger::of(&snapshot(vec![b], Gaps::default())).row(0).account
}

/// Check that a count which fds and mappings explain leaves nothing to the kernel, nor anywhere
/// else.
#[test]
fn a_full_account_is_exact() {
    let a = account(buffer(1, Some(1), Some(3), vec![holder(1, 2, 0, &[4096])]));
    assert_eq!((a.fd, a.map, a.kernel(), a.is_estimate()), (2, 1, Some(0), false));
    assert_eq!((a.in_flight, a.io_uring), (Some(0), Some(0)));
}

/// Check that a rest is an estimate as long as it may be in flight.
#[test]
fn a_rest_that_may_be_in_flight_is_an_estimate() {
    let a = account(buffer(1, Some(1), Some(3), vec![holder(1, 1, 0, &[])]));
    assert_eq!((a.kernel(), a.in_flight, a.is_estimate()), (Some(2), None, true));
}

/// Check that a rest is exact when every other kind of reference was looked for.
#[test]
fn a_rest_is_exact_when_all_else_is_known() {
    let mut b = buffer(1, Some(1), Some(4), vec![holder(1, 1, 0, &[])]);
    (b.in_flight, b.io_uring) = (Some(1), Some(0));
    let a = account(settled(b));
    assert_eq!((a.kernel(), a.is_estimate()), (Some(2), false));
}

/// Check that more found than counted is no negative number but unknown.
#[test]
fn overcounted_is_unknown() {
    let a = account(buffer(1, Some(1), Some(1), vec![holder(1, 2, 0, &[])]));
    assert_eq!((a.kernel(), a.is_estimate()), (None, true));
}

/// Check that an O_PATH fd is outside the count and yet holds the memory.
#[test]
fn opath_holds_outside_the_count() {
    let s = snapshot(vec![buffer(1, Some(64), Some(0), vec![holder(1, 0, 1, &[])])], Gaps::default());
    let ledger = Ledger::of(&s);
    assert_eq!((ledger.row(0).account.opath, ledger.row(0).account.kernel()), (1, Some(0)));
    assert_eq!(ledger.processes[0].rss, Some(Bytes(64)));
    assert_eq!(ledger.row(0).shape, Some(LeakShape::OPath));
}

/// Check that a size nobody knows makes the sums that need it unknown, and only those.
#[test]
fn an_unknown_size_is_no_zero() {
    let held = buffer(1, None, Some(1), vec![holder(1, 1, 0, &[])]);
    let other = buffer(2, Some(8), Some(1), vec![holder(2, 1, 0, &[])]);
    let s = snapshot(vec![held, other], Gaps::default());
    let ledger = Ledger::of(&s);
    assert_eq!((ledger.totals.size, ledger.processes[0].rss), (None, None));
    assert_eq!((ledger.totals.kernel_only, ledger.processes[1].rss), (Some(Bytes(0)), Some(Bytes(8))));
}

/// Check that what the kernel holds too is not freed by an exit.
#[test]
fn uss_excludes_what_the_kernel_holds() {
    let s = snapshot(vec![buffer(1, Some(8), Some(3), vec![holder(1, 1, 0, &[])])], Gaps::default());
    assert_eq!(Ledger::of(&s).processes[0].uss, Some(Bytes(0)));
}

/// Check that a message that nobody has received keeps what its sender lets go of.
#[test]
fn uss_excludes_what_is_in_flight() {
    let mut sent = buffer(1, Some(8), Some(2), vec![holder(1, 1, 0, &[])]);
    (sent.in_flight, sent.io_uring) = (Some(1), Some(0));
    let s = snapshot(vec![settled(sent)], Gaps::default());
    let ledger = Ledger::of(&s);
    assert_eq!((ledger.row(0).account.kernel(), ledger.processes[0].uss), (Some(0), Some(Bytes(0))));
}

/// Check that without a count nobody claims to know what an exit frees.
#[test]
fn uss_is_unknown_without_a_count() {
    let s = snapshot(vec![buffer(1, Some(8), None, vec![holder(1, 0, 0, &[4096])])], Gaps::default());
    assert_eq!(Ledger::of(&s).processes[0].uss, None);
}

/// Check each shape on the references that define it.
#[test]
fn shapes() {
    let shape = |count, holders| {
        Ledger::of(&snapshot(vec![buffer(1, Some(1), Some(count), holders)], Gaps::default())).row(0).shape
    };
    assert_eq!(shape(FD_LEAK_MIN, vec![holder(1, FD_LEAK_MIN as usize, 0, &[])]), Some(LeakShape::Fd));
    assert_eq!(shape(1, vec![holder(1, 0, 0, &[1])]), Some(LeakShape::Map));
    assert_eq!(shape(2, vec![]), Some(LeakShape::Handle));
    assert_eq!(shape(2, vec![holder(1, 1, 0, &[1])]), None);
}

/// Check that mapped PSS follows the mapped bytes, and gives nothing to who maps nothing.
#[test]
fn mapped_pss_follows_bytes() {
    let holders = vec![holder(1, 0, 0, &[3]), holder(2, 0, 0, &[1]), holder(3, 1, 0, &[])];
    let s = snapshot(vec![buffer(1, Some(400), Some(3), holders)], Gaps::default());
    let ledger = Ledger::of(&s);
    let parts: Vec<_> = ledger.processes.iter().map(|p| p.mapped_pss).collect();
    assert_eq!(parts, [Some(Bytes(300)), Some(Bytes(100)), Some(Bytes(0))]);
}
