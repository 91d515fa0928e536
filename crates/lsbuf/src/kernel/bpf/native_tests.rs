//! Tests of the iterators in this machine's own kernel, if they can be loaded. The scenarios test
//! them in other kernels.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, hard_link, remove_file};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::object::KernelTypes;
use super::record::{Id, Record, ShmExe, ShmOpen, ShmVma, TaskRecord};
use super::*;
use crate::kernel::btf_file::BtfFile;
use crate::model::Pid;

/// Loads iterators, or prints why they cannot be tested here.
pub(super) fn load(wanted: &[Iterator]) -> Option<Probes> {
    let skipped = |why: &dyn std::fmt::Display| eprintln!("skipped: {why}");
    let probes = Probes::load(Path::new("/sys"), wanted).map_err(|why| skipped(&why)).ok()?;
    let missing = wanted.iter().find_map(|&iterator| match probes.why_not(iterator)? {
        why @ (Unavailable::Missing | Unavailable::Refused(_)) => Some(why),
        why => panic!("{}: {why}", iterator.name()),
    });
    missing.map_or(Some(()), |why| {
        skipped(why);
        None
    })?;
    Some(probes)
}

fn own_pid() -> Pid {
    Pid(std::process::id())
}

/// How many open files the inode of one of this process's fds has.
fn opens(probes: &mut Probes, file: impl AsFd) -> Option<u64> {
    let fd = file.as_fd().as_raw_fd().cast_unsigned();
    let mut of: Option<ShmOpen> = None;
    let each = |record: Record<'_>| match record {
        Record::ShmFd(held) if held.pid == own_pid() && held.fd.0 == fd => of = Some(held.of),
        _ => {}
    };
    probes.read(Iterator::TaskFileShmem, each).unwrap();
    inodes(probes)[&of.unwrap().object].opens
}

/// What the kernel's lists say of an inode.
#[derive(Clone, Debug)]
struct ListedInode {
    opens: Option<u64>,
    name: Vec<u8>,
    path: Option<Vec<u8>>,
    /// The first addresses of its mappings.
    maps: Vec<u64>,
}

/// Every inode in the kernel's lists that somebody holds.
fn inodes(probes: &mut Probes) -> HashMap<Id, ListedInode> {
    let mut inodes: HashMap<Id, ListedInode> = HashMap::new();
    let mut walk = None;
    let each = |record: Record<'_>| match record {
        Record::ShmInode(inode) => {
            let (name, path) = (inode.names.name().to_vec(), inode.names.path());
            inodes.insert(inode.object, ListedInode { opens: inode.opens, name, path, maps: Vec::new() });
        }
        Record::ShmVma(ShmVma { vma, .. }) => inodes.get_mut(&vma.of.object).unwrap().maps.push(vma.start),
        Record::ShmWalk(found) => walk = Some(found),
        _ => {}
    };
    probes.read(Iterator::ShmemInodes, each).unwrap();
    assert!(!walk.unwrap().inodes_cut);
    inodes
}

/// The inode with that name.
fn named<'i>(inodes: &'i HashMap<Id, ListedInode>, name: &str) -> Option<&'i ListedInode> {
    inodes.values().find(|inode| inode.name == name.as_bytes())
}

