//! BPF iterators: programs of lsbuf that the kernel runs while it walks its own tables.
//!
//! One reading of an iterator covers the whole machine, and yields a record for everything that
//! belongs to a dma-buf: tasks, fds, mappings, messages in flight, and the buffers with their
//! counts. procfs would need many reads for each process. Each program has a variant that looks for
//! shared memory, too. So a scan for dma-bufs alone pays nothing for shared memory, and the kernel
//! walks no table twice.
//!
//! - `task` (Linux 5.8, commit eaaacd23910f): all processes, threads with tables of their own,
//!   which of them are exiting, and what each runs; also which threads have run, and in which
//!   system call each is.
//! - `task_file` (5.8, the same commit): every fd of a dma-buf or device, and every file that waits
//!   in a socket.
//! - `task_vma` (5.12, commit 3a7b35b899de): every mapping of a dma-buf. The kernel holds the
//!   process's `mmap_lock` while it is read. Root can also read it for one process alone (6.1,
//!   commit f0d74c4da1f0; [`Probes::read_process`]).
//! - `dmabuf` (6.16, commit 76ea95534995): every dma-buf with its count, its attached devices, and
//!   its mappings.
//! - `shmem_inodes`: every inode of tmpfs and hugetlbfs that somebody holds, and its mappings. If
//!   they are asked for ([`Probes::list_unheld`]), also the files that nobody holds. The kernel has
//!   no such iterator. The program walks the kernel's lists itself, driven by the iterator over the
//!   elements of a map (`bpf_map_elem`, 5.9, commit a5cbe05a6673).
//! - `shmem_payers`: the same, and who pays for the pages of each inode. It is read in place of
//!   `shmem_inodes` if that is asked for.
//!
//! Linux 5.10 is not enough: it has no `task_vma`, which shows mappings of dma-bufs there, and no
//! `bpf_loop` (5.17, commit e6f2dd0f8067), with which the queues of sockets are walked.
//!
//! Loading needs CAP_BPF and CAP_PERFMON in the first user namespace. Root can load the iterators
//! and pin them in a bpf filesystem. Then every user whom the file's mode allows can read them
//! ([`Probes::pinned`]). Only loading needs the feature `bpf`.
//!
//! Limits: an iterator covers the tasks of the reader's pid namespace, but writes the ids of the
//! first pid namespace. So it is only used in the first.
//! Of a file that is in more than 62 folders, or whose path is longer than 4 KiB, no path is told.
//! Of one with more than 256 names, the number of open files is not told.

pub(crate) mod hooks;
mod iterator;
mod layout;
#[cfg(feature = "bpf")]
mod loading;
#[cfg(not(feature = "bpf"))]
#[path = "no_loading.rs"]
mod loading;
mod lock;
#[cfg(feature = "bpf")]
pub(crate) mod object;
pub(crate) mod origins;
pub(crate) mod pins;
pub(crate) mod record;
#[cfg(feature = "bpf")]
pub(crate) mod recorder;
#[cfg(feature = "bpf")]
mod sys;
#[cfg(feature = "bpf")]
pub(crate) mod tracing;
pub(crate) mod trust;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::param::page_size;

use super::guard;
use super::parse::Malformed;
use super::read::retry;
use crate::model::{Kind, Kinds, Pid};
use iterator::Readers;
pub(crate) use iterator::{Iterator, Unavailable};
use loading::Loader;
use pins::{PinSet, Pins};
use record::Record;

/// The iterators that are available. Each can be read any number of times.
#[derive(Debug)]
pub(crate) struct Probes {
    probes: [Result<IteratorHandle, Unavailable>; Iterator::ALL.len()],
    pins: Option<Pins>,
    /// Loads those that were postponed; `None`: the iterators are pinned.
    loader: Option<Loader>,
    of_one: OfOneProcess,
    /// Whether files are listed that nobody holds.
    with_unheld: bool,
    chunk: Vec<u8>,
}

/// How the mappings of one process are read.
#[derive(Debug)]
enum OfOneProcess {
    Untried,
    /// By attaching this program to the process.
    Program(OwnedFd),
    Impossible,
}

/// Each iterator as it came out of loading, in the order of [`Iterator::ALL`].
type Loaded = [Result<IteratorHandle, Unavailable>; Iterator::ALL.len()];

