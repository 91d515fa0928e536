//! Which device numbers belong to shmem filesystems.
//!
//! The kernel's own ones are known from the start, mounted ones are added as mount tables are read.

use std::collections::HashMap;

use super::name::Filesystem;
use crate::kernel::magic;
use crate::kernel::root::ProcRoot;
use crate::kernel::tree::Folder;
use crate::model::Dev;

/// The shmem filesystems that are known so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filesystems {
    by_device: HashMap<Dev, Filesystem>,
}

impl Filesystems {
    /// Begins with the kernel's own filesystems.
    pub(crate) fn of(root: &ProcRoot) -> Filesystems {
        Filesystems { by_device: root.tree().own_shmem() }
    }

    /// The filesystem with that device number.
    pub(crate) fn of_device(&self, dev: Dev) -> Option<Filesystem> {
        self.by_device.get(&dev).copied()
    }

    /// Adds a filesystem that is mounted.
    pub(crate) fn mounted(&mut self, dev: Dev, filesystem: Filesystem) {
        self.by_device.entry(dev).or_insert(filesystem);
    }

    /// Checks a file whose link looks like a guest_memfd's, by the magic number of its filesystem.
    pub(crate) fn prove_guest(&mut self, process: &Folder, link: &str, dev: Dev) -> Option<Filesystem> {
        if process.tree().magic(process, link, dev) != Some(magic::GUEST_MEMFD) {
            return None;
        }
        self.by_device.insert(dev, Filesystem::Guest);
        Some(Filesystem::Guest)
    }
}
