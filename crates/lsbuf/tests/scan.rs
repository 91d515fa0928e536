//! Tests what a scan makes of facts that agree, contradict one another, are forged or are missing,
//! on recorded trees.

mod common;

use common::Tree;
use lsbuf::ErrorKind;
use lsbuf::model::{Bytes, Fd, HiddenRefs, Kinds, Ledger, Note, Pid, Residual, Snapshot, Source, Tid};
use lsbuf::scan::Options;

/// A tree with one camera process that holds the listed buffer 7.
fn camera() -> Tree {
    let mut tree = Tree::new();
    tree.process(12, b"camera");
    tree.listed(7, b"cam", 8192, 1, &[]);
    tree.dmabuf_fd(12, 5, 7, b"cam", 8192, 1);
    tree
}

fn inodes(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.buffers.iter().map(|b| b.id.ino.0).collect()
}

fn kernel(snapshot: &Snapshot) -> (Option<u64>, bool) {
    let account = Ledger::of(snapshot).row(0).account;
    (account.kernel(), account.is_estimate())
}

/// Check that an fd of one process and a mapping of another are joined in one buffer.
#[test]
fn fd_and_map_are_one_buffer() {
    let mut tree = Tree::new();
    tree.process(12, b"camera");
    tree.process(13, b"viewer");
    tree.listed(7, b"cam", 8192, 2, &["vgem"]);
    tree.dmabuf_fd(12, 5, 7, b"cam", 8192, 2);
    tree.maps(13, &["7000-8000 rw-s 00001000 00:0c 7    /dmabuf:cam"]);
    let snapshot = tree.scan();
    assert_eq!(inodes(&snapshot), [7]);
    let buffer = &snapshot.buffers[0];
    assert_eq!((buffer.size, buffer.count), (Some(Bytes(8192)), Some(2)));
    assert_eq!((buffer.holders[0].pid, &buffer.holders[0].fds[..]), (Pid(12), &[Fd(5)][..]));
    assert_eq!((buffer.holders[1].pid, buffer.holders[1].maps[0].start), (Pid(13), 0x7000));
    assert_eq!(buffer.attachments.as_ref().unwrap(), &["vgem".into()]);
    assert_eq!(kernel(&snapshot), (Some(0), false));
    assert!(snapshot.coverage.is_complete(), "{:?}", snapshot.coverage.notes);
}

/// Check that a holder is described by its own files.
#[test]
fn processes_are_described() {
    let process = camera().scan().processes.remove(0);
    assert_eq!((process.pid, process.start_time, process.uid), (Pid(12), 4711, Some(1000)));
    assert_eq!((process.comm, process.cgroup), ("camera".into(), Some("/user.slice".into())));
}

/// Check that a listed buffer without a holder is found.
#[test]
fn kernel_only() {
    let mut tree = Tree::new();
    tree.listed(9, b"<none>", 4096, 2, &[]);
    let snapshot = tree.scan();
    assert_eq!(inodes(&snapshot), [9]);
    assert_eq!(Ledger::of(&snapshot).totals.kernel_only, Some(Bytes(4096)));
}

/// Check that a residual is exact if no socket and no ring on the machine keeps a file.
#[test]
fn a_residual_is_exact_without_hidden_references() {
    let mut tree = Tree::new();
    tree.listed(9, b"<none>", 4096, 2, &[]);
    tree.process(12, b"quiet");
    tree.fd(12, 3, b"socket:[5]", b"pos:\t0\nflags:\t02\nscm_fds: 0\n");
    assert_eq!(kernel(&tree.scan()), (Some(2), false));
}

