//! Access to a buffer's bytes from the CPU: a mapping, and brackets that keep it coherent with devices.
//!
//! A [`Mapping`] holds no descriptor, because a duplicate would show in the kernel's reference count and so
//! change what a measurement sees. The bracket request needs one, so [`Mapping::begin`] borrows the
//! [`DmaBuf`] and checks that it is the one mapped.
//!
//! Every map begins at the buffer's start, because exporters exist that map the start whatever offset is asked
//! for, and report success. DRM's helper for shmem buffers, which many drivers use, does so (seen with vgem on
//! 6.1, 6.12 and 7.2), and so does videobuf2's vmalloc allocator by its sources.
//!
//! Limits: brackets give cache coherency, not exclusion (other processes and devices go on), and do not wait
//! for explicit fences.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::param::page_size;

use crate::kernel::ioctl;
use crate::kernel::memory::{Protection, Refused, Region};
use crate::{Direction, DmaBuf, Error, ErrorKind, Identity, Result};

/// How a mapping may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapMode {
    /// Shared and read-only.
    Read,
    /// Shared, for reading and writing. Write-only maps do not exist on most CPUs.
    ReadWrite,
    /// Private: a write changes a copy of the page that nobody else sees. Few exporters allow it, and the
    /// system heap only for a buffer that happens to be one physical chunk.
    Private,
}

impl MapMode {
    fn protection(self) -> Protection {
        Protection { writable: self != Self::Read, shared: self != Self::Private }
    }
}

/// A buffer, or a part of it, in this process's address space.
///
/// Unmapped on drop. It outlives the descriptor: after the [`DmaBuf`] is dropped, the mapping alone keeps the
/// memory, and a bracket can be begun only with another descriptor of the same buffer.
#[derive(Debug)]
pub struct Mapping {
    /// From the buffer's start.
    region: Region,
    /// How many bytes of the region lie before what was asked for.
    skip: usize,
    mode: MapMode,
    identity: Identity,
}

impl DmaBuf {
    /// Maps the whole buffer.
    ///
    /// The buffer's reference count rises by one until the mapping is dropped, except where the exporter maps
    /// a file of its own instead (vgem does on 5.10): then the count stays, `/proc/PID/maps` shows the other
    /// file, and what the mapping alone keeps is the memory, not the dma-buf.
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

    /// Maps `len` bytes from `offset`, both in bytes. The offset must be a multiple of the page size.
    ///
    /// What comes before the offset is mapped too, out of reach, and takes address space: exporters exist
    /// that silently map the buffer's start for any offset. To map exactly one range of an exporter that you
    /// know, give the descriptor to `mmap` yourself.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidRange`]: misaligned offset, no bytes, or past the end; no call was made.
    /// * [`ErrorKind::NotMappable`]: the exporter has no mmap, or not in this mode.
    /// * [`ErrorKind::PermissionDenied`]: the descriptor was opened without the access that the mode needs.
    /// * [`ErrorKind::OutOfMemory`]: no address space, or too many mappings (`vm.max_map_count`).
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
    /// The number of bytes mapped, as asked for.
    pub fn size(&self) -> usize {
        self.region.len() - self.skip
    }

    /// Where in the buffer the bytes asked for start, in bytes.
    pub fn offset(&self) -> u64 {
        self.skip as u64
    }

    /// How it was mapped.
    pub fn mode(&self) -> MapMode {
        self.mode
    }

    /// The buffer that is mapped, as it was when mapped.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The address of the first byte asked for, valid while the mapping lives.
    ///
    /// For callers with needs beyond [`CpuAccess`]. Using it takes `unsafe`: the memory may change at any
    /// time, so make no reference into it, and write only if the mode allows.
    pub fn as_ptr(&self) -> *mut u8 {
        self.region.as_ptr().wrapping_add(self.skip)
    }

    /// Begins a bracket of CPU access (`DMA_BUF_IOCTL_SYNC` with `DMA_BUF_SYNC_START`, Linux 4.6).
    ///
    /// `buf` must be the buffer mapped, through this or another descriptor of it. The bracket covers the
    /// whole buffer, and ends when the guard is dropped or [`CpuAccess::end`] is called. The kernel may wait
    /// in here for devices with implicit fences.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::WrongBuffer`]: `buf` is another buffer.
    /// * [`ErrorKind::AccessNotDeclared`]: a writing direction on a [`MapMode::Read`] mapping.
    /// * [`ErrorKind::Other`]: the exporter could not make the memory coherent.
    pub fn begin<'map>(&'map mut self, buf: &'map DmaBuf, direction: Direction) -> Result<CpuAccess<'map>> {
        if buf.identity()? != self.identity {
            return Err(Error::new(
                ErrorKind::WrongBuffer,
                "the mapping is of another dma-buf; begin the access with the buffer that was mapped",
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

    /// Unmaps, reporting the error that dropping would swallow.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfMemory`] if the kernel could not split a neighbouring mapping; the range then stays
    /// mapped.
    pub fn unmap(self) -> Result<()> {
        self.region.unmap().map_err(|errno| Error::from_errno("cannot unmap the dma-buf", errno))
    }
}

/// A bracket of CPU access to a mapped buffer.
///
/// It copies bytes in and out instead of lending `&[u8]` or `&mut [u8]`: another process or a device may
/// write the same memory at any moment, while a reference promises the compiler that nobody does. Holding
/// such a reference would be undefined behaviour, whatever the program then does with it. The copies are
/// volatile, not atomic: a concurrent writer can tear them.
///
/// The bracket ends on drop. Call [`end`](Self::end) instead where a failure matters, for instance after
/// writing.
#[derive(Debug)]
#[must_use = "the bracket ends as soon as it is dropped"]
pub struct CpuAccess<'map> {
    mapping: &'map mut Mapping,
    buf: &'map DmaBuf,
    direction: Direction,
    open: bool,
}

impl CpuAccess<'_> {
    /// The direction that was declared.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Copies `bytes.len()` bytes from `offset` bytes into the mapping.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::AccessNotDeclared`]: the bracket was begun for writing only.
    /// * [`ErrorKind::InvalidRange`]: past the end of the mapping; nothing was copied.
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

    /// Copies all of `bytes` to `offset` bytes into the mapping.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::AccessNotDeclared`]: the bracket was begun for reading only.
    /// * [`ErrorKind::InvalidRange`]: past the end of the mapping; nothing was copied.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        if !self.direction.writes() {
            return Err(self.refused(Refused::ReadOnly, offset, bytes.len()));
        }
        let at = self.at(offset);
        self.mapping.region.write(at, bytes).map_err(|refused| self.refused(refused, offset, bytes.len()))
    }

