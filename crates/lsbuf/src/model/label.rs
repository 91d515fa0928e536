//! Text that some process chose: buffer names, command names, cgroup paths.
//!
//! It may have any bytes but NUL, so a [`Label`] is bytes. Printed by `{}` it is escaped for one
//! line of a terminal. Tables and CSV need more than that: `render` escapes the bytes for its
//! formats itself.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use crate::escape::escape;

/// Untrusted bytes. Never print them raw; `{}` escapes them, as [`escape`] does.
///
/// ```
/// use lsbuf::model::Label;
/// let name = Label::from(&b"cam\x1b[2J"[..]);
/// assert_eq!(name.to_string(), r"cam\x1b[2J");
/// assert_eq!(name.as_bytes(), b"cam\x1b[2J");
/// ```
///
/// Short ones need no memory of their own: almost every name is one, and comes once per reference.
#[derive(Clone)]
pub struct Label(Text);

#[derive(Clone)]
enum Text {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

/// As many as make the whole no larger than three words.
const SHORT: usize = 22;

impl Label {
    /// The bytes as the kernel gave them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Text::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Text::Long(bytes) => bytes,
        }
    }

    /// Whether there is no text at all; for a buffer's name this means "unnamed".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// As UTF-8, invalid sequences replaced by U+FFFD; control characters are kept, so this is for
    /// formats with an escaping of their own (JSON), not for a terminal.
    #[must_use]
    pub fn to_utf8_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }
}

impl From<&[u8]> for Label {
    fn from(bytes: &[u8]) -> Label {
        let mut short = [0; SHORT];
        Label(match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(room), Ok(len)) => {
                room.copy_from_slice(bytes);
                Text::Short(len, short)
            }
            _ => Text::Long(bytes.into()),
        })
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Label {
        text.as_bytes().into()
    }
}

impl Default for Label {
    fn default() -> Label {
        Label(Text::Short(0, [0; SHORT]))
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Label) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Label {}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Label) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Label {
    fn cmp(&self, other: &Label) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(self.as_bytes()))
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that a name costs no more than three words where it stands.
    #[test]
    fn size() {
        assert_eq!(size_of::<Label>(), 3 * size_of::<usize>());
    }

    proptest! {
        /// Check that bytes of any length come back, and compare as they do.
        #[test]
        fn bytes_in_bytes_out(a in prop::collection::vec(any::<u8>(), 0..40), b in prop::collection::vec(any::<u8>(), 0..40)) {
            let (one, other) = (Label::from(a.as_slice()), Label::from(b.as_slice()));
            prop_assert_eq!(one.as_bytes(), a.as_slice());
            prop_assert_eq!(one.cmp(&other), a.cmp(&b));
            prop_assert_eq!(one == other, a == b);
        }
    }
}
