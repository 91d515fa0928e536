//! What both sources read besides processes: the kernel's list of dma-bufs, its tables of segments,
//! and which processes belong to this scan itself.
//!
//! Limits: the list is in debugfs, which only root can read on most machines.

use crate::kernel::bufinfo::{self, List};
use crate::kernel::guard;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::sysvipc::{self, Namespaces};
use crate::model::{Kind, Kinds, Note, Pid, Source};

use super::options::Options;
use super::reading::{ReadingCoverage, Segments};

/// The kernel's list of dma-bufs, or why there is none.
pub(super) type ListResult = Result<List, String>;

/// Whether the options allow reading the kernel's list, and this process may open it.
pub(super) fn can_read(options: &Options) -> bool {
    let wanted = options.sources.kernel_list && options.kinds.has(Kind::DmaBuf);
    options.sys_root.as_deref().is_some_and(|sys| wanted && bufinfo::can_open(sys))
}

/// Reads the kernel's list, if the options allow it.
pub(super) fn read(options: &Options) -> ListResult {
    if !options.sources.kernel_list || !options.kinds.has(Kind::DmaBuf) {
        return Err("not in --source".into());
    }
    let Some(sys) = &options.sys_root else { return Err("no sysfs goes with this procfs".into()) };
    bufinfo::read_list(sys)
        .map_err(|e| format!("{}: {}", sys.join(bufinfo::PATH).display(), std::io::Error::from(e)))
}

/// Adds a source and the notes that follow from the list; or a note that says why it was not read.
pub(super) fn add(seen: &mut ReadingCoverage, list: &ListResult, kinds: Kinds) {
    match list {
        Ok(list) => {
            seen.sources.push(Source::Bufinfo);
            seen.notes.extend(contradiction(list));
        }
        Err(_) if !kinds.has(Kind::DmaBuf) => {}
        Err(why) => seen.notes.push(Note::NoKernelList { why: why.clone() }),
    }
}

/// A note, if the list contradicts its own closing line.
fn contradiction(list: &List) -> Option<Note> {
    let stated = list.stated.map_or(0, |(buffers, _)| buffers);
    (!list.agrees()).then_some(Note::ListContradicts { rows: list.buffers.len() as u64, stated })
}

/// The pids of this scan, if the procfs counts pids as this process does.
pub(super) fn own_pids(root: &ProcRoot) -> Vec<Pid> {
    if root.has_own_pids() { guard::own_pids() } else { Vec::new() }
}

/// Those of them that only read: they share this process's fd table and address space, and hold
/// nothing of their own.
pub(super) fn helpers(root: &ProcRoot) -> Vec<Pid> {
    if root.has_own_pids() { guard::helpers() } else { Vec::new() }
}

/// Reads the kernel's tables of System V segments. A thread enters each of these IPC namespaces and
/// reads its table. A recorded tree has one table.
///
/// A namespace in which there are only threads that no source showed is not read.
pub(super) fn add_segments(segments: &mut Segments, namespaces: &Namespaces, root: &ProcRoot) {
    segments.asked = true;
    for (namespace, table) in namespaces.tables(root) {
        match table {
            Ok((reach, mut rows)) => {
                rows.iter_mut().for_each(|row| row.segment.reached = Some(reach.clone()));
                segments.tables.push((Some(namespace), rows));
            }
            Err(_) => segments.unread += 1,
        }
    }
    if !root.is_live() {
        match sysvipc::rows(root.dir()) {
            Ok(rows) => segments.tables.push((None, rows)),
            Err(_) => segments.unread += 1,
        }
    }
}
