//! Collects what the iterators report of shared memory in one reading: inodes, the files that are
//! open on them, and the references to these files.
//!
//! There may be a million references, so each is kept as a few numbers: the number of its file, of
//! its fd table or address space, and where it is there.
//!
//! Limits: an inode of memfd_secret or guest_memfd is in no list of the kernel, so it is known only
//! if a reference to it was found.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use super::known_fds::KnownFds;
use super::payers::KnownPayers;
use crate::kernel::bpf::record::{
    FdRecord, Id, InFlight, ShmExe, ShmFilesystem, ShmFilesystemRecord, ShmInFlight, ShmInodeRecord, ShmOpen,
    ShmVma, ShmWalk, Vma,
};
use crate::kernel::shmem::inode::ShmInode;
use crate::kernel::shmem::{Filesystem, Named, of_kernel_file};
use crate::model::{IpcNamespace, Kind, Label, PackedFile, Perms, Pid, Seals, UnheldBuilder, UnheldFolder};
use crate::scan::described::name_of;

/// An inode.
#[derive(Clone, Debug)]
pub(super) struct KnownInode {
    pub(super) object: Id,
    pub(super) inode: ShmInode,
    /// `None`: of no kind that lsbuf knows.
    pub(super) kind: Option<Kind>,
    pub(super) swapped: Option<u64>,
    pub(super) seals: Option<Seals>,
    /// How many files are open on it; `None`: not known.
    pub(super) opens: Option<u64>,
    /// References to the inode beside those of its dentries.
    pub(super) pins: u32,
    /// Of a file in a folder, its path below the root of its filesystem. `None`: not known.
    pub(super) name: Option<Label>,
}

/// A file that is open on an inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownFile {
    pub(super) object: Id,
    /// The last value of its reference count that was read.
    pub(super) count: u64,
    /// Whether the count was the same each time.
    pub(super) stable: bool,
    /// Opened with `O_PATH`: it only names the inode.
    pub(super) path_only: bool,
}

/// A mapping of shared memory. The file and the space are numbers of [`ShmemRecords::files`] and
/// [`ShmemRecords::spaces`].
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownVma {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) offset: u64,
    pub(super) file: u32,
    pub(super) space: u32,
    pub(super) perms: Perms,
}

/// The kinds whose inodes are in no list of the kernel.
pub(super) const UNLISTED: [Kind; 2] = [Kind::Secretmem, Kind::GuestMemfd];

/// Stands for the folder of a file whose path is too long, or changed whenever it was read.
pub(super) const UNKNOWN_FOLDER: &[u8] = b"(unknown folder)";

/// Everything that one reading found.
#[derive(Debug, Default)]
pub(super) struct ShmemRecords {
    pub(super) inodes: Vec<KnownInode>,
    numbers: HashMap<Id, u32, ById>,
    pub(super) files: Vec<KnownFile>,
    file_numbers: HashMap<Id, u32, ById>,
    /// The file of each is a number of `files`.
    pub(super) fds: KnownFds,
    /// Each address space, and a process that uses it, if the kernel knows one.
    pub(super) spaces: Vec<(Option<Id>, Option<Pid>)>,
    space_numbers: HashMap<(Option<Id>, Option<Pid>), u32>,
    pub(super) vmas: Vec<KnownVma>,
    /// Each file in a message.
    pub(super) in_flight: Vec<InFlight<u32>>,
    /// Each program that runs: its file, and the address space.
    pub(super) exes: Vec<(u32, Id)>,
    /// Of attached System V segments.
    pub(super) namespaces: HashMap<Id, IpcNamespace, ById>,
    pub(super) filesystems: HashMap<Id, ShmFilesystemRecord, ById>,
    /// Whether an inode of each kind of [`UNLISTED`] was found.
    pub(super) found_unlisted: [bool; UNLISTED.len()],
    /// Whether inodes of the kernel's lists may be missing.
    pub(super) cut: bool,
    /// The files that nobody holds. The path of a folder is that below the root of its filesystem.
    pub(super) unheld: UnheldBuilder,
    /// The folder of the file that was added last to these.
    folder: Option<u32>,
    /// Who pays for each inode, if that was asked.
    pub(super) payers: KnownPayers,
}

