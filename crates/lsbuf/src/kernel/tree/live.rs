//! The procfs of a running kernel, and what else its kernel can be asked by system calls.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags, fstat, fstatfs, readlinkat, statx};
use rustix::io::{Errno, Result};
use rustix::path::{Arg, DecInt};

use super::{Folder, Tree};
use crate::kernel::guard;
use crate::kernel::identity::{self, LinkTarget, device_of};
use crate::kernel::kcmp::{self, Resource};
use crate::kernel::parse::number32;
use crate::kernel::read;
use crate::kernel::shmem::inode::{ShmFile, ShmInode};
use crate::kernel::shmem::name::Filesystem;
use crate::kernel::shmem::unmounted;
use crate::kernel::task::{self, Stage};
use crate::model::{Dev, Pid, Tid, TmpfsUsage};

/// The procfs of this machine's kernel.
#[derive(Debug)]
pub(crate) struct Live {
    own_pids: bool,
}

impl Live {
    /// The tree with that root. `None`: the folder is not the root of a procfs but somewhere inside
    /// one, which has the same magic number.
    pub(crate) fn at(root: BorrowedFd<'_>) -> Option<Live> {
        readlinkat(root, c"self", Vec::new()).ok()?;
        let mut status = Vec::new();
        let own_pids =
            read::record(root, c"self/status", &mut status).is_ok() && task::is_in_one_namespace(&status);
        Some(Live { own_pids })
    }
}

impl Tree for Live {
    fn is_live(&self) -> bool {
        true
    }

    /// `NSpid` lists the ids of a process, from the procfs's pid namespace down to its own
    /// (`task_state` in fs/proc/array.c).
    fn has_own_pids(&self) -> bool {
        self.own_pids
    }

    fn says_exited(&self, error: Errno) -> bool {
        matches!(error, Errno::NOENT | Errno::SRCH)
    }

    /// The number is that of the caller's pid namespace (`loadavg_proc_show` in fs/proc/loadavg.c).
    fn last_pid(&self, root: &Folder) -> Option<u32> {
        let mut text = Vec::new();
        root.read_record(c"loadavg", &mut text).ok()?;
        task::last_pid(&text).filter(|_| self.own_pids)
    }

    fn open_folder(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
        read::open_dir(at, path)
    }

    fn open_file(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
        read::open_file(at, path)
    }

    fn pin(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd> {
        guard::open_at(None, at, path, OFlags::PATH | OFlags::CLOEXEC)
    }

    fn read_link<'r>(
        &self,
        at: BorrowedFd<'_>,
        path: &CStr,
        room: &'r mut [MaybeUninit<u8>],
    ) -> Result<&'r [u8]> {
        guard::read_link_at(at, path, room)
    }

    /// If the procfs belongs to another pid namespace, lsbuf itself may not be listed in it.
    fn own_maps(&self, root: &Folder) -> Result<OwnedFd> {
        root.file(c"self/maps").or_else(|_| read::open_file(CWD, c"/proc/self/maps"))
    }

    /// `task` has one link for itself, one from its parent, and one per thread (`proc_task_getattr`
    /// in fs/proc/base.c).
    fn may_have_threads(&self, at: &Folder, task: &str) -> Result<bool> {
        const LINKS_OF_ONE: u32 = 3;
        let task = statx(at.fd(), task, AtFlags::empty(), StatxFlags::NLINK)?;
        Ok(task.stx_nlink > LINKS_OF_ONE)
    }

    fn has_own_fds(&self, _process: &Folder, _thread: Tid) -> Option<bool> {
        None
    }

    /// Calls kcmp(2), which takes pids of the caller's pid namespace.
    fn compare(&self, what: Resource, a: Tid, b: Tid) -> Option<Ordering> {
        if self.own_pids { kcmp::compare(what, a, b) } else { None }
    }

    fn still_runs(&self, root: &Folder, task: Tid) -> bool {
        let mut stat = Vec::new();
        root.folder(DecInt::new(task.0)).and_then(|task| task.read_record(c"stat", &mut stat)).is_ok()
            && task::stage(&stat) == Ok(Stage::Running)
    }

    fn object(&self, process: &Folder, link: &str, known: Option<Dev>) -> Result<LinkTarget> {
        identity::ask(process.fd(), link, known)
    }

    fn shm_file(&self, process: &Folder, link: &str) -> Result<ShmFile> {
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = link.into_with_c_str(|link| guard::stat_at(process.fd(), link, flags, mask))?;
        Ok(ShmInode::of(&found).map_or(ShmFile::Irregular, ShmFile::Regular))
    }

    /// The link's mode shows how the file was opened: it has no bits for `O_PATH`, nor for the
    /// access mode 3, which allows only ioctls (`tid_fd_update_inode` in fs/proc/fd.c).
    fn shows_access(&self, process: &Folder, link: &str) -> Result<bool> {
        let link = statx(process.fd(), link, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MODE)?;
        Ok(link.stx_mode & 0o700 != 0)
    }

    fn magic(&self, process: &Folder, link: &str, dev: Dev) -> Option<i64> {
        let pinned = process.pin(link).ok()?;
        let is_there = device_of(&fstat(&pinned).ok()?) == dev;
        fstatfs(&pinned).ok().filter(|_| is_there).map(|filesystem| filesystem.f_type)
    }

    fn dmabuf_dev(&self) -> Option<Dev> {
        None
    }

    fn own_shmem(&self) -> HashMap<Dev, Filesystem> {
        unmounted::filesystems()
    }

    fn kept_usage(&self, _dev: Dev) -> Option<TmpfsUsage> {
        None
    }

    fn reader(&self, root: &Folder) -> Option<Pid> {
        let own = readlinkat(root.fd(), c"self", Vec::new()).ok()?;
        number32(own.as_bytes(), 10).ok().map(Pid)
    }
}
