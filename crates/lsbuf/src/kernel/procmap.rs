//! PROCMAP_QUERY: one VMA at a time from an open `/proc/P/maps`, without its text (Linux 6.11+; `do_procmap_query` in
//! fs/proc/task_mmu.c).
//!
//! The kernel skips by itself what no file backs, and on demand what is not shared; and where no name is asked for it puts
//! no path together, which is what makes the text dear. So a VMA is told by its device: the dma-bufs' own is one and the
//! same for the whole boot. Names are asked only of devices that nobody has decided on yet. The name of every dma-buf's
//! path begins alike (`dmabuffs_dname`), so one VMA with another name rules out its whole device. Rings share their device,
//! that of anonymous inodes, with other things, and are asked for their names each.
//!
//! Measured against the text, on Linux 6.12, 6.18 and 7.2: never dearer, not even where every VMA is returned; three times
//! cheaper where few are.
//!
//! Limits: as the text, this is no snapshot: VMAs move between two calls. [`VmaFilter::Shared`] passes over MAP_PRIVATE
//! mappings of dma-bufs, which some exporters allow.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::fstat;
use rustix::io::{Errno, Result};
use rustix::ioctl::{Updater, ioctl, opcode};

use super::guard;
use super::hidden_refs::RING_LINK;
use super::identity::device_of;
use super::maps::{MapFact, Mapped};
use super::root::ProcRoot;
use super::shmem::{self, ShmMap, ShmemFinder};
use super::{LINK_PREFIX, read};
use crate::model::{Dev, Inode, Label, MapRef, Perms};

/// Flags of include/uapi/linux/fs.h: of `query_flags`, and from `SHARED` down of `vma_flags` too.
const READABLE: u64 = 0x01;
const WRITABLE: u64 = 0x02;
const EXECUTABLE: u64 = 0x04;
const SHARED: u64 = 0x08;
const COVERING_OR_NEXT: u64 = 0x10;
const FILE_BACKED: u64 = 0x20;

/// Room for a name. A dma-buf's path has at most 40 bytes with its NUL; one that does not fit is no dma-buf's.
const NAME_ROOM: usize = 256;

/// Room for any path: PATH_MAX, which is no page size.
const LONG_ROOM: usize = 4096;

/// `struct procmap_query`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

/// Which VMAs the kernel returns. All of them are of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VmaFilter {
    /// Those that `maps` marks `s`.
    Shared,
    /// Private ones too.
    All,
}

/// What a VMA is worth by its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// It is no dma-buf's.
    Pass,
    /// It is a dma-buf's.
    Take,
    /// Its name may tell.
    Ask,
}

/// Who decides on devices.
pub(crate) trait Judge {
    /// What is known of one.
    fn interest(&self, dev: Dev) -> Interest;

    /// A VMA of that device has the name of no dma-buf.
    fn rule_out(&mut self, dev: Dev);
}

/// That the kernel answers, and what has to be known to make sense of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queries {
    /// The device of anonymous inodes, rings among them.
    pub(crate) anonymous: Dev,
}

impl Queries {
    /// Tries it on our own mappings. `None`: the kernel has it not, or this is a recorded tree.
    ///
    /// # Errors
    /// Whatever else keeps it from answering, such as a seccomp filter that refuses it.
    pub(crate) fn probe(root: &ProcRoot) -> Result<Option<Queries>> {
        let has_it = match root.tree().own_maps(root.dir()) {
            Ok(own) => answers(own.as_fd())?,
            Err(Errno::NOTTY) => false,
            Err(e) => return Err(e),
        };
        if !has_it {
            return Ok(None);
        }
        let anonymous = fstat(eventfd(0, EventfdFlags::CLOEXEC)?)?;
        Ok(Some(Queries { anonymous: device_of(&anonymous) }))
    }
}

