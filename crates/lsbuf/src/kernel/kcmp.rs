//! kcmp(2): whether two tasks share an fd table (CLONE_FILES) or an address space (CLONE_VM).
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
