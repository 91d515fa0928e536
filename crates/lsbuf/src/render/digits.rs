//! Numbers in decimal, for texts that have millions of them: without the machinery of
//! [`std::fmt`], which takes several times as long.

/// As many digits as the largest number of 64 bits has.
const MOST: usize = 20;

/// The decimal digits of a number.
#[derive(Debug)]
pub(super) struct Digits {
    /// They are at its end.
    room: [u8; MOST],
    start: usize,
}

impl Digits {
    pub(super) fn of(number: u64) -> Digits {
        let mut digits = Digits { room: [b'0'; MOST], start: MOST };
        let mut rest = number;
        loop {
            digits.start -= 1;
            digits.room[digits.start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return digits;
            }
        }
    }

    /// As ASCII.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.room[self.start..]
    }

    /// As text.
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Check that a number of any length is written as Rust writes it.
        #[test]
        fn as_usual(number in any::<u64>(), shift in 0..64) {
            for number in [number >> shift, 0, u64::MAX] {
                let digits = Digits::of(number);
                prop_assert_eq!(digits.as_str(), number.to_string());
            }
        }
    }
}
