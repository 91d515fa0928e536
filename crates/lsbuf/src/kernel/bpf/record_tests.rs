//! Tests of the parser of records, with records that are made here as the iterators write them.

use proptest::prelude::*;

use super::shmem::{MountedIn, UnheldRecord};
use super::*;
use crate::kernel::shmem::inode::BLOCK;
use crate::model::Seals;

/// A record in the form in which an iterator writes it.
pub(crate) fn written(kind: u32, fields: &[&[u8]]) -> Vec<u8> {
    let fields = fields.concat();
    let size = fields.len() as u32 + 8;
    [&kind.to_ne_bytes()[..], &size.to_ne_bytes(), &fields].concat()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    std::array::from_fn(|at| text.get(at).copied().unwrap_or(0))
}

fn only(bytes: &[u8]) -> Record<'_> {
    let mut found = Vec::new();
    assert_eq!(each(bytes, |record| found.push(record)), Ok(bytes.len()));
    assert_eq!(found.len(), 1);
    found[0]
}

/// Check that each field of a task is read, and that a dead task is not exiting.
#[test]
fn a_task() {
    let bytes = written(
        1,
        &[
            &longs(&[1, 0, 30, 40, 50, 60]),
            &words(&[5, 6, 7, 2 | 4 | 8 | 32, 8, 9, 10, 11, 12, 0]),
            &padded::<16>(b"app"),
        ],
    );
    let Record::Task(task) = only(&bytes) else { panic!() };
    assert_eq!((task.mm, task.files, task.started, task.cgroup), (Some(Id(1)), None, 30, 40));
    assert_eq!((task.program, task.pid, task.tid, task.uid), (ExecId(50), Pid(5), Tid(6), 7));
    assert_eq!((task.locked_pages, task.ipc), (60, Some(IpcNamespace(Inode(8)))));
    assert_eq!(task.mm_writes, Some(9));
    let alone =
        AloneRecord { mounts: 10, mounts_count: 11, ipc: Some(IpcNamespace(Inode(8))), ipc_count: 12 };
    assert_eq!(task.alone, Some(alone));
    assert_eq!((task.kernel, task.exiting, task.comm()), (false, false, "app".into()));
}

fn buffer(flags: u32, exporter: &[u8], name: &[u8]) -> Vec<u8> {
    written(
        3,
        &[
            &longs(&[9, 4096, 2, 3, 50, 50]),
            &words(&[12, 1000, flags, 7, 7, 0]),
            &padded::<64>(exporter),
            &padded::<32>(name),
        ],
    )
}

/// Check that each field of a buffer is read.
#[test]
fn a_buffer() {
    let bytes = buffer(0, b"system", b"cam\n");
    let Record::Buffer(found) = only(&bytes) else { panic!() };
    assert_eq!((found.inode.ino, found.inode.size), (Inode(9), Bytes(4096)));
    assert_eq!((found.inode.dev, found.inode.creator_uid), (Dev { major: 0, minor: 12 }, 1000));
    assert_eq!((found.counts, found.whole), (Some((2, 3)), true));
    assert_eq!((found.exporter, found.name), (Some(&b"system"[..]), Some(&b"cam\n"[..])));
    assert_eq!(found.inode.created_at, since_epoch(50, 7));
}

/// Check that unknown values stay unknown: for a buffer without an open file, a name that changed,
/// and an exporter that did not fit.
#[test]
fn what_is_not_known() {
    let bytes = buffer(1, b"", b"cam");
    let Record::Buffer(closed) = only(&bytes) else { panic!() };
    assert_eq!((closed.counts, closed.exporter, closed.name), (None, None, Some(&b"cam"[..])));
    let bytes = buffer(2 | 4, &[b'x'; 64], b"cam");
    let Record::Buffer(cut) = only(&bytes) else { panic!() };
    assert_eq!((cut.exporter, cut.name, cut.whole), (None, None, false));
}

fn shm_inode(flags: u32, names: &[u8]) -> Vec<u8> {
    let numbers = longs(&[1, 9, 1 << 20, 24, 1, 1, 0x0102_1994, 50, 3]);
    written(10, &[&numbers, &words(&[7, 1, 1000, 0, 12, 2, 5, flags]), names])
}

