//! Finds out which driver's shmem is the memory of a dma-buf.
//!
//! Some exporters give a mapping another file than the dma-buf's, and then one memory shows as two
//! buffers. Only a trial mapping of the dma-buf tells which they are (`kernel::mapped_as`).
//!
//! Limits: a dma-buf can only be tried through an fd, so one that no process holds by an fd is not.

use std::collections::HashMap;

use crate::kernel::mapped_as;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::model::{Buffer, BufferId, Dev, Inode, Kind, Overlap};

/// Links each dma-buf that a process holds by an fd with the driver's shmem as which its mappings
/// show. Does nothing if no driver's shmem is mapped.
pub(super) fn link(root: &ProcRoot, buffers: &mut [Buffer]) {
    let of_drivers = buffers.iter().map(|b| b.id).filter(|id| id.kind == Kind::GemShmem);
    let driver_buffers: HashMap<(Dev, Inode), BufferId> =
        of_drivers.filter_map(|id| Some(((id.dev?, id.ino), id))).collect();
    if driver_buffers.is_empty() {
        return;
    }
    for buffer in buffers.iter_mut().filter(|b| may_show_as_shmem(b)) {
        let mut fds = buffer.holders.iter().filter_map(|holder| Some((holder.pid, *holder.fds.first()?)));
        let shown = fds.find_map(|(pid, fd)| {
            let process = ProcessDir::open(root, pid).ok()?;
            mapped_as::of(&process, fd, buffer.id.ino).ok()
        });
        let Some((dev, ino)) = shown else { continue };
        let found = driver_buffers.get(&(dev, ino));
        let overlap = found.zip(buffer.size).map(|(&of, bytes)| Overlap { of, bytes });
        buffer.overlaps = Some(overlap.into_iter().collect());
    }
}

/// Whether a dma-buf's mappings may show as something else. Those of the system heap and of udmabuf
/// never do.
pub(super) fn may_show_as_shmem(buffer: &Buffer) -> bool {
    let exporter = buffer.exporter.as_ref().map(|e| e.as_bytes());
    buffer.id.kind == Kind::DmaBuf
        && buffer.overlaps.is_none()
        && !matches!(exporter, Some(b"system" | b"udmabuf"))
}
