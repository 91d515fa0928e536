//! Runs work that waits for strangers in a helper process that can be killed.
//!
//! Some reads of procfs and of BPF iterators wait for a lock of the process that is read. That process decides how long it
//! keeps the lock: an mmap of a file on a FUSE server that never answers keeps it for ever. Such a wait ends only by a fatal
//! signal. So [`guarded`] starts a helper, lets it do the work, and kills it if it waits too long.
//!
//! **What waits**, as seen in 6.1 and 6.18 of a process that maps such a file over a VMA of its own:
//!
//! | read | waits |
//! |---|---|
//! | `maps`, PROCMAP_QUERY, listing `map_files`, looking one of its links up | until a fatal signal |
//! | `smaps`, `smaps_rollup`, `numa_maps`, `cmdline`, `environ` | until a fatal signal |
//! | BPF iterator over VMAs | until a fatal signal |
//! | process_vm_readv(2) | even SIGKILL does not end it |
//! | opening `maps` or `mem`; `stat`, `statm`, `status`, `cgroup`, `syscall`, `schedstat`, `stack`, `comm`, `io`, `mountinfo`; links `exe`, `cwd`, `root`, `ns`; `fd`, `fdinfo` and `task` with what is in them; kcmp(2) | no |
//!
//! 6.18 reads `maps` and answers PROCMAP_QUERY by the locks of single VMAs, and waits only if one of them is locked, too. A plain
//! mmap locks none.
//!
//! **The helper.** It is a process of its own (it can be killed alone), but has the caller's memory, fd table and working
//! directory, and the calling thread's thread-local storage: clone(2) with CLONE_VM, CLONE_FILES and CLONE_FS, without
//! CLONE_SETTLS. The calling thread only waits meanwhile. So the work runs as if that thread did it: it may allocate, lock,
//! open fds, panic and start threads. This is what vfork(2) does, with a deadline. Every signal is blocked in the helper, and
//! the kernel sends none when it ends (exit signal 0), so nothing of an embedding program runs in it or hears of it. It dies
//! with its parent (PR_SET_PDEATHSIG).
//!
//! **When it may be killed.** Only inside a call that was marked ([`mark`]), which does nothing but system calls. The
//! helper is then not in the allocator, has no lock of lsbuf's memory half taken, and will run no code of ours again.
//! [`watch`] says how that is made sure. All that the work owned is leaked; `work` is `'static`, so nobody else can have
//! lent it anything to write to.
//!
//! **Limits.**
//! - Waits in calls that are not marked have no deadline. Threads that the work starts are not watched either, and nothing is
//!   killed while there are any; such a thread can call [`guarded`] itself.
//! - The work must keep no lock, and no borrow of a thread-local `RefCell`, over a marked call: if the helper is killed there,
//!   nobody gives it back.
//! - Inside the work, `getpid` is the helper's, and so is `/proc/self`, except for what is shared. [`own_pids`] lists both.
//! - Signals that the program has a handler for wait, in the calling thread, until the work has ended: the handler would share
//!   the thread-local storage with the helper. Others, such as a Ctrl-C that nobody catches, act at once.
//! - Somebody else's call that waits for children of any sort (`__WALL`) can take the helper's exit status. A helper that is
//!   stopped, to be looked at, makes the kernel send SIGCHLD as for any child that stops. Both do no harm here.
//! - Once helpers exist, changing this process's user with libc's `setuid` does not reach them.
//! - The helper is not registered for restartable sequences (rseq(2)), which the kernel offers to one task alone. A global
//!   allocator that needs them (TCMalloc's per-CPU caches) must not be used with it.
//! - procfs must be mounted at `/proc`, for the state of the helper. Without it nothing is killed.

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
pub(crate) use self::mark::{marked, next_entry, now_about, open_at, read, read_at, read_link_at, stat_at};
pub(crate) use self::watch::Stuck;
use self::watch::{End, EndStatus};
use crate::model::Pid;

/// What the work returned.
#[derive(Debug)]
pub(crate) struct Guarded<R> {
    /// Its value.
    pub(crate) value: R,
    /// Why it ran without a deadline, in the calling thread: no helper could be made.
    pub(crate) unguarded: Option<Errno>,
}

/// Whether rustix makes system calls itself here. libc's would set `errno`, which the waiting caller shares with the helper.
/// HiddenRefCounter (Android) the work runs in the calling thread.
const RAW_CALLS: bool = cfg!(all(
    target_os = "linux",
    target_endian = "little",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64", target_arch = "x86"),
));

/// Stack of a helper, in bytes.
const STACK: usize = 1 << 20;

/// Runs `work` in a helper. Gives up if it sleeps for `limit` inside one marked call, or [`watch::TOTAL`] times as long in
/// all of them together. Time on a processor, or waiting for one, does not count.
///
/// A panic of `work` goes on in the caller. If the helper ends in any other way that nobody asked for (an abort, a fault, a
/// signal from outside), the caller ends in the same way: memory that it shared may be half written.
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
        // Without an error, its parent was not who it should be: the caller makes children in another pid namespace.
        None => Ok(Guarded { value: slot.run_here(), unguarded: unguarded.or(Some(Errno::SRCH)) }),
    }
}

/// The processes that are lsbuf: this one, and helpers in its address space and fd table that exist now, with those
/// processes that wait for them. As this process's pid namespace numbers them, in no order.
pub(crate) fn own_pids() -> Vec<Pid> {
    let mut pids: Vec<Pid> = lock(&OWN).iter().map(|own| Pid(own.pid)).collect();
    let own = Pid(number(getpid()));
    if !pids.contains(&own) {
        pids.push(own);
    }
    pids
}

/// Those of them that are helpers.
pub(crate) fn helpers() -> Vec<Pid> {
    lock(&OWN).iter().filter(|own| own.helps).map(|own| Pid(own.pid)).collect()
}

