//! Makes buffers of the inodes of shared memory.
//!
//! Each inode is one buffer. The kind follows from the filesystem and from the name that the kernel
//! gave the file. The path of a file in a folder is put together from the mount table that shows
//! its filesystem, and its path below the root of that filesystem.
//!
//! Limits: a filesystem may be mounted at several places. The path is that of the first of them
//! which this process sees, or else a holder, and need not be the one by which the file was opened.

use std::collections::{HashMap, HashSet};

use super::shmem_records::{KnownFile, KnownInode, ShmemRecords};
use crate::kernel::bpf::record::{Id, ShmFilesystem, TaskRecord};
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::MountView;
use crate::kernel::shmem::mounts::Mounts;
use crate::model::{Buffer, BufferId, Bytes, Dev, Kind, Kinds, Label, Pid, UnheldSum};
use crate::scan::described::add_inode;
use crate::scan::lifetimes::{FewKeep, UNREACHABLE};
use crate::scan::packed::give_back;
use crate::scan::reading::{Counted, Object};

/// What the files that were found say of one inode.
#[derive(Clone, Copy, Debug)]
struct FilesOfOne {
    /// The sum of their reference counts.
    count: u64,
    found: u32,
    stable: bool,
}

/// Adds every buffer of these kinds, ordered by identity. Returns which object each file belongs
/// to, by the file's number.
///
/// There may be a million inodes. Each is dropped when its object is made.
pub(super) fn add(
    shmem: &mut ShmemRecords,
    kinds: Kinds,
    root: Option<&ProcRoot>,
    objects: &mut Vec<Object>,
) -> Vec<Option<usize>> {
    let namespaces = std::mem::take(&mut shmem.namespaces);
    let private = privately_mapped(shmem);
    let id = |known: &KnownInode| {
        let kind = known.kind.filter(|&kind| kinds.has(kind))?;
        let is_huge = known.inode.huge_page.is_some();
        if kind == Kind::ShmAnon && is_huge && private.contains(&known.object) {
            return None;
        }
        let ipc = if kind == Kind::Sysv { namespaces.get(&known.object).copied() } else { None };
        Some(BufferId { ipc, ..BufferId::new(kind, Some(known.inode.dev), known.inode.ino) })
    };
    let mut inodes = shmem.take_inodes(id);
    let of_inodes = count_files(shmem, inodes.len());
    let payers = std::mem::take(&mut shmem.payers);
    let mut paths = Paths::new(root, shmem);
    let wanted = inodes.partition_point(|known| id(known).is_some());
    inodes.truncate(wanted);
    objects.reserve_exact(wanted);
    while let Some(mut known) = inodes.pop() {
        let Some(id) = id(&known) else { continue };
        let at = inodes.len();
        let name = known.name.take().map(|name| paths.name_of(name, id, at));
        let mut made = object(id, name, &known, of_inodes[at]);
        let payers = payers.of(known.object, made.buffer.huge_page, known.inode.charged);
        made.buffer.payers = payers.map(Box::new);
        objects.push(made);
        give_back(&mut inodes);
    }
    // The last inode has become the first object.
    let last = objects.len().saturating_sub(1);
    let inode = |file: &KnownFile| shmem.inode(file.object).filter(|&at| at < wanted);
    shmem.files.iter().map(|file| inode(file).map(|at| last - at)).collect()
}

/// The inodes that have a private mapping. Of huge pages without a file, that one mapping is all
/// that the inode has, and its pages are the process's own (`hugetlb_file_setup` in mm/mmap.c).
fn privately_mapped(shmem: &ShmemRecords) -> HashSet<Id> {
    let private = shmem.vmas.iter().filter(|vma| !vma.perms.is_shared());
    private.filter_map(|vma| Some(shmem.files.get(vma.file as usize)?.object)).collect()
}

/// What the lists say of each tmpfs besides its files that somebody holds.
pub(super) fn unheld(shmem: &ShmemRecords) -> Vec<UnheldSum> {
    let page = rustix::param::page_size() as u64;
    let bytes = |pages: u64| Bytes(pages.saturating_mul(page));
    let of_tmpfs = shmem.filesystems.values().filter(|found| found.of == ShmFilesystem::Tmpfs);
    let mut unheld: Vec<UnheldSum> = of_tmpfs
        .map(|found| UnheldSum {
            dev: found.dev,
            files: found.unheld.files,
            resident: bytes(found.unheld.pages.saturating_add(found.other_pages)),
            swapped: bytes(found.unheld.swapped),
        })
        .collect();
    unheld.sort_by_key(|files| files.dev);
    unheld
}

/// What the lists say of filesystems and IPC namespaces that few keep. `tasks` are the processes
/// that were found.
pub(super) fn few_keep(shmem: &ShmemRecords, tasks: &[TaskRecord]) -> FewKeep {
    let found = shmem.filesystems.values().filter(|_| !shmem.cut);
    let mut few = FewKeep {
        mounted: found.filter_map(|found| Some((found.dev, found.mounted?))).collect(),
        alone: tasks.iter().filter_map(|task| Some((task.pid, task.alone?))).collect(),
        ..FewKeep::default()
    };
    for file in &shmem.files {
        if let Some(&ipc) = shmem.namespaces.get(&file.object) {
            *few.attached.entry(ipc).or_default() += 1;
        }
    }
    few
}