/// Check that each field of an inode of shared memory is read, and that only blocks with pages are
/// charged.
#[test]
fn an_inode_of_shared_memory() {
    let bytes = shm_inode(63, b"memfd:x\0");
    let Record::ShmInode(found) = only(&bytes) else { panic!() };
    let page = rustix::param::page_size() as u64;
    assert_eq!((found.object, found.opens, found.filesystem), (Id(1), Some(3), ShmFilesystem::Tmpfs));
    assert_eq!((found.inode.ino, found.inode.size), (Inode(9), Bytes(1 << 20)));
    assert_eq!(found.inode.charged, Bytes((24 * BLOCK).min(2 * page)));
    assert_eq!((found.inode.dev, found.inode.owner), (Dev { major: 0, minor: 1 }, 1000));
    assert_eq!((found.swapped, found.seals, found.kernels), (Some(1), Some(Seals(2)), true));
    assert_eq!((found.names.name(), found.inode.created_at), (&b"memfd:x"[..], since_epoch(50, 7)));
}

/// Check that unknown values of an inode stay unknown.
#[test]
fn an_inode_of_which_little_is_known() {
    let bytes = shm_inode(0, b"");
    let Record::ShmInode(found) = only(&bytes) else { panic!() };
    assert_eq!((found.swapped, found.seals, found.inode.created_at), (None, None, None));
    assert_eq!((found.opens, found.kernels, found.inode.charged), (None, false, Bytes(24 * BLOCK)));
    assert_eq!((found.names.name(), found.names.path()), (&b""[..], None));
}

/// Check that a path is put together from its names, and that one that is cut is not told.
#[test]
fn names_of_a_path() {
    let path = |flags, names: &[u8]| {
        let bytes = shm_inode(flags, names);
        let Record::ShmInode(found) = only(&bytes) else { panic!() };
        found.names.path()
    };
    assert_eq!(path(32, b"c\0b \n\0a\0"), Some(b"/a/b \n/c".to_vec()));
    assert_eq!(path(32, b"c\0"), Some(b"/c".to_vec()));
    assert_eq!((path(0, b"c\0b\0"), path(32, b"c\0b")), (None, None));
}

/// Check that each field of an fd, of a mapping, of a message and of a program of shared memory is
/// read, and that none is taken without the id of its inode.
#[test]
fn references_to_shared_memory() {
    let of = ShmOpen { object: Id(1), file: Id(2) };
    let bytes = written(11, &[&longs(&[1, 2, 3, 4, 5]), &words(&[6, 7, 8, 1])]);
    let Record::ShmFd(fd) = only(&bytes) else { panic!() };
    assert_eq!((fd.of, fd.count, fd.files, fd.program), (of, 3, Some(Id(4)), ExecId(5)));
    assert_eq!((fd.pid, fd.tid, fd.fd, fd.path_only), (Pid(6), Tid(7), Fd(8), true));
    let bytes = written(12, &[&longs(&[1, 2, 3, 4, 0, 10, 0]), &words(&[6, 0x83, 8, 0])]);
    let Record::ShmVma(vma) = only(&bytes) else { panic!() };
    assert_eq!((vma.vma.of, vma.count, vma.ipc), (of, 3, Some(IpcNamespace(Inode(8)))));
    assert_eq!((vma.vma.mm, vma.vma.end, vma.vma.owner), (Some(Id(4)), 10, Some(Pid(6))));
    let bytes = written(13, &[&longs(&[1, 2, 3, 4]), &words(&[6, 7, 8, 1])]);
    let message = InFlight { of, socket: 4, seen_by: (Tid(7), Fd(8)) };
    assert_eq!(only(&bytes), Record::ShmInFlight(ShmInFlight { message, count: 3, path_only: true }));
    let bytes = written(17, &[&longs(&[4, 1, 2, 3])]);
    assert_eq!(only(&bytes), Record::ShmExe(ShmExe { mm: Id(4), of, count: 3 }));
    let without = written(17, &[&longs(&[4, 0, 2, 3])]);
    assert_eq!(each(&without, |_| {}), Err(Malformed));
}

/// Check that each field of a filesystem and of the end of the lists is read.
#[test]
fn a_filesystem() {
    let bytes = written(18, &[&longs(&[1, 0x0102_1994, 2, 3, 4, 5, 1]), &words(&[6, 1, 1, 1, 9, 0])]);
    let Record::ShmFilesystem(found) = only(&bytes) else { panic!() };
    assert_eq!((found.filesystem, found.of, found.kernels), (Id(1), ShmFilesystem::Tmpfs, true));
    let unheld = UnheldRecord { files: 2, pages: 3, swapped: 4 };
    assert_eq!((found.unheld, found.other_pages), (unheld, 5));
    assert_eq!(found.dev, Dev { major: 0, minor: 6 });
    assert_eq!(found.mounted, Some(MountedIn::Namespace(9)));
    let walk = ShmWalk { inodes_cut: false, mappings_cut: true, repeated: false };
    assert_eq!(only(&written(19, &[&words(&[0, 1, 0, 0])])), Record::ShmWalk(walk));
}

