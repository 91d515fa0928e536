//! What to scan, by which sources, and how far a scan may go.
//!
//! The options are plain structs with defaults. Name the fields that you set and take the rest from
//! `..Options::default()`: fields will be added.
//!
//! ```
//! use lsbuf::model::Kinds;
//! use lsbuf::scan::{Options, Sources};
//!
//! let sources = Sources { load_bpf: true, ..Sources::default() };
//! let options = Options { kinds: Kinds::DMABUF, sources, ..Options::default() };
//! # let _ = options;
//! ```

use std::path::PathBuf;
use std::time::Duration;

use crate::model::{Bytes, Details, Kind, Kinds};

/// How mappings are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mappings {
    /// The cheapest that the kernel has: queries, or else the text.
    #[default]
    Procfs,
    /// Queries (PROCMAP_QUERY, Linux 6.11 and later), which do not print what is no dma-buf's.
    Procmap,
    /// The text of `/proc/P/maps`.
    Maps,
    /// The links of `/proc/P/map_files`; needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
    MapFiles,
}

/// By which way references are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Way {
    /// The BPF iterators if they are pinned, else procfs. With [`Sources::load_bpf`] the iterators
    /// are loaded if none are pinned: at once if shared memory is looked for; else when procfs
    /// would take longer, when it could not prove everything, or from the second scan of a scanner
    /// on.
    #[default]
    Auto,
    /// The BPF iterators or no answer: those that are pinned, or else loaded with
    /// [`Sources::load_bpf`].
    Iterators,
    /// procfs alone.
    Procfs,
}

/// Which sources are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// By which way.
    pub way: Way,
    /// Whether BPF iterators may be loaded into the kernel if none are pinned. They go with the
    /// scanner. Loading takes CAP_BPF and CAP_PERFMON, or root, and some 25 ms.
    pub load_bpf: bool,
    /// How the processes' mappings are read.
    pub mappings: Mappings,
    /// Read the kernel's own list (debugfs `bufinfo`), where nothing better lists the buffers.
    pub kernel_list: bool,
    /// Read which GEM handles stand for a buffer, where a driver's debugfs lists them (amdgpu).
    /// Takes every client's lock.
    pub gem_handles: bool,
    /// Read which processes have the io_urings and sockets that may hold a buffer, where one has a
    /// reference that is not explained. Follows the link of every fd.
    pub kernel_holders: bool,
    /// Find out which driver's shmem is a dma-buf's memory, where such shmem is mapped: each
    /// dma-buf that could be it is mapped for a moment, without being accessed, which raises its
    /// count by one while it lasts.
    pub driver_shmem: bool,
}

impl Default for Sources {
    fn default() -> Sources {
        Sources {
            way: Way::Auto,
            load_bpf: false,
            mappings: Mappings::default(),
            kernel_list: true,
            gem_handles: false,
            kernel_holders: false,
            driver_shmem: false,
        }
    }
}

/// Where iterators are pinned unless somebody says otherwise. Not below `/sys/fs/bpf`, which
/// systemd mounts so that only root can enter it.
pub const PINS: &str = "/run/lsbuf";

/// The names of users, unless somebody says otherwise.
pub const PASSWD: &str = "/etc/passwd";

/// Where the kubelet keeps the logs of pods, unless somebody says otherwise.
pub const POD_LOGS: &str = "/var/log/pods";

/// Where the kubelet keeps links to the logs of containers, unless somebody says otherwise.
pub const CONTAINER_LOGS: &str = "/var/log/containers";

/// What to scan and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The procfs, or a recorded tree of one.
    pub proc_root: PathBuf,
    /// The sysfs with debugfs in it; `None`: there is none that belongs to this procfs.
    pub sys_root: Option<PathBuf>,
    /// Which sources are asked.
    pub sources: Sources,
    /// Which kinds of buffer are looked for. Dma-bufs alone cost less than any other kind.
    pub kinds: Kinds,
    /// Whether to list the files of each tmpfs and hugetlbfs that nobody holds
    /// ([`Snapshot::unheld`](crate::model::Snapshot::unheld)).
    pub unheld: bool,
    /// Whether to leave out what this process holds itself: the fds that it inherited, its
    /// mappings, its program. A command wants that. A program that uses this library may be a
    /// holder like any other.
    pub without_self: bool,
    /// What is read of each process beyond its identity, and of each segment. Each detail costs a
    /// few more system calls for each.
    pub details: Details,
    /// For how long a scanner uses again what it has read of a process beyond its identity, unless
    /// the process's command, user or cgroup changes. Zero: it reads everything in every scan.
    pub details_for: Duration,
    /// How much is kept of the longest command lines.
    pub longest_args: Bytes,
    /// The file with the names of users, in the form of passwd(5). `None`: there is none that
    /// belongs to this procfs.
    pub passwd: Option<PathBuf>,
    /// The folder of the logs of Kubernetes' pods, whose names tell the pods' names. `None`: as
    /// above.
    pub pod_logs: Option<PathBuf>,
    /// The folder of the links to the logs of Kubernetes' containers, whose names tell the names of
    /// containers. `None`: as above.
    pub container_logs: Option<PathBuf>,
    /// Whether to find out who pays for each buffer ([`Buffer::payers`](crate::model::Buffer)).
    /// BPF iterators look at every page of shared memory: some 50 ns for each. Without them, each
    /// held file is mapped and its page frames are looked up: some 500 ns for each.
    pub payers: bool,
    /// How many readings a scan may make in order to prove residuals. At least one is made. With
    /// more than one, a few more may follow within [`Options::time`].
    pub readings: u32,
    /// How long readings beyond [`Options::readings`] may go on.
    pub time: Duration,
    /// How long a reading waits for one process. Then that process's mappings are left out, or
    /// procfs is read in place of the iterators.
    pub deadline: Duration,
    /// Where iterators may be pinned: a folder of a bpf filesystem (see [`probes`](crate::probes)).
    pub pins: PathBuf,
}

impl Options {
    /// Whether files that nobody holds are to be listed.
    pub(super) fn lists_unheld(&self) -> bool {
        self.unheld && [Kind::Tmpfs, Kind::Hugetlbfs].iter().any(|&kind| self.kinds.has(kind))
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            proc_root: "/proc".into(),
            sys_root: Some("/sys".into()),
            sources: Sources::default(),
            kinds: Kinds::ALL,
            unheld: false,
            without_self: false,
            details: Details::NONE,
            details_for: Duration::ZERO,
            longest_args: Bytes(64 << 10),
            passwd: Some(PASSWD.into()),
            pod_logs: Some(POD_LOGS.into()),
            container_logs: Some(CONTAINER_LOGS.into()),
            payers: false,
            readings: 3,
            time: Duration::from_millis(250),
            deadline: Duration::from_secs(1),
            pins: PINS.into(),
        }
    }
}
