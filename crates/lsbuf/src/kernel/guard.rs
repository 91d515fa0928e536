//! Runs work in a helper process that can be killed, because the work may wait for another process
//! without end.
//!
//! Some reads of procfs and some BPF iterators wait for a lock of the process that is read. That
//! process decides how long it holds the lock: an mmap of a file on a FUSE server that never
//! answers holds it for ever. Only a fatal signal ends such a wait, and a thread cannot be killed
//! alone. So [`guarded`] starts a helper process, lets it do the work, and kills it if it waits too
//! long. lsbuf then goes on without that answer.
//!
//! **Which reads wait.** Seen on Linux 6.1 and 6.18, with a process that maps such a file over one
//! of its own VMAs:
//!
//! - Until a fatal signal: `maps`, PROCMAP_QUERY, listing `map_files`, looking up one of its links;
//!   `smaps`, `smaps_rollup`, `numa_maps`, `cmdline`, `environ`; a BPF iterator over VMAs.
//! - Even SIGKILL does not end it: process_vm_readv(2).
//! - Never: opening `maps` or `mem`; `stat`, `statm`, `status`, `cgroup`, `syscall`, `schedstat`,
//!   `stack`, `comm`, `io`, `mountinfo`; the links `exe`, `cwd`, `root` and `ns`; `fd`, `fdinfo`
//!   and `task` with everything in them; kcmp(2).
//!
//! Linux 6.18 reads `maps` and answers PROCMAP_QUERY under the locks of single VMAs. It waits only
//! if one of these is locked too, and a plain mmap locks none.
//!
//! **The helper.** It is a process of its own, so it can be killed alone. It shares the caller's
//! memory, fd table and working directory, and the calling thread's thread-local storage: clone(2)
//! with CLONE_VM, CLONE_FILES and CLONE_FS, without CLONE_SETTLS. The calling thread does nothing
//! but wait meanwhile. So the work runs as if that thread did it: it may allocate, lock, open fds,
//! panic and start threads. vfork(2) works in the same way; the helper has a deadline in addition.
//! All signals are blocked in the helper, and the kernel sends none when it ends (exit signal 0),
//! so a program that embeds lsbuf does not notice it: none of its signal handlers run in the
//! helper. The helper dies with its parent (PR_SET_PDEATHSIG).
//!
//! **When it may be killed.** Only inside a marked call ([`mark`]). Such a call makes system calls
//! and does nothing else. So the helper is not inside the allocator, holds no half-taken lock of
//! lsbuf's memory, and will run no code of ours again. [`watch`] says how that is ensured.
//! Everything that the work owned is leaked. `work` is `'static`, so it cannot have borrowed memory
//! to write to.
//!
//! **Limits.**
//! - Waits in calls that are not marked have no deadline. The same holds for threads that the work
//!   starts: nothing is killed while there are any. Such a thread can call [`guarded`] itself.
//! - The work must not hold a lock, or a borrow of a thread-local `RefCell`, during a marked call.
//!   If the helper is killed there, it is never released.
//! - In the work, `getpid` and `/proc/self` are those of the helper, except for what it shares with
//!   the caller. [`own_pids`] lists both processes.
//! - Signals for which the program has a handler are delayed in the calling thread until the work
//!   has ended, because the handler would use the thread-local storage at the same time as the
//!   helper. Other signals act at once, such as a Ctrl-C without a handler.
//! - A call elsewhere in the program that waits for children of any sort (`__WALL`) can take the
//!   helper's exit status. A helper that is stopped for inspection makes the kernel send SIGCHLD,
//!   as any child does. Neither does harm here.
//! - If this process's user is changed with libc's `setuid`, existing helpers keep the old one.
//! - The helper is not registered for restartable sequences (rseq(2)), which the kernel offers to
//!   one task only. A global allocator that needs them (TCMalloc's per-CPU caches) must not be
//!   used.
//! - The helper's state is read from `/proc`. If procfs is not mounted there, nothing is killed.

#![allow(unsafe_code)]

mod mark;
#[cfg(test)]
mod tests;
mod watch;

