//! Strangers' bytes, made harmless for one line of a terminal or a script.
//!
//! Printable characters stay; a backslash is doubled; everything that could move the cursor, break the line,
//! turn the reading direction or hide itself becomes `\xNN` byte by byte, invalid UTF-8 too. The result is
//! unambiguous: it can be turned back into the bytes.

use std::fmt::Write;

/// Escapes bytes for a terminal or a line-oriented format.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    escape_unless(bytes, |_| true)
}

/// Escapes bytes for a format whose fields are separated by blanks.
pub(super) fn escape_blanks(bytes: &[u8]) -> String {
    escape_unless(bytes, |c| !c.is_whitespace())
}

/// Escapes a command name for a list in which blanks, colons, commas and brackets mean something.
pub(super) fn escape_word(bytes: &[u8]) -> String {
    escape_unless(bytes, |c| !c.is_whitespace() && !matches!(c, ':' | ',' | '(' | ')'))
}

/// Escapes, in a string that is JSON already, the characters that JSON lets through and a terminal should not see. It stays
/// the same string.
pub(super) fn escape_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_tricky(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn escape_unless(bytes: &[u8], keep: fn(char) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                text.push_str("\\\\");
            } else if keep(c) && !is_tricky(c) {
                text.push(c);
            } else {
                push_hex(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Control characters, line and paragraph separators, and the format characters that turn, join or hide text.
fn is_tricky(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unescape(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            let (byte, after) = match (first, tail) {
                (b'\\', [b'\\', after @ ..]) => (b'\\', after),
                (b'\\', [b'x', hex @ ..]) => {
                    let digits = std::str::from_utf8(&hex[..2]).unwrap();
                    (u8::from_str_radix(digits, 16).unwrap(), &hex[2..])
                }
                _ => (first, tail),
            };
            bytes.push(byte);
            rest = after;
        }
        bytes
    }

    proptest! {
        /// Check that no bytes let a control character through.
        #[test]
        fn nothing_raw(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!escape(&bytes).contains(char::is_control));
        }

        /// Check that the escaped text can be turned back into the very bytes.
        #[test]
        fn reversible(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(unescape(&escape(&bytes)), bytes.clone());
            prop_assert_eq!(unescape(&escape_blanks(&bytes)), bytes);
        }

        /// Check that a blank-separated field never contains a blank.
        #[test]
        fn no_blanks(text in ".{0,40}") {
            prop_assert!(!escape_blanks(text.as_bytes()).contains(char::is_whitespace));
        }
    }

    proptest! {
        /// Check that JSON made harmless says the same, and lets nothing through that a terminal obeys.
        #[test]
        fn json_says_the_same(text in any::<String>()) {
            let escaped = escape_json(&serde_json::to_string(&text).unwrap());
            prop_assert!(!escaped.contains(is_tricky));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }
    }

    /// Check that a command name cannot pose as a list of holders.
    #[test]
    fn words() {
        assert_eq!(escape_word(b"sshd:1(9f) a"), "sshd\\x3a1\\x289f\\x29\\x20a");
    }

    /// Check that ordinary text in any script stays readable.
    #[test]
    fn text_stays() {
        assert_eq!(escape("Kamera 前 é".as_bytes()), "Kamera 前 é");
    }

    /// Check that text which turns the reading direction is shown as bytes.
    #[test]
    fn right_to_left_override() {
        assert_eq!(escape("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }
}
