//! Tasks that share what tasks of their kind usually do not share, or the other way round.
//!
//! The kernel knows only tasks. The flags of `clone` decide whether they share the fd table, the
//! address space and the process id. Threads share all three and forked processes none. But some
//! programs mix them: sandboxes, language runtimes, `vfork`. Libraries offer no such mixtures, so
//! this module makes the system calls itself.

use std::io::{Error, ErrorKind};
use std::ptr;
use std::sync::atomic::AtomicI32;

use anyhow::{Context, bail};
use rustix::thread::{CpuSet, UnshareFlags, sched_setaffinity, unshare_unsafe};

/// Bytes of the stack of a task that does nothing.
const STACK: usize = 64 << 10;

/// Moves this process into new namespaces. A new pid namespace begins with its next child.
///
/// # Errors
///
/// The kernel refuses, or `namespaces` asks for something that is not a namespace.
pub fn enter_new(namespaces: UnshareFlags) -> anyhow::Result<()> {
    if namespaces.contains(UnshareFlags::FILES) {
        bail!("an fd table is no namespace");
    }
    // SAFETY: the function is unsafe because of fd tables, which stay as they are.
    unsafe { unshare_unsafe(namespaces) }.context("unsharing namespaces")
}

/// Keeps the calling thread, and the processes that it will start, on the first CPU.
///
/// # Errors
///
/// The kernel refuses.
pub fn stay_on_one_cpu() -> anyhow::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0);
    sched_setaffinity(None, &cpus).context("staying on one CPU")
}

/// Gives the calling thread its own fd table, a copy of the shared one, and runs `then`. The thread
/// keeps the copy until it ends.
///
/// # Errors
///
/// The kernel refuses, or `then` fails.
pub fn with_own_fds<T>(then: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    // SAFETY: every fd that is open now is in both tables under its number, so the fds that `then`
    // borrows stay valid as long as their owners keep them. The callers in this crate keep the fds
    // that `then` opens in this thread until it is killed.
    unsafe { unshare_unsafe(UnshareFlags::FILES) }.context("unsharing the fd table")?;
    then()
}

/// Gives the calling thread its own fd table and a network namespace. The kernel copies the table
/// first and then spends a while on the namespace. For that time no task refers to the copy.
///
/// # Errors
///
/// The kernel refuses.
pub fn unshare_fds_slowly() -> anyhow::Result<()> {
    // SAFETY: as in `with_own_fds`: the open fds stay open under their numbers in both tables.
    unsafe { unshare_unsafe(UnshareFlags::FILES | UnshareFlags::NEWNET) }.context("unsharing")
}

/// Continues the script in a child: forks, and ends this process. Only the child returns.
///
/// # Errors
///
/// The kernel refuses to fork.
pub fn hand_over() -> anyhow::Result<()> {
    // SAFETY: as in `fork`: the processes that fork here have one thread.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os_error()).context("forking"),
        0 => Ok(()),
        // SAFETY: always sound. `_exit`, because exit handlers must not run in each process of a
        // chain.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Ends only the calling thread, without unwinding. If it is the first thread of a process with
/// others, a zombie remains and the process lives on.
pub fn end_thread() -> ! {
    // SAFETY: no destructor runs and the stack stays mapped, so what other threads borrow from it
    // stays valid.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    pause_forever()
}

/// Starts a process that has a copy of this one's memory, shares its fd table, and does nothing.
///
/// # Errors
///
/// The kernel refuses.
pub fn fork_sharing_fds() -> anyhow::Result<u32> {
    fork_with(libc::CLONE_FILES, pause_forever)
}

/// Forks into a new network namespace. The kernel has then copied everything else, and spends a
/// while on the namespace. The child ends at once.
///
/// # Errors
///
/// The kernel refuses.
pub fn fork_slowly() -> anyhow::Result<u32> {
    // SAFETY: always sound. `_exit`, because the parent's exit handlers must not run twice.
    fork_with(libc::CLONE_NEWNET, || unsafe { libc::_exit(0) })
}

/// A fork with these flags, which must leave the child its own memory.
fn fork_with(flags: libc::c_int, child: fn() -> !) -> anyhow::Result<u32> {
    // SAFETY: without CLONE_VM and without a stack it is a fork, and the child only pauses or ends.
    match unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) } {
        0 => child(),
        pid => started(pid),
    }
}

