//! Makes untrusted text harmless for one line of a terminal or a script.
//!
//! Names, paths and command names are chosen by whoever made them. A name could move the cursor,
//! break the line, turn the reading direction or hide itself. Here printable characters stay, a
//! backslash is doubled, and everything else becomes `\xNN`, byte by byte: control and format
//! characters, invisible ones, more than four combining marks in a row, and bytes that are not
//! UTF-8. Where blanks separate columns, blanks that could pass for such a gap are escaped, too.
//! The result is unambiguous: [`unescape`] gives the bytes back.
//!
//! Limit: characters that look alike stay. Two names can differ and look the same.

use std::fmt::Write;

use unicode_width::UnicodeWidthChar;

/// How many combining marks may follow one character. Scripts in use stack up to four. Sixty would
/// cover the lines above and below.
const MARKS: usize = 4;

/// Escapes bytes for a terminal or a line-oriented format.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    in_new_text(push_escaped, bytes)
}

/// Escapes bytes for a column of a table. Only single blanks between other characters stay, so that
/// no gap between columns can be forged.
#[must_use]
pub fn escape_gaps(bytes: &[u8]) -> String {
    in_new_text(push_gaps_escaped, bytes)
}

/// Escapes bytes for a format whose fields are separated by blanks.
#[must_use]
pub fn escape_blanks(bytes: &[u8]) -> String {
    in_new_text(push_blanks_escaped, bytes)
}

/// Escapes a command name for a list in which blanks, colons, commas and brackets have a meaning.
#[must_use]
pub fn escape_word(bytes: &[u8]) -> String {
    in_new_text(push_word_escaped, bytes)
}

fn in_new_text(push: impl Fn(&mut String, &[u8]), bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    push(&mut text, bytes);
    text
}

/// Adds to a text what [`escape`] makes of bytes.
pub(crate) fn push_escaped(text: &mut String, bytes: &[u8]) {
    push_unless(text, bytes, |_, _, _| true);
}

/// Adds to a text what [`escape_gaps`] makes of bytes.
pub(crate) fn push_gaps_escaped(text: &mut String, bytes: &[u8]) {
    let ends_word = |c: Option<char>| c.is_none_or(char::is_whitespace);
    push_unless(text, bytes, |before, c, after| {
        !c.is_whitespace() || c == ' ' && !ends_word(before) && !ends_word(after)
    });
}

/// Adds to a text what [`escape_blanks`] makes of bytes.
pub(crate) fn push_blanks_escaped(text: &mut String, bytes: &[u8]) {
    push_unless(text, bytes, |_, c, _| !c.is_whitespace());
}

/// Adds to a text what [`escape_word`] makes of bytes.
pub(crate) fn push_word_escaped(text: &mut String, bytes: &[u8]) {
    push_unless(text, bytes, |_, c, _| !c.is_whitespace() && !matches!(c, ':' | ',' | '(' | ')'));
}

/// The bytes from which a function of this module made a text. `None`: none of them makes this
/// text.
///
/// ```
/// use lsbuf::escape::{escape, unescape};
/// assert_eq!(escape(b"a\\\xff"), r"a\\\xff");
/// assert_eq!(unescape(r"a\\\xff"), Some(b"a\\\xff".to_vec()));
/// assert_eq!(unescape(r"a\n"), None);
/// ```
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'x', high, low, after @ ..]) => (hex_digit(*high)? << 4 | hex_digit(*low)?, after),
            (b'\\', _) => return None,
            _ => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    Some(bytes)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Escapes the characters that JSON allows in a string and that must not reach a terminal. `text`
