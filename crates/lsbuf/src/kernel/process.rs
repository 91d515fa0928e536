//! A process: its identity (`/proc/P/stat`, `status`, `cgroup`), its threads (`task`), and whether
//! it is still the same.
//!
//! `/proc/P` is opened once, and everything is read relative to that fd. If the process exits,
//! reads fail; they never reach a new process with the same pid. An exec keeps the pid, the
//! directory and the start time, but replaces the address space. An open `maps` belongs to the
//! address space that it was opened on, and is empty after an exec ([`Image`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::path::DecInt;

use super::guard;
use super::parse::{Malformed, number32};
use super::path::Path;
use super::read::{self, retry};
use super::root::ProcRoot;
pub(crate) use super::task::Stage;
use super::task::{self, real_uid};
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

    /// The directory of one of its threads. It has the same shape.
    pub(crate) fn thread(&self, tid: Tid) -> Result<ProcessDir> {
        Ok(ProcessDir {
            pid: self.pid,
            dir: self.dir.folder(Path::new(format_args!("task/{tid}")).as_str())?,
        })
    }

    /// The directory of one of its threads as if it were a process, which procfs opens but does not
    /// list. It has files that are missing below `task`, and exists although the leader has exited.
    pub(crate) fn thread_alone(&self, tid: Tid) -> Result<ProcessDir> {
        Ok(ProcessDir { pid: self.pid, dir: self.dir.folder(Path::new(format_args!("../{tid}")).as_str())? })
    }

    /// Its threads without the leader, ascending. If there are none, `task` is not listed at all.
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

    /// Opens the `maps` of its address space.
    pub(crate) fn image(&self) -> Result<Image> {
        Ok(Image { maps: self.dir.file(c"maps")? })
    }

    /// The open directory.
    pub(crate) fn dir(&self) -> &Folder {
        &self.dir
    }

    /// The tree that the directory is in.
    pub(crate) fn tree(&self) -> &dyn Tree {
        self.dir.tree()
    }

    /// Its stage of life.
    pub(crate) fn stage(&self) -> Result<Stage> {
        let mut text = Vec::new();
        self.dir.read_record(c"stat", &mut text)?;
        task::stage(&text).map_err(|Malformed| Errno::BADMSG)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Reads its identity. `EBADMSG`: its `stat` cannot be parsed.
    pub(crate) fn identify(&self) -> Result<Process> {
        /// Initial size of the buffer, no page size; each of the three files fits.
        const ROOM: usize = 4 << 10;
        let mut text = Vec::with_capacity(ROOM);
        self.dir.read_record(c"stat", &mut text)?;
        let (comm, start_time) = task::stat(&text).map_err(|Malformed| Errno::BADMSG)?;
        let uid = self.dir.read_record(c"status", &mut text).ok().and_then(|()| real_uid(&text));
        let cgroup = self.cgroup_into(&mut text).map(|(path, _)| path);
        Ok(Process { pid: self.pid, start_time, comm, uid, cgroup, sync_files: None, details: None })
    }

    /// The path of its cgroup, and whether all processes of its cgroup of version 2 have this one.
    pub(crate) fn cgroup(&self) -> Option<(Label, bool)> {
        self.cgroup_into(&mut Vec::new())
    }

    fn cgroup_into(&self, text: &mut Vec<u8>) -> Option<(Label, bool)> {
        self.dir.read_record(c"cgroup", text).ok()?;
        task::cgroup(text).map(|found| (Label::from(found.path), found.unified))
    }
}

/// An open `maps`: the mappings of the address space that the process had when this was opened.
#[derive(Debug)]
pub(crate) struct Image {
    maps: OwnedFd,
}

impl Image {
    /// The text. It can be read once, from its start.
    pub(crate) fn maps(&self) -> BorrowedFd<'_> {
        self.maps.as_fd()
    }

    /// Whether that address space is still in use, so that the process has neither exited nor
    /// called exec. Reads one byte of the text to find out. Also `true` if that fails for another
    /// reason.
    pub(crate) fn lives(&self) -> bool {
        let read = retry(|| guard::read_at(None, self.maps.as_fd(), &mut [0; 1], 0));
        !matches!(read, Ok(0) | Err(Errno::SRCH))
    }
}
