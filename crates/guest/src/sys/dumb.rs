//! Mappings of a dumb buffer through its device. They need no dma-buf.

use std::io::Error;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::ensure;
use dmabuf::{DrmDevice, DumbBuffer};

use super::{Region, map};

/// `DRM_IOCTL_MODE_MAP_DUMB` of include/uapi/drm/drm.h.
const MAP_DUMB: libc::Ioctl = 0xc010_64b3;

/// `struct drm_mode_map_dumb` of include/uapi/drm/drm_mode.h.
#[derive(Default)]
#[repr(C)]
struct MapDumb {
    handle: u32,
    pad: u32,
    offset: u64,
}

/// Maps a whole dumb buffer: shared, readable and writable.
///
/// # Errors
///
/// The kernel or the driver refuses.
pub fn map_dumb(device: &DrmDevice, dumb: &DumbBuffer<'_>) -> anyhow::Result<Region> {
    let mut asked = MapDumb { handle: dumb.handle.id().get(), ..MapDumb::default() };
    // SAFETY: the kernel reads and writes this structure, and no more.
    let done = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), MAP_DUMB, &raw mut asked) };
    ensure!(done == 0, "asking how to map a dumb buffer: {}", Error::last_os_error());
    map(device, asked.offset, usize::try_from(dumb.size)?)
}
