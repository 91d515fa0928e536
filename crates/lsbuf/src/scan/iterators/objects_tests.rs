//! Made-up records of processes whose references are known: the assembled reading must have exactly
//! those.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::records::KnownDmaBuf;
use super::*;
use crate::kernel::bpf::record::{ExecId, FdRecord, InFlight, KeeperKind, KeeperRecord, TaskRecord};
use crate::kernel::bufinfo::ListedBuffer;
use crate::kernel::identity::InodeFact;
use crate::model::{Fd, Perms};
use crate::scan::assemble::assemble;
use crate::scan::reading::Assembled;

fn task(pid: u32, tid: u32, mm: Option<u64>, files: u64) -> TaskRecord {
    TaskRecord {
        pid: Pid(pid),
        tid: Tid(tid),
        mm_writes: None,
        mm: mm.map(Id::from),
        files: Some(Id::from(files)),
        started: 0,
        cgroup: 0,
        program: ExecId(0),
        locked_pages: 0,
        ipc: None,
        alone: None,
        uid: 0,
        kernel: false,
        forked: false,
        exiting: false,
        comm: [0; 16],
    }
}

fn fd(ino: u64, files: u64, pid: u32, tid: u32, fd: u32) -> FdRecord<Inode> {
    FdRecord {
        of: Inode(ino),
        count: 1,
        files: Some(Id::from(files)),
        program: ExecId(0),
        pid: Pid(pid),
        tid: Tid(tid),
        fd: Fd(fd),
        path_only: false,
    }
}

fn vma(ino: u64, mm: u64, start: u64, owner: Option<u32>) -> Vma<Inode> {
    let perms = Perms::parse(b"rw-s").unwrap();
    Vma {
        of: Inode(ino),
        mm: Some(Id::from(mm)),
        start,
        end: start + 1,
        offset: 0,
        owner: owner.map(Pid),
        perms,
    }
}

fn known_buffer(ino: u64, count: u64) -> KnownDmaBuf {
    let inode = InodeFact {
        dev: Dev { major: 0, minor: 12 },
        ino: Inode(ino),
        size: Bytes(4096),
        creator_uid: 0,
        created_at: None,
    };
    let mut known = KnownDmaBuf::new(inode);
    known.counted(count);
    known.counted(count);
    known
}

fn records(tasks: Vec<TaskRecord>, fds: Vec<FdRecord<Inode>>, vmas: Vec<Vma<Inode>>) -> Records {
    let mut known = DmaBufFds::default();
    fds.iter().for_each(|fd| known.add(fd));
    let inos: BTreeSet<u64> = fds.iter().map(|fd| fd.of.0).chain(vmas.iter().map(|v| v.of.0)).collect();
    let buffers = inos.into_iter().map(|ino| known_buffer(ino, 1)).collect();
    Records { tasks_after: tasks.clone(), tasks, fds: known, vmas, buffers, ..Records::default() }
}

/// The assembled reading, and whether a reference was seen to change while it was read.
fn assembled(mut records: Records, list: Option<&List>) -> (Vec<Assembled>, bool) {
    let mut reading = read(&mut records, list, None, Kinds::DMABUF, None);
    let moved = reading.interference.moved;
    (assemble(&mut reading), moved)
}

fn refs(buffers: &[Assembled]) -> u64 {
    buffers.iter().flat_map(|b| &b.buffer.holders).map(|h| h.fd_refs() + h.map_refs()).sum()
}