/// Check that a thread that sleeps in a system call is reported with that call, with unchanged time
/// and as not running, while the thread that reads is running. And that a kernel with the helper
/// reports calls at all.
#[test]
fn threads_that_run() {
    let Some(mut probes) = load(&[Iterator::Task]) else { return };
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (wake, waits) = std::os::unix::net::UnixStream::pair().unwrap();
    let waiting = std::thread::spawn(move || {
        ready.send(rustix::thread::gettid()).unwrap();
        rustix::io::read(&waits, &mut [0; 1]).unwrap()
    });
    let tid = is_ready.recv().unwrap().as_raw_nonzero().get().cast_unsigned();
    let own = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    let mut threads = || {
        let mut of = [None; 2];
        probes
            .read(Iterator::Task, |record| {
                if let Record::Run(run) = record
                    && let Some(nth) = [tid, own].iter().position(|&tid| tid == run.tid.0)
                {
                    of[nth] = Some(run);
                }
            })
            .unwrap();
        of.map(Option::unwrap)
    };
    let in_read = |call: Option<i32>| call.is_none_or(|call| i64::from(call) == libc::SYS_read);
    let settled = std::iter::repeat_with(&mut threads).find(|[run, _]| in_read(run.call) && !run.running);
    let [before, _] = settled.unwrap();
    let [after, reader] = threads();
    assert_eq!(before, after);
    assert_eq!((after.pid, after.exiting, after.dead, after.worker), (own_pid(), false, false, false));
    assert!(reader.running && in_read(reader.call), "{reader:?}");
    if KernelTypes::of(&BtfFile::open(Path::new("/sys")).unwrap()).unwrap().have_registers() {
        assert!(after.call.is_some() || !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")));
    }
    drop(wake);
    waiting.join().unwrap();
}

/// Check that a stopped process is reported as stopped, and not once it continues.
#[test]
fn a_stopped_process() {
    let Some(mut probes) = load(&[Iterator::Task]) else { return };
    let mut sleep = std::process::Command::new("/bin/sleep");
    let mut child = sleep.arg("100").stdout(std::process::Stdio::null()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let mut becomes = |stopped: bool| {
        for _ in 0..10_000 {
            let mut found = None;
            let record = |record: Record<'_>| match record {
                Record::Run(run) if run.pid.0 == child.id() => found = Some(run),
                _ => {}
            };
            probes.read(Iterator::Task, record).unwrap();
            if found.is_some_and(|run| run.stopped == stopped && !run.running) {
                return true;
            }
        }
        false
    };
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    assert!(becomes(true));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert!(becomes(false));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The task records of a process, and the programs that run from shared memory.
fn tasks(probes: &mut Probes, pid: Pid) -> (Vec<TaskRecord>, Vec<ShmExe>) {
    let (mut tasks, mut programs) = (Vec::new(), Vec::new());
    probes
        .read(Iterator::TaskShmem, |record| match record {
            Record::Task(task) if task.pid == pid => tasks.push(task),
            Record::ShmExe(exe) => programs.push(exe),
            _ => {}
        })
        .unwrap();
    (tasks, programs)
}

/// Check that, where the kernel lists its dma-bufs, the iterator over VMAs is loaded when it is
/// first read, and not before.
#[test]
fn loaded_when_it_is_read() {
    if load(&[Iterator::Task, Iterator::DmaBuf]).is_none() {
        return;
    }
    let mut probes = Probes::load_for(Path::new("/sys"), Kinds::DMABUF, false).unwrap();
    let vmas = Iterator::TaskVma as usize;
    assert_eq!(probes.lacking(Kinds::DMABUF), None);
    assert!(matches!(probes.probes[vmas], Ok(IteratorHandle::Postponed)));
    let mut ended = false;
    probes.read(Iterator::TaskVma, |record| ended |= record == Record::End).unwrap();
    assert!(ended);
    assert!(matches!(probes.probes[vmas], Ok(IteratorHandle::Loaded(_))));
}

/// Check that an iterator that is loaded later writes the same ids, so that they can be compared
/// with those of the others.
#[test]
fn the_same_ids_later() {
    let Some(mut probes) = load(&[Iterator::TaskShmem]) else { return };
    let own = |probes: &mut Probes| tasks(probes, own_pid()).0[0].mm.unwrap();
    let before = own(&mut probes);
    probes.probes[Iterator::TaskShmem as usize] = Ok(IteratorHandle::Postponed);
    assert_eq!(own(&mut probes), before);
    assert_ne!(own(&mut load(&[Iterator::TaskShmem]).unwrap()), before);
}

/// Check that no list of dma-bufs is loaded if only shared memory is looked for, and nothing is
/// missing for that.
#[test]
fn no_list_for_shared_memory() {
    if load(&[Iterator::TaskShmem, Iterator::DmaBufShmem]).is_none() {
        return;
    }
    let kinds = Kinds::SHMEM;
    let probes = Probes::load_for(Path::new("/sys"), kinds, false).unwrap();
    assert_eq!(probes.lacking(kinds), None);
    assert!(matches!(probes.probes[Iterator::DmaBufShmem as usize], Ok(IteratorHandle::Postponed)));
    assert!(matches!(probes.probes[Iterator::TaskVmaShmem as usize], Ok(IteratorHandle::Postponed)));
    assert!(matches!(probes.probes[Iterator::ShmemInodes as usize], Ok(IteratorHandle::Loaded(_))));
}

/// Check that a reading goes on after more fds without a record than the kernel looks at in one
/// call.
#[test]
fn a_million_other_fds() {
    const MANY: usize = 1_000_100;
    // Their limit is one of each fd table, and each of these threads has a table of its own.
    let own_table = || {
        // SAFETY: the thread has a copy of each fd that it uses.
        #[allow(unsafe_code)]
        let unshared = unsafe { unshare_unsafe(UnshareFlags::FILES) };
        unshared.is_ok()
    };
    let read = std::thread::spawn(move || {
        let mut probes = load(&[Iterator::TaskFile]).filter(|_| own_table())?;
        let file = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let more = std::iter::repeat_with(|| file.try_clone());
        let mut fds: Vec<OwnedFd> = more.take(MANY).map_while(Result::ok).collect();
        // Room for what the reading opens.
        fds.truncate(fds.len().saturating_sub(20));
        let threads = MANY.checked_div(fds.len())?;
        if threads > 200 {
            return None;
        }
        let (all, copied) = (Barrier::new(threads + 1), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    copied.fetch_add(usize::from(own_table()), Ordering::Relaxed);
                    all.wait();
                    all.wait();
                });
            }
            all.wait();
            let mut ended = false;
            let read = probes.read(Iterator::TaskFile, |record| ended |= record == Record::End);
            all.wait();
            (copied.load(Ordering::Relaxed) == threads).then_some((read, ended))
        })
    });
    match read.join().unwrap() {
        Some(outcome) => assert_eq!(outcome, (Ok(()), true)),
        None => eprintln!("skipped: so many fds cannot be opened here"),
    }
}

