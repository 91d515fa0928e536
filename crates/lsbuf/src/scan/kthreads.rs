//! Remembers which processes are kernel threads, from one scan to the next, so that they are not
//! read again. A machine has hundreds of them, and they hold no buffer.
//!
//! A pid is remembered with the inode number of its `/proc` directory, so that a later process with
//! the same pid is not taken for the thread. Before Linux 5.19 a kernel thread can become a user's
//! process by exec, and keeps pid and directory (`kernel_execve` in fs/exec.c). There it must not
//! be remembered. Kernel versions are not compared; lsbuf remembers threads if the kernel has
//! PROCMAP_QUERY, which came later (6.11).
//!
//! Limits: from 5.19 to 6.10 remembering would be safe too, but is not done.

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
