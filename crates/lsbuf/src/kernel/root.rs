//! The procfs that is read: a live one, or a recorded tree of the same shape.
//!
//! A recorded tree is an ordinary directory with `sys/kernel/osrelease` in it. What only a living kernel could tell it may
//! keep in files that a real procfs cannot contain: in `.lsbuf/dmabuf-dev` the device number of the dma-buf filesystem as
//! `MAJOR:MINOR`, of single inodes what [`identity`] says, in `.lsbuf/shared` which processes share what (see
//! [`super::sharing`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, fstatfs, readlinkat};

use super::parse::{number, number32};
use super::read::{self, Buffers};
use super::{identity, magic, task};
use crate::error::{Error, ErrorKind};
use crate::model::{Dev, Host, Pid};

/// How far a machine has come in starting processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Births(u32);

/// How many processes and threads a machine has started, counted when they are listed, after all that they inherit was copied;
/// and how far it has come, which also moves for one that fails later than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forks(u64, Option<Births>);

/// An open procfs.
#[derive(Debug)]
pub(crate) struct ProcRoot {
    dir: OwnedFd,
    path: PathBuf,
    live: bool,
    own_pids: bool,
    /// Neither changes while it is open.
    kernel: Option<String>,
    boot_id: Option<String>,
}

impl ProcRoot {
    /// Opens `path` and makes sure that it is a procfs or a recorded tree of one.
    pub(crate) fn open(path: &Path) -> Result<ProcRoot, Error> {
        let dir =
            read::open_dir(CWD, path).map_err(|e| Error::io(e, format!("cannot read {}", path.display())))?;
        let magic =
            fstatfs(&dir).map_err(|e| Error::io(e, format!("cannot read {}", path.display())))?.f_type;
        let live = magic == magic::PROC;
        let mut root =
            ProcRoot { dir, path: path.to_owned(), live, own_pids: false, kernel: None, boot_id: None };
        root.kernel = root.sysctl(c"sys/kernel/osrelease");
        root.boot_id = root.sysctl(c"sys/kernel/random/boot_id");
        // A folder inside a procfs has its magic number too, but not its `self`.
        let shaped = if root.live {
            readlinkat(&root.dir, c"self", Vec::new()).is_ok()
        } else {
            root.kernel.is_some()
        };
        if !shaped {
            let text = format!("{} is no procfs, nor a recorded tree of one", path.display());
            return Err(Error::new(ErrorKind::NotProcfs, text));
        }
        let mut status = Vec::new();
        root.own_pids = root.live
            && read::record(&root.dir, c"self/status", &mut status).is_ok()
            && task::is_in_one_namespace(&status);
        Ok(root)
    }

    /// The path it was opened by.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is a kernel's procfs rather than a recorded tree.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Its directory, for opening what lies below.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Every process listed, by its id and its directory's inode number, ascending. A recycled pid has another number:
    /// with a process its directory goes (`proc_flush_pid` in fs/proc/base.c).
    pub(crate) fn processes(&self, buffers: &mut Buffers) -> io::Result<Vec<(Pid, u64)>> {
        // A directory's position belongs to the open file: each listing opens its own.
        let dir = read::open_dir(&self.dir, c".")?;
        let mut pids = Vec::new();
        read::entries(dir.as_fd(), &mut buffers.dir, |name, ino| {
            if let Ok(pid) = number32(name.to_bytes(), 10) {
                pids.push((Pid(pid), ino));
            }
            Ok(())
        })?;
        pids.sort_unstable();
        Ok(pids)
    }

    /// Whether a process of that id is listed. Threads are not, though procfs opens their folders too.
    pub(crate) fn has_process(&self, pid: Pid, buffers: &mut Buffers) -> io::Result<bool> {
        Ok(self.processes(buffers)?.iter().any(|&(listed, _)| listed == pid))
    }

    /// Whether kernel threads show, which they do in the first pid namespace only, and only if nothing
    /// hides other users' processes. `kthreadd` is pid 2 of every machine.
    pub(crate) fn shows_kernel_threads(&self) -> bool {
        let mut text = Vec::new();
        read::record(&self.dir, c"2/stat", &mut text).is_ok() && task::stage(&text) == Ok(task::Stage::Kernel)
    }

