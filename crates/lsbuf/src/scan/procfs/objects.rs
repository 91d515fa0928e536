//! Makes a [`Reading`] of one walk and the kernel's lists before and after it.
//!
//! The same fact may come from several places. The size is taken from the inode or fdinfo before
//! the list (all three print the same field of the kernel). The name is taken from fdinfo before
//! the mapping before the list, since only fdinfo shows it whole, unescaped and together with the
//! inode number. Of the count the latest value is taken. It did not change if it was read before or
//! during the walk and again after it, and was the same each time.
//!
//! Limits: procfs shows no count of shared memory, so it stays unknown, except for segments, of
//! which the kernel counts the attachments. Nor does it show shared memory that nobody holds,
//! except segments.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::kernel::bufinfo::{List, ListedBuffer};
use crate::kernel::hidden_refs::HiddenRefCounter;
use crate::kernel::shmem::{ShmFd, ShmMap, ShmemFinder, ShmemObject};
use crate::model::{Buffer, BufferId, Inode, Kind, Kinds, Label, Pid};
use crate::scan::described::{add_inode, name_of};
use crate::scan::reading::{Counted, FdRef, FdRefs, Mapping, Object, Reading, RunningProgram};
use crate::scan::shared::Shared;
use crate::scan::walk::{HeldShmFd, TableOwner, Walk};

/// What is known so far about one inode number.
#[derive(Debug, Default)]
struct Draft<'w> {
    counts: Vec<u64>,
    fd_name: Option<&'w Label>,
    map_name: Option<&'w Label>,
}

/// Numbers tables or address spaces in the order in which they come.
#[derive(Debug)]
struct Numbered<'s, K> {
    /// Of those that are one, which one stands for all.
    same: &'s BTreeMap<K, K>,
    numbers: HashMap<K, usize>,
    owners: Vec<BTreeSet<K>>,
}

