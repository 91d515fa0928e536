//! Decides whether an fd or a mapping that looks like a dma-buf's is one.
//!
//! A name proves nothing: any file can be called `/dmabuf:x`. But in one boot there is one dma-buf
//! filesystem, with one device number and one mount. The first reference that is proven teaches
//! both, and then every other candidate is decided without a further read.
//!
//! Limits: if no fd can be read, a mapping can only be proven by following its `map_files` link,
//! which needs a privilege.

use std::collections::{HashMap, HashSet};

use rustix::io::Errno;

use crate::kernel::duplicate;
use crate::kernel::fdinfo;
use crate::kernel::fds::{self, FdFact};
use crate::kernel::identity::{self, InodeFact, LinkTarget};
use crate::kernel::map_files;
use crate::kernel::maps::MapFact;
use crate::kernel::path::fd_link;
use crate::kernel::process::ProcessDir;
use crate::kernel::procmap::{Interest, Judge, Queries};
use crate::kernel::root::ProcRoot;
use crate::kernel::tree::Folder;
use crate::model::{Dev, Inode, MapRef, Pid};

/// What is proven so far.
#[derive(Debug, Default)]
pub(super) struct DmaBufIdentity {
    dev: Option<Dev>,
    /// The device of anonymous inodes, which io_urings are on. Known only where mappings are read
    /// by PROCMAP_QUERY.
    rings: Option<Dev>,
    mnt_id: Option<u64>,
    refuted_devs: HashSet<Dev>,
    refuted_mounts: HashSet<u64>,
    /// The process whose mount table was read last.
    mounts_of: Option<Pid>,
    /// Following a `map_files` link was denied. Without the privilege, asking again fails the same
    /// way.
    cannot_follow: bool,
    /// Whether duplicating an fd to learn the device may still be tried.
    may_duplicate: bool,
    inodes: HashMap<Inode, InodeFact>,
    /// Scratch memory for the text of one file.
    text: Vec<u8>,
}

/// The result of reading an fd's inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learnt {
    Inode(Inode),
    /// The fd has been closed.
    Gone,
    Nothing,
}

/// Whether a candidate is a dma-buf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IsDmaBuf {
    Yes,
    No,
    /// Nothing that could be read tells.
    Unknown,
}

impl DmaBufIdentity {
    /// Begins with the device, if it is known already or a recorded tree states it.
    pub(super) fn new(root: &ProcRoot, known: Option<Dev>, queries: Option<Queries>) -> DmaBufIdentity {
        DmaBufIdentity {
            may_duplicate: root.has_own_pids(),
            dev: known.or(root.tree().dmabuf_dev()),
            rings: queries.map(|queries| queries.anonymous),
            ..DmaBufIdentity::default()
        }
    }

    /// Begins with the device alone.
    #[cfg(feature = "bench")]
    pub(super) fn knowing(dev: Dev) -> DmaBufIdentity {
        DmaBufIdentity { dev: Some(dev), ..DmaBufIdentity::default() }
    }

    /// The device number of the dma-buf filesystem.
    pub(super) fn dev(&self) -> Option<Dev> {
        self.dev
    }

    /// What was read from the inode, if it was read.
    pub(super) fn inode(&self, ino: Inode) -> Option<&InodeFact> {
        self.inodes.get(&ino)
    }

    /// Learns from an fd that its fdinfo proves to be a dma-buf's. The inode is read once for each
    /// buffer. Before Linux 5.14 fdinfo does not show the inode number. Then the inode is read for
    /// each fd, before and after the fdinfo is read again: if both are the same, the fdinfo belongs
    /// to it, although the fd could be replaced in between.
    pub(super) fn learn_fd(&mut self, process: &ProcessDir, fact: &mut FdFact) -> Learnt {
        const ATTEMPTS: usize = 4;
        self.mnt_id = Some(fact.info.mnt_id);
        let link = fd_link(fact.fd);
        if let Some(ino) = fact.info.ino {
            if !self.inodes.contains_key(&ino) {
                // If this fails, only the buffer's age and creator stay unknown.
                let _ = self.ask(process.dir(), link.as_str());
            }
            return Learnt::Inode(ino);
        }
        for _ in 0..ATTEMPTS {
            let (before, info, after) = (
                self.ask(process.dir(), link.as_str()),
                process.dir().read_record(fds::fdinfo_path(fact.fd).as_str(), &mut self.text),
                self.ask(process.dir(), link.as_str()),
            );
            match (before, info, after) {
                (Ok(Answer::DmaBuf(before)), Ok(()), Ok(Answer::DmaBuf(after))) if before == after => {
                    let Ok(info) = fdinfo::parse(&self.text) else { return Learnt::Nothing };
                    fact.info = info;
                    return Learnt::Inode(before);
                }
                (Err(Errno::NOENT), ..) | (_, Err(Errno::NOENT), _) | (.., Err(Errno::NOENT)) => {
                    return Learnt::Gone;
                }
                (Err(_), ..) | (_, Err(_), _) | (.., Err(_)) => return Learnt::Nothing,
                // The fd was replaced in between.
                (Ok(_), Ok(()), Ok(_)) => {}
            }
        }
        Learnt::Nothing
    }

    /// Learns the device from a duplicate of an fd that its fdinfo proves, if the device is still
    /// unknown. The fd must be in the process's own table.
    pub(super) fn duplicate(&mut self, process: &ProcessDir, fact: &FdFact) {
        let (None, true, Some(ino)) = (self.dev, self.may_duplicate, fact.info.ino) else { return };
        match duplicate::device(process, fact.fd, ino) {
            Ok(dev) => self.dev = Some(dev),
            // Closed or replaced: the next fd will do.
            Err(Errno::BADF | Errno::NOENT | Errno::SRCH) => {}
            Err(_) => self.may_duplicate = false,
        }
    }

