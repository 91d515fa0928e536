//! What the cases share: programs that differ only in their command line, and the lines that lsbuf
//! prints.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustix::thread::{UnshareFlags, set_name};

use crate::answer::LSBUF;
use crate::programs::WAIT;
use crate::scenarios::shmem::kit::hold_on;
use crate::scenarios::shmem::kit::mount_tmpfs;
use crate::sys::{self, task};

/// The folder of the links by which this binary runs under other names.
const NAMES: &str = "/tmp/cases";

/// A program that holds what it was started with and waits. Dropping this kills it.
pub(super) struct Program(Child);

impl Program {
    /// Runs this binary under the command name `comm`, with one more argument. It holds these fds
    /// until it ends, under the numbers that they have here.
    pub(super) fn start(comm: &str, argument: &str, fds: &[BorrowedFd<'_>]) -> anyhow::Result<Program> {
        fs::create_dir_all(NAMES)?;
        let path = format!("{NAMES}/{comm}");
        if !fs::exists(&path)? {
            symlink(fs::read_link("/proc/self/exe")?, &path).context("giving a program a name")?;
        }
        for fd in fds {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        let child = Command::new(&path)
            .arg0(comm)
            .args([WAIT, argument])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        for fd in fds {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        let mut program = Program(child.with_context(|| format!("running {path}"))?);
        let mut said = String::new();
        BufReader::new(program.0.stdout.take().context("no pipe")?).read_line(&mut said)?;
        ensure!(said == "waiting\n", "the program said {said:?}");
        Ok(program)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Limits how many fds it may have open.
    pub(super) fn limit_fds(&self, limit: u64) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.pid().cast_signed());
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        prlimit(pid, Resource::Nofile, limit).context("setting a limit")?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already. Afterwards it is gone in any case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same fds, borrowed.
pub(super) fn borrowed(fds: &[impl AsFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}

/// Forks a process with the command name `comm` that keeps what it inherited, and outlives its
/// parent. The caller's process must have no other thread.
pub(super) fn fork_heir(comm: &str) -> anyhow::Result<u32> {
    let name = std::ffi::CString::new(comm)?;
    let pid = sys::fork(move || if set_name(&name).is_ok() { hold_on() } else { 1 })?;
    while fs::read_to_string(format!("/proc/{pid}/comm"))?.trim_end() != comm {
        std::thread::yield_now();
    }
    Ok(pid)
}

/// Gives the calling process an empty `/dev/shm` that others do not see.
pub(super) fn own_dev_shm() -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/dev/shm")
}

/// The lines that lsbuf prints, with one blank where it aligns columns by several. Blanks separate
/// the arguments.
pub(super) fn lines(arguments: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new(LSBUF).args(arguments.split(' ')).output().context("running lsbuf")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "lsbuf {arguments}: {}: {errors}", output.status);
    let text = String::from_utf8(output.stdout).context("output that is not UTF-8")?;
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(text.lines().map(squeeze).collect())
}

/// The line of a list whose first column is this number.
pub(super) fn row(lines: &[String], number: impl std::fmt::Display) -> String {
    let start = format!("{number} ");
    let found = lines.iter().find(|line| line.starts_with(&start));
    found.cloned().unwrap_or_else(|| format!("no row of {number} in {lines:?}"))
}

/// The lines of `lsbuf show` that begin so.
pub(super) fn beginning(lines: &[String], start: &str) -> String {
    let found: Vec<&str> = lines.iter().map(String::as_str).filter(|line| line.starts_with(start)).collect();
    if found.is_empty() { format!("no such line in {lines:?}") } else { found.join("; ") }
}
