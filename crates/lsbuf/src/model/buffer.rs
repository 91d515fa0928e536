//! One shared buffer: what it is, and every reference to it that was found.

use std::fmt;
use std::time::SystemTime;

use super::{
    BufferId, Bytes, Fd, FdList, GemHandle, KernelHolder, Kind, Label, NameLives, OpenFiles, Origin, Overlap,
    Payers, Pid, PrivateCopies, Residual, Seals, Segment, ShortList, Tid, Why,
};

/// One buffer and its references.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Buffer {
    /// Which buffer it is.
    pub id: BufferId,
    /// Bytes of the whole buffer, whatever part of it is mapped.
    pub size: Option<Bytes>,
    /// Bytes really allocated: in memory, in swap, and allocated in advance (`st_blocks`). Always
    /// `None` for a dma-buf, whose `st_blocks` only repeats the size, and for kinds whose blocks
    /// the kernel does not count ([`Kind::is_charged`]).
    pub charged: Option<Bytes>,
    /// The part of `charged` that is in swap; `None`: unknown.
    pub swapped: Option<Bytes>,
    /// The size of its pages, if they are huge.
    pub huge_page: Option<Bytes>,
    /// Whether it has lost its name in its filesystem, or is a segment marked for removal: then it
    /// goes with its last reference. `None`: unknown, or it never had a name.
    pub deleted: Option<bool>,
    /// Operations that its seals forbid. `None`: not read, or it cannot be sealed.
    pub seals: Option<Seals>,
    /// The kernel's own account of a System V segment.
    pub segment: Option<Box<Segment>>,
    /// Other buffers that have the same memory. `None`: unknown.
    pub overlaps: Option<Vec<Overlap>>,
    /// `Some` and empty for a buffer without a name; `None` when the name could not be read.
    pub name: Option<Label>,
    /// Who made it: a DMA heap's or a driver's name.
    pub exporter: Option<Label>,
    /// References that the kernel counts, by the latest reading, without the reader's own. Of a
    /// System V segment: its attachments, and the other references to its files that were found. Of
    /// other shmem: the references to every file that was found open on it, which only BPF
    /// iterators report.
    pub count: Option<u64>,
    /// Programs that run from it: one reference for each address space. `None`: unknown. No program
    /// runs from a dma-buf.
    pub exe: Option<u64>,
    /// References that the kernel counts beyond those that were found, and how sure that is.
    pub residual: Residual,
    /// Fds in messages that nobody has received yet. `None`: unknown.
    pub in_flight: Option<u64>,
    /// Fixed files of io_uring. `None`: unknown.
    pub io_uring: Option<u64>,
    /// Devices attached to it, by device name. `None`: the kernel's own list cannot be read.
    pub attachments: Option<Vec<Label>>,
    /// GEM handles of it, where a driver lists them and
    /// [`Sources::gem_handles`](crate::scan::Sources::gem_handles) is set.
    pub handles: ShortList<GemHandle>,
    /// What holds it inside the kernel, or may, where that has a name. Io_urings and messages only
    /// if [`Sources::kernel_holders`](crate::scan::Sources::kernel_holders) is set.
    pub kernel_holders: ShortList<KernelHolder>,
    /// What processes got by writing to private mappings of it. Empty unless
    /// [`Scanner::ask_private_copies`](crate::scan::Scanner::ask_private_copies) was called.
    pub private_copies: ShortList<PrivateCopies>,
    /// When it was exported, by the inode's times. `None`: unreadable, or the times contradict each
    /// other because somebody changed them. The owner can set them to a later time, which cannot be
    /// seen.
    pub created_at: Option<SystemTime>,
    /// Of a System V segment the user id of its creator. Of others the owner of the inode: whoever
    /// made it, unless fchown(2) has changed that since.
    pub creator_uid: Option<u32>,
    /// What becomes of its name when its only holder exits.
    pub name_lives: NameLives,
    /// Who pays for its memory, if that was asked
    /// ([`Options::payers`](crate::scan::Options::payers)). `None`: not asked, or not known.
    pub payers: Option<Box<Payers>>,
    /// Which holders have the same open file, if that was asked
    /// ([`Detail::OpenFiles`](super::Detail::OpenFiles)). `None`: not asked, or not known.
    pub open_files: Option<Box<OpenFiles>>,
    /// Who made it, by the flight recorder, if that was asked ([`Detail::Origin`](super::Detail)).
    /// `None`: not asked, or no recorder is installed.
    pub origin: Option<Box<Origin>>,
    /// One entry per process, ordered by pid.
    pub holders: Vec<Holder>,
}

