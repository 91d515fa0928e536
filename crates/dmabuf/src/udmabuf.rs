//! udmabuf: makes dma-bufs from pages of memfds (`CONFIG_UDMABUF`, Linux 4.20).
//!
//! Virtual machines use it, and it needs neither a device nor a heap. The buffer pins the pages and
//! keeps no reference to the memfd, so closing the memfd frees none of these pages while the buffer
//! lives. Several buffers may share pages. Limits: the module's parameters `size_limit_mb` (64 up
//! to Linux 7.2, practically unlimited on 7.3) and `list_limit` (1024).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{OFlags, SealFlags, fcntl_get_seals};
use rustix::io::Errno;

use crate::kernel::ioctl::{self, RawRange};
use crate::node::open_device;
use crate::{DmaBuf, Error, ErrorKind, MemfdRange, Result, SealedMemfd};

const NODE: &str = "/dev/udmabuf";

/// An open `/dev/udmabuf`.
///
/// ```
/// match dmabuf::Udmabuf::open() {
///     Ok(device) => assert_eq!(device.allocate(65536)?.size()?, 65536),
///     // The message says what to do: load the module, or join a group.
///     Err(error) => eprintln!("{error}"),
/// }
/// # Ok::<(), dmabuf::Error>(())
/// ```
#[derive(Debug)]
pub struct Udmabuf {
    fd: OwnedFd,
}

impl Udmabuf {
    /// Opens the device.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NoUdmabuf`]: the kernel has no `CONFIG_UDMABUF`, or the module is not loaded.
    /// * [`ErrorKind::PermissionDenied`]: the message names the node's owner and group.
    pub fn open() -> Result<Self> {
        // Read-only, because the requests need no write access to the node.
        Ok(Self { fd: open_device(Path::new(NODE), OFlags::RDONLY, ErrorKind::NoUdmabuf, no_udmabuf)? })
    }

    /// Makes a memfd of `size` bytes and a dma-buf of all its pages, and closes the memfd.
    ///
    /// `size` must be a positive multiple of the page size.
    ///
    /// # Errors
    ///
    /// As for [`SealedMemfd::create`] and [`create`](Self::create).
    pub fn allocate(&self, size: u64) -> Result<DmaBuf> {
        self.create(SealedMemfd::create("udmabuf", size)?.whole()?)
    }

    /// Makes a dma-buf from one range of a memfd (`UDMABUF_CREATE` of
    /// `include/uapi/linux/udmabuf.h`).
    ///
    /// The descriptor is read-write and close-on-exec. The memfd and the buffer share the pages, so
    /// a write to one shows in the other.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::SizeLimit`]: larger than the module's `size_limit_mb`; the message says where
    ///   to raise it.
    /// * [`ErrorKind::NotSealed`]: the memfd has `F_SEAL_FUTURE_WRITE`, and this kernel refuses
    ///   that (6.12 and 7.2 do).
    /// * [`ErrorKind::OutOfMemory`], [`ErrorKind::OutOfDescriptors`].
    pub fn create(&self, range: MemfdRange<'_>) -> Result<DmaBuf> {
        ioctl::udmabuf_create(self.fd.as_fd(), raw(&range))
            .map(DmaBuf::from_exporter)
            .map_err(|errno| explain(&[range], errno, &Limits::read()))
    }

    /// Makes one dma-buf from several ranges, in this order, of one or more memfds
    /// (`UDMABUF_CREATE_LIST`).
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create). An empty list is [`ErrorKind::InvalidSize`]; a list longer
    /// than the module's `list_limit` is [`ErrorKind::SizeLimit`].
    pub fn create_list(&self, ranges: &[MemfdRange<'_>]) -> Result<DmaBuf> {
        if ranges.is_empty() {
            return Err(Error::new(ErrorKind::InvalidSize, "a udmabuf needs at least one memfd range"));
        }
        let raw: Vec<RawRange<'_>> = ranges.iter().map(raw).collect();
        ioctl::udmabuf_create_list(self.fd.as_fd(), &raw)
            .map(DmaBuf::from_exporter)
            .map_err(|errno| explain(ranges, errno, &Limits::read()))
    }
}

impl AsFd for Udmabuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn raw<'fd>(range: &MemfdRange<'fd>) -> RawRange<'fd> {
    RawRange { memfd: range.memfd(), offset: range.offset(), size: range.size() }
}

fn no_udmabuf(errno: Errno) -> Error {
    Error::with_errno(
        ErrorKind::NoUdmabuf,
        format!(
            "{NODE} is absent: load the module (modprobe udmabuf), or use a kernel with CONFIG_UDMABUF; \
             in a container, pass the device in"
        ),
        errno,
    )
}

/// The module's limits; `None` where a parameter cannot be read.
#[derive(Debug)]
struct Limits {
    size_mb: Option<u64>,
    list: Option<usize>,
}

