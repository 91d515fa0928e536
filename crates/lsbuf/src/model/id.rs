//! Which buffer is which: all that is needed to say that two references are of one buffer.

use super::{Dev, Inode, Kind};

/// Which buffer, for one boot of one machine.
///
/// A dma-buf's inode number is unique for a boot from Linux 5.18 on (a 64-bit counter of its own in
/// `dma_buf_getfile`); before, it came from a 32-bit counter shared with other pseudo filesystems and
/// can repeat after 2³² of them. Inode numbers of the kernel's own tmpfs are unique among the files that have none of their
/// own choosing, but a System V segment's is its id, which other namespaces' segments have too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId {
    /// The kind is part of the identity: different kinds may share a device and collide in inode numbers.
    pub kind: Kind,
    /// `None` while no reference has shown it: a machine where only the kernel holds dma-bufs.
    pub dev: Option<Dev>,
    /// Inode number on `dev`. A System V segment's is its id (`shmid`).
    pub ino: Inode,
    /// Of a System V segment alone: the namespace that its id belongs to; `None` also if that could not be told.
    pub ipc: Option<IpcNamespace>,
}

impl BufferId {
    /// Of a buffer that is not a System V segment.
    #[must_use]
    pub fn new(kind: Kind, dev: Option<Dev>, ino: Inode) -> BufferId {
        BufferId { kind, dev, ino, ipc: None }
    }
}

/// An IPC namespace, by the inode number of `/proc/P/ns/ipc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpcNamespace(pub Inode);
