//! Collects the fds that the iterators report in one reading.
//!
//! There may be a million fds, so each is kept as three numbers: of its file, of the task's fd
//! table, and its own. What all fds of one file say is kept once, with the file.

use std::collections::HashMap;

use super::shmem_records::number;
use crate::kernel::bpf::record::{ExecId, FdRecord, Id};
use crate::model::{Fd, Inode, Pid, Tid};

/// What the fds of a task have in common while it runs one program with one table.
pub(super) type Slots = (Pid, Tid, Option<Id>, ExecId);

/// An fd of the file with this number.
#[derive(Clone, Copy, Debug)]
struct KnownFd {
    file: u32,
    /// A number of [`KnownFds::slots`].
    slots: u32,
    fd: Fd,
}

/// fds in the order in which they were reported.
#[derive(Debug, Default)]
pub(super) struct KnownFds {
    slots: Vec<Slots>,
    fds: Vec<KnownFd>,
}

impl KnownFds {
    /// Adds an fd of the file with this number.
    pub(super) fn add<K>(&mut self, file: u32, found: &FdRecord<K>) {
        let slots = (found.pid, found.tid, found.files, found.program);
        // The iterator goes from task to task.
        if self.slots.last() != Some(&slots) {
            self.slots.push(slots);
        }
        self.fds.push(KnownFd { file, slots: number(self.slots.len() - 1), fd: found.fd });
    }

    /// Leaves out the fds of these processes.
    pub(super) fn forget(&mut self, helpers: &[Pid]) {
        let slots = &self.slots;
        self.fds.retain(|fd| !helpers.contains(&slots[fd.slots as usize].0));
    }

    /// All fds, each with the number of its file.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Slots, Fd)> {
        self.fds.iter().map(|fd| (fd.file, self.slots[fd.slots as usize], fd.fd))
    }
}

/// The open files of a dma-buf: those that hold it open, or those that only name it (`O_PATH`).
#[derive(Clone, Copy, Debug)]
pub(super) struct DmaBufFiles {
    pub(super) ino: Inode,
    pub(super) path_only: bool,
    /// The last value of the dma-buf's count that was read with an fd.
    pub(super) count: u64,
    /// Whether the count was the same each time.
    pub(super) stable: bool,
}

/// The fds of dma-bufs. The number of a file is one of [`DmaBufFds::files`].
#[derive(Debug, Default)]
pub(super) struct DmaBufFds {
    pub(super) files: Vec<DmaBufFiles>,
    numbers: HashMap<(Inode, bool), u32>,
    pub(super) fds: KnownFds,
}

impl DmaBufFds {
    pub(super) fn add(&mut self, found: &FdRecord<Inode>) {
        let &FdRecord { of: ino, count, path_only, .. } = found;
        let next = number(self.files.len());
        let at = *self.numbers.entry((ino, path_only)).or_insert(next);
        if at == next {
            self.files.push(DmaBufFiles { ino, path_only, count, stable: true });
        } else {
            let files = &mut self.files[at as usize];
            files.stable &= files.count == count;
            files.count = count;
        }
        self.fds.add(at, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that an fd takes 12 bytes.
    #[test]
    fn size() {
        assert_eq!(size_of::<KnownFd>(), 12);
    }
}