/// One of the processes that are lsbuf.
struct Own {
    pid: u32,
    helps: bool,
}

/// Helpers and who waits for one; a process stands once for each thread of it that waits.
static OWN: Mutex<Vec<Own>> = Mutex::new(Vec::new());

/// Helpers that did not die yet, each by its pidfd and as its parent numbers it.
static LEFT_BEHIND: Mutex<Vec<(OwnedFd, TaskId)>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(task: TaskId) -> u32 {
    task.as_raw_pid().unsigned_abs()
}

fn forget_own(pid: u32) {
    let mut own = lock(&OWN);
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

/// What goes into the helper, and what comes out.
struct Slot<F, R> {
    work: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<std::thread::Result<R>>>,
    /// Who must be the helper's parent.
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

    /// What the work returned or panicked with, once the helper is gone.
    fn outcome(&self) -> Option<Result<R, Box<dyn Any + Send>>> {
        if !self.done.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: the helper wrote the result before it set `done`, which is its last use of the slot.
        unsafe { (*self.result.get()).take() }
    }

    /// Runs work that no helper has begun.
    fn run_here(self) -> R {
        match self.work.into_inner() {
            Some(work) => work(),
            // Only a helper that has begun takes the work, and `guarded` has then returned.
            None => std::process::abort(),
        }
    }
}

/// What the helper does, with a pointer to its [`Slot`]. The process ends when this returns.
extern "C" fn helper<F: FnOnce() -> R, R>(slot: *mut c_void) -> c_int {
    // SAFETY: `run` passes its slot, which lives until the helper has ended, or was killed at a point from which it does not
    // come back here. The caller touches nothing of it meanwhile but the atomics.
    let slot = unsafe { &*slot.cast::<Slot<F, R>>() };
    // If the parent ended before, no signal comes; then nobody waits for an answer.
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() || getppid() != Some(slot.parent) {
        return 0;
    }
    // SAFETY: as above; nobody else takes the work once a helper runs.
    let Some(work) = (unsafe { (*slot.work.get()).take() }) else { return 0 };
    slot.begun.store(true, Ordering::Release);
    let own = number(getpid());
    lock(&OWN).push(Own { pid: own, helps: true });
    // What a panic leaves half done is the panicking work's own: it is `'static`, and the panic goes on in the caller.
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
    lock(&OWN).push(Own { pid: own, helps: false });
    let before = set_blocked(u64::MAX);
    let started = start(helper::<F, R>, stack.top(), ptr::from_ref(slot).cast_mut().cast());
    let end = started.map(|(pidfd, pid)| {
        // From here on the helper uses this thread's storage. Nothing below may allocate, lock, panic or set `errno`.
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

/// Makes the helper: its pidfd, and its pid.
fn start(
    entry: extern "C" fn(*mut c_void) -> c_int,
    stack: *mut c_void,
    argument: *mut c_void,
) -> Result<(OwnedFd, TaskId), Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_FS | libc::CLONE_PIDFD;
    let mut pidfd: RawFd = -1;
    // SAFETY: the helper runs `entry` on a stack of its own that nothing else uses and that outlives it. It shares memory
    // and thread-local storage with this thread, which keeps its hands off both until the helper has ended. All signals
    // are blocked, so no handler runs in it. The kernel writes the pidfd (CLONE_PIDFD) before the helper runs.
    let pid = unsafe { libc::clone(entry, stack, flags, argument, ptr::from_mut(&mut pidfd)) };
    let Some(task) = TaskId::from_raw(pid.max(0)) else {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS));
    };
    // SAFETY: the kernel has just made this fd for us. Kernels before 5.2 ignore the flag and make none: the helper's end
    // could then not be waited for, and the fd is -1, which an OwnedFd must not hold.
    let pidfd = if pidfd >= 0 { unsafe { OwnedFd::from_raw_fd(pidfd) } } else { return wait_without(task) };
    Ok((pidfd, task))
}

/// A kernel that made no pidfd: this has no deadline, but the work is done once, and its end is waited for.
fn wait_without(pid: TaskId) -> Result<(OwnedFd, TaskId), Errno> {
    watch::reap_ended(pid);
    Err(Errno::NOSYS)
}

/// The signals that a handler of this program catches, as a mask.
fn caught_signals() -> u64 {
    let mut caught = 0;
    for signal in 1..=64 {
        // The kernel's sigaction begins with the handler and has at most 32 bytes, on every processor of `RAW_CALLS`.
        let mut action = [0_usize; 8];
        let into = action.as_mut_ptr();
        // SAFETY: the kernel writes one sigaction and reads none. libc's function would refuse its own two signals.
        let got = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, ptr::null::<c_void>(), into, 8) };
        if got == 0 && action[0] != libc::SIG_DFL && action[0] != libc::SIG_IGN {
            caught |= 1 << (signal - 1);
        }
    }
    caught
}

/// Blocks these signals, and no others, in this thread. Gives those that were blocked before.
fn set_blocked(mask: u64) -> u64 {
    let mut before = 0_u64;
    let (from, into) = (ptr::from_ref(&mask), ptr::from_mut(&mut before));
    // SAFETY: the kernel reads 8 bytes, its own size of a set, and writes 8. It cannot fail, and so does not set `errno`.
    // libc's function would leave its own two signals out.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, from, into, 8) };
    before
}

/// A helper's stack, above a page that must not be touched.
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

    /// The first address behind it: stacks grow down.
    fn top(&self) -> *mut c_void {
        self.start.wrapping_byte_add(self.len)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the helper has ended, or never ran; what it still had on its stack is leaked, and nothing else points there.
        // A failure leaves it mapped until the process ends; there is nobody to tell.
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
