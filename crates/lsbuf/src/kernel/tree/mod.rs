//! What is read: the procfs of a running kernel, or a recording of one.
//!
//! Both have the same shape, and every text is read alike. What differs is behind one trait: how a path is opened, and what
//! only a running kernel can be asked. [`live`] asks the kernel. [`recorded`] looks the answers up in the tree, and trusts
//! nothing that it finds there. A [`Folder`] knows its tree, so no reader has to ask which of the two it reads.

pub(crate) mod live;
pub(crate) mod recorded;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::CStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, Result};
use rustix::path::Arg;

use super::identity::LinkTarget;
use super::kcmp::Resource;
use super::read;
use super::shmem::inode::ShmFile;
use super::shmem::name::Filesystem;
use crate::model::{Dev, Pid, Tid, TmpfsUsage};

/// What differs between a running kernel's procfs and a recording of one.
pub(crate) trait Tree: fmt::Debug + Send + Sync {
    /// Whether a running kernel answers, so that anything may change while it is read.
    fn is_live(&self) -> bool;

    /// Whether pids here mean the same to this process's own system calls.
    fn has_own_pids(&self) -> bool;

    /// Whether an error says that the process or thread that was asked has exited.
    fn says_exited(&self, error: Errno) -> bool;

    /// The last pid given out; `None`: that says nothing of the processes listed here.
    fn last_pid(&self, root: &Folder) -> Option<u32>;

    /// Opens a folder below another one.
    fn open_folder(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd>;

    /// Opens a file for reading.
    fn open_file(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd>;

    /// Pins what stands at a path (`O_PATH`), which opens neither device nor server.
    fn pin(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd>;

    /// Reads a link without following it.
    fn read_link<'r>(
        &self,
        at: BorrowedFd<'_>,
        path: &CStr,
        room: &'r mut [MaybeUninit<u8>],
    ) -> Result<&'r [u8]>;

    /// Opens the reader's own `maps`, to try what the kernel can do with it. `ENOTTY`: no kernel answers.
    fn own_maps(&self, root: &Folder) -> Result<OwnedFd>;

    /// Whether the process whose `task` folder that is may have threads besides its leader.
    fn may_have_threads(&self, at: &Folder, task: &str) -> Result<bool>;

    /// Whether a thread has an fd table of its own. `None`: two have to be [compared](Tree::compare).
    fn has_own_fds(&self, process: &Folder, thread: Tid) -> Option<bool>;

    /// `Equal`: two tasks share it. Else an order, which is the same whenever it is asked. `None`: unknown.
    fn compare(&self, what: Resource, a: Tid, b: Tid) -> Option<Ordering>;

    /// Whether a task still runs its program. One that has exited has no tables, and compares equal to others that have none.
    fn still_runs(&self, root: &Folder, task: Tid) -> bool;

    /// What stands behind a link of an fd or a mapping, where it may be a dma-buf. On the `known` device it is one.
    fn object(&self, process: &Folder, link: &str, known: Option<Dev>) -> Result<LinkTarget>;

    /// What stands behind such a link, where it may be of the shmem family.
    fn shm_file(&self, process: &Folder, link: &str) -> Result<ShmFile>;

    /// Whether an fd's link tells that its file was opened to be read or written. If not, its fdinfo has to be read.
    fn shows_access(&self, process: &Folder, link: &str) -> Result<bool>;

    /// The magic number of the filesystem behind a link, if that is on this device.
    fn magic(&self, process: &Folder, link: &str, dev: Dev) -> Option<i64>;

    /// The device of the dma-buf filesystem, if it is known without looking at any.
    fn dmabuf_dev(&self) -> Option<Dev>;

    /// The devices of the kernel's own shmem filesystems.
    fn own_shmem(&self) -> HashMap<Dev, Filesystem>;

    /// What is used of a mounted tmpfs, if the tree keeps that; `None`: it has to be asked.
    fn kept_usage(&self, dev: Dev) -> Option<TmpfsUsage>;

    /// The process whose mounts the reader sees itself. `None`: there is none among those listed.
    fn reader(&self, root: &Folder) -> Option<Pid>;
}

/// An open folder of a tree. What lies below it is opened as its tree does.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    tree: Arc<dyn Tree>,
}

impl Folder {
    /// A folder that was opened.
    pub(crate) fn new(fd: OwnedFd, tree: Arc<dyn Tree>) -> Folder {
        Folder { fd, tree }
    }

    /// Its tree.
    pub(crate) fn tree(&self) -> &dyn Tree {
        &*self.tree
    }

    /// Its fd, for calls that do not open what lies below.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens a folder below.
    pub(crate) fn folder<P: Arg>(&self, path: P) -> Result<Folder> {
        let fd = path.into_with_c_str(|path| self.tree.open_folder(self.fd(), path))?;
        Ok(Folder { fd, tree: Arc::clone(&self.tree) })
    }

    /// Opens a file below for reading.
    pub(crate) fn file<P: Arg>(&self, path: P) -> Result<OwnedFd> {
        path.into_with_c_str(|path| self.tree.open_file(self.fd(), path))
    }

    /// Pins what stands at a path.
    pub(crate) fn pin<P: Arg>(&self, path: P) -> Result<OwnedFd> {
        path.into_with_c_str(|path| self.tree.pin(self.fd(), path))
    }

    /// As [`read::file`], of a file below.
    pub(crate) fn read_file<P: Arg>(&self, path: P, text: &mut Vec<u8>) -> Result<()> {
        read::whole(&self.file(path)?, text)
    }

    /// As [`read::record`], of a file below.
    pub(crate) fn read_record<P: Arg>(&self, path: P, text: &mut Vec<u8>) -> Result<()> {
        read::one_record(&self.file(path)?, text)
    }

    /// Reads a link below without following it.
    pub(crate) fn link<'r, P: Arg>(&self, path: P, room: &'r mut [MaybeUninit<u8>]) -> Result<&'r [u8]> {
        path.into_with_c_str(|path| self.tree.read_link(self.fd(), path, room))
    }
}
