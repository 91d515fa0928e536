//! Reaps and kills the processes that a test left behind.
//!
//! A leaked child that still holds a buffer would falsify every later scenario. The caller is
//! process 1, or it has made itself the subreaper. So all its orphaned descendants become its own
//! children. It never signals any other process, because a person may try a mode by hand on a
//! development machine.

use std::fs;

use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, set_child_subreaper, wait, waitpid,
};

/// Makes this process the parent of all its orphaned descendants.
///
/// # Errors
///
/// The kernel refuses.
pub fn adopt_orphans() -> anyhow::Result<()> {
    set_child_subreaper(Some(rustix::process::getpid())).context("becoming the subreaper")
}

/// Reaps one child that has ended, if there is one. Returns its process id and its exit status, or
/// 128 plus the number of the signal that ended it.
///
/// # Errors
///
/// This process has no child.
pub fn reap_one() -> anyhow::Result<Option<(u32, i32)>> {
    let ended = wait(WaitOptions::NOHANG).context("waiting for a child")?;
    Ok(ended.map(numbers))
}

fn numbers((pid, status): (Pid, WaitStatus)) -> (u32, i32) {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    (pid.as_raw_nonzero().get().unsigned_abs(), code.unwrap_or(-1))
}

/// Waits until a child ends, and returns what [`reap_one`] returns.
///
/// # Errors
///
/// This process has no child.
pub fn reap_next() -> anyhow::Result<(u32, i32)> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some(ended)) => return Ok(numbers(ended)),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for a child"),
        }
    }
}

/// Kills one child and waits for its end.
///
/// # Errors
///
/// There is no such child.
pub fn end_child(child: u32) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(child)?).context("no pid")?;
    kill_process(pid, Signal::KILL).context("killing a child")?;
    waitpid(Some(pid), WaitOptions::empty()).context("waiting for a child")?;
    Ok(())
}

/// Kills all children, and the orphans that become children by that, until none is left.
pub fn kill_children() {
    loop {
        for pid in children() {
            // It may have ended since it was listed.
            let _ = kill_process(pid, Signal::KILL);
        }
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// The live children of this process, from `/proc`.
fn children() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
            let stat = fs::read(entry.path().join("stat")).ok()?;
            (parent(&stat)? == own.as_raw_nonzero().get()).then_some(pid)
        })
        .collect()
}

/// The parent's process id in the bytes of a `/proc/PID/stat`.
///
/// The command name before it may contain anything, also parentheses and spaces, so it ends at the
/// last `)`.
pub(crate) fn parent(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a command name that looks like the fields after it does not mislead the parser.
    #[test]
    fn parent_survives_a_hostile_command_name() {
        assert_eq!(parent(b"12 (a) R 1 (b) S 7 12 12 0"), Some(7));
        assert_eq!(parent(b"12 (a"), None);
    }
}
