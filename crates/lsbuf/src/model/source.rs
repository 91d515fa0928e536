//! Where facts come from, and what the kernel counts without telling which files they are.

/// An interface of the kernel that facts came from.
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
}

impl Source {
    /// Whether it lists every dma-buf that the kernel has open, whoever holds it.
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
        }
    }
}

/// Files that sockets and rings keep. The kernel counts them, but does not tell which they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HiddenRefs {
    /// Fds that wait in sockets which some process holds, of whatever files. A socket that is itself in flight is not seen.
    pub in_flight: u64,
    /// Fixed files of io_urings that may be dma-bufs, or may themselves keep files. A ring that several processes hold
    /// counts in each.
    pub io_uring: u64,
    /// Whether some that may keep more could not be asked.
    pub unknown: bool,
}
