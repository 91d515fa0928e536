//! Memfds as udmabuf wants them: sealed against shrinking, and not sealed against writing.
//!
//! The kernel reports a wrong seal, a wrong range and an exceeded size limit with the same
//! `EINVAL`. The types here rule out the first two causes before the call. A [`MemfdRange`] can
//! only be made from a [`SealedMemfd`], and such a memfd never shrinks, so a range inside it stays
//! inside. Limit: this module makes no memfds of huge pages, but accepts one that something else
//! has made.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::param::page_size;

use crate::{Error, ErrorKind, Result};

/// A memfd with `F_SEAL_SHRINK` and without `F_SEAL_WRITE`, as [`Udmabuf`](crate::Udmabuf) needs
/// it.
///
/// ```
/// use dmabuf::SealedMemfd;
///
/// let memfd = SealedMemfd::create("frames", 1 << 20)?;
/// assert_eq!(memfd.size()?, 1 << 20);
/// // A range that is not page-aligned is refused before any call.
/// assert!(memfd.range(1, 100).is_err());
/// # Ok::<(), dmabuf::Error>(())
/// ```
#[derive(Debug)]
pub struct SealedMemfd {
    fd: OwnedFd,
}

/// A page-aligned part of a [`SealedMemfd`] that is not empty. [`SealedMemfd::range`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct MemfdRange<'fd> {
    memfd: BorrowedFd<'fd>,
    offset: u64,
    size: u64,
}

impl SealedMemfd {
    /// Makes a memfd of `size` bytes and seals it. Each page is allocated when it is first used.
    ///
    /// `name` shows in `/proc/PID/fd` as `/memfd:NAME (deleted)`. It need not be unique.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidSize`]: zero, not a multiple of the page size, or beyond the largest
    ///   file.
    /// * [`ErrorKind::InvalidName`]: longer than 249 bytes, or with a NUL.
    /// * [`ErrorKind::OutOfDescriptors`], [`ErrorKind::OutOfMemory`].
    pub fn create(name: impl AsRef<[u8]>, size: u64) -> Result<Self> {
        check_size(size)?;
        let fd = create_sealable(name.as_ref())?;
        ftruncate(&fd, size).map_err(|errno| match errno {
            Errno::FBIG | Errno::INVAL => Error::with_errno(
                ErrorKind::InvalidSize,
                format!("{size} bytes are more than a memfd can have; ask for less"),
                errno,
            ),
            errno => Error::from_errno("cannot set the memfd's size", errno),
        })?;
        fcntl_add_seals(&fd, SealFlags::SHRINK)
            .map_err(|errno| Error::from_errno("cannot seal the memfd against shrinking", errno))?;
        Ok(Self { fd })
    }

    /// Takes a memfd that something else has made, after checking its seals. On error it is closed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotSealed`]: it is no memfd, it has no `F_SEAL_SHRINK`, or it has
    /// `F_SEAL_WRITE`.
    pub fn try_from_fd(fd: OwnedFd) -> Result<Self> {
        let seals = fcntl_get_seals(&fd).map_err(|errno| {
            Error::with_errno(
                ErrorKind::NotSealed,
                "the descriptor has no seals, so it is not a memfd; make one with memfd_create(MFD_ALLOW_SEALING)",
                errno,
            )
        })?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(Error::new(
                ErrorKind::NotSealed,
                "udmabuf takes only a memfd that cannot shrink; add F_SEAL_SHRINK to it",
            ));
        }
        if seals.contains(SealFlags::WRITE) {
            return Err(Error::new(
                ErrorKind::NotSealed,
                "udmabuf takes no memfd with F_SEAL_WRITE, as devices may write; make one without that seal",
            ));
        }
        Ok(Self { fd })
    }

    /// The size in bytes. It may grow but never shrinks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`] if `fstat` fails.
    pub fn size(&self) -> Result<u64> {
        let stat = fstat(&self.fd).map_err(|errno| Error::from_errno("cannot stat the memfd", errno))?;
        Ok(stat.st_size.cast_unsigned())
    }

    /// A part of the memfd; `offset` and `size` are in bytes.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidSize`]: `size` is zero or not a multiple of the page size.
    /// * [`ErrorKind::InvalidRange`]: `offset` is not a multiple of the page size, or the range
    ///   reaches past the end of the memfd.
    pub fn range(&self, offset: u64, size: u64) -> Result<MemfdRange<'_>> {
        check_size(size)?;
        let page = page_size() as u64;
        if !offset.is_multiple_of(page) {
            return Err(Error::new(
                ErrorKind::InvalidRange,
                format!("the offset {offset} is not a multiple of the page size, {page}"),
            ));
        }
        let whole = self.size()?;
        if offset.checked_add(size).is_none_or(|end| end > whole) {
            return Err(Error::new(
                ErrorKind::InvalidRange,
                format!("{size} bytes at offset {offset} reach past the memfd's {whole} bytes"),
            ));
        }
        Ok(MemfdRange { memfd: self.fd.as_fd(), offset, size })
    }

    /// The whole memfd as one range.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidSize`]: a memfd that something else has made can be empty, or end in the
    /// middle of a page.
    pub fn whole(&self) -> Result<MemfdRange<'_>> {
        self.range(0, self.size()?)
    }
}