use std::any::Any;
use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::param::page_size;
use rustix::process::{
    Pid as TaskId, Signal, getpid, getppid, kill_process, set_parent_process_death_signal,
};

use self::mark::Mark;
#[cfg(feature = "symbols")]
pub(crate) use self::mark::{magic_of, open_below};
pub(crate) use self::mark::{marked, next_entry, now_about, open_at, read, read_at, read_link_at, stat_at};
pub(crate) use self::watch::Stuck;
use self::watch::{End, EndStatus};
use crate::model::Pid;

/// The result of work.
#[derive(Debug)]
pub(crate) struct Guarded<R> {
    /// What the work returned.
    pub(crate) value: R,
    /// Set if no helper could be made: the work then ran in the calling thread, without a deadline.
    pub(crate) unguarded: Option<Errno>,
}

/// Whether rustix makes system calls directly on this target. libc's functions would set `errno`,
/// which the waiting caller shares with the helper. On other targets (Android) the work runs in the
/// calling thread.
const RAW_CALLS: bool = cfg!(all(
    target_os = "linux",
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64", target_arch = "x86"),
));

/// Size of a helper's stack, in bytes.
const STACK: usize = 1 << 20;

/// Runs `work` in a helper. Gives up if the helper sleeps for `limit` inside one marked call, or
/// for [`watch::TOTAL`] times as long in all marked calls together. Time on a processor, or waiting
/// for one, does not count.
///
/// If `work` panics, the panic continues in the caller. If the helper ends in another way that
/// lsbuf did not cause (an abort, a fault, a signal from outside), the caller ends in the same way,
/// because memory that they shared may be half written.
///
/// # Errors
///
/// [`Stuck`]: the work was killed.
pub(crate) fn guarded<R>(limit: Duration, work: impl FnOnce() -> R + 'static) -> Result<Guarded<R>, Stuck> {
    reap_left_behind();
    let mark = Mark::default();
    let slot = Slot::new(work);
    let outer = mark::set_current(&mark);
    let ran = run(limit, &mark, &slot);
    mark::set_current(outer);
    let (status, unguarded) = match ran {
        Ok(End::Stuck(stuck)) => return Err(stuck),
        Ok(End::Ended(status)) => (status, None),
        Err(errno) => (EndStatus::Unknown, Some(errno)),
    };
    match slot.outcome() {
        Some(Ok(value)) => Ok(Guarded { value, unguarded }),
        Some(Err(panic)) => resume_unwind(panic),
        None if slot.begun.load(Ordering::Acquire) => status.follow(),
        // A helper ran but did not begin the work, because its parent's pid was not the expected
        // one: the caller's children are made in another pid namespace.
        None => Ok(Guarded { value: slot.run_here(), unguarded: unguarded.or(Some(Errno::SRCH)) }),
    }
}

/// The processes that belong to lsbuf: this one, and the helpers that exist now with the processes
/// that wait for them. Numbered as in this process's pid namespace, in no order.
pub(crate) fn own_pids() -> Vec<Pid> {
    let mut pids: Vec<Pid> = lock(&OWN_PROCESSES).iter().map(|own| Pid(own.pid)).collect();
    let own = Pid(number(getpid()));
    if !pids.contains(&own) {
        pids.push(own);
    }
    pids
}

/// The helpers among them.
pub(crate) fn helpers() -> Vec<Pid> {
    lock(&OWN_PROCESSES).iter().filter(|own| own.is_helper).map(|own| Pid(own.pid)).collect()
}

/// A process that belongs to lsbuf.
struct OwnProcess {
    pid: u32,
    is_helper: bool,
}

/// Helpers, and processes that wait for one. A process is listed once for each of its threads that
/// waits.
static OWN_PROCESSES: Mutex<Vec<OwnProcess>> = Mutex::new(Vec::new());

/// Helpers that were killed and have not ended yet: the pidfd, and the pid by which their parent
/// knows them.
static LEFT_BEHIND: Mutex<Vec<(OwnedFd, TaskId)>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(task: TaskId) -> u32 {
    task.as_raw_pid().unsigned_abs()
}