/// Check that fds in messages make a residual an estimate, that a note says so, and that each
/// socket counts once.
#[test]
fn a_residual_that_may_be_in_flight() {
    let mut tree = Tree::new();
    tree.listed(9, b"<none>", 4096, 2, &[]);
    for pid in [12, 13] {
        tree.process(pid, b"receiver");
        tree.fd(pid, 3, b"socket:[5]", b"pos:\t0\nflags:\t02\nscm_fds: 1\n");
    }
    tree.write_list();
    let snapshot = lsbuf::scan(Options { kinds: Kinds::DMABUF, ..tree.options() }).unwrap();
    assert_eq!(kernel(&snapshot), (Some(2), true));
    assert_eq!(
        snapshot.coverage.notes,
        [Note::MaybeHiddenRefs {
            buffers: 1,
            refs: HiddenRefs { in_flight: 1, io_uring: 0, unknown: false }
        }]
    );
    assert!(snapshot.coverage.is_complete());
}

/// Check that an ordinary file with the name of a dma-buf is not taken for one, neither as an fd
/// nor as a mapping.
#[test]
fn impostors_are_not_counted() {
    let tree = camera();
    tree.process(66, b"impostor");
    tree.fd(66, 3, b"/dmabuf:cam", b"pos:\t0\nflags:\t02\nmnt_id:\t30\nino:\t7\n");
    tree.fd(66, 4, b"/dmabuf:cam", b"pos:\t0\nflags:\t012000000\nmnt_id:\t30\nino:\t7\n");
    tree.maps(
        66,
        &["7000-8000 rw-s 00000000 00:1f 7    /dmabuf:cam", "8000-9000 rw-s 00000000 fe:00 7    /dmabuf:cam"],
    );
    let snapshot = tree.scan();
    assert_eq!(snapshot.buffers[0].holders.len(), 1);
    assert!(snapshot.coverage.is_complete(), "{:?}", snapshot.coverage.notes);
}

/// Check that two processes with one fd table both hold each entry, and that it is one reference.
#[test]
fn a_shared_table_counts_once() {
    let mut tree = Tree::new();
    tree.listed(7, b"cam", 8192, 2, &[]);
    for pid in [12, 13, 14] {
        tree.process(pid, b"sibling");
        tree.dmabuf_fd(pid, 5, 7, b"cam", 8192, 2);
    }
    tree.write("proc/.lsbuf/shared", b"files 12 14\n");
    let snapshot = tree.scan();
    let tables: Vec<Option<Pid>> = snapshot.buffers[0].holders.iter().map(|h| h.fd_table_of).collect();
    assert_eq!(tables, [None, None, Some(Pid(12))]);
    assert_eq!(kernel(&snapshot), (Some(0), false));
}

/// Check that the mappings of a shared address space count once, although both processes hold them.
#[test]
fn a_shared_address_space_counts_once() {
    let mut tree = Tree::new();
    tree.listed(7, b"cam", 8192, 1, &[]);
    for pid in [12, 13] {
        tree.process(pid, b"vfork");
        tree.maps(pid, &["7000-8000 rw-s 00001000 00:0c 7    /dmabuf:cam"]);
    }
    tree.write("proc/.lsbuf/shared", b"vm 12 13\n");
    let snapshot = tree.scan();
    assert_eq!(snapshot.buffers[0].holders[1].address_space_of, Some(Pid(12)));
    assert_eq!(Ledger::of(&snapshot).row(0).account.map, 1);
}

/// Check that if it is unknown whether two holders share, no residual is exact, and a note says so.
#[test]
fn holders_that_cannot_be_compared() {
    let mut tree = Tree::new();
    tree.listed(7, b"cam", 8192, 2, &[]);
    for pid in [12, 13] {
        tree.process(pid, b"sibling");
        tree.dmabuf_fd(pid, 5, 7, b"cam", 8192, 2);
    }
    std::fs::remove_file(tree.path("proc/.lsbuf/shared")).unwrap();
    let snapshot = tree.scan();
    assert_eq!(kernel(&snapshot), (Some(0), true));
    assert_eq!(snapshot.coverage.notes, [Note::Uncompared { buffers: 1 }]);
}

