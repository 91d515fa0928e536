//! An fd table read from `/proc/P/fdinfo` alone, for a process without the right to follow the
//! links of `/proc/P/fd`.
//!
//! Since Linux 5.14 (commit 7bc3fa0172a4), listing and reading `fdinfo` needs only the right to
//! trace the process (`proc_fdinfo_permission` in fs/proc/fd.c). The links also need the
//! directory's owner or CAP_DAC_READ_SEARCH. So with CAP_SYS_PTRACE alone, fdinfo can be read and
//! the links cannot. Before 5.14 it is the other way round: the files need their owner or
//! CAP_DAC_READ_SEARCH, and not the right to trace. But there they have no inode number, so no
//! dma-buf that is found can be identified.
//!
//! Without the links, the fdinfo of every fd of the process has to be read. The first of the file's
//! own lines tells what the file is.
//!
//! Limits: of an O_PATH fd only the mount is known, neither name nor kind. An io_uring that is busy
//! at that moment prints no lines of its own and is not recognised. Device nodes, sync_files and
//! shared memory are not found, because they are recognised by their paths.

use rustix::io::{Errno, Result};

use super::fdinfo::{self, Fdinfo};
use super::fds::{FdFact, FdReader, FdTable};
use super::hidden_refs::{FileKeeper, HiddenRefCounter};
use super::parse::{Malformed, number32};
use super::shmem::ShmemFinder;
use super::tree::Folder;
use crate::model::Fd;

impl FdReader {
    /// Reads an fd table by its links, or by fdinfo alone if the links are refused. Else as
    /// [`FdReader::read_links`].
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
        // fdinfo has all that the links showed before the refusal, except devices.
        alone.devices.append(&mut read.devices);
        if let Some(finder) = finder {
            finder.unfollowed += 1;
        }
        *read = alone;
        Ok(())
    }

    /// Reads the fdinfo of every fd of one process or thread. The facts are dma-bufs, and O_PATH
    /// fds of any file.
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
                        // It may be a socket that was read already, or another one.
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

/// What kind of file a text belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FdKind {
    DmaBuf(Fdinfo),
    PathOnly(Fdinfo),
    Keeper(FileKeeper),
    /// A socket that can carry fds, without the inode number that would tell it from others (before
    /// Linux 5.14, commit 3845f256a8b5).
    NamelessSocket,
    Other,
}

/// Recognises a file by the whole text of its fdinfo.
pub(crate) fn kind(text: &[u8]) -> std::result::Result<FdKind, Malformed> {
    let own = fdinfo::own_lines(text);
    // The first line of an io_uring from Linux 5.16 on (commit 83f84356bc8f), and before.
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