    /// Ends the bracket (`DMA_BUF_SYNC_END` with the declared direction).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`]: the exporter failed, so devices may not see what was written.
    pub fn end(mut self) -> Result<()> {
        self.open = false;
        ioctl::sync_end(self.buf.as_fd(), self.direction.bits())
            .map_err(|errno| Error::from_errno("cannot end CPU access to the dma-buf", errno))
    }

    /// Where in the region an offset of the mapping is; past every end if it overflows.
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
            // `end` is there for callers who want the error.
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

    /// Check that a whole buffer, and its last byte's page, can be asked for.
    #[test]
    fn accepts_ranges_inside() {
        let page = page_size();
        assert!(check_range(0, 2 * page, 2 * page as u64).is_ok());
        assert!(check_range(page as u64, 1, 2 * page as u64).is_ok());
    }

    /// Check that a misaligned offset, no bytes, a range past the end and an overflow are all refused.
    #[test]
    fn refuses_bad_ranges() {
        for (offset, len) in [(1, 1), (0, 0), (0, PAGE as usize * 1000), (u64::MAX - 4095, usize::MAX)] {
            let error = check_range(offset, len, PAGE).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRange, "{offset} {len}");
        }
    }

    /// Check that an exporter without mmap is told apart from a mode that it refuses.
    #[test]
    fn explains_refused_maps() {
        assert!(map_error(MapMode::Private, Errno::INVAL).to_string().contains("private"));
        assert!(map_error(MapMode::Read, Errno::INVAL).to_string().contains("exporter does not let"));
        assert_eq!(map_error(MapMode::Read, Errno::NODEV).kind(), ErrorKind::NotMappable);
    }

    /// Check that a read-only descriptor is not blamed on the exporter.
    #[test]
    fn eacces_blames_the_descriptor() {
        assert_eq!(map_error(MapMode::ReadWrite, Errno::ACCESS).kind(), ErrorKind::PermissionDenied);
    }

    /// A file stands in for the buffer: what is checked comes before, or without, the sync request.
    fn stand_in(len: u64) -> DmaBuf {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        DmaBuf::from_exporter(file.into())
    }

    /// Check that beginning with another buffer is refused.
    #[test]
    fn refuses_another_buffer() {
        let (one, other) = (stand_in(PAGE), stand_in(PAGE));
        let mut mapping = one.map(MapMode::ReadWrite).unwrap();
        assert_eq!(mapping.begin(&other, Direction::Read).unwrap_err().kind(), ErrorKind::WrongBuffer);
    }

    /// Check that a writing bracket on a read-only mapping is refused.
    #[test]
    fn refuses_writing_bracket_on_read_only_map() {
        let buf = stand_in(PAGE);
        let mut mapping = buf.map(MapMode::Read).unwrap();
        assert_eq!(mapping.begin(&buf, Direction::Write).unwrap_err().kind(), ErrorKind::AccessNotDeclared);
    }

    /// Check that a bracket allows only the declared direction.
    #[test]
    fn enforces_the_direction() {
        let buf = stand_in(PAGE);
        let mut mapping = buf.map(MapMode::ReadWrite).unwrap();
        // Made by hand: the stand-in knows no sync request.
        let access = CpuAccess { mapping: &mut mapping, buf: &buf, direction: Direction::Write, open: false };
        assert_eq!(access.read_at(0, &mut [0]).unwrap_err().kind(), ErrorKind::AccessNotDeclared);
        drop(access);
        let mut access =
            CpuAccess { mapping: &mut mapping, buf: &buf, direction: Direction::Read, open: false };
        assert_eq!(access.write_at(0, &[0]).unwrap_err().kind(), ErrorKind::AccessNotDeclared);
        assert_eq!(access.read_at(PAGE as usize, &mut [0]).unwrap_err().kind(), ErrorKind::InvalidRange);
    }

    /// Check that offsets of an access count from the range asked for, and end with it.
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
