//! Access to a buffer's bytes by the CPU: [`Mapping`] maps them, [`CpuAccess`] keeps the CPU's view
//! coherent with devices.
//!
//! A [`Mapping`] holds no descriptor. A duplicate would raise the reference count that the kernel
//! reports, and so change what a measurement sees. `DMA_BUF_IOCTL_SYNC` needs a descriptor, so
//! [`Mapping::begin`] borrows the [`DmaBuf`] and checks that it is the buffer that is mapped.
//!
//! Every mapping starts at the beginning of the buffer, because some exporters map the beginning
//! whatever the offset is, and report success. DRM's helper for shmem buffers does so, which many
//! drivers use (seen with vgem on 6.1, 6.12 and 7.2). By its source code, videobuf2's vmalloc
//! allocator does so too.
//!
//! Limits: an access makes caches coherent but excludes nobody, so other processes and devices can
//! use the memory meanwhile. It does not wait for explicit fences.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::param::page_size;

use crate::kernel::ioctl;
use crate::kernel::memory::{Protection, Refused, Region};
use crate::{Direction, DmaBuf, Error, ErrorKind, Identity, Result};

/// How a buffer is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapMode {
    /// Shared and read-only.
    Read,
    /// Shared, for reading and writing. Most CPUs have no write-only mappings.
    ReadWrite,
    /// Private: a write goes to a copy of the page that only this process sees. Few exporters allow
    /// it; the system heap allows it only for a buffer that happens to be physically contiguous.
    Private,
}

impl MapMode {
    fn protection(self) -> Protection {
        Protection { writable: self != Self::Read, shared: self != Self::Private }
    }
}

/// A buffer, or a part of it, in this process's address space. [`DmaBuf::map`] makes one.
///
/// Dropping it unmaps the memory. A mapping outlives the descriptor: after the [`DmaBuf`] is
/// dropped, the mapping alone keeps the memory. To access the bytes then, [`begin`](Self::begin)
/// needs another descriptor of the same buffer.
///
/// ```no_run
/// use dmabuf::{Direction, Heap, MapMode};
///
/// let buf = Heap::open("system")?.allocate(1 << 20)?;
/// let mut mapping = buf.map(MapMode::ReadWrite)?;
///
/// let mut access = mapping.begin(&buf, Direction::ReadWrite)?;
/// access.write_at(0, b"hello")?;
/// let mut bytes = [0; 5];
/// access.read_at(0, &mut bytes)?;
/// access.end()?;
/// assert_eq!(&bytes, b"hello");
/// # Ok::<(), dmabuf::Error>(())
/// ```
#[derive(Debug)]
pub struct Mapping {
    /// Starts at the beginning of the buffer.
    region: Region,
    /// How many bytes of the region precede the range that the caller asked for.
    skip: usize,
    mode: MapMode,
    identity: Identity,
}

impl DmaBuf {
    /// Maps the whole buffer.
    ///
    /// The buffer's reference count rises by one until the mapping is dropped. There is an
    /// exception: some exporters map a file of their own instead (vgem does on 5.10). Then the
    /// count stays the same, `/proc/PID/maps` shows the other file, and the mapping keeps the
    /// memory but not the dma-buf.
    ///
    /// # Errors
    ///
    /// As for [`map_range`](Self::map_range).
    pub fn map(&self, mode: MapMode) -> Result<Mapping> {
        let identity = self.identity()?;
        let len = usize::try_from(identity.size).map_err(|_| {
            Error::new(
                ErrorKind::OutOfMemory,
                "the buffer is larger than the address space; map a part of it",
            )
        })?;
        self.map_checked(mode, 0, len, identity)
    }

    /// Maps `len` bytes from `offset` on, both in bytes. The offset must be a multiple of the page
    /// size.
    ///
    /// The bytes before the offset are mapped too. They take address space, but [`CpuAccess`] does
    /// not reach them. This is because some exporters ignore the offset and map the beginning of
    /// the buffer. If you know that an exporter obeys the offset and want to map only the range,
    /// call `mmap` on the descriptor yourself.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidRange`]: the offset is misaligned, `len` is 0, or the range reaches
    ///   past the end; no call was made.
    /// * [`ErrorKind::NotMappable`]: the exporter cannot map the buffer, or not in this mode.
    /// * [`ErrorKind::PermissionDenied`]: the descriptor was opened without the access that the
    ///   mode needs.
    /// * [`ErrorKind::OutOfMemory`]: there is no address space left, or the process has too many
    ///   mappings (`vm.max_map_count`).
    pub fn map_range(&self, mode: MapMode, offset: u64, len: usize) -> Result<Mapping> {
        self.map_checked(mode, offset, len, self.identity()?)
    }