impl ShmemRecords {
    pub(super) fn add_inode(&mut self, found: &ShmInodeRecord<'_>) {
        let (kind, name) = kind_and_name(found);
        let known = KnownInode {
            object: found.object,
            inode: found.inode,
            kind,
            swapped: found.swapped,
            seals: found.seals,
            opens: found.opens,
            pins: found.pins,
            name,
        };
        for (unlisted, found) in UNLISTED.iter().zip(&mut self.found_unlisted) {
            *found |= known.kind == Some(*unlisted);
        }
        // The walk over the lists may come to an inode again. The last description is the newest.
        match self.numbers.entry(found.object) {
            Entry::Occupied(at) => self.inodes[*at.get() as usize] = known,
            Entry::Vacant(at) => {
                at.insert(number(self.inodes.len()));
                self.inodes.push(known);
            }
        }
    }

    /// Adds a file that nobody holds.
    pub(super) fn add_unheld(&mut self, found: &ShmInodeRecord<'_>) {
        let inode = &found.inode;
        let kind = if found.filesystem == ShmFilesystem::Hugetlbfs { Kind::Hugetlbfs } else { Kind::Tmpfs };
        let folder = |path: &[u8]| UnheldFolder {
            kind,
            dev: inode.dev,
            huge_page: inode.huge_page,
            path: path.into(),
        };
        let known = self.folder.filter(|_| found.names.same_folder());
        let whole = found.names.path();
        let folder = known.unwrap_or_else(|| {
            let path = whole.as_deref().unwrap_or(UNKNOWN_FOLDER);
            let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(path.len());
            self.unheld.folder(folder(&path[..end]))
        });
        self.folder = Some(folder);
        self.payers.next_is_unheld(found.object, inode.dev, inode.ino);
        self.unheld.add(
            folder,
            &PackedFile {
                name: found.names.name(),
                ino: inode.ino,
                size: inode.size,
                charged: inode.charged,
                swapped: found.swapped,
                owner: inode.owner,
                created_at: inode.created_at,
                deleted: inode.links == 0,
            },
        );
    }

    /// Takes what the end of the lists says of the files that nobody holds.
    pub(super) fn end_unheld(&mut self, walk: &ShmWalk) {
        if walk.inodes_cut {
            self.unheld.gaps.cut = true;
        }
        if walk.repeated {
            self.unheld.repeated();
        }
    }

    pub(super) fn add_fd(&mut self, found: &FdRecord<ShmOpen>) {
        let file = self.file(found.of, found.count, Some(found.path_only));
        self.fds.add(file, found);
    }

    pub(super) fn add_vma(&mut self, found: &ShmVma) {
        let Vma { of, mm, start, end, offset, owner, perms } = found.vma;
        let file = self.file(of, found.count, None);
        let next = number(self.spaces.len());
        let space = *self.space_numbers.entry((mm, owner)).or_insert(next);
        if space == next {
            self.spaces.push((mm, owner));
        }
        self.vmas.push(KnownVma { start, end, offset, file, space, perms });
        self.add_namespace(found);
    }

    /// Adds only what a mapping tells of the segment that it is of.
    pub(super) fn add_namespace(&mut self, found: &ShmVma) {
        if let Some(ipc) = found.ipc {
            self.namespaces.insert(found.vma.of.object, ipc);
        }
    }

    pub(super) fn add_filesystem(&mut self, found: &ShmFilesystemRecord) {
        self.filesystems.insert(found.filesystem, *found);
    }

