//! Decides the result of a claim, with comparisons that several claims share.
//!
//! An error of a system call is judged too: if a right, memory or fds are missing, it says nothing
//! about the claim; any other error makes the claim false.
//!
//! Limits: nothing here reads from the kernel.

use std::fmt::Display;

use dmabuf::ErrorKind;
use rustix::io::Errno;

use crate::kernel::parse::Malformed;

/// `Ok` if a claim is true.
pub(super) type Tried = Result<(), Fault>;

/// Why a claim is not known to be true.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is false; what was seen.
    Broken(String),
    /// It could not be tried; why not.
    Untried(String),
}

impl Fault {
    /// The same, with words in front that say where.
    pub(super) fn at(self, what: impl Display) -> Fault {
        match self {
            Fault::Broken(seen) => Fault::Broken(format!("{what}: {seen}")),
            Fault::Untried(why) => Fault::Untried(format!("{what}: {why}")),
        }
    }
}

/// Adds what was attempted to an error.
pub(super) trait Attempt<T> {
    /// The value, or a fault that begins with `what`.
    fn attempt(self, what: impl Display) -> Result<T, Fault>;
}

impl<T, E: Into<Fault>> Attempt<T> for Result<T, E> {
    fn attempt(self, what: impl Display) -> Result<T, Fault> {
        self.map_err(|error| error.into().at(what))
    }
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        let text = std::io::Error::from(errno).to_string();
        match errno {
            Errno::ACCESS | Errno::PERM | Errno::MFILE | Errno::NFILE | Errno::NOMEM => Fault::Untried(text),
            _ => Fault::Broken(text),
        }
    }
}

impl From<dmabuf::Error> for Fault {
    fn from(error: dmabuf::Error) -> Fault {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::OutOfDescriptors | ErrorKind::OutOfMemory => {
                Fault::Untried(text)
            }
            _ => Fault::Broken(text),
        }
    }
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Fault {
        Fault::Broken("text that lsbuf cannot read".to_owned())
    }
}

/// Whether two values are equal.
pub(super) fn same<T: PartialEq + Display>(what: impl Display, expected: T, seen: T) -> Tried {
    that(expected == seen, || format!("{what}: {seen} instead of {expected}"))
}

/// Whether two texts are equal; if not, they are shown with unprintable bytes escaped.
pub(super) fn same_text(what: impl Display, expected: &[u8], seen: &[u8]) -> Tried {
    same(what, expected.escape_ascii().to_string(), seen.escape_ascii().to_string())
}

/// Whether something is so; if not, `seen` says what is so instead.
pub(super) fn that(holds: bool, seen: impl FnOnce() -> String) -> Tried {
    if holds { Ok(()) } else { Err(Fault::Broken(seen())) }
}

/// One claim tried in several places. It is false if it is false in any of them; else it is true if
/// it is true in any.
pub(super) fn together(tried: impl IntoIterator<Item = Tried>) -> Tried {
    let (mut held, mut broken, mut untried) = (false, Vec::new(), Vec::new());
    for outcome in tried {
        match outcome {
            Ok(()) => held = true,
            Err(Fault::Broken(seen)) => broken.push(seen),
            Err(Fault::Untried(why)) => untried.push(why),
        }
    }
    if !broken.is_empty() {
        Err(Fault::Broken(broken.join("; ")))
    } else if held {
        Ok(())
    } else {
        Err(Fault::Untried(untried.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that different values make a claim false, and that both are shown.
    #[test]
    fn differences_are_shown() {
        assert_eq!(same("count", 1, 1), Ok(()));
        assert_eq!(same("count", 2, 1), Err(Fault::Broken("count: 1 instead of 2".into())));
        let fault = same_text("link", b"a\n", b"a\\n").unwrap_err();
        assert_eq!(fault, Fault::Broken(r"link: a\\n instead of a\n".into()));
    }

    /// Check that a claim that is false with one exporter is false, and that one that could be
    /// tried with some exporter is not skipped.
    #[test]
    fn one_exporter_decides() {
        let (broken, untried) = (|| Err(Fault::Broken("b".into())), || Err(Fault::Untried("u".into())));
        assert_eq!(together([Ok(()), untried(), broken()]), broken());
        assert_eq!(together([Ok(()), untried()]), Ok(()));
        assert_eq!(together([untried()]), untried());
    }

    /// Check that a claim that was tried nowhere is not true.
    #[test]
    fn tried_nowhere() {
        assert!(matches!(together([]), Err(Fault::Untried(_))));
    }

    /// Check that missing rights or resources make no claim false, and that other errors do.
    #[test]
    fn refusals() {
        assert!(matches!(Fault::from(Errno::PERM), Fault::Untried(_)));
        assert!(matches!(Fault::from(Errno::MFILE), Fault::Untried(_)));
        assert!(matches!(Fault::from(Errno::BUSY), Fault::Broken(_)));
        let error =
            dmabuf::DmaBuf::try_from_fd(std::fs::File::open("/dev/null").unwrap().into()).unwrap_err();
        assert!(matches!(Fault::from(error), Fault::Broken(_)));
    }
}
