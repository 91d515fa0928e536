//! What a reader of an answer must know about it: whether something was not seen, or is inexact,
//! and why.

use std::fmt;

use super::{Bytes, HiddenRefs, Pid, Source, UnheldGaps, counted};

/// Something about the answer that a reader must know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// Processes refused to be read.
    Unreadable {
        /// Because permission was denied.
        denied: u64,
        /// With any other error.
        failed: u64,
    },
    /// The kernel's list of tasks does not show these processes, although they are there.
    Unlisted {
        /// Which.
        processes: Vec<Pid>,
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
    /// Processes kept starting faster than they could be read. What they inherited may look like
    /// the kernel's.
    UnreadNewProcesses {
        /// How many were left.
        processes: u64,
    },
    /// Text that did not parse; each such fact was dropped.
    Malformed {
        /// Which source it came from.
        source: Source,
        /// How many.
        facts: u64,
    },
    /// References with a dma-buf's name that could be neither proven nor ruled out. No figure has
    /// them.
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
    /// A task was inside a call that can hold references outside of fd tables and address spaces: a
    /// fork, an exec, an exit, or a blocked send.
    InCall {
        /// Buffers with references that may be among these.
        buffers: u64,
        /// Whose task it was, ordered by pid.
        processes: Vec<Pid>,
    },
    /// Processes started or exited in every reading. What they inherited may look like the
    /// kernel's.
    ProcessesChanged {
        /// Buffers with references that may be theirs.
        buffers: u64,
    },
    /// The same processes ran in every reading. Each of them may have moved a reference unseen.
    Ran {
        /// Buffers with references that may be theirs.
        buffers: u64,
        /// Which processes, ordered by pid.
        processes: Vec<Pid>,
    },
    /// It could not be seen which processes ran during the reading.
    NotWatched {
        /// Buffers with references that may be a process's.
        buffers: u64,
    },
    /// Processes whose mappings are left out: reading them would have waited longer than the
    /// deadline.
    Stuck {
        /// Which, ordered by pid.
        processes: Vec<Pid>,
    },
    /// The BPF iterators waited longer than the deadline, and procfs was read instead.
    IteratorsStuck {
        /// Processes that sleep in a call that locks their mappings, ordered by pid.
        processes: Vec<Pid>,
    },
    /// The BPF iterators were tried and failed, so procfs was read instead.
    IteratorsFailed {
        /// Why, as `lsbuf doctor` says it.
        why: String,
    },
    /// No helper process could be started, so reads had no deadline.
    NoDeadline,
    /// No source lists all shmem. These processes may have changed their mappings (by procfs: they
    /// ran), or were inside a fork, exec or send, in every reading: what only they hold may be
    /// missing.
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
    /// Residuals may contain references that sockets and io_urings hold.
    MaybeHiddenRefs {
        /// Buffers with such a residual.
        buffers: u64,
        /// What sockets and io_urings hold.
        refs: HiddenRefs,
    },
    /// Buffers whose holders may share an fd table or an address space: the kernel refused to
    /// compare them.
    Uncompared {
        /// How many.
        buffers: u64,
    },
    /// Messages not yet received carry fds, or may: shmem that only they hold is missing.
    HiddenInFlight {
        /// How many fds; 0: some sockets could not be read.
        fds: u64,
    },
    /// Shmem whose references the source does not count.
    Uncounted {
        /// How many buffers.
        buffers: u64,
    },
    /// Shmem that is only mapped and whose inodes could not be read: sizes and charges are unknown.
    Unsized {
        /// How many buffers.
        buffers: u64,
    },
    /// Tables of System V segments that could not be read.
    NoSegments {
        /// How many IPC namespaces.
        namespaces: u64,
    },
    /// Processes whose fds are known only by number and mount: shmem among them is missing.
    OnlyFdinfo {
        /// How many.
        processes: u64,
    },
    /// Open files and mappings whose filesystem refused to say what they are: shmem among them is
    /// missing.
    Refusing {
        /// How many.
        files: u64,
    },
    /// Udmabufs that may have the pages of memfds in the answer, and drivers' shmem that may have
    /// those of dma-bufs.
    MaybeSameMemory {
        /// How many.
        buffers: u64,
        /// What they cost together.
        size: Bytes,
    },
    /// Some may be missing from the list of files that nobody holds.
    UnheldMissing(UnheldGaps),
    /// Something that opens no file refers to the inodes of these buffers, and may keep their
    /// memory.
    Pinned {
        /// How many.
        buffers: u64,
    },
    /// Who pays for the buffers could not be found out.
    NoPayers {
        /// Why not.
        why: String,
    },
    /// The flight recorder could not be read.
    NoOrigins {
        /// Why not.
        why: String,
    },
    /// Who pays was found out by page frames, without BPF, as far as it could be.
    PayersByPages,
    /// No process was seen to hold these files. One that was not seen may, and so may a loop
    /// device, an overlay, or a message.
    UnheldUnproven {
        /// How many.
        files: u64,
    },
    /// Exports of video devices. The queue of the device owns their memory, and its other buffers
    /// are in no list.
    OfQueues {
        /// How many.
        buffers: u64,
    },
    /// Buffers that the kernel lists and that no process holds, as far as processes could be read.
    Unexplained {
        /// How many.
        buffers: u64,
        /// Their size together.
        size: Bytes,
    },
    /// A note of an answer that was stored: a recording and a JSON document keep only the text.
    Recorded {
        /// What it said.
        text: String,
        /// Whether the answer was incomplete for this reason. Of a JSON document: whether it was
        /// incomplete at all.
        is_partial: bool,
    },
}

