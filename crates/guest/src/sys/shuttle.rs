//! A mapping that moves to and fro between two addresses, with many other mappings between them.
//!
//! A reader that reads mappings one after another, or in pieces, can miss it: it can pass one
//! address before the mapping arrives, and the other after the mapping has left.

use std::os::fd::AsFd;
use std::ptr;

use anyhow::{Context, ensure};
use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, mremap_fixed,
};

use super::{Region, page_size};

/// A mapping, and the two addresses between which it moves.
#[derive(Debug)]
pub struct Shuttle {
    here: usize,
    there: usize,
    len: usize,
    /// Both places, the mappings between them, and a page before and after.
    whole: Region,
}

impl Shuttle {
    /// Maps the first `len` bytes of a file, shared, with at least `vmas` VMAs between the two
    /// places.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or `len` is not a multiple of the page size.
    pub fn map(fd: impl AsFd, len: usize, vmas: usize) -> anyhow::Result<Shuttle> {
        ensure!(len.is_multiple_of(page_size()), "{len} bytes are no whole pages");
        let between = (vmas + 1) * page_size();
        let whole = 2 * len + between + 2 * page_size();
        let begin = reserve(ptr::null_mut(), whole, MapFlags::empty())?;
        let start = begin + page_size();
        for nth in (1..vmas).step_by(2) {
            let page = ptr::with_exposed_provenance_mut(start + len + nth * page_size());
            // SAFETY: the page belongs to the range that was just reserved, which only this
            // structure uses.
            unsafe { mprotect(page, page_size(), MprotectFlags::READ) }.context("splitting a range")?;
        }
        let (there, here) = (start, start + len + between);
        let (readable, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: it replaces a part of the same range.
        unsafe { mmap(ptr::with_exposed_provenance_mut(here), len, readable, flags, fd, 0) }
            .context("mapping")?;
        let whole = Region { start: begin, len: whole };
        Ok(Shuttle { here, there, len, whole })
    }

    /// Leaves the mapping at its current place with an inaccessible page before and behind it, and
    /// unmaps everything else.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn settle(self) -> anyhow::Result<Region> {
        let end = self.whole.start + self.whole.len;
        for (start, end) in
            [(self.whole.start, self.here - page_size()), (self.here + self.len + page_size(), end)]
        {
            if end > start {
                super::unmap(Region { start, len: end - start })?;
            }
        }
        Ok(self.region())
    }

    /// The place after the next [`Shuttle::cross`].
    pub fn other(&self) -> Region {
        Region { start: self.there, len: self.len }
    }

    /// The current place.
    pub fn region(&self) -> Region {
        Region { start: self.here, len: self.len }
    }

    /// Moves the mapping to its other place.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn cross(&mut self) -> anyhow::Result<()> {
        let [here, there] = [self.here, self.there].map(ptr::with_exposed_provenance_mut);
        // SAFETY: only this structure uses the two places, the other one is reserved, and nothing
        // points into either.
        unsafe { mremap_fixed(here, self.len, self.len, MremapFlags::MAYMOVE, there) }.context("moving")?;
        // Reserved, so that nothing else is mapped here before the mapping returns.
        reserve(here, self.len, MapFlags::FIXED_NOREPLACE)?;
        (self.here, self.there) = (self.there, self.here);
        Ok(())
    }
}

fn reserve(at: *mut std::ffi::c_void, len: usize, flags: MapFlags) -> anyhow::Result<usize> {
    let flags = flags | MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: nothing is replaced: the kernel chooses a free range, or refuses one that is not
    // free.
    let start = unsafe { mmap_anonymous(at, len, ProtFlags::empty(), flags) };
    Ok(start.context("reserving an address range")?.expose_provenance())
}
