//! Makes buffers from whichever exporter the kernel has, and other memory, for scenarios.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};
use dmabuf::{DmaBuf, DrmDevice, DumbSize, Heap, VideoDevice};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::need::SWAP_DISK;
use crate::sys;
use crate::sys::shm::Swap;

/// `exp_name` of buffers from the system heap.
pub const HEAP: &str = "system";
/// `exp_name` of buffers from vgem, for which the DRM core exports.
pub const DRM: &str = "drm";
/// `exp_name` of buffers from vivid, for which the module of its allocator exports.
pub const VIVID: &str = "videobuf2_vmalloc";

/// Whether the kernel has the system heap.
pub fn has_heap() -> bool {
    fs::exists("/dev/dma_heap/system").unwrap_or(false)
}

/// A buffer that only its fd keeps, and its exporter's name. It comes from the system heap, or else
/// from vgem with the GEM handle closed.
///
/// # Errors
///
/// There is no exporter.
pub fn plain(size: u64) -> anyhow::Result<(DmaBuf, &'static str)> {
    if has_heap() {
        return Ok((Heap::open("system")?.allocate(size)?, HEAP));
    }
    let device = vgem()?;
    let dumb = device.create_dumb(at_least(size)?)?;
    let buf = dumb.handle.export()?;
    Ok((buf, DRM))
}

/// The name of the exporter that [`plain`] uses on this kernel.
pub fn plain_exporter() -> &'static str {
    if has_heap() { HEAP } else { DRM }
}

/// The vgem device.
///
/// # Errors
///
/// There is none.
pub fn vgem() -> anyhow::Result<DrmDevice> {
    DrmDevice::find("vgem").context("opening vgem")
}

/// The capture device of vivid.
///
/// # Errors
///
/// There is none.
pub fn vivid() -> anyhow::Result<VideoDevice> {
    VideoDevice::find("vivid").context("opening vivid")
}

/// The dimensions of a dumb buffer of at least `size` bytes.
///
/// # Errors
///
/// No dimensions are that large.
pub fn at_least(size: u64) -> anyhow::Result<DumbSize> {
    DumbSize::at_least(size).with_context(|| format!("a dumb buffer of {size} bytes"))
}

/// Whether a mapping of a [`plain`] buffer shows in `maps` with the buffer's own inode number and
/// name.
///
/// # Errors
///
/// No buffer can be made or mapped.
pub fn maps_as_itself() -> anyhow::Result<bool> {
    shows_when_mapped(&plain(sys::page())?.0)
}

/// Whether a mapping of this unnamed buffer shows in `maps` with the buffer's own inode number and
/// name.
///
/// # Errors
///
/// It cannot be mapped.
pub fn shows_when_mapped(buf: &DmaBuf) -> anyhow::Result<bool> {
    let region = sys::map(buf, 0, sys::page_size())?;
    let ino = buf.identity()?.ino.to_string();
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    sys::unmap(region)?;
    let start = format!("{:x}-", region.start);
    let line = maps.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
    let mut fields = line.split_ascii_whitespace().skip(4);
    Ok(fields.next() == Some(&ino) && fields.next() == Some("/dmabuf:"))
}

/// A memfd of `pages` pages that can be sealed. The first `written` pages are written.
///
/// # Errors
///
/// The kernel refuses.
pub fn memfd(name: &[u8], pages: u64, written: u64) -> anyhow::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).context("making a memfd")?;
    ftruncate(&fd, pages * sys::page()).context("setting a memfd's size")?;
    write_pages(&fd, written)?;
    Ok(fd)
}

/// Writes the first `pages` pages of a file.
///
/// # Errors
///
/// The kernel refuses.
pub fn write_pages(fd: impl AsFd, pages: u64) -> anyhow::Result<()> {
    let filled = vec![1; sys::page_size()];
    for page in 0..pages {
        let written = rustix::io::pwrite(&fd, &filled, page * sys::page()).context("writing a page")?;
        ensure!(written == filled.len(), "only {written} bytes of a page were written");
    }
    Ok(())
}

/// Makes a swap space of the disk in memory, and swaps to it. The header is `union swap_header` of
/// include/linux/swap.h: one page with the layout's version, the number of the last page, no bad
/// pages, and the signature at its end.
///
/// # Errors
///
/// The guest has no such disk, or the kernel refuses.
pub fn swap() -> anyhow::Result<Swap> {
    let mut disk = OpenOptions::new().write(true).open(SWAP_DISK)?;
    let pages = u32::try_from(disk.seek(SeekFrom::End(0))? / sys::page())?;
    let mut header = vec![0; sys::page_size()];
    header.splice(1024..1032, [1_u32, pages - 1].map(u32::to_ne_bytes).concat());
    header.splice(sys::page_size() - 10.., *b"SWAPSPACE2");
    disk.write_all_at(&header, 0)?;
    disk.sync_all()?;
    Swap::on(SWAP_DISK)
}

/// Reserved huge pages. When this is dropped, their number is set back.
#[derive(Debug)]
pub struct HugePages {
    before: String,
}

impl HugePages {
    const NUMBER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    /// Bytes of each. Every architecture has huge pages of this size, whatever its ordinary pages.
    /// The kernel may prefer much larger ones, of which a guest has no room for some.
    pub const SIZE: u64 = 2 << 20;

    /// At least so many.
    ///
    /// # Errors
    ///
    /// The kernel supports no huge pages, or has no memory for them.
    pub fn set_aside(number: u64) -> anyhow::Result<HugePages> {
        let huge = HugePages { before: fs::read_to_string(Self::NUMBER)? };
        fs::write(Self::NUMBER, number.to_string())?;
        let there: u64 = fs::read_to_string(Self::NUMBER)?.trim().parse()?;
        ensure!(there >= number, "{there} huge pages of {number}");
        Ok(huge)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // The number could be set before. If setting it back fails, memory stays unused, and no
        // more.
        let _ = fs::write(Self::NUMBER, &self.before);
    }
}
