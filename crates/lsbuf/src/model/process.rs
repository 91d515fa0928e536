//! A process that holds at least one buffer or sync_file.

use super::{Label, Pid, ProcessDetails};

/// A process, as it was when it was read. `pid` and `start_time` together name one process of a
/// boot: a process that gets a recycled pid has another start time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Process {
    /// The thread-group id.
    pub pid: Pid,
    /// Clock ticks after boot (field 22 of `/proc/P/stat`, proc_pid_stat(5)).
    pub start_time: u64,
    /// The leader's command name: at most 15 bytes, set by the process itself.
    pub comm: Label,
    /// Real user id (`Uid:` of `/proc/P/status`).
    pub uid: Option<u32>,
    /// Path of its cgroup in the unified hierarchy (version 2). Where that is missing or says only
    /// `/`: in the hierarchy of version 1 that has the controller memory, or else in systemd's.
    pub cgroup: Option<Label>,
    /// Its sync_file fds (`anon_inode:sync_file`). They have no size and keep a fence each. `None`:
    /// not counted.
    pub sync_files: Option<u64>,
    /// What else was read of it. `None`: nothing was asked for
    /// ([`Options::details`](crate::scan::Options::details)).
    pub details: Option<Box<ProcessDetails>>,
}
