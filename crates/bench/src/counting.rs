//! The system's allocator with a counter, to measure how many allocations a scan takes. All
//! `unsafe` code of this crate is here.
//!
//! Limits: it counts requests, also those that grow an allocation in place. It does not count
//! bytes.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts requests for memory.
#[derive(Debug)]
pub(crate) struct Counting(AtomicU64);

impl Counting {
    /// An allocator that has counted nothing yet.
    pub(crate) const fn new() -> Counting {
        Counting(AtomicU64::new(0))
    }

    /// How many requests all threads have made.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every request is passed unchanged to the system's allocator, and its result is returned.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add();
        // SAFETY: the contract is the same, and the caller keeps it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add();
        // SAFETY: the contract is the same, and the caller keeps it.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        self.add();
        // SAFETY: the contract is the same, and the caller keeps it.
        unsafe { System.realloc(old, layout, len) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the contract is the same, and the caller keeps it.
        unsafe { System.dealloc(old, layout) }
    }
}

#[cfg(test)]
mod tests {
    /// Check that an allocation is counted and a release is not.
    #[test]
    fn counts() {
        let counting = super::Counting::new();
        let layout = std::alloc::Layout::new::<u64>();
        // SAFETY: the layout is not empty, and what was allocated is freed with it.
        unsafe {
            use std::alloc::GlobalAlloc;
            let at = counting.alloc(layout);
            counting.dealloc(at, layout);
        }
        assert_eq!(counting.count(), 1);
    }
}
