//! Shared memory that is no dma-buf: which fds and mappings of a process it is, and of what kind.
//!
//! The kinds are memfds, System V segments, files of a tmpfs or hugetlbfs, and a few more
//! ([`Kind`]). "Shmem" here means all of them.
//!
//! An fd is first selected by the text of its link, because reading a link does not touch the
//! file's filesystem: the link has a name that the kernel gives to its own files, or a path below a
//! mounted tmpfs ([`mounts`]). Then the inode proves what it is: by its device ([`Filesystems`]),
//! and on the kernel's own tmpfs by the name that the kernel gave it ([`classify`]); no program can
//! choose a name freely there. Mappings are selected by their device alone, whatever their path.
//!
//! Limits: a file of a tmpfs is not found by its fd if its holder does not see the tmpfs mounted.
//! That is so if the file came from another container, if another mount hides the tmpfs, or if it
//! was unmounted lazily. Neither is a file with a path longer than a page, or one that is held only
//! by threads with a leader that has exited. BPF iterators find all of these by the filesystem's
//! magic number.

pub(crate) mod files;
mod filesystems;
pub(crate) mod inode;
pub(crate) mod kept_ipc;
mod kept_mounts;
pub(crate) mod members;
pub(crate) mod mounts;
pub(crate) mod name;
pub(crate) mod overlays;
pub(crate) mod places;
pub(crate) mod seals;
pub(crate) mod secret;
pub(crate) mod sysvipc;
pub(crate) mod unmounted;
pub(crate) mod usage;

use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::rc::Rc;

use rustix::io::{Errno, Result};

pub(crate) use filesystems::Filesystems;
use inode::{ShmFile, ShmInode};
use mounts::Mounts;
pub(crate) use name::{Filesystem, Named, classify, of_kernel_file, without_mark};
use sysvipc::{Namespaces, ipc_namespace};

use super::path::Path;
use super::process::ProcessDir;
use super::read::LINK_ROOM;
use super::tree::Folder;
use super::{fdinfo, path};
use crate::model::{BufferId, Dev, Fd, Inode, IpcNamespace, Kind, Kinds, Label, MapRef, Pid, Tid};

/// An fd of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmFd {
    pub(crate) object: ShmemNumber,
    pub(crate) fd: Fd,
    /// Opened with `O_PATH`.
    pub(crate) path_only: bool,
}

/// A mapping of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShmMap {
    pub(crate) object: ShmemNumber,
    pub(crate) vma: MapRef,
}

/// What is known about one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShmemObject {
    /// The name, whole and raw; `None`: it could not be read.
    pub(crate) name: Option<Label>,
    /// `None`: the inode could not be read.
    pub(crate) inode: Option<ShmInode>,
    /// It is not a regular file but a device node.
    irregular: bool,
}

/// A buffer, by its number in [`ShmemObjects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ShmemNumber(u32);

impl ShmemNumber {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Every buffer that a walk has found, numbered in the order in which they were found.
#[derive(Debug, Default)]
pub(crate) struct ShmemObjects {
    numbers: HashMap<BufferId, ShmemNumber>,
    objects: Vec<(BufferId, ShmemObject)>,
}

impl ShmemObjects {
    fn find(&self, id: &BufferId) -> Option<ShmemNumber> {
        self.numbers.get(id).copied()
    }

    fn find_or_add(&mut self, id: BufferId) -> ShmemNumber {
        // There are fewer than 2^32: the kernel has no room for as many inodes.
        let next = ShmemNumber(u32::try_from(self.objects.len()).unwrap_or(u32::MAX));
        let number = *self.numbers.entry(id).or_insert(next);
        if number == next {
            self.objects.push((id, ShmemObject::default()));
        }
        number
    }

    pub(crate) fn id(&self, number: ShmemNumber) -> BufferId {
        self.objects[number.index()].0
    }

    fn get(&self, number: ShmemNumber) -> &ShmemObject {
        &self.objects[number.index()].1
    }

