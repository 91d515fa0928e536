//! Watches a helper, and kills it if it waits too long and can be killed safely.
//!
//! This runs in the thread that made the helper, while the helper uses that thread's storage. So
//! the code here must not allocate, lock, panic, or call a function that sets `errno`.
//!
//! Every [`LOOK`] the watcher checks how long the helper has slept inside marked calls. Past the
//! limit it does this:
//!
//! 1. It sends SIGSTOP. From then on the helper runs no code of its own, whether it is in a system
//!    call, in a page fault or preempted: the kernel handles signals before it returns to user
//!    space. SIGSTOP does not end a killable wait (state D). It does end an interruptible one, and
//!    the helper stops on its way out (state T).
//! 2. It waits until procfs shows state D or T. A helper that ran on another processor has then
//!    been interrupted.
//! 3. It reads the mark again, which cannot change any more. If the helper is in the same marked
//!    call as before, it sends SIGKILL. A marked call makes only system calls, so the memory that
//!    the helper leaves behind is consistent, and the kernel releases what the helper held in the
//!    kernel. If the helper is anywhere else, it sends SIGCONT. The kernel restarts most
//!    interrupted system calls; the others fail with EINTR (signal(7)).
//!
//! A helper with more than one thread is not killed: its other threads could be anywhere.

use std::fmt::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::pread;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use rustix::time::{ClockId, clock_gettime};

use super::mark::Mark;

/// The work waited too long and was killed. Everything that it owned is leaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// The process that was being read, if the marked call named one.
    pub(crate) pid: Option<crate::model::Pid>,
    /// The kernel has not ended the helper although it was killed. It stays in lsbuf's address
    /// space, runs no code, and ends as soon as its wait in the kernel does.
    pub(crate) left_behind: bool,
}

/// The time between two looks at the helper.
const LOOK: Duration = Duration::from_millis(50);

/// How many times the limit of one marked call a helper may sleep in all marked calls together.
pub(super) const TOTAL: u32 = 8;

/// How long to wait for a stop, in steps of [`STEP`].
const STEPS_TO_STOP: u32 = 20;

/// How long to wait for the end of a killed helper, in steps of [`STEP`].
const STEPS_TO_DIE: u32 = 200;

const STEP: Duration = Duration::from_millis(5);

/// `__WALL` of include/uapi/linux/wait.h: also wait for children that send no SIGCHLD.
const ANY_CHILD: WaitIdOptions = WaitIdOptions::from_bits_retain(0x4000_0000);

/// How a helper ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// By itself.
    Ended(EndStatus),
    /// lsbuf killed it.
    Stuck(Stuck),
}

/// How a process ended, as the kernel says.
#[derive(Clone, Copy, Debug)]
pub(super) enum EndStatus {
    /// exit(2), with that status.
    Exited(i32),
    /// By that signal.
    Killed(i32),
    /// Not known: other code has already waited for it.
    Unknown,
}

/// Waits until a helper has ended by itself or was killed.
pub(super) fn until_end(pidfd: BorrowedFd<'_>, pid: Pid, mark: &Mark, limit: Duration) -> End {
    let mut helper: Option<HelperFiles> = None;
    let mut sleep = Sleep::default();
    let mut last = None;
    loop {
        if ends_within(pidfd, LOOK) {
            return End::Ended(reap_ended(pid));
        }
        if helper.is_none() {
            helper = HelperFiles::open(pidfd);
        }
        let Some(helper) = &helper else { continue };
        let inside = mark.inside();
        let Some(look) = helper.look() else { continue };
        let slept = match last.replace(look) {
            // It was stopped from outside, for example by a debugger. That time does not count.
            _ if matches!(look.state, b'T' | b't') => Duration::ZERO,
            Some(before) => look.slept_since(&before),
            None => Duration::ZERO,
        };
        sleep.add(inside.map(|(call, _)| call), slept);
        let Some((call, about)) = inside else { continue };
        if !sleep.too_long(limit) || !matches!(look.state, b'D' | b'S') || look.threads != 1 {
            continue;
        }
        match kill(pidfd, pid, helper, mark, call) {
            Killed::Dead => return End::Stuck(Stuck { pid: about, left_behind: false }),
            Killed::Dying => return End::Stuck(Stuck { pid: about, left_behind: true }),
            Killed::Spared => sleep.in_call = Duration::ZERO,
            Killed::Ended => return End::Ended(reap_ended(pid)),
        }
    }
}

