//! Makes a [`Reading`] of the records of all iterators.
//!
//! Each record has the id of its fd table or address space, so nothing has to be compared. A buffer
//! of shared memory is an inode, on which several files may be open, each with a count of its own:
//! a memfd that was opened again through `/proc` has two. The inode says how many files are open on
//! it. Its count is the sum over the files that were found, and one for each other file, which only
//! the kernel has.
//!
//! Limits: each attachment of a System V segment is a file of its own, so a segment's account rests
//! on the kernel's number of attachments instead ([`segments`](crate::scan::segments)).

use std::collections::{BTreeSet, HashMap};

use super::known_fds::{DmaBufFds, Slots};
use super::records::{KnownDmaBuf, Records};
use super::shmem_objects;
use super::shmem_records::KnownVma;
use crate::kernel::bpf::record::{Id, MemfdPages, Vma};
use crate::kernel::bufinfo::List;
use crate::kernel::identity::InodeFact;
use crate::kernel::root::ProcRoot;
use crate::model::{Buffer, BufferId, Bytes, Dev, Inode, Kind, Kinds, Label, MapRef, Overlap, Pid, Tid};
use crate::scan::reading::{Counted, FdRef, Mapping, Object, Reading, RunningProgram, TableOwners};

/// What io_urings may have registered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rings {
    /// Whether they may have registered sockets or rings, which can keep further files.
    pub(super) may_have_sockets: bool,
    /// Whether they may have registered files of shared memory.
    pub(super) may_have_shmem: bool,
}

/// Makes the reading without its coverage and without who ran. `listed` is the kernel's list, if no
/// iterator lists the dma-bufs. Moves references and dma-bufs out of the records.
pub(super) fn read(
    records: &mut Records,
    listed: Option<&List>,
    dev: Option<Dev>,
    kinds: Kinds,
    shmem: Option<(&ProcRoot, Rings)>,
) -> Reading {
    let mut reading = Reading::default();
    let wants_dmabufs = kinds.has(Kind::DmaBuf);
    if wants_dmabufs {
        reading.objects = dmabufs(records, listed, dev);
    }
    let first_shmem = reading.objects.len();
    if shmem.is_some() {
        reading.few_keep = shmem_objects::few_keep(&records.shmem, &records.tasks);
    }
    let mut of_file = Vec::new();
    if let Some((root, rings)) = shmem {
        of_file = shmem_objects::add(&mut records.shmem, kinds, Some(root), &mut reading.objects);
        add_hidden(records, &of_file, &mut reading.objects, first_shmem, rings);
    }
    let (fds, vmas) = (std::mem::take(&mut records.fds), std::mem::take(&mut records.vmas));
    let mut shmem = std::mem::take(&mut records.shmem);
    let (shm_fds, shm_vmas) = (std::mem::take(&mut shmem.fds), std::mem::take(&mut shmem.vmas));
    let mut owners = Owners::of(records);
    let dmabufs = &reading.objects[..first_shmem];
    let of_files: Vec<Option<usize>> = fds.files.iter().map(|files| dmabuf(dmabufs, files.ino)).collect();
    // Each list of records is freed as soon as it is used: there may be a million of them.
    let DmaBufFds { files, fds, .. } = fds;
    for (file, slots, fd) in fds.iter() {
        let Some(object) = of_files[file as usize] else {
            reading.interference.moved |= wants_dmabufs;
            continue;
        };
        let path_only = files[file as usize].path_only;
        let Object { buffer, counted } = &mut reading.objects[object];
        if path_only && buffer.count.is_none() {
            // Only `O_PATH` fds refer to it: the kernel has taken it off its list, and counts no
            // reference.
            buffer.count = Some(0);
            counted.stable = listed.is_none_or(List::agrees);
        }
        if let Some(table) = owners.table_of(&mut reading, slots) {
            reading.fds.push(FdRef { object, table, fd, path_only });
        }
    }
    drop(fds);
    for (files, object) in files.iter().zip(of_files).filter(|(files, _)| !files.path_only) {
        let Some(Object { buffer, counted }) = object.map(|object| &mut reading.objects[object]) else {
            continue;
        };
        // Each fd's record has the count at its own moment.
        counted.stable &= files.stable && Some(files.count) == buffer.count;
    }
    // The inode was freed before the lists were read.
    let is_stale = |file: u32| shmem.inode(shmem.files[file as usize].object).is_none();
    for (file, slots, fd) in shm_fds.iter() {
        let Some(object) = of_file[file as usize] else {
            reading.interference.moved |= is_stale(file);
            continue;
        };
        if let Some(table) = owners.table_of(&mut reading, slots) {
            let path_only = shmem.files[file as usize].path_only;
            reading.fds.push(FdRef { object, table, fd, path_only });
        }
    }
    drop(shm_fds);
    for vma in vmas {
        match dmabuf(&reading.objects[..first_shmem], vma.of) {
            Some(object) => owners.add_vma(&mut reading, object, &vma),
            None => reading.interference.moved |= wants_dmabufs,
        }
    }
    for KnownVma { start, end, offset, file, space, perms } in shm_vmas {
        let Some(object) = of_file[file as usize] else {
            reading.interference.moved |= is_stale(file);
            continue;
        };
        // A private mapping there is a process's own memory of huge pages.
        if perms.is_shared() || reading.objects[object].buffer.id.kind != Kind::ShmAnon {
            let (mm, owner) = shmem.spaces[space as usize];
            owners.add_vma(&mut reading, object, &Vma { of: file, mm, start, end, offset, owner, perms });
        }
    }
    for &(file, mm) in &shmem.exes {
        match (owners.space(mm), of_file[file as usize]) {
            (Some(space), Some(object)) => reading.programs.push(RunningProgram { object, space }),
            (None, Some(_)) => reading.interference.moved = true,
            (_, None) => reading.interference.moved |= is_stale(file),
        }
    }
    (reading.tables, reading.spaces) = owners.all();
    reading.unheld = shmem_objects::unheld(&shmem);
    reading
}

