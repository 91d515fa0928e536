//! Tests shared memory in recorded trees: which kinds are told apart, what is said of facts that
//! could not be read, and what is left out.

mod common;

use common::Tree;
use lsbuf::model::{Bytes, Fd, IpcNamespace, Kind, Kinds, Ledger, Note, Pid, Snapshot};
use lsbuf::scan::Options;

const MAPPED: &str = "7f0000000000-7f0000004000";

/// Kind, inode number, name, size, charged.
type Facts = (Kind, u64, String, Option<u64>, Option<u64>);

/// The buffers of an answer.
fn buffers(snapshot: &Snapshot) -> Vec<Facts> {
    let name =
        |b: &lsbuf::model::Buffer| b.name.as_ref().map_or("?".into(), |n| n.to_utf8_lossy().into_owned());
    let number = |size: Option<Bytes>| size.map(|s| s.0);
    snapshot
        .buffers
        .iter()
        .map(|b| (b.id.kind, b.id.ino.0, name(b), number(b.size), number(b.charged)))
        .collect()
}

fn tree_of(pid: u32) -> Tree {
    let tree = Tree::new();
    tree.process(pid, b"app");
    tree.with_shmem(&[pid]);
    tree
}

/// Check that a memfd is known by its device and costs its charge, and that a file of the same name
/// on another device is no memfd.
#[test]
fn a_memfd_and_its_impostor() {
    let tree = tree_of(12);
    tree.shmem_fd(12, 3, b"/memfd:pool (deleted)", "0:1 7 1048576 8 0 4096 1000");
    tree.shmem_fd(12, 4, b"/memfd:pool (deleted)", "254:0 8 1048576 2048 1 4096 1000");
    let snapshot = tree.scan();
    assert_eq!(buffers(&snapshot), [(Kind::Memfd, 7, "pool".into(), Some(1 << 20), Some(4096))]);
    let figures = *Ledger::of(&snapshot).process_row(0).figures;
    assert_eq!((figures.rss, figures.pss, figures.uss), (Some(Bytes(4096)), Some(Bytes(4096)), None));
}

/// Check that a segment and a memfd with the same inode number and device are two buffers.
#[test]
fn a_segment_and_a_memfd_collide() {
    let tree = tree_of(12);
    tree.shmem_fd(12, 3, b"/memfd:pool (deleted)", "0:1 0 4096 8 0 4096 0");
    tree.maps(12, &[&format!("{MAPPED} rw-s 00000000 00:01 0      /SYSV0000162e (deleted)")]);
    let heading = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n";
    let row = "      5678          0   600                16384    12    12      1     0     0     0     0          0          0          0                 8192                    0\n";
    tree.write("proc/sysvipc/shm", format!("{heading}{row}").as_bytes());
    let snapshot = tree.scan();
    let expected = [
        (Kind::Memfd, 0, "pool".into(), Some(4096), Some(4096)),
        (Kind::Sysv, 0, "0x0000162e".into(), Some(16384), Some(8192)),
    ];
    assert_eq!(buffers(&snapshot), expected);
    let account = Ledger::of(&snapshot).row(1).account;
    assert_eq!((account.map, account.kernel(), account.is_estimate()), (1, Some(0), false));
    assert_eq!(snapshot.buffers[1].segment.as_ref().unwrap().creator, Some(Pid(12)));
    assert_eq!(snapshot.buffers[1].id.ipc, None::<IpcNamespace>);
}

/// Check that anonymous shared memory is found by its mapping; and that its figures are unknown,
/// with a note, if its inode cannot be read.
#[test]
fn what_is_only_mapped() {
    let tree = tree_of(12);
    let maps = [
        format!("{MAPPED} rw-s 00000000 00:01 9      /dev/zero (deleted)"),
        "7f0000005000-7f0000006000 rw-s 00000000 00:01 10      /dev/zero (deleted)".into(),
    ];
    tree.maps(12, &[&maps[0], &maps[1]]);
    tree.shmem_mapped(12, MAPPED, "0:1 9 16384 16 0 4096 0");
    let snapshot = tree.scan();
    let expected = [
        (Kind::ShmAnon, 9, String::new(), Some(16384), Some(8192)),
        (Kind::ShmAnon, 10, String::new(), None, None),
    ];
    assert_eq!(buffers(&snapshot), expected);
    let notes = [Note::Unsized { buffers: 1 }, Note::Uncounted { buffers: 2 }];
    assert_eq!(snapshot.coverage.notes, notes);
    assert_eq!(Ledger::of(&snapshot).totals.size, None);
}