/// Check that the fds of a thread with its own table count besides those of its process, also under
/// the same numbers.
#[test]
fn a_thread_with_its_own_table() {
    let mut tree = Tree::new();
    tree.listed(7, b"cam", 8192, 2, &[]);
    tree.process(12, b"threads");
    tree.dmabuf_fd(12, 5, 7, b"cam", 8192, 2);
    tree.write("proc/12/task/12/comm", b"threads\n");
    tree.write("proc/12/task/13/comm", b"shares\n");
    tree.thread_fd(12, 14, 5, 7, 8192, 2);
    let snapshot = tree.scan();
    let holder = &snapshot.buffers[0].holders[0];
    assert_eq!((holder.fds.as_slice(), holder.threads.len()), (&[Fd(5)][..], 1));
    assert_eq!((holder.threads[0].tid, holder.threads[0].fds.as_slice()), (Tid(14), &[Fd(5)][..]));
    assert_eq!(kernel(&snapshot), (Some(0), false));
}

/// Check that if the leader has exited, what the process holds is found through its threads.
#[test]
fn a_leader_that_has_exited() {
    let mut tree = Tree::new();
    tree.listed(7, b"cam", 8192, 2, &[]);
    tree.process(12, b"zombie");
    tree.write("proc/12/task/12/comm", b"zombie\n");
    tree.thread_fd(12, 14, 5, 7, 8192, 2);
    tree.write("proc/12/task/14/maps", b"7000-8000 rw-s 00001000 00:0c 7    /dmabuf:cam\n");
    let snapshot = tree.scan();
    let holder = &snapshot.buffers[0].holders[0];
    assert_eq!((holder.threads[0].tid, holder.maps.len()), (Tid(14), 1));
    assert_eq!(kernel(&snapshot), (Some(0), false));
}

/// Check that a process that has an attached device open is a candidate for the residual, and no
/// other is.
#[test]
fn candidates() {
    let mut tree = Tree::new();
    tree.listed(7, b"cam", 8192, 3, &["gpu"]);
    for (pid, node) in
        [(12, "/dev/dri/card0"), (13, "/dev/dri/renderD128"), (14, "/dev/null"), (15, "/dev/video0")]
    {
        tree.process(pid, b"client");
        tree.fd(pid, 4, node.as_bytes(), b"pos:\t0\nflags:\t02\nmnt_id:\t20\n");
    }
    for node in ["card0", "renderD128"] {
        tree.link(&format!("sys/class/drm/{node}/device"), b"../../../0000:00:02.0/gpu");
    }
    let snapshot = tree.scan();
    assert_eq!(Ledger::of(&snapshot).row(0).candidates, [Pid(12), Pid(13)]);
    let names: Vec<_> = snapshot.devices.iter().map(|d| d.name.clone()).collect();
    assert_eq!(names, [Some("gpu".into()), Some("gpu".into()), None]);
}

/// Check that the totals have the size of a buffer that only an `O_PATH` fd keeps.
#[test]
fn opath_in_the_totals() {
    let tree = camera();
    tree.process(13, b"path");
    tree.opath_fd(13, 3, 9);
    let mut snapshot = tree.scan();
    // A tree cannot tell this inode's size.
    snapshot.buffers[1].size = Some(Bytes(64));
    let totals = Ledger::of(&snapshot).totals;
    assert_eq!((totals.opath, totals.held), (Some(Bytes(64)), Some(Bytes(8192 + 64))));
}

/// Check that an `O_PATH` fd is a reference that is not in the count.
#[test]
fn opath() {
    let tree = camera();
    tree.process(13, b"path");
    tree.opath_fd(13, 3, 7);
    let snapshot = tree.scan();
    assert_eq!(snapshot.buffers[0].holders[1].opaths, [Fd(3)]);
    assert_eq!(kernel(&snapshot), (Some(0), false));
}