/// Which of the dma-bufs has this inode number.
fn dmabuf(objects: &[Object], ino: Inode) -> Option<usize> {
    objects.binary_search_by_key(&ino, |object| object.buffer.id.ino).ok()
}

/// Every dma-buf, ordered by inode number.
fn dmabufs(records: &mut Records, listed: Option<&List>, dev: Option<Dev>) -> Vec<Object> {
    let known = std::mem::take(&mut records.buffers);
    let mut objects: Vec<Object> =
        known.into_iter().map(|known| dmabuf_object(known, listed.is_some())).collect();
    let mapped = records.vmas.iter().map(|vma| vma.of);
    let unlisted = mapped.chain(listed.into_iter().flat_map(|list| &list.buffers).map(|row| row.ino));
    let unlisted: BTreeSet<Inode> = unlisted.filter(|&ino| dmabuf(&objects, ino).is_none()).collect();
    objects.extend(unlisted.into_iter().map(|ino| Object {
        buffer: Buffer::new(BufferId::new(Kind::DmaBuf, dev, ino)),
        counted: Counted { stable: true, pinned: false },
    }));
    objects.sort_unstable_by_key(|object| object.buffer.id.ino);
    for row in listed.into_iter().flat_map(|list| &list.buffers) {
        let Some(at) = dmabuf(&objects, row.ino) else { continue };
        let Object { buffer, counted } = &mut objects[at];
        counted.stable &= buffer.count.is_none_or(|count| count == row.count);
        buffer.count = Some(row.count);
        buffer.size = buffer.size.or(Some(row.size));
        buffer.exporter = buffer.exporter.take().or_else(|| Some(row.exporter.clone()));
        buffer.name = buffer.name.take().or_else(|| row.name.clone());
        buffer.attachments.clone_from(&row.attachments);
    }
    objects
}

/// A dma-buf without its references. Its count must have been read twice; where there is the
/// kernel's list, that is one of the two.
fn dmabuf_object(known: KnownDmaBuf, listed: bool) -> Object {
    let InodeFact { dev, ino, size, creator_uid, created_at } = known.inode;
    let mut buffer = Buffer::new(BufferId::new(Kind::DmaBuf, Some(dev), ino));
    buffer.size = Some(size);
    buffer.exporter = known.exporter;
    buffer.name = known.name;
    buffer.count = known.count;
    buffer.attachments = known.attachments;
    buffer.created_at = created_at;
    buffer.creator_uid = Some(creator_uid);
    buffer.overlaps = match (known.gem_file, buffer.exporter.as_ref().map(Label::as_bytes)) {
        (Some(file), _) => Some(vec![driver_file(file, size)]),
        // The pages of these are no file's, or are listed.
        (None, Some(b"system" | b"udmabuf")) => known.pages.as_deref().map(overlaps),
        (None, _) => None,
    };
    let stable = known.stable && (listed || known.readings != 1);
    Object { buffer, counted: Counted { stable, pinned: false } }
}

/// A dma-buf is all of the file that its driver has for it.
fn driver_file((dev, ino): (Dev, Inode), bytes: Bytes) -> Overlap {
    Overlap { of: BufferId::new(Kind::GemShmem, Some(dev), ino), bytes }
}

/// Which memfds' pages a dma-buf is made of. The kernel counts in pages of the smallest size.
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

