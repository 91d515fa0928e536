//! A mapping that is moved to and fro between two places, with many other mappings between them.
//!
//! Who reads mappings one after another, or in pieces, can pass the one place before the mapping is there and the other when it
//! has left.

use std::os::fd::AsFd;
use std::ptr;

use anyhow::{Context, ensure};
use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, mremap_fixed,
};

use super::{Region, page_size};

/// A mapping with two places that it can be at.
#[derive(Debug)]
pub struct Shuttle {
    here: usize,
    there: usize,
    len: usize,
    /// Both places, what is between them, and a page before and after.
    whole: Region,
}

impl Shuttle {
    /// Maps the first `len` bytes of a file, shared, with at least so many VMAs between its place and the other one.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or a place would be no whole pages.
    pub fn map(fd: impl AsFd, len: usize, vmas: usize) -> anyhow::Result<Shuttle> {
        ensure!(len.is_multiple_of(page_size()), "{len} bytes are no whole pages");
        let between = (vmas + 1) * page_size();
        let whole = 2 * len + between + 2 * page_size();
        let begin = reserve(ptr::null_mut(), whole, MapFlags::empty())?;
        let start = begin + page_size();
        for nth in (1..vmas).step_by(2) {
            let page = ptr::with_exposed_provenance_mut(start + len + nth * page_size());
            // SAFETY: the page is of the range that was just reserved and is ours alone.
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

    /// Leaves the mapping where it is with a page of nothing on either side, and unmaps the rest.
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

    /// Where it will be after [`Shuttle::cross`].
    pub fn other(&self) -> Region {
        Region { start: self.there, len: self.len }
    }

    /// Where it is.
    pub fn region(&self) -> Region {
        Region { start: self.here, len: self.len }
    }

    /// Moves it to its other place.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn cross(&mut self) -> anyhow::Result<()> {
        let [here, there] = [self.here, self.there].map(ptr::with_exposed_provenance_mut);
        // SAFETY: both places are ours alone, the other one is reserved, and nothing points into either.
        unsafe { mremap_fixed(here, self.len, self.len, MremapFlags::MAYMOVE, there) }.context("moving")?;
        // So that nothing else is mapped there before it comes back.
        reserve(here, self.len, MapFlags::FIXED_NOREPLACE)?;
        (self.here, self.there) = (self.there, self.here);
        Ok(())
    }
}

fn reserve(at: *mut std::ffi::c_void, len: usize, flags: MapFlags) -> anyhow::Result<usize> {
    let flags = flags | MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: nothing is replaced: the kernel chooses a free range, or refuses one that is not free.
    let start = unsafe { mmap_anonymous(at, len, ProtFlags::empty(), flags) };
    Ok(start.context("reserving an address range")?.expose_provenance())
}