    fn map_checked(&self, mode: MapMode, offset: u64, len: usize, identity: Identity) -> Result<Mapping> {
        check_range(offset, len, identity.size)?;
        let end = usize::try_from(offset + len as u64).map_err(|_| map_error(mode, Errno::NOMEM))?;
        let region = Region::new(self.as_fd(), mode.protection(), end).map_err(|e| map_error(mode, e))?;
        Ok(Mapping { region, skip: end - len, mode, identity })
    }
}

impl Mapping {
    /// The number of bytes that the caller asked to map.
    pub fn size(&self) -> usize {
        self.region.len() - self.skip
    }

    /// Where in the buffer the mapped range starts, in bytes.
    pub fn offset(&self) -> u64 {
        self.skip as u64
    }

    /// The mode in which it was mapped.
    pub fn mode(&self) -> MapMode {
        self.mode
    }

    /// The identity of the mapped buffer, read when it was mapped.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The address of the first byte of the range, valid as long as the mapping lives.
    ///
    /// It is for what [`CpuAccess`] cannot do. Using it takes `unsafe` code: the memory may change
    /// at any time, so make no reference into it, and write to it only if the mode allows that.
    pub fn as_ptr(&self) -> *mut u8 {
        self.region.as_ptr().wrapping_add(self.skip)
    }

    /// Begins an access by the CPU (`DMA_BUF_IOCTL_SYNC` with `DMA_BUF_SYNC_START`, Linux 4.6).
    ///
    /// `buf` must be the mapped buffer, through this or another descriptor of it. The access covers
    /// the whole buffer. It ends when the returned guard is dropped or [`CpuAccess::end`] is
    /// called. The kernel may wait here for the device work that the buffer's implicit fences stand
    /// for.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::WrongBuffer`]: `buf` is not the mapped buffer.
    /// * [`ErrorKind::AccessNotDeclared`]: the direction includes writing, and the mapping is
    ///   [`MapMode::Read`].
    /// * [`ErrorKind::Other`]: the exporter could not make the memory coherent.
    pub fn begin<'map>(&'map mut self, buf: &'map DmaBuf, direction: Direction) -> Result<CpuAccess<'map>> {
        if buf.identity()? != self.identity {
            return Err(Error::new(
                ErrorKind::WrongBuffer,
                "the mapping belongs to another dma-buf; begin the access with the buffer that was mapped",
            ));
        }
        if direction.writes() && self.mode == MapMode::Read {
            return Err(Error::new(
                ErrorKind::AccessNotDeclared,
                "the mapping is read-only; map with MapMode::ReadWrite to write",
            ));
        }
        ioctl::sync_start(buf.as_fd(), direction.bits())
            .map_err(|errno| Error::from_errno("cannot begin CPU access to the dma-buf", errno))?;
        Ok(CpuAccess { mapping: self, buf, direction, open: true })
    }

    /// Unmaps the memory and returns the error, which dropping ignores.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfMemory`] if the kernel could not split a neighbouring mapping; the range
    /// then stays mapped.
    pub fn unmap(self) -> Result<()> {
        self.region.unmap().map_err(|errno| Error::from_errno("cannot unmap the dma-buf", errno))
    }
}

/// An access by the CPU to a mapped buffer, between [`Mapping::begin`] and [`end`](Self::end).
///
/// It copies bytes in and out and never lends `&[u8]` or `&mut [u8]`. Another process or a device
/// may write to the memory at any moment, and a reference promises the compiler that nobody does.
/// Even to hold such a reference would be undefined behaviour. The copies are volatile but not
/// atomic: if the memory is written during a copy, the result can mix old and new bytes.
///
/// Dropping it ends the access and ignores errors. Call [`end`](Self::end) where a failure matters,
/// for instance after writing.
#[derive(Debug)]
#[must_use = "the access ends as soon as this is dropped"]
pub struct CpuAccess<'map> {
    mapping: &'map mut Mapping,
    buf: &'map DmaBuf,
    direction: Direction,
    open: bool,
}

