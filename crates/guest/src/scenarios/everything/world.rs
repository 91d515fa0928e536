//! The world of the scenario `everything`, and how many pages each part of it has.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::Context;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mount::{MountFlags, mount};

use crate::make;
use crate::scenarios::huge_pages::{self, fill};
use crate::scenarios::shmem::kit::{file, mount_tmpfs, swapped_of, unmount_lazily};
use crate::sys::loops::LoopDevice;
use crate::sys::shm::{self, Segment};
use crate::sys::{self, Region, page_size};

/// Pages of each buffer of which a half is in swap.
pub(super) const HALF_SWAPPED: usize = 64;

/// Pages of the parts that every way shows.
pub(super) const BY_FD: u64 = 1;
pub(super) const MAPPED: u64 = 2;
pub(super) const ATTACHED: usize = 3;
pub(super) const UNATTACHED: usize = 4;
pub(super) const HELD: u64 = 5;
pub(super) const DELETED: u64 = 6;
pub(super) const UNHELD: u64 = 7;
pub(super) const ON_DEVTMPFS: u64 = 8;
pub(super) const BEHIND_LOOP: u64 = 16;

/// Pages of the parts that procfs does not show.
pub(super) const IN_FLIGHT: u64 = 32;
pub(super) const MEMFD_BEHIND_LOOP: u64 = 64;
pub(super) const BELOW_A_MOUNT: u64 = 128;
pub(super) const UNMOUNTED_UNHELD: u64 = 256;
pub(super) const UNMOUNTED_HELD: u64 = 512;
pub(super) const HIDDEN: u64 =
    IN_FLIGHT + MEMFD_BEHIND_LOOP + BELOW_A_MOUNT + UNMOUNTED_UNHELD + UNMOUNTED_HELD;

/// Huge pages of each part, and of the pool.
pub(super) const HUGE_MEMFD: u64 = 1;
pub(super) const HUGE_ANONYMOUS: u64 = 2;
pub(super) const HUGE_HELD: u64 = 3;
pub(super) const HUGE_UNHELD: u64 = 4;
pub(super) const HUGE_OWN: u64 = 5;
pub(super) const HUGE_ATTACHED: u64 = 6;
pub(super) const HUGE_UNATTACHED: u64 = 7;
pub(super) const HUGE_RESERVED: u64 = 2;
pub(super) const HUGE_ALL: u64 = 40;

/// What is alive as long as this is. Mappings stay until the process ends.
#[derive(Default)]
pub(super) struct World {
    files: Vec<OwnedFd>,
    segments: Vec<Segment>,
    loops: Vec<LoopDevice>,
    sockets: Vec<UnixStream>,
    /// Bytes in swap.
    pub(super) swapped: u64,
    /// Those of them that are of segments.
    pub(super) swapped_of_segments: u64,
}

/// Maps so many pages of a file and closes it.
fn map(file: impl AsFd, pages: usize) -> anyhow::Result<Region> {
    sys::map(file, 0, pages * page_size())
}

impl World {
    /// Has the first half of a region swapped out. Returns how much of it is in swap then.
    fn swap_half(&mut self, region: Region) -> anyhow::Result<u64> {
        shm::touch(region, region.len)?;
        shm::page_out(Region { len: region.len / 2, ..region })?;
        let swapped = swapped_of(region)?;
        self.swapped += swapped;
        Ok(swapped)
    }

    /// What every way shows.
    pub(super) fn add_visible(&mut self) -> anyhow::Result<()> {
        self.files.push(make::memfd(b"by fd", 100, BY_FD)?);
        map(make::memfd(b"mapped", 100, MAPPED)?, 100)?;
        for (number, attached) in [(ATTACHED, true), (UNATTACHED, false)] {
            let segment = Segment::create(0, number + 50)?;
            let region = segment.attach()?;
            shm::touch(region, number * page_size())?;
            if !attached {
                shm::detach(region)?;
            }
            self.segments.push(segment);
        }
        self.files.push(file("/dev/shm/held", HELD)?.into());
        self.files.push(file("/dev/shm/deleted", DELETED)?.into());
        fs::remove_file("/dev/shm/deleted")?;
        drop(file("/dev/shm/unheld", UNHELD)?);
        drop(file("/dev/everything", ON_DEVTMPFS)?);
        self.loops.push(LoopDevice::of(file("/dev/shm/image", BEHIND_LOOP)?)?);
        Ok(())
    }

