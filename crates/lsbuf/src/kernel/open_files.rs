//! Which fds of several processes are the same open file, by kcmp(2) (KCMP_FILE).
//!
//! procfs shows the inode of an fd, and not which open file on it the fd has. kcmp compares two
//! fds. If they differ, it says which comes first in an order of the kernel's own, so that n fds
//! are sorted by some n·log n comparisons.
//!
//! kcmp looks at what the fds are now. So each fd of the answer is checked afterwards: it must
//! still be one of the buffer.
//!
//! Limits: kcmp takes pids of the caller's pid namespace, and needs the right to trace both
//! processes (PTRACE_MODE_READ_REALCREDS) and a kernel with CONFIG_KCMP. Fd tables of single
//! threads are not compared.

use std::cmp::Ordering;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::path::Arg;

use super::guard;
use super::kcmp;
use super::process::ProcessDir;
use super::sharing::place;
use crate::model::{BufferId, Dev, Fd, Pid};

/// An fd of a process.
pub(crate) type Slot = (Pid, Fd);

/// Sorts fds by the open file that they are: a list for each that two or more of them share. An fd
/// that is closed by now is left out. `None`: some could not be compared.
pub(crate) fn shared(slots: &[Slot]) -> Option<Vec<Vec<Slot>>> {
    sorted(slots, &|a, b| kcmp::compare_files((a.0.0, a.1.0), (b.0.0, b.1.0)))
}

/// As [`shared`], with any comparison.
fn sorted(
    slots: &[Slot],
    compare: &dyn Fn(Slot, Slot) -> Result<Option<Ordering>, kcmp::NoAnswer>,
) -> Option<Vec<Vec<Slot>>> {
    let mut firsts: Vec<Slot> = Vec::new();
    let mut files: Vec<Vec<Slot>> = Vec::new();
    for &slot in slots {
        // Compared with itself, an fd is open or not. The others were open a moment ago: if one is
        // not any more, the order is lost.
        if compare(slot, slot).ok()?.is_none() {
            continue;
        }
        match place(&firsts, slot, &|a, b| compare(a, b).ok().flatten())? {
            Ok(at) => files[at].push(slot),
            Err(at) => {
                firsts.insert(at, slot);
                files.insert(at, vec![slot]);
            }
        }
    }
    files.retain(|file| file.len() > 1);
    Some(files)
}

/// Whether an fd is one of this buffer now.
pub(crate) fn is_of(process: &ProcessDir, fd: Fd, buffer: BufferId) -> bool {
    let (flags, mask) = (AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT, StatxFlags::INO);
    let found =
        format!("fd/{fd}").into_with_c_str(|link| guard::stat_at(process.dir().fd(), link, flags, mask));
    found.is_ok_and(|found| {
        let dev = Dev { major: found.stx_dev_major, minor: found.stx_dev_minor };
        found.stx_ino == buffer.ino.0 && buffer.dev.is_none_or(|of| of == dev)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Slot = (Pid(1), Fd(3));
    const B: Slot = (Pid(2), Fd(3));
    const C: Slot = (Pid(2), Fd(4));
    const CLOSED: Slot = (Pid(3), Fd(3));

    /// Compares as if A and C were one open file.
    fn compare(a: Slot, b: Slot) -> Result<Option<Ordering>, kcmp::NoAnswer> {
        let file = |slot| if slot == B { 2 } else { 1 };
        let gone = a == CLOSED || b == CLOSED;
        Ok((!gone).then(|| file(a).cmp(&file(b))))
    }

    /// Check that only fds of the same open file come together, and that one that was closed is
    /// left out.
    #[test]
    fn same_files() {
        assert_eq!(sorted(&[A, B, CLOSED, C], &compare), Some(vec![vec![A, C]]));
        assert_eq!(sorted(&[B, C], &compare), Some(vec![]));
    }

    /// Check that nothing is said where a comparison is refused.
    #[test]
    fn refused() {
        assert_eq!(sorted(&[A, B], &|_, _| Err(kcmp::NoAnswer)), None);
    }

    /// Check that the kernel tells a duplicate of an fd from a file that was opened again.
    #[test]
    fn live() {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        let (same, again) = (file.try_clone().unwrap(), std::fs::File::open("/proc/self/stat").unwrap());
        let own = Pid(std::process::id());
        let slot = |file: &std::fs::File| (own, Fd(file.as_raw_fd().cast_unsigned()));
        let found = shared(&[slot(&file), slot(&again), slot(&same)]);
        assert_eq!(found, Some(vec![vec![slot(&file), slot(&same)]]));
    }
}
