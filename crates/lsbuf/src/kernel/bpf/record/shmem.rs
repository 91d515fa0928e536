//! The records of shared memory other than dma-bufs.

use super::super::layout::{self, Field};
use super::{ExecId, FdRecord, Id, InFlight, Vma, dev, id, ipc, some_id, text};
use crate::kernel::identity::since_epoch;
use crate::kernel::magic;
use crate::kernel::parse::Malformed;
use crate::kernel::shmem::inode::{self, BLOCK, ShmInode};
use crate::model::{Bytes, Dev, Fd, Inode, IpcNamespace, Pid, Seals, Tid};

/// The type of the filesystem that a file of shared memory is on, by its magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShmFilesystem {
    Tmpfs,
    Hugetlbfs,
    Secretmem,
    /// guest_memfd. From Linux 7 on it has a filesystem of its own. Before, its files are anonymous
    /// inodes; the iterators report no other anonymous inodes here.
    GuestMemfd,
}

impl ShmFilesystem {
    fn of(number: u64) -> Result<ShmFilesystem, Malformed> {
        Ok(match i64::try_from(number).map_err(|_| Malformed)? {
            magic::TMPFS => ShmFilesystem::Tmpfs,
            magic::HUGETLBFS => ShmFilesystem::Hugetlbfs,
            magic::SECRETMEM => ShmFilesystem::Secretmem,
            magic::GUEST_MEMFD | magic::ANON_INODES => ShmFilesystem::GuestMemfd,
            _ => return Err(Malformed),
        })
    }
}

/// An open file of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ShmOpen {
    /// The inode.
    pub(crate) object: Id,
    pub(crate) file: Id,
}

/// A VMA of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmVma {
    pub(crate) vma: Vma<ShmOpen>,
    /// The reference count of its file at that moment.
    pub(crate) count: u64,
    /// The IPC namespace of an attached System V segment.
    pub(crate) ipc: Option<IpcNamespace>,
}

/// A file of shared memory in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmInFlight {
    pub(crate) message: InFlight<ShmOpen>,
    /// The reference count of the file at that moment.
    pub(crate) count: u64,
    /// Opened with `O_PATH`: it only names the inode.
    pub(crate) path_only: bool,
}

/// A process whose program is a file of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmExe {
    pub(crate) mm: Id,
    pub(crate) of: ShmOpen,
    /// The reference count of the file at that moment.
    pub(crate) count: u64,
}

/// The description of an inode of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmInodeRecord<'r> {
    pub(crate) object: Id,
    pub(crate) filesystem: ShmFilesystem,
    pub(crate) inode: ShmInode,
    /// The number of its pages in swap.
    pub(crate) swapped: Option<u64>,
    pub(crate) seals: Option<Seals>,
    /// How many files (`struct file`) are open on it, `O_PATH` files included. dup and mmap add
    /// none. Any other reference to one of its dentries (a bind mount of the file, a path that is
    /// being looked up) counts as one. `None`: not known.
    pub(crate) opens: Option<u64>,
    /// References to the inode that are none of its dentries': of a fanotify or inotify mark, or a
    /// Landlock rule.
    pub(crate) pins: u32,
    /// No file is open on it, and it is not mapped.
    pub(crate) unheld: bool,
    /// The kernel made the file for itself and chose its name.
    pub(crate) kernels: bool,
    pub(crate) names: ShmNames<'r>,
}

/// The name of an inode and those of the folders above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmNames<'r> {
    /// Each with a NUL. The last name of the path is the first here.
    names: &'r [u8],
    /// Whether the path begins at the root of the filesystem.
    whole: bool,
    same_folder: bool,
}

impl<'r> ShmNames<'r> {
    /// The last name of the path.
    pub(crate) fn name(self) -> &'r [u8] {
        text(self.names).unwrap_or_default()
    }

    /// Whether this is its own name alone, and the folder is that of the file that nobody holds
    /// and whose record came before.
    pub(crate) fn same_folder(self) -> bool {
        self.same_folder
    }

    /// The path below the root of its filesystem, with a slash before each name; `None`: it is too
    /// long to be told.
    pub(crate) fn path(self) -> Option<Vec<u8>> {
        let names = self.names.strip_suffix(b"\0").filter(|names| self.whole && !names.is_empty())?;
        let names = names.rsplit(|&byte| byte == 0);
        Some(names.flat_map(|name| [b"/", name]).flatten().copied().collect())
    }
}

