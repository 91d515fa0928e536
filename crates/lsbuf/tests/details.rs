//! The details of processes and segments: read if asked for, of the right process, and nothing
//! claimed that is not there; on recorded trees.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod common;

use common::Tree;
use lsbuf::model::{Buffer, Bytes, Detail, Details, Kind, Label, Pid, ProcessDetails, Snapshot};
use lsbuf::scan::Options;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const UID: &str = "11111111-2222-3333-4444-555555555555";

/// Process 12 runs in a pod and holds a dma-buf; process 13 has a hostile command name and line, no
/// parent in its pid namespace, and runs in a cgroup of another namespace.
fn world() -> Tree {
    let tree = Tree::new();
    for pid in [12, 13] {
        tree.process(pid, b"worker");
        tree.dmabuf_fd(pid, 3, 7, b"x", 4096, 2);
    }
    tree.write("proc/12/cmdline", b"worker\0--shard\0two words\0");
    tree.write(
        "proc/12/limits",
        b"Max open files            1024                 4096                 files     \n",
    );
    tree.write("proc/12/status", b"Name:\tx\nUid:\t1000\t0\t0\t0\nRssShmem:\t      20 kB\n");
    tree.write("proc/12/cgroup", format!("0::/kubepods/burstable/pod{UID}/{ID}\n").as_bytes());
    tree.link("proc/12/exe", b"/usr/bin/worker (deleted)");
    tree.write("proc/13/stat", b"13 (x) S 9 9 () S 0 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0");
    tree.write("proc/13/cmdline", b"\x1b[2J\n\xff\0");
    tree.write("proc/13/cgroup", b"0::/../../other.service\n");
    tree.write("etc/passwd", b"root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n");
    std::fs::create_dir_all(tree.path(&format!("pods/shop_web-0_{UID}"))).unwrap();
    std::fs::create_dir_all(tree.path("pods/a b\nc_\x1b_d")).unwrap();
    tree.link(&format!("containers/web-0_shop_nginx-{ID}.log"), b"/dev/null");
    tree
}

fn options(tree: &Tree, details: Details) -> Options {
    let (passwd, pod_logs) = (Some(tree.path("etc/passwd")), Some(tree.path("pods")));
    let container_logs = Some(tree.path("containers"));
    Options { details, passwd, pod_logs, container_logs, ..tree.options() }
}

fn details(snapshot: &Snapshot, nth: usize) -> &ProcessDetails {
    snapshot.processes[nth].details.as_deref().unwrap()
}

/// Check that each detail is read, with the names of the user, the pod and the container from the
/// given files.
#[test]
fn all_details() {
    let tree = world();
    let snapshot = lsbuf::scan(options(&tree, Details::ALL)).unwrap();
    let found = details(&snapshot, 0);
    let args = found.args.as_ref().unwrap();
    let words: Vec<String> = args.words.iter().map(ToString::to_string).collect();
    assert_eq!((words, args.is_whole), (vec!["worker".into(), "--shard".into(), "two words".into()], true));
    assert_eq!(found.exe, Some("/usr/bin/worker (deleted)".into()));
    assert_eq!(found.user, Some("ann".into()));
    assert_eq!((found.fd_limit, found.rss_shmem), (Some(1024), Some(Bytes(20 << 10))));
    assert_eq!(found.parent, Some(Pid(1)));
    let workload = found.workload.as_ref().unwrap();
    assert_eq!((&workload.unit, &workload.container), (&None, &Some(ID.into())));
    let pod = workload.pod.as_ref().unwrap();
    assert_eq!((pod.to_string().as_str(), &pod.container), ("shop/web-0", &Some("nginx".into())));
}

/// Check that what is missing is unknown and not empty, that a cgroup of another namespace is no
/// claim, and that hostile bytes are kept as they are.
#[test]
fn missing_details() {
    let tree = world();
    let snapshot = lsbuf::scan(options(&tree, Details::ALL)).unwrap();
    let found = details(&snapshot, 1);
    assert_eq!((&found.exe, found.fd_limit, found.rss_shmem), (&None, None, None));
    assert_eq!((&found.workload, found.parent), (&None, None));
    let word = Label::from(&b"\x1b[2J\n\xff"[..]);
    assert_eq!(found.args.as_ref().unwrap().words, [word]);
}

/// Check that nothing is read that is not asked for.
#[test]
fn only_what_is_asked() {
    let tree = world();
    assert!(
        lsbuf::scan(options(&tree, Details::NONE)).unwrap().processes.iter().all(|p| p.details.is_none())
    );
    let snapshot = lsbuf::scan(options(&tree, Detail::FdLimit.into())).unwrap();
    let found = details(&snapshot, 0);
    assert_eq!((found.fd_limit, &found.args, &found.exe), (Some(1024), &None, &None));
    assert_eq!((&found.user, &found.workload), (&None, &None));
}

/// Check that a long command line is cut where the option says, and says so.
#[test]
fn long_command_lines() {
    let tree = world();
    let cut = |longest| {
        let options = Options { longest_args: Bytes(longest), ..options(&tree, Detail::Args.into()) };
        let snapshot = lsbuf::scan(options).unwrap();
        let args = details(&snapshot, 0).args.clone().unwrap();
        (args.line().to_string(), args.is_whole)
    };
    assert_eq!(cut(8), ("worker -".into(), false));
    assert_eq!(cut(0), (String::new(), false));
    // With all NULs it has 25 bytes.
    assert_eq!((cut(24).1, cut(25)), (false, ("worker --shard two words".into(), true)));
}

/// The segment of a tree whose machine booted at second 1000. Process 99 started 47 s later.
fn segment(ctime: u64, atime: u64) -> Buffer {
    let tree = Tree::new();
    tree.with_shmem(&[]);
    tree.process(99, b"postgres");
    tree.write("proc/stat", b"cpu  0 0 0 0\nbtime 1000\n");
    let heading = "key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap\n";
    let row = format!("4660 5 600 4096 99 99 0 0 0 0 0 {atime} 0 {ctime} 0 0\n");
    tree.write("proc/sysvipc/shm", [heading, &row].concat().as_bytes());
    let snapshot = lsbuf::scan(options(&tree, Detail::SegmentUsers.into())).unwrap();
    snapshot.buffers.into_iter().find(|buffer| buffer.id.kind == Kind::Sysv).unwrap()
}

/// Check that a segment's creator and last user have the command of the process with their pid, but
/// not of a process that started after the segment was made or used.
#[test]
fn segment_users() {
    let comms = |ctime, atime| {
        let segment = *segment(ctime, atime).segment.unwrap();
        [segment.creator_comm, segment.last_comm]
            .map(|comm| comm.is_some_and(|comm| comm == "postgres".into()))
    };
    assert_eq!(comms(2000, 2000), [true, true]);
    assert_eq!(comms(1040, 2000), [false, true], "the pid was another process's then");
    assert_eq!(comms(2000, 1040), [true, false]);
}