/// Check that a buffer that only an `O_PATH` fd keeps, and that is not in the kernel's list, has a
/// count of 0.
#[test]
fn opath_alone() {
    let tree = camera();
    tree.process(13, b"path");
    tree.opath_fd(13, 3, 8);
    let snapshot = tree.scan();
    assert_eq!((snapshot.buffers[1].count, snapshot.buffers[1].residual), (Some(0), Residual::Exact(0)));
}

/// Check that a buffer that only an `O_PATH` fd keeps has its inode's size, even if another buffer
/// has already proven the filesystem.
#[test]
fn opath_alone_has_a_size() {
    let tree = camera();
    tree.process(13, b"path");
    tree.opath_fd(13, 3, 8);
    tree.write("proc/13/.lsbuf/fd/3", b"444d4142 0:12 8 12288 0 5.000000000 5.000000000\n");
    assert_eq!(tree.scan().buffers[1].size, Some(Bytes(12288)));
}

/// Check that a count that changed during the scan makes the residual an estimate, and that a note
/// says so.
#[test]
fn a_moving_count_is_an_estimate() {
    let mut tree = Tree::new();
    tree.process(12, b"camera");
    tree.listed(7, b"cam", 8192, 1, &[]);
    tree.dmabuf_fd(12, 5, 7, b"cam", 8192, 2);
    let snapshot = tree.scan();
    assert_eq!(kernel(&snapshot), (Some(0), true));
    assert_eq!(snapshot.coverage.notes, [Note::CountMoved { buffers: 1 }]);
}

/// Check that the residual is unknown if more references were found than counted, and that a note
/// says so.
#[test]
fn two_processes_with_one_table_overcount() {
    let tree = camera();
    tree.process(13, b"vfork");
    tree.dmabuf_fd(13, 5, 7, b"cam", 8192, 1);
    let snapshot = tree.scan();
    assert_eq!(kernel(&snapshot), (None, true));
    assert_eq!(snapshot.coverage.notes, [Note::Overcounted { buffers: 1 }]);
}

/// Check that a malformed fdinfo loses one fact, is counted, and makes the answer partial.
#[test]
fn malformed_fdinfo() {
    let tree = camera();
    tree.fd(
        12,
        6,
        b"/dmabuf:x",
        b"flags:\t02\nmnt_id:\t10\nino:\tseven\nsize:\t1\ncount:\t1\nexp_name:\tsystem\n",
    );
    let snapshot = tree.scan();
    assert_eq!(inodes(&snapshot), [7]);
    assert_eq!(snapshot.coverage.notes, [Note::Malformed { source: Source::Fdinfo, facts: 1 }]);
    assert!(!snapshot.coverage.is_complete());
}

/// Check that a malformed line of maps loses only that line.
#[test]
fn malformed_maps() {
    let tree = camera();
    tree.maps(
        12,
        &["7000-80zz rw-s 00000000 00:0c 7    /dmabuf:cam", "8000-9000 rw-s 00000000 00:0c 7    /dmabuf:cam"],
    );
    let snapshot = tree.scan();
    assert_eq!(snapshot.buffers[0].holders[0].maps.len(), 1);
    assert!(snapshot.coverage.notes.contains(&Note::Malformed { source: Source::Maps, facts: 1 }));
}

/// Check that the fake offset that GEM exporters put into a VMA is not shown as an offset into the
/// buffer.
#[test]
fn a_fake_offset_is_unknown() {
    let tree = camera();
    tree.maps(
        12,
        &[
            "7000-8000 rw-s 00001000 00:0c 7    /dmabuf:cam",
            "8000-9000 rw-s 100000000 00:0c 7    /dmabuf:cam",
            "9000-b000 rw-s 00001000 00:0c 7    /dmabuf:cam",
        ],
    );
    let snapshot = tree.scan();
    let offsets: Vec<_> = snapshot.buffers[0].holders[0].maps.iter().map(|m| m.offset).collect();
    assert_eq!(offsets, [Some(4096), None, None]);
}

