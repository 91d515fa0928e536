//! Who a process is: `/proc/P/stat`, `status` and `cgroup`.
//!
//! `/proc/P` is opened once and everything is read relative to it: when the process dies, reads fail
//! instead of reaching a newcomer with the same pid.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::path::DecInt;

use super::parse::{Garbled, number, number32};
use super::read;
use super::root::ProcRoot;
use crate::model::{Label, Pid, Process};

/// An open `/proc/P`.
#[derive(Debug)]
pub(crate) struct ProcessDir {
    pid: Pid,
    dir: OwnedFd,
}

impl ProcessDir {
    /// Opens the directory of a process.
    pub(crate) fn open(root: &ProcRoot, pid: Pid) -> Result<ProcessDir> {
        Ok(ProcessDir { pid, dir: read::open_dir(root.dir(), DecInt::new(pid.0))? })
    }

    /// The directory, for opening what lies below.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Whether it is a kernel thread; `false` if that cannot be read.
    pub(crate) fn is_kernel_thread(&self, text: &mut Vec<u8>) -> bool {
        read::record(&self.dir, c"stat", text).is_ok() && is_kernel_thread(text)
    }

    /// Its id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Reads who it is. `EBADMSG`: its `stat` cannot be understood.
    pub(crate) fn identify(&self, text: &mut Vec<u8>) -> Result<Process> {
        read::record(&self.dir, c"stat", text)?;
        let (comm, start_time) = stat(text).map_err(|Garbled| Errno::BADMSG)?;
        let uid = read::record(&self.dir, c"status", text).ok().and_then(|()| real_uid(text));
        let cgroup = read::record(&self.dir, c"cgroup", text).ok().and_then(|()| unified_cgroup(text));
        Ok(Process { pid: self.pid, start_time, comm, uid, cgroup })
    }
}

/// `comm` and `starttime`.
fn stat(text: &[u8]) -> std::result::Result<(Label, u64), Garbled> {
    let open = text.iter().position(|&b| b == b'(').ok_or(Garbled)?;
    let close = text.iter().rposition(|&b| b == b')').ok_or(Garbled)?;
    let comm = text.get(open + 1..close).ok_or(Garbled)?;
    let start = stat_field(text, 22).ok_or(Garbled)?;
    Ok((comm.into(), number(start, 10)?))
}

/// Whether a stat line is a kernel thread's.
pub(crate) fn is_kernel_thread(stat: &[u8]) -> bool {
    /// `PF_KTHREAD` of include/linux/sched.h.
    const PF_KTHREAD: u64 = 0x0020_0000;
    stat_field(stat, 9).and_then(|flags| number(flags, 10).ok()).is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// Field `nth` of a stat line, numbered from 1 as proc_pid_stat(5) does; from 3 on. The comm may hold
/// blanks and brackets, so fields are counted from the last `)`.
fn stat_field(text: &[u8], nth: usize) -> Option<&[u8]> {
    let close = text.iter().rposition(|&b| b == b')')?;
    text[close + 1..].trim_ascii().split(|&b| b == b' ').nth(nth.checked_sub(3)?)
}

/// The first number of the `Uid:` line. `status` escapes newlines in the name, so no line is forged.
fn real_uid(text: &[u8]) -> Option<u32> {
    let line = text.split(|&b| b == b'\n').find_map(|l| l.strip_prefix(b"Uid:\t"))?;
    number32(line.split(|&b| b == b'\t').next()?, 10).ok()
}

/// The path in the v2 hierarchy, whose line has the id 0 and no controllers.
fn unified_cgroup(text: &[u8]) -> Option<Label> {
    text.split(|&b| b == b'\n').find_map(|l| l.strip_prefix(b"0::")).map(Label::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AFTER_COMM: &str = " S 1 7 7 0 -1 4194560 102 0 0 0 0 0 0 0 20 0 1 0 4711 9003008 200";

    proptest! {
        /// Check that no comm, with whatever brackets, blanks and newlines, shifts a field.
        #[test]
        fn comms_shift_nothing(comm in proptest::collection::vec(any::<u8>(), 0..16)) {
            let text = [b"7 (", comm.as_slice(), b")", AFTER_COMM.as_bytes(), b"\n"].concat();
            prop_assert_eq!(stat(&text), Ok((comm.as_slice().into(), 4711)));
            prop_assert_eq!(stat_field(&text, 9), Some(&b"4194560"[..]));
        }

        /// Check that no bytes make a parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (stat(&text), real_uid(&text), unified_cgroup(&text));
        }
    }

    /// Check that a real uid is told from the effective one beside it.
    #[test]
    fn uid() {
        assert_eq!(real_uid(b"Name:\tx\nUmask:\t0022\nUid:\t1000\t0\t0\t0\n"), Some(1000));
    }

    /// Check that the v2 path is found among v1 hierarchies.
    #[test]
    fn cgroup() {
        let text = b"2:cpu:/old\n0::/user.slice/a b\n";
        assert_eq!(unified_cgroup(text), Some("/user.slice/a b".into()));
    }
}
