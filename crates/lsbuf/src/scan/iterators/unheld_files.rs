//! Makes the list of files that nobody holds from what the kernel's lists of inodes say.
//!
//! That nobody holds a file is proven: its dentry has no reference but that of its filesystem, so
//! no process, socket, loop device or overlay has it open, in whatever namespace.
//!
//! Limit: a path is put together from the path below the root of the filesystem, and from a mount
//! that shows it. Both can change afterwards.

use super::records::Records;
use super::shmem_records::UNKNOWN_FOLDER;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::places::Places;
use crate::model::{UnheldFolder, UnheldList};
use crate::scan::lifetimes::UNREACHABLE;

/// The files that nobody holds, with the paths by which they can be reached.
pub(super) fn unheld_files(records: &mut Records, root: &ProcRoot) -> UnheldList {
    let mut places = Places::of(root);
    let path = |folder: &UnheldFolder| match &folder.path[..] {
        UNKNOWN_FOLDER => folder.path.clone(),
        // The root of the filesystem. If that is mounted at `/`, a file's path begins there.
        b"" => match places.path_of(folder.dev, b"") {
            Some(point) => point.strip_suffix(b"/").unwrap_or(&point).into(),
            None => UNREACHABLE.into(),
        },
        below => match places.path_of(folder.dev, below) {
            Some(path) => path.into(),
            None => [UNREACHABLE, below].concat().into(),
        },
    };
    let mut files = std::mem::take(&mut records.shmem.unheld).finish(true, path);
    let payers = &records.shmem.payers;
    if payers.has_unheld() {
        files.set_payers(|id, huge_page, charged| payers.of_unheld((id.dev?, id.ino), huge_page, charged));
    }
    files
}