/// Whether a process has ended. If so, it is reaped.
pub(super) fn reap(pidfd: BorrowedFd<'_>, pid: Pid) -> bool {
    ends_within(pidfd, Duration::ZERO) && {
        reap_ended(pid);
        true
    }
}

/// How long a helper has slept in marked calls.
#[derive(Debug, Default)]
struct Sleep {
    call: Option<u64>,
    in_call: Duration,
    in_all: Duration,
}

impl Sleep {
    /// Adds one look: the marked call that the helper was in, and how long it slept since the look
    /// before.
    fn add(&mut self, call: Option<u64>, slept: Duration) {
        if call.is_some() {
            self.in_all += slept;
        }
        if call.is_some() && call == self.call {
            self.in_call += slept;
        } else {
            self.in_call = Duration::ZERO;
        }
        self.call = call;
    }

    fn too_long(&self, limit: Duration) -> bool {
        self.in_call >= limit || self.in_all >= limit.saturating_mul(TOTAL)
    }
}

/// The outcome of an attempt to kill a helper.
enum Killed {
    /// It has ended.
    Dead,
    /// It was killed, and the kernel has not ended it yet.
    Dying,
    /// It had left the call, or could not be stopped. It goes on.
    Spared,
    /// It had already ended by itself.
    Ended,
}

/// Kills a helper, if it can be stopped inside that call.
fn kill(pidfd: BorrowedFd<'_>, pid: Pid, helper: &HelperFiles, mark: &Mark, call: u64) -> Killed {
    if pidfd_send_signal(pidfd, Signal::STOP).is_err() {
        return if ends_within(pidfd, STEP) { Killed::Ended } else { Killed::Spared };
    }
    let mut stopped = false;
    for _ in 0..STEPS_TO_STOP {
        if ends_within(pidfd, STEP) {
            return Killed::Ended;
        }
        stopped = helper.look().is_some_and(|look| matches!(look.state, b'D' | b'T') && look.threads == 1);
        if stopped {
            break;
        }
    }
    if !stopped || mark.inside().is_none_or(|(now, _)| now != call) {
        // Sending a signal to our own child that has not ended does not fail.
        let _ = pidfd_send_signal(pidfd, Signal::CONT);
        return Killed::Spared;
    }
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
    for _ in 0..STEPS_TO_DIE {
        if ends_within(pidfd, STEP) {
            reap_ended(pid);
            return Killed::Dead;
        }
    }
    Killed::Dying
}

/// Whether a process ends within that time or has ended before. A signal to this thread may cut the
/// wait short.
fn ends_within(pidfd: BorrowedFd<'_>, time: Duration) -> bool {
    let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) as _ };
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&time)).is_ok_and(|ready| ready > 0)
}

/// Waits until a child has ended. Its pid cannot be reused before that. Waiting by pid works in
/// every kernel, by pidfd only since 5.4 (commit 3695eae5fee0). A pidfd of Linux 5.2 always polls
/// as ready; on that kernel this wait has no deadline.
pub(super) fn reap_ended(pid: Pid) -> EndStatus {
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | ANY_CHILD) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) | Ok(None) => return EndStatus::Unknown,
            Ok(Some(status)) => return EndStatus::from(&status),
        }
    }
}

impl From<&WaitIdStatus> for EndStatus {
    fn from(status: &WaitIdStatus) -> EndStatus {
        if let Some(status) = status.exit_status() {
            EndStatus::Exited(status)
        } else if let Some(signal) = status.terminating_signal() {
            EndStatus::Killed(signal)
        } else {
            EndStatus::Unknown
        }
    }
}

