//! Tests of the iterators in this machine's own kernel, if they can be loaded. The scenarios test
//! them in other kernels.

use std::fs::{File, OpenOptions, remove_file};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::object::{KernelTypes, Prepared};
use super::record::{Id, Record, TaskRecord};
use super::*;
use crate::kernel::btf_file::BtfFile;
use crate::model::Pid;

/// Loads iterators, or prints why they cannot be tested here.
fn load(wanted: &[Iterator]) -> Option<Probes> {
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

/// How many open files the dentry of one of this process's fds has.
fn opens(probes: &mut Probes, file: impl AsFd) -> Option<u64> {
    let fd = file.as_fd().as_raw_fd().cast_unsigned();
    let (mut of, mut files): (Option<Id>, Vec<(Id, Option<u64>)>) = (None, Vec::new());
    probes
        .read(Iterator::TaskFileShmem, |record| match record {
            Record::ShmFile(file) => files.push((file.file, file.opens)),
            Record::ShmFd(held) if held.pid == own_pid() && held.fd.0 == fd => of = Some(held.of),
            _ => {}
        })
        .unwrap();
    files.into_iter().find(|(file, _)| Some(*file) == of).unwrap().1
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
    let btf = BtfFile::open(Path::new("/sys")).unwrap();
    if KernelTypes::of(&btf).unwrap().have_registers() {
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

/// The task records of a process, and all records of files.
fn tasks(probes: &mut Probes, pid: Pid) -> (Vec<TaskRecord>, Vec<(Id, Vec<u8>)>) {
    let (mut tasks, mut files) = (Vec::new(), Vec::new());
    probes
        .read(Iterator::TaskShmem, |record| match record {
            Record::Task(task) if task.pid == pid => tasks.push(task),
            Record::ShmFile(file) => files.push((file.file, file.path.unwrap_or_else(|name| name).to_vec())),
            _ => {}
        })
        .unwrap();
    (tasks, files)
}

/// Check that a file is reported as undescribed while there is no memory for its description, and
/// is described in the same program's next reading once there is some.
#[test]
fn no_memory_for_a_description() {
    if load(&[Iterator::TaskFileShmem]).is_none() {
        return;
    }
    let btf = BtfFile::open(Path::new("/sys")).unwrap();
    let types = KernelTypes::of(&btf).unwrap();
    let prepared = Prepared::new(Iterator::TaskFileShmem).unwrap();
    let (link, maps) = prepared.load(&types, &[]).unwrap();
    let (_, pieces, places) = maps.into_iter().find(|(name, ..)| name == "pieces").unwrap();
    let mut probes = Probes {
        probes: std::array::from_fn(|_| Err(Unavailable::NotRequested)),
        pins: None,
        loader: None,
        chunk: Vec::new(),
    };
    probes.probes[Iterator::TaskFileShmem as usize] = Ok(IteratorHandle::Loaded(link));
    let memfd = memfd_create("undescribed", MemfdFlags::CLOEXEC).unwrap();
    let fd = memfd.as_raw_fd().cast_unsigned();
    let mut told = |taken: u64| {
        let mut piece = taken.to_ne_bytes().to_vec();
        piece.resize(pieces.value_size() as usize, 0);
        (0..pieces.max_entries()).for_each(|place| sys::fill(places.as_fd(), place, &piece).unwrap());
        let (mut of, mut described, mut undescribed) = (None, Vec::new(), Vec::new());
        let each = |record: Record<'_>| match record {
            Record::ShmFile(file) => described.push(file.file),
            Record::ShmUndescribed(file) => undescribed.push(file),
            Record::ShmFd(held) if held.pid == own_pid() && held.fd.0 == fd => of = Some(held.of),
            _ => {}
        };
        probes.read(Iterator::TaskFileShmem, each).unwrap();
        let is_in = |files: &[Id]| files.contains(&of.unwrap());
        (is_in(&described), is_in(&undescribed))
    };
    assert_eq!(told(1), (false, true));
    assert_eq!(told(0), (true, false));
}

/// Check that, where the kernel lists its dma-bufs, the iterator over VMAs is loaded when it is
/// first read, and not before.
#[test]
fn loaded_when_it_is_read() {
    if load(&[Iterator::Task, Iterator::DmaBuf]).is_none() {
        return;
    }
    let mut probes = Probes::load_for(Path::new("/sys"), Kinds::DMABUF).unwrap();
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
    let probes = Probes::load_for(Path::new("/sys"), kinds).unwrap();
    assert_eq!(probes.lacking(kinds), None);
    assert!(matches!(probes.probes[Iterator::DmaBufShmem as usize], Ok(IteratorHandle::Postponed)));
    assert!(matches!(probes.probes[Iterator::TaskVmaShmem as usize], Ok(IteratorHandle::Loaded(_))));
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

/// Check that a program that runs from a memfd is reported with that file.
#[test]
fn a_program_in_a_memfd() {
    let Some(mut probes) = load(&[Iterator::TaskShmem]) else { return };
    let mut memfd = File::from(memfd_create("runs", MemfdFlags::CLOEXEC).unwrap());
    std::io::copy(&mut File::open("/bin/sleep").unwrap(), &mut memfd).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), memfd.as_raw_fd());
    // A file cannot be executed while it is open for writing.
    let readable = File::open(path).unwrap();
    drop(memfd);
    let path = format!("/proc/{}/fd/{}", std::process::id(), readable.as_raw_fd());
    let mut child = std::process::Command::new(path).arg0("sleep").arg("100").spawn().unwrap();
    let own = tasks(&mut probes, own_pid()).0[0].exe;
    // `spawn` returns a little before the child's new address space can be seen.
    let mut seen = std::iter::repeat_with(|| tasks(&mut probes, Pid(child.id())));
    let (tasks, files) = seen.find(|(tasks, _)| tasks[0].exe != own).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let exe = tasks[0].exe.unwrap();
    assert_eq!(files.iter().find(|(file, _)| *file == exe).unwrap().1, b"memfd:runs");
}

/// Check that a thread with an IPC namespace of its own has a record with that namespace.
#[test]
#[allow(unsafe_code)]
fn a_thread_in_another_ipc_namespace() {
    let Some(mut probes) = load(&[Iterator::TaskShmem]) else { return };
    let seen = std::thread::spawn(move || {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        // SAFETY: neither the fds nor the memory of the thread are unshared.
        if unsafe { unshare_unsafe(UnshareFlags::NEWIPC) }.is_err() {
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

/// Check how many open files the dentry of a memfd, a linked, a deleted and a never linked file
/// has: dup and mmap change nothing, `O_PATH` does.
#[test]
fn open_files_of_a_dentry() {
    let Some(mut probes) = load(&[Iterator::TaskFileShmem]) else { return };
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
