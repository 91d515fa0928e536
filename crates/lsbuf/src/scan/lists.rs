//! What both sources ask besides: the kernel's lists of dma-bufs and segments, and which processes are this scan
//! itself.

use crate::kernel::bufinfo::{self, List};
use crate::kernel::guard;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::sysvipc::{self, Namespaces};
use crate::model::{Kind, Kinds, Note, Pid, Source};

use super::options::Options;
use super::reading::{Seen, Segments};

/// The kernel's list, or why there is none.
pub(super) type ListResult = Result<List, String>;

/// The kernel's list, if it is asked for.
pub(super) fn read(options: &Options) -> ListResult {
    if !options.sources.kernel_list || !options.kinds.has(Kind::DmaBuf) {
        return Err("it was not asked for".into());
    }
    let Some(sys) = &options.sys_root else { return Err("no sysfs goes with this procfs".into()) };
    bufinfo::read_list(sys)
        .map_err(|e| format!("{}: {}", sys.join(bufinfo::PATH).display(), std::io::Error::from(e)))
}

/// Says that the list was read, and what is wrong with it; or why it was not.
pub(super) fn add(seen: &mut Seen, list: &ListResult, kinds: Kinds) {
    match list {
        Ok(list) => {
            seen.sources.push(Source::Bufinfo);
            seen.notes.extend(contradiction(list));
        }
        Err(_) if !kinds.has(Kind::DmaBuf) => {}
        Err(why) => seen.notes.push(Note::NoKernelList { why: why.clone() }),
    }
}

/// What is wrong with a list in itself.
fn contradiction(list: &List) -> Option<Note> {
    let stated = list.stated.map_or(0, |(buffers, _)| buffers);
    (!list.agrees()).then_some(Note::ListContradicts { rows: list.buffers.len() as u64, stated })
}

/// The processes that are this scan, by the numbers of that procfs.
pub(super) fn own_pids(root: &ProcRoot) -> Vec<Pid> {
    if root.has_own_pids() { guard::own_pids() } else { Vec::new() }
}

/// Those of them that were only made to read: they share this process's fd table and address space, and hold nothing.
pub(super) fn helpers(root: &ProcRoot) -> Vec<Pid> {
    if root.has_own_pids() { guard::helpers() } else { Vec::new() }
}

/// Adds the kernel's tables of System V segments of these namespaces, each read by a thread that enters it, or the one of a recorded tree.
///
/// A namespace that only a thread is in which no source showed, or only an fd keeps, is not asked.
pub(super) fn add_segments(segments: &mut Segments, namespaces: &Namespaces, root: &ProcRoot) {
    segments.asked = true;
    let live = namespaces.tables(root).into_iter().map(|(namespace, table)| (Some(namespace), table));
    let mut tables: Vec<_> = live.collect();
    if !root.is_live() {
        tables.push((None, sysvipc::rows(root.dir())));
    }
    for (namespace, table) in tables {
        match table {
            Ok(rows) => segments.tables.push((namespace, rows)),
            Err(_) => segments.unread += 1,
        }
    }
}
