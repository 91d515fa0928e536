//! Tests of the helper process: what it shares with its caller, which waits are ended and which are
//! not, and what is left of a helper that was killed.

use std::cell::Cell;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output};
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use lsbuf_guest::actor::Held;
use lsbuf_guest::hanging::Hanging;
use rustix::pipe::pipe;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

const LIMIT: Duration = Duration::from_millis(150);

/// The value of work that is not killed.
fn value<R>(work: impl FnOnce() -> R + 'static) -> R {
    let guarded = guarded(LIMIT, work).unwrap();
    assert_eq!(guarded.unguarded, None);
    guarded.value
}

/// Waits as a reader of a locked address space does: in state D, until a fatal signal comes. The
/// kernel makes the parent of a vfork child wait in this way.
fn wait_killable() {
    // SAFETY: the child shares no memory with us; it makes system calls only and never returns.
    unsafe {
        let child = libc::syscall(libc::SYS_clone, libc::CLONE_VFORK, 0, 0, 0, 0);
        if child == 0 {
            libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // If the parent is killed before that line, the child ends by itself after this time.
            let time = libc::timespec { tv_sec: 20, tv_nsec: 0 };
            libc::syscall(libc::SYS_nanosleep, &raw const time, ptr::null_mut::<libc::timespec>());
            libc::_exit(0);
        }
    }
}

/// The children of this thread, zombies too.
fn children() -> String {
    fs::read_to_string("/proc/thread-self/children").unwrap().trim().to_owned()
}

fn fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Check that work receives what it captured, and that what it made, allocated memory too, belongs
/// to the caller.
#[test]
fn moves_in_and_out() {
    let text = String::from("given");
    let (pid, text) = value(move || (getpid(), format!("{text} and back")));
    assert_eq!(text, "given and back");
    assert_ne!(pid, getpid());
    assert_eq!(children(), "", "a child is left");
}

/// Check that a helper uses the caller's thread-local storage, fds and mutexes.
#[test]
fn is_the_same_thread() {
    thread_local! { static COUNT: Cell<u32> = const { Cell::new(1) } }
    static SHARED: Mutex<u32> = Mutex::new(0);
    let reader = value(|| {
        COUNT.set(COUNT.get() + 1);
        *SHARED.lock().unwrap() += 1;
        fs::File::open("/proc/version").unwrap()
    });
    assert_eq!((COUNT.get(), *SHARED.lock().unwrap()), (2, 1));
    assert!(reader.metadata().unwrap().is_file());
}

/// Check that a panic of the work continues in the caller with its message, and that the next call
/// works.
#[test]
fn panics_pass_on() {
    let panic = catch_unwind(AssertUnwindSafe(|| value(|| panic!("as planned")))).unwrap_err();
    assert_eq!(*panic.downcast::<&str>().unwrap(), "as planned");
    assert_eq!(value(|| 7), 7);
}

/// Check that work may start threads and wait for them, and may use a helper itself.
#[test]
fn threads_and_helpers_within() {
    let sum = value(|| {
        let lists: Vec<_> = (0..4).map(|n| thread::spawn(move || vec![n; 10_000])).collect();
        lists.into_iter().map(|list| list.join().unwrap().iter().sum::<i32>()).sum::<i32>()
    });
    assert_eq!(sum, 60_000);
    let inner = value(|| guarded(LIMIT, || own_pids().len()).unwrap().value);
    assert!(inner >= 3, "{inner}");
}

