//! Duplicates an fd of another process (`pidfd_getfd(2)`), to learn about its file without
//! following links.
//!
//! It is used for two facts: the device of the dma-buf filesystem, if lsbuf may trace the process
//! but not follow its links; and the file that mappings of a dma-buf show
//! ([`mapped_as`](super::mapped_as)). [`rename`](super::rename) uses it to name a dma-buf.
//!
//! The process may replace the fd after lsbuf has read its fdinfo. The duplicate is then another
//! file of the process. Of that file lsbuf reads only what [`identity`](super::identity) allows of
//! any file. Closing it calls the filesystem's `flush`, too, and on FUSE that waits for the server.
//! So a thread of its own closes such a file, and lsbuf waits only a moment for that thread.
//!
//! Limits: as long as the server does not answer, the thread exists, and this process cannot end
//! completely.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::identity::{LinkTarget, object};
use super::process::ProcessDir;
use crate::model::{Dev, Fd, Inode, Pid as ModelPid, Tid};

/// How long to wait for the close of a replaced fd. It takes longer only if a server is slow or
/// dead.
const DEADLINE: Duration = Duration::from_millis(100);

/// The device of the dma-buf filesystem, from a duplicate of one of its fds.
pub(crate) fn device(process: &ProcessDir, fd: Fd, ino: Inode) -> Result<Dev> {
    take(process, fd, ino).map(|(_, dev)| dev)
}

/// Duplicates an fd with a fdinfo that has shown `exp_name` and this inode number, and returns the
/// duplicate and its device. The duplicate must be closed before any count is read again. The pid
/// must be one of this process's own pid namespace; the right to attach is needed.
///
/// # Errors
/// `EBADF`: the fd has been replaced. `EAGAIN`: no thread could be started.
pub(crate) fn take(process: &ProcessDir, fd: Fd, ino: Inode) -> Result<(OwnedFd, Dev)> {
    take_from(&Pidfd::open(process.pid(), None)?, process, fd, ino)
}

/// As [`take`], from the fd table of the task that the pidfd is of. The directory of its process
/// was opened before the pidfd.
pub(crate) fn take_from(
    Pidfd(target): &Pidfd,
    process: &ProcessDir,
    fd: Fd,
    ino: Inode,
) -> Result<(OwnedFd, Dev)> {
    let number = i32::try_from(fd.0).map_err(|_| Errno::BADF)?;
    // If `stat` can still be read there, the pid has not been reused meanwhile.
    process.dir().read_record(c"stat", &mut Vec::new())?;
    // Started before there is a file to close; without a thread, it would have to be closed here.
    let closer = Closer::start()?;
    let duplicate = pidfd_getfd(target, number, PidfdGetfdFlags::empty())?;
    match object(duplicate.as_fd()) {
        Ok(LinkTarget::DmaBuf(inode)) if inode.ino == ino => Ok((duplicate, inode.dev)),
        // The close of a dma-buf waits for no other process.
        Ok(LinkTarget::DmaBuf(_)) => Err(Errno::BADF),
        Ok(LinkTarget::Other(_)) => {
            closer.close(duplicate);
            Err(Errno::BADF)
        }
        Err(error) => {
            closer.close(duplicate);
            Err(error)
        }
    }
}

/// A pidfd of a process, or of one of its threads.
#[derive(Debug)]
pub(crate) struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens one. `EINVAL` for a thread: the kernel has no such pidfds (before Linux 6.9, commit
    /// 64bef697d33b).
    pub(crate) fn open(pid: ModelPid, thread: Option<Tid>) -> Result<Pidfd> {
        /// `PIDFD_THREAD` of include/uapi/linux/pidfd.h, which is `O_EXCL`.
        const THREAD: PidfdFlags = PidfdFlags::from_bits_retain(OFlags::EXCL.bits());
        let (number, flags) = match thread {
            None => (pid.0, PidfdFlags::empty()),
            Some(tid) => (tid.0, THREAD),
        };
        let raw = i32::try_from(number).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        pidfd_open(raw, flags).map(Pidfd)
    }
}

/// A thread that closes one file and ends.
struct Closer {
    files: Sender<(OwnedFd, Sender<()>)>,
}

impl Closer {
    fn start() -> Result<Closer> {
        let (files, given) = channel::<(OwnedFd, Sender<()>)>();
        let close = move || {
            // `closed` is dropped after the file, which wakes the caller. If no file is sent, the
            // thread ends.
            if let Ok((file, closed)) = given.recv() {
                drop(file);
                drop(closed);
            }
        };
        thread::Builder::new().name("close".to_owned()).spawn(close).map_err(|_| Errno::AGAIN)?;
        Ok(Closer { files })
    }

    /// Closes a file. Returns when that is done or [`DEADLINE`] has passed.
    fn close(&self, file: OwnedFd) {
        let (closed, done) = channel();
        if self.files.send((file, closed)).is_ok() {
            let _ = done.recv_timeout(DEADLINE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    use rustix::net::sockopt::set_socket_linger;

    use super::*;

    /// Check that a close that blocks is not waited for: here that of a socket with a peer that
    /// does not read.
    #[test]
    fn a_close_that_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _peer = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 1 << 16]).is_ok() {}
        stream.set_nonblocking(false).unwrap();
        set_socket_linger(&stream, Some(Duration::from_secs(5))).unwrap();
        let begun = Instant::now();
        Closer::start().unwrap().close(OwnedFd::from(stream));
        assert!((DEADLINE..Duration::from_secs(3)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    }

    /// Check that a file with a close that does not block is closed when the function returns.
    #[test]
    fn a_close_that_does_not() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        Closer::start().unwrap().close(writer);
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0), "{}", reader.as_raw_fd());
    }
}