    /// A buffer of each kind, of which a half is in swap.
    pub(super) fn add_swapped(&mut self) -> anyhow::Result<()> {
        let region = map(make::memfd(b"swapped", HALF_SWAPPED as u64, 0)?, HALF_SWAPPED)?;
        self.swap_half(region)?;
        let segment = Segment::create(0, HALF_SWAPPED)?;
        let region = segment.attach()?;
        self.segments.push(segment);
        self.swapped_of_segments = self.swap_half(region)?;
        self.swap_half(shm::map_anonymous(HALF_SWAPPED)?)?;
        let region = map(file("/dev/shm/swapped", HALF_SWAPPED as u64)?, HALF_SWAPPED)?;
        self.swap_half(region)?;
        // Nobody holds this one any more.
        let left = file("/dev/shm/swapped-unheld", HALF_SWAPPED as u64)?;
        let region = sys::map(&left, 0, HALF_SWAPPED * page_size())?;
        self.swap_half(region)?;
        sys::unmap(region)
    }

    /// What procfs does not show.
    pub(super) fn add_hidden(&mut self) -> anyhow::Result<()> {
        let (one, other) = UnixStream::pair()?;
        let sent = make::memfd(b"in flight", IN_FLIGHT, IN_FLIGHT)?;
        sys::send_any(&one, &[sent.as_fd()])?;
        self.sockets.extend([one, other]);
        let image = make::memfd(b"image", MEMFD_BEHIND_LOOP, MEMFD_BEHIND_LOOP)?;
        self.loops.push(LoopDevice::of(image)?);
        mount_tmpfs("/tmp/over")?;
        drop(file("/tmp/over/below", BELOW_A_MOUNT)?);
        mount_tmpfs("/tmp/over")?;
        mount_tmpfs("/tmp/lazy")?;
        drop(file("/tmp/lazy/unheld", UNMOUNTED_UNHELD)?);
        self.files.push(file("/tmp/lazy/held", UNMOUNTED_HELD)?.into());
        unmount_lazily("/tmp/lazy")
    }

    /// Huge pages of every sort, of a pool of [`HUGE_ALL`].
    pub(super) fn add_huge(&mut self) -> anyhow::Result<()> {
        fs::create_dir_all("/tmp/huge")?;
        mount("none", "/tmp/huge", "hugetlbfs", MountFlags::empty(), Some(c"pagesize=2M"))?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
        let memfd = memfd_create(c"huge", flags).context("a huge memfd")?;
        fill(&memfd, HUGE_MEMFD)?;
        self.files.push(memfd);
        self.files.push(huge_pages::file("/tmp/huge/held", HUGE_HELD)?);
        drop(huge_pages::file("/tmp/huge/left", HUGE_UNHELD)?);
        for (pages, shared) in [(HUGE_ANONYMOUS, true), (HUGE_OWN, false)] {
            let region = shm::map_huge(huge_pages::len(pages)?, shared)?;
            shm::touch(region, region.len)?;
        }
        for (pages, attached) in [(HUGE_ATTACHED, true), (HUGE_UNATTACHED, false)] {
            let segment = Segment::huge(huge_pages::len(pages)?)?;
            let region = segment.attach()?;
            shm::touch(region, region.len)?;
            if !attached {
                shm::detach(region)?;
            }
            self.segments.push(segment);
        }
        shm::map_huge(huge_pages::len(HUGE_RESERVED)?, false)?;
        Ok(())
    }
}
