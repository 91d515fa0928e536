//! The root of the procfs that is read: that of a running kernel, or a recorded tree of the same
//! shape ([`tree`](super::tree)).
//!
//! It lists the processes, and reads what belongs to none of them: the last pid and the names of
//! the machine.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, fstatfs};

use super::parse::{number, number32};
use super::read;
use super::rights::Rights;
use super::tree::live::Live;
use super::tree::recorded::Recorded;
use super::tree::{Folder, Tree};
use super::{magic, task};
use crate::error::{Error, ErrorKind};
use crate::model::{Host, Pid};

/// The last process id that the kernel assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastPid(u32);

/// An open procfs.
#[derive(Debug)]
pub(crate) struct ProcRoot {
    dir: Folder,
    path: PathBuf,
    /// Read once: neither changes while it is open.
    kernel: Option<String>,
    boot_id: Option<String>,
}

impl ProcRoot {
    /// Opens `path`, and checks that it is a procfs or a recorded tree of one.
    pub(crate) fn open(path: &Path) -> Result<ProcRoot, Error> {
        let failed = |e| Error::io(e, format!("cannot read {}", path.display()));
        let dir = read::open_dir(CWD, path).map_err(failed)?;
        let is_proc = fstatfs(&dir).map_err(failed)?.f_type == magic::PROC;
        let tree: Option<Arc<dyn Tree>> = if is_proc {
            Live::at(dir.as_fd()).map(|live| Arc::new(live) as Arc<dyn Tree>)
        } else {
            Some(Arc::new(Recorded::at(dir.as_fd())))
        };
        let root = tree.map(|tree| ProcRoot::new(Folder::new(dir, tree), path));
        let is_one = |root: &ProcRoot| root.is_live() || root.kernel.is_some();
        root.filter(is_one).ok_or_else(|| {
            let text = format!("{} is no procfs, nor a recorded tree of one", path.display());
            Error::new(ErrorKind::NotProcfs, text)
        })
    }

    fn new(dir: Folder, path: &Path) -> ProcRoot {
        let mut root = ProcRoot { dir, path: path.to_owned(), kernel: None, boot_id: None };
        root.kernel = root.sysctl(c"sys/kernel/osrelease");
        root.boot_id = root.sysctl(c"sys/kernel/random/boot_id");
        root
    }

    /// The path that it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is a running kernel's procfs and not a recorded tree.
    pub(crate) fn is_live(&self) -> bool {
        self.tree().is_live()
    }

    /// The tree, which has all that differs between the two.
    pub(crate) fn tree(&self) -> &dyn Tree {
        self.dir.tree()
    }

    /// Its open directory.
    pub(crate) fn dir(&self) -> &Folder {
        &self.dir
    }

    /// Every process that is listed, by its id and the inode number of its directory, ascending. A
    /// reused pid has another inode number, because a directory disappears with its process
    /// (`proc_flush_pid` in fs/proc/base.c).
    pub(crate) fn processes(&self) -> io::Result<Vec<(Pid, u64)>> {
        // The read position belongs to the open file, so each listing opens the directory anew.
        let dir = self.dir.folder(c".")?;
        let mut pids = Vec::new();
        read::entries(dir.fd(), |name, ino| {
            if let Ok(pid) = number32(name.to_bytes(), 10) {
                pids.push((Pid(pid), ino));
            }
            Ok(())
        })?;
        pids.sort_unstable();
        Ok(pids)
    }

    /// Whether a process with that id is listed. Threads are not listed, though procfs opens their
    /// folders too.
    pub(crate) fn has_process(&self, pid: Pid) -> io::Result<bool> {
        Ok(self.processes()?.iter().any(|&(listed, _)| listed == pid))
    }

    /// Whether kernel threads are visible. They are only in the first pid namespace, and only if
    /// procfs does not hide other users' processes. `kthreadd` is pid 2 on every machine.
    pub(crate) fn shows_kernel_threads(&self) -> bool {
        let mut text = Vec::new();
        self.dir.read_record(c"2/stat", &mut text).is_ok() && task::stage(&text) == Ok(task::Stage::Kernel)
    }

    /// Whether this is the procfs of this machine's first pid namespace. Kernel threads are listed
    /// only there, but hidepid may hide them.
    pub(crate) fn has_first_pids(&self) -> bool {
        let is_first = || self.has_own_pids() && Rights::own().first_pid_namespace;
        self.is_live() && (self.shows_kernel_threads() || is_first())
    }

    /// Whether pids here are those of this process's own system calls: it is a live procfs of its
    /// own pid namespace.
    pub(crate) fn has_own_pids(&self) -> bool {
        self.tree().has_own_pids()
    }

    /// A number that changes whenever a process or thread is started. `None`: it cannot be read.
    pub(crate) fn last_pid(&self) -> Option<LastPid> {
        self.tree().last_pid(&self.dir).map(LastPid)
    }

    /// Reads this process's own `stat` and ignores it; used to measure how long that takes.
    pub(crate) fn own_stat(&self) {
        let _ = self.dir.read_record(c"self/stat", &mut Vec::new());
    }

    /// When the machine booted, in seconds of the wall clock (`btime` of `/proc/stat`).
    pub(crate) fn boot_time(&self) -> Option<u64> {
        let mut text = Vec::new();
        self.dir.read_file(c"stat", &mut text).ok()?;
        let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"btime "))?;
        number(line, 10).ok()
    }

    /// The machine's names as this procfs shows them.
    pub(crate) fn host(&self) -> Host {
        Host {
            hostname: self.sysctl(c"sys/kernel/hostname"),
            kernel: self.kernel.clone(),
            boot_id: self.boot_id.clone(),
        }
    }

    fn sysctl(&self, path: &std::ffi::CStr) -> Option<String> {
        let mut text = Vec::new();
        self.dir.read_record(path, &mut text).ok()?;
        Some(String::from_utf8_lossy(&text).trim_end().to_owned())
    }
}
