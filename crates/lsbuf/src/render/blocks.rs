//! Numbers as block characters, for lines that show how a figure changes.

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The block for a number: the full one for `most` and above.
pub(super) fn block(number: u64, most: u64) -> char {
    let height = u128::from(number) * 7 / u128::from(most.max(1));
    BLOCKS[usize::try_from(height).unwrap_or(7).min(7)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check the lowest and the highest block, and that no number is too large.
    #[test]
    fn heights() {
        let blocks = [(0, 10), (5, 10), (10, 10), (0, 0), (u64::MAX, 1)].map(|(n, most)| block(n, most));
        assert_eq!(blocks, ['▁', '▄', '█', '▁', '█']);
    }
}
