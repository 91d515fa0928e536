//! Facts of several sources about the same buffers, made into one [`Buffer`] each.
//!
//! Which source wins: an inode's and fdinfo's size over the list's (all three are the same field of the kernel);
//! fdinfo's name over the mapping's over the list's, since only fdinfo shows it whole, raw and beside the number; the
//! latest reading of a count. A count is steady when it was read before or during the walk and again after it, and
//! all readings agree.

use std::collections::{BTreeMap, BTreeSet};

use super::shared::Shared;
use super::walk::{Table, Walk};
use crate::kernel::bufinfo::{List, ListedBuffer};
use crate::kernel::elsewhere::Elsewhere;
use crate::model::{Buffer, BufferId, Bytes, Fd, Holder, Inode, Kind, Label, MapRef, Pid, ThreadFds, Tid};

/// What is being put together about one inode.
#[derive(Debug, Default)]
struct Draft<'w> {
    counts: Vec<u64>,
    holders: BTreeMap<Pid, Holder>,
    fd_name: Option<&'w Label>,
    map_name: Option<&'w Label>,
}

/// Joins one walk with the kernel's lists from before and after it.
pub(super) fn join(walk: &Walk, shared: &Shared, before: Option<&List>, after: Option<&List>) -> Vec<Buffer> {
    let repeated: BTreeSet<Inode> = [before, after].iter().flat_map(|list| repeated(*list)).collect();
    let lists_are_whole = [before, after].iter().all(|list| list.is_some_and(List::agrees));
    let before = by_inode(before);
    let listed = by_inode(after);
    let mut drafts: BTreeMap<Inode, Draft> = listed.keys().map(|&ino| (ino, Draft::default())).collect();
    for (ino, buffer) in before.iter().filter(|(ino, _)| listed.contains_key(ino)) {
        drafts.entry(*ino).or_default().counts.push(buffer.count);
    }
    let mut infos = BTreeMap::new();
    for held in &walk.fds {
        let draft = drafts.entry(held.ino).or_default();
        if let Some(name) = held.fact.name() {
            draft.fd_name = Some(name);
        }
        draft.holder(held.pid).add(held.thread, held.fact.fd, held.fact.info.dmabuf.is_none());
        if let Some(info) = &held.fact.info.dmabuf {
            draft.counts.push(info.count);
            infos.insert(held.ino, info);
        }
    }
    for map in walk.maps.iter().filter(|map| walk.is_dmabuf(map)) {
        let draft = drafts.entry(map.fact.ino).or_default();
        draft.holder(map.pid).maps.push(map.fact.vma);
        if map.fact.name.is_some() {
            draft.map_name = map.fact.name.as_ref();
        }
    }
    drafts
        .into_iter()
        .map(|(ino, draft)| {
            let listed = listed.get(&ino).copied();
            let inode = walk.proof.inode(ino);
            let info = infos.get(&ino);
            // Only O_PATH fds are left of it: it has gone from the kernel's list, and with it its count.
            let unlisted = lists_are_whole && listed.is_none() && !before.contains_key(&ino);
            let gone = (unlisted && draft.counts.is_empty()).then_some(0);
            let last = listed.map(|l| l.count).or(walk.rechecked.get(&ino).copied()).or(gone);
            let mut buffer = Buffer::new(BufferId::new(Kind::DmaBuf, walk.proof.dev(), ino));
            buffer.size = inode.map(|i| i.size).or(info.map(|i| i.size)).or(listed.map(|l| l.size));
            buffer.exporter = info.map(|i| i.exporter.clone()).or(listed.map(|l| l.exporter.clone()));
            buffer.count = last.or(draft.counts.last().copied());
            buffer.steady = gone.is_some()
                || !draft.counts.is_empty() && draft.counts.iter().all(|&count| Some(count) == last);
            // Two buffers under one number: neither's account can be told.
            buffer.steady &= !repeated.contains(&ino);
            buffer.attachments = listed.and_then(|l| l.attachments.clone());
            buffer.created_at = inode.and_then(|i| i.created_at);
            buffer.creator_uid = inode.map(|i| i.creator_uid);
            buffer.name = draft.fd_name.or(draft.map_name).or(listed.and_then(|l| l.name.as_ref())).cloned();
            buffer.in_flight = walk.elsewhere.as_ref().and_then(Elsewhere::in_flight_of_one);
            buffer.io_uring = walk.elsewhere.as_ref().and_then(Elsewhere::fixed_of_one);
            buffer.holders = draft.holders.into_values().map(sorted).collect();
            buffer.uncompared = buffer.holders.iter().any(|h| shared.uncompared.contains(&h.pid));
            count_once(&mut buffer.holders, shared);
            let maps = buffer.holders.iter_mut().flat_map(|holder| &mut holder.maps);
            maps.for_each(|map| map.offset = map.offset.filter(|_| is_offset_into(buffer.size, map)));
            buffer
        })
        .collect()
}

