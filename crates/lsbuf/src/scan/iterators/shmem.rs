//! One round's files of shared memory, made into one [`Buffer`] each.
//!
//! A buffer is an inode, on which several files may be open, each with references of its own: a memfd that was opened once
//! more through `/proc` has two. The account counts those of every file that was found. One that is open and that nothing was
//! found to hold (only the kernel does, as a loop device) is not in it, where no list would show it either.
//!
//! Limits: a mapped System V segment is a file of its own for each attachment, and its account is the kernel's own number of
//! attachments ([`shmem::add_segments`](crate::scan::shmem)).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Rings;
use super::join::{add_fds, add_vmas};
use super::round::{OpenFile, Round};
use crate::kernel::bpf::record::{FdRecord, Id, ShmFilesystem, Vma};
use crate::kernel::shmem::{Filesystems, Home, Named, classify};
use crate::model::{Buffer, BufferId, Bytes, Kind, Kinds, Label};
use crate::scan::shmem::{add_inode, name_of};

/// What a round came to.
#[derive(Debug)]
pub(super) struct Joined {
    /// Ordered by identity.
    pub(super) buffers: Vec<Buffer>,
    /// As [`super::join::Joined::restless`].
    pub(super) restless: bool,
}

/// Joins the files of these kinds. What rings may have registered is in no count that was read.
pub(super) fn join(round: &Round, kinds: Kinds, filesystems: &Filesystems, rings: Rings) -> Joined {
    let mut of_file: HashMap<Id, BufferId> = HashMap::new();
    let mut buffers: BTreeMap<BufferId, Buffer> = BTreeMap::new();
    let identify = |(&file, open)| Some((file, open, identify(open, filesystems)?));
    let identified: Vec<_> = round.shm_files.iter().filter_map(identify).collect();
    let attached: Vec<BufferId> =
        identified.iter().map(|(.., (id, _))| *id).filter(|id| id.ipc.is_some()).collect();
    for (file, open, (id, name)) in identified {
        let id = in_namespace(id, &attached);
        if !kinds.has(id.kind) {
            continue;
        }
        of_file.insert(file, id);
        let buffer = buffers.entry(id).or_insert_with(|| described(id, open));
        // Of several names, as hard links are, always the same.
        buffer.name = [name, buffer.name.take()].into_iter().flatten().min();
        let counted = buffer.count.get_or_insert(0);
        if !open.path_only {
            *counted = counted.saturating_add(open.count);
            buffer.steady &= open.steady;
        }
    }
    let mut buffers: Vec<Buffer> = buffers.into_values().collect();
    let place = |buffers: &[Buffer], id: BufferId| buffers.binary_search_by_key(&id, |b| b.id).ok();
    let mut fds: Vec<FdRecord<BufferId>> = round
        .shm_fds
        .iter()
        .filter_map(|&FdRecord { of, count, files, program, pid, tid, fd, path_only }| {
            let of = *of_file.get(&of)?;
            Some(FdRecord { of, count, files, program, pid, tid, fd, path_only })
        })
        .collect();
    let mut vmas: Vec<Vma<BufferId>> = round
        .shm_vmas
        .iter()
        .filter_map(|&Vma { of, mm, start, end, offset, owner, perms }| {
            let of = *of_file.get(&of)?;
            // What is private there is a process's own memory of huge pages.
            let own = of.kind == Kind::ShmAnon && !perms.is_shared();
            (!own).then_some(Vma { of, mm, start, end, offset, owner, perms })
        })
        .collect();
    let mut restless = add_fds(round, &mut fds, &mut buffers, place);
    restless |= add_vmas(round, &mut vmas, &mut buffers, place);
    add_others(round, &of_file, &mut buffers, rings);
    // An own memory of huge pages, or what was let go meanwhile.
    buffers.retain(|b| !b.holders.is_empty() || b.in_flight > Some(0));
    Joined { buffers, restless }
}

