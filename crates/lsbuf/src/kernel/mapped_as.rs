//! What a dma-buf looks like when it is mapped, where its exporter gives mappings another file than the buffer's.
//!
//! Drivers whose objects are shmem may swap a VMA's file for the object's own (`vgem_prime_mmap` until Linux 5.12,
//! `i915_gem_dmabuf_mmap` where there is no local memory): such a mapping shows as `/drm mm object` or `/i915`, with the object's
//! inode, and nothing in it names the dma-buf. Proof is to map the buffer and look: an fd of it is duplicated, one page of it mapped
//! without any access, and one's own `maps` tells what is there. Nothing of the buffer is read or faulted in.
//!
//! That is not nothing: the buffer's count is one higher while it lasts, and its exporter is asked to map. So it is done for who
//! asks about a buffer in full, not for every list. It takes the right to attach (`pidfd_getfd(2)`).

use std::os::fd::AsFd;

use rustix::fs::CWD;
use rustix::io::{Errno, Result};

use super::maps::Line;
use super::own::Region;
use super::process::ProcessDir;
use super::{duplicate, read};
use crate::model::{Dev, Fd, Inode};

/// The device and inode that a mapping of that dma-buf shows.
pub(crate) fn of(process: &ProcessDir, fd: Fd, ino: Inode) -> Result<(Dev, Inode)> {
    let (duplicate, _) = duplicate::take(process, fd, ino)?;
    let page = Region::untouchable(duplicate.as_fd())?;
    let mut text = Vec::new();
    read::file(CWD, c"/proc/self/maps", &mut text)?;
    at(&text, page.start()).ok_or(Errno::NOENT)
}

/// What the mapping that begins there is of.
fn at(maps: &[u8], start: u64) -> Option<(Dev, Inode)> {
    let lines = maps.split(|&b| b == b'\n').filter_map(|line| Line::parse(line).ok());
    lines.into_iter().find(|line| line.vma.start == start).map(|line| (line.dev, line.ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the mapping at that address is meant and no other.
    #[test]
    fn by_its_address() {
        let maps = b"1000-2000 rw-s 00000000 00:01 7    /drm mm object (deleted)\n3000-4000 ---s 00000000 00:01 8    /i915 (deleted)\n";
        assert_eq!(at(maps, 0x3000), Some((Dev { major: 0, minor: 1 }, Inode(8))));
        assert_eq!(at(maps, 0x2000), None);
    }
}
