//! Finds out which holders share an fd table or an address space.
//!
//! If two processes show the same fds of the same buffers, they may share one table (CLONE_FILES),
//! or one may have a copy that fork made. In the first case an fd is one reference, in the second
//! it is two. So holders are compared by kcmp(2), but only those that show exactly the same: a
//! shared table looks the same through each of its processes.
//!
//! Limits: a shared table that changes after it was read through one process and before it is read
//! through the other looks different. Then each of its fds counts twice, until the next reading.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, RandomState};

use super::digest::Digest;
use super::walk::{SlotFile, TableOwner, Walk, slots};
use crate::kernel::root::ProcRoot;
use crate::kernel::sharing::{self, Resource, place};
use crate::kernel::shmem::ShmMap;
use crate::model::{Pid, Tid};

/// Which tables and address spaces are one.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Tables that are one with another; each with the lowest one of its group.
    pub(super) files: BTreeMap<TableOwner, TableOwner>,
    /// Processes whose address space is another one's too; each with the lowest one of its group.
    pub(super) vm: BTreeMap<Pid, Pid>,
    /// Processes that may share one; comparing them failed.
    pub(super) uncompared: HashSet<Pid>,
}

impl Shared {
    /// Compares the holders that one walk found.
    pub(super) fn of(walk: &Walk, root: &ProcRoot) -> Shared {
        let compare = |what, a, b| sharing::compare(root, what, a, b);
        let mut shared = Shared { uncompared: walk.uncompared.clone(), ..Shared::default() };
        for alike in alike(&walk.hasher, slots(walk, (0, 0))) {
            let task = |(pid, thread): TableOwner| thread.unwrap_or(Tid(pid.0));
            let left = group(&alike, &mut shared.files, &|a, b| compare(Resource::Files, task(a), task(b)));
            shared.uncompared.extend(left.iter().map(|(pid, _)| pid));
        }
        let vmas = walk.maps.iter().filter(|map| walk.is_dmabuf(map));
        let vmas =
            vmas.map(|map| (map.pid, (map.fact.vma.start, map.fact.vma.end, SlotFile::DmaBuf(map.fact.ino))));
        let shmem = walk.shm_maps.iter().map(|held| {
            let ShmMap { object, vma } = held.fact;
            (held.pid, (vma.start, vma.end, SlotFile::Shmem(object)))
        });
        for alike in alike(&walk.hasher, vmas.chain(shmem)) {
            let left = group(&alike, &mut shared.vm, &|a, b| compare(Resource::Vm, Tid(a.0), Tid(b.0)));
            shared.uncompared.extend(left);
        }
        shared
    }
}

/// Groups of two or more that show the same set; each group is ascending. Nothing is shown twice by
/// one.
fn alike<W: Copy + Ord, T: Hash>(hasher: &RandomState, shown: impl Iterator<Item = (W, T)>) -> Vec<Vec<W>> {
    let mut of_each: BTreeMap<W, Digest> = BTreeMap::new();
    for (owner, one) in shown {
        of_each.entry(owner).or_default().add(hasher, &one);
    }
    let mut groups: BTreeMap<Digest, Vec<W>> = BTreeMap::new();
    for (owner, digest) in of_each {
        groups.entry(digest).or_default().push(owner);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}

/// Divides those that look alike into those that are one; returns those for which comparing failed.
fn group<'w, W: Copy + Ord>(
    all: &'w [W],
    same: &mut BTreeMap<W, W>,
    compare: &dyn Fn(W, W) -> Option<Ordering>,
) -> &'w [W] {
    // One of each group, in the order of the comparison, which differs from that of pids.
    let mut firsts: Vec<W> = Vec::new();
    for &owner in all {
        match place(&firsts, owner, compare) {
            None => return all,
            Some(Ok(at)) => _ = same.insert(owner, firsts[at]),
            Some(Err(at)) => firsts.insert(at, owner),
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Check that processes are grouped by object, whatever order the kernel has for objects.
        #[test]
        fn groups_are_the_objects(objects in proptest::collection::vec(0..6u64, 0..40), secret: u64) {
            let pids: Vec<Pid> = (0..objects.len() as u32).map(Pid).collect();
            let object = |pid: Pid| (objects[pid.0 as usize] ^ secret).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut same = BTreeMap::new();
            let left = group(&pids, &mut same, &|a, b| Some(object(a).cmp(&object(b))));
            prop_assert!(left.is_empty());
            for &pid in &pids {
                let first = pids.iter().find(|&&p| object(p) == object(pid)).copied().unwrap();
                prop_assert_eq!(same.get(&pid).copied().unwrap_or(pid), first);
            }
        }
    }

    /// Check that if the kernel refuses to compare, all that look alike are left undecided.
    #[test]
    fn undecided() {
        let pids = [Pid(1), Pid(2)];
        assert_eq!(group(&pids, &mut BTreeMap::new(), &|_, _| None), pids);
    }

    /// Check that only equal sets are compared, whatever their order.
    #[test]
    fn only_equal_sets_are_compared() {
        let shown = [(Pid(3), 1), (Pid(3), 2), (Pid(1), 2), (Pid(1), 1), (Pid(2), 1)];
        assert_eq!(alike(&RandomState::new(), shown.into_iter()), [[Pid(1), Pid(3)]]);
    }
}
