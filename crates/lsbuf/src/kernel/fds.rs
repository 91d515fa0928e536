//! fd tables: the links in `/proc/P/fd`, and the fdinfo of fds that look like a dma-buf.
//!
//! It takes one `readlink` per fd. The link alone tells device nodes and sync_files; a file that
//! may be shared memory is identified by [`shmem`](super::shmem). `fdinfo` (open, read, close) is
//! read only where the link begins with `/dmabuf:`, of a file of shared memory that may be opened
//! with `O_PATH`, and once for each socket and io_uring, because these can hold fds themselves. The
//! documentation of [`kernel`](super) says why nothing else may be read of an arbitrary fd.
//!
//! `/proc/P/fd` is the table of the thread-group leader. `/proc/P/task/T` has the same shape for
//! each thread.

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

/// The link of every sync_file (`sync_file_alloc` in drivers/dma-buf/sync_file.c). A file in a
/// folder cannot have this link, because its path begins with a slash.
const SYNC_FILE_LINK: &[u8] = b"anon_inode:sync_file";

/// An fd with a link that looks like a dma-buf's, and its fdinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FdFact {
    pub(crate) fd: Fd,
    /// The name in the link, whole and raw. Set only where the fdinfo has no name. The fd may have
    /// been replaced after the link was read.
    pub(crate) link_name: Option<Label>,
    pub(crate) info: fdinfo::Fdinfo,
}

impl FdFact {
    /// The buffer's name: that of the fdinfo if it has one, so that it belongs to the same text as
    /// the other fields.
    pub(crate) fn name(&self) -> Option<&Label> {
        self.info.dmabuf.as_ref().map(|dmabuf| &dmabuf.name).or(self.link_name.as_ref())
    }
}

/// The contents of one fd table that are of interest.
#[derive(Debug, Default)]
pub(crate) struct FdTable {
    /// fds that look like dma-bufs.
    pub(crate) facts: Vec<FdFact>,
    /// Device nodes with drivers that can hold dma-bufs, by path.
    pub(crate) devices: Vec<(Fd, DeviceClass, Label)>,
    /// Whether the table is known to have changed while it was read. An fd may then have moved to a
    /// slot that had been read before.
    pub(crate) changed: bool,
    /// fds of shared memory.
    pub(crate) shmem: Vec<ShmFd>,
    /// The number of sync_files.
    pub(crate) sync_files: u64,
    /// How many fdinfo texts could not be parsed.
    pub(crate) malformed: u64,
}

/// The number of a process's fds, which is the size of its `fd` folder since Linux 6.2 (commit
/// f1f1f2569901, `proc_fd_getattr` in fs/proc/fd.c). 0 on older kernels.
pub(crate) fn number(root: &ProcRoot, pid: Pid) -> Result<u64> {
    let folder = Path::new(format_args!("{pid}/fd"));
    statx(root.dir().fd(), folder.as_str(), AtFlags::empty(), StatxFlags::SIZE).map(|of_it| of_it.stx_size)
}

/// Reads fd tables, one after the other, with the same buffers.
#[derive(Debug, Default)]
pub(crate) struct FdReader {
    pub(super) slots: SlotReader,
    /// The text of one fdinfo.
    pub(super) text: Vec<u8>,
}

impl FdReader {
    /// Reads the fd table of one process or thread into `read`. If `hidden` is given, the fds in
    /// sockets and io_urings are counted there. If `finder` is given, shared memory is looked for.
    /// After an error, the part that was read before it is still correct.
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
                // The path is longer than any dma-buf's.
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
                        // The fd has been closed, unless this is a tree that was recorded
                        // incompletely.
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
                && !finder.keeps_ipc(fd, target)
                && finder.suspects(target)
            {
                match finder.fd(process, fd, target) {
                    Ok(found) => read.shmem.extend(found),
                    Err(Errno::NOENT) => read.changed = true,
                    // A file on another filesystem with such a name, and that filesystem refuses.
                    // The other fds are still read.
                    Err(_) => finder.refusing += 1,
                }
            }
            Ok(())
        })?;
        read.changed |= changed;
        Ok(())
    }
}

/// Lists the slots of fd tables, one after the other.
#[derive(Debug)]
pub(crate) struct SlotReader {
    /// The buffer for directory entries.
    room: Vec<MaybeUninit<u8>>,
    /// The fd numbers of the current table.
    numbers: Vec<u32>,
}

/// Room for directory entries, in bytes: about 20,000 fds per call, so most tables need only one.
/// Pages that are not written to take no memory.
const SLOTS_ROOM: usize = 512 << 10;

impl Default for SlotReader {
    fn default() -> SlotReader {
        SlotReader { room: vec![MaybeUninit::uninit(); SLOTS_ROOM], numbers: Vec::new() }
    }
}

impl SlotReader {
    /// Calls `each` for each entry of a table, by ascending number, as procfs lists them. Returns
    /// whether the numbers are known to have changed meanwhile.
    ///
    /// A table that one call returns is listed before any of its fds is read. With several calls,
    /// an fd can move from a slot that is listed later to a slot that was listed before, and is
    /// then seen in neither. So after several calls the table is listed once more, without reading
    /// any fd, and the numbers are compared.
    ///
    /// Limits: an fd that moves to a lower slot during one call is missed, too; a call takes
    /// microseconds. So is an fd that is back in its old slot when the table is listed again.
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

    /// Lists a table of that many fds, some ten entries per call. At the tenth fd, `then` changes
    /// the table; it gets the fds. Returns whether the table is reported as changed.
    ///
    /// The table belongs to a thread that shares it with no other, because other tests open and
    /// close files. It begins without their fds, so that the numbers below 100 are free.
    #[allow(unsafe_code)]
    fn listed(fds: usize, then: impl FnOnce(&mut Vec<OwnedFd>) + Send) -> bool {
        let own_table = || {
            let (first, last, unshare) = (3, u32::MAX, libc::CLOSE_RANGE_UNSHARE);
            // SAFETY: The call takes only numbers. It gives this thread a table of its own, in
            // which only the standard streams are left. The thread uses no fd that it owned before.
            assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, first, last, unshare) }, 0);
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

    /// Check that it is noticed if an fd that is not listed yet moves to a slot that was listed
    /// before.
    #[test]
    fn an_fd_moves_down() {
        assert!(listed(60, |dups| {
            let last = dups.pop().unwrap();
            let moved = fcntl_dupfd_cloexec(&last, 50).unwrap();
            drop(last);
            dups.push(moved);
        }));
    }

    /// Check that an unchanged table is not reported as changed, however many calls list it.
    #[test]
    fn a_table_at_rest() {
        assert!(!listed(60, |_| {}));
    }
}
