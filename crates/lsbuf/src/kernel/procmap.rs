//! PROCMAP_QUERY: an ioctl on an open `/proc/P/maps` that returns one VMA without the cost of the
//! text (Linux 6.11+; `do_procmap_query` in fs/proc/task_mmu.c).
//!
//! The kernel skips VMAs that no file backs and, on request, VMAs that are not shared. If no name
//! is requested, it does not build the path, which is the expensive part of the text. So VMAs are
//! recognised by their device: all dma-bufs have the same device until the next boot. A name is
//! needed only for a device that has not been decided yet. The path of every dma-buf begins in the
//! same way (`dmabuffs_dname`), so one VMA with another name rules out its whole device. io_urings
//! share the device of anonymous inodes with other files, so the name of each VMA of that device is
//! needed. So is that of each VMA of the kernel's own tmpfs, where a memfd and a System V segment
//! may have the same inode number.
//!
//! Measured against the text on Linux 6.12, 6.18 and 7.2: never more expensive, not even where
//! every VMA is returned; three times cheaper where few are.
//!
//! Limits: like the text, this is no snapshot; VMAs can change between two calls.
//! [`VmaFilter::Shared`] skips MAP_PRIVATE mappings of dma-bufs, which some exporters allow.
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
use super::shmem::{ShmMap, ShmemFinder, ShmemInterest};
use super::{LINK_PREFIX, read};
use crate::model::{Dev, Inode, Label, MapRef, Perms};

/// Flags of include/uapi/linux/fs.h. All are flags of `query_flags`; the first four occur in
/// `vma_flags` too.
const READABLE: u64 = 0x01;
const WRITABLE: u64 = 0x02;
const EXECUTABLE: u64 = 0x04;
const SHARED: u64 = 0x08;
const COVERING_OR_NEXT: u64 = 0x10;
const FILE_BACKED: u64 = 0x20;

/// Room for the longest path: PATH_MAX, which is no page size.
const NAME_ROOM: usize = 4096;

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

/// Which VMAs the kernel returns. All of them are backed by files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VmaFilter {
    /// Only shared ones, which `maps` marks with `s`.
    Shared,
    /// Private ones too.
    All,
}

/// What a VMA's device says about the VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// It is not a dma-buf's.
    Pass,
    /// It is a dma-buf's.
    Take,
    /// Not decided: its name has to be read.
    Ask,
}

/// Decides which devices are of interest.
pub(crate) trait Judge {
    /// What is known about a device.
    fn interest(&self, dev: Dev) -> Interest;

    /// Called when a VMA of that device has a name that is not a dma-buf's.
    fn rule_out(&mut self, dev: Dev);
}

/// Proof that the kernel knows the request, and what is needed to interpret its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queries {
    /// The device of anonymous inodes, io_urings among them.
    pub(crate) anonymous: Dev,
}

