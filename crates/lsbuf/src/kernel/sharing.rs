//! Which tasks share an fd table (CLONE_FILES) or an address space (CLONE_VM).
//!
//! `/proc` shows such a table once for each task. kcmp(2) tells whether two are one, and which of two comes first in an
//! order of its own, so that many can be sorted out by few comparisons. It takes pids of the caller's pid namespace and
//! asks for the right to trace both; where it cannot be used the answer is "unknown", never "no".
//!
//! A recorded tree keeps the answers in `.lsbuf/shared`: a line `files TID TID` or `vm TID TID` for each two tasks of
//! different processes that share; all others do not. Its threads share their process's fd table unless an `fd` of their own was recorded.

use std::cmp::Ordering;
use std::collections::HashSet;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;

use super::process::ProcessDir;
use super::root::ProcRoot;
use crate::model::Tid;

/// What tasks can share. The numbers are those of include/uapi/linux/kcmp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Resource {
    /// The address space.
    Vm = 1,
    /// The fd table.
    Files = 2,
}

/// Who can tell.
#[derive(Debug)]
pub(crate) enum Sharing {
    /// The kernel, by kcmp.
    Kernel,
    /// The tree.
    Recorded(HashSet<(Resource, u32, u32)>),
    /// Nobody: pids here are not those of our own system calls.
    Unknown,
}

impl Sharing {
    /// Who can tell of the processes of `root`.
    pub(crate) fn of(root: &ProcRoot) -> Sharing {
        if root.has_own_pids() {
            Sharing::Kernel
        } else if let Some(text) = root.recorded_sharing() {
            Sharing::Recorded(text.lines().filter_map(pair).collect())
        } else {
            Sharing::Unknown
        }
    }

    /// `Equal`: two tasks, of one process or of two, share it. Else an order, which is the same whenever it is asked.
    /// `None`: unknown.
    pub(crate) fn of_tasks(&self, what: Resource, a: Tid, b: Tid) -> Option<Ordering> {
        match self {
            Sharing::Kernel => kcmp(what, a.0, b.0),
            Sharing::Recorded(pairs) => {
                // Each stands for its group as the lowest of it.
                let lowest = |pid: u32| {
                    let shared = pairs.iter().filter(|&&(w, a, b)| w == what && (a == pid || b == pid));
                    shared.map(|&(_, a, b)| a.min(b)).chain([pid]).min()
                };
                Some(lowest(a.0).cmp(&lowest(b.0)))
            }
            Sharing::Unknown => None,
        }
    }

    /// Whether two threads of one process, of which the first may be the leader, share their fd table. `None`: unknown.
    pub(crate) fn of_threads(&self, process: &ProcessDir, a: Tid, b: Tid) -> Option<bool> {
        match self {
            Sharing::Kernel => kcmp(Resource::Files, a.0, b.0).map(Ordering::is_eq),
            Sharing::Recorded(_) | Sharing::Unknown if !process.is_live() => {
                let own = format!("task/{b}/fd");
                Some(accessat(process.dir(), own.as_str(), Access::EXISTS, AtFlags::empty()).is_err())
            }
            Sharing::Recorded(_) | Sharing::Unknown => None,
        }
    }
}

fn pair(line: &str) -> Option<(Resource, u32, u32)> {
    let mut words = line.split_ascii_whitespace();
    let what = match words.next()? {
        "files" => Resource::Files,
        "vm" => Resource::Vm,
        _ => return None,
    };
    Some((what, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// Asks the kernel. A task that has gone shares nothing any more, and comes last.
#[allow(unsafe_code)]
fn kcmp(what: Resource, a: u32, b: u32) -> Option<Ordering> {
    let (a, b) = (libc::pid_t::try_from(a).ok()?, libc::pid_t::try_from(b).ok()?);
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Check that a live procfs of our own namespace is answered by the kernel: a process shares all with itself, and
    /// nothing with a child of its own.
    #[test]
    fn live() {
        let sharing = Sharing::of(&ProcRoot::open(Path::new("/proc")).unwrap());
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let (own, other) = (Tid(std::process::id()), Tid(child.id()));
        let (same, different) =
            (sharing.of_tasks(Resource::Vm, own, own), sharing.of_tasks(Resource::Files, own, other));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(same, Some(Ordering::Equal));
        assert!(different.is_some_and(Ordering::is_ne));
    }

    /// Check that a recorded line holds in both directions, for its resource alone, and that other lines are passed over.
    #[test]
    fn recorded() {
        let pairs = "files 1 2\nnonsense\nvm 3\nvm x y\n".lines().filter_map(pair).collect();
        let sharing = Sharing::Recorded(pairs);
        assert_eq!(sharing.of_tasks(Resource::Files, Tid(2), Tid(1)), Some(Ordering::Equal));
        assert_eq!(sharing.of_tasks(Resource::Vm, Tid(1), Tid(2)), Some(Ordering::Less));
        assert_eq!(sharing.of_tasks(Resource::Files, Tid(2), Tid(3)), Some(Ordering::Less));
    }

    /// Check that not being able to ask is told from sharing nothing.
    #[test]
    fn unknown() {
        assert_eq!(Sharing::Unknown.of_tasks(Resource::Vm, Tid(1), Tid(2)), None);
    }
}