/// Whether this file knows the request. One that does not says `ENOTTY` (`vfs_ioctl` in fs/ioctl.c), and nothing else does: so
/// does `maps` before "fs/procfs: implement efficient VMA querying API" (Linux 6.11).
fn answers(maps: BorrowedFd<'_>) -> Result<bool> {
    match next(maps, 0, VmaFilter::All, None) {
        Ok(_) => Ok(true),
        Err(Errno::NOTTY) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads the address space of an open `maps`; shmem is looked for with `family`. `None`: there is none, or none any more.
pub(crate) fn walk(
    maps: BorrowedFd<'_>,
    filter: VmaFilter,
    judge: &mut impl Judge,
    mut finder: Option<&mut ShmemFinder>,
) -> Result<Option<Mapped>> {
    /// No process has as many; one that maps faster than it is read comes there.
    const MOST: u32 = 1 << 24;
    let mut mapped = Mapped::default();
    let mut from = 0;
    let mut long = [0; LONG_ROOM];
    for _ in 0..MOST {
        let fact = match next(maps, from, filter, None) {
            Ok(Some(fact)) => fact,
            Ok(None) => return Ok(Some(mapped)),
            Err(Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e),
        };
        from = fact.vma.end;
        if let Some(finder) = &mut finder
            && let Some(interest) = finder.interest(fact.dev, fact.ino)
        {
            match interest {
                shmem::ShmemInterest::Known(id) => mapped.shmem.push(ShmMap { id, vma: fact.vma }),
                shmem::ShmemInterest::Path => match next(maps, fact.vma.start, filter, Some(&mut long)) {
                    Ok(Some(fact)) if finder.interest(fact.dev, fact.ino).is_none() => from = fact.vma.start,
                    Ok(Some(fact)) => {
                        from = fact.vma.end;
                        let found = finder.mapped(fact.dev, fact.ino, path(&long), true, fact.vma);
                        mapped.shmem.extend(found);
                    }
                    Err(Errno::NAMETOOLONG) | Ok(None) => {}
                    Err(Errno::SRCH) => return Ok(None),
                    Err(e) => return Err(e),
                },
            }
            continue;
        }
        match judge.interest(fact.dev) {
            Interest::Pass => {}
            Interest::Take => mapped.facts.push(fact),
            Interest::Ask => {
                let mut room = [0; NAME_ROOM];
                // What comes back is one VMA with its name, though it may not be the one from before.
                match next(maps, fact.vma.start, filter, Some(&mut room)) {
                    Ok(Some(fact)) => {
                        from = fact.vma.end;
                        match path(&room) {
                            RING_LINK => mapped.ring = true,
                            path => match path.strip_prefix(LINK_PREFIX) {
                                Some(name) => mapped.facts.push(MapFact { name: Some(name.into()), ..fact }),
                                None => judge.rule_out(fact.dev),
                            },
                        }
                    }
                    Err(Errno::NAMETOOLONG) | Ok(None) => {}
                    Err(Errno::SRCH) => return Ok(None),
                    Err(e) => return Err(e),
                }
            }
        }
    }
    Err(Errno::FBIG)
}

/// The dma-buf's name that the VMA at that address shows, whole and raw, if it still maps that inode.
pub(crate) fn name(maps: BorrowedFd<'_>, of: &MapFact) -> Option<Label> {
    let mut room = [0; NAME_ROOM];
    let fact = next(maps, of.vma.start, VmaFilter::All, Some(&mut room)).ok()??;
    if (fact.dev, fact.ino) != (of.dev, of.ino) {
        return None;
    }
    path(&room).strip_prefix(LINK_PREFIX).map(Label::from)
}

/// Whether the address space is still in use: neither exited nor replaced by an exec. Says yes if it cannot be asked.
pub(crate) fn lives(maps: BorrowedFd<'_>) -> bool {
    !matches!(next(maps, 0, VmaFilter::All, None), Err(Errno::SRCH))
}

/// What was filled in, up to its NUL.
fn path(room: &[u8]) -> &[u8] {
    room.split(|&b| b == 0).next().unwrap_or_default()
}

/// The VMA that covers `from`, or else the next one behind it. `None`: there is no more. `ESRCH`: there is no address
/// space. `ENAMETOOLONG`: the VMA has a name without room for it.
#[inline]
fn next(
    maps: BorrowedFd<'_>,
    from: u64,
    filter: VmaFilter,
    name: Option<&mut [u8]>,
) -> Result<Option<MapFact>> {
    const PROCMAP_QUERY: rustix::ioctl::Opcode = opcode::read_write::<Query>(b'f', 17);
    let shared = if filter == VmaFilter::Shared { SHARED } else { 0 };
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_flags: COVERING_OR_NEXT | FILE_BACKED | shared,
        query_addr: from,
        ..Query::default()
    };
    if let Some(room) = name {
        query.vma_name_size = u32::try_from(room.len()).unwrap_or(0);
        query.vma_name_addr = room.as_mut_ptr().expose_provenance() as u64;
    }
    let done = read::retry(|| {
        // SAFETY: the opcode is that of this structure, which is as the kernel's. The kernel writes it, and at most
        // `vma_name_size` bytes to `vma_name_addr`: none, or what the borrow in `name` gives to this call alone. It is one
        // system call, and what it writes to is lost with a helper that is killed in it.
        unsafe { guard::marked(None, || ioctl(maps, Updater::<PROCMAP_QUERY, Query>::new(&mut query))) }
    });
    match done {
        Ok(()) => Ok(Some(query.fact())),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

impl Query {
    fn fact(&self) -> MapFact {
        MapFact {
            dev: Dev { major: self.dev_major, minor: self.dev_minor },
            ino: Inode(self.inode),
            name: None,
            vma: MapRef {
                start: self.vma_start,
                end: self.vma_end,
                offset: Some(self.vma_offset),
                perms: Some(Perms::new(
                    self.vma_flags & READABLE != 0,
                    self.vma_flags & WRITABLE != 0,
                    self.vma_flags & EXECUTABLE != 0,
                    self.vma_flags & SHARED != 0,
                )),
            },
        }
    }
}

#[cfg(test)]
#[path = "procmap_tests.rs"]
mod tests;
