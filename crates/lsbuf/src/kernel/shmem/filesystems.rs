//! Which devices are the shmem filesystems: the kernel's own, and mounted ones as mount tables are read.

use std::collections::HashMap;

use super::name::Filesystem;
use crate::kernel::magic;
use crate::kernel::root::ProcRoot;
use crate::kernel::tree::Folder;
use crate::model::Dev;

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filesystems {
    by_device: HashMap<Dev, Filesystem>,
}

impl Filesystems {
    /// The kernel's own.
    pub(crate) fn of(root: &ProcRoot) -> Filesystems {
        Filesystems { by_device: root.tree().own_shmem() }
    }

    /// Which one a device is.
    pub(crate) fn of_device(&self, dev: Dev) -> Option<Filesystem> {
        self.by_device.get(&dev).copied()
    }

    /// A filesystem of the family was found mounted.
    pub(crate) fn mounted(&mut self, dev: Dev, filesystem: Filesystem) {
        self.by_device.entry(dev).or_insert(filesystem);
    }

    /// Asks the filesystem behind a link that looks like a guest_memfd's for its magic number.
    pub(crate) fn prove_guest(&mut self, process: &Folder, link: &str, dev: Dev) -> Option<Filesystem> {
        if process.tree().magic(process, link, dev) != Some(magic::GUEST_MEMFD) {
            return None;
        }
        self.by_device.insert(dev, Filesystem::Guest);
        Some(Filesystem::Guest)
    }
}