fn forget_own(pid: u32) {
    let mut own = lock(&OWN_PROCESSES);
    if let Some(at) = own.iter().position(|own| own.pid == pid) {
        own.swap_remove(at);
    }
}

fn reap_left_behind() {
    lock(&LEFT_BEHIND).retain(|(pidfd, pid)| {
        let ended = watch::reap(pidfd.as_fd(), *pid);
        if ended {
            forget_own(number(*pid));
        }
        !ended
    });
}

/// The work for a helper, and its result.
struct Slot<F, R> {
    work: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<std::thread::Result<R>>>,
    /// The pid that the helper's parent must have.
    parent: TaskId,
    begun: AtomicBool,
    done: AtomicBool,
}

impl<F: FnOnce() -> R, R> Slot<F, R> {
    fn new(work: F) -> Slot<F, R> {
        Slot {
            work: UnsafeCell::new(Some(work)),
            result: UnsafeCell::new(None),
            parent: getpid(),
            begun: AtomicBool::new(false),
            done: AtomicBool::new(false),
        }
    }

    /// What the work returned or panicked with. Called when the helper has ended.
    fn outcome(&self) -> Option<Result<R, Box<dyn Any + Send>>> {
        if !self.done.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: the helper wrote the result before it set `done`, which is its last use of the
        // slot.
        unsafe { (*self.result.get()).take() }
    }

    /// Runs work that no helper has begun.
    fn run_here(self) -> R {
        match self.work.into_inner() {
            Some(work) => work(),
            // Only a helper that has begun takes the work, and then `guarded` has returned before.
            None => std::process::abort(),
        }
    }
}

/// The function that the helper runs, with a pointer to its [`Slot`]. The process ends when it
/// returns.
extern "C" fn helper<F: FnOnce() -> R, R>(slot: *mut c_void) -> c_int {
    // SAFETY: `run` passes its slot, which lives until the helper has ended, or was killed at a
    // point from which it does not return here. Meanwhile the caller uses only the atomics of it.
    let slot = unsafe { &*slot.cast::<Slot<F, R>>() };
    // If the parent ended before this call, no signal comes. Then nothing waits for an answer.
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() || getppid() != Some(slot.parent) {
        return 0;
    }
    // SAFETY: as above; once a helper runs, only it takes the work.
    let Some(work) = (unsafe { (*slot.work.get()).take() }) else { return 0 };
    slot.begun.store(true, Ordering::Release);
    let own = number(getpid());
    lock(&OWN_PROCESSES).push(OwnProcess { pid: own, is_helper: true });
    // A panic can leave only the work's own data half done: it is `'static`, and the panic
    // continues in the caller.
    let result = catch_unwind(AssertUnwindSafe(work));
    forget_own(own);
    // SAFETY: as above; the caller reads it after `done`.
    unsafe { *slot.result.get() = Some(result) };
    slot.done.store(true, Ordering::Release);
    0
}

/// Starts a helper and waits for its end.
fn run<F: FnOnce() -> R, R>(limit: Duration, mark: &Mark, slot: &Slot<F, R>) -> Result<End, Errno> {
    if !RAW_CALLS {
        return Err(Errno::NOSYS);
    }
    let stack = Stack::new()?;
    let own = number(slot.parent);
    let caught = caught_signals();
    lock(&OWN_PROCESSES).push(OwnProcess { pid: own, is_helper: false });
    let before = set_blocked(u64::MAX);
    let started = start(helper::<F, R>, stack.top(), ptr::from_ref(slot).cast_mut().cast());
    let end = started.map(|(pidfd, pid)| {
        // From here on the helper uses this thread's storage. The code below must not allocate,
        // lock, panic or set `errno`.
        set_blocked(before | caught);
        (watch::until_end(pidfd.as_fd(), pid, mark, limit), pidfd, pid)
    });
    set_blocked(before);
    forget_own(own);
    let (end, pidfd, pid) = end?;
    if let End::Stuck(stuck) = end {
        if stuck.left_behind {
            // The kernel may still write to its stack.
            std::mem::forget(stack);
            lock(&LEFT_BEHIND).push((pidfd, pid));
        } else {
            forget_own(number(pid));
        }
    }
    Ok(end)
}

