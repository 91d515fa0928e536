//! Records as the iterators write them.

use proptest::prelude::*;

use super::*;

/// A record as an iterator writes it.
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

/// Check that each field of a task lands in its place, and that a dead one is no longer exiting.
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

/// Check that each field of a buffer lands in its place.
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

/// Check that what cannot be known is not made up: of a buffer without an open file, of a name that changed, of an
/// exporter that did not fit.
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

/// Check that a linked file's dentry has one reference that is no open file's, and an unlinked
/// one's has none; and that nothing is told of a count that was not read or of a dentry that is
/// being freed.
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

/// Check that each field of a file of shared memory lands in its place, and that of the blocks only those are charged that
/// there are pages for.
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

/// Check that of such a file, too, nothing is made up, and that a text without its end is none.
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

/// Check that pages are whose the record says, or nobody can tell whose.
#[test]
fn pages_of_a_memfd() {
    let pages = |untold| written(15, &[&longs(&[9, 3]), &words(&[1, untold])]);
    let run = MemfdPages { dev: Dev { major: 0, minor: 1 }, ino: Inode(9), pages: 3 };
    assert_eq!(only(&pages(0)), Record::MemfdPages(Some(run)));
    assert_eq!(only(&pages(1)), Record::MemfdPages(None));
}

/// Check that each field of a thread that runs lands in its place, and that a call that is not told
/// is none.
#[test]
fn a_run() {
    let run = |call: i32, flags| written(16, &[&longs(&[9]), &words(&[5, 6, call.cast_unsigned(), flags])]);
    let found = RunRecord {
        pid: Pid(5),
        tid: Tid(6),
        runtime: 9,
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

/// Check that a VMA's flags become the letters of `maps`, that its place in the file counts pages,
/// and that one that ends before it begins is torn, whosever it is.
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

/// Check that a file that could not be described is told by its id.
#[test]
fn an_undescribed_file() {
    assert_eq!(only(&written(17, &[&longs(&[9])])), Record::ShmUndescribed(Id(9)));
    assert_eq!(each(&written(17, &[&longs(&[0])]), |_| {}), Err(Malformed));
}

proptest! {
    /// Check that records cut anywhere are taken as far as they are whole.
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

    /// Check that no bytes make the parser panic, whole records of any kind among them.
    #[test]
    fn any_bytes(kind in 0u32..20, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = each(&bytes, |_| {});
        let _ = each(&written(kind, &[&bytes]), |_| {});
    }
}