    /// Whether pids here mean the same to this process's own system calls: the procfs is a live one, of this process's own
    /// pid namespace. `NSpid` lists a process's ids from the procfs's namespace down to its own
    /// (`task_state` in fs/proc/array.c).
    pub(crate) fn has_own_pids(&self) -> bool {
        self.own_pids
    }

    /// A number that changes whenever a process or thread is started: the last pid given out in the caller's pid
    /// namespace (`loadavg_proc_show` in fs/proc/loadavg.c). `None`: that says nothing of the processes listed here.
    pub(crate) fn births(&self) -> Option<Births> {
        if !self.live {
            return Some(Births(0));
        }
        let mut text = Vec::new();
        read::record(&self.dir, c"loadavg", &mut text).ok()?;
        last_pid(&text).filter(|_| self.own_pids).map(Births)
    }

    /// As [`ProcRoot::births`], but exact for what is under way: a pid is given out in the middle of a fork, and this counts at
    /// its end (`total_forks` in kernel/fork.c). It takes the kernel longer to tell.
    pub(crate) fn forks(&self, text: &mut Vec<u8>) -> Option<Forks> {
        read::record(&self.dir, c"stat", text).ok()?;
        Some(Forks(forks(text)?, self.births()))
    }

    /// Reads this process's own `stat`, for the time it takes.
    pub(crate) fn own_stat(&self, text: &mut Vec<u8>) {
        let _ = read::record(&self.dir, c"self/stat", text);
    }

    /// The machine as this procfs names it.
    pub(crate) fn host(&self) -> Host {
        Host {
            hostname: self.sysctl(c"sys/kernel/hostname"),
            kernel: self.kernel.clone(),
            boot_id: self.boot_id.clone(),
        }
    }

    /// The dma-buf device of a recorded tree.
    pub(crate) fn recorded_dev(&self) -> Option<Dev> {
        identity::device_text(self.recorded(c".lsbuf/dmabuf-dev")?.as_bytes()).ok()
    }

    /// What a recorded tree says of its processes' sharing; see [`super::sharing`].
    pub(crate) fn recorded_sharing(&self) -> Option<String> {
        self.recorded(c".lsbuf/shared")
    }

    /// The devices of the kernel's own shmem filesystems in a recorded tree; see [`super::shmem`].
    pub(crate) fn recorded_shmem(&self) -> Option<String> {
        self.recorded(c".lsbuf/shmem")
    }

    /// What is used of each mounted tmpfs in a recorded tree; see [`super::shmem::usage`].
    pub(crate) fn recorded_usage(&self) -> Option<String> {
        self.recorded(c".lsbuf/tmpfs-usage")
    }

    fn recorded(&self, path: &std::ffi::CStr) -> Option<String> {
        if self.live { None } else { self.sysctl(path) }
    }

    fn sysctl(&self, path: &std::ffi::CStr) -> Option<String> {
        let mut text = Vec::new();
        read::record(&self.dir, path, &mut text).ok()?;
        Some(String::from_utf8_lossy(&text).trim_end().to_owned())
    }
}

/// The last word of loadavg.
pub(crate) fn last_pid(loadavg: &[u8]) -> Option<u32> {
    let last = loadavg.trim_ascii_end().rsplit(|&b| b == b' ').next()?;
    number32(last, 10).ok()
}

/// The number of forks in the machine's stat.
fn forks(stat: &[u8]) -> Option<u64> {
    let count = stat.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"processes "))?;
    number(count, 10).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the number of forks is found among the other lines, and is not taken from one that only begins alike.
    #[test]
    fn forks_are_counted() {
        assert_eq!(forks(b"cpu  1 2\nctxt 12\nprocesses_x 1\nprocesses 4711\nprocs_running 2\n"), Some(4711));
        assert_eq!(forks(b"cpu  1 2\nprocs_running 2\nprocesses x\n"), None);
    }
}
