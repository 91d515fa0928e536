//! The list of the flight recorder's programs: at which functions of the kernel they run, and what
//! is not recorded where one of them cannot.
//!
//! All functions are in every kernel from 5.10 to 7.3. Most of them are static, so another compiler
//! may have inlined one. Then the buffers of which it is the birth are not recorded, or no clients
//! are, and the answer says so.

use crate::model::Kind;

/// The version of the flight recorder's records: their layout and their meaning. It goes up with
/// every change of any of these, so that the records of another version are not read.
pub(crate) const ORIGINS_LAYOUT: u32 = 2;

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    ShmemDied,
    HugeDied,
    DmabufDied,
    ListFreed,
    ListArrived,
    FileWasTaken,
    ListCopied,
    ListQueued,
    ListArrives,
    FileTaken,
    FileReceived,
    FileOffered,
    ShmemBorn,
    HugeBorn,
    DmabufBorn,
}

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookRole {
    Birth,
    Death,
    /// It sees who receives a buffer, or from whom.
    Passing,
}

impl Hook {
    /// All of them, in the order in which they are attached: what dies is noticed before anything
    /// is recorded, so no record outlives its buffer. Who receives a buffer is noticed before there
    /// are records, so the first one is.
    pub(crate) const ALL: [Hook; 15] = [
        Hook::ShmemDied,
        Hook::HugeDied,
        Hook::DmabufDied,
        Hook::ListFreed,
        Hook::ListArrived,
        Hook::FileWasTaken,
        Hook::ListCopied,
        Hook::ListQueued,
        Hook::ListArrives,
        Hook::FileTaken,
        Hook::FileReceived,
        Hook::FileOffered,
        Hook::ShmemBorn,
        Hook::HugeBorn,
        Hook::DmabufBorn,
    ];

