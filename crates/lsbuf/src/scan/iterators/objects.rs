//! Makes a [`Reading`] of the records of all iterators.
//!
//! Each record has the id of its fd table or address space, so nothing has to be compared. A buffer
//! of shared memory is an inode, on which several files may be open, each with a count of its own:
//! a memfd that was opened again through `/proc` has two. Its count is the sum over the files that
//! were found. The reference count of the file's dentry says how many files are open on it, and so
//! how many were not found.
//!
//! Limits: each attachment of a System V segment is a file of its own, so a segment's account rests
//! on the kernel's number of attachments instead ([`segments`](crate::scan::segments)).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::records::{KnownDmaBuf, OpenFile, Records};
use crate::kernel::bpf::record::{ExecId, FdRecord, Id, MemfdPages, ShmFilesystem, Vma};
use crate::kernel::bufinfo::List;
use crate::kernel::identity::InodeFact;
use crate::kernel::shmem::{Filesystem, Filesystems, Named, classify};
use crate::model::{Buffer, BufferId, Bytes, Dev, Inode, Kind, Kinds, Label, MapRef, Overlap, Pid, Tid};
use crate::scan::described::{add_inode, name_of};
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
    shmem: Option<(&Filesystems, Rings)>,
) -> Reading {
    let mut reading = Reading::default();
    let wants_dmabufs = kinds.has(Kind::DmaBuf);
    if wants_dmabufs {
        reading.objects = dmabufs(records, listed, dev);
    }
    let first_shmem = reading.objects.len();
    let mut of_file = HashMap::new();
    if let Some((filesystems, rings)) = shmem {
        of_file = shmem_objects(records, kinds, filesystems, &mut reading.objects);
        add_hidden(records, &of_file, &mut reading.objects, rings);
    }
    let (fds, vmas) = (std::mem::take(&mut records.fds), std::mem::take(&mut records.vmas));
    let (shm_fds, shm_vmas) = (std::mem::take(&mut records.shm_fds), std::mem::take(&mut records.shm_vmas));
    let mut owners = Owners::of(records);
    // Each list of records is freed as soon as it is used: there may be a million of them.
    for fd in fds {
        let Some(object) = dmabuf(&reading.objects[..first_shmem], fd.of) else {
            reading.interference.moved |= wants_dmabufs;
            continue;
        };
        let Object { buffer, counted } = &mut reading.objects[object];
        if !fd.path_only {
            // Each fd's record has the count at its own moment.
            counted.stable &= Some(fd.count) == buffer.count;
        } else if buffer.count.is_none() {
            // Only `O_PATH` fds refer to it: the kernel has taken it off its list, and counts no
            // reference.
            buffer.count = Some(0);
            counted.stable = listed.is_none_or(List::agrees);
        }
        owners.add_fd(&mut reading, object, &fd);
    }
    for fd in shm_fds {
        if let Some(&object) = of_file.get(&fd.of) {
            owners.add_fd(&mut reading, object, &fd);
        }
    }
    for vma in vmas {
        match dmabuf(&reading.objects[..first_shmem], vma.of) {
            Some(object) => owners.add_vma(&mut reading, object, &vma),
            None => reading.interference.moved |= wants_dmabufs,
        }
    }
    for vma in shm_vmas {
        if let Some(&object) = of_file.get(&vma.of) {
            // A private mapping there is a process's own memory of huge pages.
            if vma.perms.is_shared() || reading.objects[object].buffer.id.kind != Kind::ShmAnon {
                owners.add_vma(&mut reading, object, &vma);
            }
        }
    }
    for task in &records.tasks {
        if let (Some(mm), Some(exe)) = (task.mm, task.exe)
            && let (Some(space), Some(&object)) = (owners.space(mm), of_file.get(&exe))
        {
            reading.programs.push(RunningProgram { object, space });
        }
    }
    (reading.tables, reading.spaces) = owners.all();
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
        counted: Counted { stable: true, more_files: 0 },
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
    buffer.overlaps = known.pages.as_deref().map(overlaps);
    let stable = known.stable && (listed || known.readings != 1);
    Object { buffer, counted: Counted { stable, more_files: 0 } }
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

/// An open file, the buffer that it belongs to, and its name.
type Identified<'f> = (Id, &'f OpenFile, Option<Label>);

/// Adds every buffer of these kinds that has an open file, ordered by identity. Returns which
/// object each file belongs to.
fn shmem_objects(
    records: &Records,
    kinds: Kinds,
    filesystems: &Filesystems,
    objects: &mut Vec<Object>,
) -> HashMap<Id, usize> {
    let identify = |(&file, open)| Some((file, open, identify(open, filesystems)?));
    let identified: Vec<_> = records.shm_files.iter().filter_map(identify).collect();
    let attached: Vec<BufferId> =
        identified.iter().map(|(.., (id, _))| *id).filter(|id| id.ipc.is_some()).collect();
    let mut files: BTreeMap<BufferId, Vec<Identified<'_>>> = BTreeMap::new();
    for (file, open, (id, name)) in identified {
        let id = in_namespace(id, &attached);
        if kinds.has(id.kind) {
            files.entry(id).or_default().push((file, open, name));
        }
    }
    let mut of_file = HashMap::new();
    for (id, of_one) in files {
        of_file.extend(of_one.iter().map(|(file, ..)| (*file, objects.len())));
        objects.push(shmem_object(id, &of_one));
    }
    of_file
}