/// Check that the sequence number of an address space's lock changes with a mapping.
#[test]
fn writes_to_an_address_space() {
    let Some(mut probes) = load(&[Iterator::TaskShmem]) else { return };
    let mut writes = || tasks(&mut probes, own_pid()).0[0].mm_writes;
    let before = writes();
    // Too large for the allocator to keep when it is freed.
    drop(std::hint::black_box(vec![0u8; 256 << 20]));
    let after = writes();
    assert!(before != after || before.is_none(), "{before:?} {after:?}");
}

/// Check that a program that runs from a memfd is reported with that memfd.
#[test]
fn a_program_in_a_memfd() {
    let Some(mut probes) = load(&[Iterator::TaskShmem, Iterator::ShmemInodes]) else { return };
    let mut memfd = File::from(memfd_create("runs", MemfdFlags::CLOEXEC).unwrap());
    std::io::copy(&mut File::open("/bin/sleep").unwrap(), &mut memfd).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), memfd.as_raw_fd());
    // A file cannot be executed while it is open for writing.
    let readable = File::open(path).unwrap();
    drop(memfd);
    let path = format!("/proc/{}/fd/{}", std::process::id(), readable.as_raw_fd());
    let mut child = std::process::Command::new(path).arg0("sleep").arg("100").spawn().unwrap();
    // `spawn` returns a little before the child's new address space can be seen.
    let exe = std::iter::repeat_with(|| tasks(&mut probes, Pid(child.id())))
        .find_map(|(tasks, programs)| programs.into_iter().find(|exe| tasks[0].mm == Some(exe.mm)));
    let inodes = inodes(&mut probes);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(inodes[&exe.unwrap().of.object].name, b"memfd:runs");
}