impl CpuAccess<'_> {
    /// The direction that was given to [`Mapping::begin`].
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Fills `bytes` from the mapped range, starting `offset` bytes into it.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::AccessNotDeclared`]: the access was begun for writing only.
    /// * [`ErrorKind::InvalidRange`]: past the end of the range; nothing was copied.
    pub fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        if !self.direction.reads() {
            return Err(Error::new(
                ErrorKind::AccessNotDeclared,
                "the access was begun with Direction::Write; begin it with Read or ReadWrite to read",
            ));
        }
        let len = bytes.len();
        self.mapping.region.read(self.at(offset), bytes).map_err(|refused| self.refused(refused, offset, len))
    }

    /// Copies all of `bytes` into the mapped range, starting `offset` bytes into it.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::AccessNotDeclared`]: the access was begun for reading only.
    /// * [`ErrorKind::InvalidRange`]: past the end of the range; nothing was copied.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        if !self.direction.writes() {
            return Err(self.refused(Refused::ReadOnly, offset, bytes.len()));
        }
        let at = self.at(offset);
        self.mapping.region.write(at, bytes).map_err(|refused| self.refused(refused, offset, bytes.len()))
    }

    /// Ends the access (`DMA_BUF_SYNC_END` with the direction that it was begun with).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`]: the exporter failed, so devices may not see what was written.
    pub fn end(mut self) -> Result<()> {
        self.open = false;
        ioctl::sync_end(self.buf.as_fd(), self.direction.bits())
            .map_err(|errno| Error::from_errno("cannot end CPU access to the dma-buf", errno))
    }

    /// Converts an offset into the range to one into the region. A sum that overflows becomes
    /// `usize::MAX`, which is past the end of every region.
    fn at(&self, offset: usize) -> usize {
        self.mapping.skip.saturating_add(offset)
    }

    fn refused(&self, refused: Refused, offset: usize, len: usize) -> Error {
        match refused {
            Refused::OutOfRange => Error::new(
                ErrorKind::InvalidRange,
                format!(
                    "{len} bytes at offset {offset} reach past the mapping's {} bytes",
                    self.mapping.size()
                ),
            ),
            Refused::ReadOnly => Error::new(
                ErrorKind::AccessNotDeclared,
                "the access was begun with Direction::Read; begin it with Write or ReadWrite to write",
            ),
        }
    }
}

impl Drop for CpuAccess<'_> {
    fn drop(&mut self) {
        if self.open {
            // A caller who wants the error calls `end`.
            let _ = ioctl::sync_end(self.buf.as_fd(), self.direction.bits());
        }
    }
}

fn check_range(offset: u64, len: usize, size: u64) -> Result<()> {
    let page = page_size() as u64;
    let problem = if len == 0 {
        "a mapping needs at least one byte".to_owned()
    } else if !offset.is_multiple_of(page) {
        format!("the offset {offset} is not a multiple of the page size, {page}")
    } else if offset.checked_add(len as u64).is_none_or(|end| end > size) {
        format!("{len} bytes at offset {offset} reach past the buffer's {size} bytes")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::InvalidRange, format!("cannot map the dma-buf: {problem}")))
}

