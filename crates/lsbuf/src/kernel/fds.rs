//! fd tables: `/proc/P/fd`, and the fdinfo of what looks like a dma-buf.
//!
//! One `readlink` per fd; `fdinfo` (open, read, close) where the link begins with `/dmabuf:`, and once for each socket and
//! io_uring, which can keep fds of their own. The module's parent says why nothing else may be asked of an arbitrary fd.
//! `/proc/P/fd` is the thread-group leader's table; `/proc/P/task/T` has the same shape for each thread.

use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, StatxFlags, readlinkat_raw, statx};
use rustix::io::{Errno, Result};

use super::elsewhere::{Elsewhere, Keeper};
use super::parse::{Garbled, number32};
use super::path::Path;
pub(crate) use super::path::fdinfo_path;
use super::read::{self, Buffers};
use super::root::ProcRoot;
use super::shmem::{Family, ShmFd};
use super::tree::Folder;
use super::{LINK_PREFIX, fdinfo};
use crate::model::{DeviceClass, Fd, Label, Pid};

/// What every sync_file is called (`sync_file_alloc` in drivers/dma-buf/sync_file.c). No file in a folder has such a link: its
/// path begins with a slash.
const SYNC_FILE_LINK: &[u8] = b"anon_inode:sync_file";

/// An fd whose link looks like a dma-buf's, and what its fdinfo says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FdFact {
    pub(crate) fd: Fd,
    /// The name that the link shows, whole and raw, where the fdinfo does not tell it. The fd may have been replaced between
    /// the two.
    pub(crate) link_name: Option<Label>,
    pub(crate) info: fdinfo::Fdinfo,
}

impl FdFact {
    /// The buffer's name, by the text that tells the rest of it if that does.
    pub(crate) fn name(&self) -> Option<&Label> {
        self.info.dmabuf.as_ref().map(|dmabuf| &dmabuf.name).or(self.link_name.as_ref())
    }
}

/// What one fd table holds.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// What looks like a dma-buf.
    pub(crate) facts: Vec<FdFact>,
    /// Device nodes whose drivers can hold dma-bufs, by path.
    pub(crate) devices: Vec<(Fd, DeviceClass, Label)>,
    /// Whether one was closed between the listing and the look at it.
    pub(crate) closed: bool,
    /// Shared memory of the shmem family.
    pub(crate) shmem: Vec<ShmFd>,
    /// How many are sync_files.
    pub(crate) sync_files: u64,
    /// fdinfo texts that could not be understood.
    pub(crate) garbled: u64,
}

/// How many fds a process has, where its folder's size tells: since Linux 6.2 (`proc_fd_getattr` in fs/proc/fd.c). Zero
/// before that.
pub(crate) fn number(root: &ProcRoot, pid: Pid) -> Result<u64> {
    let folder = Path::new(format_args!("{pid}/fd"));
    statx(root.dir().fd(), folder.as_str(), AtFlags::empty(), StatxFlags::SIZE).map(|of_it| of_it.stx_size)
}

/// Reads the fd table of one process or thread into `read`; what sockets and rings keep is added to `elsewhere`, and shmem is
/// looked for with `family`, if that is asked for. What was read before an error is true all the same.
pub(crate) fn walk(
    process: &Folder,
    buffers: &mut Buffers,
    read: &mut Table,
    mut elsewhere: Option<&mut Elsewhere>,
    mut family: Option<&mut Family>,
) -> Result<()> {
    let table = process.folder(c"fd")?;
    let Buffers { dir, link, text, .. } = buffers;
    read::entries(table.fd(), dir, |entry, _| {
        let target = match readlinkat_raw(table.fd(), entry, &mut link[..]) {
            Ok((target, _)) => target,
            Err(Errno::NOENT) => {
                read.closed = true;
                return Ok(());
            }
            // A path longer than any dma-buf's.
            Err(Errno::NAMETOOLONG) => return Ok(()),
            Err(e) => return Err(e),
        };
        let Ok(fd) = number32(entry.to_bytes(), 10).map(Fd) else {
            read.garbled += 1;
            return Ok(());
        };
        if let Some(name) = target.strip_prefix(LINK_PREFIX) {
            match process.read_record(fdinfo_path(fd).as_str(), text) {
                Ok(()) => {}
                Err(Errno::NOENT) => {
                    read.closed = true;
                    // Closed by now, unless the tree was recorded in part.
                    read.garbled +=
                        u64::from(readlinkat_raw(table.fd(), entry, &mut [MaybeUninit::uninit(); 1]).is_ok());
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
            match fdinfo::parse(text) {
                Ok(info) => {
                    let link_name = info.dmabuf.is_none().then(|| Label::from(name));
                    read.facts.push(FdFact { fd, link_name, info });
                }
                Err(Garbled) => read.garbled += 1,
            }
        } else if let Some(class) = DeviceClass::of(target) {
            read.devices.push((fd, class, Label::from(&*target)));
        } else if let Some(elsewhere) = &mut elsewhere
            && let Some(keeper) = Keeper::of(target)
            && elsewhere.wants(keeper)
        {
            let read = process.read_record(fdinfo_path(fd).as_str(), text);
            elsewhere.add(keeper, read.is_ok().then_some(text));
        } else if target == SYNC_FILE_LINK {
            read.sync_files += 1;
        } else if let Some(family) = &mut family
            && family.suspects(target)
        {
            match family.fd(process, fd, target) {
                Ok(found) => read.shmem.extend(found),
                Err(Errno::NOENT) => read.closed = true,
                // A file elsewhere that is called so, whose filesystem refuses: nobody else's fds are lost for it.
                Err(_) => family.refusing += 1,
            }
        }
        Ok(())
    })
}