impl Buffer {
    /// A buffer of which only the identity is known.
    #[must_use]
    pub fn new(id: BufferId) -> Buffer {
        Buffer {
            id,
            size: None,
            charged: None,
            swapped: None,
            huge_page: None,
            deleted: None,
            seals: None,
            segment: None,
            overlaps: None,
            name: None,
            exporter: None,
            count: None,
            exe: if id.kind == Kind::DmaBuf { Some(0) } else { None },
            residual: Residual::Unknown(Why::NotCounted),
            in_flight: None,
            io_uring: None,
            attachments: None,
            handles: ShortList::default(),
            kernel_holders: ShortList::default(),
            private_copies: ShortList::default(),
            created_at: None,
            creator_uid: None,
            name_lives: NameLives::Stays,
            payers: None,
            open_files: None,
            origin: None,
            holders: Vec::new(),
        }
    }

    /// Its cost: the bytes charged for it, or its size for kinds of which the kernel does not
    /// report them. `None`: unknown.
    #[must_use]
    pub fn cost(&self) -> Option<Bytes> {
        self.id.kind.cost(self.size, self.charged)
    }

    /// Whether only processes that were not found hold it: the kernel counts attachments of the
    /// segment, and no process that was read has one.
    #[must_use]
    pub fn is_held_unseen(&self) -> bool {
        self.holders.is_empty() && self.segment.as_ref().is_some_and(|segment| segment.attached > 0)
    }

    /// Whether no process holds it, as far as can be known.
    #[must_use]
    pub fn is_unheld(&self) -> bool {
        self.holders.is_empty() && !self.is_held_unseen()
    }

    /// Whether two buffers differ at most in who holds them.
    #[cfg(feature = "history")]
    pub(crate) fn is_equal_but_for_holders(&self, other: &Buffer) -> bool {
        let Buffer {
            id,
            size,
            charged,
            swapped,
            huge_page,
            deleted,
            seals,
            segment,
            overlaps,
            name,
            exporter,
            count,
            exe,
            residual,
            in_flight,
            io_uring,
            attachments,
            handles,
            kernel_holders,
            private_copies,
            created_at,
            creator_uid,
            name_lives,
            payers,
            open_files,
            origin,
            holders: _,
        } = self;
        *id == other.id
            && (*size, *charged, *swapped) == (other.size, other.charged, other.swapped)
            && (*huge_page, *deleted, *seals) == (other.huge_page, other.deleted, other.seals)
            && (*count, *exe, *residual) == (other.count, other.exe, other.residual)
            && (*in_flight, *io_uring) == (other.in_flight, other.io_uring)
            && (*created_at, *creator_uid) == (other.created_at, other.creator_uid)
            && *name_lives == other.name_lives
            && (name, exporter, attachments) == (&other.name, &other.exporter, &other.attachments)
            && (segment, overlaps, payers) == (&other.segment, &other.overlaps, &other.payers)
            && (handles, kernel_holders) == (&other.handles, &other.kernel_holders)
            && (private_copies, open_files) == (&other.private_copies, &other.open_files)
            && *origin == other.origin
    }

    /// References that were found, of those that the kernel counts.
    pub(crate) fn found(&self) -> u64 {
        let held: u64 = self.holders.iter().map(|h| h.fd_refs() + h.map_refs()).sum();
        let hidden = [self.in_flight, self.io_uring, self.exe];
        hidden.into_iter().flatten().fold(held, u64::saturating_add)
    }
}

/// One process's references to one buffer. At least one of its lists has an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Holder {
    /// The holding process.
    pub pid: Pid,
    /// Slots of its fd table that count as references.
    pub fds: FdList,
    /// Slots opened with `O_PATH`: they keep the memory but are not in the kernel's count.
    pub opaths: ShortList<Fd>,
    /// VMAs of its address space.
    pub maps: ShortList<MapRef>,
    /// Whether the process runs a program from this buffer (`/proc/P/exe`), which is one reference
    /// of its address space.
    pub runs: bool,
    /// Fd tables of threads that do not share the process's.
    pub threads: ShortList<ThreadFds>,
    /// The holder whose fd table `fds` and `opaths` are slots of, if it shares that table
    /// (CLONE_FILES). Each slot is one reference and is counted there.
    pub fd_table_of: Option<Pid>,
    /// The holder whose address space `maps` are in, if it shares that (CLONE_VM). They are counted
    /// there.
    pub address_space_of: Option<Pid>,
}

impl Holder {
    /// A holder without references yet.
    #[must_use]
    pub fn new(pid: Pid) -> Holder {
        Holder {
            pid,
            fds: FdList::default(),
            opaths: ShortList::default(),
            maps: ShortList::default(),
            runs: false,
            threads: ShortList::default(),
            fd_table_of: None,
            address_space_of: None,
        }
    }