impl Draft<'_> {
    fn holder(&mut self, pid: Pid) -> &mut Holder {
        self.holders.entry(pid).or_insert_with(|| Holder::new(pid))
    }
}

impl Holder {
    /// Adds an fd of its own table, or of a thread's.
    pub(super) fn add(&mut self, thread: Option<Tid>, fd: Fd, path_only: bool) {
        let (fds, opaths) = match thread {
            None => (&mut self.fds, &mut self.opaths),
            Some(tid) => {
                let at = self.threads.iter().position(|table| table.tid == tid);
                let at = at.unwrap_or_else(|| {
                    self.threads.push(ThreadFds {
                        tid,
                        fds: Vec::new(),
                        opaths: Vec::new(),
                        fd_table_of: None,
                    });
                    self.threads.len() - 1
                });
                let table = &mut self.threads[at];
                (&mut table.fds, &mut table.opaths)
            }
        };
        if path_only { opaths.push(fd) } else { fds.push(fd) }
    }
}

fn by_inode(list: Option<&List>) -> BTreeMap<Inode, &ListedBuffer> {
    list.into_iter().flat_map(|list| &list.buffers).map(|buffer| (buffer.ino, buffer)).collect()
}

/// Whether what `maps` prints as a VMA's offset is one into the buffer. GEM exporters put their device's fake offset
/// there (`drm_gem_prime_mmap` adds `drm_vma_node_start`), which begins at 4 GiB (`DRM_FILE_PAGE_OFFSET_START`).
pub(super) fn is_offset_into(size: Option<Bytes>, map: &MapRef) -> bool {
    const FAKE_OFFSETS: u64 = 4 << 30;
    let offset = map.offset.unwrap_or(0);
    offset < FAKE_OFFSETS && size.is_none_or(|size| Bytes(offset) + map.len() <= size)
}

pub(super) fn sorted(mut holder: Holder) -> Holder {
    holder.fds.sort_unstable_by_key(|fd| fd.0);
    holder.opaths.sort_unstable_by_key(|fd| fd.0);
    holder.maps.sort_by_key(|map| map.start);
    for table in &mut holder.threads {
        table.fds.sort_unstable_by_key(|fd| fd.0);
        table.opaths.sort_unstable_by_key(|fd| fd.0);
    }
    holder.threads.sort_by_key(|table| table.tid);
    holder
}

/// Has each shared fd table and address space counted with the first of its holders.
pub(super) fn count_once(holders: &mut [Holder], shared: &Shared) {
    let (mut tables, mut spaces) = (BTreeMap::new(), BTreeMap::new());
    for holder in holders {
        let pid = holder.pid;
        let mut elsewhere = |thread| {
            let table: Table = (pid, thread);
            let (first, _) = *tables.entry(*shared.files.get(&table).unwrap_or(&table)).or_insert(table);
            (first != pid).then_some(first)
        };
        if !holder.fds.is_empty() || !holder.opaths.is_empty() {
            holder.fd_table_of = elsewhere(None);
        }
        for table in &mut holder.threads {
            table.fd_table_of = elsewhere(Some(table.tid));
        }
        if !holder.maps.is_empty() {
            let first = *spaces.entry(*shared.vm.get(&pid).unwrap_or(&pid)).or_insert(pid);
            holder.address_space_of = (first != pid).then_some(first);
        }
    }
}

fn repeated(list: Option<&List>) -> impl Iterator<Item = Inode> {
    let mut seen = BTreeSet::new();
    list.into_iter().flat_map(|list| &list.buffers).map(|b| b.ino).filter(move |&ino| !seen.insert(ino))
}
