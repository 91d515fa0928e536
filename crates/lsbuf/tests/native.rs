//! Tests shared memory of this very process on the kernel that runs the tests: every Linux has it,
//! so no guest is needed.
//!
//! Expected values come from the tests' own stat(2). Each test runs by procfs, and by BPF iterators
//! if they can be loaded. If the user may not load them, or the kernel lacks what they need, it
//! runs by procfs alone. If they must load and do not, the test fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper fails where its test fails")]

#[path = "common/iterators.rs"]
mod iterators;

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use lsbuf::model::{Account, Buffer, Bytes, Fd, Kind, Kinds, Ledger, Note, Pid, Snapshot};
use lsbuf::scan::{Options, Scanner, Sources, Way};
use lsbuf_guest::sys::shm::{self, Segment};
use lsbuf_guest::sys::{self, page, page_size, task};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::thread::UnshareFlags;

/// Answers about these kinds, by each source that works here.
fn answers(kinds: &[Kind]) -> Vec<Snapshot> {
    let kinds: Kinds = kinds.iter().copied().collect();
    let by = |way| {
        let sources = Sources { way, load_bpf: true, ..Sources::default() };
        Options { kinds, sources, ..Options::default() }
    };
    let procfs = lsbuf::scan(by(Way::Procfs)).unwrap();
    let by_iterators = if_loadable(lsbuf::scan(by(Way::Iterators)));
    std::iter::once(procfs).chain(by_iterators).collect()
}

/// Check that an error of the loader is a failure where the iterators must load, and no reason to
/// skip tests: root's tests on such a kernel depend on it.
#[test]
fn a_broken_loader_shows() {
    let broken = || if_loadable::<(), _>(Err("broken"));
    assert_eq!(std::panic::catch_unwind(broken).is_err(), iterators::must_load());
    assert_eq!(if_loadable(Ok::<_, String>(7)), Some(7));
}

/// The loaded value. `None`: it cannot be loaded here, and need not be.
fn if_loadable<T, E: std::fmt::Display>(loaded: Result<T, E>) -> Option<T> {
    match loaded {
        Ok(loaded) => Some(loaded),
        Err(error) if iterators::must_load() => panic!("iterators must load here, and do not: {error}"),
        Err(_) => None,
    }
}

fn own() -> Pid {
    Pid(std::process::id())
}

/// The buffer of this kind with this inode number.
fn find(snapshot: &Snapshot, kind: Kind, ino: u64) -> Option<&Buffer> {
    snapshot.buffers.iter().find(|b| b.id.kind == kind && b.id.ino.0 == ino)
}

fn memfd(name: &str, flags: MemfdFlags) -> (File, u64) {
    let file = File::from(memfd_create(name, flags).unwrap());
    let ino = file.metadata().unwrap().ino();
    (file, ino)
}

fn number(fd: impl AsFd) -> Fd {
    Fd(fd.as_fd().as_raw_fd().unsigned_abs())
}

/// A process that keeps what it inherits until this is dropped.
struct Inheritor(Child);

