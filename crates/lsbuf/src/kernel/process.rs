//! Who a process is (`/proc/P/stat`, `status`, `cgroup`), its threads (`task`), and whether it is still the same.
//!
//! `/proc/P` is opened once and everything is read relative to it: when the process dies, reads fail instead of reaching a
//! newcomer with the same pid. An exec keeps the pid, the directory and the start time, but not the address space: an open
//! `maps` belongs to the one that it was opened on, and is empty from then on ([`Image`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::path::DecInt;

use super::guard;
use super::parse::{Malformed, number32};
use super::path::Path;
use super::read::{self, retry};
use super::root::ProcRoot;
pub(crate) use super::task::Stage;
use super::task::{self, real_uid, unified_cgroup};
use super::tree::{Folder, Tree};
use crate::model::{Label, Pid, Process, Tid};

/// An open `/proc/P`.
#[derive(Debug)]
pub(crate) struct ProcessDir {
    pid: Pid,
    dir: Folder,
}

impl ProcessDir {
    /// Opens the directory of a process.
    pub(crate) fn open(root: &ProcRoot, pid: Pid) -> Result<ProcessDir> {
        Ok(ProcessDir { pid, dir: root.dir().folder(DecInt::new(pid.0))? })
    }

    /// The directory of one of its threads, which has the same shape.
    pub(crate) fn thread(&self, tid: Tid) -> Result<ProcessDir> {
        Ok(ProcessDir {
            pid: self.pid,
            dir: self.dir.folder(Path::new(format_args!("task/{tid}")).as_str())?,
        })
    }

    /// One of its threads as a process of its own, which procfs shows to who asks. What is not below `task` is below that,
    /// and is there although the leader has exited.
    pub(crate) fn thread_alone(&self, tid: Tid) -> Result<ProcessDir> {
        Ok(ProcessDir { pid: self.pid, dir: self.dir.folder(Path::new(format_args!("../{tid}")).as_str())? })
    }

    /// Its threads besides the leader, ascending. Nothing is listed for a process that has none.
    pub(crate) fn threads(&self) -> Result<Vec<Tid>> {
        let mut tids = Vec::new();
        if !self.tree().may_have_threads(&self.dir, "task")? {
            return Ok(tids);
        }
        let task = self.dir.folder(c"task")?;
        read::entries(task.fd(), |name, _| {
            if let Ok(tid) = number32(name.to_bytes(), 10)
                && tid != self.pid.0
            {
                tids.push(Tid(tid));
            }
            Ok(())
        })?;
        tids.sort_unstable();
        Ok(tids)
    }

    /// Opens its address space's mappings.
    pub(crate) fn image(&self) -> Result<Image> {
        Ok(Image { maps: self.dir.file(c"maps")? })
    }

    /// The directory, for opening what lies below.
    pub(crate) fn dir(&self) -> &Folder {
        &self.dir
    }

    /// The tree that it is in.
    pub(crate) fn tree(&self) -> &dyn Tree {
        self.dir.tree()
    }

    /// What stage of its life it is in.
    pub(crate) fn stage(&self) -> Result<Stage> {
        let mut text = Vec::new();
        self.dir.read_record(c"stat", &mut text)?;
        task::stage(&text).map_err(|Malformed| Errno::BADMSG)
    }

    /// Its id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Reads who it is. `EBADMSG`: its `stat` cannot be understood.
    pub(crate) fn identify(&self) -> Result<Process> {
        /// Room for any of the three; no page size.
        const ROOM: usize = 4 << 10;
        let mut text = Vec::with_capacity(ROOM);
        self.dir.read_record(c"stat", &mut text)?;
        let (comm, start_time) = task::stat(&text).map_err(|Malformed| Errno::BADMSG)?;
        let uid = self.dir.read_record(c"status", &mut text).ok().and_then(|()| real_uid(&text));
        let cgroup = self.cgroup_into(&mut text);
        Ok(Process { pid: self.pid, start_time, comm, uid, cgroup, sync_files: None })
    }

    /// Its path in the v2 hierarchy.
    pub(crate) fn cgroup(&self) -> Option<Label> {
        self.cgroup_into(&mut Vec::new())
    }

    fn cgroup_into(&self, text: &mut Vec<u8>) -> Option<Label> {
        self.dir.read_record(c"cgroup", text).ok().and_then(|()| unified_cgroup(text))
    }
}

/// The mappings of the address space that a process had when this was opened.
#[derive(Debug)]
pub(crate) struct Image {
    maps: OwnedFd,
}

impl Image {
    /// The text, to be read from its start once.
    pub(crate) fn maps(&self) -> BorrowedFd<'_> {
        self.maps.as_fd()
    }

    /// Whether that address space is still in use: neither exited nor replaced by an exec, by a look at its text. Says yes
    /// if it cannot be asked.
    pub(crate) fn lives(&self) -> bool {
        let read = retry(|| guard::read_at(None, self.maps.as_fd(), &mut [0; 1], 0));
        !matches!(read, Ok(0) | Err(Errno::SRCH))
    }
}
