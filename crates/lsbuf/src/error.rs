//! Why there is no answer at all. Partial answers are not errors: see [`Coverage`](crate::model::Coverage).

use std::fmt;
use std::io;

/// What went wrong, for a program to decide on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The directory given as procfs is neither one nor a recorded tree of one.
    NotProcfs,
    /// A source that was asked for by name is not there.
    NoSource,
    /// Iterators cannot be pinned there, or not be removed.
    NotPinned,
    /// The root of procfs could not be read.
    Io,
}

/// Why there is no answer. [`Error::kind`] is for programs, `Display` for people.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    text: String,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: String) -> Error {
        Error { kind, text, source: None }
    }

    pub(crate) fn io(source: impl Into<io::Error>, text: String) -> Error {
        Error { kind: ErrorKind::Io, text, source: Some(source.into()) }
    }

    /// Which kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
