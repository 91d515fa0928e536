//! Sets the name of another process's dma-buf, through a duplicate of one of its fds.
//!
//! This is the only thing that lsbuf changes in the kernel on behalf of its user. The duplicate is
//! a reference to the same open file, so the count is one higher until it is closed.
//!
//! Between the scan and this call, the process may have exited or replaced the fd, and its pid may
//! be another process's. So the start time is compared after the pidfd is open, and the duplicate
//! must be the dma-buf that is meant before its name is touched, and when it is read again.
//!
//! Limits: the kernel has no request that sets a name only if the old one is still there. Another
//! process can rename the buffer between the reading of the old name and the setting of the new.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use super::duplicate::{self, Pidfd};
use super::identity::{LinkTarget, object};
use super::path::Path;
use super::process::ProcessDir;
use super::root::ProcRoot;
use super::{fdinfo, own};
use crate::model::{Dev, Fd, Inode, Label, Pid, Tid};

/// A duplicate of an fd that is proven to be one certain dma-buf's.
#[derive(Debug)]
pub(crate) struct Duplicate {
    file: OwnedFd,
    of: (Dev, Inode),
}

/// Why there is no duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoDuplicate {
    /// The process exited, or its pid is another process's by now.
    Gone,
    /// The fd is closed or another file's by now.
    Replaced,
    /// The kernel does not allow it.
    Denied,
    /// The kernel has no pidfd_open(2) or pidfd_getfd(2), or a filter of system calls hides them.
    NotSupported,
    /// The kernel cannot open a pidfd of a single thread (before Linux 6.9, commit 64bef697d33b).
    NoThreads,
    /// Any other error.
    Failed(Errno),
}

/// Duplicates an fd of a process, or of a thread with an fd table of its own. `started` is the
/// start time that the scan has read.
pub(crate) fn duplicate(
    root: &ProcRoot,
    (pid, started): (Pid, u64),
    thread: Option<Tid>,
    fd: Fd,
    of: (Dev, Inode),
) -> std::result::Result<Duplicate, NoDuplicate> {
    let gone = |errno| match errno {
        Errno::NOENT | Errno::SRCH => NoDuplicate::Gone,
        errno => NoDuplicate::Failed(errno),
    };
    let process = ProcessDir::open(root, pid).map_err(gone)?;
    if process.identify().map_err(gone)?.start_time != started {
        return Err(NoDuplicate::Gone);
    }
    let target = Pidfd::open(pid, thread).map_err(|errno| match (errno, thread) {
        (Errno::INVAL, Some(_)) => NoDuplicate::NoThreads,
        (Errno::NOSYS, _) => NoDuplicate::NotSupported,
        (errno, _) => gone(errno),
    })?;
    let taken = duplicate::take_from(&target, &process, fd, of.1);
    let (file, dev) = taken.map_err(|errno| match errno {
        Errno::SRCH | Errno::NOENT => NoDuplicate::Gone,
        Errno::BADF => NoDuplicate::Replaced,
        Errno::PERM | Errno::ACCESS => NoDuplicate::Denied,
        Errno::NOSYS => NoDuplicate::NotSupported,
        errno => NoDuplicate::Failed(errno),
    })?;
    if dev != of.0 {
        return Err(NoDuplicate::Replaced);
    }
    Ok(Duplicate { file, of })
}

impl Duplicate {
    /// The present name. Empty: it has none.
    pub(crate) fn name(&self, root: &ProcRoot) -> Result<Label> {
        match object(self.file.as_fd())? {
            LinkTarget::DmaBuf(inode) if (inode.dev, inode.ino) == self.of => {}
            _ => return Err(Errno::STALE),
        }
        let mut text = Vec::new();
        let path = format_args!("self/fdinfo/{}", self.file.as_raw_fd());
        root.dir().read_record(Path::new(path).as_str(), &mut text)?;
        let parsed = fdinfo::parse(&text).map_err(|_| Errno::BADMSG)?;
        parsed.dmabuf.map(|dmabuf| dmabuf.name).ok_or(Errno::BADMSG)
    }

    /// Sets the name. `EBUSY`: a device is attached, and this kernel refuses then, as Linux 5.10
    /// does (`dma_buf_set_name`).
    pub(crate) fn set_name(&self, name: &CStr) -> Result<()> {
        own::set_name(self.file.as_fd(), name)
    }
}
