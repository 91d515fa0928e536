//! fd tables: `/proc/P/fd`, and the fdinfo of what looks like a dma-buf.
//!
//! One `readlink` per fd; `fdinfo` (open, read, close) where the link begins with `/dmabuf:`, and once for each socket and
//! io_uring, which can keep fds of their own. The module's parent says why nothing else may be asked of an arbitrary fd.
//! `/proc/P/fd` is the thread-group leader's table; `/proc/P/task/T` has the same shape for each thread.

use std::ffi::CStr;
use std::mem::MaybeUninit;

use rustix::fs::{AtFlags, SeekFrom, StatxFlags, readlinkat_raw, seek, statx};
use rustix::io::{Errno, Result};

use super::hidden_refs::{FileKeeper, HiddenRefCounter};
use super::parse::{Malformed, number32};
use super::path::Path;
pub(crate) use super::path::fdinfo_path;
use super::read::{self, LINK_ROOM};
use super::root::ProcRoot;
use super::shmem::{ShmFd, ShmemFinder};
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
pub(crate) struct FdTable {
    /// What looks like a dma-buf.
    pub(crate) facts: Vec<FdFact>,
    /// Device nodes whose drivers can hold dma-bufs, by path.
    pub(crate) devices: Vec<(Fd, DeviceClass, Label)>,
    /// Whether it is known to have changed while it was read: an fd may have moved to a slot that had been read before.
    pub(crate) changed: bool,
    /// Shared memory of the shmem family.
    pub(crate) shmem: Vec<ShmFd>,
    /// How many are sync_files.
    pub(crate) sync_files: u64,
    /// fdinfo texts that could not be understood.
    pub(crate) malformed: u64,
}

/// How many fds a process has, where its folder's size tells: since Linux 6.2 (`proc_fd_getattr` in fs/proc/fd.c). Zero
/// before that.
pub(crate) fn number(root: &ProcRoot, pid: Pid) -> Result<u64> {
    let folder = Path::new(format_args!("{pid}/fd"));
    statx(root.dir().fd(), folder.as_str(), AtFlags::empty(), StatxFlags::SIZE).map(|of_it| of_it.stx_size)
}

/// Reads one fd table after the other. What it needs to read them is allocated once.
#[derive(Debug, Default)]
pub(crate) struct FdReader {
    pub(super) slots: SlotReader,
    /// The fdinfo of one fd.
    pub(super) text: Vec<u8>,
}

impl FdReader {
    /// Reads the fd table of one process or thread into `read`; what sockets and rings keep is added to `elsewhere`, and shmem is
    /// looked for with `family`, if that is asked for. What was read before an error is true all the same.
    pub(crate) fn read_links(
        &mut self,
        process: &Folder,
        read: &mut FdTable,
        mut hidden: Option<&mut HiddenRefCounter>,
        mut finder: Option<&mut ShmemFinder>,
    ) -> Result<()> {
        let table = process.folder(c"fd")?;
        let FdReader { slots, text } = self;
        let mut link = [MaybeUninit::uninit(); LINK_ROOM];
        let changed = slots.each(&table, |entry| {
            let target = match readlinkat_raw(table.fd(), entry, &mut link[..]) {
                Ok((target, _)) => target,
                Err(Errno::NOENT) => {
                    read.changed = true;
                    return Ok(());
                }
                // A path longer than any dma-buf's.
                Err(Errno::NAMETOOLONG) => return Ok(()),
                Err(e) => return Err(e),
            };
            let Ok(fd) = number32(entry.to_bytes(), 10).map(Fd) else {
                read.malformed += 1;
                return Ok(());
            };
            if let Some(name) = target.strip_prefix(LINK_PREFIX) {
                match process.read_record(fdinfo_path(fd).as_str(), text) {
                    Ok(()) => {}
                    Err(Errno::NOENT) => {
                        read.changed = true;
                        // Closed by now, unless the tree was recorded in part.
                        read.malformed += u64::from(
                            readlinkat_raw(table.fd(), entry, &mut [MaybeUninit::uninit(); 1]).is_ok(),
                        );
                        return Ok(());
                    }
                    Err(e) => return Err(e),
                }
                match fdinfo::parse(text) {
                    Ok(info) => {
                        let link_name = info.dmabuf.is_none().then(|| Label::from(name));
                        read.facts.push(FdFact { fd, link_name, info });
                    }
                    Err(Malformed) => read.malformed += 1,
                }
            } else if let Some(class) = DeviceClass::of(target) {
                read.devices.push((fd, class, Label::from(&*target)));
            } else if let Some(hidden) = &mut hidden
                && let Some(keeper) = FileKeeper::of(target)
                && hidden.wants(keeper)
            {
                let read = process.read_record(fdinfo_path(fd).as_str(), text);
                hidden.add(keeper, read.is_ok().then_some(text));
            } else if target == SYNC_FILE_LINK {
                read.sync_files += 1;
            } else if let Some(finder) = &mut finder
                && finder.suspects(target)
            {
                match finder.fd(process, fd, target) {
                    Ok(found) => read.shmem.extend(found),
                    Err(Errno::NOENT) => read.changed = true,
                    // A file elsewhere that is called so, whose filesystem refuses: nobody else's fds are lost for it.
                    Err(_) => finder.refusing += 1,
                }
            }
            Ok(())
        })?;
        read.changed |= changed;
        Ok(())
    }
}