impl Note {
    /// A short word for it, which stays the same: for labels of metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Note::Unreadable { .. } => "unreadable",
            Note::Unlisted { .. } => "unlisted",
            Note::NotWholeMachine => "not_whole_machine",
            Note::NoKernelList { .. } => "no_kernel_list",
            Note::ListContradicts { .. } => "list_contradicts",
            Note::UnreadNewProcesses { .. } => "unread_new_processes",
            Note::Malformed { .. } => "malformed",
            Note::Unproven { .. } => "unproven",
            Note::CountMoved { .. } => "count_moved",
            Note::Moved { .. } => "moved",
            Note::InCall { .. } => "in_call",
            Note::ProcessesChanged { .. } => "processes_changed",
            Note::Ran { .. } => "ran",
            Note::NotWatched { .. } => "not_watched",
            Note::Stuck { .. } => "stuck",
            Note::IteratorsStuck { .. } => "iterators_stuck",
            Note::IteratorsFailed { .. } => "iterators_failed",
            Note::NoDeadline => "no_deadline",
            Note::MayMiss { .. } => "may_miss",
            Note::Overcounted { .. } => "overcounted",
            Note::MaybeHiddenRefs { .. } => "maybe_hidden_refs",
            Note::Uncompared { .. } => "uncompared",
            Note::HiddenInFlight { .. } => "hidden_in_flight",
            Note::Uncounted { .. } => "uncounted",
            Note::Unsized { .. } => "unsized",
            Note::NoSegments { .. } => "no_segments",
            Note::OnlyFdinfo { .. } => "only_fdinfo",
            Note::Refusing { .. } => "refusing",
            Note::MaybeSameMemory { .. } => "maybe_same_memory",
            Note::UnheldMissing(_) => "unheld_missing",
            Note::Pinned { .. } => "pinned",
            Note::NoPayers { .. } => "no_payers",
            Note::NoOrigins { .. } => "no_origins",
            Note::PayersByPages => "payers_by_pages",
            Note::UnheldUnproven { .. } => "unheld_unproven",
            Note::OfQueues { .. } => "of_queues",
            Note::Unexplained { .. } => "unexplained",
            Note::Recorded { .. } => "recorded",
        }
    }

    /// Whether the answer is incomplete for this reason.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        match self {
            Note::Unreadable { .. }
            | Note::Unlisted { .. }
            | Note::NotWholeMachine
            | Note::NoKernelList { .. }
            | Note::ListContradicts { .. }
            | Note::UnreadNewProcesses { .. }
            | Note::Malformed { .. }
            | Note::Unproven { .. }
            | Note::HiddenInFlight { .. }
            | Note::Unsized { .. }
            | Note::NoSegments { .. }
            | Note::OnlyFdinfo { .. }
            | Note::Refusing { .. }
            | Note::Stuck { .. }
            | Note::MayMiss { .. }
            | Note::UnheldMissing(_)
            | Note::Unexplained { .. } => true,
            Note::Recorded { is_partial, .. } => *is_partial,
            Note::MaybeSameMemory { .. }
            | Note::OfQueues { .. }
            | Note::Uncounted { .. }
            | Note::CountMoved { .. }
            | Note::Moved { .. }
            | Note::InCall { .. }
            | Note::ProcessesChanged { .. }
            | Note::Ran { .. }
            | Note::NotWatched { .. }
            | Note::IteratorsStuck { .. }
            | Note::IteratorsFailed { .. }
            | Note::NoDeadline
            | Note::UnheldUnproven { .. }
            | Note::NoPayers { .. }
            | Note::NoOrigins { .. }
            | Note::PayersByPages
            | Note::Pinned { .. }
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
                write!(
                    f,
                    "{} could not be read (permission denied)",
                    counted(*denied, "process", "processes")
                )
            }
            Note::Unreadable { denied, failed } => write!(
                f,
                "{} could not be read ({denied} permission denied, {failed} other errors)",
                counted(denied + failed, "process", "processes")
            ),
            Note::Unlisted { processes } => write!(
                f,
                "{} hidden from BPF iterators: what only {} by an fd is missing, or appears as held by the kernel",
                named(processes, "is", "are"),
                if processes.len() == 1 { "it holds" } else { "they hold" }
            ),
            Note::NotWholeMachine => f.write_str(
                "this procfs shows no kernel threads: processes outside this pid namespace, or hidden by \
                 hidepid, are not seen",
            ),
            Note::NoKernelList { why } => write!(
                f,
                "the kernel's own list was not read ({why}): dma-bufs that no process holds are missing"
            ),
            Note::ListContradicts { rows, stated } => write!(
                f,
                "the kernel's own list has {rows} readable rows, but its last line says {stated} buffers: some \
                 may be missing"
            ),
            Note::UnreadNewProcesses { processes } => write!(
                f,
                "{} started too late to be read: new processes kept starting",
                counted(*processes, "process", "processes")
            ),
            Note::Malformed { source, facts } => {
                let (source, did_not_parse) = (source.as_str(), "did not parse and");
                let one = format!("entry of {source} {did_not_parse} was left out");
                let many = format!("entries of {source} {did_not_parse} were left out");
                f.write_str(&counted(*facts, &one, &many))
            }
            Note::Unproven { references } => f.write_str(&counted(
                *references,
                "reference with a dma-buf's name is left out, as nothing proves it to be one",
                "references with a dma-buf's name are left out, as nothing proves them to be dma-bufs",
            )),
            Note::CountMoved { buffers } => write!(
                f,
                "the count of {} changed while lsbuf read the references: kernel references are an estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::Moved { buffers } => write!(
                f,
                "references to {} were closed or moved while lsbuf read them: kernel references are an estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::InCall { buffers, processes } => write!(
                f,
                "{} inside a fork, exec, exit or blocked send, which can hold references to {} outside of fd \
                 tables and address spaces: kernel references are an estimate",
                named(processes, "was", "were"),
                counted(*buffers, "buffer", "buffers")
            ),
            Note::ProcessesChanged { buffers } => write!(
                f,
                "processes started or exited in every reading, and may have held references to {}: kernel \
                 references are an estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::Ran { buffers, processes } => write!(
                f,
                "{} in every reading, and may have moved references to {} unseen: kernel references are an \
                 estimate",
                named(processes, "ran", "ran"),
                counted(*buffers, "buffer", "buffers")
            ),
            Note::NotWatched { buffers } => write!(
                f,
                "it is unknown which processes ran while lsbuf read the references to {}: kernel references \
                 are an estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::Stuck { processes } => write!(
                f,
                "{} left out: reading the mappings would have waited too long",
                named(processes, "is", "are")
            ),
            Note::IteratorsStuck { processes } if processes.is_empty() => {
                f.write_str("the BPF iterators waited too long for a process, so procfs was read instead")
            }
            Note::IteratorsStuck { processes } => write!(
                f,
                "the BPF iterators waited too long, so procfs was read instead; {} inside a call that locks \
                 mappings",
                named(processes, "is", "are")
            ),
            Note::IteratorsFailed { why } => {
                write!(f, "the BPF iterators failed, so procfs was read instead: {why}")
            }
            Note::NoDeadline => f.write_str("no helper process could be started, so reads had no deadline"),
            Note::MayMiss { processes } if processes.is_empty() => f.write_str(
                "processes started or exited in every reading: shmem that only they held may be missing",
            ),
            Note::MayMiss { processes } => write!(
                f,
                "{} inside a fork, exec or send, in every reading: shmem that only {} may be missing",
                named(
                    processes,
                    "may have changed its mappings, or was",
                    "may have changed their mappings, or were"
                ),
                if processes.len() == 1 { "it holds" } else { "they hold" }
            ),
            Note::Overcounted { buffers } => write!(
                f,
                "more references to {} were found than the kernel counts: kernel references are unknown",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::MaybeHiddenRefs { buffers, refs } => {
                let mut parts = Vec::new();
                if refs.in_flight > 0 {
                    parts.push(format!(
                        "messages not yet received carry {}",
                        counted(refs.in_flight, "fd", "fds")
                    ));
                }
                if refs.io_uring > 0 {
                    let files = counted(refs.io_uring, "file", "files");
                    parts.push(format!("io_urings have {files} registered that may be buffers"));
                }
                if refs.unknown {
                    parts.push("some sockets or io_urings could not be read".to_owned());
                }
                write!(
                    f,
                    "{}: kernel references of {} may be among them, and are an estimate",
                    parts.join(", "),
                    counted(*buffers, "buffer", "buffers")
                )
            }
            Note::Uncompared { buffers } => write!(
                f,
                "it is unknown whether holders of {} share an fd table or an address space: kernel references \
                 are an estimate",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::HiddenInFlight { fds: 0 } => f.write_str(
                "some sockets could not be read: shmem that only a message in them holds is missing",
            ),
            Note::HiddenInFlight { fds } => write!(
                f,
                "messages not yet received carry {}, and it is unknown of which files: shmem that only they hold \
                 is missing",
                counted(*fds, "fd", "fds")
            ),
            Note::Uncounted { buffers } => write!(
                f,
                "procfs has no count of references for {}: COUNT, KERNEL and USS need BPF iterators (root, or \
                 lsbuf probes install)",
                counted(*buffers, "shmem buffer", "shmem buffers")
            ),
            Note::Unsized { buffers } => write!(
                f,
                "the size of {} unknown: to read it takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN",
                counted(
                    *buffers,
                    "shmem buffer that is only mapped is",
                    "shmem buffers that are only mapped is"
                )
            ),
            Note::NoSegments { namespaces } => write!(
                f,
                "the System V segments of {} could not be listed",
                counted(*namespaces, "IPC namespace", "IPC namespaces")
            ),
            Note::OnlyFdinfo { processes } => write!(
                f,
                "the fd links of {} could not be followed: shmem that only their fds hold is missing",
                counted(*processes, "process", "processes")
            ),
            Note::Refusing { files } => write!(
                f,
                "the filesystem of {} did not say what they are: shmem among them is missing",
                counted(*files, "fd or mapping", "fds and mappings")
            ),
            Note::MaybeSameMemory { buffers, size } => write!(
                f,
                "{} of {} bytes may be the same memory as another buffer (a udmabuf and its memfd, or a driver's \
                 file and its dma-buf): totals may count it twice",
                counted(*buffers, "buffer", "buffers"),
                size.0
            ),
            Note::UnheldMissing(gaps) => {
                let UnheldGaps { filesystems, folders, hidden, processes, namespaces, cut } = *gaps;
                let parts = [
                    (
                        filesystems,
                        "filesystem that could not be reached",
                        "filesystems that could not be reached",
                    ),
                    (folders, "folder that could not be read", "folders that could not be read"),
                    (hidden, "file or folder that a mount hides", "files or folders that mounts hide"),
                    (
                        processes,
                        "process that did not let its mounts be read",
                        "processes that did not let their mounts be read",
                    ),
                    (
                        namespaces,
                        "mount namespace without a process that could not be entered",
                        "mount namespaces without a process that could not be entered",
                    ),
                ];
                let parts = parts.into_iter().filter(|&(number, ..)| number > 0);
                let mut parts: Vec<String> =
                    parts.map(|(number, one, many)| counted(number, one, many)).collect();
                parts.extend(cut.then(|| "lists of the kernel that changed too often".to_owned()));
                write!(f, "files that nobody holds may be missing, because of {}", parts.join(", "))
            }
            Note::Pinned { buffers } => write!(
                f,
                "a Landlock rule, or a fanotify or inotify mark, refers to {}: whether it keeps the memory is unknown",
                counted(*buffers, "buffer without a name", "buffers without a name")
            ),
            Note::PayersByPages => f.write_str(
                "who pays was read from page frames (kpagecgroup): it is unknown of huge pages, of files that \
                 nobody holds, and where the payer may be a removed cgroup",
            ),
            Note::NoOrigins { why } => {
                write!(f, "it is unknown who made the buffers: the flight recorder cannot be read: {why}")
            }
            Note::NoPayers { why } => write!(f, "it is unknown which cgroups pay: {why}"),
            Note::UnheldUnproven { files } => write!(
                f,
                "no process that could be read holds {}: another one may, or a loop device, an overlay or a message",
                counted(*files, "file that is listed as ~unheld", "files that are listed as ~unheld")
            ),
            Note::OfQueues { buffers } => write!(
                f,
                "the memory of {} is kept by the queue of a video device (V4L2), so USS of a holder is unknown; \
                 buffers of such a queue that were never exported are in no list",
                counted(*buffers, "buffer", "buffers")
            ),
            Note::Recorded { text, .. } => f.write_str(text),
            Note::Unexplained { buffers, size } => write!(
                f,
                "no process that could be read holds {} that the kernel lists ({} bytes)",
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