    /// Its name in the object.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Hook::ShmemDied => "shmem_died",
            Hook::HugeDied => "huge_died",
            Hook::DmabufDied => "dmabuf_died",
            Hook::ListFreed => "list_freed",
            Hook::ListArrived => "list_arrived",
            Hook::FileWasTaken => "file_was_taken",
            Hook::ListCopied => "list_copied",
            Hook::ListQueued => "list_queued",
            Hook::ListArrives => "list_arrives",
            Hook::FileTaken => "file_taken",
            Hook::FileReceived => "file_received",
            Hook::FileOffered => "file_offered",
            Hook::ShmemBorn => "shmem_born",
            Hook::HugeBorn => "huge_born",
            Hook::DmabufBorn => "dmabuf_born",
        }
    }

    /// What it is for.
    pub(crate) fn role(self) -> HookRole {
        match self {
            Hook::ShmemDied | Hook::HugeDied | Hook::DmabufDied => HookRole::Death,
            Hook::ShmemBorn | Hook::HugeBorn | Hook::DmabufBorn => HookRole::Birth,
            _ => HookRole::Passing,
        }
    }

    /// What it sees, in words.
    pub(crate) fn sees(self) -> &'static str {
        match self {
            Hook::HugeBorn | Hook::HugeDied => "huge pages of hugetlbfs",
            Hook::DmabufBorn | Hook::DmabufDied => "dma-bufs",
            Hook::ShmemBorn | Hook::ShmemDied => "shared memory",
            _ => "who receives buffers",
        }
    }

    /// How many copies of it are attached. A kernel that preempts itself skips a program as long as
    /// a task that was running it is off the processor. With several copies, as many tasks may be.
    pub(crate) fn copies(self) -> usize {
        match self.role() {
            HookRole::Birth => 4,
            HookRole::Passing => 2,
            HookRole::Death => 1,
        }
    }

    /// The name of the pin of each copy.
    pub(crate) fn pins(self) -> impl Iterator<Item = String> {
        (1..=self.copies()).map(move |copy| match copy {
            1 => self.name().to_owned(),
            _ => format!("{}_{copy}", self.name()),
        })
    }

    /// The functions of the kernel at which it can run. The first one that the kernel has is taken.
    /// (Linux 6.12 has the first name for inodes of tmpfs, and 6.1 the second. A file of a message
    /// is received by the first of three names in Linux 7.3, by the second in 5.10 and 6.1, and by
    /// the third in those between.)
    #[cfg(feature = "bpf")]
    pub(crate) fn functions(self) -> &'static [&'static str] {
        match self {
            Hook::ShmemBorn => &["__shmem_get_inode", "shmem_get_inode"],
            Hook::HugeBorn => &["hugetlbfs_get_inode"],
            Hook::DmabufBorn => &["dma_buf_export"],
            Hook::ShmemDied => &["shmem_evict_inode"],
            Hook::HugeDied => &["hugetlbfs_evict_inode"],
            Hook::DmabufDied => &["dma_buf_release"],
            Hook::ListFreed => &["__scm_destroy"],
            Hook::ListArrived | Hook::ListArrives => &["scm_detach_fds"],
            Hook::FileWasTaken | Hook::FileTaken => &["pidfd_getfd"],
            Hook::ListCopied => &["scm_fp_dup"],
            Hook::ListQueued => &["unix_prepare_fpl"],
            Hook::FileReceived => &["scm_recv_one_fd", "__receive_fd", "receive_fd"],
            Hook::FileOffered => &["security_file_receive"],
        }
    }

    /// Whether it runs when the function returns.
    #[cfg(feature = "bpf")]
    pub(crate) fn at_return(self) -> bool {
        let of_passing = [Hook::ListArrived, Hook::FileWasTaken, Hook::ListCopied, Hook::FileReceived];
        self.is_birth() || of_passing.contains(&self)
    }

    pub(crate) fn is_birth(self) -> bool {
        self.role() == HookRole::Birth
    }

    /// The program that must run so that this one may: it notices the deaths of what this one
    /// records.
    #[cfg(feature = "bpf")]
    pub(crate) fn death(self) -> Option<Hook> {
        match self {
            Hook::ShmemBorn => Some(Hook::ShmemDied),
            Hook::HugeBorn => Some(Hook::HugeDied),
            Hook::DmabufBorn => Some(Hook::DmabufDied),
            _ => None,
        }
    }

    /// The program that records the births of this kind. `huge`: the buffer has huge pages of
    /// hugetlbfs. `None`: there is none.
    pub(crate) fn of_births(kind: Kind, huge: bool) -> Option<Hook> {
        match kind {
            Kind::DmaBuf => Some(Hook::DmabufBorn),
            Kind::Secretmem | Kind::GuestMemfd => None,
            _ if huge => Some(Hook::HugeBorn),
            _ => Some(Hook::ShmemBorn),
        }
    }

    /// Whether a kernel that lacks its function does not need it: there a list is never queued but
    /// as a copy.
    #[cfg(feature = "bpf")]
    pub(crate) fn may_be_missing(self) -> bool {
        self == Hook::ListQueued
    }

    /// Whether clients are known if these programs run. Without those of `pidfd_getfd`, what was
    /// taken has no known giver, and nobody becomes a client by that. Without the one that sees a
    /// list being queued, where the kernel has the function, no message has a known sender.
    pub(crate) fn can_know_clients(watched: u32) -> bool {
        let needed = Hook::ALL.into_iter().filter(|hook| hook.role() == HookRole::Passing);
        let optional = [Hook::FileTaken, Hook::FileWasTaken, Hook::ListQueued];
        let mut needed = needed.filter(|hook| !optional.contains(hook));
        needed.all(|hook| watched & hook.bit() != 0)
    }

    /// Its bit in the set of programs that run.
    pub(crate) fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// An iterator that shows the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// Without stacks.
    Origins,
    /// With them, which takes several times as long.
    Stacks,
}

impl View {
    pub(crate) const ALL: [View; 2] = [View::Origins, View::Stacks];

    /// The name of its program in the object, and of its pin.
    pub(crate) fn name(self) -> &'static str {
        match self {
            View::Origins => "origins",
            View::Stacks => "origins_stacks",
        }
    }
}

/// What is known of the recorder as a whole. All zero until all of it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// From when on births are recorded: nanoseconds after boot, and of the wall clock.
    pub(crate) since: u64,
    pub(crate) since_wall: u64,
    /// For how many living buffers there is room.
    pub(crate) most: u32,
    /// The bits ([`Hook::bit`]) of the programs that record births and clients.
    pub(crate) watched: u32,
}

impl About {
    /// As `struct about` of bpf/origins.h.
    #[cfg(feature = "bpf")]
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.since.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.since_wall.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.most.to_ne_bytes());
        bytes[20..].copy_from_slice(&self.watched.to_ne_bytes());
        bytes
    }
}