/// Lists the slots of one fd table after the other.
#[derive(Debug)]
pub(crate) struct SlotReader {
    /// Directory entries.
    room: Vec<MaybeUninit<u8>>,
    /// The numbers of the table at hand.
    numbers: Vec<u32>,
}

/// Room for directory entries, in bytes: about 20,000 fds a call, so most tables come in one piece.
/// Only what is written to takes memory.
const SLOTS_ROOM: usize = 512 << 10;

impl Default for SlotReader {
    fn default() -> SlotReader {
        SlotReader { room: vec![MaybeUninit::uninit(); SLOTS_ROOM], numbers: Vec::new() }
    }
}

impl SlotReader {
    /// Hands over each entry of a table, by ascending number as procfs lists them. Returns whether the numbers are known to have
    /// changed meanwhile.
    ///
    /// A table that comes in one piece is listed before any of it is looked at. In a larger one an fd can move from a slot of a later
    /// piece to one of an earlier, and is then in neither. So a table that came in several pieces is listed once more, without looking
    /// at anything, and the numbers are compared.
    ///
    /// Limits: an fd that moves down while one piece is put together is missed, too; that takes microseconds. So is one that is back in
    /// its old slot when the table is listed again.
    pub(crate) fn each(&mut self, table: &Folder, mut each: impl FnMut(&CStr) -> Result<()>) -> Result<bool> {
        let SlotReader { room, numbers } = self;
        let number = |entry: &CStr| number32(entry.to_bytes(), 10).ok();
        numbers.clear();
        let pieces = read::entries_in_pieces(table.fd(), room, |entry, _| {
            numbers.extend(number(entry));
            each(entry)
        })?;
        if pieces < 2 {
            return Ok(false);
        }
        seek(table.fd(), SeekFrom::Start(0))?;
        let mut before = numbers.iter().copied();
        let mut is_same = true;
        read::entries(table.fd(), |entry, _| {
            let number = number(entry);
            is_same &= number.is_none() || number == before.next();
            Ok(())
        })?;
        Ok(!is_same || before.next().is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Arc;

    use rustix::fs::CWD;
    use rustix::io::fcntl_dupfd_cloexec;

    use super::*;
    use crate::kernel::tree::live::Live;

    /// Lists a table of so many fds in pieces of some ten entries. At the tenth fd, `then` is done to the table, whose highest
    /// number it is given. Returns whether the table is said to have changed.
    ///
    /// The table is that of a thread which shares it with nobody: other tests open and close files.
    #[allow(unsafe_code)]
    fn listed(fds: usize, then: impl FnOnce(&mut Vec<OwnedFd>) + Send) -> bool {
        let own_table = || {
            // SAFETY: unshare takes flags alone. This thread's fds are copies from here on, and it uses none of those that it
            // owned before.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
            let null = null.unwrap();
            let mut dups: Vec<_> = (0..fds).map(|_| fcntl_dupfd_cloexec(&null, 100).unwrap()).collect();
            let proc = read::open_dir(CWD, c"/proc").unwrap();
            let tree = Arc::new(Live::at(proc.as_fd()).unwrap());
            let table = Folder::new(proc, tree).folder(c"thread-self/fd").unwrap();
            let (mut seen, mut then) = (0, Some(then));
            let mut slots = SlotReader { room: vec![MaybeUninit::uninit(); 256], numbers: Vec::new() };
            let changed = slots.each(&table, |_| {
                seen += 1;
                if seen == 10 {
                    then.take().into_iter().for_each(|then| then(&mut dups));
                }
                Ok(())
            });
            assert!(seen + 1 >= fds);
            changed.unwrap()
        };
        std::thread::scope(|scope| scope.spawn(own_table).join().unwrap())
    }

    /// Check that an fd which moves to a slot that was listed before, and was not listed itself yet, is noticed.
    #[test]
    fn an_fd_moves_down() {
        assert!(listed(60, |dups| {
            let last = dups.pop().unwrap();
            let moved = fcntl_dupfd_cloexec(&last, 50).unwrap();
            drop(last);
            dups.push(moved);
        }));
    }

    /// Check that a table at rest is not said to have changed, in however many pieces it comes.
    #[test]
    fn a_table_at_rest() {
        assert!(!listed(60, |_| {}));
    }
}
