//! [`DmaBuf`]: a descriptor that is known to be a dma-buf, with its name, size and identity.
//!
//! A path proves nothing, because any file may be called `/dmabuf:x`. So a `DmaBuf` is made in two
//! ways only: an exporter returned the descriptor, or the descriptor is on the filesystem that the
//! kernel uses for dma-bufs alone. Limits: the kernel has no ioctl that reads the name back, and
//! nothing here says which other processes hold the buffer.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fstat, fstatfs, major, minor};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::kernel::ioctl;
use crate::{Error, ErrorKind, Result};

/// The longest name of a dma-buf, in bytes. The kernel's `DMA_BUF_NAME_LEN` is 32, because it
/// counts the terminating NUL.
pub const MAX_NAME_LEN: usize = 31;

/// `DMA_BUF_MAGIC` of `include/uapi/linux/magic.h`: the filesystem that holds dma-bufs and nothing
/// else.
const DMA_BUF_MAGIC: u64 = 0x444d_4142;

/// A dma-buf, held by one file descriptor.
///
/// Get one from [`Heap`](crate::Heap), [`Udmabuf`](crate::Udmabuf),
/// [`GemHandle::export`](crate::GemHandle::export),
/// [`VideoBuffers::export`](crate::VideoBuffers::export) or
/// [`share::receive`](crate::share::receive); or prove with [`try_from_fd`](Self::try_from_fd) that
/// a descriptor you already have is one.
///
/// Dropping it closes the descriptor. The memory is freed with the last reference: other
/// descriptors, mappings, importing devices and messages in flight keep it.
///
/// ```
/// use std::os::fd::OwnedFd;
///
/// // Any other file is refused, whatever its path is.
/// let file = std::fs::File::open("/proc/self/exe").unwrap();
/// let error = dmabuf::DmaBuf::try_from_fd(OwnedFd::from(file)).unwrap_err();
/// assert_eq!(error.kind(), dmabuf::ErrorKind::NotDmaBuf);
/// ```
#[derive(Debug)]
pub struct DmaBuf {
    fd: OwnedFd,
}

/// What tells one dma-buf from all others.
///
/// From Linux 5.18 (and 5.17.10) on, the inode number is unique until the next boot. On 5.10 it
/// comes from a 32-bit counter that other filesystems use too and that may repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The device of the kernel's dma-buf filesystem: the same for all dma-bufs of one boot.
    pub dev: DeviceNumber,
    /// The inode number: `ino:` in fdinfo, and the inode column of `/proc/PID/maps`.
    pub ino: u64,
    /// The size in bytes, which never changes.
    pub size: u64,
}

/// A device number, split as `/proc/PID/maps` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// The major number: 0 for the dma-buf filesystem, which has no device.
    pub major: u32,
    /// The minor number. It can differ from boot to boot.
    pub minor: u32,
}

