//! Joins the references of a reading with their buffers.
//!
//! Both sources need this, and it is done here alone. A reference of a table or an address space
//! that several processes share is listed under each of them and counted with the first
//! ([`Holder::fd_table_of`], [`Holder::address_space_of`]).
//!
//! Limits: it reads nothing from the kernel and decides no residual.

use std::ops::Range;

use super::packed::{PackedFd, PackedMapping, PackedRef, give_back};
use super::reading::{Assembled, Object, Reading, RunningProgram};
use super::segments;
use crate::model::{Buffer, Bytes, Holder, Kind, MapRef, Pid, ThreadFds, Tid};

/// Joins a reading, and leaves its lists empty. The buffers are ordered by identity.
///
/// It takes the objects and their references from the end of their lists and frees these on the
/// way. Its time grows with the references, and with the entries of a shared table once for each
/// process that shares it.
pub(super) fn assemble(reading: &mut Reading) -> Vec<Assembled> {
    let mut objects = std::mem::take(&mut reading.objects);
    let mut fds = std::mem::take(&mut reading.fds).sorted(objects.len());
    let mut maps = std::mem::take(&mut reading.maps).sorted(objects.len());
    let mut programs = std::mem::take(&mut reading.programs);
    programs.sort_unstable_by_key(|program| (program.object, program.space));
    programs.dedup();
    let mut buffers = Vec::with_capacity(objects.len());
    let mut parts = Vec::new();
    while let Some(Object { mut buffer, counted }) = objects.pop() {
        let object = objects.len();
        let refs = Refs { fds: fds.last(object), maps: maps.last(object) };
        let running = programs.partition_point(|program| program.object < object);
        let of_programs = programs.split_off(running);
        if !of_programs.is_empty() {
            buffer.exe = Some(of_programs.len() as u64);
        }
        parts.clear();
        refs.add_parts(&mut parts, reading, &of_programs);
        // A stable sort: of the parts of one process, the later ones come later.
        parts.sort_by_key(|part| part.pid);
        let of_each = || parts.chunk_by(|a, b| a.pid == b.pid);
        let mut holders = Vec::with_capacity(of_each().count());
        holders.extend(of_each().map(|parts| refs.holder(parts, &buffer)));
        buffer.holders = holders;
        let (number_of_fds, number_of_maps) = (refs.fds.len(), refs.maps.len());
        fds.drop_last(number_of_fds);
        maps.drop_last(number_of_maps);
        give_back(&mut objects);
        // Shared memory without a reference: it was opened and closed during the reading, or is a
        // process's own memory of huge pages.
        if is_kept(&buffer) {
            let is_uncompared = |holder: &Holder| reading.uncompared.contains(&holder.pid);
            let uncompared = !reading.uncompared.is_empty() && buffer.holders.iter().any(is_uncompared);
            buffers.push(Assembled { buffer, counted, uncompared });
        }
    }
    buffers.reverse();
    segments::add(&mut buffers, &mut reading.segments);
    buffers
}

/// Whether a buffer becomes a row: if anybody holds it. Dma-bufs and segments exist without a
/// holder.
pub(super) fn is_kept(buffer: &Buffer) -> bool {
    let exists = matches!(buffer.id.kind, Kind::DmaBuf | Kind::Sysv);
    exists || !buffer.holders.is_empty() || buffer.count.is_some_and(|count| count > 0)
}

/// The references to one buffer, each kind in the order of its keys.
struct Refs<'r> {
    fds: &'r [PackedFd],
    maps: &'r [PackedMapping],
}

/// What a holder has by one fd table, address space or program.
struct Part {
    pid: Pid,
    /// The first owner of the table or address space, with which its references are counted.
    first: Pid,
    of: Of,
}

/// Where the references of a [`Part`] are. The ranges are those of [`Refs`].
enum Of {
    Fds(Option<Tid>, Range<usize>),
    Maps(Range<usize>),
    Program,
}

impl Part {
    /// Whose the references are counted as, if not this holder's.
    fn counted_with(&self) -> Option<Pid> {
        Some(self.first).filter(|&first| first != self.pid)
    }
}

impl Refs<'_> {
    /// Adds the parts of all holders: those by fds, by mappings, and by programs.
    fn add_parts(&self, parts: &mut Vec<Part>, reading: &Reading, programs: &[RunningProgram]) {
        for range in by_owners(self.fds) {
            let owners = &reading.tables[self.fds[range.start].owners()];
            let Some(&(first, _)) = owners.first() else { continue };
            let part = |&(pid, thread)| Part { pid, first, of: Of::Fds(thread, range.clone()) };
            parts.extend(owners.iter().map(part));
        }
        for range in by_owners(self.maps) {
            let owners = &reading.spaces[self.maps[range.start].owners()];
            let Some(&first) = owners.first() else { continue };
            parts.extend(owners.iter().map(|&pid| Part { pid, first, of: Of::Maps(range.clone()) }));
        }
        for program in programs {
            let owners = &reading.spaces[program.space];
            let Some(&first) = owners.first() else { continue };
            parts.extend(owners.iter().map(|&pid| Part { pid, first, of: Of::Program }));
        }
    }

    /// The holder that has these parts.
    fn holder(&self, parts: &[Part], buffer: &Buffer) -> Holder {
        let mut holder = Holder::new(parts[0].pid);
        let mut threads = Vec::new();
        for part in parts {
            match &part.of {
                Of::Fds(thread, range) => {
                    let slots = |path_only| {
                        let of_it = self.fds[range.clone()].iter();
                        of_it.filter(move |fd| fd.path_only == path_only).map(|fd| fd.fd)
                    };
                    let (fds, opaths) = (slots(false).collect(), slots(true).collect());
                    let fd_table_of = part.counted_with();
                    match *thread {
                        None => (holder.fds, holder.opaths, holder.fd_table_of) = (fds, opaths, fd_table_of),
                        Some(tid) => threads.push(ThreadFds { tid, fds, opaths, fd_table_of }),
                    }
                }
                Of::Maps(_) => holder.address_space_of = part.counted_with(),
                Of::Program => {
                    holder.runs = true;
                    holder.address_space_of = part.counted_with();
                }
            }
        }
        threads.sort_by_key(|table| table.tid);
        holder.threads = threads.into();
        let maps =
            parts.iter().filter_map(|part| if let Of::Maps(range) = &part.of { Some(range) } else { None });
        let maps = maps.flat_map(|range| &self.maps[range.clone()]).map(|packed| {
            let map = packed.map();
            MapRef { offset: map.offset.filter(|_| is_offset_into(buffer.id.kind, buffer.size, &map)), ..map }
        });
        holder.maps = maps.collect();
        holder
    }
}