/// Check that many threads can each have a helper at the same time.
#[test]
fn many_at_once() {
    let threads: Vec<_> = (0..4_u64)
        .map(|seed| {
            thread::spawn(move || {
                (0..200).all(|n| value(move || vec![seed + n; 1000].iter().sum::<u64>()) == (seed + n) * 1000)
            })
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
}

/// Check that a wait that only a fatal signal can end is ended, that the process that was read is
/// reported, and that the next call works.
#[test]
fn killable_wait() {
    let asked = Instant::now();
    // SAFETY: it makes system calls only.
    let stuck = guarded(LIMIT, || unsafe { marked(Some(Pid(42)), wait_killable) }).unwrap_err();
    assert_eq!(stuck, Stuck { pid: Some(Pid(42)), left_behind: false });
    assert!(asked.elapsed() >= LIMIT && asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(value(|| vec![1; 3]), [1; 3]);
    assert_eq!(children(), "", "a child is left");
}

/// Check that a wait that any signal can end is ended, too.
#[test]
fn interruptible_wait() {
    let (reader, _writer) = pipe().unwrap();
    let stuck = guarded(LIMIT, move || read(None, reader.as_fd(), &mut [0])).unwrap_err();
    assert_eq!(stuck, Stuck { pid: None, left_behind: false });
}

/// Check that short waits in many calls together have a limit, too.
#[test]
fn many_short_waits() {
    let nap = || {
        let time = libc::timespec { tv_sec: 0, tv_nsec: 60_000_000 };
        // SAFETY: the time is read; no address is written to.
        unsafe { libc::syscall(libc::SYS_nanosleep, &raw const time, ptr::null_mut::<libc::timespec>()) };
    };
    let asked = Instant::now();
    // SAFETY: it makes a system call only.
    let stuck = guarded(LIMIT, move || (0..1000).for_each(|_| unsafe { marked(Some(Pid(1)), nap) }));
    assert!(stuck.is_err());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

/// Check that a helper that works, or waits in a call that is not marked, is not killed.
#[test]
fn busy_helpers_are_not_killed() {
    let busy = || {
        let start = Instant::now();
        while start.elapsed() < 4 * LIMIT {
            let _ = getppid();
        }
    };
    // SAFETY: it makes system calls only.
    value(move || unsafe { marked(None, busy) });
    value(|| thread::sleep(4 * LIMIT));
}

/// Check that a helper with a second thread is not killed, because that thread may be anywhere.
#[test]
fn not_while_threads_run() {
    let (reader, writer) = pipe().unwrap();
    let read = value(move || {
        let other = thread::spawn(move || {
            thread::sleep(4 * LIMIT);
            rustix::io::write(&writer, b"x")
        });
        let read = read(None, reader.as_fd(), &mut [0]);
        other.join().unwrap().unwrap();
        read
    });
    assert_eq!(read, Ok(1));
}

/// Check that a helper is listed among lsbuf's processes while it lives, and not after.
#[test]
fn own_pids_are_listed() {
    let caller = Pid(number(getpid()));
    let (helper, listed) = value(|| (Pid(number(getpid())), own_pids()));
    assert!(listed.contains(&helper) && listed.contains(&caller), "{listed:?}");
    assert!(!own_pids().contains(&helper));
    assert!(own_pids().contains(&caller));
}

/// Check that a signal with a handler waits until the work has ended, and that no handler runs in a
/// helper.
#[test]
fn handlers_wait() {
    use std::sync::atomic::AtomicI32;
    static RAN_IN: AtomicI32 = AtomicI32::new(0);
    extern "C" fn handler(_: c_int) {
        RAN_IN.store(getpid().as_raw_pid(), Ordering::SeqCst);
    }
    let action: extern "C" fn(c_int) = handler;
    // SAFETY: the handler only stores a number.
    unsafe { libc::signal(libc::SIGURG, action as libc::sighandler_t) };
    let caller = rustix::thread::gettid();
    let own = getpid();
    let during = value(move || {
        // SAFETY: it takes numbers only.
        unsafe {
            libc::syscall(libc::SYS_tgkill, own.as_raw_pid(), caller.as_raw_pid(), libc::SIGURG);
            libc::kill(getpid().as_raw_pid(), libc::SIGURG);
        }
        thread::sleep(Duration::from_millis(20));
        RAN_IN.load(Ordering::SeqCst)
    });
    assert_eq!((during, RAN_IN.load(Ordering::SeqCst)), (0, own.as_raw_pid()));
}

const ALONE: &str = "LSBUF_TEST_ALONE";

/// Runs one test of this module in a process of its own, in its first thread, with `part` in
/// [`ALONE`].
fn run_alone(test: &str, part: &str) -> Output {
    let name = format!("kernel::guard::tests::{test}");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&name, "--exact", "--test-threads=1"]).env(ALONE, part).output().unwrap()
}

/// Whether this is the process in which that test runs alone. If not, the test has now run in such
/// a process and passed.
fn alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = run_alone(test, "all");
    assert!(output.status.success(), "{output:?}");
    false
}

/// A process whose address space is locked as long as this value lives. `None`: this user cannot
/// make one.
fn hanging() -> Option<Hanging> {
    let held = || {
        let file = rustix::fs::memfd_create(c"held", rustix::fs::MemfdFlags::CLOEXEC)?;
        let held = Held::by_file(&file)?;
        Ok((file, held))
    };
    Hanging::start(None, held).inspect_err(|error| eprintln!("not tried: {error:#}")).ok()
}

/// Check that a read of the mappings of a locked address space is ended, and that other files of
/// the same process can be read.
#[test]
fn locked_address_space() {
    if !alone("locked_address_space") {
        return;
    }
    let Some(world) = hanging() else { return };
    let pid = world.held.pid;
    let maps = move || {
        let maps = fs::File::open(format!("/proc/{pid}/smaps")).unwrap();
        read(Some(Pid(pid)), maps.as_fd(), &mut [0; 4096])
    };
    let stuck = guarded(LIMIT, maps).unwrap_err();
    assert_eq!(stuck, Stuck { pid: Some(Pid(pid)), left_behind: false });
    assert!(value(move || fs::read(format!("/proc/{pid}/stat"))).is_ok());
}

/// Check that a helper that even SIGKILL does not end is left behind, stays listed, and is reaped
/// once it has ended.
#[test]
fn left_behind() {
    if !alone("left_behind") {
        return;
    }
    let Some(world) = hanging() else { return };
    let pid = world.held.pid;
    let peek = move || {
        let mut byte = [0_u8];
        let (local, remote) = (vector(byte.as_mut_ptr()), vector(ptr::from_ref(&ALONE_IN_MEMORY).cast_mut()));
        // SAFETY: the kernel writes one byte. It waits for the lock of the other address space
        // whatever signal comes.
        unsafe {
            marked(Some(Pid(pid)), || {
                libc::process_vm_readv(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0)
            })
        }
    };
    let stuck = guarded(LIMIT, peek).unwrap_err();
    assert_eq!(stuck, Stuck { pid: Some(Pid(pid)), left_behind: true });
    assert_eq!(own_pids().len(), 2);
    drop(world);
    thread::sleep(Duration::from_millis(200));
    value(|| ());
    assert_eq!((own_pids().len(), children()), (1, String::new()));
}

/// A byte that is at the same address in a forked process.
static ALONE_IN_MEMORY: u8 = 1;

fn vector(byte: *mut u8) -> libc::iovec {
    libc::iovec { iov_base: byte.cast(), iov_len: 1 }
}

/// Check that a process ends as its helper did, if lsbuf did not end the helper: memory may be half
/// written.
#[test]
fn ends_as_the_helper() {
    const NAME: &str = "ends_as_the_helper";
    match std::env::var(ALONE).as_deref() {
        Ok("exit") => value(|| std::process::exit(7)),
        Ok("abort") => value(|| std::process::abort()),
        Ok("kill") => value(|| kill_process(getpid(), Signal::KILL).unwrap()),
        _ => {
            assert_eq!(run_alone(NAME, "exit").status.code(), Some(7));
            assert_eq!(run_alone(NAME, "abort").status.signal(), Some(libc::SIGABRT));
            assert_eq!(run_alone(NAME, "kill").status.signal(), Some(libc::SIGKILL));
        }
    }
}

/// Check that work is done once where no helper can be made, and that the result says so.
#[test]
fn without_a_helper() {
    if !alone("without_a_helper") {
        return;
    }
    let before = getrlimit(Resource::As);
    setrlimit(Resource::As, Rlimit { current: Some(1), maximum: before.maximum }).unwrap();
    let here = guarded(LIMIT, getpid);
    setrlimit(Resource::As, before).unwrap();
    let here = here.unwrap();
    assert_eq!((here.value, here.unguarded), (getpid(), Some(Errno::NOMEM)));
}

/// Check that the watcher's files are closed, after a helper that ended and after one that was
/// killed.
#[test]
fn no_fd_remains() {
    // Other tests open fds at the same time.
    if !alone("no_fd_remains") {
        return;
    }
    let before = fds();
    value(|| ());
    value(|| thread::sleep(Duration::from_millis(120)));
    // SAFETY: it makes system calls only.
    guarded(LIMIT, || unsafe { marked(None, wait_killable) }).unwrap_err();
    assert_eq!(fds(), before);
    assert_eq!(own_pids(), [Pid(number(getpid()))]);
}

/// Prints how long a call takes; `cargo test --release -- --ignored --nocapture cost`.
#[test]
#[ignore = "a measurement"]
fn cost() {
    const CALLS: u32 = 5000;
    let start = Instant::now();
    for n in 0..CALLS {
        assert_eq!(value(move || n), n);
    }
    println!("{:?} for each call", start.elapsed() / CALLS);
}
