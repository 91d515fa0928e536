//! IPC and mount namespaces that no process is in, and how to open them.
//!
//! A namespace without a process lives on if something keeps its file (fs/nsfs.c): a bind mount,
//! as container engines make them below `/run/ipcns`, or an fd. A mount table shows the first as a
//! mount of type `nsfs` whose root is `ipc:[NUMBER]`, an fd's link the second. The segments of such
//! a namespace stay until somebody enters it and removes them.
//!
//! **What is opened.** A path may lead to another file by the time it is opened, and opening that
//! other file may wait. So it is pinned by `O_PATH`: an fd's link, which needs no filesystem,
//! or a mount point, which is looked up in the kernel's cache of names as in
//! [`usage`](super::usage). Then device and inode number prove that it is the file of that
//! namespace (all such files are on one device), without asking a server (`AT_STATX_DONT_SYNC`).
//! Only then is it opened.
//!
//! Limits: a namespace that is kept by a mount in a mount namespace without a process is not found,
//! nor one whose fd is in a message.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::{Errno, Result};

use super::MountView;
use super::mounts::{Mounts, nsfs};
use super::sysvipc::{Namespaces, namespace_of};
use super::usage::look_up;
use crate::kernel::fds::SlotReader;
use crate::kernel::identity::device;
use crate::kernel::path::Path;
use crate::kernel::process::ProcessDir;
use crate::kernel::read::LINK_ROOM;
use crate::kernel::root::ProcRoot;
use crate::model::{Dev, Inode, Label, Pid};

/// What keeps a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NamespaceKeeper {
    /// An fd of a process, by its number.
    Fd(Pid, u32),
    /// A mount, at this path as a process sees it.
    Mount(Pid, Box<[u8]>),
}

impl NamespaceKeeper {
    /// Opens the file of the namespace, and gives the path by which root can use it. `STALE`: it
    /// keeps this namespace no more.
    pub(crate) fn open(&self, root: &ProcRoot, wanted: Inode) -> Result<(OwnedFd, Label)> {
        let proc = root.path().display();
        match self {
            NamespaceKeeper::Fd(pid, fd) => {
                let path = Path::new(format_args!("{pid}/fd/{fd}"));
                let pinned = root.dir().pin(path.as_str())?;
                Ok((reopened(root, &pinned, wanted)?, Label::from(format!("{proc}/{pid}/fd/{fd}").as_str())))
            }
            NamespaceKeeper::Mount(pid, point) => {
                let below = |folder: &str| {
                    let pinned = look_up(root.dir().pin(folder)?.as_fd(), &Mounts::default(), point)?;
                    reopened(root, &pinned, wanted)
                };
                // lsbuf may see the same mount, and may be denied to look through that process.
                if let Ok(file) = below("self/root") {
                    return Ok((file, Label::from(&point[..])));
                }
                let folder = format!("{pid}/root");
                let path = [format!("{proc}/{folder}").as_bytes(), point].concat();
                Ok((below(&folder)?, Label::from(&path[..])))
            }
        }
    }
}

/// Opens a pinned file, if it is that of this namespace.
fn reopened(root: &ProcRoot, pinned: &OwnedFd, wanted: Inode) -> Result<OwnedFd> {
    let own = root.dir().pin(c"self/ns/ipc")?;
    if identity(pinned)? != (identity(&own)?.0, wanted) {
        return Err(Errno::STALE);
    }
    let path = Path::new(format_args!("self/fd/{}", pinned.as_raw_fd()));
    root.dir().file(path.as_str())
}

/// Device and inode number.
fn identity(file: &OwnedFd) -> Result<(Dev, Inode)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let inode = statx(file, c"", flags, StatxFlags::TYPE | StatxFlags::INO)?;
    Ok((device(&inode), Inode(inode.stx_ino)))
}

/// Notes the namespaces that mounts keep, by the text of a mountinfo.
pub(crate) fn note_mounts(namespaces: &mut Namespaces, pid: Pid, mountinfo: &[u8]) {
    for (root, point) in nsfs(mountinfo) {
        if let Some(namespace) = namespace_of(&root) {
            namespaces.keep(namespace, NamespaceKeeper::Mount(pid, point.into()));
        }
    }
}

