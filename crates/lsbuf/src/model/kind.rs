//! Kinds of shared buffers, and sets of kinds.
//!
//! The kernel proves a buffer's kind: by the filesystem that its inode is on, and there by a name
//! that only the kernel gives. The text of a path alone never decides.

use std::fmt;

use super::Bytes;

/// A kind of shared buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A dma-buf: an inode on the kernel's dma-buf pseudo filesystem (magic 0x444d4142).
    DmaBuf,
    /// Made by `memfd_create(2)`, of small pages or huge ones.
    Memfd,
    /// A System V shared memory segment, `shmget(2)`.
    Sysv,
    /// Memory of `mmap(2)` with `MAP_SHARED | MAP_ANONYMOUS`. It has no fd and goes with its last
    /// mapping.
    ShmAnon,
    /// A file of a mounted tmpfs, `/dev/shm` among them, that some process holds.
    Tmpfs,
    /// A file of a mounted hugetlbfs that some process holds.
    Hugetlbfs,
    /// The memory of a GPU driver's object, which appears as a shmem file where it is mapped.
    GemShmem,
    /// Android's ashmem (until Linux 5.17).
    Ashmem,
    /// Another file of the kernel's own tmpfs.
    ShmOther,
    /// Made by `memfd_secret(2)`.
    Secretmem,
    /// Memory of a KVM guest (guest_memfd). The guest may share it with the host or not.
    GuestMemfd,
}

impl Kind {
    /// Every kind, in the order in which help lists them.
    pub const ALL: &'static [Kind] = &[
        Kind::DmaBuf,
        Kind::Memfd,
        Kind::Sysv,
        Kind::ShmAnon,
        Kind::Tmpfs,
        Kind::Hugetlbfs,
        Kind::GemShmem,
        Kind::Ashmem,
        Kind::ShmOther,
        Kind::Secretmem,
        Kind::GuestMemfd,
    ];

    /// The word for it on the command line and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::DmaBuf => "dmabuf",
            Kind::Memfd => "memfd",
            Kind::Sysv => "sysv",
            Kind::ShmAnon => "shm-anon",
            Kind::Tmpfs => "tmpfs",
            Kind::Hugetlbfs => "hugetlbfs",
            Kind::GemShmem => "gem-shmem",
            Kind::Ashmem => "ashmem",
            Kind::ShmOther => "shm-other",
            Kind::Secretmem => "secretmem",
            Kind::GuestMemfd => "guest_memfd",
        }
    }

    /// The kind for which [`Kind::as_str`] has that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Kind> {
        Kind::ALL.iter().copied().find(|kind| kind.as_str() == word)
    }

    /// The cost of a buffer of this kind, from its two figures: the bytes charged for it, or else
    /// its size.
    pub(crate) fn cost(self, size: Option<Bytes>, charged: Option<Bytes>) -> Option<Bytes> {
        if self.is_charged() { charged } else { size }
    }

    /// Whether the bytes charged for it are its cost. Its size then only says how much it may use.
    #[must_use]
    pub fn is_charged(self) -> bool {
        // The kernel counts no blocks for the last two (`st_blocks` is 0).
        !matches!(self, Kind::DmaBuf | Kind::Secretmem | Kind::GuestMemfd)
    }

    /// Whether a buffer of this kind goes with its last reference. A file of a mounted filesystem
    /// and a segment stay until somebody removes them.
    #[must_use]
    pub fn goes_unheld(self) -> bool {
        !matches!(self, Kind::Sysv | Kind::Tmpfs | Kind::Hugetlbfs)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// Every kind.
    pub const ALL: Kinds = Kinds((1 << Kind::ALL.len()) - 1);

    /// Every kind but dma-bufs.
    pub const SHMEM: Kinds = Kinds(Kinds::ALL.0 & !Kinds::DMABUF.0);

    /// Dma-bufs alone.
    pub const DMABUF: Kinds = Kinds(1);

    /// Whether the set has that kind.
    #[must_use]
    pub fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }

    /// The kinds of the set, in the order of [`Kind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied().filter(move |&kind| self.has(kind))
    }

    /// Whether the set has any kind but dma-bufs.
    #[must_use]
    pub fn has_shmem(self) -> bool {
        self.0 & !Kinds::DMABUF.0 != 0
    }
}

impl From<Kind> for Kinds {
    fn from(kind: Kind) -> Kinds {
        [kind].into_iter().collect()
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Kinds {
        Kinds(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a set has the kinds that were put in and no others, and that `ALL` has every
    /// kind.
    #[test]
    fn sets() {
        let set: Kinds = [Kind::Memfd, Kind::GuestMemfd].into_iter().collect();
        let members: Vec<Kind> = set.iter().collect();
        assert_eq!(members, [Kind::Memfd, Kind::GuestMemfd]);
        assert!(set.has_shmem() && !Kinds::DMABUF.has_shmem() && Kinds::DMABUF.has(Kind::DmaBuf));
        assert_eq!(Kind::ALL.iter().copied().collect::<Kinds>(), Kinds::ALL);
    }
}
