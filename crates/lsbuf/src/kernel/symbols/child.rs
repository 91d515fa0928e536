//! Work on untrusted files in a process of its own, which has little and can do little: reading
//! their symbols here, and unwinding stacks by them in `kernel::unwind`.
//!
//! The files are not trusted, and a parser of ELF and DWARF has many ways to loop, to take all
//! memory, or to panic. Here it costs a child and no more. The child has the copies of the files
//! and a pipe, and no other fd. It has limits of time and memory, and if lsbuf is root, the child
//! is nobody. It writes each answer as it finds it. If it ends before the last one, the file that
//! it was at has no names, and another child goes on with the next file.
//!
//! **Why fork.** The child must not share memory with lsbuf, so it cannot be a helper of
//! [`guard`]. But [`ask`] runs in one: then the child is the helper's, and a program that embeds
//! lsbuf sees no child of its own and no SIGCHLD. The C library's fork leaves the allocator usable
//! in the child, also if other threads exist. The child uses no other lock of the program.
//!
//! Limits: before Linux 5.9 the child keeps its other fds until it ends, because close_range(2)
//! does not exist. The child has a copy of the caller's memory, so a fork takes longer the larger
//! the caller is.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, geteuid, getpid, getppid, kill_process,
    set_parent_process_death_signal, setrlimit, waitpid,
};

use super::answer::{self, Answer};
use super::name::functions;
use crate::kernel::read::retry;
use crate::model::Function;

/// What is asked about one file: copies of it, the better ones first, and addresses in it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) copies: Vec<OwnedFd>,
    pub(super) addresses: Vec<u64>,
}

/// How much more memory than its caller the child may map.
const MEMORY: u64 = 2 << 30;

/// The most bytes that a child may answer.
const MOST: usize = 64 << 20;

/// The user and group without rights, as the kernel has it for ids that cannot be shown.
const NOBODY: u32 = 65534;

/// How many times the limit of one answer all of them may take together.
const ALL: u32 = 4;

/// The functions at each address of each question, in that order. Empty: not known. Waits no longer
/// than `limit` for one answer, and [`ALL`] times as long for all.
pub(super) fn ask(questions: &[Question], limit: Duration) -> Vec<Vec<Vec<Function>>> {
    let mut answers: Vec<Vec<Vec<Function>>> = Vec::new();
    let end = Instant::now() + limit.saturating_mul(ALL);
    while answers.len() < questions.len() && Instant::now() < end {
        let left = &questions[answers.len()..];
        let Ok(mut got) = ask_one(left, limit, end) else { break };
        for question in left {
            let whole = got.len() >= question.addresses.len();
            let mut of_file: Vec<_> = got.drain(..question.addresses.len().min(got.len())).collect();
            of_file.resize(question.addresses.len(), Vec::new());
            answers.push(of_file);
            if !whole {
                break;
            }
        }
    }
    answers
        .extend(questions[answers.len()..].iter().map(|question| vec![Vec::new(); question.addresses.len()]));
    answers
}

/// Lets one child answer as much as it can.
fn ask_one(questions: &[Question], limit: Duration, end: Instant) -> Result<Vec<Vec<Function>>, Errno> {
    let keep = questions.iter().flat_map(|question| &question.copies).map(AsRawFd::as_raw_fd).collect();
    let bytes = run(keep, limit, end, |to| answer_all(questions, to))?;
    Ok(answer::all(&bytes))
}

/// Runs `work` in a child, which has these fds, and returns what it has written. Waits no longer
/// than `limit` for the next piece, and not beyond `end`.
pub(in crate::kernel) fn run(
    keep: Vec<RawFd>,
    limit: Duration,
    end: Instant,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
) -> Result<Vec<u8>, Errno> {
    let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
    let parent = getpid();
    // SAFETY: the child runs `work` and then exits; it returns to no other code. What it uses of
    // the program is the allocator, which the C library's fork keeps usable.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // The panic of a parser ends as the other faults do. There is nothing to say it to.
        let done = catch_unwind(AssertUnwindSafe(|| {
            if give_up_rights(keep, to.as_fd(), parent, limit)? { work(to.as_fd()) } else { Ok(()) }
        }));
        // SAFETY: ends this process at once, without the handlers of the program that it is a copy
        // of.
        unsafe { libc::_exit(i32::from(!matches!(done, Ok(Ok(()))))) }
    }
    let child = Pid::from_raw(child.max(0)).ok_or(Errno::AGAIN)?;
    drop(to);
    let bytes = read_until(from.as_fd(), limit, end);
    let _ = kill_process(child, Signal::KILL);
    let _ = retry(|| waitpid(Some(child), WaitOptions::empty()));
    Ok(bytes)
}