/// Check that a name with a newline is read whole from the link, and forges no figure.
#[test]
fn a_forging_name() {
    let mut tree = Tree::new();
    tree.process(12, b"camera");
    tree.listed(7, b"a\nsize:\t1\nino:\t9", 8192, 1, &[]);
    tree.dmabuf_fd(12, 5, 7, b"a\nsize:\t1\nino:\t9", 8192, 1);
    let snapshot = tree.scan();
    assert_eq!((inodes(&snapshot), snapshot.buffers[0].size), (vec![7], Some(Bytes(8192))));
    assert_eq!(snapshot.buffers[0].name, Some("a\nsize:\t1\nino:\t9".into()));
}

/// Check that without the kernel's list the answer is partial, and that a residual of 0 is still
/// exact.
#[test]
fn without_the_list() {
    let tree = camera();
    let snapshot = lsbuf::scan(tree.options()).unwrap();
    assert_eq!(inodes(&snapshot), [7]);
    assert!(matches!(&snapshot.coverage.notes[..], [Note::NoKernelList { .. }]));
    assert_eq!(kernel(&snapshot), (Some(0), false), "the fd was read twice and explains the whole count");
}

/// Check that there is a note if the list contradicts its closing line.
#[test]
fn a_contradicting_list() {
    let tree = camera();
    tree.write("sys/kernel/debug/dma_buf/bufinfo", b"\nTotal 3 objects, 12288 bytes\n");
    let snapshot = lsbuf::scan(tree.options()).unwrap();
    assert!(snapshot.coverage.notes.contains(&Note::ListContradicts { rows: 0, stated: 3 }));
}

/// Check that a procfs without kernel threads is not taken for the whole machine.
#[test]
fn a_containers_procfs() {
    let tree = camera();
    std::fs::remove_dir_all(tree.path("proc/2")).unwrap();
    assert!(tree.scan().coverage.notes.contains(&Note::NotWholeMachine));
}

/// Check that a directory that is not a procfs is refused.
#[test]
fn no_procfs() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { proc_root: dir.path().into(), ..Options::default() };
    assert_eq!(lsbuf::scan(options).unwrap_err().kind(), ErrorKind::NotProcfs);
}

/// Check that a residual is an estimate after a single reading, which does not look everywhere.
#[test]
fn one_reading_proves_no_residual() {
    let mut tree = Tree::new();
    tree.listed(9, b"<none>", 4096, 2, &[]);
    tree.write_list();
    let snapshot = lsbuf::scan(Options { readings: 1, ..tree.options() }).unwrap();
    assert_eq!(kernel(&snapshot), (Some(2), true));
}

/// Check that a process with missing files in a recorded tree is not taken for one that has exited.
#[test]
fn a_tree_recorded_in_part() {
    for lost in ["maps", "fd", "stat", "fdinfo/5"] {
        let tree = camera();
        let path = tree.path("proc/12").join(lost);
        if lost == "fd" {
            std::fs::remove_dir_all(path).unwrap()
        } else {
            std::fs::remove_file(path).unwrap()
        }
        assert!(!tree.scan().coverage.is_complete(), "without {lost}");
    }
}

/// Check that if two listed buffers have one inode number, no residual of theirs is exact.
#[test]
fn a_repeated_number() {
    let mut tree = camera();
    tree.listed(7, b"cam", 8192, 1, &[]);
    assert_eq!(kernel(&tree.scan()), (Some(0), true));
}

/// Check that a file that would exhaust the reader's memory is refused.
#[test]
fn an_endless_file() {
    let tree = camera();
    std::fs::remove_file(tree.path("proc/12/maps")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", tree.path("proc/12/maps")).unwrap();
    let snapshot = tree.scan();
    assert!(snapshot.coverage.notes.contains(&Note::Unreadable { denied: 0, failed: 1 }));
}
