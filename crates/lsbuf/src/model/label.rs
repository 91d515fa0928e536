//! Text that a stranger chose: buffer names, comms, cgroup paths.
//!
//! A holder may set any bytes but NUL, so a [`Label`] is bytes and deliberately has no `Display`: who
//! prints one must go through `render::escape` and thereby say for which reader.

use std::borrow::Cow;
use std::fmt;

/// Untrusted bytes. Never print them raw.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<[u8]>);

impl Label {
    /// The bytes as the kernel gave them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is no text at all; for a buffer's name this means "unnamed".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As UTF-8, invalid sequences replaced by U+FFFD; control characters are kept, so this is for
    /// formats with an escaping of their own (JSON), not for a terminal.
    #[must_use]
    pub fn to_utf8_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl From<&[u8]> for Label {
    fn from(bytes: &[u8]) -> Label {
        Label(bytes.into())
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Label {
        Label(text.as_bytes().into())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}