/// Check that it is known where a filesystem is mounted only if all its mounts were seen, and
/// nothing else keeps it or uses one of its folders.
#[test]
fn where_a_filesystem_is_mounted() {
    let of = |uses, mounted: [u32; 4]| {
        let longs = longs(&[1, 0x0102_1994, 2, 3, 4, 5, uses]);
        match only(&written(18, &[&longs, &words(&[6, 0]), &words(&mounted)])) {
            Record::ShmFilesystem(found) => found.mounted,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of(2, [2, 2, 9, 0]), Some(MountedIn::Namespace(9)));
    assert_eq!(of(1, [1, 1, 0, 0]), Some(MountedIn::Nowhere));
    assert_eq!(of(2, [1, 1, 0, 0]), None, "a folder is used");
    assert_eq!(of(1, [1, 2, 0, 0]), None, "something else keeps it");
    assert_eq!(of(1, [1, 1, 9, 1]), None, "it is mounted elsewhere, too");
    assert_eq!(of(0, [0, 1, 0, 0]), None, "no mount was seen");
}

/// Check that pages belong to the file that the record names, or that their owner is unknown.
#[test]
fn pages_of_a_memfd() {
    let pages = |untold| written(15, &[&longs(&[9, 3]), &words(&[1, untold])]);
    let run = MemfdPages { dev: Dev { major: 0, minor: 1 }, ino: Inode(9), pages: 3 };
    assert_eq!(only(&pages(0)), Record::MemfdPages(Some(run)));
    assert_eq!(only(&pages(1)), Record::MemfdPages(None));
}

/// Check that each field of a thread's record is read, and that an unknown call stays unknown.
#[test]
fn a_run() {
    let run =
        |call: i32, flags| written(16, &[&longs(&[9, 10]), &words(&[5, 6, call.cast_unsigned(), flags])]);
    let found = RunRecord {
        pid: Pid(5),
        tid: Tid(6),
        runtime: 9,
        switches: 10,
        call: Some(-1),
        running: true,
        exiting: false,
        dead: false,
        worker: true,
        stopped: false,
        rings: true,
    };
    assert_eq!(only(&run(-1, 1 | 8 | 32)), Record::Run(found));
    let other = RunRecord {
        call: None,
        running: false,
        exiting: true,
        dead: true,
        worker: false,
        stopped: false,
        rings: false,
        ..found
    };
    assert_eq!(only(&run(i32::MIN, 2 | 4)), Record::Run(other));
}

/// Check that a VMA's flags become the letters of `maps`, that its offset in the file is counted in
/// pages, and that a VMA that ends before it begins is torn, for each kind.
#[test]
fn a_vma() {
    let vma = |start, end, flags| written(5, &[&longs(&[9, 1, start, end, 3]), &words(&[0, flags])]);
    let bytes = vma(4096, 8192, 0x83);
    let Record::Vma(found) = only(&bytes) else { panic!() };
    assert_eq!((found.perms.to_string().as_str(), found.owner), ("rw-s", None));
    assert_eq!(found.offset, 3 * rustix::param::page_size() as u64);
    assert_eq!(only(&vma(8192, 4096, 0x83)), Record::Torn);
    let of_shmem = written(12, &[&longs(&[9, 2, 1, 4, 8192, 4096, 0]), &words(&[0, 0x83, 0, 0])]);
    assert_eq!(only(&of_shmem), Record::Torn);
}

proptest! {
    /// Check that of records that are cut anywhere all complete ones are read.
    #[test]
    fn cut_anywhere(records in 0usize..5, cut in 0.0f64..1.0) {
        let one = written(9, &[&longs(&[0])]);
        let all = one.repeat(records);
        let len = (all.len() as f64 * cut) as usize;
        let mut found = 0;
        let taken = each(&all[..len], |_| found += 1);
        prop_assert_eq!(taken, Ok(len / one.len() * one.len()));
        prop_assert_eq!(found, len / one.len());
    }

    /// Check that no bytes make the parser panic, including complete records of any kind.
    #[test]
    fn any_bytes(kind in 0u32..20, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = each(&bytes, |_| {});
        let _ = each(&written(kind, &[&bytes]), |_| {});
    }
}
