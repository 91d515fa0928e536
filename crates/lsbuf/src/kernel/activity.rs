//! What each task has done between two looks: how long it was on a processor
//! (`/proc/P/task/T/schedstat`), and which system call it is in (`/proc/P/task/T/syscall`).
//!
//! A task whose processor time has not grown has run no code, so it has opened, closed and mapped
//! nothing. But a task that sleeps in a system call may hold references that no table shows, for
//! example to files in a message that it is sending ([`keeps_references`]).
//!
//! Limits: `schedstat` needs CONFIG_SCHED_INFO. `syscall` needs CONFIG_HAVE_ARCH_TRACEHOOK and the
//! right to trace the task. The processor time is exact only while the task is on no processor;
//! `syscall` says whether it is on one.

use rustix::io::{Errno, Result};
use rustix::path::DecInt;

use super::parse::{Malformed, number, number32};
use super::path::Path;
use super::read;
use super::root::ProcRoot;
use super::task;
use super::tree::Folder;
use crate::model::{Pid, Tid};

/// Initial size of the buffer for one file of a task, in bytes.
const ROOM: usize = 512;

/// One look at one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) tid: Tid,
    pub(crate) pid: Pid,
    /// How long it has been on a processor since its start, in nanoseconds.
    pub(crate) ran: Ran,
    pub(crate) doing: Doing,
}

/// How much a task has run. It has not run between two looks if both numbers are equal.
///
/// The time alone is not enough: where the kernel does not trust the processor's time-stamp
/// counter, its clock can stand still until the next timer tick (`sched_clock_local` in
/// kernel/sched/clock.c). A task that runs meanwhile has run for no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Nanoseconds on a processor.
    pub(crate) runtime: u64,
    /// How often it got a processor, or how often it left one. It goes up by one each time.
    pub(crate) turns: u64,
}

/// What a task is doing at the moment of the look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Not read, or not readable.
    Unknown,
    /// It is on a processor or waits for one.
    Running,
    /// It is in the system call with this number, or this was the last one that it was in.
    Call(i32),
    /// It has begun to exit, and may still hold references.
    Exiting,
    /// It holds no reference outside its tables: it has ended, runs its own code, or works for the
    /// kernel.
    Nothing,
}

