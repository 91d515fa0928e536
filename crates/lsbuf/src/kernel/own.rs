//! Mappings that lsbuf makes itself.
//!
//! `lsbuf check` maps exact parts of buffers of its own, cuts and splits the VMAs, and gives the
//! buffers arbitrary names. [`mapped_as`](super::mapped_as) maps one page that nothing may touch.
//! [`page_payers`](super::page_payers) maps files to see which page frames they have.
//!
//! The `dmabuf` crate is no substitute: it maps a buffer from its start in one piece and refuses
//! bad names by itself, but a check must see what the kernel does. No code reads or writes through
//! these mappings; [`Region::access`] makes the kernel read.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::ioctl::{IntegerSetter, ioctl, opcode};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};
use rustix::param::page_size;

/// A shared mapping that begins as one VMA. It may become several, but has no holes.
#[derive(Debug)]
pub(crate) struct Region {
    start: *mut c_void,
    len: usize,
}

impl Region {
    /// Maps `len` bytes from `offset`, readable and writable.
    pub(crate) fn map(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Region> {
        Region::with(fd, offset, len, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps the first page without the right to read or write it.
    pub(crate) fn untouchable(fd: BorrowedFd<'_>) -> Result<Region> {
        Region::with(fd, 0, page_size(), ProtFlags::empty())
    }

    /// Maps `len` bytes from `offset`, readable.
    pub(crate) fn readable(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Region> {
        Region::with(fd, offset, len, ProtFlags::READ)
    }

    /// The numbers of its pages that are in memory, whoever uses them.
    pub(crate) fn resident(&self) -> Result<Vec<usize>> {
        let mut pages = vec![0u8; self.len.div_ceil(page_size())];
        // SAFETY: the range is this region, and the kernel writes one byte for each of its pages.
        match unsafe { libc::mincore(self.start, self.len, pages.as_mut_ptr().cast()) } {
            0 => {}
            _ => return Err(last_error()),
        }
        Ok((0..pages.len()).filter(|&nth| pages[nth] & 1 != 0).collect())
    }

    /// Lets the kernel read a byte of each of these pages of a readable region, by which they come
    /// into this process's page tables. It ends at the first page that is not there any more.
    pub(crate) fn access(&self, pages: &[usize]) -> Result<()> {
        let mut room = vec![0u8; pages.len()];
        let inside = |&nth: &usize| nth < self.len.div_ceil(page_size());
        let from: Vec<libc::iovec> = pages
            .iter()
            .filter(|nth| inside(nth))
            .map(|nth| libc::iovec { iov_base: self.start.wrapping_byte_add(nth * page_size()), iov_len: 1 })
            .collect();
        let to = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let own = std::process::id().cast_signed();
        // SAFETY: the kernel reads within this region, which stays mapped. It writes to `room`, no
        // more than its length.
        let read = unsafe {
            libc::process_vm_readv(own, &raw const to, 1, from.as_ptr(), from.len() as libc::c_ulong, 0)
        };
        match (read, last_error()) {
            (0.., _) | (_, Errno::FAULT) => Ok(()),
            (_, error) => Err(error),
        }
    }

    fn with(fd: BorrowedFd<'_>, offset: u64, len: usize, prot: ProtFlags) -> Result<Region> {
        // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
        let start = unsafe { mmap(ptr::null_mut(), len, prot, MapFlags::SHARED, fd, offset) }?;
        Ok(Region { start, len })
    }

    /// First address.
    pub(crate) fn start(&self) -> u64 {
        self.start.addr() as u64
    }

    /// First address after it.
    pub(crate) fn end(&self) -> u64 {
        self.start() + self.len as u64
    }

    /// Unmaps all but the first `len` bytes.
    pub(crate) fn shrink(&mut self, len: usize) -> Result<()> {
        let tail = self.tail(len)?;
        // SAFETY: the range is the end of this region, and nothing points into it.
        unsafe { munmap(tail, self.len - len) }?;
        self.len = len;
        Ok(())
    }

    /// Makes all but the first `len` bytes read-only, so that they become a VMA of their own.
    pub(crate) fn split(&mut self, len: usize) -> Result<()> {
        let tail = self.tail(len)?;
        // SAFETY: the range is the end of this region, and nothing points into it.
        unsafe { mprotect(tail, self.len - len, MprotectFlags::READ) }
    }

    fn tail(&self, from: usize) -> Result<*mut c_void> {
        // A region of no bytes could not be unmapped.
        if from == 0 || from >= self.len {
            return Err(Errno::INVAL);
        }
        Ok(self.start.wrapping_byte_add(from))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the range is this region. It has no holes that another mapping could have filled.
        // A failure leaves it mapped until the process ends; nothing can be done about it.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// `DMA_BUF_SET_NAME_B` of include/uapi/linux/dma-buf.h, with an arbitrary name.
pub(crate) fn set_name(buf: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    const SET_NAME_B: rustix::ioctl::Opcode = opcode::write::<u64>(b'b', 1);
    let address = name.as_ptr().cast_mut().cast();
    // SAFETY: the request's argument is an address, from which the kernel reads up to the NUL and
    // writes nothing.
    let setter = unsafe { IntegerSetter::<SET_NAME_B>::new_pointer(address) };
    // SAFETY: `name` is borrowed, and so alive, until the call has returned.
    unsafe { ioctl(buf, setter) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    fn vmas(region: &Region) -> usize {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let start = |line: &str| u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
        maps.lines().filter(|line| (region.start()..region.end()).contains(&start(line))).count()
    }

    /// Check that a region is one VMA, two when it is split, one again when it is cut, and that
    /// wrong lengths are refused.
    #[test]
    fn split_and_shrunk() {
        let page = rustix::param::page_size();
        let file = memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 4 * page as u64).unwrap();
        let mut region = Region::map(file.as_fd(), page as u64, 2 * page).unwrap();
        assert_eq!(vmas(&region), 1);
        region.split(page).unwrap();
        assert_eq!(vmas(&region), 2);
        region.shrink(page).unwrap();
        assert_eq!((vmas(&region), region.end() - region.start()), (1, page as u64));
        assert_eq!((region.split(page), region.shrink(0)), (Err(Errno::INVAL), Err(Errno::INVAL)));
    }

    /// Check that a file that is no dma-buf does not know the request.
    #[test]
    fn only_dma_bufs_are_named() {
        let file = memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(set_name(file.as_fd(), c"x"), Err(Errno::NOTTY));
    }
}
