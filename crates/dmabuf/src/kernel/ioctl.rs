//! The ioctls of dma-bufs, heaps and udmabuf, one function for each.
//!
//! Each function takes borrowed descriptors and returns the errno unchanged. The number of an ioctl
//! encodes the size of its structure, and the structures here have exactly that size. A driver of
//! another device may use the same number for something else. It too then reads and writes only
//! inside the structure.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};
use rustix::ioctl::{IntegerSetter, Setter, Updater, ioctl};

use super::returns_fd::ReturnsFd;
use super::uapi;

/// The direction bits that the three sync requests share (`DMA_BUF_SYNC_READ`, `_WRITE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyncBits(u8);

impl SyncBits {
    pub(crate) const READ: Self = Self(uapi::DMA_BUF_SYNC_READ);
    pub(crate) const WRITE: Self = Self(uapi::DMA_BUF_SYNC_WRITE);
    pub(crate) const READ_WRITE: Self = Self(uapi::DMA_BUF_SYNC_READ | uapi::DMA_BUF_SYNC_WRITE);
}

/// A range of a memfd, in the form that udmabuf takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawRange<'fd> {
    pub(crate) memfd: BorrowedFd<'fd>,
    pub(crate) offset: u64,
    pub(crate) size: u64,
}

/// Begins an access by the CPU.
pub(crate) fn sync_start(buf: BorrowedFd<'_>, bits: SyncBits) -> Result<()> {
    sync(buf, bits.0)
}

/// Ends an access by the CPU.
pub(crate) fn sync_end(buf: BorrowedFd<'_>, bits: SyncBits) -> Result<()> {
    sync(buf, bits.0 | uapi::DMA_BUF_SYNC_END)
}

fn sync(buf: BorrowedFd<'_>, flags: u8) -> Result<()> {
    loop {
        let arg = uapi::DmaBufSync { flags: u64::from(flags) };
        // SAFETY: the request reads one `struct dma_buf_sync`, which `DmaBufSync` is.
        let setter = unsafe { Setter::<{ uapi::DMA_BUF_IOCTL_SYNC }, _>::new(arg) };
        // SAFETY: the request hands the buffer between the CPU and devices. It does not change this
        // process's memory map and writes to no memory that Rust knows of.
        match unsafe { ioctl(buf, setter) } {
            // A signal can interrupt the wait for fences. The kernel's documentation of dma-buf
            // says to repeat the request on both errors.
            Err(Errno::INTR | Errno::AGAIN) => {}
            result => return result,
        }
    }
}

pub(crate) fn set_name(buf: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let address = name.as_ptr().cast_mut().cast();
    // SAFETY: the argument of the request is an address. From there the kernel reads up to the NUL,
    // and it writes nothing.
    let setter = unsafe { IntegerSetter::<{ uapi::DMA_BUF_SET_NAME_B }>::new_pointer(address) };
    // SAFETY: `name` is borrowed, and so alive, until the call has returned.
    unsafe { ioctl(buf, setter) }
}

pub(crate) fn export_sync_file(buf: BorrowedFd<'_>, bits: SyncBits) -> Result<OwnedFd> {
    let mut arg = uapi::DmaBufSyncFile { flags: u32::from(bits.0), fd: -1 };
    // SAFETY: the request updates one `struct dma_buf_export_sync_file`, which `DmaBufSyncFile` is.
    let updater = unsafe { Updater::<{ uapi::DMA_BUF_IOCTL_EXPORT_SYNC_FILE }, _>::new(&mut arg) };
    // SAFETY: the request writes only to `arg`, which is borrowed until the call has returned.
    unsafe { ioctl(buf, updater) }?;
    // SAFETY: on success the kernel has stored a new descriptor in `fd`, and nobody else has seen
    // it.
    unsafe { super::adopt(arg.fd) }
}

pub(crate) fn import_sync_file(buf: BorrowedFd<'_>, bits: SyncBits, file: BorrowedFd<'_>) -> Result<()> {
    let arg = uapi::DmaBufSyncFile { flags: u32::from(bits.0), fd: file.as_raw_fd() };
    // SAFETY: the request reads one `struct dma_buf_import_sync_file`, which `DmaBufSyncFile` is.
    let setter = unsafe { Setter::<{ uapi::DMA_BUF_IOCTL_IMPORT_SYNC_FILE }, _>::new(arg) };
    // SAFETY: `file` is borrowed, so the number names it until the call has returned.
    unsafe { ioctl(buf, setter) }
}

