//! The system's allocator, with a count. The only `unsafe` of this crate.
//!
//! Limits: it counts requests, growing in place included, and not bytes.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts how often memory is asked for.
#[derive(Debug)]
pub(crate) struct Counting(AtomicU64);

impl Counting {
    /// One that has counted nothing.
    pub(crate) const fn new() -> Counting {
        Counting(AtomicU64::new(0))
    }

    /// How often, by all threads.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every request goes to the system's allocator as it came, and what that returns is returned.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        self.add();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.realloc(old, layout, len) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(old, layout) }
    }
}

#[cfg(test)]
mod tests {
    /// Check that what allocates is counted, and what does not is not.
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