/// Looks through all mount tables and fd links for IPC namespaces.
pub(crate) fn search(namespaces: &mut Namespaces, root: &ProcRoot) {
    each_keeper(root, |link, keeper| {
        if let Some(namespace) = namespace_of(link) {
            namespaces.keep(namespace, keeper);
        }
    });
}

/// Looks through all mount tables and fd links. Calls `found` with each mount of a namespace's file
/// and each fd of one: with the link, such as `mnt:[4026532177]`, and what keeps it. Links of other
/// fds are among them.
pub(super) fn each_keeper(root: &ProcRoot, mut found: impl FnMut(&[u8], NamespaceKeeper)) {
    let mut views = HashSet::new();
    let mut slots = SlotReader::default();
    let mut text = Vec::new();
    let own = root.tree().reader(root.dir());
    let listed = root.processes().unwrap_or_default();
    // A path that lsbuf itself sees is the shortest.
    for pid in own.into_iter().chain(listed.into_iter().map(|(pid, _)| pid).filter(|&pid| Some(pid) != own)) {
        let Ok(process) = ProcessDir::open(root, pid) else { continue };
        if MountView::of(&process).is_ok_and(|view| views.insert(view))
            && process.dir().read_file(c"mountinfo", &mut text).is_ok()
        {
            for (link, point) in nsfs(&text) {
                found(&link, NamespaceKeeper::Mount(pid, point.into()));
            }
        }
        let Ok(table) = process.dir().folder(c"fd") else { continue };
        let mut room = [MaybeUninit::uninit(); LINK_ROOM];
        // A table that cannot be listed has been reported by the scan.
        let _ = slots.each(&table, |entry| {
            let number = entry.to_str().ok().and_then(|number| number.parse().ok());
            if let (Ok(link), Some(fd)) = (table.link(entry, &mut room), number) {
                found(link, NamespaceKeeper::Fd(pid, fd));
            }
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use super::*;
    use crate::kernel::shmem::sysvipc::ipc_namespace;
    use crate::model::IpcNamespace;

    /// Check that an fd of an IPC namespace is found and opened, and that an fd of another file is
    /// not taken for it.
    #[test]
    fn an_fd() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let kept = File::open("/proc/self/ns/ipc").unwrap();
        let (pid, fd) = (Pid(std::process::id()), kept.as_raw_fd().unsigned_abs());
        let process = ProcessDir::open(&root, pid).unwrap();
        let own = ipc_namespace(process.dir(), "").unwrap();
        let mut namespaces = Namespaces::default();
        search(&mut namespaces, &root);
        let keeper = NamespaceKeeper::Fd(pid, fd);
        assert!(namespaces.kept(own).contains(&keeper));
        let path = keeper.open(&root, own.0).unwrap().1;
        assert_eq!(path, Label::from(format!("/proc/{pid}/fd/{fd}").as_str()));
        let other = File::open("/dev/null").unwrap();
        let other = NamespaceKeeper::Fd(pid, other.as_raw_fd().unsigned_abs());
        assert_eq!(other.open(&root, own.0).map(drop), Err(Errno::STALE));
    }

    /// Check that only a mount of an IPC namespace is noted, and that no path can forge one.
    #[test]
    fn mounts() {
        let text = b"30 1 0:4 ipc:[4026532177] /run/ipcns/a\\040b rw - nsfs nsfs rw\n\
            31 1 0:4 net:[4026532178] /run/netns/x rw - nsfs nsfs rw\n\
            32 1 0:40 ipc:[4026532179] /mnt rw - tmpfs nsfs rw\n";
        let mut namespaces = Namespaces::default();
        note_mounts(&mut namespaces, Pid(7), text);
        let kept = |ino| namespaces.kept(IpcNamespace(Inode(ino))).to_vec();
        assert_eq!(
            kept(4_026_532_177),
            [NamespaceKeeper::Mount(Pid(7), b"/run/ipcns/a b".as_slice().into())]
        );
        assert_eq!((kept(4_026_532_178), kept(4_026_532_179)), (vec![], vec![]));
    }
}