    fn get_mut(&mut self, number: ShmemNumber) -> &mut ShmemObject {
        &mut self.objects[number.index()].1
    }

    /// All of them, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &(BufferId, ShmemObject)> {
        self.objects.iter()
    }
}

/// What decides which mounts a process sees, and under which paths: the links of its mount
/// namespace and its root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MountView {
    namespace: Label,
    root: Label,
}

impl MountView {
    pub(crate) fn of(process: &ProcessDir) -> Result<MountView> {
        let mut room = [MaybeUninit::uninit(); LINK_ROOM];
        let mut link = |name: &CStr| process.dir().link(name, &mut room).map(Label::from);
        Ok(MountView { namespace: link(c"ns/mnt")?, root: link(c"root")? })
    }

    /// The link of the mount namespace.
    fn namespace(&self) -> &Label {
        &self.namespace
    }
}

/// The context of the current process.
#[derive(Clone, Debug, Default)]
struct ProcessContext {
    mounts: Rc<Mounts>,
    ipc: Option<IpcNamespace>,
    pid: Option<Pid>,
}

/// The shared memory that one walk over processes has found so far.
#[derive(Debug)]
pub(crate) struct ShmemFinder {
    kinds: Kinds,
    filesystems: Filesystems,
    mounts: HashMap<MountView, Rc<Mounts>>,
    context: ProcessContext,
    /// The text of the current file.
    text: Vec<u8>,
    /// Every buffer that was found.
    pub(crate) objects: ShmemObjects,
    /// The IPC namespaces that were found, each with some of its processes.
    pub(crate) namespaces: Namespaces,
    /// How many processes had links that could not be followed, so that their fds are unknown.
    pub(crate) unfollowed: u64,
    /// How many fds and mappings refused to be identified.
    pub(crate) refusing: u64,
    /// Following a link of `map_files` was refused for lack of privilege, so no other one is tried.
    cannot_follow: bool,
}

impl ShmemFinder {
    /// Begins a walk that looks for these kinds.
    pub(crate) fn new(kinds: Kinds, filesystems: Filesystems) -> ShmemFinder {
        ShmemFinder {
            kinds,
            filesystems,
            mounts: HashMap::new(),
            context: ProcessContext::default(),
            text: Vec::new(),
            objects: ShmemObjects::default(),
            namespaces: Namespaces::default(),
            unfollowed: 0,
            refusing: 0,
            cannot_follow: false,
        }
    }

    /// Begins a process, with its threads besides the leader. The following calls are about it. If
    /// its threads are in several IPC namespaces, its own is unknown, because nothing says in which
    /// of them it has attached a segment.
    pub(crate) fn enter(&mut self, process: &ProcessDir, threads: &[Tid]) {
        let mut ipc = if self.kinds.has(Kind::Sysv) { ipc_namespace(process.dir(), "") } else { None };
        if let Some(of_leader) = ipc {
            self.namespaces.add(of_leader, process.pid());
            for &tid in threads {
                let folder = Path::new(format_args!("task/{tid}/"));
                if let Some(own) =
                    ipc_namespace(process.dir(), folder.as_str()).filter(|&own| own != of_leader)
                {
                    self.namespaces.add(own, Pid(tid.0));
                    ipc = None;
                }
            }
        }
        self.context = ProcessContext { mounts: self.mounts_of(process), ipc, pid: Some(process.pid()) };
    }

    /// The mounts that a process sees. They are read once for all processes that see the same.
    fn mounts_of(&mut self, process: &ProcessDir) -> Rc<Mounts> {
        let view = MountView::of(process).ok();
        if let Some(known) = view.as_ref().and_then(|view| self.mounts.get(view)) {
            return Rc::clone(known);
        }
        let read = process.dir().read_file(c"mountinfo", &mut self.text);
        if read.is_ok() && self.kinds.has(Kind::Sysv) {
            kept_ipc::note_mounts(&mut self.namespaces, process.pid(), &self.text);
        }
        let mounts = Rc::new(read.map_or_else(|_| Mounts::default(), |()| Mounts::parse(&self.text)));
        for (dev, filesystem) in mounts.devices() {
            self.filesystems.mounted(dev, filesystem);
        }
        if let Some(view) = view {
            self.mounts.insert(view, Rc::clone(&mounts));
        }
        mounts
    }

