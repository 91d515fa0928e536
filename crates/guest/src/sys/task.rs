//! Tasks that share, or do not share, what tasks of their kind usually do.
//!
//! The kernel knows one kind of task; fd table, address space and process id are shared or not as the caller of
//! `clone` likes. Threads share all three and forked processes none, but programs exist that mix: sandboxes, language
//! runtimes, `vfork`. Libraries offer no such mixtures, hence the raw calls.

use std::io::{Error, ErrorKind};
use std::ptr;
use std::sync::atomic::AtomicI32;

use anyhow::{Context, bail};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Bytes of the stack of a task that does nothing.
const STACK: usize = 64 << 10;

/// Gives this process namespaces of its own; a pid namespace begins with its next child.
///
/// # Errors
///
/// The kernel refuses, or something else than namespaces is asked for.
pub fn enter_new(namespaces: UnshareFlags) -> anyhow::Result<()> {
    if namespaces.contains(UnshareFlags::FILES) {
        bail!("an fd table is no namespace");
    }
    // SAFETY: the caution is about fd tables, which stay as they are.
    unsafe { unshare_unsafe(namespaces) }.context("unsharing namespaces")
}

/// Gives the calling thread an fd table of its own: a copy of the one that it shared until now. Runs `then` in it, and
/// ends the thread's use of the copy only with the thread.
///
/// # Errors
///
/// The kernel refuses, or `then` fails.
pub fn with_own_fds<T>(then: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    // SAFETY: every fd that exists now is in both tables under its number, so those that `then` borrowed stay valid as
    // long as their owners keep them. What `then` opens, the callers in this crate keep to the thread until it is killed.
    unsafe { unshare_unsafe(UnshareFlags::FILES) }.context("unsharing the fd table")?;
    then()
}

/// Gives the calling thread an fd table and a network namespace of its own. The kernel copies the table first and takes a while
/// over the namespace, so that for so long the copy is in nobody's hands.
///
/// # Errors
///
/// The kernel refuses.
pub fn unshare_fds_slowly() -> anyhow::Result<()> {
    // SAFETY: as in `with_own_fds`: what was open stays open under its number in both tables.
    unsafe { unshare_unsafe(UnshareFlags::FILES | UnshareFlags::NEWNET) }.context("unsharing")
}

/// Hands the rest of the script over to a child: forks, and ends this process. Only the child returns.
///
/// # Errors
///
/// The kernel refuses to fork.
pub fn hand_over() -> anyhow::Result<()> {
    // SAFETY: as in `fork`: the processes that fork here have one thread.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os_error()).context("forking"),
        0 => Ok(()),
        // SAFETY: always sound; and exit handlers must not run in each process of a chain.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Ends the calling thread alone, without unwinding. In the first thread of a process that has others it leaves a
/// zombie whose process lives on.
pub fn end_thread() -> ! {
    // SAFETY: no destructor runs and the stack stays mapped, so what other threads borrow from it stays valid.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    pause_forever()
}

/// Starts a process that has a copy of this one's memory but shares its fd table, and does nothing.
///
/// # Errors
///
/// The kernel refuses.
pub fn fork_sharing_fds() -> anyhow::Result<u32> {
    fork_with(libc::CLONE_FILES, pause_forever)
}

/// Forks into a network namespace of its own, which takes the kernel a while when it has copied everything else. The child ends
/// at once.
///
/// # Errors
///
/// The kernel refuses.
pub fn fork_slowly() -> anyhow::Result<u32> {
    // SAFETY: always sound; and the parent's exit handlers must not run a second time.
    fork_with(libc::CLONE_NEWNET, || unsafe { libc::_exit(0) })
}

/// A fork with those flags, which must leave the child a memory of its own.
fn fork_with(flags: libc::c_int, child: fn() -> !) -> anyhow::Result<u32> {
    // SAFETY: without CLONE_VM and with no stack given it is a fork, of which the child only pauses or ends.
    match unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) } {
        0 => child(),
        pid => started(pid),
    }
}

/// Starts a process that shares this one's memory but has a copy of its fd table, and does nothing.
///
/// # Errors
///
/// The kernel refuses.
pub fn fork_sharing_memory() -> anyhow::Result<u32> {
    spawn_idle(libc::CLONE_VM, &AtomicI32::new(0))
}

/// Does what `vfork` does, with a child that never goes on: the calling thread is held up until the child is killed. The
/// child's id is stored in `child` before that.
///
/// # Errors
///
/// The kernel refuses.
pub fn vfork_forever(child: &AtomicI32) -> anyhow::Result<()> {
    spawn_idle(libc::CLONE_VM | libc::CLONE_VFORK, child).map(drop)
}

fn spawn_idle(flags: libc::c_int, child: &AtomicI32) -> anyhow::Result<u32> {
    // The child uses it for as long as it lives, which is longer than this call.
    let stack = Box::leak(vec![0_u128; STACK / size_of::<u128>()].into_boxed_slice());
    let flags = flags | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is the child's alone and begins at its aligned end. The child shares this thread's thread-local
    // storage but touches none of it: it pauses, which without signal handlers never returns. `child` is stored to by
    // the kernel alone, before the child runs.
    let pid = unsafe { libc::clone(idle, top.cast(), flags, ptr::null_mut(), child.as_ptr()) };
    started(pid.into())
}

extern "C" fn idle(_: *mut libc::c_void) -> libc::c_int {
    pause_forever()
}

/// Does nothing until it is killed.
pub(super) fn pause_forever() -> ! {
    loop {
        // SAFETY: always sound.
        unsafe { libc::pause() };
    }
}

/// Forks a child with that process id, which nobody may have. In the child `script` runs and its value is the exit
/// status. Whether the id was free is said by the result: `false` is a child that was not made.
///
/// # Errors
///
/// The kernel refuses for another reason.
pub fn fork_as(pid: u32, script: impl FnOnce() -> i32) -> anyhow::Result<bool> {
    let wanted = libc::pid_t::try_from(pid)?;
    // SAFETY: all zero asks for nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    arguments.set_tid = (&raw const wanted).expose_provenance() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: as in `fork`: with neither memory nor stack given it is one, of a process with one thread.
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
pub enum Shared {
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
pub fn share(one: u32, other: u32, what: Shared) -> anyhow::Result<bool> {
    // `enum kcmp_type` of include/uapi/linux/kcmp.h.
    let kind = match what {
        Shared::Memory => 1,
        Shared::Files => 2,
    };
    // SAFETY: only numbers are passed.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, kind, 0, 0) } {
        -1 => Err(Error::last_os_error()).context("comparing two tasks"),
        order => Ok(order == 0),
    }
}

/// The id of a task that was started, or why it was not.
pub(super) fn started(pid: libc::c_long) -> anyhow::Result<u32> {
    u32::try_from(pid).map_err(|_| Error::last_os_error()).context("starting a task")
}
