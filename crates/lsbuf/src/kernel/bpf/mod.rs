//! BPF iterators: the kernel itself walks its tables and writes down what belongs to a dma-buf, in
//! one reading for the whole machine; and what belongs to shared memory, if that is looked for: the
//! same programs with one constant set, so that who looks for dma-bufs alone pays nothing for it,
//! and nobody has the kernel walk a table twice.
//!
//! | iterator | tells | since |
//! |---|---|---|
//! | `task` | who there is: processes, threads with tables of their own, who is exiting, what each runs | Linux 5.8 |
//! | `task`, once more | which threads have run, and in which system call each is | 5.8 |
//! | `task_file` | every fd of a dma-buf, of devices, and what waits in sockets | 5.8 |
//! | `task_vma` | every mapping of a dma-buf, by looking at each VMA under its lock | 5.12 |
//! | `dmabuf` | every dma-buf with its count, attached devices, and the mappings in its own tree | 6.16 |
//!
//! Loading takes CAP_BPF and CAP_PERFMON in the first user namespace. What root has loaded and
//! pinned in a bpf filesystem anyone may read whom the file's mode lets ([`Probes::pinned`]). Only
//! loading needs the feature `bpf`.
//!
//! An iterator speaks of the tasks of the reader's pid namespace, but with ids of the first one, so
//! this is only of use in the first.

pub(crate) mod facts;
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
pub(crate) mod pins;
pub(crate) mod record;
#[cfg(feature = "bpf")]
mod sys;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::guard;
use super::parse::Malformed;
use super::read::retry;
use crate::model::{Kind, Kinds};
pub(crate) use iterator::{Iterator, Unavailable};
use pins::Pins;
use record::Record;

/// The iterators that are at hand, each ready to be read any number of times.
#[derive(Debug)]
pub(crate) struct Probes {
    probes: [Result<IteratorHandle, Unavailable>; Iterator::ALL.len()],
    pins: Option<Pins>,
    chunk: Vec<u8>,
}

/// Each iterator as it came out of loading, in the order of [`Iterator::ALL`].
type Loaded = [Result<OwnedFd, Unavailable>; Iterator::ALL.len()];

#[derive(Debug)]
enum IteratorHandle {
    Loaded(OwnedFd),
    Pinned,
}

impl Probes {
    /// Loads those that are `wanted` into the kernel whose sysfs is at `sys`. They go when this is dropped.
    pub(crate) fn load(sys: &Path, wanted: &[Iterator]) -> Result<Probes, Unavailable> {
        let probes = loading::load(sys, wanted)?.map(|loaded| loaded.map(IteratorHandle::Loaded));
        Ok(Probes { probes, pins: None, chunk: Vec::new() })
    }

    /// Those that are pinned below a folder and tell of these kinds.
    pub(crate) fn pinned(below: &Path, kinds: Kinds) -> Result<Probes, Unavailable> {
        let pins = Pins::open(below)?;
        let wanted = |iterator: Iterator| iterator == iterator.with(kinds.has_shmem());
        let open = |iterator| pins.read(iterator).map(|_| IteratorHandle::Pinned);
        let probes = Iterator::ALL
            .map(|iterator| if wanted(iterator) { open(iterator) } else { Err(Unavailable::NotRequested) });
        Ok(Probes { probes, pins: Some(pins), chunk: Vec::new() })
    }

    /// Where they are pinned; `None`: they are loaded.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.pins.as_ref().map(Pins::folder)
    }

    fn open(&self, iterator: Iterator) -> Result<OwnedFd, Errno> {
        match (&self.probes[iterator as usize], &self.pins) {
            (Ok(IteratorHandle::Loaded(link)), _) => loading::open(link.as_fd()),
            (Ok(IteratorHandle::Pinned), Some(pins)) => pins.read(iterator).map_err(|why| match why {
                Unavailable::Refused(errno) => errno,
                // It was there.
                _ => Errno::STALE,
            }),
            _ => Err(Errno::NOSYS),
        }
    }

    /// Why an iterator is not at hand, if it is not.
    pub(crate) fn why_not(&self, iterator: Iterator) -> Option<&Unavailable> {
        self.probes[iterator as usize].as_ref().err()
    }

    /// That iterator, or else the same with shared memory if that is the one at hand.
    pub(crate) fn either(&self, iterator: Iterator) -> Iterator {
        iterator.with(self.why_not(iterator).is_some())
    }

    /// The first one that is not at hand, and why, if what is at hand does not tell of all
    /// references to these kinds.
    pub(crate) fn lacking(&self, kinds: Kinds) -> Option<(Iterator, &Unavailable)> {
        let shmem = kinds.has_shmem();
        let lacks = |iterator: Iterator| {
            let iterator = iterator.with(shmem);
            Some((iterator, self.why_not(iterator)?))
        };
        // Nothing lists shmem's own mappings.
        let maps = || lacks(Iterator::TaskVma).filter(|_| shmem || lacks(Iterator::DmaBuf).is_some());
        // Where the kernel has a list, nothing else describes the buffers.
        let unfit = |lack: &(Iterator, &Unavailable)| matches!(lack.1, Unavailable::Unfit(_));
        let list = || lacks(Iterator::DmaBuf).filter(unfit).filter(|_| kinds.has(Kind::DmaBuf));
        lacks(Iterator::Task).or_else(|| lacks(Iterator::TaskFile)).or_else(maps).or_else(list)
    }

    /// Gives a loaded iterator a name in a folder of a bpf filesystem, under which it stays.
    pub(crate) fn pin(&self, iterator: Iterator, folder: &Path) -> Result<(), Errno> {
        let path = folder.join(iterator.name());
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
        match &self.probes[iterator as usize] {
            Ok(IteratorHandle::Loaded(link)) => loading::pin(link.as_fd(), &path),
            Ok(IteratorHandle::Pinned) | Err(_) => Err(Errno::NOENT),
        }
    }

    /// Hands over every record of one reading. `BADMSG`: what came is not what the program writes, or it did not come to its
    /// end; `STALE`: what was pinned has been replaced or removed.
    pub(crate) fn read(&mut self, iterator: Iterator, mut each: impl FnMut(Record<'_>)) -> Result<(), Errno> {
        /// No less than the kernel keeps for one step, which it hands over whole.
        const ROOM: usize = 64 << 10;
        let file = self.open(iterator)?;
        let chunk = &mut self.chunk;
        let (mut kept, mut strange, mut ended) = (0, false, !iterator.has_end());
        loop {
            if chunk.len() < kept + ROOM {
                chunk.resize(kept + ROOM, 0);
            }
            let n = retry(|| guard::read(None, file.as_fd(), &mut chunk[kept..]))?;
            if n == 0 {
                return if kept == 0 && ended { Ok(()) } else { Err(Errno::BADMSG) };
            }
            let filled = kept + n;
            let take = |record: Record<'_>| {
                strange |= !iterator.writes(&record);
                ended |= record == Record::End;
                each(record);
            };
            let done = record::each(&chunk[..filled], take).map_err(|Malformed| Errno::BADMSG)?;
            if strange {
                return Err(Errno::BADMSG);
            }
            chunk.copy_within(done..filled, 0);
            kept = filled - done;
            // Nothing comes after that.
            if kept == 0 && ended && iterator.has_end() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "bpf")]
mod native_tests;
