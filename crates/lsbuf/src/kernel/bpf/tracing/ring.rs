//! The reading end of a BPF ring buffer: the pages that the kernel shares with the one process that
//! reads it.
//!
//! The memory of the map (Linux 5.8, commit 457f44363a88) consists of a page with the reader's
//! position, which the reader writes; a page with the writers' position; and the data, mapped twice
//! in a row, so that a record which wraps around is in one piece. A record begins with its length
//! and two bits: busy, as long as its program writes to it, and discarded.
//!
//! Positions only grow, so the reader goes on from the one that is in the page, and never looks
//! beyond the writers' position.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::param::page_size;
use rustix::time::Timespec;

/// `BPF_RINGBUF_BUSY_BIT` and `BPF_RINGBUF_DISCARD_BIT` of include/uapi/linux/bpf.h.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// `BPF_RINGBUF_HDR_SZ`: the length and the flags of a record, and where its page is.
const HEAD: u64 = 8;

/// A ring buffer, mapped.
#[derive(Debug)]
pub(crate) struct Ring {
    map: OwnedFd,
    /// The page with the reader's position.
    reader: Pages,
    /// The page with the writers' position, and the data twice.
    writers: Pages,
    /// Bytes of data: a power of two.
    size: u64,
}

/// Mapped memory.
#[derive(Debug)]
struct Pages(NonNull<c_void>, usize);

impl Pages {
    fn map(map: &OwnedFd, protection: ProtFlags, length: usize, at: usize) -> Result<Pages> {
        // SAFETY: the kernel chooses where the new mapping is, so it replaces none.
        let start =
            unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, map, at as u64) }?;
        NonNull::new(start).map(|start| Pages(start, length)).ok_or(Errno::NOMEM)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference into it outlives
        // this value.
        let _ = unsafe { munmap(self.0.as_ptr(), self.1) };
    }
}

// SAFETY: the mapping belongs to the process, not to the thread that made it.
unsafe impl Send for Pages {}

impl Ring {
    /// Maps a ring buffer map of so many bytes. No other reader may read the same one.
    pub(crate) fn new(map: OwnedFd, size: u32) -> Result<Ring> {
        let page = page_size();
        let data = usize::try_from(size).map_err(|_| Errno::INVAL)?;
        if !size.is_power_of_two() || !data.is_multiple_of(page) {
            return Err(Errno::INVAL);
        }
        let reader = Pages::map(&map, ProtFlags::READ | ProtFlags::WRITE, page, 0)?;
        let writers = Pages::map(&map, ProtFlags::READ, page + 2 * data, page)?;
        Ok(Ring { map, reader, writers, size: size.into() })
    }

    /// Waits until something is there to be read, but not longer than this. A signal ends it too.
    pub(crate) fn wait(&self, longest: Duration) -> Result<()> {
        let mut fds = [PollFd::new(&self.map, PollFlags::IN)];
        let timeout = Timespec::try_from(longest).map_err(|_| Errno::INVAL)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Calls `take` for every record that is complete, in the order in which their programs asked
    /// for room. Ends before one that is still written to. `BADMSG`: the memory has not the form
    /// that it should have.
    pub(crate) fn read(&mut self, mut take: impl FnMut(&[u8])) -> Result<()> {
        let mut at = self.position().load(Ordering::Relaxed);
        loop {
            let end = self.end().load(Ordering::Acquire);
            if at >= end {
                return Ok(());
            }
            let head = self.head(at).load(Ordering::Acquire);
            if head & BUSY != 0 {
                return Ok(());
            }
            let length = u64::from(head & !(BUSY | DISCARDED));
            let whole = (HEAD + length).next_multiple_of(8);
            if end - at < whole || whole > self.size {
                return Err(Errno::BADMSG);
            }
            if head & DISCARDED == 0 {
                take(self.data(at + HEAD, length));
            }
            at += whole;
            self.position().store(at, Ordering::Release);
        }
    }

    /// The reader's position.
    fn position(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped for reading and writing, begins at a page's boundary, and has
        // the number at its begin. The kernel only reads it, in one access.
        unsafe { AtomicU64::from_ptr(self.reader.0.as_ptr().cast()) }
    }

    /// The writers' position.
    fn end(&self) -> &AtomicU64 {
        // SAFETY: the page is mapped for reading, begins at a page's boundary, and has the number
        // at its begin. It is only loaded here, and the kernel writes it in one access.
        unsafe { AtomicU64::from_ptr(self.writers.0.as_ptr().cast()) }
    }

    /// The first word of the record at a position. Positions are multiples of 8, as those of all
    /// records.
    fn head(&self, at: u64) -> &AtomicU32 {
        // SAFETY: the offset is below twice the size, so inside of the mapping, and it is a
        // multiple of 8. The word is only loaded here, and the kernel writes it in one access.
        unsafe { AtomicU32::from_ptr(self.place(at).cast_mut().cast()) }
    }

    /// The bytes of a complete record.
    fn data(&self, at: u64, length: u64) -> &[u8] {
        // SAFETY: `read` has checked that the record is no longer than the data, which are mapped
        // twice in a row, so it is inside of the mapping. The program has ended writing it (BUSY is
        // not set, loaded with Acquire), and the kernel gives the place to no other record before
        // the reader's position is behind it, which needs `&mut self`.
        unsafe { std::slice::from_raw_parts(self.place(at), usize::try_from(length).unwrap_or(0)) }
    }

    fn place(&self, at: u64) -> *const u8 {
        let offset = page_size() + usize::try_from(at & (self.size - 1)).unwrap_or(0);
        // SAFETY: the offset is less than a page and the size of the data, which the mapping has.
        unsafe { self.writers.0.as_ptr().cast::<u8>().add(offset) }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.map.as_fd()
    }
}
