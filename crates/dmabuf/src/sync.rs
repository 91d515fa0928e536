//! Directions of access, and sync files: a buffer's fences as file descriptors.
//!
//! The three ioctls for synchronization in `include/uapi/linux/dma-buf.h` take the same direction,
//! so there is one type for it. A buffer carries fences for the work of devices on it, and drivers
//! wait for them implicitly. A program that synchronizes explicitly exports them as a [`SyncFile`],
//! or adds a fence of its own by importing one. Sync files need Linux 6.0 and `CONFIG_SYNC_FILE`,
//! which some small cloud kernels are built without. Limit: nothing here waits; poll the
//! descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::kernel::ioctl::{self, SyncBits};
use crate::{DmaBuf, Error, ErrorKind, Result};

/// What is done to the memory of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// It is read (`DMA_BUF_SYNC_READ`).
    Read,
    /// It is written (`DMA_BUF_SYNC_WRITE`).
    Write,
    /// It is read and written (`DMA_BUF_SYNC_RW`).
    ReadWrite,
}

impl Direction {
    pub(crate) fn bits(self) -> SyncBits {
        match self {
            Self::Read => SyncBits::READ,
            Self::Write => SyncBits::WRITE,
            Self::ReadWrite => SyncBits::READ_WRITE,
        }
    }

    pub(crate) fn reads(self) -> bool {
        self != Self::Write
    }

    pub(crate) fn writes(self) -> bool {
        self != Self::Read
    }
}

/// A sync file: a descriptor that becomes readable when the device work behind its fence is done.
///
/// Any descriptor can be converted into one; [`DmaBuf::import_sync_file`] reports whether it really
/// is a sync file.
///
/// ```no_run
/// use dmabuf::{Direction, Heap};
///
/// let buf = Heap::open("system")?.allocate(4096)?;
/// // Readable as soon as no device writes to the buffer any more: poll it.
/// let written = buf.export_sync_file(Direction::Read)?;
///
/// // Whoever reads `other` now waits for the same work.
/// let other = Heap::open("system")?.allocate(4096)?;
/// other.import_sync_file(Direction::Write, &written)?;
/// # Ok::<(), dmabuf::Error>(())
/// ```
#[derive(Debug)]
pub struct SyncFile {
    fd: OwnedFd,
}

impl From<OwnedFd> for SyncFile {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<SyncFile> for OwnedFd {
    fn from(file: SyncFile) -> Self {
        file.fd
    }
}

impl AsFd for SyncFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl DmaBuf {
    /// Makes a sync file of the fences that the buffer has now (`DMA_BUF_IOCTL_EXPORT_SYNC_FILE`,
    /// Linux 6.0).
    ///
    /// `direction` is what you are about to do. Before a read, only device writes have to be waited
    /// for; before a write, reads too. If no work is pending, the sync file is readable at once.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Unsupported`]: the kernel is older, or built without `CONFIG_SYNC_FILE`.
    /// * [`ErrorKind::OutOfDescriptors`], [`ErrorKind::OutOfMemory`].
    pub fn export_sync_file(&self, direction: Direction) -> Result<SyncFile> {
        match ioctl::export_sync_file(self.as_fd(), direction.bits()) {
            Ok(fd) => Ok(SyncFile { fd }),
            Err(errno) => Err(sync_file_error("cannot export a sync file", errno)),
        }
    }

    /// Adds the fence of a sync file to the buffer (`DMA_BUF_IOCTL_IMPORT_SYNC_FILE`, Linux 6.0).
    ///
    /// `direction` is what the work behind the fence does. If it reads, later writers wait for it.
    /// If it writes, later readers and writers wait for it.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotSyncFile`]: the descriptor is something else.
    /// * [`ErrorKind::Unsupported`], [`ErrorKind::OutOfMemory`]: as for
    ///   [`export_sync_file`](Self::export_sync_file).
    pub fn import_sync_file(&self, direction: Direction, file: &SyncFile) -> Result<()> {
        ioctl::import_sync_file(self.as_fd(), direction.bits(), file.as_fd()).map_err(|errno| match errno {
            Errno::INVAL => Error::with_errno(
                ErrorKind::NotSyncFile,
                "cannot import the sync file: the descriptor is not one; pass one that a driver or export_sync_file returned",
                errno,
            ),
            errno => sync_file_error("cannot import the sync file", errno),
        })
    }
}

fn sync_file_error(what: &str, errno: Errno) -> Error {
    match errno {
        Errno::NOTTY => Error::with_errno(
            ErrorKind::Unsupported,
            format!(
                "{what}: this kernel does not support it; Linux 6.0 or later built with CONFIG_SYNC_FILE does"
            ),
            errno,
        ),
        errno => Error::from_errno(what, errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each direction allows what its name says, and no more.
    #[test]
    fn directions() {
        assert!(Direction::Read.reads() && !Direction::Read.writes());
        assert!(!Direction::Write.reads() && Direction::Write.writes());
        assert!(Direction::ReadWrite.reads() && Direction::ReadWrite.writes());
    }

    /// Check that the error on a kernel without sync files names the kernel option.
    #[test]
    fn enotty_names_the_option() {
        let error = sync_file_error("x", Errno::NOTTY);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("CONFIG_SYNC_FILE"), "{error}");
    }
}
