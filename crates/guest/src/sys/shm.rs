//! Shared memory without a file of its own: System V segments, and anonymous mappings.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use anyhow::Context;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::{PAGE, Region};

/// A private segment; removed when dropped, and gone with its last attachment.
#[derive(Debug)]
pub struct Segment {
    id: libc::c_int,
}

impl Segment {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn new(size: u64) -> anyhow::Result<Segment> {
        Segment::with(size, 0)
    }

    /// Makes one of huge pages of the default size.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or has no such pages.
    pub fn huge(size: u64) -> anyhow::Result<Segment> {
        Segment::with(size, libc::SHM_HUGETLB)
    }

    fn with(size: u64, flags: libc::c_int) -> anyhow::Result<Segment> {
        let flags = libc::IPC_CREAT | flags | 0o600;
        // SAFETY: numbers only.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, usize::try_from(size)?, flags) };
        if id == -1 {
            return Err(std::io::Error::last_os_error()).context("making a segment");
        }
        Ok(Segment { id })
    }

    /// Attaches it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn attach(&self) -> anyhow::Result<Attached> {
        // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
        let start = unsafe { libc::shmat(self.id, ptr::null(), 0) };
        if start.addr() == usize::MAX {
            return Err(std::io::Error::last_os_error()).context("attaching a segment");
        }
        Ok(Attached { start: start.cast() })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: IPC_RMID reads nothing through the pointer. A failure leaves it to the end of the guest.
        unsafe { libc::shmctl(self.id, libc::IPC_RMID, ptr::null_mut()) };
    }
}

/// An attached segment; detached when dropped.
#[derive(Debug)]
pub struct Attached {
    start: *mut u8,
}

impl Attached {
    /// Writes to so many of its first pages; it has to have them.
    pub fn touch(&self, pages: usize) {
        touch(self.start, pages);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: it is attached there, and nothing points into it. A failure leaves it to the end of the process.
        unsafe { libc::shmdt(self.start.cast()) };
    }
}

/// Anonymous memory that is shared; unmapped when dropped.
#[derive(Debug)]
pub struct Shared {
    region: Region,
}

impl Shared {
    /// Maps so many pages.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn new(pages: usize) -> anyhow::Result<Shared> {
        let (access, len) = (ProtFlags::READ | ProtFlags::WRITE, pages * PAGE);
        // SAFETY: the kernel chooses a free range.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), len, access, MapFlags::SHARED) };
        Ok(Shared { region: Region { start: start.context("mapping")?.expose_provenance(), len } })
    }

    /// As [`Attached::touch`].
    pub fn touch(&self, pages: usize) {
        touch(ptr::with_exposed_provenance_mut(self.region.start), pages.min(self.region.len / PAGE));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's, and nothing points into it. A failure leaves it to the end of the process.
        let _ = unsafe { munmap(ptr::with_exposed_provenance_mut(self.region.start), self.region.len) };
    }
}

/// A secret memfd with that size, mapped and touched; `None` where the kernel has none. It stays to the end of the process
/// if it is not dropped.
pub fn secret(size: u64) -> Option<OwnedFd> {
    // SAFETY: memfd_secret takes flags alone.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let fd = libc::c_int::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the call has just made this fd, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::fs::ftruncate(&fd, size).ok()?;
    let region = super::map(&fd, 0, usize::try_from(size).ok()?).ok()?;
    touch_region(region);
    super::unmap(region).ok()?;
    Some(fd)
}

/// Writes to each page of a region, which has to be as long as what it maps.
pub fn touch_region(region: Region) {
    touch(ptr::with_exposed_provenance_mut(region.start), region.len / PAGE);
}

fn touch(start: *mut u8, pages: usize) {
    for page in 0..pages {
        // SAFETY: the page is mapped and writable, and no reference to it exists.
        unsafe { start.wrapping_add(page * PAGE).write_volatile(1) };
    }
}
