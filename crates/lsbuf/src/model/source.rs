//! The kernel interfaces that facts come from. Also the numbers of references in sockets and
//! io_urings: the kernel counts these and does not say to which files they are.

/// A kernel interface that facts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// fd tables: `/proc/P/fd`.
    Fd,
    /// `/proc/P/fdinfo` of dma-buf fds.
    Fdinfo,
    /// The text of `/proc/P/maps`.
    Maps,
    /// PROCMAP_QUERY on `/proc/P/maps`.
    Procmap,
    /// The links of `/proc/P/map_files`.
    MapFiles,
    /// debugfs `dma_buf/bufinfo`: the kernel's own list.
    Bufinfo,
    /// The kernel's own table of System V segments, `/proc/sysvipc/shm`.
    Sysvipc,
    /// The BPF iterator over tasks.
    TaskIterator,
    /// The BPF iterator over the fds of all tasks.
    TaskFileIterator,
    /// The BPF iterator over the mappings of all tasks.
    TaskVmaIterator,
    /// The BPF iterator over dma-bufs.
    DmaBufIterator,
    /// The BPF iterator over the kernel's lists of inodes of shared memory.
    ShmemInodesIterator,
    /// `/proc/kpagecgroup`: who pays for a page frame.
    Kpagecgroup,
    /// The records of the flight recorder ([`crate::origins`]).
    Origins,
}

impl Source {
    /// Every source.
    pub const ALL: &'static [Source] = &[
        Source::Fd,
        Source::Fdinfo,
        Source::Maps,
        Source::Procmap,
        Source::MapFiles,
        Source::Bufinfo,
        Source::Sysvipc,
        Source::TaskIterator,
        Source::TaskFileIterator,
        Source::TaskVmaIterator,
        Source::DmaBufIterator,
        Source::ShmemInodesIterator,
        Source::Kpagecgroup,
        Source::Origins,
    ];

    /// The source for which [`Source::as_str`] has that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Source> {
        Source::ALL.iter().copied().find(|source| source.as_str() == word)
    }

    /// Whether it lists every dma-buf, whoever holds it.
    #[must_use]
    pub fn lists_buffers(self) -> bool {
        matches!(self, Source::Bufinfo | Source::DmaBufIterator)
    }

    /// The word for it in JSON and on the terminal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Fd => "fd",
            Source::Fdinfo => "fdinfo",
            Source::Maps => "maps",
            Source::Procmap => "procmap",
            Source::MapFiles => "map_files",
            Source::Bufinfo => "bufinfo",
            Source::Sysvipc => "sysvipc",
            Source::TaskIterator => "bpf:task",
            Source::TaskFileIterator => "bpf:task_file",
            Source::TaskVmaIterator => "bpf:task_vma",
            Source::DmaBufIterator => "bpf:dmabuf",
            Source::ShmemInodesIterator => "bpf:shmem_inodes",
            Source::Kpagecgroup => "kpagecgroup",
            Source::Origins => "bpf:origins",
        }
    }
}

/// References in sockets and io_urings. The kernel counts them and does not say to which files they
/// are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HiddenRefs {
    /// Fds in messages that wait in sockets which some process holds, of whatever files. A socket
    /// that is itself in flight is not seen.
    pub in_flight: u64,
    /// Fixed files of io_urings that may be dma-bufs, or that may themselves hold files. A ring
    /// that several processes hold counts for each.
    pub io_uring: u64,
    /// Whether there may be more, which could not be read.
    pub unknown: bool,
}