/// A filesystem of shared memory in the kernel's lists. Its record follows those of its inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmFilesystemRecord {
    pub(crate) filesystem: Id,
    pub(crate) of: ShmFilesystem,
    pub(crate) dev: Dev,
    /// Whether the kernel has mounted it for itself.
    pub(crate) kernels: bool,
    pub(crate) unheld: UnheldRecord,
    /// Pages of folders and symbolic links.
    pub(crate) other_pages: u64,
    /// Where it is mounted. `None`: in several mount namespaces, or by the kernel; or something
    /// keeps it besides its mounts and the files that are open on it.
    pub(crate) mounted: Option<MountedIn>,
}

/// The only mount namespace that shows a filesystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MountedIn {
    /// This one, by its inode number.
    Namespace(u32),
    /// None: it was unmounted, and goes with the last file that is open on it (`umount -l`).
    Nowhere,
}

/// The regular files of a filesystem that nobody holds: how many, and their pages in memory and in
/// swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnheldRecord {
    pub(crate) files: u64,
    pub(crate) pages: u64,
    pub(crate) swapped: u64,
}

/// How complete a reading of the kernel's lists of inodes was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmWalk {
    /// Inodes may be missing.
    pub(crate) inodes_cut: bool,
    /// Mappings may be missing.
    pub(crate) mappings_cut: bool,
    /// An inode may have been listed twice.
    pub(crate) repeated: bool,
}

/// A cgroup that pays for shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmCgroup<'r> {
    /// Its inode number.
    pub(crate) cgroup: u64,
    /// Whether it is in the unified hierarchy.
    pub(crate) unified: bool,
    pub(crate) removed: bool,
    /// The names of its path, each with a NUL, the last name first. The root has an empty name.
    names: &'r [u8],
}

impl<'r> ShmCgroup<'r> {
    pub(super) fn of(found: &layout::ShmCgroup, names: &'r [u8]) -> ShmCgroup<'r> {
        ShmCgroup { cgroup: found.cgroup, unified: found.hierarchy == 0, removed: found.removed != 0, names }
    }

    /// Its path in its hierarchy.
    pub(crate) fn path(&self) -> Vec<u8> {
        let names = self.names.rsplit(|&byte| byte == 0).filter(|name| !name.is_empty());
        let path: Vec<u8> = names.flat_map(|name| [b"/", name]).flatten().copied().collect();
        if path.is_empty() { b"/".to_vec() } else { path }
    }
}

/// Who pays for the pages of one inode. All numbers are of pages, or for huge pages before Linux
/// 6.7 (commit a08c7193e4f1) of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PagesOfOne<'r> {
    pub(crate) object: Id,
    /// Charged to other cgroups than [`PagesOfOne::payers`].
    pub(crate) others: u64,
    pub(crate) in_swap: u64,
    /// Charged to no cgroup.
    pub(crate) nobodys: u64,
    /// Left the file while it was read.
    pub(crate) lost: u64,
    payers: &'r [u8],
}