impl DmaBuf {
    /// Takes a descriptor that an allocation or export request has returned.
    pub(crate) fn from_exporter(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Takes any descriptor, after proving that it is a dma-buf.
    ///
    /// The proof is the filesystem type that `fstatfs` reports (Linux 5.3 and later). On error the
    /// descriptor is closed.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NotDmaBuf`]: the descriptor is something else.
    /// * [`ErrorKind::PathOnly`]: a dma-buf opened with `O_PATH`. Such a descriptor keeps the
    ///   memory allocated, but the kernel accepts no request on it.
    pub fn try_from_fd(fd: OwnedFd) -> Result<Self> {
        if !Self::is_dma_buf(&fd)? {
            return Err(Error::new(
                ErrorKind::NotDmaBuf,
                "the descriptor is not a dma-buf; pass one that a heap, udmabuf, DRM export or other exporter returned",
            ));
        }
        let flags = fcntl_getfl(&fd)
            .map_err(|errno| Error::from_errno("cannot read the descriptor's flags", errno))?;
        if flags.contains(OFlags::PATH) {
            return Err(Error::new(
                ErrorKind::PathOnly,
                "the descriptor is a dma-buf opened with O_PATH, which accepts no call; \
                 duplicate the original descriptor or send it over a socket instead",
            ));
        }
        Ok(Self { fd })
    }

    /// Whether a descriptor is a dma-buf, whatever its open mode is, `O_PATH` included.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`] if `fstatfs` fails.
    pub fn is_dma_buf(fd: impl AsFd) -> Result<bool> {
        let stat = fstatfs(fd)
            .map_err(|errno| Error::from_errno("cannot read the descriptor's file system", errno))?;
        // The type of `f_type` differs in width and sign between architectures.
        Ok(u64::try_from(stat.f_type).is_ok_and(|magic| magic == DMA_BUF_MAGIC))
    }

    /// Duplicates the descriptor, close-on-exec. The buffer's reference count rises by one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfDescriptors`].
    pub fn try_clone(&self) -> Result<Self> {
        // At 3 or above, as the standard library does it: the new descriptor must not become stdin,
        // stdout or stderr where one of those is closed.
        let fd = fcntl_dupfd_cloexec(&self.fd, 3)
            .map_err(|errno| Error::from_errno("cannot duplicate the dma-buf's descriptor", errno))?;
        Ok(Self { fd })
    }

    /// Names the buffer (`DMA_BUF_SET_NAME_B`, Linux 5.7).
    ///
    /// The name shows in `/proc/PID/fdinfo`, `/proc/PID/maps` and debugfs. It has at most
    /// [`MAX_NAME_LEN`] bytes, may be empty, and may contain any byte but NUL. A name proves
    /// nothing, because every holder may rename the buffer at any time. The kernel prints names
    /// unescaped, so a newline in one breaks the lines of those files.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidName`]: longer than 31 bytes, or with a NUL; no call was made.
    /// * [`ErrorKind::NameBusy`]: a device is attached to the buffer, and this kernel then refuses
    ///   to rename it (5.10 does).
    /// * [`ErrorKind::Unsupported`]: the kernel is older than the request.
    pub fn set_name(&self, name: impl AsRef<[u8]>) -> Result<()> {
        let name = check_name(name.as_ref())?;
        ioctl::set_name(self.as_fd(), &name).map_err(|errno| match errno {
            Errno::BUSY => Error::with_errno(
                ErrorKind::NameBusy,
                "cannot name the dma-buf: a device is attached and this kernel refuses while one is (Linux 5.10 does); \
                 name it before importing it",
                errno,
            ),
            errno => Error::from_errno("cannot name the dma-buf", errno),
        })
    }

    /// The size in bytes: a multiple of the page size with every known exporter.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`] if `fstat` fails.
    pub fn size(&self) -> Result<u64> {
        Ok(self.identity()?.size)
    }

    /// The device, inode number and size of the buffer, from `fstat`. The kernel sets them in
    /// `dma_buf_getfile()` (Linux 5.3 and later).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`] if `fstat` fails.
    pub fn identity(&self) -> Result<Identity> {
        let stat = fstat(&self.fd).map_err(|errno| Error::from_errno("cannot stat the dma-buf", errno))?;
        Ok(Identity {
            dev: DeviceNumber { major: major(stat.st_dev), minor: minor(stat.st_dev) },
            ino: stat.st_ino,
            size: stat.st_size.cast_unsigned(),
        })
    }
}

impl AsFd for DmaBuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<DmaBuf> for OwnedFd {
    fn from(buf: DmaBuf) -> Self {
        buf.fd
    }
}

fn check_name(name: &[u8]) -> Result<CString> {
    if name.len() > MAX_NAME_LEN {
        return Err(Error::new(
            ErrorKind::InvalidName,
            format!(
                "the name has {} bytes, but a dma-buf's name has at most {MAX_NAME_LEN}; shorten it",
                name.len()
            ),
        ));
    }
    CString::new(name).map_err(|error| {
        Error::new(
            ErrorKind::InvalidName,
            format!(
                "the name has a NUL byte at position {}, where the kernel would cut it",
                error.nul_position()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, open};

    use super::*;

    /// Check that 31 bytes and an empty string are valid names.
    #[test]
    fn accepts_names_up_to_the_limit() {
        assert_eq!(check_name(&[b'x'; 31]).unwrap().as_bytes().len(), 31);
        assert!(check_name(b"").is_ok());
    }

    /// Check that a name of 32 bytes is refused with its length in the message.
    #[test]
    fn refuses_32_bytes() {
        let error = check_name(&[b'x'; 32]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName);
        assert!(error.to_string().contains("32 bytes"), "{error}");
    }

    /// Check that a NUL is refused with its position in the message.
    #[test]
    fn refuses_nul() {
        let error = check_name(b"ab\0c").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName);
        assert!(error.to_string().contains("position 2"), "{error}");
    }

    /// Check that bytes that are not UTF-8, and newlines, are accepted, as the kernel accepts them.
    #[test]
    fn accepts_hostile_bytes() {
        assert!(check_name(b"\xff\n\x1b[2J").is_ok());
    }

    /// Check that a regular file is not taken for a dma-buf.
    #[test]
    fn refuses_a_regular_file() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(DmaBuf::try_from_fd(file.into()).unwrap_err().kind(), ErrorKind::NotDmaBuf);
    }

    /// Check that a file whose path looks like a dma-buf's is not taken for one.
    #[test]
    fn refuses_a_lookalike_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dmabuf:frame");
        let fd = open(&path, OFlags::CREATE | OFlags::RDWR, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(!DmaBuf::is_dma_buf(&fd).unwrap());
    }

    /// Check that `set_name` checks the name before it makes a call: a call would fail otherwise,
    /// as the descriptor is no dma-buf.
    #[test]
    fn checks_the_name_before_the_call() {
        let buf = DmaBuf { fd: tempfile::tempfile().unwrap().into() };
        assert_eq!(buf.set_name([b'x'; 32]).unwrap_err().kind(), ErrorKind::InvalidName);
        assert_eq!(buf.set_name("ok").unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