/// References that are neither fds nor mappings.
fn add_others(round: &Round, of_file: &HashMap<Id, BufferId>, buffers: &mut [Buffer], rings: Rings) {
    let mut of_buffer: HashMap<BufferId, (u64, u64)> = HashMap::new();
    let waiting = round.shm_waiting().filter(|_| !rings.may_have_sockets);
    let holds = |file: &Id| round.shm_files.get(file).is_some_and(|open| !open.path_only);
    for (file, number) in waiting.iter().flatten().filter(|(file, _)| holds(file)) {
        if let Some(id) = of_file.get(file) {
            of_buffer.entry(*id).or_default().0 += number;
        }
    }
    // One for each address space, which threads and vfork share.
    let programs: HashSet<(Id, Id)> =
        round.tasks.iter().filter_map(|task| Some((task.mm?, task.exe?))).collect();
    for (_, exe) in programs {
        if let Some(id) = of_file.get(&exe) {
            of_buffer.entry(*id).or_default().1 += 1;
        }
    }
    for buffer in buffers {
        let (in_flight, exe) = of_buffer.get(&buffer.id).copied().unwrap_or_default();
        buffer.in_flight = waiting.is_some().then_some(in_flight);
        buffer.io_uring = (waiting.is_some() && !rings.may_have_shmem).then_some(0);
        buffer.exe = Some(exe);
    }
}

/// Which buffer a file is of, and how it is called, as far as that is known.
fn identify(open: &OpenFile, filesystems: &Filesystems) -> Option<(BufferId, Option<Label>)> {
    let home = home(open, filesystems);
    let own = matches!(home, Home::Kernel | Home::KernelHuge);
    // A file without a folder has a path that is its name.
    let path = match &open.path {
        Ok(path) => Some(path.as_bytes().to_vec()),
        Err(name) if own && !name.is_empty() => Some([b"/", name.as_bytes(), b" (deleted)"].concat()),
        Err(_) => None,
    };
    let named = match &path {
        Some(path) => classify(home, path)?,
        None => Named { kind: home.only_kind()?, name: b"" },
    };
    let Named { kind, name } = named;
    let name = path.is_some().then(|| name_of(kind, name, Some(open.inode.links)));
    let ipc = open.ipc.filter(|_| kind == Kind::Sysv);
    Some((BufferId { ipc, ..BufferId::new(kind, Some(open.inode.dev), open.inode.ino) }, name))
}

/// A segment's file that is no attachment does not tell its namespace; where only one has such a segment attached, it is that.
fn in_namespace(id: BufferId, attached: &[BufferId]) -> BufferId {
    if id.kind != Kind::Sysv || id.ipc.is_some() {
        return id;
    }
    let mut same = attached.iter().filter(|other| BufferId { ipc: None, ..**other } == id);
    let first = same.next().copied();
    first.filter(|first| same.all(|other| other == first)).unwrap_or(id)
}

/// On which filesystem of the family a file is: the kernel's own are known by their devices.
fn home(open: &OpenFile, filesystems: &Filesystems) -> Home {
    let known = filesystems.home(open.inode.dev);
    match (open.filesystem, known) {
        (ShmFilesystem::Tmpfs, Some(Home::Kernel)) => Home::Kernel,
        (ShmFilesystem::Tmpfs, _) => Home::Tmpfs,
        (ShmFilesystem::Hugetlbfs, Some(Home::KernelHuge)) => Home::KernelHuge,
        (ShmFilesystem::Hugetlbfs, _) => Home::Hugetlbfs,
        (ShmFilesystem::Secretmem, _) => Home::Secret,
        (ShmFilesystem::GuestMemfd, _) => Home::Guest,
    }
}

/// A buffer without its holders.
fn described(id: BufferId, open: &OpenFile) -> Buffer {
    let page = rustix::param::page_size() as u64;
    let mut buffer = Buffer::new(id);
    add_inode(&mut buffer, &open.inode);
    buffer.swapped = open.swapped.map(|pages| Bytes(pages.saturating_mul(page)));
    buffer.seals = open.seals.filter(|_| id.kind == Kind::Memfd);
    buffer.steady = true;
    buffer
}
