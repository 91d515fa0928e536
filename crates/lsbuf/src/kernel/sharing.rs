//! Which tasks share an fd table (CLONE_FILES) or an address space (CLONE_VM).
//!
//! `/proc` shows such a table once for each task. kcmp(2) tells whether two are one, and which of two comes first in an
//! order of its own, so that many can be sorted out by few comparisons. Where it cannot be used the answer is "unknown",
//! never "no".

use std::cmp::Ordering;

pub(crate) use super::kcmp::Resource;
use super::root::ProcRoot;
use crate::model::Tid;

/// Compares two tasks, of one process or of two, that may have exited by now; see [`Tree::compare`](super::tree::Tree::compare).
/// Those that have exited have no table, and kcmp finds them equal. One that still runs after the comparison had one.
pub(crate) fn compare(root: &ProcRoot, what: Resource, a: Tid, b: Tid) -> Option<Ordering> {
    let order = root.tree().compare(what, a, b);
    let is_real = order != Some(Ordering::Equal) || root.tree().still_runs(root.dir(), a);
    if is_real { order } else { Some(Ordering::Less) }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Check that a live procfs of our own namespace is answered by the kernel: a process shares all with itself, and
    /// nothing with a child of its own.
    #[test]
    fn live() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let (own, other) = (Tid(std::process::id()), Tid(child.id()));
        let (same, different) =
            (compare(&root, Resource::Vm, own, own), compare(&root, Resource::Files, own, other));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(same, Some(Ordering::Equal));
        assert!(different.is_some_and(Ordering::is_ne));
    }
}