    /// Notes an fd of an IPC namespace, which may have segments and no process. Returns whether it
    /// is one.
    pub(crate) fn keeps_ipc(&mut self, fd: Fd, link: &[u8]) -> bool {
        let namespace = sysvipc::namespace_of(link);
        if let (Some(namespace), Some(pid)) = (namespace, self.context.pid)
            && self.kinds.has(Kind::Sysv)
        {
            self.namespaces.keep(namespace, kept_ipc::NamespaceKeeper::Fd(pid, fd.0));
        }
        namespace.is_some()
    }

    /// Whether an fd with that link may be shared memory.
    pub(crate) fn suspects(&self, link: &[u8]) -> bool {
        name::looks_like_kernel_file(link) || self.context.mounts.may_have(link)
    }

    /// Identifies the file behind a link that may be shared memory, of an fd or a mapping. `None`:
    /// it is not.
    ///
    /// If the buffer's name is not known yet, the link is read once more. Only if it is unchanged
    /// does its name belong to that inode, because the fd may be replaced meanwhile.
    pub(crate) fn ask(&mut self, process: &Folder, path: &str, link: &[u8]) -> Result<Option<ShmemNumber>> {
        let ShmFile::Regular(inode) = self.file(process, path, link)? else { return Ok(None) };
        let Some(filesystem) = self.filesystems.of_device(inode.dev) else { return Ok(None) };
        let Some(Named { kind, name }) = classify(filesystem, link) else { return Ok(None) };
        if !self.kinds.has(kind) {
            return Ok(None);
        }
        let number = self.objects.find_or_add(self.id(kind, inode.dev, inode.ino));
        let object = self.objects.get_mut(number);
        object.inode = Some(inode);
        if object.name.is_none() {
            let mut again = [MaybeUninit::uninit(); LINK_ROOM];
            let same = process.link(path, &mut again).is_ok_and(|again| *again == *link);
            object.name = same.then(|| Label::from(name));
        }
        Ok(Some(number))
    }

    /// Reads the inode behind a link. Its page size is dropped unless the filesystem has huge
    /// pages, because elsewhere it may be only a preferred size.
    fn file(&mut self, process: &Folder, path: &str, link: &[u8]) -> Result<ShmFile> {
        let mut file = process.tree().shm_file(process, path)?;
        if let ShmFile::Regular(inode) = &mut file {
            let filesystem = match self.filesystems.of_device(inode.dev) {
                None if name::looks_like_guest_memfd(link) => {
                    self.filesystems.prove_guest(process, path, inode.dev)
                }
                filesystem => filesystem,
            };
            if !matches!(filesystem, Some(Filesystem::KernelHuge | Filesystem::Hugetlbfs)) {
                inode.huge_page = None;
            }
        }
        Ok(file)
    }

    fn id(&self, kind: Kind, dev: Dev, ino: Inode) -> BufferId {
        let ipc = self.context.ipc.filter(|_| kind == Kind::Sysv);
        BufferId { kind, dev: Some(dev), ino, ipc }
    }

    /// Identifies an fd that may be shared memory.
    pub(crate) fn fd(&mut self, process: &Folder, fd: Fd, link: &[u8]) -> Result<Option<ShmFd>> {
        let path = path::fd_link(fd);
        let Some(object) = self.ask(process, path.as_str(), link)? else { return Ok(None) };
        let path_only = !process.tree().shows_access(process, path.as_str())? && {
            process.read_record(path::fdinfo_path(fd).as_str(), &mut self.text)?;
            fdinfo::parse(&self.text).is_ok_and(|info| info.path_only)
        };
        Ok(Some(ShmFd { object, fd, path_only }))
    }