    /// References by fd, each counted with one holder only.
    #[must_use]
    pub fn fd_refs(&self) -> u64 {
        self.counted().map(|(fds, _)| fds.len() as u64).sum()
    }

    /// `O_PATH` fds, each counted with one holder only.
    #[must_use]
    pub fn opath_refs(&self) -> u64 {
        self.counted().map(|(_, opaths)| opaths.len() as u64).sum()
    }

    /// The fd tables that are counted with this holder.
    fn counted(&self) -> impl Iterator<Item = (&[Fd], &[Fd])> {
        let own = (self.fd_table_of.is_none()).then_some((&self.fds[..], &self.opaths[..]));
        let threads = self.threads.iter().filter(|t| t.fd_table_of.is_none());
        own.into_iter().chain(threads.map(|t| (&t.fds[..], &t.opaths[..])))
    }

    /// References by mapping, each counted with one holder only.
    #[must_use]
    pub fn map_refs(&self) -> u64 {
        if self.address_space_of.is_none() { self.maps.len() as u64 } else { 0 }
    }

    /// How many of its VMAs are private. `None`: a source does not report it.
    #[must_use]
    pub fn private_maps(&self) -> Option<u64> {
        self.maps.iter().map(|map| map.perms.map(|perms| u64::from(!perms.is_shared()))).sum()
    }

    /// Every fd by which it can reach the buffer, and every `O_PATH` fd, with whichever holder they
    /// are counted.
    #[must_use]
    pub fn slots(&self) -> (u64, u64) {
        let threads = self.threads.iter().fold((0, 0), |(f, o), t| (f + t.fds.len(), o + t.opaths.len()));
        ((self.fds.len() + threads.0) as u64, (self.opaths.len() + threads.1) as u64)
    }

    /// Bytes of address space that its VMAs of this buffer span.
    #[must_use]
    pub fn mapped(&self) -> Bytes {
        self.maps.iter().map(MapRef::len).sum()
    }
}

/// Slots of an fd table that a thread does not share with its process. The thread has unshared its
/// table, or the leader has exited and left its threads behind. Threads that share such a table are
/// named by the lowest of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ThreadFds {
    /// The thread, below `/proc/P/task`.
    pub tid: Tid,
    /// As [`Holder::fds`].
    pub fds: FdList,
    /// As [`Holder::opaths`].
    pub opaths: ShortList<Fd>,
    /// As [`Holder::fd_table_of`].
    pub fd_table_of: Option<Pid>,
}

/// One VMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct MapRef {
    /// First address.
    pub start: u64,
    /// First address past it; at least `start`.
    pub end: u64,
    /// Where in the buffer it begins, in bytes. `None`: the source does not report it
    /// (`map_files`), or the exporter replaced it by an offset of its own (GEM).
    pub offset: Option<u64>,
    /// Protection. `None`: the source does not report it.
    pub perms: Option<Perms>,
}

impl MapRef {
    /// Bytes it spans.
    #[must_use]
    pub fn len(&self) -> Bytes {
        Bytes(self.end.saturating_sub(self.start))
    }

    /// Whether it spans nothing, which the kernel never shows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == Bytes(0)
    }
}

/// A VMA's protection as `maps` prints it, such as `rw-s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Perms([u8; 4]);

impl Perms {
    /// Takes the four characters `[r-][w-][x-][sp]`; anything else is `None`.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Perms> {
        let &[r @ (b'r' | b'-'), w @ (b'w' | b'-'), x @ (b'x' | b'-'), s @ (b's' | b'p')] = text else {
            return None;
        };
        Some(Perms([r, w, x, s]))
    }

    /// From the meaning of each character.
    #[must_use]
    pub(crate) fn new(readable: bool, writable: bool, executable: bool, shared: bool) -> Perms {
        let or_not = |is: bool, c: u8| if is { c } else { b'-' };
        let kind = if shared { b's' } else { b'p' };
        Perms([or_not(readable, b'r'), or_not(writable, b'w'), or_not(executable, b'x'), kind])
    }

    /// Whether what is mapped may be executed.
    #[must_use]
    pub fn is_executable(self) -> bool {
        self.0[2] == b'x'
    }

    /// Whether the mapping is a shared one (MAP_SHARED).
    #[must_use]
    pub fn is_shared(self) -> bool {
        self.0[3] == b's'
    }
}

impl fmt::Display for Perms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&c| write!(f, "{}", char::from(c)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a holder with one fd takes no more than 64 bytes, and a buffer no more than 400:
    /// there may be a million holders.
    #[test]
    fn sizes() {
        assert!(size_of::<Holder>() <= 64);
        assert!(size_of::<Buffer>() <= 400, "{}", size_of::<Buffer>());
    }
}
