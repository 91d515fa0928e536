//! Strict parsing of numbers: a text that is not exactly a number is an error, never a guess.

/// Text from the kernel that does not have the form it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A number in `radix` made only of its digits: no sign, no blank, not empty, no overflow.
pub(crate) fn number(text: &[u8], radix: u32) -> Result<u64, Malformed> {
    if text.is_empty() {
        return Err(Malformed);
    }
    text.iter().try_fold(0u64, |value, &byte| {
        let digit = char::from(byte).to_digit(radix).ok_or(Malformed)?;
        value.checked_mul(radix.into()).and_then(|v| v.checked_add(digit.into())).ok_or(Malformed)
    })
}

/// [`number`] that must fit 32 bits.
pub(crate) fn number32(text: &[u8], radix: u32) -> Result<u32, Malformed> {
    u32::try_from(number(text, radix)?).map_err(|_| Malformed)
}

/// The text before the first `byte`, and the text after it.
pub(crate) fn cut(text: &[u8], byte: u8) -> Result<(&[u8], &[u8]), Malformed> {
    let at = text.iter().position(|&b| b == byte).ok_or(Malformed)?;
    Ok((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that a sign is refused, although the standard library's parser accepts it.
    #[test]
    fn signs_are_malformed() {
        assert_eq!(number(b"+1", 10), Err(Malformed));
        assert_eq!(number(b"-1", 10), Err(Malformed));
    }

    /// Check that a number past 64 bits is refused rather than wrapped.
    #[test]
    fn overflow_is_malformed() {
        assert_eq!(number(b"18446744073709551616", 10), Err(Malformed));
        assert_eq!(number32(b"4294967296", 10), Err(Malformed));
    }

    proptest! {
        /// Check that every number survives printing and parsing in each radix in use.
        #[test]
        fn round_trip(n: u64) {
            prop_assert_eq!(number(format!("{n}").as_bytes(), 10), Ok(n));
            prop_assert_eq!(number(format!("{n:x}").as_bytes(), 16), Ok(n));
            prop_assert_eq!(number(format!("{n:o}").as_bytes(), 8), Ok(n));
        }
    }
}
