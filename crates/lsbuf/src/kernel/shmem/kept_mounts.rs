//! Mount namespaces that no process is in: enters each and reads what it shows.
//!
//! What keeps such a namespace is found as that of an IPC namespace is
//! ([`kept_ipc`](super::kept_ipc)). To look inside, lsbuf starts a thread. It leaves the folders
//! that the threads of a process share (`unshare(CLONE_FS)`), without which `setns` refuses, enters
//! the namespace, reads the mount table and opens the root. Then it ends. That needs CAP_SYS_ADMIN
//! and CAP_SYS_CHROOT.
//!
//! Limits: a namespace that is kept only by a mount within another such namespace is not found, nor
//! one whose fd is in a message.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, Result};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::kept_ipc::{NamespaceKeeper, each_keeper};
use crate::kernel::parse;
use crate::kernel::root::ProcRoot;
use crate::model::{Inode, Label};

/// What a mount namespace without a process shows.
#[derive(Debug)]
pub(super) struct KeptMounts {
    /// The path of what keeps it, by which root can enter it.
    pub(super) path: Label,
    pub(super) mountinfo: Vec<u8>,
    /// Its root folder.
    pub(super) root: OwnedFd,
}

/// What all such namespaces show, and how many could not be entered. `known` are the links of the
/// namespaces that processes are in.
pub(super) fn read(root: &ProcRoot, known: &HashSet<Label>) -> (Vec<KeptMounts>, u64) {
    let mut kept: BTreeMap<Inode, Vec<NamespaceKeeper>> = BTreeMap::new();
    each_keeper(root, |link, keeper| {
        if let Some(namespace) = mount_namespace(link)
            && !known.contains(&Label::from(link))
        {
            kept.entry(namespace).or_default().push(keeper);
        }
    });
    let (mut entered, mut refused) = (Vec::new(), 0);
    for (namespace, keepers) in kept {
        let mut tried = keepers.iter().map(|keeper| enter(root, keeper, namespace));
        match tried.find(|tried| !matches!(tried, Err(Errno::NOENT | Errno::SRCH | Errno::STALE))) {
            Some(Ok(mounts)) => entered.push(mounts),
            Some(Err(_)) => refused += 1,
            // Nothing keeps it any more.
            None => {}
        }
    }
    (entered, refused)
}

/// The mount namespace that a link or the root of a mount names: `mnt:[NUMBER]`.
fn mount_namespace(link: &[u8]) -> Option<Inode> {
    let number = link.strip_prefix(b"mnt:[")?.strip_suffix(b"]")?;
    parse::number(number, 10).ok().map(Inode)
}

fn enter(root: &ProcRoot, keeper: &NamespaceKeeper, namespace: Inode) -> Result<KeptMounts> {
    let (file, path) = keeper.open(root, namespace)?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            // SAFETY: the function is unsafe because of fd tables, which stay as they are.
            unsafe { unshare_unsafe(UnshareFlags::FS) }?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Mount))?;
            let mut mountinfo = Vec::new();
            root.dir().read_file(c"thread-self/mountinfo", &mut mountinfo)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = openat(CWD, c"/", flags, Mode::empty())?;
            Ok(KeptMounts { path, mountinfo, root: folder })
        });
        reading.join().unwrap_or(Err(Errno::CANCELED))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that only the link of a mount namespace names one.
    #[test]
    fn links() {
        assert_eq!(mount_namespace(b"mnt:[4026531840]"), Some(Inode(4_026_531_840)));
        assert_eq!((mount_namespace(b"ipc:[1]"), mount_namespace(b"mnt:[x]")), (None, None));
    }
}