/// Starts a process that shares this one's memory, has a copy of its fd table, and does nothing.
///
/// # Errors
///
/// The kernel refuses.
pub fn fork_sharing_memory() -> anyhow::Result<u32> {
    spawn_idle(libc::CLONE_VM, &AtomicI32::new(0))
}

/// Does what `vfork` does, with a child that never continues: the calling thread waits until the
/// child is killed. The child's id is stored in `child` before that.
///
/// # Errors
///
/// The kernel refuses.
pub fn vfork_forever(child: &AtomicI32) -> anyhow::Result<()> {
    spawn_idle(libc::CLONE_VM | libc::CLONE_VFORK, child).map(drop)
}

fn spawn_idle(flags: libc::c_int, child: &AtomicI32) -> anyhow::Result<u32> {
    // The child uses the stack as long as it lives, which is longer than this call.
    let stack = Box::leak(vec![0_u128; STACK / size_of::<u128>()].into_boxed_slice());
    let flags = flags | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: only the child uses the stack, which begins at its aligned end. The child shares this
    // thread's thread-local storage but never touches it: it pauses, which never returns without
    // signal handlers. Only the kernel stores to `child`, before the child runs.
    let pid = unsafe { libc::clone(idle, top.cast(), flags, ptr::null_mut(), child.as_ptr()) };
    started(pid.into())
}

extern "C" fn idle(_: *mut libc::c_void) -> libc::c_int {
    pause_forever()
}

/// Does nothing until the process is killed.
pub(super) fn pause_forever() -> ! {
    loop {
        // SAFETY: always sound.
        unsafe { libc::pause() };
    }
}

/// Forks a child with process id `pid`, if that id is free. The child runs `script` and exits with
/// its value as status. Returns `false`, and makes no child, if the id is taken.
///
/// # Errors
///
/// The kernel refuses for another reason.
pub fn fork_as(pid: u32, script: impl FnOnce() -> i32) -> anyhow::Result<bool> {
    let wanted = libc::pid_t::try_from(pid)?;
    // SAFETY: a structure of zeros asks for nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    arguments.set_tid = (&raw const wanted).expose_provenance() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: as in `fork`: without shared memory and without a stack it is a fork, of a process
    // with one thread.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) } {
        -1 if Error::last_os_error().kind() == ErrorKind::AlreadyExists => Ok(false),
        0 => {
            let status = script();
            // SAFETY: as in `fork`.
            unsafe { libc::_exit(status) }
        }
        pid => started(pid).map(|_| true),
    }
}

/// What two tasks may share.
#[derive(Clone, Copy, Debug)]
pub enum TaskResource {
    /// The address space.
    Memory,
    /// The fd table.
    Files,
}

/// Whether two tasks share it.
///
/// # Errors
///
/// One of them has ended, or the kernel refuses.
pub fn share(one: u32, other: u32, what: TaskResource) -> anyhow::Result<bool> {
    // `enum kcmp_type` of include/uapi/linux/kcmp.h.
    let kind = match what {
        TaskResource::Memory => 1,
        TaskResource::Files => 2,
    };
    // SAFETY: only numbers are passed.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, kind, 0, 0) } {
        -1 => Err(Error::last_os_error()).context("comparing two tasks"),
        order => Ok(order == 0),
    }
}

/// The id of a task that was started, or why it was not started.
pub(super) fn started(pid: libc::c_long) -> anyhow::Result<u32> {
    u32::try_from(pid).map_err(|_| Error::last_os_error()).context("starting a task")
}