    pub(super) fn add_in_flight(&mut self, found: &ShmInFlight) {
        let file = self.file(found.message.of, found.count, Some(found.path_only));
        let InFlight { socket, seen_by, .. } = found.message;
        self.in_flight.push(InFlight { of: file, socket, seen_by });
    }

    pub(super) fn add_exe(&mut self, found: &ShmExe) {
        let file = self.file(found.of, found.count, None);
        self.exes.push((file, found.mm));
    }

    /// The number of a file. Adds a value of its reference count.
    fn file(&mut self, of: ShmOpen, count: u64, path_only: Option<bool>) -> u32 {
        let next = number(self.files.len());
        let at = *self.file_numbers.entry(of.file).or_insert(next);
        if at == next {
            let path_only = path_only.unwrap_or(false);
            self.files.push(KnownFile { object: of.object, count, stable: true, path_only });
        } else {
            let file = &mut self.files[at as usize];
            file.stable &= file.count == count;
            file.count = count;
        }
        at
    }

    /// Whether this is an inode of memfd_secret or guest_memfd, which were described.
    pub(super) fn is_unlisted(&self, object: Id) -> bool {
        self.inode(object).is_some_and(|at| UNLISTED.map(Some).contains(&self.inodes[at].kind))
    }

    /// Leaves out the mappings of lsbuf's helpers. They share its address space, whose mappings
    /// were listed for lsbuf itself, too.
    pub(super) fn forget_mappings(&mut self, helpers: &[Pid]) {
        let spaces = &self.spaces;
        let is_helpers = |pid: Pid| helpers.contains(&pid);
        self.vmas.retain(|vma| !spaces[vma.space as usize].1.is_some_and(is_helpers));
    }

    /// Takes the inodes out, in descending order of these keys. [`ShmemRecords::inode`] gives the
    /// new places.
    pub(super) fn take_inodes<K: Ord>(&mut self, mut key: impl FnMut(&KnownInode) -> K) -> Vec<KnownInode> {
        let mut inodes = std::mem::take(&mut self.inodes);
        inodes.sort_by_cached_key(|known| Reverse(key(known)));
        for (at, known) in inodes.iter().enumerate() {
            self.numbers.insert(known.object, number(at));
        }
        inodes
    }

    /// Which of the inodes has this id.
    pub(super) fn inode(&self, object: Id) -> Option<usize> {
        self.numbers.get(&object).map(|&at| at as usize)
    }
}

/// The kind and the name of an inode, as in [`KnownInode`].
fn kind_and_name(found: &ShmInodeRecord<'_>) -> (Option<Kind>, Option<Label>) {
    let filesystem = match (found.filesystem, found.kernels) {
        (ShmFilesystem::Tmpfs, true) => Filesystem::Kernel,
        (ShmFilesystem::Tmpfs, false) => Filesystem::Tmpfs,
        (ShmFilesystem::Hugetlbfs, true) => Filesystem::KernelHuge,
        (ShmFilesystem::Hugetlbfs, false) => Filesystem::Hugetlbfs,
        (ShmFilesystem::Secretmem, _) => Filesystem::Secret,
        (ShmFilesystem::GuestMemfd, _) => Filesystem::Guest,
    };
    let name = match (filesystem.only_kind(), found.names.name()) {
        (Some(Kind::Tmpfs | Kind::Hugetlbfs), _) => found.names.path().map(|path| Label::from(&path[..])),
        (Some(_), _) => Some(Label::default()),
        (None, b"") => return (None, None),
        (None, name) => {
            let Named { kind, name } = of_kernel_file(filesystem, name);
            return (Some(kind), Some(name_of(kind, name, None)));
        }
    };
    (filesystem.only_kind(), name)
}

/// The number of an element. There are fewer than 2^32: the kernel has no room for as many files.
pub(super) fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Hashes an [`Id`], which is a hash already.
type ById = BuildHasherDefault<IdHasher>;

/// Takes the number that an [`Id`] is.
#[derive(Debug, Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