proptest! {
    /// Check that each entry of each distinct table and each VMA of each distinct address space is
    /// one reference, however many processes share it, and that each of those processes is a
    /// holder.
    #[test]
    fn each_reference_once(
        // For each process, from pid 1 on: its table and its address space.
        processes in vec((1u64..4, 1u64..4), 1..6),
        slots in vec((1u64..4, 1u64..4, 0u32..8), 0..20),
        maps in vec((1u64..4, 1u64..4, 0u64..8), 0..20),
    ) {
        let tasks: Vec<TaskRecord> =
            (1..).zip(&processes).map(|(pid, &(files, mm))| task(pid, pid, Some(mm), files)).collect();
        let has_table = |files: u64| processes.iter().any(|&(own, _)| own == files);
        let has_space = |mm: u64| processes.iter().any(|&(_, own)| own == mm);
        // An entry has one file.
        let slots: BTreeSet<(u64, u32, u64)> = slots
            .into_iter()
            .filter(|&(files, ..)| has_table(files))
            .map(|(files, ino, slot)| (files, slot, ino))
            .collect();
        let maps: BTreeSet<(u64, u64, u64)> =
            maps.into_iter().filter(|&(mm, ..)| has_space(mm)).map(|(mm, ino, at)| (mm, at, ino)).collect();
        // The iterator shows a table once for each process that has it; a tree shows a VMA once.
        let fds = (1..).zip(&processes).flat_map(|(pid, &(own, _))| {
            slots.iter().filter(move |&&(files, ..)| files == own).map(move |&(files, slot, ino)| {
                fd(ino, files, pid, pid, slot)
            })
        });
        let vmas = maps.iter().map(|&(mm, at, ino)| vma(ino, mm, at, None));
        let (buffers, moved) = assembled(records(tasks, fds.collect(), vmas.collect()), None);
        prop_assert!(!moved);
        prop_assert_eq!(refs(&buffers), (slots.len() + maps.len()) as u64);
        for Assembled { buffer, .. } in &buffers {
            let expected: BTreeSet<u32> = (1..)
                .zip(&processes)
                .filter(|(_, (files, mm))| {
                    slots.iter().any(|&(own, _, ino)| own == *files && ino == buffer.id.ino.0)
                        || maps.iter().any(|&(own, _, ino)| own == *mm && ino == buffer.id.ino.0)
                })
                .map(|(pid, _)| pid)
                .collect();
            let found: Vec<u32> = buffer.holders.iter().map(|h| h.pid.0).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}

/// Check that a table which threads of one process share is listed under the first of them, and not
/// as the process's own.
#[test]
fn a_table_of_threads() {
    let tasks = vec![task(1, 1, Some(1), 1), task(1, 2, Some(1), 2), task(1, 3, Some(1), 2)];
    let fds = vec![fd(9, 2, 1, 2, 5), fd(9, 2, 1, 3, 5)];
    let (buffers, _) = assembled(records(tasks, fds, Vec::new()), None);
    let holder = &buffers[0].buffer.holders[0];
    assert_eq!((holder.fds.len(), holder.threads.len(), holder.threads[0].tid), (0, 1, Tid(2)));
    assert_eq!(refs(&buffers), 1);
}

/// Check that a process which started during the reading is a holder of what it had at the end, but
/// that a process is not which replaced its program.
#[test]
fn started_meanwhile() {
    let after = || vec![task(2, 2, Some(7), 7)];
    let holders = |tasks: Vec<TaskRecord>| {
        let mut records = records(tasks, vec![fd(9, 7, 2, 2, 5)], vec![vma(9, 7, 0, None)]);
        records.tasks_after = after();
        refs(&assembled(records, None).0)
    };
    assert_eq!(holders(vec![task(1, 1, Some(1), 1)]), 2);
    let other = TaskRecord { program: ExecId(1), ..task(2, 2, Some(6), 7) };
    assert_eq!(holders(vec![other]), 0);
}

/// Check that a reference whose owner was not seen is given to no process, and that the reading
/// says so.
#[test]
fn owners_that_were_not_seen() {
    let tasks = || vec![task(1, 1, Some(1), 1)];
    for (fds, vmas) in [
        (vec![fd(9, 7, 7, 7, 5)], Vec::new()),
        // The process has replaced its program, or its pid was reused.
        (vec![FdRecord { program: ExecId(1), ..fd(9, 1, 1, 1, 5) }], Vec::new()),
        (Vec::new(), vec![vma(9, 7, 0, None)]),
        // The process has another address space by now.
        (Vec::new(), vec![vma(9, 7, 0, Some(1))]),
    ] {
        let (buffers, moved) = assembled(records(tasks(), fds, vmas), None);
        assert_eq!((moved, refs(&buffers)), (true, 0));
    }
}

/// Check that a table is not taken for shared if one process had its id first and another one
/// later: the first one's table was freed before the tasks were read.
#[test]
fn a_table_at_the_same_address() {
    let tasks = |first| vec![task(1, 1, Some(1), first), task(2, 2, Some(2), 7)];
    let fds = || vec![fd(9, 7, 1, 1, 5), fd(9, 7, 2, 2, 6)];
    let shown = |first| {
        let (buffers, moved) = assembled(records(tasks(first), fds(), Vec::new()), None);
        let holders: Vec<_> =
            buffers[0].buffer.holders.iter().map(|h| (h.fds.len(), h.fd_table_of)).collect();
        (holders, moved)
    };
    assert_eq!(shown(8), (vec![(1, None), (1, None)], true));
    assert_eq!(shown(7), (vec![(2, None), (2, Some(Pid(1)))], false));
}

/// Check that an address space whose id was another one's before belongs to its last owner alone.
#[test]
fn a_space_at_the_same_address() {
    let tasks = |first| vec![task(1, 1, Some(first), 1), task(2, 2, Some(7), 2)];
    let owners = |after: Vec<TaskRecord>| {
        let mut records = records(tasks(7), Vec::new(), vec![vma(9, 7, 0, None)]);
        records.tasks_after = after;
        let (buffers, _) = assembled(records, None);
        buffers[0].buffer.holders.iter().map(|holder| holder.pid.0).collect::<Vec<_>>()
    };
    assert_eq!((owners(tasks(8)), owners(tasks(7))), (vec![2], vec![1, 2]));
    assert_eq!(owners(vec![task(2, 2, Some(7), 2)]), [2]);
}

/// Check that if a process replaced its program, only the fds of the present program are kept.
#[test]
fn two_programs() {
    let before = |slot| FdRecord { program: ExecId(1), ..fd(9, 1, 1, 1, slot) };
    let fds = vec![before(5), fd(9, 1, 1, 1, 6), before(7)];
    let (buffers, moved) = assembled(records(vec![task(1, 1, Some(1), 1)], fds, Vec::new()), None);
    assert_eq!((moved, &buffers[0].buffer.holders[0].fds[..]), (true, &[Fd(6)][..]));
}

/// Check that a process which is in no list, and has mapped a buffer, is reported and is no holder,
/// also if the id of its address space is another one's by now.
#[test]
fn an_owner_in_no_list() {
    for mm in [1, 7] {
        let tasks = vec![task(1, 1, Some(1), 1)];
        let mut records = records(tasks, Vec::new(), vec![vma(9, mm, 0, Some(7))]);
        let mut reading = read(&mut records, None, None, Kinds::DMABUF, None);
        assert_eq!((reading.interference.moved, &reading.unlisted), (false, &BTreeSet::from([Pid(7)])));
        assert_eq!(refs(&assemble(&mut reading)), 0);
    }
}

/// Check that a count is not trusted if it changed while it was read, or differs between an fd and
/// the buffer, or was read only once.
#[test]
fn moving_counts() {
    let is_stable = |of_fd, readings: &[u64]| {
        let fd = FdRecord { count: of_fd, ..fd(9, 1, 1, 1, 5) };
        let mut records = records(vec![task(1, 1, Some(1), 1)], vec![fd], Vec::new());
        let known = &mut records.buffers[0];
        (known.count, known.readings) = (None, 0);
        readings.iter().for_each(|&count| known.counted(count));
        assembled(records, None).0[0].counted.stable
    };
    assert!(is_stable(1, &[1, 1]));
    assert!(
        !is_stable(1, &[1, 2]) && !is_stable(2, &[1, 2]) && !is_stable(2, &[1, 1]) && !is_stable(1, &[1])
    );
}

/// Check that a count is not trusted if any one of many fds showed another value, and that what an
/// `O_PATH` fd shows does not matter.
#[test]
fn one_other_count_among_many() {
    let is_stable = |nth: Option<u32>, path_only| {
        let count = |at| if nth == Some(at) { 2 } else { 1 };
        let one =
            |at| FdRecord { count: count(at), path_only: path_only && nth == Some(at), ..fd(9, 1, 1, 1, at) };
        let fds = (0..5).map(one).collect();
        assembled(records(vec![task(1, 1, Some(1), 1)], fds, Vec::new()), None).0[0].counted.stable
    };
    assert!(is_stable(None, false));
    for nth in 0..5 {
        assert!(!is_stable(Some(nth), false) && is_stable(Some(nth), true));
    }
}

/// Check that a buffer with nothing but `O_PATH` fds, which no list has, is counted by nothing.
#[test]
fn counted_by_nothing() {
    let path = |at| FdRecord { path_only: true, ..fd(9, 1, 1, 1, at) };
    let mut records = records(vec![task(1, 1, Some(1), 1)], vec![path(5), path(6)], Vec::new());
    (records.buffers[0].count, records.buffers[0].readings) = (None, 0);
    let (buffers, _) = assembled(records, None);
    assert_eq!((buffers[0].buffer.count, buffers[0].counted.stable), (Some(0), true));
}

/// Check that a buffer with nothing but `O_PATH` fds has the list's count, and that this is
/// trusted.
#[test]
fn counted_by_the_list_alone() {
    let path = FdRecord { path_only: true, ..fd(9, 1, 1, 1, 5) };
    let mut records = records(vec![task(1, 1, Some(1), 1)], vec![path], Vec::new());
    (records.buffers[0].count, records.buffers[0].readings) = (None, 0);
    let row = ListedBuffer {
        ino: Inode(9),
        size: Bytes(4096),
        count: 3,
        exporter: "system".into(),
        name: None,
        attachments: Some(Vec::new()),
    };
    let list = List { buffers: vec![row], stated: Some((1, Bytes(4096))) };
    let (buffers, _) = assembled(records, Some(&list));
    assert_eq!((buffers[0].buffer.count, buffers[0].counted.stable), (Some(3), true));
}

fn message(ino: u64, socket: u64, tid: u32) -> InFlight<Inode> {
    InFlight { of: Inode(ino), socket, seen_by: (Tid(tid), Fd(3)) }
}

/// Check that each queue counts once, however many fds show it, and that a queue inside another one
/// makes all unknown.
#[test]
fn queues_once() {
    let in_flight = vec![message(9, 1, 1), message(9, 1, 1), message(9, 1, 2), message(9, 2, 2)];
    let mut records = Records { in_flight, ..Records::default() };
    assert_eq!(records.in_messages().unwrap()[&Inode(9)], 3);
    let what = KeeperKind::Nested;
    records.keepers.push(KeeperRecord { ino: 1, pid: Pid(1), tid: Tid(1), fd: Fd(3), what });
    assert_eq!(records.in_messages(), None);
}