impl<'s, K: Copy + Ord + std::hash::Hash> Numbered<'s, K> {
    fn new(same: &'s BTreeMap<K, K>) -> Numbered<'s, K> {
        Numbered { same, numbers: HashMap::new(), owners: Vec::new() }
    }

    fn number(&mut self, one: K) -> usize {
        let first = self.same.get(&one).copied().unwrap_or(one);
        let next = self.owners.len();
        let number = *self.numbers.entry(first).or_insert(next);
        if number == next {
            self.owners.push(BTreeSet::new());
        }
        self.owners[number].insert(one);
        number
    }

    fn owners(self) -> Vec<Vec<K>> {
        self.owners.into_iter().map(|owners| owners.into_iter().collect()).collect()
    }
}

/// Makes the reading without its coverage and without what could have disturbed it. `shm_fds` are
/// the walk's fds of shared memory.
pub(in crate::scan) fn read(
    walk: &Walk,
    shm_fds: Vec<HeldShmFd>,
    shared: &Shared,
    before: Option<&List>,
    after: Option<&List>,
    kinds: Kinds,
) -> Reading {
    let mut reading = Reading::default();
    if kinds.has(Kind::DmaBuf) {
        reading.objects = dmabufs(walk, before, after);
    }
    let dmabufs: HashMap<Inode, usize> =
        reading.objects.iter().enumerate().map(|(number, object)| (object.buffer.id.ino, number)).collect();
    let mut shmem = Vec::new();
    if let Some(finder) = &walk.shmem_finder {
        shmem = add_shmem(&mut reading.objects, walk, &shm_fds, finder);
    }
    let mut tables: Numbered<'_, TableOwner> = Numbered::new(&shared.files);
    let of_tables: Vec<usize> = {
        // Only of the tables whose fds were kept.
        let mut kept = vec![false; walk.tables.len()];
        shm_fds.iter().for_each(|held| kept[held.table as usize] = true);
        let number = |(owner, kept): (&TableOwner, bool)| if kept { tables.number(*owner) } else { 0 };
        walk.tables.iter().zip(kept).map(number).collect()
    };
    reading.fds = FdRefs::of_list(shm_fds, |HeldShmFd { table, fact }| {
        let ShmFd { object, fd, path_only } = fact;
        Some(FdRef { object: shmem[object.index()]?, table: of_tables[table as usize], fd, path_only })
    });
    for held in &walk.fds {
        let Some(&object) = dmabufs.get(&held.ino) else { continue };
        let (table, fd) = (tables.number((held.pid, held.thread)), held.fact.fd);
        reading.fds.push(FdRef { object, table, fd, path_only: held.fact.info.dmabuf.is_none() });
    }
    let mut spaces: Numbered<'_, Pid> = Numbered::new(&shared.vm);
    for held in walk.maps.iter().filter(|map| walk.is_dmabuf(map)) {
        let Some(&object) = dmabufs.get(&held.fact.ino) else { continue };
        reading.maps.push(Mapping { object, space: spaces.number(held.pid), map: held.fact.vma });
    }
    for held in &walk.shm_maps {
        let ShmMap { object, vma } = held.fact;
        let Some(object) = shmem[object.index()] else { continue };
        reading.maps.push(Mapping { object, space: spaces.number(held.pid), map: vma });
    }
    for (pid, object) in &walk.programs {
        let Some(object) = shmem[object.index()] else { continue };
        reading.programs.push(RunningProgram { object, space: spaces.number(*pid) });
    }
    reading.tables = tables.owners();
    reading.spaces = spaces.owners();
    reading.uncompared = shared.uncompared.iter().copied().collect();
    reading
}

fn dmabuf_id(walk: &Walk, ino: Inode) -> BufferId {
    BufferId::new(Kind::DmaBuf, walk.identity.dev(), ino)
}

/// Every dma-buf that is listed or held, ordered by inode number.
fn dmabufs(walk: &Walk, before: Option<&List>, after: Option<&List>) -> Vec<Object> {
    let repeated: BTreeSet<Inode> = [before, after].iter().flat_map(|list| repeated(*list)).collect();
    let lists_are_whole = [before, after].iter().all(|list| list.is_some_and(List::agrees));
    let before = by_inode(before);
    let listed = by_inode(after);
    let mut drafts: BTreeMap<Inode, Draft<'_>> = listed.keys().map(|&ino| (ino, Draft::default())).collect();
    for (ino, buffer) in before.iter().filter(|(ino, _)| listed.contains_key(ino)) {
        drafts.entry(*ino).or_default().counts.push(buffer.count);
    }
    let mut infos = BTreeMap::new();
    for held in &walk.fds {
        let draft = drafts.entry(held.ino).or_default();
        if let Some(name) = held.fact.name() {
            draft.fd_name = Some(name);
        }
        if let Some(info) = &held.fact.info.dmabuf {
            draft.counts.push(info.count);
            infos.insert(held.ino, info);
        }
    }
    for map in walk.maps.iter().filter(|map| walk.is_dmabuf(map)) {
        let draft = drafts.entry(map.fact.ino).or_default();
        if map.fact.name.is_some() {
            draft.map_name = map.fact.name.as_ref();
        }
    }
    let object = |(ino, draft): (Inode, Draft<'_>)| {
        let listed = listed.get(&ino).copied();
        let inode = walk.identity.inode(ino);
        let info = infos.get(&ino);
        // Only `O_PATH` fds refer to it: the kernel has taken it off its list, and counts no
        // reference.
        let unlisted = lists_are_whole && listed.is_none() && !before.contains_key(&ino);
        let gone = (unlisted && draft.counts.is_empty()).then_some(0);
        let last = listed.map(|l| l.count).or(walk.rechecked.get(&ino).copied()).or(gone);
        let mut buffer = Buffer::new(dmabuf_id(walk, ino));
        buffer.size = inode.map(|i| i.size).or(info.map(|i| i.size)).or(listed.map(|l| l.size));
        buffer.exporter = info.map(|i| i.exporter.clone()).or(listed.map(|l| l.exporter.clone()));
        buffer.count = last.or(draft.counts.last().copied());
        buffer.attachments = listed.and_then(|l| l.attachments.clone());
        buffer.created_at = inode.and_then(|i| i.created_at);
        buffer.creator_uid = inode.map(|i| i.creator_uid);
        buffer.name = draft.fd_name.or(draft.map_name).or(listed.and_then(|l| l.name.as_ref())).cloned();
        buffer.in_flight = walk.hidden.as_ref().and_then(HiddenRefCounter::in_flight_of_one);
        buffer.io_uring = walk.hidden.as_ref().and_then(HiddenRefCounter::fixed_of_one);
        let stable = !draft.counts.is_empty() && draft.counts.iter().all(|&count| Some(count) == last);
        // Two listed buffers have this inode number: which count belongs to which is unknown.
        let stable = (gone.is_some() || stable) && !repeated.contains(&ino);
        Object { buffer, counted: Counted { stable, pinned: false } }
    };
    drafts.into_iter().map(object).collect()
}

/// Adds every buffer of shared memory that is held, ordered by identity. Returns which object each
/// one is that the walk has found.
fn add_shmem(
    objects: &mut Vec<Object>,
    walk: &Walk,
    shm_fds: &[HeldShmFd],
    finder: &ShmemFinder,
) -> Vec<Option<usize>> {
    let fds = shm_fds.iter().map(|held| held.fact.object);
    let maps = walk.shm_maps.iter().map(|held| held.fact.object);
    let mut held = vec![false; finder.objects.iter().len()];
    for number in fds.chain(maps).chain(walk.programs.iter().map(|&(_, object)| object)) {
        held[number.index()] = true;
    }
    let found = finder.objects.iter().enumerate().filter(|&(number, _)| held[number]);
    let mut found: Vec<(usize, &(BufferId, ShmemObject))> = found.collect();
    found.sort_unstable_by_key(|(_, (id, _))| *id);
    let mut numbers = vec![None; held.len()];
    for (number, (id, known)) in found {
        let mut buffer = Buffer::new(*id);
        let links = known.inode.as_ref().map(|inode| inode.links);
        buffer.name = known.name.as_ref().map(|name| name_of(id.kind, name.as_bytes(), links));
        if let Some(inode) = &known.inode {
            add_inode(&mut buffer, inode);
        }
        numbers[number] = Some(objects.len());
        objects.push(Object { buffer, counted: Counted::default() });
    }
    numbers
}

fn by_inode(list: Option<&List>) -> BTreeMap<Inode, &ListedBuffer> {
    list.into_iter().flat_map(|list| &list.buffers).map(|buffer| (buffer.ino, buffer)).collect()
}

fn repeated(list: Option<&List>) -> impl Iterator<Item = Inode> {
    let mut seen = BTreeSet::new();
    list.into_iter().flat_map(|list| &list.buffers).map(|b| b.ino).filter(move |&ino| !seen.insert(ino))
}