/// The files of procfs about a helper.
#[derive(Debug)]
struct HelperFiles {
    stat: OwnedFd,
    /// Only on kernels with CONFIG_SCHED_INFO.
    schedstat: Option<OwnedFd>,
}

impl HelperFiles {
    /// Opens the files. The fdinfo of the pidfd has the pid that this procfs gives the helper.
    fn open(pidfd: BorrowedFd<'_>) -> Option<HelperFiles> {
        use std::os::fd::AsRawFd;
        let fdinfo = open(format_args!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
        let mut text = [0; 512];
        let text = contents(&fdinfo, &mut text)?;
        let pid = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"Pid:"))?;
        let pid = decimal(pid.trim_ascii())?;
        let schedstat = open(format_args!("/proc/{pid}/schedstat"));
        Some(HelperFiles { stat: open(format_args!("/proc/{pid}/stat"))?, schedstat })
    }

    fn look(&self) -> Option<Look> {
        let mut text = [0; 1024];
        let mut look = Look::parse(contents(&self.stat, &mut text)?)?;
        if let Some(schedstat) = &self.schedstat {
            let mut text = [0; 128];
            look.active = contents(schedstat, &mut text).and_then(active).or(look.active);
        }
        Some(look)
    }
}

/// One look at a helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    when: Duration,
    /// The state letter in `/proc/P/stat`.
    state: u8,
    /// The number of its threads.
    threads: u64,
    /// Time on a processor and time waiting for one. `None`: the kernel does not say.
    active: Option<Duration>,
}

impl Look {
    /// Parses `/proc/P/stat`.
    fn parse(stat: &[u8]) -> Option<Look> {
        let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
        let mut fields = stat.get(after..)?.split(|&byte| byte == b' ').skip(1);
        let state = *fields.next()?.first()?;
        // Field 20 of proc_pid_stat(5); the state is field 3.
        let threads = decimal(fields.nth(16)?)?;
        let now = clock_gettime(ClockId::Monotonic);
        let when = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).ok()?);
        Some(Look { when, state, threads, active: None })
    }

    /// How long it slept since the earlier look, as far as is known. If the watcher itself did not
    /// run either (a machine that was paused), only a part of that time counts.
    fn slept_since(&self, before: &Look) -> Duration {
        let passed = self.when.saturating_sub(before.when).min(2 * LOOK);
        match (self.active, before.active) {
            (Some(now), Some(before)) => passed.saturating_sub(now.saturating_sub(before)),
            _ if self.state == b'R' => Duration::ZERO,
            _ => passed,
        }
    }
}

/// The sum of the first two numbers of `/proc/P/schedstat`: nanoseconds on a processor, and waiting
/// for one.
fn active(schedstat: &[u8]) -> Option<Duration> {
    let mut numbers = schedstat.split(|&byte| byte == b' ').map(decimal);
    Some(Duration::from_nanos(numbers.next()??.saturating_add(numbers.next()??)))
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let add = |number: u64, &byte: &u8| number.checked_mul(10)?.checked_add(digit(byte)?);
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, add))?
}

/// A path that is built on the stack, because nothing here may allocate.
struct StackPath {
    bytes: [u8; 64],
    len: usize,
}

impl Write for StackPath {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        // One byte is left for the NUL.
        let Some(into) = self.bytes.get_mut(self.len..end).filter(|_| end < 64) else {
            return Err(fmt::Error);
        };
        into.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

fn open(path: fmt::Arguments<'_>) -> Option<OwnedFd> {
    let mut text = StackPath { bytes: [0; 64], len: 0 };
    text.write_fmt(path).ok()?;
    let path = std::ffi::CStr::from_bytes_until_nul(&text.bytes).ok()?;
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}

fn contents<'a>(file: &OwnedFd, into: &'a mut [u8]) -> Option<&'a [u8]> {
    let read = pread(file, &mut *into, 0).ok()?;
    into.get(..read)
}