fn map_error(mode: MapMode, errno: Errno) -> Error {
    let (kind, why) = match (errno, mode) {
        (Errno::INVAL | Errno::NODEV | Errno::OPNOTSUPP | Errno::NOTTY, MapMode::Private) => (
            ErrorKind::NotMappable,
            "the exporter does not allow private mappings of this buffer; use MapMode::Read or ReadWrite",
        ),
        (Errno::INVAL | Errno::NODEV | Errno::OPNOTSUPP | Errno::NOTTY, _) => (
            ErrorKind::NotMappable,
            "its exporter does not let user space map it; map it through the device that made it",
        ),
        (Errno::ACCESS | Errno::PERM, _) => (
            ErrorKind::PermissionDenied,
            "the descriptor does not allow this access; get one that was made for reading and writing",
        ),
        (Errno::NOMEM, _) => (
            ErrorKind::OutOfMemory,
            "no address space is left, or the process has too many mappings (sysctl vm.max_map_count)",
        ),
        _ => return Error::from_errno("cannot map the dma-buf", errno),
    };
    Error::with_errno(kind, format!("cannot map the dma-buf: {why}"), errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    /// Check that the whole buffer, and a single byte at the start of its last page, are valid
    /// ranges.
    #[test]
    fn accepts_ranges_inside() {
        let page = page_size();
        assert!(check_range(0, 2 * page, 2 * page as u64).is_ok());
        assert!(check_range(page as u64, 1, 2 * page as u64).is_ok());
    }

    /// Check that a misaligned offset, no bytes, a range past the end and an overflow are all
    /// refused.
    #[test]
    fn refuses_bad_ranges() {
        for (offset, len) in [(1, 1), (0, 0), (0, PAGE as usize * 1000), (u64::MAX - 4095, usize::MAX)] {
            let error = check_range(offset, len, PAGE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRange, "{offset} {len}");
        }
    }

    /// Check that the message tells a mode that the exporter refuses from an exporter without mmap.
    #[test]
    fn explains_refused_maps() {
        assert!(map_error(MapMode::Private, Errno::INVAL).to_string().contains("private"));
        assert!(map_error(MapMode::Read, Errno::INVAL).to_string().contains("exporter does not let"));
        assert_eq!(map_error(MapMode::Read, Errno::NODEV).kind(), ErrorKind::NotMappable);
    }

    /// Check that the error for a read-only descriptor does not blame the exporter.
    #[test]
    fn eacces_blames_the_descriptor() {
        assert_eq!(map_error(MapMode::ReadWrite, Errno::ACCESS).kind(), ErrorKind::PermissionDenied);
    }

    /// A file in place of a dma-buf: these tests check what happens before, or without, the sync
    /// request.
    fn stand_in(len: u64) -> DmaBuf {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        DmaBuf::from_exporter(file.into())
    }

    /// Check that beginning an access with another buffer is refused.
    #[test]
    fn refuses_another_buffer() {
        let (one, other) = (stand_in(PAGE), stand_in(PAGE));
        let mut mapping = one.map(MapMode::ReadWrite).unwrap();
        assert_eq!(mapping.begin(&other, Direction::Read).unwrap_err().kind(), ErrorKind::WrongBuffer);
    }

    /// Check that an access for writing to a read-only mapping is refused.
    #[test]
    fn refuses_writing_bracket_on_read_only_map() {
        let buf = stand_in(PAGE);
        let mut mapping = buf.map(MapMode::Read).unwrap();
        assert_eq!(mapping.begin(&buf, Direction::Write).unwrap_err().kind(), ErrorKind::AccessNotDeclared);
    }

    /// Check that an access allows only the direction that it was begun with.
    #[test]
    fn enforces_the_direction() {
        let buf = stand_in(PAGE);
        let mut mapping = buf.map(MapMode::ReadWrite).unwrap();
        // Made by hand, because a file does not know the sync request.
        let access = CpuAccess { mapping: &mut mapping, buf: &buf, direction: Direction::Write, open: false };
        assert_eq!(access.read_at(0, &mut [0]).unwrap_err().kind(), ErrorKind::AccessNotDeclared);
        drop(access);
        let mut access =
            CpuAccess { mapping: &mut mapping, buf: &buf, direction: Direction::Read, open: false };
        assert_eq!(access.write_at(0, &[0]).unwrap_err().kind(), ErrorKind::AccessNotDeclared);
        assert_eq!(access.read_at(PAGE as usize, &mut [0]).unwrap_err().kind(), ErrorKind::InvalidRange);
    }

    /// Check that the offsets of an access count from the start of the mapped range, and that it
    /// ends with the range.
    #[test]
    fn accesses_a_range() {
        let page = page_size();
        let buf = stand_in(4 * page as u64);
        let mut mapping = buf.map_range(MapMode::ReadWrite, page as u64, 100).unwrap();
        let mut access =
            CpuAccess { mapping: &mut mapping, buf: &buf, direction: Direction::ReadWrite, open: false };
        access.write_at(90, b"0123456789").unwrap();
        for (offset, len) in [(91, 10), (100, 1), (usize::MAX, 1), (usize::MAX - page, 1)] {
            let error = access.read_at(offset, &mut vec![0; len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRange, "{offset} {len}");
        }
        let mut bytes = [0; 10];
        rustix::io::pread(&buf, &mut bytes, page as u64 + 90).unwrap();
        assert_eq!(&bytes, b"0123456789");
    }

    /// Check that a mapping of a range reports its own offset and size.
    #[test]
    fn maps_a_range() {
        let page = page_size() as u64;
        let mapping = stand_in(4 * page).map_range(MapMode::Read, page, 100).unwrap();
        assert_eq!((mapping.offset(), mapping.size(), mapping.mode()), (page, 100, MapMode::Read));
    }
}