    /// Whether a mapping's path has to be read, by its device; `None`: it is not shared memory.
    pub(crate) fn interest(&self, dev: Dev, ino: Inode) -> Option<ShmemInterest> {
        let filesystem = self.filesystems.of_device(dev)?;
        let known = || {
            let kind = filesystem.only_kind()?;
            let number = self.objects.find(&self.id(kind, dev, ino))?;
            self.objects.get(number).name.is_some().then_some(number)
        };
        Some(known().map_or(ShmemInterest::Path, ShmemInterest::Known))
    }

    /// Whether only the protection says if a mapping is shared: a process's private memory of huge
    /// pages is a file of the same kind.
    pub(crate) fn may_be_private(&self, object: ShmemNumber) -> bool {
        let id = self.objects.id(object);
        let filesystem = id.dev.and_then(|dev| self.filesystems.of_device(dev));
        id.kind == Kind::ShmAnon && filesystem == Some(Filesystem::KernelHuge)
    }

    /// Identifies a mapping by its path. The path is ambiguous if it is not `whole`.
    pub(crate) fn mapped(
        &mut self,
        dev: Dev,
        ino: Inode,
        path: &[u8],
        whole: bool,
        vma: MapRef,
    ) -> Option<ShmMap> {
        let Named { kind, name } = classify(self.filesystems.of_device(dev)?, path)?;
        // A private mapping there is a process's own memory of huge pages (`hugetlb_file_setup` in
        // mm/mmap.c).
        let own = kind == Kind::ShmAnon && vma.perms.is_some_and(|perms| !perms.is_shared());
        if own || !self.kinds.has(kind) {
            return None;
        }
        let number = self.objects.find_or_add(self.id(kind, dev, ino));
        let object = self.objects.get_mut(number);
        if object.name.is_none() && whole {
            object.name = Some(name.into());
        }
        Some(ShmMap { object: number, vma })
    }

    /// Reads what is still unknown about a mapped buffer, by its link in the process's `map_files`.
    ///
    /// Returns whether it is shared memory. Mappings are selected by their device, and most files
    /// of a devtmpfs are device nodes.
    pub(crate) fn complete(&mut self, process: &ProcessDir, map: &ShmMap) -> bool {
        self.ask_mapped(process, map);
        let filesystem = self.objects.id(map.object).dev.and_then(|dev| self.filesystems.of_device(dev));
        let object = self.objects.get(map.object);
        !object.irregular && (object.inode.is_some() || filesystem != Some(Filesystem::Devtmpfs))
    }

    fn ask_mapped(&mut self, process: &ProcessDir, map: &ShmMap) {
        let (id, object) = (self.objects.id(map.object), self.objects.get(map.object));
        let nameless = object.name.is_none();
        let unasked = object.inode.is_none() && !object.irregular && !self.cannot_follow;
        if !nameless && !unasked {
            return;
        }
        let link = path::map_files_link(&map.vma);
        let mut name = None;
        let mut room = [MaybeUninit::uninit(); LINK_ROOM];
        if nameless && let Ok(target) = process.dir().link(link.as_str(), &mut room) {
            let named = id.dev.and_then(|dev| classify(self.filesystems.of_device(dev)?, target));
            name = named.filter(|named| named.kind == id.kind).map(|named| Label::from(named.name));
        }
        let asked = unasked.then(|| self.file(process.dir(), link.as_str(), b""));
        // EACCES concerns only this process (`proc_map_files_lookup` in fs/proc/base.c).
        self.cannot_follow |= matches!(asked, Some(Err(Errno::PERM)));
        let object = self.objects.get_mut(map.object);
        object.name = name.or(object.name.take());
        match asked {
            Some(Ok(ShmFile::Regular(inode))) if (Some(inode.dev), inode.ino) == (id.dev, id.ino) => {
                object.inode = Some(inode);
            }
            Some(Ok(ShmFile::Irregular)) => object.irregular = true,
            _ => {}
        }
    }
}

/// What has to be done to identify a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShmemInterest {
    /// Nothing: it is this buffer.
    Known(ShmemNumber),
    /// Its path has to be read.
    Path,
}
