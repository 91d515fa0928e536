//! An fd table through `/proc/P/fdinfo` alone, for who may not follow the links of `/proc/P/fd`.
//!
//! Since Linux 5.14 listing and reading `fdinfo` asks for the right to trace the process and nothing else
//! (`proc_fdinfo_permission` in fs/proc/fd.c), while the links also need the directory's owner or CAP_DAC_READ_SEARCH:
//! CAP_SYS_PTRACE alone opens this way and not that one. Before 5.14 it is the other way round: the files need their
//! owner or CAP_DAC_READ_SEARCH and nobody's right to trace, but carry no inode number, so nothing found is ever placed.
//!
//! Without the links every fd of the process has to be read. What a text is, the file's own lines decide, by which it begins.
//!
//! Limits: an O_PATH fd shows neither name nor kind here, only its mount. A ring that is busy at that moment prints
//! nothing of its own and is not recognised. Device nodes have no path here and are left out, and so are sync_files and shmem.

use rustix::io::{Errno, Result};

use super::fdinfo::{self, Fdinfo};
use super::fds::{FdFact, FdReader, FdTable};
use super::hidden_refs::{FileKeeper, HiddenRefCounter};
use super::parse::{Malformed, number32};
use super::shmem::ShmemFinder;
use super::tree::Folder;
use crate::model::Fd;

impl FdReader {
    /// Reads an fd table by its links, or if they are refused through fdinfo alone; else as [`FdReader::read_links`].
    pub(crate) fn read(
        &mut self,
        process: &Folder,
        read: &mut FdTable,
        mut hidden: Option<&mut HiddenRefCounter>,
        mut finder: Option<&mut ShmemFinder>,
    ) -> Result<()> {
        let refused = match self.read_links(process, read, hidden.as_deref_mut(), finder.as_deref_mut()) {
            Err(refused @ (Errno::ACCESS | Errno::PERM)) => refused,
            done => return done,
        };
        let mut alone = FdTable::default();
        self.read_texts(process, &mut alone, hidden).map_err(|_| refused)?;
        // What the links told before the refusal is in here once more; only devices are not.
        alone.devices.append(&mut read.devices);
        if let Some(finder) = finder {
            finder.unfollowed += 1;
        }
        *read = alone;
        Ok(())
    }

    /// Reads the fdinfo of every fd of one process or thread. Facts are dma-bufs, and O_PATH fds of anything.
    fn read_texts(
        &mut self,
        process: &Folder,
        found: &mut FdTable,
        mut hidden: Option<&mut HiddenRefCounter>,
    ) -> Result<()> {
        let table = process.folder(c"fdinfo")?;
        let FdReader { slots, text } = self;
        let changed = slots.each(&table, |entry| {
            let Ok(fd) = number32(entry.to_bytes(), 10).map(Fd) else {
                found.malformed += 1;
                return Ok(());
            };
            match table.read_record(entry, text) {
                Ok(()) => {}
                Err(Errno::NOENT) => {
                    found.changed = true;
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
            match kind(text) {
                Ok(FdKind::DmaBuf(info) | FdKind::PathOnly(info)) => {
                    found.facts.push(FdFact { fd, link_name: None, info });
                }
                Ok(FdKind::Keeper(keeper)) => {
                    if let Some(hidden) = &mut hidden
                        && hidden.wants(keeper)
                    {
                        hidden.add(keeper, Some(text));
                    }
                }
                Ok(FdKind::NamelessSocket) => {
                    if let Some(hidden) = &mut hidden {
                        // It may be one that was read already, or not.
                        hidden.add(FileKeeper::Socket(0), None);
                    }
                }
                Ok(FdKind::Other) => {}
                Err(Malformed) => found.malformed += 1,
            }
            Ok(())
        })?;
        found.changed |= changed;
        Ok(())
    }
}

/// What a text says that its file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FdKind {
    DmaBuf(Fdinfo),
    PathOnly(Fdinfo),
    Keeper(FileKeeper),
    /// A socket that passes fds, without the inode number that tells it from others (before Linux 5.14).
    NamelessSocket,
    Other,
}

/// Decides by the form of the whole text.
pub(crate) fn kind(text: &[u8]) -> std::result::Result<FdKind, Malformed> {
    let own = fdinfo::own_lines(text);
    // First lines of rings from Linux 5.16 on, and before.
    if own.starts_with(b"SqMask:") || own.starts_with(b"SqThread:") {
        return Ok(FdKind::Keeper(FileKeeper::Ring));
    }
    let info = fdinfo::parse(text)?;
    if info.path_only {
        return Ok(FdKind::PathOnly(info));
    }
    if own.starts_with(b"scm_fds:") {
        return Ok(info.ino.map_or(FdKind::NamelessSocket, |ino| FdKind::Keeper(FileKeeper::Socket(ino.0))));
    }
    Ok(if info.dmabuf.is_some() { FdKind::DmaBuf(info) } else { FdKind::Other })
}

#[cfg(test)]
#[path = "fdinfo_table_tests.rs"]
mod tests;
