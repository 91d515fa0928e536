//! Digests of sets of facts, to tell which tables and address spaces show the same without keeping
//! a copy of what each shows.
//!
//! Limits: two different sets have the same digest with a chance of 1 in 2^64, which nobody can
//! raise, because the hash has a secret key. Sets with the same digest are only candidates: kcmp(2)
//! decides whether they are one.

use std::hash::{BuildHasher, Hash, RandomState};

/// A digest of a set, in whatever order its elements are added. The default is that of the empty
/// set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Digest {
    elements: u64,
    /// The sum of their hashes.
    sum: u64,
}

impl Digest {
    /// Adds an element that is not in the set yet. All elements of digests that are compared are
    /// hashed by the same `hasher`.
    pub(super) fn add(&mut self, hasher: &RandomState, element: &impl Hash) {
        self.elements += 1;
        self.sum = self.sum.wrapping_add(hasher.hash_one(element));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Check that two sets have the same digest if and only if they are equal, in whatever
        /// order their elements are added.
        #[test]
        fn equal_if_the_sets_are(
            one in proptest::collection::btree_set(0u8..6, 0..5),
            other in proptest::collection::btree_set(0u8..6, 0..5),
        ) {
            let hasher = RandomState::new();
            let digest = |elements: &mut dyn Iterator<Item = &u8>| {
                let mut digest = Digest::default();
                elements.for_each(|element| digest.add(&hasher, element));
                digest
            };
            let of = |set: &BTreeSet<u8>| digest(&mut set.iter());
            prop_assert_eq!(of(&one), digest(&mut one.iter().rev()));
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }
    }
}