/// Adds references that are neither fds nor mappings nor programs to the objects of shared memory,
/// which are those from `first` on.
fn add_hidden(
    records: &Records,
    of_file: &[Option<usize>],
    objects: &mut [Object],
    first: usize,
    rings: Rings,
) {
    let in_messages = records.shm_in_messages().filter(|_| !rings.may_have_sockets);
    for Object { buffer, .. } in &mut objects[first..] {
        buffer.in_flight = in_messages.is_some().then_some(0);
        buffer.io_uring = (in_messages.is_some() && !rings.may_have_shmem).then_some(0);
        buffer.exe = Some(0);
    }
    for (&file, &number) in in_messages.iter().flatten() {
        let Some(object) = of_file[file as usize] else { continue };
        let Buffer { in_flight, count, .. } = &mut objects[object].buffer;
        *in_flight = in_flight.map(|before| before.saturating_add(number));
        if records.shmem.files[file as usize].path_only {
            // It keeps the memory, but the kernel's count of open files has no reference of it.
            *count = count.map(|before| before.saturating_add(number));
        }
    }
}

/// An fd table: known by its id; or this task's own, if the id could not be read or has changed
/// since the tasks were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum TableId {
    Known(Id),
    Of(Pid, Tid),
}

/// The owners of each fd table and address space.
struct Owners<'r> {
    records: &'r Records,
    table_numbers: HashMap<TableId, usize>,
    /// Of each table: its processes in order, each with the first of its threads that has the
    /// table.
    tables: Vec<TableOwners>,
    /// The task whose fd was added last, and its table. The iterator goes from task to task, so the
    /// next fd is probably the same task's.
    last: Option<(Slots, Option<usize>)>,
    /// Ordered. The owners of each are at the same index of `spaces`.
    space_ids: Vec<Id>,
    spaces: Vec<Vec<Pid>>,
}

impl Owners<'_> {
    fn of(records: &Records) -> Owners<'_> {
        let mut owners = Owners {
            records,
            table_numbers: HashMap::new(),
            tables: Vec::new(),
            last: None,
            space_ids: Vec::new(),
            spaces: Vec::new(),
        };
        for of_one in records.address_spaces().chunk_by(|a, b| a.0 == b.0) {
            owners.space_ids.push(of_one[0].0);
            owners.spaces.push(of_one.iter().map(|&(_, pid)| pid).collect());
        }
        owners
    }

    /// Which of the address spaces has this id.
    fn space(&self, mm: Id) -> Option<usize> {
        self.space_ids.binary_search(&mm).ok()
    }

    /// Which table an fd is in. `None`: the process has replaced its program since, and the fd is
    /// not put under the name of the new one.
    fn table_of(&mut self, reading: &mut Reading, slots: Slots) -> Option<usize> {
        let table = match self.last {
            Some((last, table)) if last == slots => table,
            _ => self.table(reading, slots),
        };
        self.last = Some((slots, table));
        table
    }

    /// Which table these fds are in; adds this task to its owners. `None`: the fds are left out.
    fn table(&mut self, reading: &mut Reading, (pid, tid, files, program): Slots) -> Option<usize> {
        if self.records.task(pid).is_none_or(|task| task.program != program) {
            reading.interference.moved = true;
            return None;
        }
        let kept = files.filter(|&files| self.records.had_table(pid, tid, files));
        reading.interference.moved |= files.is_some() && kept.is_none();
        let next = self.tables.len();
        let table = kept.map_or(TableId::Of(pid, tid), TableId::Known);
        let table = *self.table_numbers.entry(table).or_insert(next);
        if table == next {
            self.tables.push(Vec::new());
        }
        let owners = &mut self.tables[table];
        // `None`, which means the process's own, is ordered before all threads.
        let thread = (tid.0 != pid.0).then_some(tid);
        match owners.binary_search_by_key(&pid, |&(pid, _)| pid) {
            Ok(at) => owners[at].1 = owners[at].1.min(thread),
            Err(at) => owners.insert(at, (pid, thread)),
        }
        Some(table)
    }

    /// Adds a mapping, unless its address space is gone or its id belongs to another one by now.
    fn add_vma<K>(&mut self, reading: &mut Reading, object: usize, vma: &Vma<K>) {
        let space = vma.mm.and_then(|mm| self.space(mm));
        let is_owner = |&space: &usize| vma.owner.is_none_or(|owner| self.spaces[space].contains(&owner));
        let Some(space) = space.filter(is_owner) else {
            match vma.owner.filter(|&owner| self.records.task(owner).is_none()) {
                Some(owner) => reading.unlisted.extend([owner]),
                None => reading.interference.moved = true,
            }
            return;
        };
        let Vma { start, end, offset, perms, .. } = *vma;
        let map = MapRef { start, end, offset: Some(offset), perms: Some(perms) };
        reading.maps.push(Mapping { object, space, map });
    }

    fn all(self) -> (Vec<TableOwners>, Vec<Vec<Pid>>) {
        (self.tables, self.spaces)
    }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