impl<'r> PagesOfOne<'r> {
    pub(super) fn of(found: &layout::ShmPages, payers: &'r [u8]) -> Result<PagesOfOne<'r>, Malformed> {
        if payers.len() as u64 != found.payers.saturating_mul(size_of::<layout::Payer>() as u64) {
            return Err(Malformed);
        }
        Ok(PagesOfOne {
            object: some_id(found.object)?,
            others: found.others,
            in_swap: found.in_swap,
            nobodys: found.nobodys,
            lost: found.lost,
            payers,
        })
    }

    /// Each cgroup that pays, and for how many pages.
    pub(crate) fn payers(&self) -> impl Iterator<Item = (u64, u64)> {
        let payers = self.payers.chunks_exact(size_of::<layout::Payer>()).filter_map(layout::Payer::read);
        payers.map(|payer| (payer.cgroup, payer.pages))
    }
}

impl FdRecord<ShmOpen> {
    pub(super) fn of_shmem(found: &layout::ShmFd) -> Result<FdRecord<ShmOpen>, Malformed> {
        Ok(FdRecord {
            of: open(found.object, found.file)?,
            count: found.count,
            files: id(found.files),
            program: ExecId(found.program),
            pid: Pid(found.tgid),
            tid: Tid(found.tid),
            fd: Fd(found.fd),
            path_only: found.path_only != 0,
        })
    }
}

impl ShmVma {
    /// `None`: the VMA was freed while it was read.
    pub(super) fn of(found: &layout::ShmVma) -> Result<Option<ShmVma>, Malformed> {
        let vma = Vma::of(open(found.object, found.file)?, &found.range)?;
        Ok(vma.map(|vma| ShmVma { vma, count: found.count, ipc: ipc(found.ipc) }))
    }
}

impl ShmExe {
    pub(super) fn of(found: &layout::ShmExe) -> Result<ShmExe, Malformed> {
        let of = open(found.object, found.file)?;
        Ok(ShmExe { mm: some_id(found.mm)?, of, count: found.count })
    }
}

impl ShmWalk {
    pub(super) fn of(found: &layout::ShmWalk) -> ShmWalk {
        ShmWalk {
            inodes_cut: found.inodes_cut != 0,
            mappings_cut: found.mappings_cut != 0,
            repeated: found.repeated != 0,
        }
    }
}

impl ShmInFlight {
    pub(super) fn of(found: &layout::ShmInFlight) -> Result<ShmInFlight, Malformed> {
        let (of, seen_by) = (open(found.object, found.file)?, (Tid(found.tid), Fd(found.fd)));
        let message = InFlight { of, socket: found.socket, seen_by };
        Ok(ShmInFlight { message, count: found.count, path_only: found.path_only != 0 })
    }
}

impl ShmFilesystemRecord {
    pub(super) fn of(found: &layout::ShmFilesystem) -> Result<ShmFilesystemRecord, Malformed> {
        let layout::Unlisted { files, pages, swapped, other_pages, uses } = found.unlisted;
        let mounts = found.mounts;
        // Nobody has a folder of it open or works in one, and nothing but its mounts keeps it.
        let only_mounts = mounts > 0 && uses == u64::from(mounts) && found.active == mounts;
        let mounted = match found.namespace {
            0 => MountedIn::Nowhere,
            namespace => MountedIn::Namespace(namespace),
        };
        Ok(ShmFilesystemRecord {
            filesystem: some_id(found.filesystem)?,
            of: ShmFilesystem::of(found.magic)?,
            dev: dev(found.dev),
            kernels: found.kernels != 0,
            unheld: UnheldRecord { files, pages, swapped },
            other_pages,
            mounted: Some(mounted).filter(|_| only_mounts && found.elsewhere == 0),
        })
    }
}

impl<'r> ShmInodeRecord<'r> {
    /// The names follow the numbers.
    pub(super) fn of(found: &layout::ShmInode, names: &'r [u8]) -> Result<ShmInodeRecord<'r>, Malformed> {
        const SEALS: u32 = 1;
        const PAGES: u32 = 2;
        const CREATED: u32 = 4;
        const OPENS: u32 = 8;
        const KERNELS: u32 = 16;
        const PATH: u32 = 32;
        const UNHELD: u32 = 64;
        const SAME_FOLDER: u32 = 128;
        let is = |bit| found.flags & bit != 0;
        let counted = Bytes(found.blocks.saturating_mul(BLOCK));
        let page = rustix::param::page_size() as u64;
        // Corrected as stat(2) does it (`shmem_recalc_inode` in mm/shmem.c): pages that the kernel
        // has dropped meanwhile do not count.
        let there = Bytes(found.pages.saturating_add(found.swapped).saturating_mul(page));
        let filesystem = ShmFilesystem::of(found.magic)?;
        let huge_page = 1u64.checked_shl(found.block_bits).and_then(inode::huge);
        let inode = ShmInode {
            dev: dev(found.dev),
            ino: Inode(found.ino),
            size: Bytes(found.size),
            charged: if is(PAGES) { counted.min(there) } else { counted },
            links: found.links,
            huge_page: huge_page.filter(|_| filesystem == ShmFilesystem::Hugetlbfs),
            owner: found.uid,
            created_at: if is(CREATED) { since_epoch(found.created, found.created_ns) } else { None },
        };
        Ok(ShmInodeRecord {
            object: some_id(found.object)?,
            filesystem,
            inode,
            swapped: is(PAGES).then_some(found.swapped),
            seals: is(SEALS).then_some(Seals(found.seals)),
            opens: is(OPENS).then_some(found.opens),
            pins: found.pins,
            unheld: is(UNHELD),
            kernels: is(KERNELS),
            names: ShmNames { names, whole: is(PATH), same_folder: is(SAME_FOLDER) },
        })
    }
}

fn open(object: u64, file: u64) -> Result<ShmOpen, Malformed> {
    Ok(ShmOpen { object: some_id(object)?, file: some_id(file)? })
}
