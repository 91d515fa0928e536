//! One answer: the buffers, who holds them, and how much of the machine was seen.
//!
//! Coverage is part of the answer. Every reason for which it may be incomplete is a [`Note`], and an
//! answer is complete exactly when no note says otherwise.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::{Buffer, Bytes, Device, Kinds, Pid, Process};

/// Everything that one scan found.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Wall clock when the scan began.
    pub taken_at: SystemTime,
    /// Where it was taken.
    pub host: Host,
    /// Which kinds of buffer were looked for.
    pub kinds: Kinds,
    /// How much of the machine was seen.
    pub coverage: Coverage,
    /// Every buffer found, ordered by identity.
    pub buffers: Vec<Buffer>,
    /// Every process that holds one, or a sync_file, ordered by pid. Every holder of every buffer is in here.
    pub processes: Vec<Process>,
    /// Every open device node whose driver could hold buffers, ordered by path.
    pub devices: Vec<Device>,
}

/// The machine and the boot. Inode numbers mean nothing across boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `kernel.hostname`.
    pub hostname: Option<String>,
    /// `kernel.osrelease`.
    pub kernel: Option<String>,
    /// `kernel.random.boot_id`.
    pub boot_id: Option<String>,
}

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

/// How much of the machine an answer speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// What the answer was made from.
    pub sources: Vec<Source>,
    /// What became of the processes that procfs listed.
    pub processes: ProcessCounts,
    /// The unreadable ones, ordered by pid.
    pub unreadable: Vec<Pid>,
    /// Files that are in no fd table, as far as the kernel counts them; `None`: not looked for.
    pub kept: Option<KeptElsewhere>,
    /// Wall time from the first question to the joined answer.
    pub duration: Duration,
    /// What a reader must know to trust the figures.
    pub notes: Vec<Note>,
}

impl Coverage {
    /// Whether every process and the kernel's own list were read, and nothing contradicted.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.notes.iter().any(Note::is_partial)
    }

    /// Whether no reference can have stayed unseen in a process: what an exact residual needs.
    #[must_use]
    pub fn saw_every_process(&self) -> bool {
        !self.notes.iter().any(Note::hides_references)
    }
}

/// Files that sockets and rings keep. The kernel counts them, but does not tell which they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptElsewhere {
    /// Fds that wait in sockets which some process holds, of whatever files. A socket that is itself in flight is not seen.
    pub in_flight: u64,
    /// Fixed files of io_urings that may be dma-bufs, or may themselves keep files. A ring that several processes hold
    /// counts in each.
    pub io_uring: u64,
    /// Whether some that may keep more could not be asked.
    pub unknown: bool,
}

/// `total` = `read` + `unreadable` + `vanished`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessCounts {
    /// Processes that procfs listed, kernel threads among them.
    pub total: u64,
    /// Both their fd table and their mappings were read.
    pub read: u64,
    /// At least one of the two was refused.
    pub unreadable: u64,
    /// Gone before they were read; what they held went with them.
    pub vanished: u64,
}

