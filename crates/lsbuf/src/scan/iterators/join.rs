//! One round's records, made into one [`Buffer`] each.
//!
//! Which tasks share an fd table or an address space the records tell: by its id, so nobody has to be compared.

use super::round::{Known, Round};
use crate::kernel::bpf::record::{FdRecord, Id, MemfdPages, Vma};
use crate::kernel::bufinfo::List;
use crate::kernel::identity::InodeFact;
use crate::model::{
    Buffer, BufferId, Bytes, Dev, Fd, Holder, Inode, Kind, MapRef, Overlap, Pid, ThreadFds, Tid,
};
use crate::scan::join;

/// What one round came to.
#[derive(Debug)]
pub(super) struct Joined {
    /// Ordered by identity.
    pub(super) buffers: Vec<Buffer>,
    /// Whether a reference was seen whose process was not: it came or went meanwhile.
    pub(super) restless: bool,
}

/// Joins a round with the kernel's list, where no iterator lists the buffers. What is known of the buffers is moved out of
/// the round.
pub(super) fn join(round: &mut Round, listed: Option<&List>, dev: Option<Dev>) -> Joined {
    let mut buffers: Vec<Buffer> =
        std::mem::take(&mut round.buffers).into_iter().map(|k| known(k, listed.is_some())).collect();
    let unlisted = round.vmas.iter().map(|vma| vma.of);
    let unlisted = unlisted.chain(listed.into_iter().flat_map(|list| &list.buffers).map(|row| row.ino));
    let mut unlisted: Vec<Inode> = unlisted.filter(|&ino| place(&buffers, ino).is_none()).collect();
    unlisted.sort_unstable();
    unlisted.dedup();
    let id = |ino| BufferId::new(Kind::DmaBuf, dev, ino);
    buffers.extend(unlisted.into_iter().map(|ino| Buffer { steady: true, ..Buffer::new(id(ino)) }));
    buffers.sort_unstable_by_key(|buffer| buffer.id.ino);
    let mut joined = Joined { buffers, restless: false };
    for row in listed.into_iter().flat_map(|list| &list.buffers) {
        if let Some(buffer) = joined.buffer(row.ino) {
            buffer.steady &= buffer.count.is_none_or(|count| count == row.count);
            buffer.count = Some(row.count);
            buffer.size = buffer.size.or(Some(row.size));
            buffer.exporter = buffer.exporter.take().or_else(|| Some(row.exporter.clone()));
            buffer.name = buffer.name.take().or_else(|| row.name.clone());
            buffer.attachments.clone_from(&row.attachments);
        }
    }
    joined.add_fds(round);
    joined.add_vmas(round);
    for buffer in &mut joined.buffers {
        // What nothing holds open has gone from the kernel's list, and with it its count.
        if buffer.count.is_none() && buffer.holders.iter().any(|holder| holder.slots().1 > 0) {
            buffer.count = Some(0);
            buffer.steady = listed.is_none_or(List::agrees);
        }
        let maps = buffer.holders.iter_mut().flat_map(|holder| &mut holder.maps);
        maps.for_each(|map| map.offset = map.offset.filter(|_| join::is_offset_into(buffer.size, map)));
    }
    joined
}

/// A buffer without its holders. A count must be read twice, where a list may do so once; one that the list alone tells,
/// as of a buffer that nothing shows but `O_PATH` fds, is held up by further rounds.
fn known(known: Known, listed: bool) -> Buffer {
    let InodeFact { dev, ino, size, creator_uid, created_at } = known.inode;
    let mut buffer = Buffer::new(BufferId::new(Kind::DmaBuf, Some(dev), ino));
    buffer.size = Some(size);
    buffer.exporter = known.exporter;
    buffer.name = known.name;
    buffer.count = known.count;
    buffer.steady = known.agree && (listed || known.readings != 1);
    buffer.attachments = known.attachments;
    buffer.created_at = created_at;
    buffer.creator_uid = Some(creator_uid);
    buffer.overlaps = known.pages.as_deref().map(overlaps);
    buffer
}

/// Whose pages a dma-buf is made of. The kernel counts them in pages of the smallest size.
fn overlaps(runs: &[MemfdPages]) -> Vec<Overlap> {
    let page = rustix::param::page_size() as u64;
    let mut overlaps: Vec<Overlap> = Vec::new();
    for run in runs {
        let of = BufferId::new(Kind::Memfd, Some(run.dev), run.ino);
        let bytes = Bytes(run.pages.saturating_mul(page));
        match overlaps.iter_mut().find(|overlap| overlap.of == of) {
            Some(overlap) => overlap.bytes = overlap.bytes + bytes,
            None => overlaps.push(Overlap { of, bytes }),
        }
    }
    overlaps
}

/// Where a buffer is among those that are ordered.
fn place(buffers: &[Buffer], ino: Inode) -> Option<usize> {
    buffers.binary_search_by_key(&ino, |buffer| buffer.id.ino).ok()
}

