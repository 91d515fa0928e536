//! Measures what a run of a command takes: its time and CPU time, or its memory and system calls.
//! These are separate runs, because counting costs time.
//!
//! For memory `ru_maxrss` is useless, because it begins with the peak of the process that started
//! the program (`exec_mmap` of fs/exec.c carries it over). So the command is stopped where it exits
//! and `VmHWM` is read, which belongs to its own address space. The kernel's tracepoint counts the
//! system calls of all its threads.

use std::io::{Error, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, mem, ptr};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde::{Deserialize, Serialize};

/// The file with the number of the tracepoint that every system call passes.
const TRACEPOINT: &str = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id";

/// What one run took.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Taken {
    /// The time from start to end.
    pub wall: Duration,
    /// CPU time outside the kernel.
    pub user: Duration,
    /// CPU time in the kernel.
    pub kernel: Duration,
}

/// Runs a command until it ends and times it. The time includes starting it.
///
/// # Errors
///
/// It cannot be started or waited for, or it fails.
pub fn timed(command: &mut Command) -> anyhow::Result<Taken> {
    let begun = Instant::now();
    let child = command.spawn().context("starting")?;
    let (status, usage) = wait(libc::pid_t::try_from(child.id())?)?;
    let wall = begun.elapsed();
    if status != 0 {
        bail!("ended with wait status {status:#x}");
    }
    Ok(Taken { wall, user: duration(usage.ru_utime), kernel: duration(usage.ru_stime) })
}

/// The CPU time, so far, of this process and its ended children. Children count because another
/// process may do part of a scan.
///
/// # Errors
///
/// The kernel refuses, which it is not known to do.
pub fn own_cpu() -> anyhow::Result<(Duration, Duration)> {
    let (mut user, mut kernel) = (Duration::ZERO, Duration::ZERO);
    for who in [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN] {
        // SAFETY: all zero is a valid rusage, and getrusage fills it.
        let usage = unsafe {
            let mut usage: libc::rusage = mem::zeroed();
            if libc::getrusage(who, &raw mut usage) != 0 {
                return Err(Error::last_os_error()).context("asking for the CPU time");
            }
            usage
        };
        user += duration(usage.ru_utime);
        kernel += duration(usage.ru_stime);
    }
    Ok((user, kernel))
}

/// What a run tells that is made to look at memory and system calls.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The time and CPU time. It includes the stop at the exit and, if system calls are counted,
    /// the counting.
    pub taken: Taken,
    /// The peak of the resident set, in KiB.
    pub peak_kib: u64,
    /// The system calls after the exec, or why they were not counted.
    pub system_calls: Result<u64, String>,
}

/// Runs a command until it ends, but not longer than `limit`, and watches it.
///
/// # Errors
///
/// It cannot be started, traced or waited for, or it fails or takes too long.
pub fn watched(mut command: Command, limit: Duration) -> anyhow::Result<Watched> {
    let begun = Instant::now();
    let deadline = begun + limit;
    let counter = SystemCalls::of_children();
    // SAFETY: between fork and exec only one system call is made, which allocates nothing.
    unsafe { command.pre_exec(|| trace(libc::PTRACE_TRACEME, 0, 0)) };
    let pid = libc::pid_t::try_from(command.spawn().context("starting")?.id())?;
    let mut peak = None;
    let (status, _) = wait(pid)?;
    if !libc::WIFSTOPPED(status) {
        bail!("ended with wait status {status:#x} before its exec");
    }
    trace(libc::PTRACE_SETOPTIONS, pid, libc::PTRACE_O_TRACEEXIT | libc::PTRACE_O_EXITKILL)
        .context("asking for a stop at its exit")?;
    let (mut signal, mut killed) = (0, false);
    let (status, usage) = loop {
        trace(libc::PTRACE_CONT, pid, signal).context("letting it go on")?;
        while !killed && !has_changed(pid)? {
            if Instant::now() >= deadline {
                kill_process(Pid::from_raw(pid).context("no process")?, Signal::KILL)?;
                killed = true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let (status, usage) = wait(pid)?;
        if !libc::WIFSTOPPED(status) {
            break (status, usage);
        }
        signal = libc::WSTOPSIG(status);
        if status >> 16 == libc::PTRACE_EVENT_EXIT {
            peak = Some(high_water(pid.unsigned_abs())?);
            signal = 0;
        }
    };
    if killed {
        bail!("no answer within {} s", limit.as_secs());
    }
    if status != 0 {
        bail!("ended with wait status {status:#x}");
    }
    let (user, kernel) = (duration(usage.ru_utime), duration(usage.ru_stime));
    Ok(Watched {
        taken: Taken { wall: begun.elapsed(), user, kernel },
        peak_kib: peak.context("it did not stop where it exits")?,
        system_calls: counter.and_then(|counter| counter.read()),
    })
}

/// The peak of a process's resident set so far, in KiB.
///
/// # Errors
///
/// It has ended.
pub fn high_water(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("reading its status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("it has no memory")?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| format!("VmHWM is {line:?}"))
}

/// Whether the process has ended or stopped.
fn has_changed(pid: libc::pid_t) -> anyhow::Result<bool> {
    let child = WaitId::Pid(Pid::from_raw(pid).context("no process")?);
    let options =
        WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(child, options).context("waiting")?.is_some())
}

fn wait(pid: libc::pid_t) -> anyhow::Result<(libc::c_int, libc::rusage)> {
    let mut status = 0;
    // SAFETY: all zero is a valid rusage, and wait4 fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        if libc::wait4(pid, &raw mut status, 0, &raw mut usage) != pid {
            return Err(Error::last_os_error()).context("waiting");
        }
        usage
    };
    Ok((status, usage))
}