/// Makes the helper. Returns its pidfd and its pid.
fn start(
    entry: extern "C" fn(*mut c_void) -> c_int,
    stack: *mut c_void,
    argument: *mut c_void,
) -> Result<(OwnedFd, TaskId), Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS | libc::CLONE_PIDFD;
    let mut pidfd: RawFd = -1;
    // SAFETY: the helper runs `entry` on a stack of its own that nothing else uses and that
    // outlives it. It shares memory and thread-local storage with this thread, which does not touch
    // either until the helper has ended. All signals are blocked, so no handler runs in it. The
    // kernel writes the pidfd (CLONE_PIDFD) before the helper runs.
    let pid = unsafe { libc::clone(entry, stack, flags, argument, ptr::from_mut(&mut pidfd)) };
    let Some(task) = TaskId::from_raw(pid.max(0)) else {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS));
    };
    // SAFETY: the kernel has just made this fd for us. Kernels before 5.2 (commit b3e583825266)
    // ignore the flag and make no pidfd, so the helper's end could not be waited for. The fd is
    // then -1, which an OwnedFd must not hold.
    let pidfd = if pidfd >= 0 { unsafe { OwnedFd::from_raw_fd(pidfd) } } else { return wait_without(task) };
    Ok((pidfd, task))
}

/// For a kernel that made no pidfd: waits for the helper's end without a deadline, so the work is
/// done once.
fn wait_without(pid: TaskId) -> Result<(OwnedFd, TaskId), Errno> {
    watch::reap_ended(pid);
    Err(Errno::NOSYS)
}

/// The signals for which this program has a handler, as a mask.
fn caught_signals() -> u64 {
    let mut caught = 0;
    for signal in 1..=64 {
        // The kernel's sigaction begins with the handler. It has at most 32 bytes on every
        // architecture of `RAW_CALLS`.
        let mut action = [0_usize; 8];
        let into = action.as_mut_ptr();
        // SAFETY: the kernel writes one sigaction and reads none. libc's function would refuse the
        // two signals that libc uses itself.
        let got = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, ptr::null::<c_void>(), into, 8) };
        if got == 0 && action[0] != libc::SIG_DFL && action[0] != libc::SIG_IGN {
            caught |= 1 << (signal - 1);
        }
    }
    caught
}

/// Blocks exactly these signals in this thread. Returns those that were blocked before.
fn set_blocked(mask: u64) -> u64 {
    let mut before = 0_u64;
    let (from, into) = (ptr::from_ref(&mask), ptr::from_mut(&mut before));
    // SAFETY: the kernel reads 8 bytes, the size of its signal set, and writes 8. It cannot fail,
    // so `errno` is not set. libc's function would leave out the two signals that libc uses itself.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, from, into, 8) };
    before
}

/// A helper's stack, with a guard page below it.
struct Stack {
    start: *mut c_void,
    len: usize,
}

impl Stack {
    fn new() -> Result<Stack, Errno> {
        let len = STACK + page_size();
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
        // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
        let stack = Stack { start, len };
        // SAFETY: the lowest page of a mapping that nothing uses yet.
        unsafe { mprotect(start, page_size(), MprotectFlags::empty()) }?;
        Ok(stack)
    }

    /// The first address after it. Stacks grow down.
    fn top(&self) -> *mut c_void {
        self.start.wrapping_byte_add(self.len)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the helper has ended or never ran. What was left on its stack is leaked, and
        // nothing else points there. A failure leaves it mapped until the process ends; nothing can
        // be done about it.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

impl EndStatus {
    /// Ends this process as the helper ended.
    fn follow(self) -> ! {
        match self {
            EndStatus::Exited(status) => {
                // SAFETY: it ends the process at once; what runs at exit has run in the helper.
                unsafe { libc::_exit(status) }
            }
            EndStatus::Killed(signal) => {
                if let Some(signal) = Signal::from_named_raw(signal) {
                    let _ = kill_process(getpid(), signal);
                }
                std::process::abort()
            }
            EndStatus::Unknown => std::process::abort(),
        }
    }
}
