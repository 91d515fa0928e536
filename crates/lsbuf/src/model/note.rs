//! What a reader of an answer must know about it: whether something was not seen, or is inexact,
//! and why.

use std::fmt;

use super::{Bytes, HiddenRefs, Pid, Source, counted};

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
    /// Processes kept appearing faster than they could be read; what they inherited may look like
    /// the kernel's.
    Newcomers {
        /// How many were left.
        processes: u64,
    },
    /// Text that did not parse; each such fact was dropped.
    Malformed {
        /// Where it stood.
        source: Source,
        /// How many.
        facts: u64,
    },
    /// Things named like a dma-buf that could neither be proven nor ruled out; left out of every
    /// figure.
    Unproven {
        /// fds and mappings together.
        references: u64,
    },
    /// Buffers whose count changed while references were gathered, or could be read only once.
    CountMoved {
        /// How many.
        buffers: u64,
    },
    /// Buffers of which references were closed or moved while they were read.
    Moved {
        /// How many.
        buffers: u64,
    },
    /// A task was inside a call that keeps references in no table: a fork, an exec, an exit, or a
    /// message that waits to be sent.
    InCall {
        /// Buffers with references that may be among these.
        buffers: u64,
        /// Whose task it was, ordered by pid.
        processes: Vec<Pid>,
    },
    /// Processes were started or ended in every reading; what they inherited may look like the
    /// kernel's.
    ProcessesChanged {
        /// Buffers with references that may be theirs.
        buffers: u64,
    },
    /// The same processes ran in every reading; each of them may have moved a reference unseen.
    Ran {
        /// Buffers with references that may be theirs.
        buffers: u64,
        /// Which processes, ordered by pid.
        processes: Vec<Pid>,
    },
    /// What processes did meanwhile could not be asked.
    NotWatched {
        /// Buffers with references that may be a process's.
        buffers: u64,
    },
    /// More files are open on the inodes of shmem buffers than were found.
    MoreFiles {
        /// How many buffers.
        buffers: u64,
    },
    /// Reading the mappings of processes would have waited for longer than is allowed: they were
    /// left out.
    Stuck {
        /// Which, ordered by pid.
        processes: Vec<Pid>,
    },
    /// The BPF iterators waited for longer than is allowed, and procfs was read instead.
    IteratorsStuck {
        /// Who sleeps in a call that locks its mappings, ordered by pid.
        processes: Vec<Pid>,
    },
    /// Reading could not be given a deadline.
    NoDeadline,
    /// No list has all shmem, and these processes ran, or were inside a fork, exec or send, in
    /// every reading: what only they hold may be missing.
    MayMiss {
        /// Which, ordered by pid, as far as they were still there.
        processes: Vec<Pid>,
    },
    /// Buffers with more references found than the kernel counts; their kernel references are
    /// unknown.
    Overcounted {
        /// How many.
        buffers: u64,
    },
    /// References of these buffers may be among what sockets and rings keep.
    MaybeHiddenRefs {
        /// Buffers with references that no process explains.
        buffers: u64,
        /// What is kept.
        refs: HiddenRefs,
    },
    /// Buffers whose holders may share an fd table or an address space: the kernel would not
    /// compare them.
    Uncompared {
        /// How many.
        buffers: u64,
    },
    /// Messages that nobody has received carry fds, or may: shmem that only they hold does not
    /// show.
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
    /// Open files and mappings whose filesystem refused to say what they are: shmem among them does
    /// not show.
    Refusing {
        /// How many.
        files: u64,
    },
    /// Udmabufs whose pages may be those of memfds that are in the answer too, and shmem of drivers
    /// that may be dma-bufs'.
    MaybeSameMemory {
        /// How many.
        buffers: u64,
        /// What they cost together.
        size: Bytes,
    },
    /// Buffers that the kernel lists and no process that could be read holds, while some could not
    /// be read.
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
            | Note::Malformed { .. }
            | Note::Unproven { .. }
            | Note::HiddenInFlight { .. }
            | Note::Unsized { .. }
            | Note::NoSegments { .. }
            | Note::OnlyFdinfo { .. }
            | Note::Refusing { .. }
            | Note::Stuck { .. }
            | Note::MayMiss { .. }
            | Note::Unexplained { .. } => true,
            Note::MaybeSameMemory { .. }
            | Note::Uncounted { .. }
            | Note::CountMoved { .. }
            | Note::Moved { .. }
            | Note::InCall { .. }
            | Note::ProcessesChanged { .. }
            | Note::Ran { .. }
            | Note::NotWatched { .. }
            | Note::MoreFiles { .. }
            | Note::IteratorsStuck { .. }
            | Note::NoDeadline
            | Note::Overcounted { .. }
            | Note::MaybeHiddenRefs { .. }
            | Note::Uncompared { .. } => false,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Unreadable { denied, failed: 0 } => {
                write!(f, "{} could not be read (permission denied)", counted(*denied, "process", "processes"))
            }
            Note::Unreadable { denied, failed } => write!(
                f,
                "{} could not be read ({denied} permission denied, {failed} other errors)",
                counted(denied + failed, "process", "processes")
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
                counted(*processes, "process", "processes")
            ),
            Note::Malformed { source, facts } => {
                write!(
                    f,
                    "{} in {} could not be understood and were left out",
                    counted(*facts, "fact", "facts"),
                    source.as_str()
                )
            }
            Note::Unproven { references } => write!(
                f,
                "{} named like a dma-buf could not be proven to be one and were left out",
                counted(*references, "reference", "references")
            ),
            Note::CountMoved { buffers } => write!(
                f,
                "the count of {} changed while references were gathered: kernel references are an estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::Moved { buffers } => write!(
                f,
                "references of {} were closed or moved while they were read: kernel references are an estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::InCall { buffers, processes } => write!(
                f,
                "{} inside a fork, exec, exit or blocked send, which may keep references of {} in no table: kernel \
                 references are an estimate",
                named(processes, "was", "were"),
                counted(*buffers, "buffer", "buffers")
            ),
            Note::ProcessesChanged { buffers } => write!(
                f,
                "processes were started or ended in every reading, and may have held references of {}: kernel references \
                 are an estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::Ran { buffers, processes } => write!(
                f,
                "{} in every reading, and may have moved references of {} unseen: kernel references are an estimate",
                named(processes, "ran", "ran"),
                counted(*buffers, "buffer", "buffers")
            ),
            Note::NotWatched { buffers } => write!(
                f,
                "what processes did while references of {} were gathered could not be asked: kernel references are an \
                 estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::MoreFiles { buffers } => write!(
                f,
                "more files are open on {} than were found: kernel references are an estimate",
                counted(*buffers, "shmem buffer", "shmem buffers")
            ),
            Note::Stuck { processes } => write!(
                f,
                "{} left out: reading the mappings would have waited too long",
                named(processes, "was", "were")
            ),
            Note::IteratorsStuck { processes } if processes.is_empty() => {
                f.write_str("the BPF iterators had to wait too long for some process: procfs was read instead")
            }
            Note::IteratorsStuck { processes } => write!(
                f,
                "the BPF iterators had to wait too long: procfs was read instead; {} in a call that locks mappings",
                named(processes, "is", "are")
            ),
            Note::NoDeadline => f.write_str(
                "no helper process could be made, so reading had no deadline",
            ),
            Note::MayMiss { processes } if processes.is_empty() => f.write_str(
                "processes were started or ended in every reading: shmem that only they held may be missing",
            ),
            Note::MayMiss { processes } => write!(
                f,
                "{} in every reading: shmem that only they hold may be missing",
                named(processes, "changed its mappings, or may keep references in a call,", "changed their mappings, or may keep references in a call,")
            ),
            Note::Overcounted { buffers } => write!(
                f,
                "more references of {} were found than the kernel counts: kernel references are unknown",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::MaybeHiddenRefs { buffers, refs } => {
                let mut parts = Vec::new();
                if refs.in_flight > 0 {
                    parts.push(format!("messages not yet received carry {}", counted(refs.in_flight, "fd", "fds")));
                }
                if refs.io_uring > 0 {
                    let files = counted(refs.io_uring, "file", "files");
                    parts.push(format!("io_urings have {files} registered that may be buffers"));
                }
                if refs.unknown {
                    parts.push("some that may keep more could not be asked".to_owned());
                }
                write!(
                    f,
                    "{}: some kernel references of {} may be among them, all are an estimate",
                    parts.join(", "),
                    counted(*buffers, "buffer", "buffers")
                )
            }
            Note::Uncompared { buffers } => write!(
                f,
                "whether holders of {} share an fd table or an address space could not be asked: kernel references are \
                 an estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::HiddenInFlight { fds: 0 } => f.write_str(
                "some sockets could not be asked what is in flight: shmem that only a message holds does not show",
            ),
            Note::HiddenInFlight { fds } => write!(
                f,
                "messages not yet received carry {}, nobody tells of which files: shmem that only they hold does not show",
                counted(*fds, "fd", "fds")
            ),
            Note::Uncounted { buffers } => write!(
                f,
                "procfs has no count of references for {}: that, what is left over, and what an exit would free take BPF \
                 iterators (root, or lsbuf probes install)",
                counted(*buffers, "shmem buffer", "shmem buffers")
            ),
            Note::Unsized { buffers } => write!(
                f,
                "the size of {}, only mapped, could not be asked (CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN may)",
                counted(*buffers, "shmem buffer", "shmem buffers")
            ),
            Note::NoSegments { namespaces } => write!(
                f,
                "the System V segments of {} could not be listed",
                counted(*namespaces, "IPC namespace", "IPC namespaces")
            ),
            Note::OnlyFdinfo { processes } => write!(
                f,
                "the fd links of {} could not be followed: shmem that they hold by fd does not show",
                counted(*processes, "process", "processes")
            ),
            Note::Refusing { files } => write!(
                f,
                "{} could not be asked what they are: shmem among them does not show",
                counted(*files, "fd or mapping", "fds and mappings")
            ),
            Note::MaybeSameMemory { buffers, size } => write!(
                f,
                "{} of {} bytes may be other buffers' memory too (udmabufs memfds', drivers' shmem dma-bufs'): totals may \
                 count that twice",
                counted(*buffers, "buffer", "buffers"),
                size.0
            ),
            Note::Unexplained { buffers, size } => write!(
                f,
                "{} of {} bytes that the kernel lists are held by no process that could be read",
                counted(*buffers, "buffer", "buffers"),
                size.0
            ),
        }
    }
}

/// Some processes by their pids, the first few of them, with a verb that agrees.
fn named(processes: &[Pid], one: &str, many: &str) -> String {
    const SHOWN: usize = 3;
    let pids: Vec<String> = processes.iter().take(SHOWN).map(Pid::to_string).collect();
    match processes.len() {
        1 => format!("process {} {one}", pids.concat()),
        n if n <= SHOWN => format!("processes {} {many}", pids.join(", ")),
        n => format!("{n} processes ({}, ...) {many}", pids.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that one process is told from several, and that of many only the first few are named.
    #[test]
    fn processes_are_named() {
        let of = |pids: &[u32]| named(&pids.iter().copied().map(Pid).collect::<Vec<_>>(), "was", "were");
        assert_eq!(of(&[7]), "process 7 was");
        assert_eq!(of(&[7, 9]), "processes 7, 9 were");
        assert_eq!(of(&[1, 2, 3, 4, 5]), "5 processes (1, 2, 3, ...) were");
    }
}
