//! Which tasks share an fd table (CLONE_FILES) or an address space (CLONE_VM).
//!
//! `/proc` shows a shared table once for each task that uses it. kcmp(2) says whether two tasks use
//! the same one. If not, it says which of the two comes first in an order of the kernel's own, so a
//! binary search needs few comparisons. Where kcmp cannot be used, the answer is "unknown", never
//! "no".

use std::cmp::Ordering;

pub(crate) use super::kcmp::Resource;
use super::root::ProcRoot;
use crate::model::Tid;

/// Compares two tasks of the same or of different processes
/// ([`Tree::compare`](super::tree::Tree::compare)). Both may have exited meanwhile. A task that has
/// exited has no table (`files == NULL`), and kcmp reports two such tasks as equal. So `Equal` is
/// believed only if `a` still runs after the comparison.
pub(crate) fn compare(root: &ProcRoot, what: Resource, a: Tid, b: Tid) -> Option<Ordering> {
    let order = root.tree().compare(what, a, b);
    let is_real = order != Some(Ordering::Equal) || root.tree().still_runs(root.dir(), a);
    if is_real { order } else { Some(Ordering::Less) }
}

/// Finds `item` in a list that is ordered by `compare`: `Ok` has its index, `Err` the index at
/// which to insert it. `None`: a comparison had no answer.
pub(crate) fn place<W: Copy>(
    sorted: &[W],
    item: W,
    compare: &dyn Fn(W, W) -> Option<Ordering>,
) -> Option<Result<usize, usize>> {
    let (mut low, mut high) = (0, sorted.len());
    while low < high {
        let middle = low.midpoint(high);
        match compare(sorted[middle], item)? {
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

    /// Check that the kernel answers for a live procfs of our own pid namespace: a process shares
    /// its address space with itself, and no fd table with its child.
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