impl AsFd for SealedMemfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<SealedMemfd> for OwnedFd {
    fn from(memfd: SealedMemfd) -> Self {
        memfd.fd
    }
}

impl<'fd> MemfdRange<'fd> {
    /// Where the range starts in the memfd, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The length of the range, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn memfd(&self) -> BorrowedFd<'fd> {
        self.memfd
    }
}

pub(crate) fn check_size(size: u64) -> Result<()> {
    let page = page_size() as u64;
    if size == 0 || !size.is_multiple_of(page) {
        return Err(Error::new(
            ErrorKind::InvalidSize,
            format!("the size {size} is not a positive multiple of the page size, {page}"),
        ));
    }
    Ok(())
}

fn create_sealable(name: &[u8]) -> Result<OwnedFd> {
    const MAX_NAME: usize = 249;
    if name.len() > MAX_NAME || name.contains(&0) {
        return Err(Error::new(
            ErrorKind::InvalidName,
            format!("a memfd's name has at most {MAX_NAME} bytes and no NUL; shorten it or remove the NUL"),
        ));
    }
    // Where the sysctl vm.memfd_noexec is 2, only memfds with this flag may be made. Kernels before
    // 6.3 do not know the flag.
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create(name, flags),
        result => result,
    }
    .map_err(|errno| Error::from_errno("cannot make a memfd", errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a new memfd is sealed against shrinking and has no seal against writing.
    #[test]
    fn seals() {
        let memfd = SealedMemfd::create("x", page_size() as u64).unwrap();
        let seals = fcntl_get_seals(&memfd).unwrap();
        assert!(seals.contains(SealFlags::SHRINK));
        assert!(!seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE));
        assert_eq!(ftruncate(&memfd, 0), Err(Errno::PERM));
    }

    /// Check that an unsealed memfd, a memfd sealed against writing and a plain file are each
    /// refused with their own reason.
    #[test]
    fn refuses_wrong_seals() {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let refusal = |fd| SealedMemfd::try_from_fd(fd).unwrap_err();
        let unsealed = refusal(memfd_create("x", flags).unwrap());
        let write_sealed = memfd_create("x", flags).unwrap();
        fcntl_add_seals(&write_sealed, SealFlags::SHRINK | SealFlags::WRITE).unwrap();
        let write_sealed = refusal(write_sealed);
        // A file in /proc, because on tmpfs plain files have seals too.
        let file = refusal(std::fs::File::open("/proc/self/status").unwrap().into());
        assert!(unsealed.to_string().contains("F_SEAL_SHRINK"), "{unsealed}");
        assert!(write_sealed.to_string().contains("F_SEAL_WRITE"), "{write_sealed}");
        assert!(file.to_string().contains("not a memfd"), "{file}");
        assert!([unsealed, write_sealed, file].iter().all(|error| error.kind() == ErrorKind::NotSealed));
    }

    /// Check that size zero and a size that is not a whole number of pages are refused.
    #[test]
    fn refuses_bad_sizes() {
        let page = page_size() as u64;
        for size in [0, 1, page + 1] {
            assert_eq!(SealedMemfd::create("x", size).unwrap_err().kind(), ErrorKind::InvalidSize, "{size}");
        }
    }

    /// Check that a size beyond the largest file is a size error too.
    #[test]
    fn refuses_huge_size() {
        let size = u64::MAX - (page_size() as u64 - 1);
        assert_eq!(SealedMemfd::create("x", size).unwrap_err().kind(), ErrorKind::InvalidSize);
    }

    /// Check that a misaligned offset and a range past the end, overflow included, are refused.
    #[test]
    fn refuses_bad_ranges() {
        let page = page_size() as u64;
        let memfd = SealedMemfd::create("x", 4 * page).unwrap();
        for (offset, size) in [(1, page), (page, 4 * page), (5 * page, page), (u64::MAX - page + 1, page)] {
            assert_eq!(
                memfd.range(offset, size).unwrap_err().kind(),
                ErrorKind::InvalidRange,
                "{offset} {size}"
            );
        }
        assert_eq!(memfd.range(0, page + 1).unwrap_err().kind(), ErrorKind::InvalidSize);
    }

    /// Check that the whole memfd and its last page are valid ranges.
    #[test]
    fn accepts_good_ranges() {
        let page = page_size() as u64;
        let memfd = SealedMemfd::create("x", 4 * page).unwrap();
        assert_eq!(memfd.whole().unwrap().size(), 4 * page);
        assert_eq!(memfd.range(3 * page, page).unwrap().offset(), 3 * page);
    }

    /// Check that a name beyond the kernel's limit is refused as a name.
    #[test]
    fn refuses_long_names() {
        let size = page_size() as u64;
        assert_eq!(SealedMemfd::create([b'x'; 250], size).unwrap_err().kind(), ErrorKind::InvalidName);
        assert!(SealedMemfd::create([b'x'; 249], size).is_ok());
    }
}
