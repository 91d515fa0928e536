//! Buffers for scenarios, from whichever exporter the kernel has.

use anyhow::Context;
use dmabuf::{DmaBuf, DrmDevice, DumbSize, Heap};

use crate::need::Need;

/// `exp_name` of buffers from the system heap.
pub const HEAP: &str = "system";
/// `exp_name` of buffers from vgem: the DRM core exports for it.
pub const DRM: &str = "drm";

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

/// Dimensions of a dumb buffer of that many bytes.
///
/// # Errors
///
/// No dimensions are that large.
pub fn at_least(size: u64) -> anyhow::Result<DumbSize> {
    DumbSize::at_least(size).with_context(|| format!("a dumb buffer of {size} bytes"))
}
