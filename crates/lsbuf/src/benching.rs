//! Private functions made public for the benchmarks with criterion: the parsers, and the step that
//! joins references with buffers.
//!
//! Each function takes what the kernel would print. It returns a number that only a complete parse
//! can find, so that a benchmark can check the result. Nothing here is of use to others.

use std::os::fd::BorrowedFd;

use crate::kernel;
pub use crate::scan::benching::Found;

/// Reads one `maps` after the other.
#[derive(Debug, Default)]
pub struct Maps(kernel::maps::MapsReader);

impl Maps {
    /// Reads an open `maps` from where it stands; how many lines look like a dma-buf's.
    ///
    /// # Errors
    /// It cannot be read, or has no line.
    pub fn read(&mut self, file: BorrowedFd<'_>) -> std::io::Result<usize> {
        let mapped = self.0.read(file, None)?;
        Ok(mapped.ok_or(std::io::ErrorKind::UnexpectedEof)?.facts.len())
    }
}

/// The inode number that a dma-buf's fdinfo tells.
pub fn fdinfo(text: &[u8]) -> Option<u64> {
    let info = kernel::fdinfo::parse(text).ok()?;
    info.dmabuf.and(info.ino).map(|ino| ino.0)
}

/// How many buffers the kernel's list has, if that is what it says at its end.
pub fn bufinfo(text: &[u8]) -> Option<usize> {
    let list = kernel::bufinfo::parse(text);
    list.agrees().then_some(list.buffers.len())
}

/// The start time in a stat line.
pub fn stat(text: &[u8]) -> Option<u64> {
    kernel::task::stat(text).ok().map(|(_, start)| start)
}
