//! The identity of a buffer: what is needed to say that two references belong to the same one.

use super::{Dev, Inode, Kind};

/// The identity of a buffer, within one boot of one machine.
///
/// A dma-buf's inode number is unique within a boot from Linux 5.18 on: it comes from a 64-bit
/// counter of its own in `dma_buf_getfile`. Before, it came from a 32-bit counter shared with other
/// pseudo filesystems and can repeat after 2³² of them.
///
/// Inode numbers of the kernel's own tmpfs are unique among the files that do not choose their own.
/// A System V segment chooses: its number is its id, and segments of other IPC namespaces have the
/// same ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId {
    /// Part of the identity, because different kinds may share a device and have equal inode
    /// numbers.
    pub kind: Kind,
    /// `None` while no reference has shown it, as on a machine where only the kernel holds
    /// dma-bufs.
    pub dev: Option<Dev>,
    /// Inode number on `dev`. A System V segment's is its id (`shmid`).
    pub ino: Inode,
    /// Of a System V segment alone: the namespace that its id belongs to. `None` also if that is
    /// unknown.
    pub ipc: Option<IpcNamespace>,
}

impl BufferId {
    /// The identity of a buffer that is not a System V segment.
    #[must_use]
    pub fn new(kind: Kind, dev: Option<Dev>, ino: Inode) -> BufferId {
        BufferId { kind, dev, ino, ipc: None }
    }
}

/// An IPC namespace, by the inode number of `/proc/P/ns/ipc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpcNamespace(pub Inode);
