//! Lists the files that no process holds by walking each tmpfs and hugetlbfs.
//!
//! That no process was seen to hold a file proves nothing: a process that could not be read may,
//! and so may a loop device, an overlay or a message. So nothing here is proven.
//!
//! Limits: a filesystem is reached through a mount of its root that no other mount hides. The
//! others are counted.

use std::collections::{HashMap, HashSet};

use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::Filesystem;
use crate::kernel::shmem::files::{self, NotSeen};
use crate::kernel::shmem::inode::ShmInode;
use crate::kernel::shmem::overlays::Overlays;
use crate::kernel::shmem::places::Places;
use crate::model::{Dev, Kind, PackedFile, UnheldBuilder, UnheldFolder, UnheldList};

/// The files that a process may have open through an overlay, by the filesystem that they are on.
fn opened_through_overlays(root: &ProcRoot) -> HashMap<Dev, HashSet<Vec<u8>>> {
    let mut files: HashMap<Dev, HashSet<Vec<u8>>> = HashMap::new();
    for (dev, path) in Overlays::read(root, &[]).opened.into_iter().flat_map(|opened| opened.files) {
        files.entry(dev).or_default().insert(path);
    }
    files
}

/// The files of every tmpfs and hugetlbfs, held or not. Those that a process may have open through
/// an overlay are left out.
pub(super) fn unheld_files(root: &ProcRoot) -> UnheldList {
    let mut builder = UnheldBuilder::default();
    let mut places = Places::of(root);
    let opened = opened_through_overlays(root);
    let (devices, unread) = places.devices();
    (builder.gaps.processes, builder.gaps.namespaces) = (unread.processes, unread.namespaces);
    for (dev, filesystem) in devices {
        let kind = match filesystem {
            Filesystem::Tmpfs | Filesystem::Devtmpfs => Kind::Tmpfs,
            Filesystem::Hugetlbfs => Kind::Hugetlbfs,
            _ => continue,
        };
        let Some((top, point)) = places.folder(dev) else {
            builder.gaps.filesystems += 1;
            continue;
        };
        let point = point.strip_suffix(b"/").unwrap_or(&point);
        let opened = opened.get(&dev);
        // The files of a folder come one after the other.
        let mut last: Option<(Vec<u8>, u32)> = None;
        let NotSeen { folders, hidden } = files::walk(&top, dev, |below, name, inode| {
            let Some(inode) = ShmInode::of(inode) else { return };
            if opened.is_some_and(|opened| opened.contains(&[below, name].join(&b'/'))) {
                return;
            }
            if inode.links > 1 {
                // It may be found by another name, too.
                builder.repeated();
            }
            let known = last.as_ref().filter(|(known, _)| known == below).map(|&(_, folder)| folder);
            let folder = known.unwrap_or_else(|| {
                let huge_page = inode.huge_page.filter(|_| kind == Kind::Hugetlbfs);
                let path = [point, below].concat().into();
                builder.folder(UnheldFolder { kind, dev, huge_page, path })
            });
            if known.is_none() {
                last = Some((below.to_vec(), folder));
            }
            builder.add(
                folder,
                &PackedFile {
                    name,
                    ino: inode.ino,
                    size: inode.size,
                    charged: inode.charged,
                    swapped: None,
                    owner: inode.owner,
                    created_at: inode.created_at,
                    deleted: false,
                },
            );
        });
        builder.gaps.folders += folders;
        builder.gaps.hidden += hidden;
    }
    builder.finish(false, |folder| folder.path.clone())
}