/// One buffer, made from the files that are open on its inode.
fn shmem_object(id: BufferId, files: &[Identified<'_>]) -> Object {
    let page = rustix::param::page_size() as u64;
    let mut buffer = Buffer::new(id);
    let mut counted = Counted { stable: true, more_files: 0 };
    // For each dentry of the inode: how many open files it counts, and how many of them were found.
    let mut opens: HashMap<Option<Id>, (u64, u64)> = HashMap::new();
    for (_, open, name) in files {
        add_inode(&mut buffer, &open.inode);
        buffer.swapped = open.swapped.map(|pages| Bytes(pages.saturating_mul(page)));
        buffer.seals = open.seals.filter(|_| id.kind == Kind::Memfd);
        // Hard links give several names; always the same one is taken.
        buffer.name = [name.clone(), buffer.name.take()].into_iter().flatten().min();
        let count = buffer.count.get_or_insert(0);
        if !open.path_only {
            *count = count.saturating_add(open.count);
            counted.stable &= open.stable;
        }
        let (all, found) = opens.entry(open.dentry).or_default();
        *all = (*all).max(open.opens.unwrap_or(0));
        *found += 1;
        counted.stable &= open.opens.is_some();
    }
    // A segment has a file of its own, and one for each attachment.
    if id.kind != Kind::Sysv {
        counted.more_files = opens.into_values().map(|(all, found)| all.saturating_sub(found)).sum();
        buffer.count = buffer.count.map(|count| count.saturating_add(counted.more_files));
    }
    Object { buffer, counted }
}

/// Adds references that are neither fds nor mappings nor programs.
fn add_hidden(records: &Records, of_file: &HashMap<Id, usize>, objects: &mut [Object], rings: Rings) {
    let in_messages = records.shm_in_messages().filter(|_| !rings.may_have_sockets);
    for &number in of_file.values() {
        let buffer = &mut objects[number].buffer;
        buffer.in_flight = in_messages.is_some().then_some(0);
        buffer.io_uring = (in_messages.is_some() && !rings.may_have_shmem).then_some(0);
        buffer.exe = Some(0);
    }
    let holds = |file: &Id| records.shm_files.get(file).is_some_and(|open| !open.path_only);
    for (file, number) in in_messages.iter().flatten().filter(|(file, _)| holds(file)) {
        if let Some(&object) = of_file.get(file) {
            let in_flight = &mut objects[object].buffer.in_flight;
            *in_flight = in_flight.map(|before| before.saturating_add(*number));
        }
    }
}

/// Which buffer a file belongs to, and the file's name; `None`: of no kind that lsbuf knows.
fn identify(open: &OpenFile, filesystems: &Filesystems) -> Option<(BufferId, Option<Label>)> {
    let filesystem = filesystem(open, filesystems);
    let own = matches!(filesystem, Filesystem::Kernel | Filesystem::KernelHuge);
    // On one of the kernel's own mounts a file is in no folder, so its path follows from its name.
    let path = match &open.path {
        Ok(path) => Some(path.as_bytes().to_vec()),
        Err(name) if own && !name.is_empty() => Some([b"/", name.as_bytes(), b" (deleted)"].concat()),
        Err(_) => None,
    };
    let named = match &path {
        Some(path) => classify(filesystem, path)?,
        None => Named { kind: filesystem.only_kind()?, name: b"" },
    };
    let Named { kind, name } = named;
    let name = path.is_some().then(|| name_of(kind, name, Some(open.inode.links)));
    let ipc = open.ipc.filter(|_| kind == Kind::Sysv);
    Some((BufferId { ipc, ..BufferId::new(kind, Some(open.inode.dev), open.inode.ino) }, name))
}

/// Only an attachment's file tells the namespace of its segment. Another file of the segment gets
/// that namespace, if attachments in one namespace alone fit.
fn in_namespace(id: BufferId, attached: &[BufferId]) -> BufferId {
    if id.kind != Kind::Sysv || id.ipc.is_some() {
        return id;
    }
    let mut same = attached.iter().filter(|other| BufferId { ipc: None, ..**other } == id);
    let first = same.next().copied();
    first.filter(|first| same.all(|other| other == first)).unwrap_or(id)
}

/// On which filesystem of shared memory a file is. The kernel's own mounts are known by their
/// devices.
fn filesystem(open: &OpenFile, filesystems: &Filesystems) -> Filesystem {
    let known = filesystems.of_device(open.inode.dev);
    match (open.filesystem, known) {
        (ShmFilesystem::Tmpfs, Some(Filesystem::Kernel)) => Filesystem::Kernel,
        (ShmFilesystem::Tmpfs, _) => Filesystem::Tmpfs,
        (ShmFilesystem::Hugetlbfs, Some(Filesystem::KernelHuge)) => Filesystem::KernelHuge,
        (ShmFilesystem::Hugetlbfs, _) => Filesystem::Hugetlbfs,
        (ShmFilesystem::Secretmem, _) => Filesystem::Secret,
        (ShmFilesystem::GuestMemfd, _) => Filesystem::Guest,
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

/// What the fds of a task have in common while it runs one program with one table.
type Slots = (Pid, Tid, Option<Id>, ExecId);

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

    /// Adds an fd, unless the process has replaced its program since: it is not put under the name
    /// of the new one.
    fn add_fd<K>(&mut self, reading: &mut Reading, object: usize, fd: &FdRecord<K>) {
        let slots = (fd.pid, fd.tid, fd.files, fd.program);
        let table = match self.last {
            Some((last, table)) if last == slots => table,
            _ => self.table(reading, slots),
        };
        self.last = Some((slots, table));
        let Some(table) = table else { return };
        reading.fds.push(FdRef { object, table, fd: fd.fd, path_only: fd.path_only });
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
            reading.interference.moved = true;
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
