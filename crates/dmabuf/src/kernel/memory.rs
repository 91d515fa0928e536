//! Mapped memory that other processes and devices may change at any time.
//!
//! A reference to such memory would be unsound. `&[u8]` promises that the bytes do not change, and
//! `&mut [u8]` that nobody else sees them. So this module keeps a raw pointer and copies bytes in
//! and out with volatile accesses. The compiler may neither repeat nor merge these, and may not
//! assume what a read returns. Where the alignment allows, it copies whole words: mapped device
//! memory is often uncached, and then every access costs a bus transaction.
//!
//! Limits: a copy is not atomic, so it can mix old and new bytes if the memory is written
//! meanwhile. If the exporter takes the pages away, as when a device is unplugged, an access raises
//! SIGBUS, as with any mapped file.

use std::ffi::c_void;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The access that a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    pub(crate) writable: bool,
    pub(crate) shared: bool,
}

/// Why a copy was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    OutOfRange,
    ReadOnly,
}

/// One mapping, which is unmapped on drop.
///
/// Reading takes `&self` and writing `&mut self`. So safe code in this process never races with
/// itself on one mapping.
#[derive(Debug)]
pub(crate) struct Region {
    start: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and `Region` is its only owner.
unsafe impl Send for Region {}
// SAFETY: `&Region` allows only volatile reads of the memory; writing takes `&mut Region`.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first `len` bytes of `fd`.
    pub(crate) fn new(fd: BorrowedFd<'_>, protection: Protection, len: usize) -> Result<Self> {
        // Pointer arithmetic is defined only within `isize::MAX` bytes.
        if isize::try_from(len).is_err() {
            return Err(Errno::NOMEM);
        }
        let prot = if protection.writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = if protection.shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
        // SAFETY: the address is null and MAP_FIXED is absent, so no existing mapping is replaced.
        let start = unsafe { mmap(ptr::null_mut(), len, prot, flags, fd, 0) }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, len, writable: protection.writable })
    }

    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Fills `dst` from the mapping, starting at `offset`.
    pub(crate) fn read(&self, offset: usize, dst: &mut [u8]) -> std::result::Result<(), Refused> {
        let src = self.at(offset, dst.len())?;
        // SAFETY: `at` has checked that `dst.len()` bytes from `src` are in the mapping, which is
        // readable as long as `self` lives. `dst` cannot overlap the mapping, because no reference
        // into the mapping is ever made.
        unsafe { copy_out(src, dst) };
        Ok(())
    }

    /// Copies all of `src` into the mapping, starting at `offset`.
    pub(crate) fn write(&mut self, offset: usize, src: &[u8]) -> std::result::Result<(), Refused> {
        if !self.writable {
            return Err(Refused::ReadOnly);
        }
        let dst = self.at(offset, src.len())?;
        // SAFETY: as in `read`. The mapping is writable, as checked above, and `&mut self` excludes
        // other accesses by safe code in this process.
        unsafe { copy_in(src, dst) };
        Ok(())
    }

    /// Unmaps the memory and returns the error, which `Drop` must ignore.
    pub(crate) fn unmap(self) -> Result<()> {
        let region = std::mem::ManuallyDrop::new(self);
        // SAFETY: the range is exactly what `new` mapped, and `ManuallyDrop` prevents a second
        // unmapping.
        unsafe { munmap(region.start.as_ptr().cast::<c_void>(), region.len) }
    }

    fn at(&self, offset: usize, len: usize) -> std::result::Result<*mut u8, Refused> {
        let end = offset.checked_add(len).ok_or(Refused::OutOfRange)?;
        if end > self.len {
            return Err(Refused::OutOfRange);
        }
        Ok(self.start.as_ptr().wrapping_add(offset))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // Nothing can be done about a failure: the kernel could not split a neighbouring VMA.
        // SAFETY: the range is exactly what `new` mapped, and nothing uses it after this.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.len) };
    }
}

const WORD: usize = size_of::<u64>();