/// Reads to the end of the pipe, or until nothing came for `limit`, or until `end`.
fn read_until(from: BorrowedFd<'_>, limit: Duration, end: Instant) -> Vec<u8> {
    /// Room for a piece; no page size.
    const PIECE: usize = 64 << 10;
    let (mut bytes, mut piece) = (Vec::new(), vec![0; PIECE]);
    while bytes.len() < MOST {
        let left = end.saturating_duration_since(Instant::now()).min(limit);
        let Ok(time) = Timespec::try_from(left) else { break };
        let mut fds = [PollFd::from_borrowed_fd(from, PollFlags::IN)];
        match poll(&mut fds, Some(&time)) {
            Err(Errno::INTR) => continue,
            Ok(ready) if ready > 0 => {}
            _ => break,
        }
        match retry(|| read(from, &mut piece)) {
            Ok(0) | Err(_) => break,
            Ok(n) => bytes.extend_from_slice(&piece[..n]),
        }
    }
    bytes
}

/// What the child does first. `false`: its parent has exited.
fn give_up_rights(
    mut keep: Vec<RawFd>,
    to: BorrowedFd<'_>,
    parent: Pid,
    limit: Duration,
) -> Result<bool, Errno> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        return Ok(false);
    }
    keep.push(to.as_raw_fd());
    close_others(keep);
    forget_handlers();
    set_limits(limit)?;
    if geteuid().is_root() {
        become_nobody();
    }
    Ok(true)
}

/// Finds the functions, and writes each answer as it is found.
fn answer_all(questions: &[Question], to: BorrowedFd<'_>) -> Result<(), Errno> {
    for question in questions {
        for found in functions(&question.copies, &question.addresses) {
            write_all(to, &Answer(&found).to_bytes())?;
        }
    }
    Ok(())
}

/// Writes all of these bytes.
pub(in crate::kernel) fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let wrote = retry(|| write(to, bytes))?;
        bytes = bytes.get(wrote..).unwrap_or_default();
    }
    Ok(())
}

/// Closes every fd but these.
fn close_others(mut keep: Vec<RawFd>) {
    keep.sort_unstable();
    // Where the call below does not exist, at least nothing is printed.
    for fd in (0..3).filter(|fd| !keep.contains(fd)) {
        // SAFETY: as below.
        unsafe { libc::close(fd) };
    }
    let mut first: RawFd = 0;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if first < fd {
            // SAFETY: takes numbers only. The fds belong to the program that this process is a copy
            // of, and no code of it runs here that could use one.
            unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) };
        }
        first = fd.saturating_add(1);
    }
}

/// A fault ends the child, and calls no function of the program.
fn forget_handlers() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGABRT, libc::SIGILL, libc::SIGFPE] {
        // SAFETY: the default action needs no function.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Limits of memory and of time on a processor; no core dump.
fn set_limits(time: Duration) -> Result<(), Errno> {
    let has = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = has.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or_default();
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX);
    let memory = pages.saturating_mul(page).saturating_add(MEMORY);
    let seconds = time.saturating_mul(ALL).as_secs().saturating_add(1);
    for (resource, most) in [(Resource::As, memory), (Resource::Cpu, seconds), (Resource::Core, 0)] {
        // More than what is allowed already cannot be asked for.
        let allowed = rustix::process::getrlimit(resource).maximum;
        let most = Some(allowed.map_or(most, |allowed| allowed.min(most)));
        setrlimit(resource, Rlimit { current: most, maximum: most })?;
    }
    Ok(())
}

/// Gives up the rights of root. That fails in a user namespace without such a user, where root has
/// no rights outside either.
fn become_nobody() {
    let none = std::ptr::null::<libc::gid_t>();
    // SAFETY: plain system calls, of which one takes an empty list. libc's functions would signal
    // the threads of the program, which do not exist here.
    unsafe {
        libc::syscall(libc::SYS_setgroups, 0, none);
        libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY);
        libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY);
    }
}