impl Inheritor {
    fn new() -> Inheritor {
        Inheritor(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Inheritor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Check that a memfd's size and charge follow what is done to it: it grows, is written, gets a
/// hole, and pages are allocated in advance.
#[test]
fn a_memfd_through_its_life() {
    let (file, ino) = memfd("life", MemfdFlags::CLOEXEC);
    let stages: [&dyn Fn(); 4] = [
        &|| ftruncate(&file, 16 * page()).unwrap(),
        &|| _ = rustix::io::pwrite(&file, &vec![1; 8 * page_size()], 0).unwrap(),
        &|| {
            fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, page(), 3 * page())
                .unwrap()
        },
        &|| fallocate(&file, FallocateFlags::KEEP_SIZE, 12 * page(), 2 * page()).unwrap(),
    ];
    for (stage, pages) in stages.iter().zip([0, 8, 5, 7]) {
        stage();
        assert_eq!(file.metadata().unwrap().blocks() * 512, pages * page());
        for answer in answers(&[Kind::Memfd]) {
            let found = find(&answer, Kind::Memfd, ino).unwrap();
            assert_eq!((found.size, found.charged), (Some(Bytes(16 * page())), Some(Bytes(pages * page()))));
            assert_eq!(found.name, Some("life".into()));
            assert!(found.holders.iter().any(|h| h.pid == own() && h.fds == [number(&file)]));
        }
    }
}

/// Check that a child that inherits a memfd is a holder too, and that its RSS has the whole charge.
#[test]
fn a_memfd_that_is_inherited() {
    let (file, ino) = memfd("inherited", MemfdFlags::empty());
    rustix::io::pwrite(&file, &vec![1; 4 * page_size()], 0).unwrap();
    let inheritor = Inheritor::new();
    let child = Pid(inheritor.0.id());
    for answer in answers(&[Kind::Memfd]) {
        let found = find(&answer, Kind::Memfd, ino).unwrap();
        let holders: Vec<Pid> = found.holders.iter().map(|h| h.pid).collect();
        assert!(holders.contains(&own()) && holders.contains(&child), "{holders:?}");
        let at = answer.processes.iter().position(|p| p.pid == child).unwrap();
        let rss = Ledger::of(&answer).process_row(at).figures.rss.unwrap();
        assert!(rss >= Bytes(4 * page()), "{rss:?}");
    }
}

/// Check that seals can be read when they are asked for.
#[test]
fn a_memfd_that_is_sealed() {
    let (file, ino) = memfd("sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::WRITE).unwrap();
    let mut scanner =
        Scanner::new(Options { kinds: [Kind::Memfd].into_iter().collect(), ..Options::default() }).unwrap();
    let mut snapshot = scanner.scan().unwrap();
    let found = snapshot.buffers.iter_mut().find(|b| b.id.ino.0 == ino).unwrap();
    scanner.ask_seals(found);
    assert_eq!(found.seals.unwrap().words().collect::<Vec<_>>(), ["shrink", "write"]);
}

/// Check that an `O_PATH` fd that alone keeps a memfd is told from an fd that holds it open.
#[test]
fn a_memfd_that_is_only_named() {
    let (file, ino) = memfd("named", MemfdFlags::CLOEXEC);
    let path = sys::open_path(&file).unwrap();
    drop(file);
    for answer in answers(&[Kind::Memfd]) {
        let found = find(&answer, Kind::Memfd, ino).unwrap();
        let holder = found.holders.iter().find(|h| h.pid == own()).unwrap();
        assert_eq!((&holder.fds[..], &holder.opaths[..]), (&[][..], &[number(&path)][..]));
    }
}

/// Check that a segment that is attached twice is counted twice, also after it is marked for
/// removal, and is gone afterwards.
#[test]
fn a_segment() {
    let segment = Segment::create(0, 8).unwrap();
    let attached = [segment.attach().unwrap(), segment.attach().unwrap()];
    shm::touch(attached[0], 2 * page_size()).unwrap();
    for removed in [false, true] {
        for answer in answers(&[Kind::Sysv]) {
            let found = find(&answer, Kind::Sysv, segment.id()).unwrap();
            let account = account_of(&answer, found);
            assert_eq!((found.count, account.map, account.kernel()), (Some(2), 2, Some(0)));
            assert_eq!(
                (found.size, found.segment.as_ref().unwrap().rss),
                (Some(Bytes(8 * page())), Bytes(2 * page()))
            );
            assert_eq!(
                (found.deleted, found.segment.as_ref().unwrap().creator),
                (Some(removed), Some(own()))
            );
        }
        segment.remove().unwrap();
    }
    attached.into_iter().for_each(|region| shm::detach(region).unwrap());
    for answer in answers(&[Kind::Sysv]) {
        assert!(find(&answer, Kind::Sysv, segment.id()).is_none());
    }
}

fn account_of(snapshot: &Snapshot, buffer: &Buffer) -> Account {
    let at = snapshot.buffers.iter().position(|b| b.id == buffer.id).unwrap();
    Ledger::of(snapshot).row(at).account
}

/// Check that anonymous shared memory is found by its mapping, with its figures if inodes behind
/// mappings can be read.
#[test]
fn anonymous_memory() {
    let region = shm::map_anonymous(6).unwrap();
    shm::touch(region, 3 * page_size()).unwrap();
    for answer in answers(&[Kind::ShmAnon]) {
        let is_it = |b: &&Buffer| {
            b.holders.iter().any(|h| h.pid == own() && h.maps.iter().any(|m| m.start == region.start as u64))
        };
        let found = answer.buffers.iter().find(is_it).unwrap();
        assert_eq!(found.id.kind, Kind::ShmAnon);
        if !answer.coverage.notes.iter().any(|note| matches!(note, Note::Unsized { .. })) {
            assert_eq!((found.size, found.charged), (Some(Bytes(6 * page())), Some(Bytes(3 * page()))));
        }
    }
    sys::unmap(region).unwrap();
}

/// Check that a tmpfs file that is unlinked while it is held shows as deleted, and that no file of
/// a disk is taken for shared memory.
#[test]
fn a_file_that_is_unlinked() {
    let path = format!("/dev/shm/lsbuf-test-{}", std::process::id());
    let file = File::create(&path).unwrap();
    let ino = file.metadata().unwrap().ino();
    let disk = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for deleted in [false, true] {
        for answer in answers(&[Kind::Tmpfs]) {
            let found = find(&answer, Kind::Tmpfs, ino).unwrap();
            assert_eq!((found.deleted, found.name.as_ref()), (Some(deleted), Some(&path.as_str().into())));
            let held =
                |b: &Buffer| b.holders.iter().any(|h| h.pid == own() && h.fds.contains(&number(&disk)));
            assert!(!answer.buffers.iter().any(held));
        }
        let _ = fs::remove_file(&path);
    }
}

/// Check that none of very many memfds is missing.
#[test]
fn a_leak() {
    const MANY: usize = 500;
    let leaked: Vec<OwnedFd> =
        (0..MANY).map(|_| memfd_create("leaked", MemfdFlags::CLOEXEC).unwrap()).collect();
    for answer in answers(&[Kind::Memfd]) {
        let leaks = answer.buffers.iter().filter(|b| b.name == Some("leaked".into()));
        assert_eq!(leaks.filter(|b| b.holders.iter().any(|h| h.pid == own())).count(), leaked.len());
    }
}

/// Check that segments of an IPC namespace in which there is no process are found through the fd,
/// or the bind mount, that keeps it, with the command line that removes them; and that this is no
/// reason for a partial answer.
#[test]
fn an_ipc_namespace_without_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let point = folder.path().join("it's kept");
    File::create(&point).unwrap();
    let make = || {
        task::enter_new(UnshareFlags::NEWIPC).ok()?;
        let segment = Segment::create(0, 3).unwrap();
        let region = segment.attach().unwrap();
        shm::touch(region, region.len).unwrap();
        shm::detach(region).unwrap();
        let file = File::open("/proc/thread-self/ns/ipc").unwrap();
        let _ = rustix::mount::mount_bind(format!("/proc/self/fd/{}", file.as_raw_fd()), &point);
        let id = segment.id();
        // It is removed with the namespace.
        std::mem::forget(segment);
        Some((file, id))
    };
    // A user may not make such a namespace.
    let Some((file, id)) = std::thread::scope(|scope| scope.spawn(make).join().unwrap()) else { return };
    let namespace = file.metadata().unwrap().ino();
    let found = |answer: &Snapshot| {
        let ours = |b: &&Buffer| b.id.ipc.is_some_and(|ipc| ipc.0.0 == namespace);
        let buffer = answer.buffers.iter().find(ours).unwrap();
        assert_eq!((buffer.id.ino.0, buffer.charged), (id, Some(Bytes(3 * page()))));
        assert!(!answer.coverage.notes.iter().any(|note| matches!(note, Note::NoSegments { .. })));
        buffer.segment.as_ref().unwrap().remove_command(buffer.id.ino).unwrap()
    };
    let by_fd = format!("nsenter --ipc=/proc/{}/fd/{} ipcrm -m {id}", own(), file.as_raw_fd());
    let word = format!("--ipc={}", point.display()).replace('\'', r"'\''");
    let by_mount = format!("nsenter '{word}' ipcrm -m {id}");
    for answer in answers(&[Kind::Sysv]) {
        let command = found(&answer);
        assert!(command == by_fd || command == by_mount, "{command}");
    }
    drop(file);
    if rustix::fs::statfs(&point).is_ok_and(|of| of.f_type == 0x6e73_6673) {
        for answer in answers(&[Kind::Sysv]) {
            assert_eq!(found(&answer), by_mount);
        }
        rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}
