//! What is known to be a dma-buf and what is known not to be, gathered while walking.
//!
//! There is one dma-buf filesystem in a boot: one device number, one mount. The first proven reference
//! teaches both; from then on any other candidate is decided without asking the kernel.

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

/// Proofs so far.
#[derive(Debug, Default)]
pub(super) struct DmaBufIdentity {
    dev: Option<Dev>,
    /// The device of rings, where mappings are told by their devices.
    rings: Option<Dev>,
    mnt_id: Option<u64>,
    refuted_devs: HashSet<Dev>,
    refuted_mounts: HashSet<u64>,
    /// Whose mount table was read last.
    mounts_of: Option<Pid>,
    /// Links of `map_files` were refused: without the privilege, asking again is in vain.
    cannot_follow: bool,
    /// Whether an fd may still be duplicated to learn the device.
    may_duplicate: bool,
    inodes: HashMap<Inode, InodeFact>,
    /// Text of the file at hand.
    text: Vec<u8>,
}

/// What asking for an fd's inode came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learnt {
    Inode(Inode),
    /// The fd is closed by now.
    Gone,
    Nothing,
}

/// Whether a candidate is a dma-buf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IsDmaBuf {
    Yes,
    No,
    /// Nothing that may be asked could tell.
    Unknown,
}

impl DmaBufIdentity {
    /// Starts from a device that is known already, or from what a recorded tree states.
    pub(super) fn new(root: &ProcRoot, known: Option<Dev>, queries: Option<Queries>) -> DmaBufIdentity {
        DmaBufIdentity {
            may_duplicate: root.has_own_pids(),
            dev: known.or(root.tree().dmabuf_dev()),
            rings: queries.map(|queries| queries.anonymous),
            ..DmaBufIdentity::default()
        }
    }

    /// Starts from a device alone.
    #[cfg(feature = "bench")]
    pub(super) fn knowing(dev: Dev) -> DmaBufIdentity {
        DmaBufIdentity { dev: Some(dev), ..DmaBufIdentity::default() }
    }

    /// The dma-buf filesystem's device.
    pub(super) fn dev(&self) -> Option<Dev> {
        self.dev
    }

    /// What the inode told, where it was asked.
    pub(super) fn inode(&self, ino: Inode) -> Option<&InodeFact> {
        self.inodes.get(&ino)
    }

    /// Learns from an fd whose fdinfo proved it. The inode itself is asked once per buffer. Where the fdinfo does not give
    /// its number (before Linux 5.14) it is asked for each fd, before and after the fdinfo is read once more, so that both are
    /// of one buffer although the fd may be replaced meanwhile.
    pub(super) fn learn_fd(&mut self, process: &ProcessDir, fact: &mut FdFact) -> Learnt {
        const ATTEMPTS: usize = 4;
        self.mnt_id = Some(fact.info.mnt_id);
        let link = fd_link(fact.fd);
        if let Some(ino) = fact.info.ino {
            if !self.inodes.contains_key(&ino) {
                // Without it the fdinfo tells all but age and creator.
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
                // Replaced.
                (Ok(_), Ok(()), Ok(_)) => {}
            }
        }
        Learnt::Nothing
    }

    /// Learns the device by a duplicate of an fd whose fdinfo proved it, unless its link has told it already. It must be in
    /// the process's own table.
    pub(super) fn duplicate(&mut self, process: &ProcessDir, fact: &FdFact) {
        let (None, true, Some(ino)) = (self.dev, self.may_duplicate, fact.info.ino) else { return };
        match duplicate::device(process, fact.fd, ino) {
            Ok(dev) => self.dev = Some(dev),
            // Gone or replaced: another one will do.
            Err(Errno::BADF | Errno::NOENT | Errno::SRCH) => {}
            Err(_) => self.may_duplicate = false,
        }
    }

    /// Decides on an `O_PATH` fd.
    pub(super) fn judge_path(&mut self, process: &ProcessDir, fact: &FdFact) -> IsDmaBuf {
        let mount = fact.info.mnt_id;
        if self.is_dmabuf_mount(mount) == IsDmaBuf::Unknown
            && self.read_mounts(process)
            && self.is_dmabuf_mount(mount) == IsDmaBuf::Unknown
        {
            match self.ask(process.dir(), fd_link(fact.fd).as_str()) {
                Ok(Answer::DmaBuf(_)) => self.mnt_id = Some(mount),
                // Unless the fd was replaced since its fdinfo was read.
                Ok(Answer::Other(_)) if still_on_mount(process, fact) => {
                    self.refuted_mounts.insert(mount);
                }
                Ok(Answer::Other(_)) | Err(_) => {}
            }
        }
        self.is_dmabuf_mount(mount)
    }

    /// Rules out all that is mounted where the process can see it: the dma-buf filesystem never is. The table is read
    /// once per process, which may have mounted thousands. Returns whether it could be read.
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

    /// Learns what it can from a mapping: of a device not yet decided on, or of a buffer not yet asked.
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

    /// The device and inode number behind a `map_files` link; `None`: it is no dma-buf.
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

    /// Whether a device is the dma-buf filesystem's, by what is known by now.
    pub(super) fn is_dmabuf_device(&self, dev: Dev) -> IsDmaBuf {
        match self.dev {
            Some(proven) if proven == dev => IsDmaBuf::Yes,
            Some(_) => IsDmaBuf::No,
            None if dev.major != 0 || self.refuted_devs.contains(&dev) => IsDmaBuf::No,
            None => IsDmaBuf::Unknown,
        }
    }

    /// Whether a mount is the dma-buf filesystem's, by what is known by now.
    pub(super) fn is_dmabuf_mount(&self, mount: u64) -> IsDmaBuf {
        match self.mnt_id {
            Some(proven) if proven == mount => IsDmaBuf::Yes,
            Some(_) => IsDmaBuf::No,
            None if self.refuted_mounts.contains(&mount) => IsDmaBuf::No,
            None => IsDmaBuf::Unknown,
        }
    }

    /// Asks what stands behind a link and remembers a dma-buf under the number that it gives itself.
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
