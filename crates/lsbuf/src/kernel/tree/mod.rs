//! The two things that lsbuf can read: the procfs of a running kernel, and a recording of one.
//!
//! Both have the same shape, and the same code parses their texts. They differ in how a path is
//! opened, and in what only a running kernel can answer. These differences are the methods of one
//! trait, [`Tree`]. [`live`] calls the kernel. [`recorded`] looks the answers up in the recorded
//! folder, and trusts nothing that it finds there. A [`Folder`] knows its tree, so the readers need
//! not know which of the two they read.

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

/// Everything in which a running kernel's procfs and a recorded tree differ.
pub(crate) trait Tree: fmt::Debug + Send + Sync {
    /// Whether it belongs to a running kernel, so that anything may change while it is read.
    fn is_live(&self) -> bool;

    /// Whether pids here are those of this process's own system calls.
    fn has_own_pids(&self) -> bool;

    /// Whether an error means that the process or thread has exited.
    fn says_exited(&self, error: Errno) -> bool;

    /// The last pid that was assigned; `None`: that number says nothing about the processes listed
    /// here.
    fn last_pid(&self, root: &Folder) -> Option<u32>;

    /// Opens a folder below another one.
    fn open_folder(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd>;

    /// Opens a file for reading.
    fn open_file(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd>;

    /// Opens a path by `O_PATH`, which neither opens a device nor calls a server.
    fn pin(&self, at: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd>;

    /// Reads a link without following it.
    fn read_link<'r>(
        &self,
        at: BorrowedFd<'_>,
        path: &CStr,
        room: &'r mut [MaybeUninit<u8>],
    ) -> Result<&'r [u8]>;

    /// Opens lsbuf's own `maps`, to test what the kernel can do with it. `ENOTTY`: there is no
    /// kernel.
    fn own_maps(&self, root: &Folder) -> Result<OwnedFd>;

    /// Whether the process with that `task` folder may have threads besides its leader.
    fn may_have_threads(&self, at: &Folder, task: &str) -> Result<bool>;

    /// Whether a thread has an fd table of its own. `None`: found out only by
    /// [comparing](Tree::compare).
    fn has_own_fds(&self, process: &Folder, thread: Tid) -> Option<bool>;

    /// `Equal`: the two tasks share the resource. Else an order that stays the same. `None`:
    /// unknown.
    fn compare(&self, what: Resource, a: Tid, b: Tid) -> Option<Ordering>;

    /// Whether a task still runs its program. A task that has exited has no tables, and compares
    /// equal to others that have none.
    fn still_runs(&self, root: &Folder, task: Tid) -> bool;

    /// Identifies the file behind a link of an fd or mapping that may be a dma-buf. A file on the
    /// `known` device is one.
    fn object(&self, process: &Folder, link: &str, known: Option<Dev>) -> Result<LinkTarget>;

    /// Identifies the file behind such a link that may be shared memory.
    fn shm_file(&self, process: &Folder, link: &str) -> Result<ShmFile>;

    /// Whether an fd's link shows that its file was opened for reading or writing. If not, the
    /// fdinfo has to be read.
    fn shows_access(&self, process: &Folder, link: &str) -> Result<bool>;

    /// The magic number of the filesystem behind a link, if the file is on this device.
    fn magic(&self, process: &Folder, link: &str, dev: Dev) -> Option<i64>;

    /// The device of the dma-buf filesystem, if it is known without a dma-buf.
    fn dmabuf_dev(&self) -> Option<Dev>;

    /// The device numbers of the kernel's own shmem filesystems.
    fn own_shmem(&self) -> HashMap<Dev, Filesystem>;

    /// The recorded usage of a mounted tmpfs; `None`: this tree has no records, so it has to be
    /// read.
    fn kept_usage(&self, dev: Dev) -> Option<TmpfsUsage>;

    /// lsbuf's own process, if it is among those listed.
    fn reader(&self, root: &Folder) -> Option<Pid>;
}

/// An open folder of a tree. The tree opens everything below it.
#[derive(Debug)]
pub(crate) struct Folder {
    fd: OwnedFd,
    tree: Arc<dyn Tree>,
}

impl Folder {
    /// Wraps an open folder.
    pub(crate) fn new(fd: OwnedFd, tree: Arc<dyn Tree>) -> Folder {
        Folder { fd, tree }
    }

    /// Its tree.
    pub(crate) fn tree(&self) -> &dyn Tree {
        &*self.tree
    }

    /// Its fd, for calls that open nothing below it.
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

    /// Opens a path below by `O_PATH`.
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
