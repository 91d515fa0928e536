//! Remembers which processes are kernel threads, from one scan to the next.
//!
//! They never hold a buffer, and a machine has hundreds, so not reading them again saves time. On
//! kernels where a kernel thread can turn into a user's process by exec, with the same pid and
//! directory, it is not remembered: Linux 5.19 and later refuse such an exec (`kernel_execve` in
//! fs/exec.c). PROCMAP_QUERY came later (6.11), so a kernel that has it refuses. The inode number
//! of the directory tells a thread from a later process with its pid.
//!
//! Limits: kernels from 5.19 to 6.10 refuse such an exec too, but there nothing is remembered.

use std::collections::HashMap;

use crate::kernel::procmap::Queries;
use crate::model::Pid;

/// The kernel threads seen so far: pid, and inode number of the directory.
#[derive(Debug)]
pub(super) struct KernelThreads {
    stay: bool,
    known: HashMap<Pid, u64>,
}

impl KernelThreads {
    /// Begins with none. Whether the kernel has PROCMAP_QUERY decides whether any is remembered.
    pub(super) fn new(queries: Option<Queries>) -> KernelThreads {
        KernelThreads { stay: queries.is_some(), known: HashMap::new() }
    }

    /// Whether this directory belongs to a known kernel thread.
    pub(super) fn knows(&self, pid: Pid, directory: u64) -> bool {
        self.known.get(&pid) == Some(&directory)
    }

    /// Remembers a kernel thread, if it cannot turn into a user's process.
    pub(super) fn remember(&mut self, pid: Pid, directory: u64) {
        if self.stay {
            self.known.insert(pid, directory);
        }
    }

    /// Forgets the threads that are not listed any more.
    pub(super) fn keep(&mut self, listed: &HashMap<Pid, u64>) {
        self.known.retain(|pid, directory| listed.get(pid) == Some(directory));
    }
}
