//! Random choices that a seed repeats.
//!
//! It is the splitmix64 generator: a few lines, good enough to choose steps, and the same on every
//! machine.

use serde::{Deserialize, Serialize};

/// A generator of random numbers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator with this seed.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 random bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// An index into a list of that length, which must not be 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        // Below `len`, so it fits.
        self.below(len as u64) as usize
    }

    /// True in one of `n` cases.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A value of a table of weights and values.
    pub(crate) fn pick<T: Copy>(&mut self, table: &[(u64, T)]) -> Option<T> {
        let mut at = self.below(table.iter().map(|(weight, _)| weight).sum());
        table.iter().find_map(|&(weight, value)| {
            let hit = at < weight;
            at = at.saturating_sub(weight);
            hit.then_some(value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a table's weights decide, and that a weight of 0 is never picked.
    #[test]
    fn weights() {
        let mut random = Random::new(1);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            let picked = random.pick(&[(1, 0), (0, 1), (3, 2)]).unwrap();
            counts[picked] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!(counts[2] > 2 * counts[0] && counts[0] > 500, "{counts:?}");
    }

    /// Check that the same seed repeats its choices, and that another seed makes others.
    #[test]
    fn seeds() {
        let run = |seed| {
            let mut random = Random::new(seed);
            [random.next(), random.next()]
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