/// Allocates `len` bytes, which the kernel rounds up to whole pages. The descriptor is read-write
/// and close-on-exec.
pub(crate) fn heap_allocate(heap: BorrowedFd<'_>, len: u64) -> Result<OwnedFd> {
    let fd_flags = (OFlags::RDWR | OFlags::CLOEXEC).bits();
    // The kernel refuses a request whose `fd` is not 0.
    let mut arg = uapi::DmaHeapAllocationData { len, fd: 0, fd_flags, heap_flags: 0 };
    // SAFETY: the request updates one `struct dma_heap_allocation_data`, which
    // `DmaHeapAllocationData` is.
    let updater = unsafe { Updater::<{ uapi::DMA_HEAP_IOCTL_ALLOC }, _>::new(&mut arg) };
    // SAFETY: the request writes only to `arg`, which is borrowed until the call has returned.
    unsafe { ioctl(heap, updater) }?;
    let fd = i32::try_from(arg.fd).map_err(|_| Errno::BADF)?;
    // SAFETY: on success the kernel has stored a new descriptor in `fd`, and nobody else has seen
    // it.
    unsafe { super::adopt(fd) }
}

pub(crate) fn udmabuf_create(device: BorrowedFd<'_>, range: RawRange<'_>) -> Result<OwnedFd> {
    let arg = uapi::UdmabufCreate {
        memfd: range.memfd.as_raw_fd().cast_unsigned(),
        flags: uapi::UDMABUF_FLAGS_CLOEXEC,
        offset: range.offset,
        size: range.size,
    };
    // SAFETY: the request only reads one `struct udmabuf_create`, and returns a new descriptor.
    let request = unsafe { ReturnsFd::<{ uapi::UDMABUF_CREATE }>::new(&arg) };
    // SAFETY: the kernel takes its own references to the pages of the memfd, and `range.memfd` is
    // open during the call.
    unsafe { ioctl(device, request) }
}

pub(crate) fn udmabuf_create_list(device: BorrowedFd<'_>, ranges: &[RawRange<'_>]) -> Result<OwnedFd> {
    let count = u32::try_from(ranges.len()).map_err(|_| Errno::INVAL)?;
    let header = uapi::UdmabufCreateList { flags: uapi::UDMABUF_FLAGS_CLOEXEC, count };
    // The request is a header followed by a C array, for which there is no safe Rust type. So the
    // bytes are written one field after another. They need no alignment, because the kernel copies
    // them.
    let mut arg = Vec::with_capacity(size_of::<uapi::UdmabufCreateList>() + ranges.len() * 24);
    arg.extend_from_slice(&header.flags.to_ne_bytes());
    arg.extend_from_slice(&header.count.to_ne_bytes());
    for range in ranges {
        arg.extend_from_slice(&range.memfd.as_raw_fd().to_ne_bytes());
        arg.extend_from_slice(&0u32.to_ne_bytes());
        arg.extend_from_slice(&range.offset.to_ne_bytes());
        arg.extend_from_slice(&range.size.to_ne_bytes());
    }
    // SAFETY: the request only reads the header and then `count` items of 24 bytes, all of which
    // are in `arg`, and returns a new descriptor.
    let request = unsafe { ReturnsFd::<{ uapi::UDMABUF_CREATE_LIST }>::new(arg.as_slice()) };
    // SAFETY: as in `udmabuf_create`; every memfd is open during the call.
    unsafe { ioctl(device, request) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// Check that a descriptor of another kind gives ENOTTY, and nothing that looks like success.
    #[test]
    fn foreign_descriptor_is_enotty() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(sync_start(file.as_fd(), SyncBits::READ), Err(Errno::NOTTY));
        assert_eq!(set_name(file.as_fd(), c"x"), Err(Errno::NOTTY));
        assert_eq!(export_sync_file(file.as_fd(), SyncBits::WRITE).unwrap_err(), Errno::NOTTY);
        assert_eq!(heap_allocate(file.as_fd(), 4096).unwrap_err(), Errno::NOTTY);
        let range = RawRange { memfd: file.as_fd(), offset: 0, size: 4096 };
        assert_eq!(udmabuf_create(file.as_fd(), range).unwrap_err(), Errno::NOTTY);
        assert_eq!(udmabuf_create_list(file.as_fd(), &[range, range]).unwrap_err(), Errno::NOTTY);
    }
}
