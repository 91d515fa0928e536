//! fd tables: `/proc/P/fd`, and the fdinfo of what looks like a dma-buf.
//!
//! One `readlink` per fd; `fdinfo` (open, read, close) where the link begins with `/dmabuf:`, and once for each socket and
//! io_uring, which can keep fds of their own. The module's parent says why nothing else may be asked of an arbitrary fd. The walk is of the thread-group
//! leader's table; threads that unshared theirs are not seen.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::readlinkat_raw;
use rustix::io::{Errno, Result};

use super::elsewhere::{Elsewhere, Keeper};
use super::parse::{Garbled, number32};
use super::read::{self, Buffers};
use super::{LINK_PREFIX, fdinfo};
use crate::model::{Fd, Label};

/// An fd whose link looks like a dma-buf's, and what its fdinfo says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FdFact {
    pub(crate) fd: Fd,
    /// The name, whole and raw: `readlink` escapes nothing.
    pub(crate) name: Label,
    pub(crate) info: fdinfo::Fdinfo,
}

/// Reads the fd table of one process; what sockets and rings keep is added to `elsewhere` if it is asked for. Returns
/// how many fdinfo texts were garbled.
pub(crate) fn walk(
    process: BorrowedFd<'_>,
    buffers: &mut Buffers,
    facts: &mut Vec<FdFact>,
    mut elsewhere: Option<&mut Elsewhere>,
) -> Result<u64> {
    let table = read::open_dir(process, c"fd")?;
    let Buffers { dir, link, text, .. } = buffers;
    let mut garbled = 0;
    read::names(table.as_fd(), dir, |entry| {
        let target = match readlinkat_raw(&table, entry, &mut link[..]) {
            Ok((target, _)) => target,
            // Closed between the listing and now; or a path longer than any dma-buf's.
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(()),
            Err(e) => return Err(e),
        };
        let Ok(fd) = number32(entry.to_bytes(), 10).map(Fd) else {
            garbled += 1;
            return Ok(());
        };
        if let Some(name) = target.strip_prefix(LINK_PREFIX) {
            match read::record(process, fdinfo_path(fd).as_str(), text) {
                Ok(()) => {}
                Err(Errno::NOENT) => {
                    // Closed by now, unless the tree was recorded in part.
                    garbled +=
                        u64::from(readlinkat_raw(&table, entry, &mut [MaybeUninit::uninit(); 1]).is_ok());
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
            match fdinfo::parse(text) {
                Ok(info) => facts.push(FdFact { fd, name: Label::from(name), info }),
                Err(Garbled) => garbled += 1,
            }
        } else if let Some(elsewhere) = &mut elsewhere
            && let Some(keeper) = Keeper::of(target)
            && elsewhere.wants(keeper)
        {
            let read = read::record(process, fdinfo_path(fd).as_str(), text);
            elsewhere.add(keeper, read.is_ok().then_some(text));
        }
        Ok(())
    })?;
    Ok(garbled)
}

/// The fdinfo of one fd, relative to the process's directory.
pub(crate) fn fdinfo_path(fd: Fd) -> String {
    format!("fdinfo/{fd}")
}
