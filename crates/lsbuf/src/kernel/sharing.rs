//! Which tasks share an fd table (CLONE_FILES) or an address space (CLONE_VM).
//!
//! `/proc` shows such a table once for each task. kcmp(2) tells whether two are one, and which of two comes first in an
//! order of its own, so that many can be sorted out by few comparisons. It takes pids of the caller's pid namespace and
//! asks for the right to trace both; where it cannot be used the answer is "unknown", never "no".
//!
//! A recorded tree keeps the answers in `.lsbuf/shared`: a line `files TID TID` or `vm TID TID` for each two tasks of
//! different processes that share; all others do not. Its threads share their process's fd table unless an `fd` of their
//! own was recorded.

use std::cmp::Ordering;
use std::collections::HashMap;

use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;

use super::process::{ProcessDir, Stage};
use super::root::ProcRoot;
use crate::model::{Pid, Tid};

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
    Recorded(Groups),
    /// Nobody: pids here are not those of our own system calls.
    Unknown,
}

impl Sharing {
    /// Who can tell of the processes of `root`.
    pub(crate) fn of(root: &ProcRoot) -> Sharing {
        if root.has_own_pids() {
            Sharing::Kernel
        } else if let Some(text) = root.recorded_sharing() {
            Sharing::Recorded(groups(text.lines().filter_map(pair)))
        } else {
            Sharing::Unknown
        }
    }

    /// `Equal`: two tasks, of one process or of two, share it. Else an order, which is the same whenever it is asked.
    /// `None`: unknown.
    pub(crate) fn of_tasks(&self, what: Resource, a: Tid, b: Tid) -> Option<Ordering> {
        match self {
            Sharing::Kernel => kcmp(what, a.0, b.0),
            Sharing::Recorded(groups) => {
                let group = |tid: Tid| groups.get(&(what, tid.0)).copied().unwrap_or(tid.0);
                Some(group(a).cmp(&group(b)))
            }
            Sharing::Unknown => None,
        }
    }

    /// The same for tasks that may have exited by now. Such have no table, and kcmp finds those that they lack equal; who still
    /// runs after the comparison had one.
    pub(crate) fn of_holders(&self, root: &ProcRoot, what: Resource, a: Tid, b: Tid) -> Option<Ordering> {
        let order = self.of_tasks(what, a, b);
        if order != Some(Ordering::Equal) || !root.is_live() {
            return order;
        }
        let stage = ProcessDir::open(root, Pid(a.0)).and_then(|task| task.stage(&mut Vec::new()));
        Some(if stage == Ok(Stage::Running) { Ordering::Equal } else { Ordering::Less })
    }

    /// Whether a thread of a recorded tree has an fd table of its own. `None`: only the kernel can tell.
    pub(crate) fn recorded_own_table(&self, process: &ProcessDir, tid: Tid) -> Option<bool> {
        (!process.is_live()).then(|| {
            let own = format!("task/{tid}/fd");
            accessat(process.dir(), own.as_str(), Access::EXISTS, AtFlags::empty()).is_ok()
        })
    }
}

/// Where `who` is among those that come in the order of the comparison, or where it belongs. `None`: nobody can tell.
pub(crate) fn place<W: Copy>(
    firsts: &[W],
    who: W,
    compare: &dyn Fn(W, W) -> Option<Ordering>,
) -> Option<Result<usize, usize>> {
    let (mut low, mut high) = (0, firsts.len());
    while low < high {
        let middle = low.midpoint(high);
        match compare(firsts[middle], who)? {
            Ordering::Equal => return Some(Ok(middle)),
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
        }
    }
    Some(Err(low))
}

/// Each task with the lowest of those that it shares with.
pub(crate) type Groups = HashMap<(Resource, u32), u32>;

pub(crate) fn groups(pairs: impl Iterator<Item = (Resource, u32, u32)>) -> Groups {
    let mut groups = Groups::new();
    for (what, a, b) in pairs {
        let lowest = a.min(b);
        for tid in [a, b] {
            groups.entry((what, tid)).and_modify(|group| *group = lowest.min(*group)).or_insert(lowest);
        }
    }
    groups
}

/// What a recorded line says.
pub(crate) fn pair(line: &str) -> Option<(Resource, u32, u32)> {
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
        let pairs = "files 1 2\nnonsense\nvm 3\nvm x y\n".lines().filter_map(pair);
        let sharing = Sharing::Recorded(groups(pairs));
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
