//! Memory that processes have pinned through an io_uring (`IORING_REGISTER_BUFFERS`).
//!
//! A ring that has registered memory keeps its pages, also after the file that they were of is
//! closed and unmapped. The pages are then in no file, in no mapping and in no list, and not in
//! `Shmem`. What is left is a number: `VmPin` of `/proc/P/status` (`task_mem` in fs/proc/task_mmu.c)
//! counts the pages that a process has pinned. The ring's fdinfo shows the addresses where they were
//! mapped, and no file.
//!
//! Limits: `VmPin` also counts what RDMA and other drivers have pinned, and ordinary memory. It says
//! how much may be of such files, and not how much is. A process that has no fd of the ring any more
//! is not found.

use std::mem::MaybeUninit;

use super::details::kilobytes;
use super::fds::SlotReader;
use super::hidden_refs::FileKeeper;
use super::process::ProcessDir;
use super::read::LINK_ROOM;
use super::root::ProcRoot;
use crate::model::{Bytes, Pid};

/// Every process but these that has an io_uring and has pinned memory, and how much it has pinned.
pub(crate) fn by_rings(root: &ProcRoot, without: &[Pid]) -> Vec<(Pid, Bytes)> {
    let (mut found, mut text, mut slots) = (Vec::new(), Vec::new(), SlotReader::default());
    for (pid, _) in root.processes().unwrap_or_default() {
        if without.contains(&pid) {
            continue;
        }
        // A process that exits meanwhile, or refuses, adds nothing.
        let Ok(process) = ProcessDir::open(root, pid) else { continue };
        if process.dir().read_file(c"status", &mut text).is_err() {
            continue;
        }
        let pinned = kilobytes(&text, b"VmPin:").filter(|&pinned| pinned > Bytes(0));
        if let Some(pinned) = pinned.filter(|_| has_ring(&process, &mut slots)) {
            found.push((pid, pinned));
        }
    }
    found
}

fn has_ring(process: &ProcessDir, slots: &mut SlotReader) -> bool {
    let Ok(table) = process.dir().folder(c"fd") else { return false };
    let mut has_ring = false;
    let mut room = [MaybeUninit::uninit(); LINK_ROOM];
    // What could be listed before an error is used.
    let _ = slots.each(&table, |entry| {
        let keeper = table.link(entry, &mut room).ok().and_then(|link| FileKeeper::of(link));
        has_ring |= matches!(keeper, Some(FileKeeper::Ring));
        Ok(())
    });
    has_ring
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Check that no process that pins nothing is listed.
    #[test]
    fn live() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        assert!(by_rings(&root, &[]).iter().all(|&(_, pinned)| pinned > Bytes(0)));
    }
}