fn trace(request: libc::c_uint, pid: libc::pid_t, data: libc::c_int) -> Result<(), Error> {
    let data = ptr::without_provenance_mut::<libc::c_void>(data as usize);
    // SAFETY: none of the requests made here reads or writes memory of either process.
    let done = unsafe { libc::ptrace(request, pid, ptr::null_mut::<libc::c_void>(), data) };
    if done == -1 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_usec.unsigned_abs() as u32 * 1000)
}

/// A counter of the system calls of all threads.
#[derive(Debug)]
pub struct SystemCalls(Vec<OwnedFd>);

/// `struct perf_event_attr` of include/uapi/linux/perf_event.h in its first version.
#[derive(Debug, Default)]
#[repr(C)]
struct EventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
}

impl EventAttributes {
    const DISABLED: u64 = 1 << 0;
    const INHERIT: u64 = 1 << 1;
    /// The bit's place, no page size.
    const ENABLE_ON_EXEC: u64 = 1 << 12;
}

impl SystemCalls {
    /// Counts the system calls that this thread's children make after their exec.
    fn of_children() -> Result<SystemCalls, String> {
        let this_thread = 0;
        Ok(SystemCalls(vec![count(
            this_thread,
            EventAttributes::DISABLED | EventAttributes::INHERIT | EventAttributes::ENABLE_ON_EXEC,
        )?]))
    }

    /// Counts the system calls of a process from now on.
    ///
    /// # Errors
    ///
    /// Why they cannot be counted.
    pub fn of(pid: u32) -> Result<SystemCalls, String> {
        let path = format!("/proc/{pid}/task");
        let tasks = fs::read_dir(&path).map_err(|error| format!("{path}: {error}"))?;
        let tasks = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
        tasks.map(|task| count(task, EventAttributes::INHERIT)).collect::<Result<_, _>>().map(SystemCalls)
    }

    /// How many there were.
    ///
    /// # Errors
    ///
    /// Why the number is unknown.
    pub fn read(self) -> Result<u64, String> {
        let one = |counter| {
            let mut count = [0; 8];
            let read = fs::File::from(counter).read_exact(&mut count);
            read.map(|()| u64::from_ne_bytes(count)).map_err(|error| format!("reading a counter: {error}"))
        };
        self.0.into_iter().map(one).sum()
    }
}

/// Keeps the kernel from changing its own code between runs. The kernel does that when the first
/// event of a type is opened and when the last one is closed. Emulators have been seen to execute a
/// half-written jump in the scheduler at that moment, which ends the machine.
#[derive(Debug)]
pub struct EventHooks {
    _event: Option<OwnedFd>,
}

impl EventHooks {
    /// While this lives, the scheduler's hooks for events stay enabled. They cost one look at the
    /// task that is switched out.
    pub fn scheduler() -> EventHooks {
        const TYPE_SOFTWARE: u32 = 1;
        const DUMMY: u64 = 9;
        EventHooks { _event: open(TYPE_SOFTWARE, DUMMY, 0, EventAttributes::DISABLED).ok() }
    }

    /// While this lives, every system call of the machine passes the tracepoint, so nothing may be
    /// timed.
    pub fn tracepoint() -> EventHooks {
        EventHooks { _event: count(0, EventAttributes::DISABLED).ok() }
    }
}

/// Starts to count the system calls of one task.
fn count(task: libc::pid_t, flags: u64) -> Result<OwnedFd, String> {
    const TYPE_TRACEPOINT: u32 = 2;
    let id = fs::read_to_string(TRACEPOINT).map_err(|error| format!("{TRACEPOINT}: {error}"))?;
    let id = id.trim().parse().map_err(|error| format!("{TRACEPOINT}: {error}"))?;
    open(TYPE_TRACEPOINT, id, task, flags)
}

/// Opens an event of one task; task 0 is the calling thread.
fn open(kind: u32, config: u64, task: libc::pid_t, flags: u64) -> Result<OwnedFd, String> {
    const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;
    let size = size_of::<EventAttributes>() as u32;
    let attributes = EventAttributes { kind, size, config, flags, ..EventAttributes::default() };
    let (any_processor, no_group) = (-1, -1);
    // SAFETY: the kernel reads as many bytes of the attributes as their field `size` says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            task,
            any_processor,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just opened it, and nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(format!("perf_event_open: {}", Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Check that a command that does not end is killed at the limit.
    #[test]
    fn limits_are_kept() {
        let mut endless = Command::new("sleep");
        endless.arg("1000");
        let error = watched(endless, Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
    }

    /// Check that a command's peak is its own, even if the process that starts it is large.
    #[test]
    fn peak_is_its_own() {
        let large = vec![1_u8; 64 << 20];
        let watched = watched(Command::new("true"), LIMIT).unwrap();
        assert!((100..16 << 10).contains(&watched.peak_kib), "{watched:?}");
        drop(std::hint::black_box(large));
    }

    /// Check that a command that fails is not measured.
    #[test]
    fn failures_are_told() {
        assert!(watched(Command::new("false"), LIMIT).is_err());
        assert!(timed(&mut Command::new("false")).is_err());
    }
}
