//! Joins System V segments that were found attached with the kernel's own tables of segments.
//!
//! The tables tell what the mappings do not: the key, the number of attachments, and segments that
//! nobody has attached. A process may have left the IPC namespace of a segment that it has
//! attached. Then the table of its present namespace has another segment with that number, or none.
//! Key and size tell the two apart, and the namespace of the attached one is then unknown.
//!
//! Limits: by procfs, two segments with the same number, key and size in different namespaces are
//! taken for one. The BPF iterators read the namespace of each attachment.

use std::collections::HashMap;

use rustix::param::page_size;

use super::reading::{Assembled, Counted, Segments};
use crate::kernel::shmem::sysvipc::SegmentRow;
use crate::model::{Buffer, BufferId, Bytes, Inode, IpcNamespace, Kind, Label, Segment};

/// Adds the tables, and the segments that only they show. The buffers are ordered by identity
/// before and after.
pub(super) fn add(buffers: &mut Vec<Assembled>, segments: &mut Segments) {
    if !segments.asked {
        return;
    }
    let tables = std::mem::take(&mut segments.tables);
    let mut rows: Vec<TableRow> = tables
        .into_iter()
        .flat_map(|(ipc, rows)| rows.into_iter().map(move |row| TableRow { ipc, row, place: None }))
        .collect();
    join(buffers, &mut rows);
    for TableRow { ipc, row, place } in rows {
        add_segment(buffers, ipc, row, place, segments.in_flight);
    }
    buffers.sort_by_key(|one| one.buffer.id);
}

/// A row of a table.
struct TableRow {
    ipc: Option<IpcNamespace>,
    row: SegmentRow,
    /// Which of the buffers it is.
    place: Option<TablePlace>,
}

/// Where a row belongs.
enum TablePlace {
    /// It is this buffer.
    Buffer(usize),
    /// In a recorded tree, what was found under its number contradicts it.
    Nowhere,
}

/// Finds out which buffer each row is.
fn join(buffers: &mut [Assembled], rows: &mut [TableRow]) {
    // Of each number, the buffers that are no row's yet.
    let mut free: HashMap<Inode, Vec<usize>> = HashMap::new();
    for (at, one) in buffers.iter().enumerate().filter(|(_, one)| one.buffer.id.kind == Kind::Sysv) {
        free.entry(one.buffer.id.ino).or_default().push(at);
    }
    for row in rows.iter_mut() {
        let Some(free) = free.get_mut(&row.row.ino) else { continue };
        let Some(nth) = free.iter().position(|&at| buffers[at].buffer.id.ipc == row.ipc) else { continue };
        let at = free[nth];
        if row.fits(&buffers[at].buffer) {
            row.place = Some(TablePlace::Buffer(free.swap_remove(nth)));
        } else if row.ipc.is_none() {
            row.place = Some(TablePlace::Nowhere);
        } else {
            // The attached segment is in a namespace that its holder has left, and which one is
            // unknown.
            buffers[at].buffer.id.ipc = None;
        }
    }
    let unknown = |buffer: &Buffer| buffer.id.ipc.is_none();
    let mut left: HashMap<Inode, Vec<&mut TableRow>> = HashMap::new();
    for row in rows.iter_mut().filter(|row| row.place.is_none() && free.contains_key(&row.row.ino)) {
        left.entry(row.row.ino).or_default().push(row);
    }
    for (ino, mut rows) in left {
        let Some(free) = free.get_mut(&ino) else { continue };
        // An fd or a message shows a segment without its namespace. If only one row fits, it is
        // that one.
        free.retain(|&at| {
            let buffer = &buffers[at].buffer;
            if buffer.holders.is_empty() || !unknown(buffer) {
                return true;
            }
            let fitting: Vec<usize> = (0..rows.len()).filter(|&nth| rows[nth].fits(buffer)).collect();
            let [only] = fitting[..] else { return true };
            rows.swap_remove(only).place = Some(TablePlace::Buffer(at));
            false
        });
        // Of segments that nobody has attached, the kernel's list of inodes does not tell the
        // namespace. Those with the same number, key, size and memory are interchangeable.
        for same_memory in [true, false] {
            rows.retain_mut(|row| {
                let is_it = |&at: &usize| {
                    let buffer = &buffers[at].buffer;
                    let memory = row.row.segment.rss + row.row.segment.swap;
                    unknown(buffer)
                        && buffer.holders.is_empty()
                        && row.fits(buffer)
                        && (!same_memory || buffer.charged == Some(memory))
                };
                let Some(nth) = free.iter().position(is_it) else { return true };
                row.place = Some(TablePlace::Buffer(free.swap_remove(nth)));
                false
            });
        }
    }
}

impl TableRow {
    /// Whether a buffer with the same number can be this segment.
    fn fits(&self, buffer: &Buffer) -> bool {
        let SegmentRow { size, segment, .. } = &self.row;
        let has_other_size = buffer.size.is_some_and(|known| known != *size) && buffer.huge_page.is_none();
        // The table does not show the key of a segment that is marked for removal.
        let has_other_key =
            !segment.removed && buffer.name.as_ref().is_some_and(|key| *key != key_of(segment.key));
        // No process in this namespace has it attached, so what the holder has attached is another
        // segment.
        let is_attached =
            segment.attached == 0 && buffer.holders.iter().any(|holder| !holder.maps.is_empty());
        !has_other_size && !has_other_key && !is_attached
    }
}