/// Check that a thread with an IPC namespace of its own has a record with that namespace.
#[test]
#[allow(unsafe_code)]
fn a_thread_in_another_ipc_namespace() {
    let Some(mut probes) = load(&[Iterator::TaskShmem]) else { return };
    let seen = std::thread::spawn(move || {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        // SAFETY: neither the fds nor the memory of the thread are unshared.
        if unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWIPC) }.is_err() {
            return None;
        }
        let number = std::fs::metadata("/proc/thread-self/ns/ipc").unwrap().ino();
        let (tasks, _) = tasks(&mut probes, own_pid());
        let own = tasks.iter().find(|task| task.tid.0 == tid).unwrap();
        let leader = tasks.iter().find(|task| task.tid.0 == own_pid().0).unwrap();
        assert_ne!(own.ipc, leader.ipc);
        assert_eq!((own.mm, own.files), (leader.mm, leader.files));
        Some((own.ipc.unwrap().0.0, number))
    });
    if let Some((told, number)) = seen.join().unwrap() {
        assert_eq!(told, number);
    }
}

/// Check how many open files the inode of a memfd, a linked, a deleted and a never linked file
/// has: dup and mmap change nothing, `O_PATH` does.
#[test]
fn open_files_of_an_inode() {
    let Some(mut probes) = load(&[Iterator::TaskFileShmem, Iterator::ShmemInodes]) else { return };
    let memfd = File::from(memfd_create("opens", MemfdFlags::CLOEXEC).unwrap());
    let again = || format!("/proc/self/fd/{}", memfd.as_raw_fd());
    assert_eq!(opens(&mut probes, &memfd), Some(1));
    let dup = memfd.try_clone().unwrap();
    assert_eq!(opens(&mut probes, &dup), Some(1));
    let second = File::open(again()).unwrap();
    assert_eq!((opens(&mut probes, &memfd), opens(&mut probes, &second)), (Some(2), Some(2)));
    let named = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(again()).unwrap();
    assert_eq!(opens(&mut probes, &named), Some(3));
    drop((second, named));
    assert_eq!(opens(&mut probes, &memfd), Some(1));

    let path = format!("/dev/shm/lsbuf-opens-{}", std::process::id());
    let linked = File::create(&path).unwrap();
    let again = File::open(&path).unwrap();
    assert_eq!(opens(&mut probes, &linked), Some(2));
    drop(again);
    assert_eq!(opens(&mut probes, &linked), Some(1));
    remove_file(&path).unwrap();
    assert_eq!(opens(&mut probes, &linked), Some(1));

    let unlinked = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open("/dev/shm").unwrap();
    assert_eq!(opens(&mut probes, &unlinked), Some(1));
}

/// Check that a file in a folder is listed while somebody holds it, with its whole path, and that
/// of its names one is told that it still has.
#[test]
fn a_file_with_names() {
    let Some(mut probes) = load(&[Iterator::ShmemInodes]) else { return };
    let folder = format!("lsbuf-names-{}", std::process::id());
    let at = |name: &str| format!("/dev/shm/{folder}/{name}");
    std::fs::create_dir(format!("/dev/shm/{folder}")).unwrap();
    let mut path = |name: &str| {
        let inodes = inodes(&mut probes);
        named(&inodes, name).map(|inode| String::from_utf8(inode.path.clone().unwrap()).unwrap())
    };
    let (first, second) = (format!("a-{folder}"), format!("b-{folder}"));
    let file = File::create(at(&first)).unwrap();
    assert_eq!(path(&first), Some(format!("/{folder}/{first}")));
    hard_link(at(&first), at(&second)).unwrap();
    remove_file(at(&first)).unwrap();
    assert_eq!((path(&first), path(&second)), (None, Some(format!("/{folder}/{second}"))));
    drop(file);
    assert_eq!(path(&second), None);
    std::fs::remove_dir_all(format!("/dev/shm/{folder}")).unwrap();
}

