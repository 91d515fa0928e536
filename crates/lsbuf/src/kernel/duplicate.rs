//! A duplicate of somebody's fd, for who may trace the process but not follow its links (`pidfd_getfd(2)`).

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::identity::{Object, object};
use super::process::ProcessDir;
use crate::model::{Dev, Fd, Inode};

/// The device of the dma-buf filesystem, by a duplicate of one of its fds.
pub(crate) fn device(process: &ProcessDir, fd: Fd, ino: Inode, text: &mut Vec<u8>) -> Result<Dev> {
    match object(take(process, fd, ino, text)?.as_fd())? {
        Object::DmaBuf(inode) => Ok(inode.dev),
        Object::Other(_) => Err(Errno::BADF),
    }
}

/// A duplicate of an fd whose fdinfo has shown `exp_name` and inode number. It must be closed before any count is read
/// again. Needs a pid of this process's own namespace, and the right to attach (`pidfd_getfd(2)`).
///
/// The process may replace the fd between the two; then the duplicate is some file of its, which is asked no more than
/// the tests above allow, and closed.
pub(crate) fn take(process: &ProcessDir, fd: Fd, ino: Inode, text: &mut Vec<u8>) -> Result<OwnedFd> {
    let pid = i32::try_from(process.pid().0).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    let number = i32::try_from(fd.0).map_err(|_| Errno::BADF)?;
    let target = pidfd_open(pid, PidfdFlags::empty())?;
    // Its directory was open before: if it is still there, the pid was nobody else's meanwhile.
    process.dir().read_record(c"stat", text)?;
    let duplicate = pidfd_getfd(&target, number, PidfdGetfdFlags::empty())?;
    match object(duplicate.as_fd())? {
        Object::DmaBuf(inode) if inode.ino == ino => Ok(duplicate),
        Object::DmaBuf(_) | Object::Other(_) => Err(Errno::BADF),
    }
}