    /// Decides whether an `O_PATH` fd is a dma-buf's.
    pub(super) fn judge_path(&mut self, process: &ProcessDir, fact: &FdFact) -> IsDmaBuf {
        let mount = fact.info.mnt_id;
        if self.is_dmabuf_mount(mount) == IsDmaBuf::Unknown
            && self.read_mounts(process)
            && self.is_dmabuf_mount(mount) == IsDmaBuf::Unknown
        {
            match self.ask(process.dir(), fd_link(fact.fd).as_str()) {
                Ok(Answer::DmaBuf(_)) => self.mnt_id = Some(mount),
                // Only if the fd was not replaced since its fdinfo was read.
                Ok(Answer::Other(_)) if still_on_mount(process, fact) => {
                    self.refuted_mounts.insert(mount);
                }
                Ok(Answer::Other(_)) | Err(_) => {}
            }
        }
        self.is_dmabuf_mount(mount)
    }

    /// Rules out every filesystem that is mounted in the process's namespace: the dma-buf
    /// filesystem never is. A mount table is read once for consecutive fds and mappings of a
    /// process, since it may have thousands of lines. Returns whether it could be read.
    fn read_mounts(&mut self, process: &ProcessDir) -> bool {
        if self.mounts_of != Some(process.pid()) {
            if process.dir().read_file(c"mountinfo", &mut self.text).is_err() {
                return false;
            }
            for (id, dev) in identity::mounts(&self.text) {
                self.refuted_mounts.insert(id);
                self.refuted_devs.insert(dev);
            }
            self.mounts_of = Some(process.pid());
        }
        true
    }

    /// Learns from a mapping, if its device is not decided yet or its buffer's inode was not read
    /// yet.
    pub(super) fn learn_map(&mut self, process: &ProcessDir, fact: &MapFact) {
        if self.is_dmabuf_device(fact.dev) == IsDmaBuf::Unknown && !self.read_mounts(process) {
            return;
        }
        match self.is_dmabuf_device(fact.dev) {
            IsDmaBuf::No => return,
            IsDmaBuf::Yes if self.inodes.contains_key(&fact.ino) => return,
            IsDmaBuf::Yes | IsDmaBuf::Unknown => {}
        }
        if self.cannot_follow {
            return;
        }
        match self.ask(process.dir(), map_files::link(&fact.vma).as_str()) {
            Ok(Answer::DmaBuf(_)) => {}
            Ok(Answer::Other(dev)) => _ = self.refuted_devs.insert(dev),
            Err(Errno::PERM | Errno::ACCESS) => self.cannot_follow = true,
            Err(_) => {}
        }
    }

    /// The device and inode number behind a `map_files` link; `None`: not a dma-buf.
    pub(super) fn follow(
        &mut self,
        process: &Folder,
        vma: &MapRef,
    ) -> rustix::io::Result<Option<(Dev, Inode)>> {
        match self.ask(process, map_files::link(vma).as_str())? {
            Answer::DmaBuf(ino) => Ok(self.dev.map(|dev| (dev, ino))),
            Answer::Other(_) => Ok(None),
        }
    }

    /// Whether a device is that of the dma-buf filesystem, by what is known so far.
    pub(super) fn is_dmabuf_device(&self, dev: Dev) -> IsDmaBuf {
        match self.dev {
            Some(proven) if proven == dev => IsDmaBuf::Yes,
            Some(_) => IsDmaBuf::No,
            None if dev.major != 0 || self.refuted_devs.contains(&dev) => IsDmaBuf::No,
            None => IsDmaBuf::Unknown,
        }
    }

    /// Whether a mount is that of the dma-buf filesystem, by what is known so far.
    pub(super) fn is_dmabuf_mount(&self, mount: u64) -> IsDmaBuf {
        match self.mnt_id {
            Some(proven) if proven == mount => IsDmaBuf::Yes,
            Some(_) => IsDmaBuf::No,
            None if self.refuted_mounts.contains(&mount) => IsDmaBuf::No,
            None => IsDmaBuf::Unknown,
        }
    }

    /// Reads what a link leads to. If it is a dma-buf, remembers the device and the inode.
    fn ask(&mut self, process: &Folder, link: &str) -> rustix::io::Result<Answer> {
        Ok(match process.tree().object(process, link, self.dev)? {
            LinkTarget::DmaBuf(inode) => {
                let ino = inode.ino;
                self.dev = Some(inode.dev);
                self.inodes.insert(ino, inode);
                Answer::DmaBuf(ino)
            }
            LinkTarget::Other(dev) => Answer::Other(dev),
        })
    }
}

impl Judge for DmaBufIdentity {
    fn interest(&self, dev: Dev) -> Interest {
        match self.is_dmabuf_device(dev) {
            _ if self.rings == Some(dev) => Interest::Ask,
            IsDmaBuf::Yes => Interest::Take,
            IsDmaBuf::No => Interest::Pass,
            IsDmaBuf::Unknown => Interest::Ask,
        }
    }

    fn rule_out(&mut self, dev: Dev) {
        self.refuted_devs.insert(dev);
    }
}

fn still_on_mount(process: &ProcessDir, fact: &FdFact) -> bool {
    let mut text = Vec::new();
    process.dir().read_record(fds::fdinfo_path(fact.fd).as_str(), &mut text).is_ok()
        && fdinfo::parse(&text).is_ok_and(|now| now.mnt_id == fact.info.mnt_id)
}

enum Answer {
    DmaBuf(Inode),
    Other(Dev),
}
