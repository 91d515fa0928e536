//! Made-up tasks: which processes are looked at for memory that is in no list.

use super::*;
use crate::kernel::bpf::record::ExecId;

/// The leader of a process with an address space of its own.
fn leader(pid: u32) -> TaskRecord {
    TaskRecord {
        pid: Pid(pid),
        tid: Tid(pid),
        mm: Some(Id::from(u64::from(pid))),
        files: Some(Id::from(u64::from(pid))),
        started: 0,
        cgroup: 0,
        program: ExecId(0),
        locked_pages: 0,
        ipc: None,
        alone: None,
        mm_writes: None,
        uid: 0,
        kernel: false,
        exiting: false,
        forked: false,
        comm: [0; 16],
    }
}

fn locked(pid: u32) -> TaskRecord {
    TaskRecord { locked_pages: 1, ..leader(pid) }
}

fn forked(pid: u32) -> TaskRecord {
    TaskRecord { forked: true, ..leader(pid) }
}

/// The processes that are looked at, by their pids.
fn looked_at(tasks: Vec<TaskRecord>) -> Option<Vec<u32>> {
    let found = Records { tasks, ..Records::default() }.to_look_at()?;
    Some(found.into_iter().map(|pid| pid.0).collect())
}

/// Check that processes with locked memory are looked at, and those that may have inherited it; and
/// nobody where no memory is locked.
#[test]
fn locked_and_forked() {
    assert_eq!(looked_at(vec![leader(1), forked(2)]), Some(vec![]));
    assert_eq!(looked_at(vec![leader(1), forked(2), locked(3), leader(4)]), Some(vec![2, 3]));
    let ended = TaskRecord { mm: None, ..forked(2) };
    assert_eq!(looked_at(vec![ended, locked(3)]), Some(vec![3]));
}

/// Check that a thread with an fd table of its own changes nothing while its leader has the same
/// address space, and that processes are not looked at one by one if the leader has exited.
#[test]
fn address_space_of_a_leader() {
    let thread = TaskRecord { tid: Tid(9), ..locked(3) };
    assert_eq!(looked_at(vec![locked(3), thread]), Some(vec![3]));
    let exited = TaskRecord { mm: None, locked_pages: 0, ..leader(3) };
    assert_eq!(looked_at(vec![exited, thread]), None);
}

/// Check that there is a limit.
#[test]
fn too_many() {
    let many = |number| (1..=number).map(locked).collect::<Vec<_>>();
    assert_eq!(looked_at(many(256)).map(|pids| pids.len()), Some(256));
    assert_eq!(looked_at(many(257)), None);
}

/// Check for which memory mappings may be missing: secret memory unless all that may have it were
/// looked at, memory of a virtual machine unless everybody was, and none of a kind that is not
/// looked for.
#[test]
fn unseen_mappings() {
    let unseen = |kind, locked, secret_seen, kinds| {
        let mut found = Records { locked, secret_seen, ..Records::default() };
        found.shmem.found_unlisted = UNLISTED.map(|unlisted| unlisted == kind);
        found.may_have_unseen_mappings(kinds)
    };
    let (all, secret, guest) = (Kinds::ALL, Kind::Secretmem, Kind::GuestMemfd);
    assert!(unseen(secret, false, false, all) && unseen(guest, false, true, all));
    assert!(!unseen(secret, false, true, all) && !unseen(secret, true, false, all));
    assert!(!unseen(guest, true, false, all) && !unseen(Kind::Tmpfs, false, false, all));
    assert!(!unseen(secret, false, false, Kinds::DMABUF));
}
