//! The crate's one error type: a kind to branch on, a message to show, and the errno as its source.
//!
//! The kernel reports very different mistakes with the same `EINVAL`. So arguments are checked
//! before a call, and if the call still fails, the cause is worked out from what can be read about
//! the machine. Limit: an errno with no known cause becomes [`ErrorKind::Other`]; no cause is
//! guessed.

use std::fmt;

use rustix::io::Errno;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation.
///
/// `Display` gives one line with the cause and the remedy. [`kind`](Self::kind) is the cause to
/// branch on. The kernel's errno, if there was one, is the [`source`](std::error::Error::source).
///
/// ```
/// let error = dmabuf::Heap::open("no such heap").unwrap_err();
/// assert_eq!(error.kind(), dmabuf::ErrorKind::NoHeap);
/// eprintln!("{error}"); // names the heaps that exist, or the kernel option to enable
/// ```
pub struct Error {
    // Boxed to keep a `Result` of this crate as small as its success value.
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    errno: Option<Errno>,
}

/// The cause of an [`Error`], to branch on.
///
/// ```
/// use dmabuf::{ErrorKind, Heap};
///
/// match Heap::open("system") {
///     Ok(heap) => println!("{}", heap.name()),
///     // A kernel without heaps: try udmabuf instead.
///     Err(error) if error.kind() == ErrorKind::NoHeap => println!("no heap"),
///     Err(error) => eprintln!("{error}"),
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no heap of that name under `/dev/dma_heap`.
    NoHeap,
    /// `/dev/udmabuf` is absent.
    NoUdmabuf,
    /// There is no DRM device at that path, or none with that driver.
    NoDrmDevice,
    /// There is no video device at that path or with that driver, or it cannot capture into
    /// buffers.
    NoVideoDevice,
    /// This user may not open the device node, or may not do the operation.
    PermissionDenied,
    /// A name is too long or contains a NUL byte.
    InvalidName,
    /// The buffer cannot be renamed while a device is attached to it (Linux 5.10).
    NameBusy,
    /// A size is zero, not a multiple of the page size, or beyond what the call can express.
    InvalidSize,
    /// A size or a number of ranges exceeds a limit that the administrator can raise.
    SizeLimit,
    /// An offset or a length is misaligned or reaches past the end, or no buffer has that index.
    InvalidRange,
    /// Another open file uses the device's queue, or a dma-buf is queued at that index already.
    Busy,
    /// The memfd has no `F_SEAL_SHRINK` or has a seal against writing, or the descriptor is no
    /// memfd.
    NotSealed,
    /// The descriptor is not a dma-buf.
    NotDmaBuf,
    /// The descriptor is a dma-buf opened with `O_PATH`, on which the kernel accepts no request.
    PathOnly,
    /// The descriptor that was given as a sync file is not one, or it has no fence.
    NotSyncFile,
    /// A mapping was used together with another buffer than the one that it maps.
    WrongBuffer,
    /// The exporter does not let user space map the buffer in this way.
    NotMappable,
    /// The mapping or the declared direction does not allow this access.
    AccessNotDeclared,
    /// The kernel or the driver does not offer this operation.
    Unsupported,
    /// The kernel has not enough memory or address space.
    OutOfMemory,
    /// This process or the machine has no free file descriptor.
    OutOfDescriptors,
    /// There are more buffers than one message can carry.
    TooManyBuffers,
    /// A payload is empty or too long for its socket.
    InvalidPayload,
    /// A received message did not fit, so that descriptors or payload bytes were lost.
    Truncated,
    /// The other end of the socket is closed.
    Disconnected,
    /// The socket is non-blocking and not ready.
    WouldBlock,
    /// Anything else; the error's source is the errno.
    Other,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { kind, message: message.into(), errno: None }) }
    }

    pub(crate) fn with_errno(kind: ErrorKind, message: impl Into<String>, errno: Errno) -> Self {
        Self { inner: Box::new(Inner { kind, message: message.into(), errno: Some(errno) }) }
    }

    /// Makes the error for an errno that means the same in every call. `what` says what was
    /// attempted.
    pub(crate) fn from_errno(what: impl fmt::Display, errno: Errno) -> Self {
        let (kind, why) = match errno {
            Errno::MFILE => (
                ErrorKind::OutOfDescriptors,
                "this process has no free file descriptor; close some or raise its limit (ulimit -n)",
            ),
            Errno::NFILE => (
                ErrorKind::OutOfDescriptors,
                "the machine has no free file descriptor; raise the sysctl fs.file-max",
            ),
            Errno::NOMEM => {
                (ErrorKind::OutOfMemory, "the kernel has not enough memory; ask for less or free some")
            }
            Errno::ACCESS | Errno::PERM => (
                ErrorKind::PermissionDenied,
                "permission denied; check the device's owner and any security module (SELinux, AppArmor, seccomp)",
            ),
            Errno::NOTTY => (ErrorKind::Unsupported, "this kernel does not know the request"),
            Errno::NOSYS | Errno::OPNOTSUPP => {
                (ErrorKind::Unsupported, "the driver does not offer this operation")
            }
            Errno::NODEV | Errno::NXIO => {
                (ErrorKind::Unsupported, "no driver serves this device node; load its module and try again")
            }
            _ => (
                ErrorKind::Other,
                "the kernel refused the request, and the errno is all that is known of the cause",
            ),
        };
        Self::with_errno(kind, format!("{what}: {why}"), errno)
    }

    /// The cause, to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The errno, if a system call failed; `None` if an argument was refused before any call.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.inner.errno.map(Errno::raw_os_error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.inner.message)
            .field("errno", &self.inner.errno)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.errno.as_ref().map(|errno| errno as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// Check that the errno is kept as the source, so that a chain of causes can be printed.
    #[test]
    fn errno_is_the_source() {
        let error = Error::from_errno("cannot do it", Errno::MFILE);
        assert_eq!(error.source().unwrap().to_string(), Errno::MFILE.to_string());
        assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    }

    /// Check that an argument refused before any call has no source.
    #[test]
    fn checked_argument_has_no_source() {
        assert!(Error::new(ErrorKind::InvalidSize, "zero").source().is_none());
    }

    /// Check that an unknown request and a refused one have different kinds.
    #[test]
    fn enotty_is_unsupported() {
        assert_eq!(Error::from_errno("x", Errno::NOTTY).kind(), ErrorKind::Unsupported);
        assert_eq!(Error::from_errno("x", Errno::PERM).kind(), ErrorKind::PermissionDenied);
    }

    /// Check that running out of descriptors names the limit to raise.
    #[test]
    fn emfile_says_what_to_raise() {
        assert!(Error::from_errno("x", Errno::MFILE).to_string().contains("ulimit -n"));
        assert!(Error::from_errno("x", Errno::NFILE).to_string().contains("fs.file-max"));
    }
}