/// Check that a tmpfs file, deleted or not, is found if its path is below a mounted tmpfs, and that
/// another file is not.
#[test]
fn files_of_a_tmpfs() {
    let tree = tree_of(12);
    tree.shmem_fd(12, 3, b"/dev/shm/kept (deleted)", "0:27 5 4096 8 1 4096 0");
    tree.shmem_fd(12, 4, b"/dev/shm/gone (deleted)", "0:27 6 4096 8 0 4096 0");
    tree.shmem_fd(12, 5, b"/dev/shmoo", "0:27 7 4096 8 1 4096 0");
    let snapshot = tree.scan();
    let deleted: Vec<_> = snapshot.buffers.iter().map(|b| (b.id.ino.0, b.deleted)).collect();
    assert_eq!(deleted, [(5, Some(false)), (6, Some(true))]);
    assert_eq!(buffers(&snapshot)[1].2, "/dev/shm/gone");
    // Only the kernel's own mark is left out of the name.
    assert_eq!(buffers(&snapshot)[0].2, "/dev/shm/kept (deleted)");
    // The file that has a name stays when the process exits. Who else has the deleted one open is
    // unknown.
    assert_eq!(Ledger::of(&snapshot).process_row(0).figures.uss, None);
}

/// Check that private mappings are told from shared ones, and that private huge pages are not taken
/// for shared memory.
#[test]
fn private_mappings() {
    let tree = tree_of(12);
    tree.maps(
        12,
        &[
            &format!("{MAPPED} rw-s 00000000 00:01 9      /memfd:x (deleted)"),
            "7f0000010000-7f0000011000 r--p 00000000 00:01 9      /memfd:x (deleted)",
            "7f0000200000-7f0000400000 rw-p 00000000 00:11 4      /anon_hugepage (deleted)",
        ],
    );
    let snapshot = tree.scan();
    assert_eq!(snapshot.buffers.len(), 1);
    let account = Ledger::of(&snapshot).row(0).account;
    assert_eq!((account.map, account.private_map), (2, Some(1)));
}

/// Check that only the wanted kinds are looked for, and that without dma-bufs no list is needed.
#[test]
fn chosen_kinds() {
    let tree = tree_of(12);
    tree.shmem_fd(12, 3, b"/memfd:pool (deleted)", "0:1 7 4096 8 0 4096 0");
    tree.shmem_fd(12, 4, b"/dev/shm/kept", "0:27 5 4096 8 1 4096 0");
    tree.dmabuf_fd(12, 5, 7, b"cam", 8192, 1);
    let only = |kind: Kind| {
        let options = Options { kinds: [kind].into_iter().collect::<Kinds>(), ..tree.options() };
        let snapshot = lsbuf::scan(options).unwrap();
        assert!(snapshot.coverage.is_complete() || kind == Kind::DmaBuf, "{:?}", snapshot.coverage.notes);
        snapshot.buffers.iter().map(|b| (b.id.kind, b.holders[0].fds.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!(only(Kind::Memfd), [(Kind::Memfd, vec![Fd(3)])]);
    assert_eq!(only(Kind::Tmpfs), [(Kind::Tmpfs, vec![Fd(4)])]);
    assert_eq!(only(Kind::DmaBuf), [(Kind::DmaBuf, vec![Fd(5)])]);
}

/// Check that sync_files are counted for each process, also for one that holds nothing else.
#[test]
fn sync_files() {
    let tree = tree_of(12);
    for fd in 3..8 {
        tree.fd(12, fd, b"anon_inode:sync_file", b"pos:\t0\nflags:\t02\nmnt_id:\t9\n");
    }
    let snapshot = tree.scan();
    assert_eq!(snapshot.processes[0].sync_files, Some(5));
    assert!(snapshot.buffers.is_empty());
}

/// Check that fds in messages make an answer about shared memory partial, since procfs does not
/// tell which files they are.
#[test]
fn in_flight() {
    let tree = tree_of(12);
    tree.fd(12, 3, b"socket:[5]", b"pos:\t0\nflags:\t02\nscm_fds: 2\n");
    let snapshot = tree.scan();
    assert_eq!(snapshot.coverage.notes, [Note::HiddenInFlight { fds: 2 }]);
    assert!(!snapshot.coverage.is_complete());
}

/// Check that a note says that udmabufs and memfds may be the same memory.
#[test]
fn a_udmabuf() {
    let tree = tree_of(12);
    tree.shmem_fd(12, 3, b"/memfd:pool (deleted)", "0:1 7 8192 16 0 4096 0");
    let udmabuf =
        b"pos:\t0\nflags:\t02000002\nmnt_id:\t10\nino:\t7\nsize:\t8192\ncount:\t1\nexp_name:\tudmabuf\n";
    tree.fd(12, 4, b"/dmabuf:", udmabuf);
    let snapshot = tree.scan();
    let note = Note::MaybeSameMemory { buffers: 1, size: Bytes(8192) };
    assert!(snapshot.coverage.notes.contains(&note), "{:?}", snapshot.coverage.notes);
    assert!(!note.is_partial());
}

/// Check that the cost of a segment is unknown if the table says that more is in memory than fits
/// into it, as it does for huge pages.
#[test]
fn an_overcounted_segment() {
    let tree = Tree::new();
    let heading = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n";
    let row = "         0          0   600              2097152    12    12      0     0     0     0     0          0          0          0           1073741824                    0\n";
    tree.write("proc/sysvipc/shm", format!("{heading}{row}").as_bytes());
    let expected = [(Kind::Sysv, 0, String::new(), Some(2 << 20), None)];
    assert_eq!(buffers(&tree.scan()), expected);
}
