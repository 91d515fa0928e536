//! The device and inode that mappings of a dma-buf show, where its exporter gives them another
//! file.
//!
//! Drivers whose objects are shmem files may put the object's own file into the VMA
//! (`vgem_prime_mmap` until Linux 5.12, `i915_gem_dmabuf_mmap` for a GPU without local memory).
//! `maps` then shows `/drm mm object` or `/i915` with the object's inode, and nothing that names
//! the dma-buf. To find out, lsbuf maps the buffer itself: it duplicates an fd, maps one page
//! without any access right, and looks that mapping up in its own `maps`. It neither reads the
//! buffer nor causes a page fault.
//!
//! This has side effects: the buffer's count is one higher meanwhile, and its exporter's mmap
//! function runs. So it is done only if a user asks for one buffer in full, never for a list. It
//! needs the right to attach to the process (`pidfd_getfd(2)`).

use std::os::fd::AsFd;

use rustix::fs::CWD;
use rustix::io::{Errno, Result};

use super::maps::Line;
use super::own::Region;
use super::process::ProcessDir;
use super::{duplicate, read};
use crate::model::{Dev, Fd, Inode};

/// Returns the device and inode that a mapping of that dma-buf shows.
pub(crate) fn of(process: &ProcessDir, fd: Fd, ino: Inode) -> Result<(Dev, Inode)> {
    let (duplicate, _) = duplicate::take(process, fd, ino)?;
    let page = Region::untouchable(duplicate.as_fd())?;
    let mut text = Vec::new();
    read::file(CWD, c"/proc/self/maps", &mut text)?;
    at(&text, page.start()).ok_or(Errno::NOENT)
}

/// The file of the mapping that begins at that address.
fn at(maps: &[u8], start: u64) -> Option<(Dev, Inode)> {
    let lines = maps.split(|&b| b == b'\n').filter_map(|line| Line::parse(line).ok());
    lines.into_iter().find(|line| line.vma.start == start).map(|line| (line.dev, line.ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the mapping that begins at the address is found, and no other.
    #[test]
    fn by_its_address() {
        let maps = b"1000-2000 rw-s 00000000 00:01 7    /drm mm object (deleted)\n3000-4000 ---s 00000000 00:01 8    /i915 (deleted)\n";
        assert_eq!(at(maps, 0x3000), Some((Dev { major: 0, minor: 1 }, Inode(8))));
        assert_eq!(at(maps, 0x2000), None);
    }
}
