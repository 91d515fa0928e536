//! Which devices are the family's filesystems: the kernel's own, and mounted ones as mount tables are read.

use std::collections::HashMap;

use super::name::Home;
use crate::kernel::magic;
use crate::kernel::root::ProcRoot;
use crate::kernel::tree::Folder;
use crate::model::Dev;

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filesystems {
    homes: HashMap<Dev, Home>,
}

impl Filesystems {
    /// The kernel's own.
    pub(crate) fn of(root: &ProcRoot) -> Filesystems {
        Filesystems { homes: root.tree().own_shmem() }
    }

    /// Which one a device is.
    pub(crate) fn home(&self, dev: Dev) -> Option<Home> {
        self.homes.get(&dev).copied()
    }

    /// A filesystem of the family was found mounted.
    pub(crate) fn mounted(&mut self, dev: Dev, home: Home) {
        self.homes.entry(dev).or_insert(home);
    }

    /// Asks the filesystem behind a link that looks like a guest_memfd's for its magic number.
    pub(crate) fn prove_guest(&mut self, process: &Folder, link: &str, dev: Dev) -> Option<Home> {
        if process.tree().magic(process, link, dev) != Some(magic::GUEST_MEMFD) {
            return None;
        }
        self.homes.insert(dev, Home::Guest);
        Some(Home::Guest)
    }
}
