//! kcmp(2): whether two tasks share an fd table (CLONE_FILES) or an address space (CLONE_VM), and
//! whether two fds are the same open file.
//!
//! It takes pids of the caller's pid namespace, and needs the right to trace both tasks
//! (PTRACE_MODE_READ_REALCREDS).

use std::cmp::Ordering;

use rustix::io::Errno;

use crate::model::Tid;

/// What tasks can share, with the numbers of include/uapi/linux/kcmp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Resource {
    /// The address space.
    Vm = 1,
    /// The fd table.
    Files = 2,
}

/// Compares two tasks. `Less` is also returned if one of them has exited: it shares nothing any
/// more. `None`: the kernel gives no answer.
#[allow(unsafe_code)]
pub(crate) fn compare(what: Resource, a: Tid, b: Tid) -> Option<Ordering> {
    let (a, b) = (libc::pid_t::try_from(a.0).ok()?, libc::pid_t::try_from(b.0).ok()?);
    // SAFETY: kcmp takes numbers only and changes nothing.
    match unsafe { libc::syscall(libc::SYS_kcmp, a, b, what as libc::c_int, 0, 0) } {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ if Errno::from_io_error(&std::io::Error::last_os_error()) == Some(Errno::SRCH) => {
            Some(Ordering::Less)
        }
        _ => None,
    }
}

/// The kernel refuses to compare, or cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer;

/// KCMP_FILE of include/uapi/linux/kcmp.h.
const FILE: libc::c_int = 0;

/// Compares the open files of two fds, each of a process. `None`: one of the two is closed, or its
/// process has exited.
#[allow(unsafe_code)]
pub(crate) fn compare_files(a: (u32, u32), b: (u32, u32)) -> Result<Option<Ordering>, NoAnswer> {
    let pid = |pid: u32| libc::pid_t::try_from(pid).map_err(|_| NoAnswer);
    let (pids, fds) = ((pid(a.0)?, pid(b.0)?), (libc::c_ulong::from(a.1), libc::c_ulong::from(b.1)));
    // SAFETY: kcmp takes numbers only and changes nothing.
    match unsafe { libc::syscall(libc::SYS_kcmp, pids.0, pids.1, FILE, fds.0, fds.1) } {
        0 => Ok(Some(Ordering::Equal)),
        1 => Ok(Some(Ordering::Less)),
        2 => Ok(Some(Ordering::Greater)),
        _ => match Errno::from_io_error(&std::io::Error::last_os_error()) {
            Some(Errno::SRCH | Errno::BADF) => Ok(None),
            _ => Err(NoAnswer),
        },
    }
}