/// Something about the answer that a reader must know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Processes refused to be read.
    Unreadable {
        /// For want of permission.
        denied: u64,
        /// With any other error.
        failed: u64,
    },
    /// The procfs shows no kernel threads: it is a container's, or hides other users' processes.
    NotWholeMachine,
    /// The kernel's list of buffers could not be read.
    NoKernelList {
        /// Why not.
        why: String,
    },
    /// The kernel's list contradicts its own closing line.
    ListContradicts {
        /// Buffers in the rows.
        rows: u64,
        /// Buffers in the closing line.
        stated: u64,
    },
    /// Processes kept appearing faster than they could be read; what they inherited may look like the kernel's.
    Newcomers {
        /// How many were left.
        processes: u64,
    },
    /// Text that did not parse; each such fact was dropped.
    Garbled {
        /// Where it stood.
        source: Source,
        /// How many.
        facts: u64,
    },
    /// Things named like a dma-buf that could neither be proven nor ruled out; left out of every figure.
    Unproven {
        /// fds and mappings together.
        references: u64,
    },
    /// Buffers whose count moved in every round; their kernel references are an estimate.
    Unsteady {
        /// How many.
        buffers: u64,
    },
    /// Buffers with more references found than the kernel counts; their kernel references are unknown.
    Overcounted {
        /// How many.
        buffers: u64,
    },
    /// References of these buffers may be among what sockets and rings keep.
    MaybeElsewhere {
        /// Buffers with references that no process explains.
        buffers: u64,
        /// What is kept.
        kept: KeptElsewhere,
    },
    /// Processes were exiting while references were counted: what they held is out of sight before it is released.
    Exiting {
        /// How many.
        processes: u64,
    },
    /// In every round a process was started or closed an fd: what was inherited between two looks at the list of
    /// processes, or moved between two looks into an fd table, may look like the kernel's.
    Busy,
    /// Buffers whose holders may share an fd table or an address space: the kernel would not compare them.
    Uncompared {
        /// How many.
        buffers: u64,
    },
    /// Messages that nobody has received carry fds, or may: shmem that only they hold does not show.
    HiddenInFlight {
        /// How many fds; 0: some sockets could not be asked.
        fds: u64,
    },
    /// Shmem of which the source has no count of references.
    Uncounted {
        /// How many buffers.
        buffers: u64,
    },
    /// Shmem that is only mapped, whose inodes could not be asked: sizes and charges are unknown.
    Unsized {
        /// How many buffers.
        buffers: u64,
    },
    /// Tables of System V segments that could not be read.
    NoSegments {
        /// How many IPC namespaces.
        namespaces: u64,
    },
    /// Processes whose fds are only known by number and mount: shmem among them does not show.
    OnlyFdinfo {
        /// How many.
        processes: u64,
    },
    /// Udmabufs whose pages may be those of memfds that are in the answer too, and shmem of drivers that may be dma-bufs'.
    MaybeSameMemory {
        /// How many.
        buffers: u64,
        /// What they cost together.
        size: Bytes,
    },
    /// Buffers that the kernel lists and no process that could be read holds, while some could not be read.
    Unexplained {
        /// How many.
        buffers: u64,
        /// Their size together.
        size: Bytes,
    },
}