fn count_files(shmem: &ShmemRecords, inodes: usize) -> Vec<FilesOfOne> {
    let mut of_inodes = vec![FilesOfOne { found: 0, count: 0, stable: true }; inodes];
    for &KnownFile { object, count, stable, path_only } in &shmem.files {
        let Some(at) = shmem.inode(object) else { continue };
        let of_one = &mut of_inodes[at];
        of_one.found += 1;
        if !path_only {
            of_one.count = of_one.count.saturating_add(count);
            of_one.stable &= stable;
        }
    }
    of_inodes
}

/// One buffer without its references.
fn object(id: BufferId, name: Option<Label>, known: &KnownInode, files: FilesOfOne) -> Object {
    let page = rustix::param::page_size() as u64;
    let mut buffer = Buffer::new(id);
    add_inode(&mut buffer, &known.inode);
    buffer.swapped = known.swapped.map(|pages| Bytes(pages.saturating_mul(page)));
    buffer.seals = known.seals.filter(|_| id.kind == Kind::Memfd);
    buffer.name = name;
    // Beside the file of each attachment, the kernel has a file of the segment itself.
    let own = u64::from(id.kind == Kind::Sysv);
    let others = known.opens.and_then(|opens| opens.checked_sub(u64::from(files.found) + own));
    buffer.count = Some(files.count.saturating_add(others.unwrap_or(0)));
    // Where it has a name, that keeps it.
    let goes = id.kind.goes_unheld() || buffer.deleted == Some(true);
    let pinned = goes && known.pins > 0;
    Object { buffer, counted: Counted { stable: files.stable && others.is_some(), pinned } }
}

/// Puts paths together.
struct Paths<'r> {
    root: Option<&'r ProcRoot>,
    shmem: &'r ShmemRecords,
    /// Those that this process sees, and then those that holders see, in the order in which they
    /// were read.
    tables: Vec<Mounts>,
    /// What the tables show. Each is read once.
    views: HashSet<MountView>,
    /// For each device, the first table that has it; `None`: no table that was read has it.
    of_device: HashMap<Dev, Option<usize>>,
    /// A process that holds each inode, once it is needed.
    holders: Option<HashMap<usize, Pid>>,
}

impl<'r> Paths<'r> {
    fn new(root: Option<&'r ProcRoot>, shmem: &'r ShmemRecords) -> Paths<'r> {
        Paths {
            root,
            shmem,
            tables: Vec::new(),
            views: HashSet::new(),
            of_device: HashMap::new(),
            holders: None,
        }
    }

    /// The name of a buffer: for a file in a folder the whole path, without a mark if it was
    /// deleted.
    fn name_of(&mut self, known: Label, id: BufferId, inode: usize) -> Label {
        match (id.kind, id.dev) {
            (Kind::Tmpfs | Kind::Hugetlbfs, Some(dev)) => {
                Label::from(&self.of(dev, known.as_bytes(), inode)[..])
            }
            _ => known,
        }
    }

    /// The path of an inode on that device, from its path below the root of the filesystem. If no
    /// mount shows it, it begins as the kernel writes such a path.
    fn of(&mut self, dev: Dev, below: &[u8], inode: usize) -> Vec<u8> {
        let table = match self.of_device.get(&dev) {
            Some(&known) => known,
            None => {
                let found = self.find(dev, inode);
                self.of_device.insert(dev, found);
                found
            }
        };
        let whole = table.and_then(|table| self.tables[table].path_of(dev, below));
        whole.unwrap_or_else(|| [UNREACHABLE, below].concat())
    }

    /// Finds a table with that device.
    fn find(&mut self, dev: Dev, inode: usize) -> Option<usize> {
        if self.tables.is_empty()
            && let Some(own) = self.root.and_then(|root| root.tree().reader(root.dir()))
        {
            self.read(own);
        }
        if let Some(&known) = self.of_device.get(&dev) {
            return known;
        }
        let holder = self.holder(inode)?;
        self.read(holder);
        self.of_device.get(&dev).copied().flatten()
    }

    /// Reads the mounts that a process sees, unless another process sees the same.
    fn read(&mut self, pid: Pid) {
        let Some(Ok(process)) = self.root.map(|root| ProcessDir::open(root, pid)) else { return };
        let mut text = Vec::new();
        if MountView::of(&process).is_ok_and(|view| !self.views.insert(view))
            || process.dir().read_file(c"mountinfo", &mut text).is_err()
        {
            return;
        }
        let table = Mounts::parse(&text);
        for (dev, _) in table.devices() {
            self.of_device.entry(dev).or_insert(Some(self.tables.len()));
        }
        self.tables.push(table);
    }

    fn holder(&mut self, inode: usize) -> Option<Pid> {
        let shmem = self.shmem;
        let holders = self.holders.get_or_insert_with(|| {
            let of_fds = shmem.fds.iter().map(|(file, (pid, ..), _)| (file, Some(pid)));
            let of_maps = shmem.vmas.iter().map(|vma| (vma.file, shmem.spaces[vma.space as usize].1));
            let holder = |(file, pid): (u32, Option<Pid>)| {
                Some((shmem.inode(shmem.files[file as usize].object)?, pid?))
            };
            of_fds.chain(of_maps).filter_map(holder).collect()
        });
        holders.get(&inode).copied()
    }
}