/// Which of these references are of one table or address space: a range for each.
fn by_owners<T: PackedRef>(refs: &[T]) -> impl Iterator<Item = Range<usize>> {
    let mut end = 0;
    refs.chunk_by(|a, b| a.owners() == b.owners()).map(move |chunk| {
        end += chunk.len();
        end - chunk.len()..end
    })
}

/// Whether the offset that the kernel shows for a VMA is an offset into the buffer. GEM exporters
/// put their device's fake offset there (`drm_gem_prime_mmap` adds `drm_vma_node_start`), which
/// begins at 4 GiB (`DRM_FILE_PAGE_OFFSET_START`).
fn is_offset_into(kind: Kind, size: Option<Bytes>, map: &MapRef) -> bool {
    const FAKE_OFFSETS: u64 = 4 << 30;
    let offset = map.offset.unwrap_or(0);
    kind != Kind::DmaBuf || offset < FAKE_OFFSETS && size.is_none_or(|size| Bytes(offset) + map.len() <= size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BufferId, Fd, Inode};
    use crate::scan::reading::Counted;
    use crate::scan::reading::{FdRef, Mapping};

    /// A reading of as many memfds.
    fn reading(buffers: u64) -> Reading {
        let object = |ino| Object {
            buffer: Buffer::new(BufferId::new(Kind::Memfd, None, Inode(ino))),
            counted: Counted::default(),
        };
        Reading { objects: (0..buffers).map(object).collect(), ..Reading::default() }
    }

    fn fd(object: usize, table: usize, fd: u32) -> FdRef {
        FdRef { object, table, fd: Fd(fd), path_only: false }
    }

    fn map(object: usize, space: usize, start: u64) -> Mapping {
        Mapping { object, space, map: MapRef { start, end: start + 1, offset: None, perms: None } }
    }

    /// Check that what a process has of a buffer is in one holder, that holders are ordered by pid,
    /// and that a shared table or address space is counted with its first owner.
    #[test]
    fn one_holder_for_each_process() {
        let mut reading = reading(2);
        reading.tables = vec![vec![(Pid(5), None), (Pid(9), None)], vec![(Pid(2), None)]];
        reading.spaces = vec![vec![Pid(9)], vec![Pid(1), Pid(5)]];
        reading.fds = [fd(1, 0, 4), fd(1, 1, 3), fd(1, 0, 3), fd(0, 1, 7)].into_iter().collect();
        [map(1, 1, 10), map(1, 0, 30), map(1, 0, 20)].into_iter().for_each(|map| reading.maps.push(map));
        let found = assemble(&mut reading);
        let shown = |at: usize| -> Vec<_> {
            let of_one = |h: &Holder| {
                let maps: Vec<u64> = h.maps.iter().map(|map| map.start).collect();
                (h.pid.0, h.fds.iter().map(|fd| fd.0).collect(), h.fd_table_of, maps, h.address_space_of)
            };
            found[at].buffer.holders.iter().map(of_one).collect()
        };
        assert_eq!(found.iter().map(|one| one.buffer.id.ino.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(shown(0), [(2, vec![7], None, vec![], None)]);
        let expected = [
            (1, vec![], None, vec![10], None),
            (2, vec![3], None, vec![], None),
            (5, vec![3, 4], None, vec![10], Some(Pid(1))),
            (9, vec![3, 4], Some(Pid(5)), vec![20, 30], None),
        ];
        assert_eq!(shown(1), expected);
    }

    /// Check that the holders of a buffer take no more memory than they need.
    #[test]
    fn no_spare_holders() {
        let mut reading = reading(1);
        reading.tables = (0..100).map(|pid| vec![(Pid(pid), None)]).collect();
        reading.fds = (0..100).map(|table| fd(0, table, 3)).collect();
        let found = assemble(&mut reading);
        let holders = &found[0].buffer.holders;
        assert_eq!((holders.len(), holders.capacity()), (100, 100));
    }

    /// Check that only a holder that could not be compared makes its buffer uncompared.
    #[test]
    fn uncompared_holders() {
        let mut reading = reading(2);
        reading.tables = vec![vec![(Pid(5), None)], vec![(Pid(6), None)]];
        reading.fds = [fd(0, 0, 3), fd(1, 1, 3)].into_iter().collect();
        reading.uncompared.insert(Pid(6));
        let found: Vec<bool> = assemble(&mut reading).iter().map(|one| one.uncompared).collect();
        assert_eq!(found, [false, true]);
    }
}
