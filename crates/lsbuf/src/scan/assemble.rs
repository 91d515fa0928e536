//! Joins the references of a reading with their buffers.
//!
//! Both sources need this, and it is done here alone. A reference of a table or an address space
//! that several processes share is listed under each of them and counted with the first
//! ([`Holder::fd_table_of`], [`Holder::address_space_of`]).
//!
//! Limits: it reads nothing from the kernel and decides no residual.

use std::collections::BTreeMap;

use super::reading::{Assembled, Reading};
use super::segments;
use crate::model::{Buffer, Bytes, Fd, Holder, Kind, MapRef, Pid, ThreadFds};

/// Joins a reading, and leaves its lists empty. The buffers are ordered by identity.
pub(super) fn assemble(reading: &mut Reading) -> Vec<Assembled> {
    let objects = std::mem::take(&mut reading.objects);
    let assembled = |object: super::reading::Object| Assembled {
        buffer: object.buffer,
        counted: object.counted,
        uncompared: false,
    };
    let mut buffers: Vec<Assembled> = objects.into_iter().map(assembled).collect();
    add_fds(&mut buffers, reading);
    add_maps(&mut buffers, reading);
    add_programs(&mut buffers, reading);
    for Assembled { buffer, uncompared, .. } in &mut buffers {
        *uncompared = buffer.holders.iter().any(|holder| reading.uncompared.contains(&holder.pid));
        let maps = buffer.holders.iter_mut().flat_map(|holder| &mut holder.maps);
        maps.for_each(|map| {
            map.offset = map.offset.filter(|_| is_offset_into(buffer.id.kind, buffer.size, map))
        });
    }
    // Shared memory without a reference: it was opened and closed during the reading, or is a
    // process's own memory of huge pages.
    buffers.retain(|b| is_kept(&b.buffer));
    segments::add(&mut buffers, &mut reading.segments);
    buffers
}

/// Whether a buffer becomes a row: if anybody holds it. Dma-bufs and segments exist without a
/// holder.
fn is_kept(buffer: &Buffer) -> bool {
    let exists = matches!(buffer.id.kind, Kind::DmaBuf | Kind::Sysv);
    exists || !buffer.holders.is_empty() || buffer.count.is_some_and(|count| count > 0)
}

fn add_fds(buffers: &mut [Assembled], reading: &mut Reading) {
    let mut fds = std::mem::take(&mut reading.fds);
    fds.sort_unstable_by_key(|fd| (fd.object, fd.table, fd.fd));
    fds.dedup_by_key(|fd| (fd.object, fd.table, fd.fd));
    for table in fds.chunk_by(|a, b| (a.object, a.table) == (b.object, b.table)) {
        let buffer = &mut buffers[table[0].object].buffer;
        let slots = |path_only| -> Vec<Fd> {
            table.iter().filter(|fd| fd.path_only == path_only).map(|fd| fd.fd).collect()
        };
        let owners = &reading.tables[table[0].table];
        let first = owners.first().map(|&(pid, _)| pid);
        for &(pid, thread) in owners {
            let fd_table_of = first.filter(|&first| first != pid);
            let (fds, opaths) = (slots(false), slots(true));
            let holder = holder(buffer, pid);
            match thread {
                None => (holder.fds, holder.opaths, holder.fd_table_of) = (fds, opaths, fd_table_of),
                Some(tid) => holder.threads.push(ThreadFds { tid, fds, opaths, fd_table_of }),
            }
        }
    }
    for buffer in buffers {
        buffer.buffer.holders.iter_mut().for_each(|holder| holder.threads.sort_by_key(|table| table.tid));
    }
}

fn add_maps(buffers: &mut [Assembled], reading: &mut Reading) {
    let mut maps = std::mem::take(&mut reading.maps);
    maps.sort_unstable_by_key(|mapping| (mapping.object, mapping.space, mapping.map.start));
    maps.dedup_by_key(|mapping| (mapping.object, mapping.space, mapping.map.start));
    for space in maps.chunk_by(|a, b| (a.object, a.space) == (b.object, b.space)) {
        let buffer = &mut buffers[space[0].object].buffer;
        let owners = &reading.spaces[space[0].space];
        for &pid in owners {
            let holder = holder(buffer, pid);
            holder.maps.extend(space.iter().map(|mapping| mapping.map));
            holder.address_space_of = owners.first().copied().filter(|&first| first != pid);
        }
    }
}

fn add_programs(buffers: &mut [Assembled], reading: &mut Reading) {
    let mut spaces: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for program in std::mem::take(&mut reading.programs) {
        spaces.entry(program.object).or_default().push(program.space);
    }
    for (object, mut of_one) in spaces {
        of_one.sort_unstable();
        of_one.dedup();
        let buffer = &mut buffers[object].buffer;
        buffer.exe = Some(of_one.len() as u64);
        for owners in of_one.iter().map(|&space| &reading.spaces[space]) {
            for &pid in owners {
                let holder = holder(buffer, pid);
                holder.runs = true;
                holder.address_space_of = owners.first().copied().filter(|&first| first != pid);
            }
        }
    }
}

/// The buffer's holder with this pid, added if it is new. Holders are ordered by pid.
fn holder(buffer: &mut Buffer, pid: Pid) -> &mut Holder {
    let at = buffer.holders.partition_point(|holder| holder.pid < pid);
    if buffer.holders.get(at).is_none_or(|holder| holder.pid != pid) {
        buffer.holders.insert(at, Holder::new(pid));
    }
    &mut buffer.holders[at]
}

/// Whether the offset that the kernel shows for a VMA is an offset into the buffer. GEM exporters
/// put their device's fake offset there (`drm_gem_prime_mmap` adds `drm_vma_node_start`), which
/// begins at 4 GiB (`DRM_FILE_PAGE_OFFSET_START`).
fn is_offset_into(kind: Kind, size: Option<Bytes>, map: &MapRef) -> bool {
    const FAKE_OFFSETS: u64 = 4 << 30;
    let offset = map.offset.unwrap_or(0);
    kind != Kind::DmaBuf || offset < FAKE_OFFSETS && size.is_none_or(|size| Bytes(offset) + map.len() <= size)
}