impl Note {
    /// Whether the answer is incomplete for this reason.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        match self {
            Note::Unreadable { .. }
            | Note::NotWholeMachine
            | Note::NoKernelList { .. }
            | Note::ListContradicts { .. }
            | Note::Newcomers { .. }
            | Note::Garbled { .. }
            | Note::Unproven { .. }
            | Note::HiddenInFlight { .. }
            | Note::Unsized { .. }
            | Note::NoSegments { .. }
            | Note::OnlyFdinfo { .. }
            | Note::Unexplained { .. } => true,
            Note::MaybeSameMemory { .. }
            | Note::Uncounted { .. }
            | Note::Unsteady { .. }
            | Note::Overcounted { .. }
            | Note::Exiting { .. }
            | Note::Busy
            | Note::MaybeElsewhere { .. }
            | Note::Uncompared { .. } => false,
        }
    }

    /// Whether references held by a process can have stayed unseen for this reason.
    fn hides_references(&self) -> bool {
        match self {
            Note::Unreadable { .. }
            | Note::NotWholeMachine
            | Note::Newcomers { .. }
            | Note::Exiting { .. }
            | Note::Busy
            | Note::Garbled { .. }
            | Note::Unproven { .. } => true,
            Note::NoKernelList { .. }
            | Note::ListContradicts { .. }
            | Note::Unsteady { .. }
            | Note::Overcounted { .. }
            | Note::MaybeElsewhere { .. }
            | Note::HiddenInFlight { .. }
            | Note::Uncounted { .. }
            | Note::Unsized { .. }
            | Note::NoSegments { .. }
            | Note::OnlyFdinfo { .. }
            | Note::MaybeSameMemory { .. }
            | Note::Uncompared { .. }
            | Note::Unexplained { .. } => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Unreadable { denied, failed: 0 } => {
                write!(f, "{} could not be read (permission denied)", count(*denied, "process", "processes"))
            }
            Note::Unreadable { denied, failed } => write!(
                f,
                "{} could not be read ({denied} permission denied, {failed} other errors)",
                count(denied + failed, "process", "processes")
            ),
            Note::NotWholeMachine => f.write_str(
                "this procfs shows no kernel threads: processes outside this pid namespace, or hidden by \
                 hidepid, are not seen",
            ),
            Note::NoKernelList { why } => {
                write!(
                    f,
                    "the kernel's own list could not be read ({why}): dma-bufs that no process holds do not show"
                )
            }
            Note::ListContradicts { rows, stated } => write!(
                f,
                "the kernel's own list has {rows} readable rows but states {stated} buffers: some may be missing"
            ),
            Note::Newcomers { processes } => write!(
                f,
                "{} appeared too late to be read, while processes kept appearing",
                count(*processes, "process", "processes")
            ),
            Note::Garbled { source, facts } => {
                write!(
                    f,
                    "{} in {} could not be understood and were left out",
                    count(*facts, "fact", "facts"),
                    source.as_str()
                )
            }
            Note::Unproven { references } => write!(
                f,
                "{} named like a dma-buf could not be proven to be one and were left out",
                count(*references, "reference", "references")
            ),
            Note::Unsteady { buffers } => write!(
                f,
                "the count of {} moved while it was read: kernel references are an estimate",
                count(*buffers, "buffer", "buffers")
            ),
            Note::Overcounted { buffers } => write!(
                f,
                "more references of {} were found than the kernel counts: kernel references are unknown",
                count(*buffers, "buffer", "buffers")
            ),
            Note::MaybeElsewhere { buffers, kept } => {
                let mut parts = Vec::new();
                if kept.in_flight > 0 {
                    parts.push(format!("messages not yet received carry {}", count(kept.in_flight, "fd", "fds")));
                }
                if kept.io_uring > 0 {
                    let files = count(kept.io_uring, "file", "files");
                    parts.push(format!("io_urings have {files} registered that may be buffers"));
                }
                if kept.unknown {
                    parts.push("some that may keep more could not be asked".to_owned());
                }
                write!(
                    f,
                    "{}: some kernel references of {} may be among them, all are an estimate",
                    parts.join(", "),
                    count(*buffers, "buffer", "buffers")
                )
            }
            Note::Exiting { processes } => write!(
                f,
                "{} exiting, and what they held may still be counted: kernel references are an estimate",
                count(*processes, "process was", "processes were")
            ),
            Note::Busy => f.write_str(
                "in every round processes were started or closed fds, and what they held may look like the kernel's: \
                 kernel references are an estimate",
            ),
            Note::Uncompared { buffers } => write!(
                f,
                "whether holders of {} share an fd table or an address space could not be asked: kernel references are \
                 an estimate",
                count(*buffers, "buffer", "buffers")
            ),
            Note::HiddenInFlight { fds: 0 } => f.write_str(
                "some sockets could not be asked what is in flight: shmem that only a message holds does not show",
            ),
            Note::HiddenInFlight { fds } => write!(
                f,
                "messages not yet received carry {}, nobody tells of which files: shmem that only they hold does not show",
                count(*fds, "fd", "fds")
            ),
            Note::Uncounted { buffers } => write!(
                f,
                "procfs has no count of references for {}: that, what is left over, and what an exit would free take BPF \
                 iterators (root, or lsbuf probes install)",
                count(*buffers, "shmem buffer", "shmem buffers")
            ),
            Note::Unsized { buffers } => write!(
                f,
                "the size of {}, only mapped, could not be asked (CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN may)",
                count(*buffers, "shmem buffer", "shmem buffers")
            ),
            Note::NoSegments { namespaces } => write!(
                f,
                "the System V segments of {} could not be listed",
                count(*namespaces, "IPC namespace", "IPC namespaces")
            ),
            Note::OnlyFdinfo { processes } => write!(
                f,
                "the fd links of {} could not be followed: shmem that they hold by fd does not show",
                count(*processes, "process", "processes")
            ),
            Note::MaybeSameMemory { buffers, size } => write!(
                f,
                "{} of {} bytes may be other buffers' memory too (udmabufs memfds', drivers' shmem dma-bufs'): totals may \
                 count that twice",
                count(*buffers, "buffer", "buffers"),
                size.0
            ),
            Note::Unexplained { buffers, size } => write!(
                f,
                "{} of {} bytes that the kernel lists are held by no process that could be read",
                count(*buffers, "buffer", "buffers"),
                size.0
            ),
        }
    }
}

fn count(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}
