//! Memory that a process got by writing to a private mapping of a buffer.

use super::{Bytes, Pid};

/// Copies of a buffer's pages. They are the process's own memory, and in no figure of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrivateCopies {
    /// Whose.
    pub pid: Pid,
    /// Copies of pages of the smallest size that are in memory.
    pub bytes: Bytes,
    /// Huge pages that may be copies: pages of the buffer that only this mapping has are among
    /// them.
    pub huge_at_most: Bytes,
}

impl PrivateCopies {
    pub(crate) fn new(pid: Pid, bytes: Bytes, huge_at_most: Bytes) -> PrivateCopies {
        PrivateCopies { pid, bytes, huge_at_most }
    }
}
