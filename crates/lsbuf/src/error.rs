//! Why there is no answer at all. Partial answers are not errors: see
//! [`Coverage`](crate::model::Coverage).

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
    /// The system refused: a permission is missing (`EPERM`, `EACCES`): as root, or with the
    /// capabilities that [`Scanner::diagnose`](crate::scan::Scanner::diagnose) names, it may work.
    PermissionDenied,
    /// What was named is not there (`ENOENT`, `ENOTDIR`).
    NotFound,
    /// A file is no recording, is damaged, or was written by a newer release.
    NotRecording,
    /// Another process uses what only one may.
    Busy,
    /// No space is left to write to.
    NoSpace,
    /// The system failed in any other way. [`Error::source`](std::error::Error::source) says how.
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

    /// Of a system call that failed, whose error decides on the kind.
    pub(crate) fn io(source: impl Into<io::Error>, text: String) -> Error {
        let source = source.into();
        let kind = match source.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
            io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        Error { kind, text, source: Some(source) }
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

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// Check that a refusal and a wrong path are told from other failures, and that the system's
    /// own error is kept.
    #[test]
    fn kinds() {
        let of = |errno: Errno| Error::io(errno, "x".to_owned()).kind();
        assert_eq!([of(Errno::PERM), of(Errno::ACCESS)], [ErrorKind::PermissionDenied; 2]);
        assert_eq!([of(Errno::NOENT), of(Errno::NOTDIR)], [ErrorKind::NotFound; 2]);
        assert_eq!([of(Errno::IO), of(Errno::MFILE)], [ErrorKind::Io; 2]);
        let source = Error::io(Errno::MFILE, "x".to_owned()).source.and_then(|e| e.raw_os_error());
        assert_eq!(source, Some(Errno::MFILE.raw_os_error()));
    }

    /// Check that scanning what is not there, or is no directory, says so.
    #[test]
    fn of_a_scan() {
        let scan = |path: &str| {
            let options = crate::scan::Options { proc_root: path.into(), ..crate::scan::Options::default() };
            crate::scan(options).unwrap_err().kind()
        };
        assert_eq!([scan("/no/such/folder"), scan("/proc/version")], [ErrorKind::NotFound; 2]);
    }
}