/// Looks at every task of a process. The system calls are read only if `calls` is set.
pub(crate) fn of_process(root: &ProcRoot, pid: Pid, calls: bool, found: &mut Vec<Activity>) -> Result<()> {
    let mut text = Vec::with_capacity(ROOM);
    if !root.tree().may_have_threads(root.dir(), Path::new(format_args!("{pid}/task")).as_str())? {
        let folder = Path::new(format_args!("{pid}/"));
        found.push(of_task(root.dir(), folder.as_str(), (pid, Tid(pid.0)), calls, &mut text)?);
        return Ok(());
    }
    let mut tids = Vec::new();
    let dir = root.dir().folder(DecInt::new(pid.0))?;
    let tasks = dir.folder(c"task")?;
    read::entries(tasks.fd(), |name, _| {
        tids.extend(number32(name.to_bytes(), 10).ok().map(Tid));
        Ok(())
    })?;
    for tid in tids {
        let folder = Path::new(format_args!("task/{tid}/"));
        match of_task(&dir, folder.as_str(), (pid, tid), calls, &mut text) {
            Ok(task) => found.push(task),
            // It has ended.
            Err(Errno::NOENT | Errno::SRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn of_task(
    dir: &Folder,
    folder: &str,
    (pid, tid): (Pid, Tid),
    calls: bool,
    text: &mut Vec<u8>,
) -> Result<Activity> {
    // The time is read last: for a task that is on no processor at the first read, it then has all
    // that the task ran before. In the other order, a task that leaves its processor between the
    // two reads would show an old time and not be running.
    let doing = if calls { doing_of(dir, folder, text) } else { Doing::Unknown };
    dir.read_record(Path::new(format_args!("{folder}schedstat")).as_str(), text)?;
    let ran = ran(text).map_err(|Malformed| Errno::BADMSG)?;
    Ok(Activity { tid, pid, ran, doing })
}

/// What one task is doing.
pub(crate) fn doing(root: &ProcRoot, pid: Pid, tid: Tid) -> Doing {
    let mut text = Vec::with_capacity(ROOM);
    doing_of(root.dir(), Path::new(format_args!("{pid}/task/{tid}/")).as_str(), &mut text)
}

fn doing_of(dir: &Folder, folder: &str, text: &mut Vec<u8>) -> Doing {
    match dir.read_record(Path::new(format_args!("{folder}syscall")).as_str(), text) {
        Ok(()) => match parse_doing(text).unwrap_or(Doing::Unknown) {
            Doing::Call(call) if keeps_references(call) && is_stopped(dir, folder, text) => Doing::Nothing,
            doing => doing,
        },
        Err(Errno::NOENT | Errno::SRCH) => Doing::Nothing,
        Err(_) => Doing::Unknown,
    }
}

/// Processes with a task that sleeps in a system call that changes mappings. Such a call locks the
/// address space and may keep it locked.
pub(crate) fn changing_mappings(root: &ProcRoot) -> Vec<Pid> {
    let (mut tasks, mut pids) = (Vec::new(), Vec::new());
    for (pid, _) in root.processes().unwrap_or_default() {
        tasks.clear();
        let changes = |task: &Activity| matches!(task.doing, Doing::Call(call) if changes_mappings(call));
        if of_process(root, pid, true, &mut tasks).is_ok() && tasks.iter().any(changes) {
            pids.push(pid);
        }
    }
    pids
}

fn changes_mappings(call: i32) -> bool {
    const CALLS: &[i64] = &[
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_mprotect,
        libc::SYS_pkey_mprotect,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_remap_file_pages,
        libc::SYS_shmat,
        libc::SYS_shmdt,
    ];
    CALLS.contains(&call.into())
}

/// Whether a task is stopped or traced. It is then on its way into a system call or out of one,
/// never in the middle.
fn is_stopped(dir: &Folder, folder: &str, text: &mut Vec<u8>) -> bool {
    dir.read_record(Path::new(format_args!("{folder}stat")).as_str(), text).is_ok() && task::is_stopped(text)
}

/// Reads a schedstat: time on a processor, time of waiting for one, and turns (`proc_pid_schedstat`
/// in fs/proc/base.c).
pub(crate) fn ran(schedstat: &[u8]) -> std::result::Result<Ran, Malformed> {
    let mut numbers = schedstat.trim_ascii().split(|&b| b == b' ');
    let mut next = || number(numbers.next().ok_or(Malformed)?, 10);
    let (runtime, _waited, turns) = (next()?, next()?, next()?);
    Ok(Ran { runtime, turns })
}

/// Parses the line of `syscall` (`proc_pid_syscall` in fs/proc/base.c).
pub(crate) fn parse_doing(line: &[u8]) -> std::result::Result<Doing, Malformed> {
    match line.trim_ascii().split(|&b| b == b' ').next().ok_or(Malformed)? {
        b"running" => Ok(Doing::Running),
        b"-1" => Ok(Doing::Nothing),
        call => number32(call, 10)?.try_into().map(Doing::Call).map_err(|_| Malformed),
    }
}

/// Whether a task in that system call may hold references to buffers that are in no listed fd table
/// or address space and in no queue: those of a child that is not listed yet, of a program that
/// does not run yet, or of a message that waits to be sent.
///
/// The list includes the numbers that 32-bit programs use for these calls. In a 64-bit program the
/// same numbers mean other calls, which hardly ever sleep.
pub(crate) fn keeps_references(call: i32) -> bool {
    const CALLS: &[i64] = &[
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_unshare,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
    ];
    #[cfg(target_arch = "x86_64")]
    const OTHERS: &[i64] = &[libc::SYS_fork, libc::SYS_vfork, 2, 11, 102, 120, 190, 310, 345, 358, 370];
    #[cfg(target_arch = "aarch64")]
    const OTHERS: &[i64] = &[2, 11, 120, 190, 296, 337, 374, 387];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    const OTHERS: &[i64] = &[];
    /// The bit that marks a system call of an x32 program.
    const X32: i32 = 1 << 30;
    let call = i64::from(call & !X32);
    CALLS.contains(&call) || OTHERS.contains(&call)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that each form of the line is recognised.
    #[test]
    fn lines_of_syscall() {
        assert_eq!(parse_doing(b"running\n"), Ok(Doing::Running));
        assert_eq!(parse_doing(b"-1 0x7ffe 0x7f00\n"), Ok(Doing::Nothing));
        assert_eq!(parse_doing(b"435 0x7ffe 0x58 0x0 0x0 0x0 0x0 0x7ffe 0x7f00\n"), Ok(Doing::Call(435)));
        assert_eq!(parse_doing(b"clone 1"), Err(Malformed));
        assert_eq!(ran(b"15236789 1204 17\n"), Ok(Ran { runtime: 15_236_789, turns: 17 }));
        assert_eq!(ran(b"15236789 1204\n"), Err(Malformed));
    }

    /// Check that calls that fork, execute or send are told apart from calls that only wait.
    #[test]
    fn forks_keep_references() {
        let keeps = |call: i64| keeps_references(i32::try_from(call).unwrap());
        assert!(keeps(libc::SYS_clone3) && keeps(libc::SYS_execve) && keeps(libc::SYS_sendmsg));
        assert!(!keeps(libc::SYS_read) && !keeps(libc::SYS_futex) && !keeps(libc::SYS_ppoll));
    }

    /// Check that two looks at a sleeping child give the same time and the call that it sleeps in,
    /// and that a process that works has processor time.
    #[test]
    fn a_sleeper_and_a_worker() {
        let root = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let look = |pid: u32| {
            let mut found = Vec::new();
            of_process(&root, Pid(pid), true, &mut found).unwrap();
            found[0]
        };
        let mut sleeper = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let asleep = |seen: Activity| {
            seen.doing == Doing::Call(libc::SYS_clock_nanosleep as i32)
                || seen.doing == Doing::Call(libc::SYS_nanosleep as i32)
        };
        while !asleep(look(sleeper.id())) {
            std::thread::yield_now();
        }
        assert_eq!(look(sleeper.id()), look(sleeper.id()));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let own = look(std::process::id());
        assert!(own.ran.runtime > 0 && own.ran.turns > 0);
    }

    proptest! {
        /// Check that no bytes make a parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = (ran(&text), parse_doing(&text));
        }
    }
}