/// Check that the list of inodes is whole, and each inode once, if it takes many reads, of which
/// each begins where the last one stopped: thousands of memfds, some with thousands of mappings.
#[test]
#[allow(unsafe_code)]
fn more_than_one_read_has_room_for() {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let Some(mut probes) = load(&[Iterator::ShmemInodes]) else { return };
    let page = page_size();
    let name = |nth: usize| format!("many-{}-{nth}", std::process::id());
    let made: Vec<File> =
        (0..3000).map(|nth| File::from(memfd_create(name(nth), MemfdFlags::CLOEXEC).unwrap())).collect();
    let mut mapped: Vec<_> = (0..1000)
        .map(|_| {
            // SAFETY: the kernel chooses the place, and nothing is read or written there.
            unsafe { mmap(std::ptr::null_mut(), page, ProtFlags::READ, MapFlags::SHARED, &made[7], 0) }
                .unwrap()
        })
        .collect();
    let inodes = inodes(&mut probes);
    for at in &mapped {
        // SAFETY: the mapping was made above, and nothing refers to it.
        unsafe { munmap(*at, page) }.unwrap();
    }
    for nth in 0..made.len() {
        let found = named(&inodes, &format!("memfd:{}", name(nth))).unwrap();
        assert_eq!((found.opens, found.maps.len()), (Some(1), if nth == 7 { 1000 } else { 0 }));
    }
    let mut starts = named(&inodes, &format!("memfd:{}", name(7))).unwrap().maps.clone();
    starts.sort_unstable();
    mapped.sort_unstable();
    assert_eq!(starts, mapped.iter().map(|at| at.addr() as u64).collect::<Vec<_>>());
}

/// Check that one process can be read alone, and that its mappings are then those that are found
/// when all processes are read; and that a process that does not exist has none.
#[test]
#[allow(unsafe_code)]
fn mappings_of_one_process() {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let Some(mut probes) = load(&[Iterator::TaskVmaShmem]) else { return };
    let (file, page) = (memfd_create(c"mapped", MemfdFlags::CLOEXEC).unwrap(), page_size());
    // SAFETY: the kernel chooses the place, and nothing is read or written there.
    let at = unsafe { mmap(std::ptr::null_mut(), page, ProtFlags::READ, MapFlags::SHARED, &file, 0) };
    let at = at.unwrap();
    let mut child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
    let (own, other, none) = (own_pid(), Pid(child.id()), Pid(u32::MAX >> 1));
    let mut all = HashMap::<Option<Pid>, Vec<u64>>::new();
    let mut add = |record: Record<'_>| {
        if let Record::ShmVma(ShmVma { vma, .. }) = record {
            all.entry(vma.owner).or_default().push(vma.start);
        }
    };
    probes.read(Iterator::TaskVmaShmem, &mut add).unwrap();
    let mut of_one = |pid| {
        let mut found = Vec::new();
        let mut ended = false;
        let possible = probes.read_process(pid, |record| match record {
            Record::ShmVma(ShmVma { vma, .. }) => found.push((vma.owner, vma.start)),
            Record::End => ended = true,
            _ => {}
        });
        possible.unwrap().then(|| {
            assert!(ended);
            found
        })
    };
    let found = [own, other, none].map(&mut of_one);
    // SAFETY: the mapping was made above, and nothing refers to it.
    unsafe { munmap(at, page) }.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let [Some(found), Some(others), Some(nothing)] = found else {
        assert!(!probes.may_read_process());
        return;
    };
    assert!(found.contains(&(Some(own), at.addr() as u64)) && all[&Some(own)].contains(&(at.addr() as u64)));
    assert!(found.iter().all(|(owner, _)| *owner == Some(own)), "{found:?}");
    assert_eq!((others, nothing), (Vec::new(), Vec::new()));
}