impl Queries {
    /// Tries the request on lsbuf's own mappings. `None`: the kernel does not know it, or this is a
    /// recorded tree.
    ///
    /// # Errors
    /// Any other reason why the kernel does not answer, such as a seccomp filter.
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

/// Whether this file knows the request. A file that does not know it returns `ENOTTY` (`vfs_ioctl`
/// in fs/ioctl.c), and no other error means that. `maps` knows it from Linux 6.11 on (commit
/// ed5d583a88a9).
fn answers(maps: BorrowedFd<'_>) -> Result<bool> {
    match next(maps, 0, VmaFilter::All, None) {
        Ok(_) => Ok(true),
        Err(Errno::NOTTY) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads the address space of an open `maps`, and looks for shared memory if `finder` is given.
/// `None`: the address space does not exist, or no longer.
pub(crate) fn walk(
    maps: BorrowedFd<'_>,
    filter: VmaFilter,
    judge: &mut impl Judge,
    finder: Option<&mut ShmemFinder>,
) -> Result<Option<Mapped>> {
    walk_by(&mut |from, name| next(maps, from, filter, name), judge, finder)
}

/// What is known of the name of the next VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VmaName {
    /// It is not requested.
    NotAsked,
    /// It is requested.
    Asked,
    /// It was requested, and it is longer than any path.
    TooLong,
}

/// A request for the VMA at an address or the next one after it, as [`next`] makes it.
type Ask<'a> = dyn FnMut(u64, Option<&mut [u8]>) -> Result<Option<MapFact>> + 'a;

/// Reads an address space by such requests.
///
/// A VMA is asked for without its name, and once more with it if the name is needed. Neighbours are
/// often files of the same filesystem. So if a name was needed, that of the next VMA is requested
/// at once.
fn walk_by(
    ask: &mut Ask<'_>,
    judge: &mut impl Judge,
    mut finder: Option<&mut ShmemFinder>,
) -> Result<Option<Mapped>> {
    /// More requests than any process needs. The limit is reached only if a process maps faster
    /// than it is read.
    const MOST: u32 = 1 << 25;
    let mut mapped = Mapped::default();
    let mut room = [0; NAME_ROOM];
    let (mut from, mut name) = (0, VmaName::NotAsked);
    for _ in 0..MOST {
        let asked = (name == VmaName::Asked).then_some(&mut room[..]);
        let fact = match ask(from, asked) {
            Ok(Some(fact)) => fact,
            Ok(None) => return Ok(Some(mapped)),
            Err(Errno::NAMETOOLONG) if name == VmaName::Asked => {
                name = VmaName::TooLong;
                continue;
            }
            Err(Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e),
        };
        let known = (name == VmaName::Asked).then(|| path(&room));
        let shmem =
            finder.as_deref_mut().and_then(|finder| Some((finder.interest(fact.dev, fact.ino)?, finder)));
        let needs_name = match shmem {
            Some((interest, finder)) => mapped.add_shmem(&fact, known, interest, finder),
            None => mapped.add(&fact, known, judge),
        };
        (from, name) = match (needs_name, name) {
            (false, _) => (fact.vma.end, VmaName::NotAsked),
            // The next answer is one VMA with its name, though perhaps not the same VMA.
            (true, VmaName::NotAsked) => (fact.vma.start, VmaName::Asked),
            (true, VmaName::Asked | VmaName::TooLong) => (fact.vma.end, VmaName::Asked),
        };
    }
    Err(Errno::FBIG)
}

impl Mapped {
    /// Adds a VMA of a filesystem of shared memory. Returns whether that needs its name; if `name`
    /// is then not given, nothing is added.
    fn add_shmem(
        &mut self,
        fact: &MapFact,
        name: Option<&[u8]>,
        interest: ShmemInterest,
        finder: &mut ShmemFinder,
    ) -> bool {
        match (interest, name) {
            (ShmemInterest::Known(object), _) => self.shmem.push(ShmMap { object, vma: fact.vma }),
            (ShmemInterest::Path, Some(path)) => {
                self.shmem.extend(finder.mapped(fact.dev, fact.ino, path, true, fact.vma));
            }
            (ShmemInterest::Path, None) => {}
        }
        interest == ShmemInterest::Path
    }

    /// Adds a VMA of another filesystem if it looks like a dma-buf's or an io_uring's. Returns as
    /// [`Mapped::add_shmem`].
    fn add(&mut self, fact: &MapFact, name: Option<&[u8]>, judge: &mut impl Judge) -> bool {
        let interest = judge.interest(fact.dev);
        match (interest, name) {
            (Interest::Take, _) => self.facts.push(fact.clone()),
            (Interest::Ask, Some(RING_LINK)) => self.ring = true,
            (Interest::Ask, Some(path)) => match path.strip_prefix(LINK_PREFIX) {
                Some(name) => self.facts.push(MapFact { name: Some(name.into()), ..fact.clone() }),
                None => judge.rule_out(fact.dev),
            },
            (Interest::Pass, _) | (Interest::Ask, None) => {}
        }
        interest == Interest::Ask
    }
}

/// The dma-buf's name that the VMA at that address shows, whole and raw, if the VMA still maps that
/// inode.
pub(crate) fn name(maps: BorrowedFd<'_>, of: &MapFact) -> Option<Label> {
    let mut room = [0; NAME_ROOM];
    let fact = next(maps, of.vma.start, VmaFilter::All, Some(&mut room)).ok()??;
    if (fact.dev, fact.ino) != (of.dev, of.ino) {
        return None;
    }
    path(&room).strip_prefix(LINK_PREFIX).map(Label::from)
}

/// Whether the address space is still in use, so that the process has neither exited nor called
/// exec. Also `true` if the request fails for another reason.
pub(crate) fn lives(maps: BorrowedFd<'_>) -> bool {
    !matches!(next(maps, 0, VmaFilter::All, None), Err(Errno::SRCH))
}

/// The text in a buffer up to its NUL.
fn path(room: &[u8]) -> &[u8] {
    room.split(|&b| b == 0).next().unwrap_or_default()
}

/// The VMA that covers `from`, or else the next one after it. `None`: there are no more. `ESRCH`:
/// there is no address space. `ENAMETOOLONG`: the name does not fit.
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
        // SAFETY: the opcode belongs to this structure, which has the kernel's layout. The kernel
        // writes the structure, and at most `vma_name_size` bytes to `vma_name_addr`: none, or the
        // buffer that `name` borrows for this call alone. It is one system call. If a helper is
        // killed in it, what it writes to is lost with the helper.
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