impl Buffer {
    /// That process as a holder.
    fn holder(&mut self, pid: Pid) -> &mut Holder {
        let at = self.holders.partition_point(|holder| holder.pid < pid);
        if self.holders.get(at).is_none_or(|holder| holder.pid != pid) {
            self.holders.insert(at, Holder::new(pid));
        }
        &mut self.holders[at]
    }
}

impl Joined {
    fn buffer(&mut self, ino: Inode) -> Option<&mut Buffer> {
        place(&self.buffers, ino).and_then(|at| self.buffers.get_mut(at))
    }

    fn add_fds(&mut self, round: &mut Round) {
        let mut fds = std::mem::take(&mut round.fds);
        let buffers = &mut self.buffers;
        // Each fd shows the count at its moment.
        for fd in fds.iter().filter(|fd| !fd.path_only) {
            if let Some(buffer) = place(buffers, fd.of).and_then(|at| buffers.get_mut(at)) {
                buffer.steady &= Some(fd.count) == buffer.count;
            }
        }
        self.restless |= add_fds(round, &mut fds, buffers, place);
    }

    fn add_vmas(&mut self, round: &mut Round) {
        let mut vmas = std::mem::take(&mut round.vmas);
        self.restless |= add_vmas(round, &mut vmas, &mut self.buffers, place);
    }
}

/// Adds fds to their buffers, where `place` finds those; says whether the world moved meanwhile.
pub(super) fn add_fds<K: Copy + Ord>(
    round: &Round,
    fds: &mut [FdRecord<K>],
    buffers: &mut [Buffer],
    place: impl Fn(&[Buffer], K) -> Option<usize>,
) -> bool {
    fds.sort_unstable_by_key(|fd| (fd.of, fd.pid, fd.tid, fd.program, fd.fd));
    let mut restless = false;
    // Each table with the first process that showed it.
    let mut tables: Vec<(Option<Id>, (Pid, Tid))> = Vec::new();
    for of_one in fds.chunk_by(|a, b| a.of == b.of) {
        let Some(buffer) = place(buffers, of_one[0].of).and_then(|at| buffers.get_mut(at)) else {
            restless = true;
            continue;
        };
        tables.clear();
        for table in of_one.chunk_by(|a, b| (a.pid, a.tid, a.program) == (b.pid, b.tid, b.program)) {
            let FdRecord { pid, tid, files, program, .. } = table[0];
            // What another program held is not put under this one's name.
            if round.task(pid).is_none_or(|task| task.program != program) {
                restless = true;
                continue;
            }
            let first = tables.iter().find(|(id, _)| files.is_some() && *id == files).map(|&(_, who)| who);
            // Threads that share a table are named by the first of them.
            if first.is_some_and(|(owner, _)| owner == pid) {
                continue;
            }
            tables.push((files, (pid, tid)));
            let fd_table_of = first.map(|(owner, _)| owner);
            let slots = |path_only| -> Vec<Fd> {
                table.iter().filter(|fd| fd.path_only == path_only).map(|fd| fd.fd).collect()
            };
            let (fds, opaths) = (slots(false), slots(true));
            let holder = buffer.holder(pid);
            if tid.0 == pid.0 {
                (holder.fds, holder.opaths, holder.fd_table_of) = (fds, opaths, fd_table_of);
            } else {
                holder.threads.push(ThreadFds { tid, fds, opaths, fd_table_of });
            }
        }
    }
    restless
}

/// Adds mappings likewise.
pub(super) fn add_vmas<K: Copy + Ord>(
    round: &Round,
    vmas: &mut Vec<Vma<K>>,
    buffers: &mut [Buffer],
    place: impl Fn(&[Buffer], K) -> Option<usize>,
) -> bool {
    let spaces = round.address_spaces();
    let mut restless = false;
    vmas.sort_unstable_by_key(|vma| (vma.of, vma.mm, vma.start));
    // A locked pass comes by once for each process that shares the address space.
    vmas.dedup_by_key(|vma| (vma.of, vma.mm, vma.start));
    for of_one in vmas.chunk_by(|a, b| (a.of, a.mm) == (b.of, b.mm)) {
        let (of, mm) = (of_one[0].of, of_one[0].mm);
        let begin = spaces.partition_point(|&(id, _)| Some(id) < mm);
        let number = spaces[begin..].iter().take_while(|&&(id, _)| Some(id) == mm).count();
        let sharers = &spaces[begin..begin + number];
        // An address space may have gone, and another one have taken its place.
        let strange = of_one[0].owner.is_some_and(|owner| sharers.iter().all(|&(_, pid)| pid != owner));
        let buffer = place(buffers, of).and_then(|at| buffers.get_mut(at));
        let (Some(buffer), false, false) = (buffer, sharers.is_empty(), strange) else {
            restless = true;
            continue;
        };
        let map = |vma: &Vma<K>| MapRef {
            start: vma.start,
            end: vma.end,
            offset: Some(vma.offset),
            perms: Some(vma.perms),
        };
        let (_, first) = sharers[0];
        for &(_, pid) in sharers {
            let holder = buffer.holder(pid);
            holder.maps.extend(of_one.iter().map(map));
            holder.address_space_of = (pid != first).then_some(first);
        }
    }
    restless
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
