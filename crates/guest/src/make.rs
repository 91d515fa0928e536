//! Buffers for scenarios, from whichever exporter the kernel has.

use anyhow::Context;
use dmabuf::{DmaBuf, DrmDevice, DumbSize, Heap, VideoDevice};

use crate::need::Need;
use crate::sys;

/// `exp_name` of buffers from the system heap.
pub const HEAP: &str = "system";
/// `exp_name` of buffers from vgem: the DRM core exports for it.
pub const DRM: &str = "drm";
/// `exp_name` of buffers from vivid: its allocator's module exports for it.
pub const VIVID: &str = "videobuf2_vmalloc";

/// A buffer that nothing but its fd holds, and its exporter's name: from the heap, or else from vgem with the GEM handle
/// closed again.
///
/// # Errors
///
/// There is no exporter.
pub fn plain(size: u64) -> anyhow::Result<(DmaBuf, &'static str)> {
    if Need::Heap.probe() {
        return Ok((Heap::open("system")?.allocate(size)?, HEAP));
    }
    let device = vgem()?;
    let dumb = device.create_dumb(at_least(size)?)?;
    let buf = dumb.handle.export()?;
    Ok((buf, DRM))
}

/// The name of the exporter that [`plain`] uses here.
pub fn plain_exporter() -> &'static str {
    if Need::Heap.probe() { HEAP } else { DRM }
}

/// The vgem device.
///
/// # Errors
///
/// There is none.
pub fn vgem() -> anyhow::Result<DrmDevice> {
    DrmDevice::find("vgem").context("opening vgem")
}

/// The vivid device that captures.
///
/// # Errors
///
/// There is none.
pub fn vivid() -> anyhow::Result<VideoDevice> {
    VideoDevice::find("vivid").context("opening vivid")
}

/// Dimensions of a dumb buffer of that many bytes.
///
/// # Errors
///
/// No dimensions are that large.
pub fn at_least(size: u64) -> anyhow::Result<DumbSize> {
    DumbSize::at_least(size).with_context(|| format!("a dumb buffer of {size} bytes"))
}

/// Whether a mapping of a [`plain`] buffer shows in `maps` under the buffer's own inode number and name.
///
/// # Errors
///
/// No buffer can be made or mapped.
pub fn maps_as_itself() -> anyhow::Result<bool> {
    shows_when_mapped(&plain(4096)?.0)
}

/// Whether a mapping of this unnamed buffer shows in `maps` under the buffer's own inode number and name.
///
/// # Errors
///
/// It cannot be mapped.
pub fn shows_when_mapped(buf: &DmaBuf) -> anyhow::Result<bool> {
    let region = sys::map(buf, 0, 4096)?;
    let ino = buf.identity()?.ino.to_string();
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    sys::unmap(region)?;
    let start = format!("{:x}-", region.start);
    let line = maps.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
    let mut fields = line.split_ascii_whitespace().skip(4);
    Ok(fields.next() == Some(&ino) && fields.next() == Some("/dmabuf:"))
}
