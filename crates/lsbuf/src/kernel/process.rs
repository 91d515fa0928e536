//! Who a process is (`/proc/P/stat`, `status`, `cgroup`), its threads (`task`), and whether it is still the same.
//!
//! `/proc/P` is opened once and everything is read relative to it: when the process dies, reads fail instead of reaching a
//! newcomer with the same pid. An exec keeps the pid, the directory and the start time, but not the address space: an open
//! `maps` belongs to the one that it was opened on, and is empty from then on ([`Image`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::io::{Errno, Result, pread};
use rustix::path::DecInt;

use super::parse::{Garbled, number32};
use super::path::Path;
use super::read::{self, Buffers, retry};
use super::root::ProcRoot;
use super::task::{self, pulse, real_uid, unified_cgroup};
pub(crate) use super::task::{Pulse, Stage};
use crate::model::{Label, Pid, Process, Tid};

/// An open `/proc/P`.
#[derive(Debug)]
pub(crate) struct ProcessDir {
    pid: Pid,
    live: bool,
    dir: OwnedFd,
}

impl ProcessDir {
    /// Opens the directory of a process.
    pub(crate) fn open(root: &ProcRoot, pid: Pid) -> Result<ProcessDir> {
        let dir = read::open_dir(root.dir(), DecInt::new(pid.0))?;
        Ok(ProcessDir { pid, live: root.is_live(), dir })
    }

    /// The directory of one of its threads, which has the same shape.
    pub(crate) fn thread(&self, tid: Tid) -> Result<ProcessDir> {
        let dir = read::open_dir(&self.dir, Path::new(format_args!("task/{tid}")).as_str())?;
        Ok(ProcessDir { pid: self.pid, live: self.live, dir })
    }

    /// One of its threads as a process of its own, which procfs shows to who asks. What is not below `task` is below that,
    /// and is there although the leader has exited.
    pub(crate) fn thread_alone(&self, tid: Tid) -> Result<ProcessDir> {
        let dir = read::open_dir(&self.dir, Path::new(format_args!("../{tid}")).as_str())?;
        Ok(ProcessDir { pid: self.pid, live: self.live, dir })
    }

    /// Its threads besides the leader, ascending. Nothing is listed for a process that has none: `task` has a link for
    /// itself, one from its parent, and one per thread (`proc_task_getattr` in fs/proc/base.c).
    pub(crate) fn threads(&self, buffers: &mut Buffers) -> Result<Vec<Tid>> {
        const LINKS_OF_ONE: u32 = 3;
        let mut tids = Vec::new();
        if self.live
            && statx(&self.dir, c"task", AtFlags::empty(), StatxFlags::NLINK)?.stx_nlink <= LINKS_OF_ONE
        {
            return Ok(tids);
        }
        let dir = match read::open_dir(&self.dir, c"task") {
            // A tree recorded without threads.
            Err(Errno::NOENT) if !self.live => return Ok(tids),
            dir => dir?,
        };
        read::entries(dir.as_fd(), &mut buffers.dir, |name, _| {
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
        Ok(Image { maps: read::open_file(&self.dir, c"maps")? })
    }

    /// The directory, for opening what lies below.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// What stage of its life it is in.
    pub(crate) fn stage(&self, text: &mut Vec<u8>) -> Result<Stage> {
        read::record(&self.dir, c"stat", text)?;
        task::stage(text).map_err(|Garbled| Errno::BADMSG)
    }

    /// What one of its tasks is doing.
    pub(crate) fn pulse(&self, tid: Tid, text: &mut Vec<u8>) -> Result<Pulse> {
        read::record(&self.dir, Path::new(format_args!("task/{tid}/stat")).as_str(), text)?;
        pulse(text).map_err(|Garbled| Errno::BADMSG)
    }

    /// Whether the procfs is a kernel's.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Its id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Reads who it is. `EBADMSG`: its `stat` cannot be understood.
    pub(crate) fn identify(&self, text: &mut Vec<u8>) -> Result<Process> {
        read::record(&self.dir, c"stat", text)?;
        let (comm, start_time) = task::stat(text).map_err(|Garbled| Errno::BADMSG)?;
        let uid = read::record(&self.dir, c"status", text).ok().and_then(|()| real_uid(text));
        let cgroup = self.cgroup(text);
        Ok(Process { pid: self.pid, start_time, comm, uid, cgroup, sync_files: None })
    }

    /// Its path in the v2 hierarchy.
    pub(crate) fn cgroup(&self, text: &mut Vec<u8>) -> Option<Label> {
        read::record(&self.dir, c"cgroup", text).ok().and_then(|()| unified_cgroup(text))
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
        !matches!(retry(|| pread(&self.maps, &mut [0; 1], 0)), Ok(0) | Err(Errno::SRCH))
    }
}