#[derive(Debug)]
#[cfg_attr(not(feature = "bpf"), allow(dead_code, reason = "only what is pinned comes without it"))]
enum IteratorHandle {
    Loaded(OwnedFd),
    Pinned,
    /// It is loaded before it is first read.
    Postponed,
}

impl Probes {
    /// Loads the iterators that are `wanted`. `sys` is the root of sysfs. They are unloaded when
    /// this is dropped.
    pub(crate) fn load(sys: &Path, wanted: &[Iterator]) -> Result<Probes, Unavailable> {
        Probes::load_some(sys, wanted, &[], Readers::Many)
    }

    /// Loads the iterators that cover these kinds, and the one for `payers`. What most readings do
    /// without is loaded only if it is read: if the kernel lists its dma-bufs, the iterator over
    /// VMAs, and the list where no dma-bufs are looked for. The iterator for payers lists the
    /// inodes, too, so the other one that does is loaded only if that one is not to be had.
    pub(crate) fn load_for(sys: &Path, kinds: Kinds, payers: bool) -> Result<Probes, Unavailable> {
        let mut wanted: Vec<Iterator> = Iterator::of(kinds, payers).collect();
        if payers {
            wanted.retain(|&iterator| iterator != Iterator::ShmemInodes);
        }
        let [vmas, list] = [Iterator::TaskVma, Iterator::DmaBuf].map(|it| it.with(kinds.has_shmem()));
        let mut postponed = vec![vmas];
        postponed.extend((!kinds.has(Kind::DmaBuf)).then_some(list));
        let mut probes = Probes::load_some(sys, &wanted, &postponed, Readers::One)?;
        // The list exists, but is not to be had.
        if probes.why_not(list).is_some() {
            probes.load_postponed(vmas);
        }
        if payers && kinds.has_shmem() && probes.why_not(Iterator::ShmemPayers).is_some() {
            probes.load_one(Iterator::ShmemInodes);
        }
        Ok(probes)
    }

    fn load_some(
        sys: &Path,
        wanted: &[Iterator],
        postponed: &[Iterator],
        readers: Readers,
    ) -> Result<Probes, Unavailable> {
        let loader = Loader::new(sys, readers)?;
        let probes = loader.load(wanted, postponed)?;
        let of_one = OfOneProcess::Untried;
        let with_unheld = false;
        Ok(Probes { probes, pins: None, loader: Some(loader), of_one, with_unheld, chunk: Vec::new() })
    }

    /// Loads an iterator if it was postponed.
    fn load_postponed(&mut self, iterator: Iterator) {
        if matches!(self.probes[iterator as usize], Ok(IteratorHandle::Postponed)) {
            self.load_one(iterator);
        }
    }

    /// Loads an iterator, if these are not pinned.
    fn load_one(&mut self, iterator: Iterator) {
        if let Some(loader) = &self.loader {
            let not_requested = Err(Unavailable::NotRequested);
            let loaded = loader.load(&[iterator], &[]);
            self.probes[iterator as usize] =
                loaded.and_then(|mut all| std::mem::replace(&mut all[iterator as usize], not_requested));
        }
    }

    /// Opens the iterators that are pinned below a folder, as far as they are needed for these
    /// kinds, and for `payers`.
    pub(crate) fn pinned(below: &Path, kinds: Kinds, payers: bool) -> Result<Probes, Unavailable> {
        let pins = Pins::open(below, PinSet::Iterators)?;
        let wanted = |iterator: Iterator| Iterator::of(kinds, payers).any(|wanted| wanted == iterator);
        let open = |iterator: Iterator| pins.read(iterator.name()).map(|_| IteratorHandle::Pinned);
        let probes = Iterator::ALL
            .map(|iterator| if wanted(iterator) { open(iterator) } else { Err(Unavailable::NotRequested) });
        let of_one = OfOneProcess::Untried;
        let with_unheld = false;
        Ok(Probes { probes, pins: Some(pins), loader: None, of_one, with_unheld, chunk: Vec::new() })
    }