/// # Safety
///
/// `dst.len()` bytes from `src` must be mapped and readable, and `dst` must not overlap them.
unsafe fn copy_out(src: *const u8, dst: &mut [u8]) {
    let head = src.align_offset(WORD).min(dst.len());
    let (head, rest) = dst.split_at_mut(head);
    let (words, tail) = rest.as_chunks_mut::<WORD>();
    let mut src = src;
    for byte in head {
        // SAFETY: `src` advances by one byte for each byte of `dst`, so it stays in the readable
        // range.
        *byte = unsafe { src.read_volatile() };
        src = src.wrapping_add(1);
    }
    for word in words {
        // SAFETY: as above. `head` has aligned `src` to a word, and it stays aligned.
        *word = unsafe { src.cast::<u64>().read_volatile() }.to_ne_bytes();
        src = src.wrapping_add(WORD);
    }
    for byte in tail {
        // SAFETY: as above.
        *byte = unsafe { src.read_volatile() };
        src = src.wrapping_add(1);
    }
}

/// # Safety
///
/// `src.len()` bytes from `dst` must be mapped and writable, and `src` must not overlap them.
unsafe fn copy_in(src: &[u8], dst: *mut u8) {
    let head = dst.align_offset(WORD).min(src.len());
    let (head, rest) = src.split_at(head);
    let (words, tail) = rest.as_chunks::<WORD>();
    let mut dst = dst;
    for byte in head {
        // SAFETY: `dst` advances by one byte for each byte of `src`, so it stays in the writable
        // range.
        unsafe { dst.write_volatile(*byte) };
        dst = dst.wrapping_add(1);
    }
    for word in words {
        // SAFETY: as above. `head` has aligned `dst` to a word, and it stays aligned.
        unsafe { dst.cast::<u64>().write_volatile(u64::from_ne_bytes(*word)) };
        dst = dst.wrapping_add(WORD);
    }
    for byte in tail {
        // SAFETY: as above.
        unsafe { dst.write_volatile(*byte) };
        dst = dst.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    const SHARED: Protection = Protection { writable: true, shared: true };

    fn region(content: &[u8], protection: Protection) -> Region {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Region::new(file.as_fd(), protection, content.len()).unwrap()
    }

    proptest! {
        /// Check that a write and a read at any offset and of any length copy exactly those bytes.
        #[test]
        fn copies_exactly(offset in 0usize..64, data in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut region = region(&[0xee; 160], SHARED);
            region.write(offset, &data).unwrap();
            let mut all = [0; 160];
            region.read(0, &mut all).unwrap();
            let mut expected = [0xee; 160];
            expected[offset..offset + data.len()].copy_from_slice(&data);
            prop_assert_eq!(all, expected);
            let mut part = vec![0; data.len()];
            region.read(offset, &mut part).unwrap();
            prop_assert_eq!(part, data);
        }

        /// Check that an access is refused if and only if it reaches past the end.
        #[test]
        fn refuses_past_the_end(offset in 0usize..200, len in 0usize..200) {
            let refused = region(&[0; 100], SHARED).read(offset, &mut vec![0; len]).is_err();
            prop_assert_eq!(refused, offset + len > 100);
        }
    }

    /// Check that an offset is refused, and not wrapped, if its sum with the length overflows.
    #[test]
    fn refuses_overflow() {
        assert_eq!(region(&[0; 8], SHARED).read(usize::MAX, &mut [0; 2]), Err(Refused::OutOfRange));
    }

    /// Check that writing to a read-only mapping gives an error and raises no signal.
    #[test]
    fn refuses_write_to_read_only() {
        let mut region = region(&[1; 8], Protection { writable: false, shared: true });
        assert_eq!(region.write(0, &[2]), Err(Refused::ReadOnly));
    }

    /// Check that a mapping outlives the descriptor that it was made from.
    #[test]
    fn outlives_the_descriptor() {
        let region = region(b"still here", Protection { writable: false, shared: true });
        let mut bytes = [0; 10];
        region.read(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"still here");
    }

    /// Check that an explicit unmap succeeds and that drop does not repeat it.
    #[test]
    fn unmaps_once() {
        assert_eq!(region(&[0; 8], SHARED).unmap(), Ok(()));
    }
}
