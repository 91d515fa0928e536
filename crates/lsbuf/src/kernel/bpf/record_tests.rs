//! Tests of the parser of records, with records that are made here as the iterators write them.

use proptest::prelude::*;

use super::*;

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
        &[&longs(&[1, 0, 30, 40, 50, 60]), &words(&[5, 6, 7, 2 | 4 | 8, 8, 9]), &padded::<16>(b"app")],
    );
    let Record::Task(task) = only(&bytes) else { panic!() };
    assert_eq!((task.mm, task.files, task.started, task.cgroup), (Some(Id(1)), None, 30, 40));
    assert_eq!((task.program, task.pid, task.tid, task.uid), (ExecId(50), Pid(5), Tid(6), 7));
    assert_eq!((task.exe, task.ipc), (Some(Id(60)), Some(IpcNamespace(Inode(8)))));
    assert_eq!(task.mm_writes, Some(9));
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

fn shm_file(flags: u32, path: &[u8]) -> Vec<u8> {
    opened_file(flags, 3, path)
}

fn opened_file(flags: u32, dentry_count: u32, path: &[u8]) -> Vec<u8> {
    let numbers = longs(&[1, 2, 9, 1 << 20, 24, 1, 1, 0x0102_1994, 50, 11]);
    written(10, &[&numbers, &words(&[dentry_count, 5, 7, 1, 1000, 0, 12, 2, 4, flags]), path])
}

/// Check that for a linked file one reference to its dentry is not an open file's, and for an
/// unlinked file all are. And that nothing is reported for a count that was not read, or a dentry
/// that is being freed.
#[test]
fn how_often_a_file_is_open() {
    let opens = |flags, count| {
        let bytes = opened_file(flags, count, b"memfd:x\0");
        let Record::ShmFile(found) = only(&bytes) else { panic!() };
        assert_eq!((found.dentry, found.inode_refs), (Some(Id(11)), Some(5)));
        found.opens
    };
    assert_eq!((opens(32, 3), opens(32 | 64, 3)), (Some(3), Some(2)));
    assert_eq!((opens(64, 3), opens(32 | 64, 0), opens(32, (-128i32).cast_unsigned())), (None, None, None));
}

/// Check that each field of a file of shared memory is read, and that only blocks with pages are
/// charged.
#[test]
fn a_file_of_shared_memory() {
    let bytes = shm_file(31, b"/memfd:x (deleted)\0");
    let Record::ShmFile(found) = only(&bytes) else { panic!() };
    let page = rustix::param::page_size() as u64;
    assert_eq!((found.file, found.count, found.filesystem), (Id(1), 2, ShmFilesystem::Tmpfs));
    assert_eq!((found.inode.ino, found.inode.size), (Inode(9), Bytes(1 << 20)));
    assert_eq!(found.inode.charged, Bytes((24 * BLOCK).min(2 * page)));
    assert_eq!((found.inode.dev, found.inode.owner), (Dev { major: 0, minor: 1 }, 1000));
    assert_eq!((found.swapped, found.seals), (Some(1), Some(Seals(2))));
    assert_eq!((found.ipc, found.path_only), (Some(IpcNamespace(Inode(4))), true));
    assert_eq!((found.path, found.inode.created_at), (Ok(&b"/memfd:x (deleted)"[..]), since_epoch(50, 7)));
}

/// Check that unknown values of such a file stay unknown, too, and that a text without its end is
/// ignored.
#[test]
fn a_file_of_which_little_is_known() {
    let bytes = shm_file(0, b"memfd:x\0");
    let Record::ShmFile(found) = only(&bytes) else { panic!() };
    assert_eq!((found.swapped, found.seals, found.inode.created_at), (None, None, None));
    assert!(!found.path_only);
    assert_eq!((found.path, found.inode.charged), (Err(&b"memfd:x"[..]), Bytes(24 * BLOCK)));
    let bytes = shm_file(8, b"/memfd:x");
    let Record::ShmFile(found) = only(&bytes) else { panic!() };
    assert_eq!(found.path, Err(&b""[..]));
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
    };
    assert_eq!(only(&run(-1, 1 | 8)), Record::Run(found));
    let other = RunRecord {
        call: None,
        running: false,
        exiting: true,
        dead: true,
        worker: false,
        stopped: false,
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
    let of_shmem = written(12, &[&longs(&[9, 2, 1, 8192, 4096, 0]), &words(&[0, 0x83])]);
    assert_eq!(only(&of_shmem), Record::Torn);
}

/// Check that a file that could not be described is reported by its id.
#[test]
fn an_undescribed_file() {
    assert_eq!(only(&written(17, &[&longs(&[9])])), Record::ShmUndescribed(Id(9)));
    assert_eq!(each(&written(17, &[&longs(&[0])]), |_| {}), Err(Malformed));
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
