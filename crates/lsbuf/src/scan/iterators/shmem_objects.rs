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
use crate::kernel::bpf::record::ShmFilesystem;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::mounts::Mounts;
use crate::kernel::shmem::{Filesystem, MountView, Named, classify};
use crate::model::{Buffer, BufferId, Bytes, Dev, Kind, Kinds, Label, Pid, UnheldFiles};
use crate::scan::described::{add_inode, name_of};
use crate::scan::reading::{Counted, Object};

/// What the files that were found say of one inode.
#[derive(Clone, Copy, Debug)]
struct FilesOfOne {
    found: u64,
    /// The sum of their reference counts.
    count: u64,
    stable: bool,
}

/// Adds every buffer of these kinds, ordered by identity. Returns which object each file belongs
/// to, by the file's number.
pub(super) fn add(
    shmem: &mut ShmemRecords,
    kinds: Kinds,
    root: Option<&ProcRoot>,
    objects: &mut Vec<Object>,
) -> Vec<Option<usize>> {
    let of_inodes = count_files(shmem);
    let mut ids: Vec<(BufferId, usize)> = Vec::new();
    for (at, known) in shmem.inodes.iter().enumerate() {
        let Some(kind) = kind_of(known).filter(|&kind| kinds.has(kind)) else { continue };
        let ipc = shmem.namespaces.get(&known.object).copied().filter(|_| kind == Kind::Sysv);
        ids.push((BufferId { ipc, ..BufferId::new(kind, Some(known.inode.dev), known.inode.ino) }, at));
    }
    ids.sort_unstable();
    let mut paths = Paths::new(root, shmem);
    let mut of_inode = vec![None; shmem.inodes.len()];
    objects.reserve_exact(ids.len());
    for (id, at) in ids {
        of_inode[at] = Some(objects.len());
        let known = &shmem.inodes[at];
        objects.push(object(id, name_of_inode(known, id.kind, &mut paths, at), known, of_inodes[at]));
    }
    shmem.files.iter().map(|file| of_inode[shmem.inode(file.object)?]).collect()
}

/// What the lists say of each tmpfs besides its files that somebody holds.
pub(super) fn unheld(shmem: &ShmemRecords) -> Vec<UnheldFiles> {
    let page = rustix::param::page_size() as u64;
    let bytes = |pages: u64| Bytes(pages.saturating_mul(page));
    let of_tmpfs = shmem.filesystems.values().filter(|found| found.of == ShmFilesystem::Tmpfs);
    let mut unheld: Vec<UnheldFiles> = of_tmpfs
        .map(|found| UnheldFiles {
            dev: found.dev,
            files: found.unheld.files,
            resident: bytes(found.unheld.pages.saturating_add(found.other_pages)),
            swapped: bytes(found.unheld.swapped),
        })
        .collect();
    unheld.sort_by_key(|files| files.dev);
    unheld
}

fn count_files(shmem: &ShmemRecords) -> Vec<FilesOfOne> {
    let mut of_inodes = vec![FilesOfOne { found: 0, count: 0, stable: true }; shmem.inodes.len()];
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
    let others = known.opens.and_then(|opens| opens.checked_sub(files.found + own));
    buffer.count = Some(files.count.saturating_add(others.unwrap_or(0)));
    Object { buffer, counted: Counted { stable: files.stable && others.is_some() } }
}

/// On which filesystem an inode is.
fn filesystem_of(known: &KnownInode) -> Filesystem {
    match known.filesystem {
        ShmFilesystem::Tmpfs if known.kernels => Filesystem::Kernel,
        ShmFilesystem::Tmpfs => Filesystem::Tmpfs,
        ShmFilesystem::Hugetlbfs if known.kernels => Filesystem::KernelHuge,
        ShmFilesystem::Hugetlbfs => Filesystem::Hugetlbfs,
        ShmFilesystem::Secretmem => Filesystem::Secret,
        ShmFilesystem::GuestMemfd => Filesystem::Guest,
    }
}

/// The path of one of the kernel's own files, as it is shown in a link.
fn link_of(name: &Label) -> Vec<u8> {
    [b"/", name.as_bytes(), b" (deleted)"].concat()
}

/// What kind of buffer an inode is; `None`: of no kind that lsbuf knows.
fn kind_of(known: &KnownInode) -> Option<Kind> {
    let filesystem = filesystem_of(known);
    filesystem.only_kind().or_else(|| Some(classify(filesystem, &link_of(known.path.as_ref()?))?.kind))
}

/// The name of a buffer; `None`: not known.
fn name_of_inode(known: &KnownInode, kind: Kind, paths: &mut Paths<'_>, at: usize) -> Option<Label> {
    let text = known.path.as_ref();
    match kind {
        Kind::Secretmem | Kind::GuestMemfd => Some(Label::default()),
        // No mark follows this path if the file was deleted.
        Kind::Tmpfs | Kind::Hugetlbfs => {
            text.map(|path| Label::from(&paths.of(known.inode.dev, path.as_bytes(), at)[..]))
        }
        _ => {
            let link = link_of(text?);
            let Named { name, .. } = classify(filesystem_of(known), &link)?;
            Some(name_of(kind, name, None))
        }
    }
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
        whole.unwrap_or_else(|| [b"(unreachable)", below].concat())
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
