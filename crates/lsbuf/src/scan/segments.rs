//! Joins System V segments that were found attached with the kernel's own tables of segments.
//!
//! The tables tell what the mappings do not: the key, the number of attachments, and segments that
//! nobody has attached. A process may have left the IPC namespace of a segment that it has
//! attached. Then the table of its present namespace has another segment with that number, or none.
//! Key and size tell the two apart, and the namespace of the attached one is then unknown.
//!
//! Limits: by procfs, two segments with the same number, key and size in different namespaces are
//! taken for one. The BPF iterators read the namespace of each attachment.

use rustix::param::page_size;

use super::reading::{Assembled, Counted, Segments};
use crate::kernel::shmem::sysvipc::SegmentRow;
use crate::model::{Buffer, BufferId, Bytes, IpcNamespace, Kind, Label, Segment};

/// Adds the tables, and the segments that nobody has attached. The buffers are ordered by identity
/// before and after.
pub(super) fn add(buffers: &mut Vec<Assembled>, segments: &mut Segments) {
    if !segments.asked {
        return;
    }
    let tables = std::mem::take(&mut segments.tables);
    name_namespaces(buffers, &tables);
    for (namespace, rows) in tables {
        rows.into_iter().for_each(|row| add_segment(buffers, namespace, row, segments.in_flight));
    }
    buffers.sort_by_key(|one| one.buffer.id);
}

/// An fd or a message shows a segment without its namespace. If only one table has such a segment,
/// it is in that namespace.
fn name_namespaces(buffers: &mut [Assembled], tables: &[(Option<IpcNamespace>, Vec<SegmentRow>)]) {
    for Assembled { buffer, .. } in buffers {
        if buffer.id.kind != Kind::Sysv || buffer.id.ipc.is_some() {
            continue;
        }
        let is_it =
            |row: &SegmentRow| row.ino == buffer.id.ino && buffer.size.is_none_or(|size| size == row.size);
        let mut having = tables.iter().filter(|(_, rows)| rows.iter().any(is_it)).map(|(ipc, _)| *ipc);
        if let (Some(ipc), None) = (having.next(), having.next()) {
            buffer.id.ipc = ipc;
        }
    }
}

fn add_segment(
    buffers: &mut Vec<Assembled>,
    ipc: Option<IpcNamespace>,
    row: SegmentRow,
    in_flight: Option<u64>,
) {
    let SegmentRow { ino, size, creator_uid, segment } = row;
    let name = key_name(format!("{:08x}", segment.key).as_bytes());
    let is_it = |one: &Assembled| {
        let id = one.buffer.id;
        id.kind == Kind::Sysv && id.ino == ino && id.ipc == ipc
    };
    let has_other_key = |path_key: &Label| *path_key != name && !segment.removed;
    let is_another = |b: &Buffer| {
        b.size.is_some_and(|known| known != size) && b.huge_page.is_none()
            || b.name.as_ref().is_some_and(has_other_key)
            // No process in this namespace has it attached, so what the holder has attached is
            // another segment.
            || segment.attached == 0 && b.holders.iter().any(|holder| !holder.maps.is_empty())
    };
    let at = match buffers.iter().position(is_it) {
        Some(at) if !is_another(&buffers[at].buffer) => at,
        Some(_) if ipc.is_none() => return,
        found => {
            // The attached segment is in a namespace that its holder has left, and which one is
            // unknown.
            if let Some(another) = found {
                buffers[another].buffer.id.ipc = None;
            }
            let buffer = Buffer::new(BufferId { ipc, ..BufferId::new(Kind::Sysv, None, ino) });
            buffers.push(Assembled { buffer, counted: Counted::default(), uncompared: false });
            buffers.len() - 1
        }
    };
    let Assembled { buffer, counted, .. } = &mut buffers[at];
    // The table does not show the key of a segment that is marked for removal, but its path does.
    if !segment.removed || buffer.name.is_none() {
        buffer.name = Some(name);
    }
    buffer.size = Some(size);
    buffer.creator_uid = Some(creator_uid);
    buffer.charged = buffer.charged.or(Some(segment.rss + segment.swap)
        .filter(|_| !is_overcounted(size, &segment) && !may_be_overcounted(&segment)));
    buffer.swapped = Some(segment.swap);
    buffer.deleted = Some(segment.removed);
    buffer.in_flight = buffer.in_flight.or(in_flight);
    // The count below is that of attachments, which neither of these changes; and neither is known
    // to occur.
    buffer.io_uring = buffer.io_uring.or(Some(0));
    buffer.exe = buffer.exe.or(Some(0));
    // The table counts attachments alone. An fd of a segment's file is a reference besides.
    let attachments: u64 = buffer.holders.iter().map(|holder| holder.map_refs()).sum();
    buffer.count = Some(segment.attached.saturating_add(buffer.found() - attachments));
    // The table was read once, after the mappings: what it counts beyond them may have been
    // attached since.
    counted.stable = attachments == segment.attached;
    buffer.segment = Some(segment);
}

/// Whether the table says that more of a segment is in memory than fits into it. On some kernels it
/// does so for huge pages (seen on 6.18 and 7.2, not on 6.12 nor 7.3): `shm_add_rss_swap` in
/// ipc/shm.c multiplies by the size of a huge page what is counted in small pages already. So such
/// a segment has huge pages, and how much memory it takes is unknown.
pub(super) fn is_overcounted(size: Bytes, segment: &Segment) -> bool {
    /// The largest size of a page that is not huge.
    const PAGE: u64 = 64 << 10;
    (segment.rss + segment.swap).0 > size.0.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

/// Whether the table may say too much although it would fit: for each huge page of 2 MiB it says 2
/// MiB for each of its small pages. A segment of small pages can have as many bytes.
fn may_be_overcounted(segment: &Segment) -> bool {
    const HUGE: u64 = 2 << 20;
    let one_huge_page = HUGE / page_size() as u64 * HUGE;
    segment.rss.0 > 0 && segment.rss.0.is_multiple_of(one_huge_page)
}

/// A segment's name: its key, or nothing if that is private.
pub(super) fn key_name(digits: &[u8]) -> Label {
    if digits == b"00000000" { Label::default() } else { [b"0x", digits].concat()[..].into() }
}