/// is the inside of a JSON string already, and the result means the same string.
#[must_use]
pub fn escape_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut shown = MarkBudget::default();
    for c in text.chars() {
        if shown.may_show(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

/// Adds bytes to a text. Escapes characters that must not be shown, and those that `keep` refuses
/// between the characters before and after them. What it says of a printable ASCII character other
/// than the blank is the same between all others.
fn push_unless(text: &mut String, bytes: &[u8], keep: impl Fn(Option<char>, char, Option<char>) -> bool) {
    // Most text has only characters that stay.
    let stays = |&b: &u8| b.is_ascii_graphic() && b != b'\\' && keep(None, b.into(), None);
    if let (true, Ok(plain)) = (bytes.iter().all(stays), std::str::from_utf8(bytes)) {
        return text.push_str(plain);
    }
    let mut shown = MarkBudget::default();
    let mut before = None;
    for chunk in bytes.utf8_chunks() {
        let broken = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            let kept = keep(before, c, chars.peek().copied().or(broken));
            if kept && shown.may_show(c) {
                text.push(c);
                text.extend((c == '\\').then_some(c));
            } else {
                shown = MarkBudget::default();
                push_hex(text, c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            before = Some(c);
        }
        if broken.is_some() {
            (shown, before) = (MarkBudget::default(), broken);
        }
        push_hex(text, chunk.invalid());
    }
}

/// How many more marks may follow the last character. At the beginning there is no character to
/// carry any.
#[derive(Default)]
struct MarkBudget {
    marks_left: usize,
}

impl MarkBudget {
    /// Whether a character may be shown as the next one.
    fn may_show(&mut self, c: char) -> bool {
        // Most text is of these. The rules below say the same of them, and take longer.
        if c.is_ascii_graphic() {
            self.marks_left = MARKS;
            return true;
        }
        let may = !is_tricky(c) && (c.width() != Some(0) || self.marks_left > 0);
        self.marks_left = match (may, c.width()) {
            (true, Some(0)) => self.marks_left - 1,
            (true, _) if !c.is_whitespace() => MARKS,
            _ => 0,
        };
        may
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Whether a character must not reach a terminal. These are, in Unicode 16.0: control characters,
/// line and paragraph separators, all format characters (general category Cf), all that may be
/// drawn as nothing (Default_Ignorable_Code_Point), and the blank of Braille.
fn is_tricky(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
            | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Bytes as one word of a shell's command line. What is not printable ASCII is escaped as in
/// `$'\033'`, which bash, zsh, ksh and POSIX of 2024 understand.
#[must_use]
pub fn shell_word(bytes: &[u8]) -> String {
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"_/.:=+@%,-".contains(b);
    let text = |bytes: &[u8]| bytes.iter().map(|&b| char::from(b)).collect::<String>();
    if !bytes.is_empty() && bytes.iter().all(is_plain) {
        return text(bytes);
    }
    if bytes.iter().all(|b| matches!(b, b' '..=b'~')) {
        return format!("'{}'", text(bytes).replace('\'', r"'\''"));
    }
    let escaped = bytes.iter().map(|&b| match b {
        b'\'' | b'\\' => format!("\\{}", char::from(b)),
        // Always three octal digits, so that a digit that follows is not taken for part of it.
        b' '..=b'~' => char::from(b).to_string(),
        _ => format!("\\{b:03o}"),
    });
    format!("$'{}'", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_syntax::hir::{Class, HirKind};

    use super::*;

    /// Text of the characters that forgeries are made of: letters, blanks, marks, invisible ones.
    fn hostile() -> impl Strategy<Value = String> {
        "([a-z]|[\\p{Z}\\t\\n]|\\p{M}|\\p{Cf}|\\p{Default_Ignorable_Code_Point}|.|\\\\){0,40}"
    }

    fn longest_run(text: &str, is_of: impl Fn(char) -> bool) -> usize {
        text.split(|c| !is_of(c)).map(|run| run.chars().count()).max().unwrap_or(0)
    }

    proptest! {
        /// Check that no bytes let a control character through.
        #[test]
        fn nothing_raw(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(!escape(&bytes).contains(char::is_control));
        }

        /// Check that any escaped text can be turned back into the same bytes.
        #[test]
        fn reversible(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in hostile()) {
            for bytes in [bytes, text.into_bytes()] {
                for escape in [escape, escape_gaps, escape_blanks, escape_word] {
                    prop_assert_eq!(unescape(&escape(&bytes)), Some(bytes.clone()));
                }
            }
        }

        /// Check that a blank-separated field never contains a blank.
        #[test]
        fn no_blanks(text in hostile()) {
            prop_assert!(!escape_blanks(text.as_bytes()).contains(char::is_whitespace));
        }

        /// Check that nothing in a column looks like the gap to the next: no two blanks in a row,
        /// none at either end, and none but the ASCII one.
        #[test]
        fn no_gaps(text in hostile()) {
            let shown = escape_gaps(text.as_bytes());
            prop_assert_eq!(shown.trim(), &shown);
            prop_assert!(longest_run(&shown, char::is_whitespace) <= 1, "{:?}", shown);
            prop_assert!(!shown.contains(|c: char| c.is_whitespace() && c != ' '), "{:?}", shown);
        }

        /// Check that marks neither pile up nor combine with text before them, also in JSON.
        #[test]
        fn few_marks(text in hostile()) {
            let is_mark = |c: char| c.width() == Some(0);
            let json = escape_json(&serde_json::to_string(&text).unwrap());
            for shown in [escape(text.as_bytes()), escape_gaps(text.as_bytes()), json] {
                prop_assert!(longest_run(&shown, is_mark) <= MARKS, "{:?}", shown);
                prop_assert!(!shown.starts_with(is_mark), "{:?}", shown);
            }
        }

        /// Check that JSON made harmless says the same, and lets nothing through that a terminal
        /// obeys.
        #[test]
        fn json_says_the_same(text in hostile()) {
            let escaped = escape_json(&serde_json::to_string(&text).unwrap());
            prop_assert!(!escaped.contains(is_tricky));
            prop_assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        }

        /// Check that what was never escaped is either turned back into itself or refused, and
        /// never panics.
        #[test]
        fn any_text_can_be_asked_for(text in any::<String>()) {
            let bytes = unescape(&text);
            prop_assert!(text.contains('\\') || bytes == Some(text.into_bytes()));
        }
    }

    /// Check that exactly those characters are tricky that Unicode lists so, by the tables of
    /// another crate.
    #[test]
    fn as_unicode_has_it() {
        let hidden = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\x{2800}]";
        let parsed = regex_syntax::parse(hidden).unwrap();
        let HirKind::Class(Class::Unicode(class)) = parsed.kind() else { panic!("{parsed:?}") };
        let is_hidden =
            |c: char| class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&c));
        let wrong: Vec<char> = ('\0'..=char::MAX).filter(|&c| is_tricky(c) != is_hidden(c)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Check that a command name cannot pose as a list of holders.
    #[test]
    fn words() {
        assert_eq!(escape_word(b"sshd:1(9f) a"), "sshd\\x3a1\\x289f\\x29\\x20a");
    }

    /// Check that ordinary text in any script stays readable.
    #[test]
    fn text_stays() {
        for text in ["Kamera 前 é", "e\u{301}e\u{301}", "नमस्ते", "שָׁלוֹם", "ที่นี่", "가"]
        {
            assert_eq!(escape_gaps(text.as_bytes()), text);
        }
    }

    /// Check that a name cannot forge the columns behind it.
    #[test]
    fn forged_columns() {
        assert_eq!(escape_gaps(b"x   9 9"), r"x\x20\x20\x209 9");
        assert_eq!(escape_gaps("x\u{a0}\u{2003} 9 ".as_bytes()), r"x\xc2\xa0\xe2\x80\x83\x209\x20");
        assert_eq!(escape_gaps(b" "), r"\x20");
    }

    /// Check that of sixty marks four are shown, and none where there is nothing to carry it.
    #[test]
    fn many_marks() {
        let mark = "\u{301}";
        let (shown, hidden) = (mark.repeat(4), r"\xcc\x81");
        assert_eq!(
            escape(format!("a{}", mark.repeat(60)).as_bytes()),
            format!("a{shown}{}", hidden.repeat(56))
        );
        assert_eq!(escape(format!("{mark}a {mark}").as_bytes()), format!("{hidden}a {hidden}"));
    }

    /// Check that text which turns the reading direction is shown as bytes.
    #[test]
    fn right_to_left_override() {
        assert_eq!(escape("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }

    /// Check that a shell's word is quoted only if it has to be, and that no byte ends the quotes.
    #[test]
    fn words_of_a_shell() {
        let word = |bytes: &[u8]| shell_word(bytes);
        assert_eq!(word(b"--ipc=/run/ipcns/a-1"), "--ipc=/run/ipcns/a-1");
        assert_eq!((word(b""), word(b"a b;$(x)")), ("''".into(), "'a b;$(x)'".into()));
        assert_eq!(word(b"it's"), r"'it'\''s'");
        assert_eq!(word(b"\n'\x1b1\xff\\"), r"$'\012\'\0331\377\\'");
    }
}
