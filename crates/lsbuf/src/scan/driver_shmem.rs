//! Which driver's shmem is a dma-buf's memory: where an exporter gives mappings another file, one memory shows as two
//! buffers.

use crate::kernel::mapped_as;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::model::{Buffer, BufferId, Kind, Overlap};

/// Links each dma-buf that some process holds by an fd with the driver's shmem that its mappings show as, where that is mapped.
/// Where nobody maps any, nobody is asked.
pub(super) fn link(root: &ProcRoot, buffers: &mut [Buffer]) {
    let driver_buffers: Vec<BufferId> =
        buffers.iter().map(|b| b.id).filter(|id| id.kind == Kind::GemShmem).collect();
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
        let found = driver_buffers.iter().find(|id| (id.dev, id.ino) == (Some(dev), ino));
        let overlap = found.zip(buffer.size).map(|(&of, bytes)| Overlap { of, bytes });
        buffer.overlaps = Some(overlap.into_iter().collect());
    }
}

/// Whether a dma-buf's mappings may show as something else: those of heaps and udmabuf never do.
pub(super) fn may_show_as_shmem(buffer: &Buffer) -> bool {
    let exporter = buffer.exporter.as_ref().map(|e| e.as_bytes());
    buffer.id.kind == Kind::DmaBuf
        && buffer.overlaps.is_none()
        && !matches!(exporter, Some(b"system" | b"udmabuf"))
}
