//! Makes one name of names that differ in numbers: `torch_545_1342219378_0` becomes `torch_#_#_#`.
//!
//! Programs number their buffers, by a counter, a pid or a random id. Folded, the names of one use
//! are equal. A `#` stands for a run of decimal digits, for a run of hex digits that has 8 or more
//! and a decimal one among them, for hex digits after `0x`, and for a UUID.
//!
//! Limits: a long word of hex letters with a digit, such as `facade12`, counts as a number. A hex
//! number of less than 8 digits is folded in parts.

use super::Label;

/// Fewest digits of a run that counts as one hex number.
const HEX: usize = 8;

/// The lengths of the groups of a UUID.
const UUID: [usize; 5] = [8, 4, 4, 4, 12];

/// The name with its numbers folded.
///
/// ```
/// use lsbuf::model::{Label, folded};
/// assert_eq!(folded(&Label::from("torch_545_1342219378_0")), Label::from("torch_#_#_#"));
/// ```
#[must_use]
pub fn folded(name: &Label) -> Label {
    let mut text = Vec::with_capacity(name.as_bytes().len());
    let mut rest = name.as_bytes();
    // Whether the byte before belongs to a word, so that no UUID begins here.
    let mut inside = false;
    while let Some((&first, after)) = rest.split_first() {
        let run = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let hex = &rest[..run];
        let is_number = run >= HEX && hex.iter().any(u8::is_ascii_digit);
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let prefixed = rest
            .strip_prefix(b"0x")
            .map_or(0, |hex| hex.iter().take_while(|b| b.is_ascii_hexdigit()).count());
        let length = match uuid(rest) {
            Some(length) if !inside => length,
            _ if prefixed > 0 && !inside => 2 + prefixed,
            _ if is_number => run,
            _ => digits,
        };
        if length > 0 {
            text.push(b'#');
            rest = &rest[length..];
        } else if run > 0 {
            // The letters before the next decimal digit belong to no number.
            let letters = hex.iter().take_while(|b| !b.is_ascii_digit()).count();
            text.extend_from_slice(&rest[..letters]);
            rest = &rest[letters..];
        } else {
            text.push(first);
            rest = after;
        }
        inside = length > 0 || first.is_ascii_alphanumeric();
    }
    Label::from(&text[..])
}

/// The length of the UUID that a text begins with.
fn uuid(text: &[u8]) -> Option<usize> {
    let mut end = 0;
    for (nth, length) in UUID.into_iter().enumerate() {
        if nth > 0 {
            (text.get(end) == Some(&b'-')).then_some(())?;
            end += 1;
        }
        text.get(end..end + length)?.iter().all(u8::is_ascii_hexdigit).then_some(())?;
        end += length;
    }
    let is_longer = text.get(end).is_some_and(u8::is_ascii_alphanumeric);
    (!is_longer).then_some(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fold(name: &str) -> String {
        folded(&Label::from(name)).to_string()
    }

    /// Check that decimal numbers, long hex numbers and UUIDs are folded, and words are not.
    #[test]
    fn numbers() {
        assert_eq!(fold("torch_545_1342219378_0"), "torch_#_#_#");
        assert_eq!(fold("/dev/shm/fastrtps_a1b2c3d4e5"), "/dev/shm/fastrtps_#");
        assert_eq!(fold("deadbeef"), "deadbeef");
        assert_eq!(fold("x-550e8400-e29b-41d4-a716-446655440000.tmp"), "x-#.tmp");
        assert_eq!(fold("frame-pool"), "frame-pool");
        assert_eq!((fold("at-0x7fff"), fold("at-0xyz")), ("at-#".into(), "at-#xyz".into()));
        assert_eq!((fold("cam0"), fold("a1b2"), fold("")), ("cam#".into(), "a#b#".into(), String::new()));
    }

    proptest! {
        /// Check that names which differ in decimal numbers are folded to the same.
        #[test]
        fn numbered_names(word in "[g-z_./-]{0,9}", a: u64, b: u64) {
            prop_assert_eq!(fold(&format!("{word}{a}_x")), fold(&format!("{word}{b}_x")));
        }

        /// Check that no digit is left, that a folded name stays as it is, and that it has no byte
        /// that was not there.
        #[test]
        fn any_name(name in proptest::collection::vec(any::<u8>(), 0..60)) {
            let once = folded(&name.as_slice().into());
            prop_assert!(!once.as_bytes().iter().any(u8::is_ascii_digit));
            prop_assert_eq!(folded(&once), once.clone());
            prop_assert!(once.as_bytes().iter().all(|b| *b == b'#' || name.contains(b)));
        }
    }
}