    /// The folder where they are pinned; `None`: they were loaded by this process.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.pins.as_ref().map(Pins::folder)
    }

    fn open(&self, iterator: Iterator) -> Result<OwnedFd, Errno> {
        match (&self.probes[iterator as usize], &self.pins) {
            (Ok(IteratorHandle::Loaded(link)), _) => loading::open(link.as_fd()),
            (Ok(IteratorHandle::Pinned), Some(pins)) => pins.read(iterator.name()).map_err(|why| match why {
                Unavailable::Refused(errno) => errno,
                // It was there when the pins were opened.
                _ => Errno::STALE,
            }),
            _ => Err(Errno::NOSYS),
        }
    }

    /// Why an iterator is not available; `None`: it is, or was postponed.
    pub(crate) fn why_not(&self, iterator: Iterator) -> Option<&Unavailable> {
        self.probes[iterator as usize].as_ref().err()
    }

    /// That iterator, or its variant with shared memory if only the variant is available.
    pub(crate) fn either(&self, iterator: Iterator) -> Iterator {
        iterator.with(self.why_not(iterator).is_some())
    }

    /// The first iterator that is missing, and why, if the available ones do not cover all
    /// references to these kinds.
    pub(crate) fn lacking(&self, kinds: Kinds) -> Option<(Iterator, &Unavailable)> {
        let shmem = kinds.has_shmem();
        let lacks = |iterator: Iterator| {
            let iterator = iterator.with(shmem);
            Some((iterator, self.why_not(iterator)?))
        };
        let unlisted = kinds.has(Kind::DmaBuf) && lacks(Iterator::DmaBuf).is_some();
        let maps = || lacks(Iterator::TaskVma).filter(|_| unlisted);
        let listed = self.why_not(Iterator::ShmemPayers).is_none();
        let inodes = || lacks(Iterator::ShmemInodes).filter(|_| shmem && !listed);
        // If the kernel has a list of dma-bufs, the other iterators do not describe the buffers.
        let unfit = |lack: &(Iterator, &Unavailable)| matches!(lack.1, Unavailable::Unfit(_));
        let list = || lacks(Iterator::DmaBuf).filter(unfit).filter(|_| kinds.has(Kind::DmaBuf));
        let tasks = || lacks(Iterator::Task).or_else(|| lacks(Iterator::TaskFile));
        tasks().or_else(inodes).or_else(maps).or_else(list)
    }

    /// Pins the loaded iterator with that name in a folder of a bpf filesystem, so that it stays.
    pub(crate) fn pin(&self, name: &str, folder: &Path) -> Result<(), Errno> {
        let named = Iterator::ALL.into_iter().find(|iterator| iterator.name() == name);
        match named.map(|iterator| &self.probes[iterator as usize]) {
            Some(Ok(IteratorHandle::Loaded(link))) => pin_as(link, name, folder),
            _ => Err(Errno::NOENT),
        }
    }

    /// Whether [`Probes::read_process`] may be possible. If the iterator is loaded only when it is
    /// first read, that is not known before.
    pub(crate) fn may_read_process(&mut self) -> bool {
        let iterator = Iterator::TaskVmaShmem;
        if matches!(self.probes[iterator as usize], Ok(IteratorHandle::Postponed)) {
            return true;
        }
        if matches!(self.of_one, OfOneProcess::Untried) {
            let program = self.link(iterator).and_then(|link| loading::program_of(link.as_fd()));
            self.of_one = program.map_or(OfOneProcess::Impossible, OfOneProcess::Program);
        }
        matches!(self.of_one, OfOneProcess::Program(_))
    }

    /// Reads the iterator over VMAs with shared memory once, for the mappings of one process alone;
    /// else as [`Probes::read`]. Returns whether that is possible: it needs Linux 6.1, and
    /// CAP_SYS_ADMIN to attach the program again. A process whose leader has exited has no
    /// mappings here.
    pub(crate) fn read_process(&mut self, pid: Pid, each: impl FnMut(Record<'_>)) -> Result<bool, Errno> {
        self.load_postponed(Iterator::TaskVmaShmem);
        if !self.may_read_process() {
            return Ok(false);
        }
        let OfOneProcess::Program(program) = &self.of_one else { return Ok(false) };
        // The leader alone: before Linux 6.6, the walk over all threads of a process leaves some
        // out, and before 6.12 no other thread can be named.
        let Ok(Some(link)) = loading::attach_to_task(program.as_fd(), pid.0) else {
            self.of_one = OfOneProcess::Impossible;
            return Ok(false);
        };
        let file = loading::open(link.as_fd())?;
        self.read_file(Iterator::TaskVmaShmem, &file, each).map(|()| true)
    }

    /// The attached iterator itself.
    fn link(&self, iterator: Iterator) -> Result<OwnedFd, Errno> {
        match (&self.probes[iterator as usize], &self.pins) {
            (Ok(IteratorHandle::Loaded(link)), _) => Ok(link.try_clone().map_err(|_| Errno::MFILE)?),
            (Ok(IteratorHandle::Pinned), Some(pins)) => pins.link(iterator.name()).map_err(|_| Errno::PERM),
            _ => Err(Errno::NOSYS),
        }
    }

    /// Says whether the iterator over inodes of shared memory lists the files that nobody holds,
    /// too.
    pub(crate) fn list_unheld(&mut self, wanted: bool) {
        self.with_unheld = wanted;
    }

    /// Reads an iterator once and calls `each` for every record. `BADMSG`: the data are not what
    /// the program writes, or stop before its end. `STALE`: the pinned iterator has been replaced
    /// or removed.
    pub(crate) fn read(&mut self, iterator: Iterator, each: impl FnMut(Record<'_>)) -> Result<(), Errno> {
        self.load_postponed(iterator);
        let file = self.open(iterator)?;
        if iterator.base() == Iterator::ShmemInodes && self.with_unheld {
            // The program looks at this flag, and the kernel does not.
            fcntl_setfl(&file, OFlags::NONBLOCK)?;
        }
        self.read_file(iterator, &file, each)
    }

    /// Reads an open iterator to its end.
    fn read_file(
        &mut self,
        iterator: Iterator,
        file: &OwnedFd,
        mut each: impl FnMut(Record<'_>),
    ) -> Result<(), Errno> {
        let (mut unexpected, mut ended) = (false, !iterator.has_end());
        let is_whole = read_to_end(file, &mut self.chunk, |bytes| {
            let take = |record: Record<'_>| {
                unexpected |= !iterator.writes(&record);
                ended |= record == Record::End;
                each(record);
            };
            let done = record::each(bytes, take)?;
            if unexpected {
                return Err(Malformed);
            }
            // No record follows the last one.
            Ok((done, done == bytes.len() && ended && iterator.has_end()))
        })?;
        if is_whole && ended { Ok(()) } else { Err(Errno::BADMSG) }
    }
}

/// Reads an open iterator to its end. `take` gets what was read and not taken yet; it returns how
/// many bytes it has taken, and whether nothing can follow. Returns whether all bytes were taken.
fn read_to_end(
    file: &OwnedFd,
    chunk: &mut Vec<u8>,
    mut take: impl FnMut(&[u8]) -> Result<(usize, bool), Malformed>,
) -> Result<bool, Errno> {
    // More than what the kernel buffers for one step, which it returns as a whole: 8 pages
    // (`bpf_seq_read` in kernel/bpf/bpf_iter.c).
    let room = 16 * page_size();
    let mut kept = 0;
    loop {
        if chunk.len() < kept + room {
            chunk.resize(kept + room, 0);
        }
        let n = match retry(|| guard::read(None, file.as_fd(), &mut chunk[kept..])) {
            // The kernel looked at a million entries without a record, and goes on from there in
            // the next call (`MAX_ITER_OBJECTS` in kernel/bpf/bpf_iter.c).
            Err(Errno::AGAIN) => continue,
            n => n?,
        };
        if n == 0 {
            return Ok(kept == 0);
        }
        let filled = kept + n;
        let (done, is_last) = take(&chunk[..filled]).map_err(|Malformed| Errno::BADMSG)?;
        if is_last {
            return Ok(done == filled);
        }
        chunk.copy_within(done..filled, 0);
        kept = filled - done;
    }
}

/// Pins something attached with that name in a folder of a bpf filesystem.
pub(crate) fn pin_as(link: &OwnedFd, name: &str, folder: &Path) -> Result<(), Errno> {
    let path = CString::new(folder.join(name).as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    loading::pin(link.as_fd(), &path)
}

#[cfg(test)]
#[cfg(feature = "bpf")]
mod native_tests;

#[cfg(test)]
#[cfg(feature = "bpf")]
mod walk_tests;