/// The name of a segment with that key.
fn key_of(key: u32) -> Label {
    key_name(format!("{key:08x}").as_bytes())
}

fn add_segment(
    buffers: &mut Vec<Assembled>,
    ipc: Option<IpcNamespace>,
    row: SegmentRow,
    place: Option<TablePlace>,
    in_flight: Option<u64>,
) {
    let SegmentRow { ino, size, creator_uid, segment } = row;
    let at = match place {
        Some(TablePlace::Buffer(at)) => at,
        Some(TablePlace::Nowhere) => return,
        None => {
            let buffer = Buffer::new(BufferId { ipc, ..BufferId::new(Kind::Sysv, None, ino) });
            buffers.push(Assembled { buffer, counted: Counted::default(), uncompared: false });
            buffers.len() - 1
        }
    };
    let Assembled { buffer, counted, .. } = &mut buffers[at];
    buffer.id.ipc = ipc;
    // The table does not show the key of a segment that is marked for removal, but its path does.
    if !segment.removed || buffer.name.is_none() {
        buffer.name = Some(key_of(segment.key));
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

/// Corrects what the table says too much of segments of huge pages, where it can be told by how
/// much: `shm_add_rss_swap` has multiplied by the number of small pages in a huge one. It can be
/// told if only one size of huge pages makes whole pages of it that fit into the segment. `sizes`
/// are those that the machine has.
pub(super) fn correct(buffers: &mut [Buffer], sizes: impl FnOnce() -> Vec<Bytes>) {
    let overcounted = |b: &Buffer| {
        b.size.zip(b.segment.as_deref()).is_some_and(|(size, segment)| is_overcounted(size, segment))
    };
    let mut sizes = Some(sizes);
    let mut known: Vec<Bytes> = Vec::new();
    for buffer in buffers.iter_mut().filter(|b| overcounted(b)) {
        if let Some(sizes) = sizes.take() {
            known = sizes();
        }
        let (Some(size), Some(segment)) = (buffer.size, &mut buffer.segment) else { continue };
        let found = known.iter().filter(|page| buffer.huge_page.is_none_or(|of| of == **page));
        let mut found = found.filter_map(|&page| Some((page, real(size, segment.rss, page)?)));
        if let (Some((page, rss)), None) = (found.next(), found.next()) {
            segment.rss = rss;
            buffer.huge_page = Some(page);
            buffer.charged = buffer.charged.or(Some(rss + segment.swap));
        }
    }
}

/// What of a segment with pages of this size is in memory, if the table says `told`.
fn real(size: Bytes, told: Bytes, page: Bytes) -> Option<Bytes> {
    let rss = told.0 / (page.0 / page_size() as u64).max(1);
    let is_it = rss > 0
        && rss.checked_mul(page.0 / page_size() as u64) == Some(told.0)
        && rss.is_multiple_of(page.0)
        && Some(rss) <= size.0.checked_next_multiple_of(page.0);
    is_it.then_some(Bytes(rss))
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

#[cfg(test)]
mod tests {
    use super::*;

    const HUGE: Bytes = Bytes(2 << 20);

    fn segment(size: u64, rss: u64) -> Buffer {
        let row = format!("KEY\n4660 0 600 {size} 1 1 0 0 0 0 0 0 0 0 {rss} 0\n");
        let row = crate::kernel::shmem::sysvipc::parse(row.as_bytes()).unwrap().pop().unwrap();
        let mut buffer = Buffer::new(BufferId::new(Kind::Sysv, None, row.ino));
        (buffer.size, buffer.segment) = (Some(row.size), Some(row.segment));
        buffer
    }

    /// What is known of the segment after the correction: its page, what is charged, and what is in
    /// memory.
    fn corrected(size: u64, rss: u64, sizes: &[Bytes]) -> (Option<Bytes>, Option<Bytes>, Bytes) {
        let mut buffers = [segment(size, rss)];
        correct(&mut buffers, || sizes.to_vec());
        let [Buffer { huge_page, charged, segment: Some(segment), .. }] = &buffers else { panic!() };
        (*huge_page, *charged, segment.rss)
    }

    /// Check that two huge pages, of which the table says 512 times as much, are two huge pages,
    /// and that what fits into a segment stays as it is.
    #[test]
    fn huge_pages_are_corrected() {
        let factor = HUGE.0 / page_size() as u64;
        let two = Bytes(2 * HUGE.0);
        let sizes = [HUGE, Bytes(1 << 30)];
        assert_eq!(corrected(two.0, two.0 * factor, &sizes), (Some(HUGE), Some(two), two));
        assert_eq!(corrected(two.0, two.0, &sizes), (None, None, two));
    }

    /// Check that nothing is corrected if two sizes of pages would fit, or none.
    #[test]
    fn only_one_size() {
        let factor = HUGE.0 / page_size() as u64;
        let (size, told) = (8 * HUGE.0, 4 * HUGE.0 * factor);
        assert_eq!(corrected(size, told, &[HUGE, Bytes(2 * HUGE.0)]), (None, None, Bytes(told)));
        assert_eq!(corrected(size, told, &[Bytes(1 << 30)]), (None, None, Bytes(told)));
        assert_eq!(corrected(size, told, &[]), (None, None, Bytes(told)));
    }

    /// Check that the sizes are not read if no segment has too much.
    #[test]
    fn sizes_are_not_asked_for_in_vain() {
        correct(&mut [segment(4096, 4096)], || panic!("asked"));
    }
}
