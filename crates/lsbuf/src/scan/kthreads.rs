//! Kernel threads, remembered from scan to scan: they never hold a buffer, and a machine has hundreds.
//!
//! A kernel thread stays one where the kernel refuses it an exec (`kernel_execve` in fs/exec.c, from Linux 5.19 on); before,
//! it became a user's process that way, with the same id and directory. PROCMAP_QUERY is younger, so where the kernel has
//! that the thread is remembered. The number of its directory tells it from whoever gets its id later.

use std::collections::HashMap;

use crate::kernel::procmap::Queries;
use crate::model::Pid;

/// Those seen so far, by id, with their directories' inode numbers.
#[derive(Debug)]
pub(super) struct KernelThreads {
    stay: bool,
    known: HashMap<Pid, u64>,
}

impl KernelThreads {
    /// None so far, on a kernel that has that or not.
    pub(super) fn new(queries: Option<Queries>) -> KernelThreads {
        KernelThreads { stay: queries.is_some(), known: HashMap::new() }
    }

    /// Whether that directory is a known one's.
    pub(super) fn knows(&self, pid: Pid, directory: u64) -> bool {
        self.known.get(&pid) == Some(&directory)
    }

    /// Remembers one, if it stays one.
    pub(super) fn remember(&mut self, pid: Pid, directory: u64) {
        if self.stay {
            self.known.insert(pid, directory);
        }
    }

    /// Forgets those that are not listed any more.
    pub(super) fn keep(&mut self, listed: &HashMap<Pid, u64>) {
        self.known.retain(|pid, directory| listed.get(pid) == Some(directory));
    }
}