impl Limits {
    fn read() -> Self {
        Self { size_mb: parameter("size_limit_mb"), list: parameter("list_limit") }
    }
}

fn parameter<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::fs::read_to_string(format!("/sys/module/udmabuf/parameters/{name}")).ok()?.trim().parse().ok()
}

/// Makes the error for a failed request. For `EINVAL`, which has several causes, it finds out which
/// one applies. Alignment, bounds and all other seals were checked before the request.
fn explain(ranges: &[MemfdRange<'_>], errno: Errno, limits: &Limits) -> Error {
    const WHAT: &str = "cannot make a udmabuf";
    if errno != Errno::INVAL {
        return Error::from_errno(WHAT, errno);
    }
    if let Some(limit) = limits.list.filter(|limit| ranges.len() > *limit) {
        return Error::with_errno(
            ErrorKind::SizeLimit,
            format!(
                "{WHAT}: {} ranges are more than the limit of {limit}; \
                 raise /sys/module/udmabuf/parameters/list_limit or use fewer",
                ranges.len()
            ),
            errno,
        );
    }
    let total = ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.size()));
    if let Some(limit) = limits.size_mb.filter(|limit| total > limit.saturating_mul(1 << 20)) {
        return Error::with_errno(
            ErrorKind::SizeLimit,
            format!(
                "{WHAT}: {total} bytes are more than the limit of {limit} MiB; \
                 raise /sys/module/udmabuf/parameters/size_limit_mb or ask for less"
            ),
            errno,
        );
    }
    let future_write = |range: &MemfdRange<'_>| {
        fcntl_get_seals(range.memfd()).is_ok_and(|seals| seals.contains(SealFlags::FUTURE_WRITE))
    };
    if ranges.iter().any(future_write) {
        return Error::with_errno(
            ErrorKind::NotSealed,
            format!(
                "{WHAT}: this kernel takes no memfd with F_SEAL_FUTURE_WRITE; make one without that seal"
            ),
            errno,
        );
    }
    Error::from_errno(WHAT, errno)
}

#[cfg(test)]
mod tests {
    use rustix::fs::fcntl_add_seals;
    use rustix::param::page_size;

    use super::*;

    const NO_LIMITS: Limits = Limits { size_mb: None, list: None };

    /// Check that an absent device names the module and the kernel option.
    #[test]
    fn absent_device_says_what_to_do() {
        let error = no_udmabuf(Errno::NOENT);
        assert_eq!(error.kind(), ErrorKind::NoUdmabuf);
        assert!(error.to_string().contains("modprobe udmabuf"), "{error}");
        assert!(error.to_string().contains("CONFIG_UDMABUF"), "{error}");
    }

    /// Check that an exceeded size limit is recognised and the message names its parameter.
    #[test]
    fn explains_the_size_limit() {
        let memfd = SealedMemfd::create("x", 2 << 20).unwrap();
        let limits = Limits { size_mb: Some(1), list: Some(1024) };
        let error = explain(&[memfd.whole().unwrap()], Errno::INVAL, &limits);
        assert_eq!(error.kind(), ErrorKind::SizeLimit);
        assert!(error.to_string().contains("size_limit_mb"), "{error}");
    }

    /// Check that an exceeded limit on the number of ranges is recognised and the message names its
    /// parameter.
    #[test]
    fn explains_the_list_limit() {
        let memfd = SealedMemfd::create("x", page_size() as u64).unwrap();
        let limits = Limits { size_mb: Some(64), list: Some(2) };
        let error = explain(&[memfd.whole().unwrap(); 3], Errno::INVAL, &limits);
        assert_eq!(error.kind(), ErrorKind::SizeLimit);
        assert!(error.to_string().contains("list_limit"), "{error}");
    }

    /// Check that a future-write seal is recognised.
    #[test]
    fn explains_future_write() {
        let memfd = SealedMemfd::create("x", page_size() as u64).unwrap();
        fcntl_add_seals(&memfd, SealFlags::FUTURE_WRITE).unwrap();
        let error = explain(&[memfd.whole().unwrap()], Errno::INVAL, &NO_LIMITS);
        assert_eq!(error.kind(), ErrorKind::NotSealed);
    }

    /// Check that an EINVAL without a known cause stays unexplained.
    #[test]
    fn does_not_guess() {
        let memfd = SealedMemfd::create("x", page_size() as u64).unwrap();
        assert_eq!(explain(&[memfd.whole().unwrap()], Errno::INVAL, &NO_LIMITS).kind(), ErrorKind::Other);
    }

    /// Check that an empty list is refused before any call.
    #[test]
    fn refuses_an_empty_list() {
        let device = Udmabuf { fd: tempfile::tempfile().unwrap().into() };
        assert_eq!(device.create_list(&[]).unwrap_err().kind(), ErrorKind::InvalidSize);
    }
}
