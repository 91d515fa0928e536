//! A duplicate of somebody's fd, for who may trace the process but not follow its links (`pidfd_getfd(2)`).
//!
//! The process may replace the fd between the look at its fdinfo and this; then the duplicate is some other file of its. That
//! one is asked no more than [`identity`](super::identity) allows of any file. Its close asks its filesystem, too (`flush`), and a
//! FUSE file's waits for whoever serves it. So such a file is closed by a thread of its own, which is waited for a moment only.
//!
//! Limits: as long as that server does not answer, the thread stays, and so does this process when it wants to exit.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::io::{Errno, Result};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::identity::{LinkTarget, object};
use super::process::ProcessDir;
use crate::model::{Dev, Fd, Inode};

/// How long the close of a replaced fd is waited for. Only a server that is slow or dead takes longer.
const DEADLINE: Duration = Duration::from_millis(100);

/// The device of the dma-buf filesystem, by a duplicate of one of its fds.
pub(crate) fn device(process: &ProcessDir, fd: Fd, ino: Inode) -> Result<Dev> {
    take(process, fd, ino).map(|(_, dev)| dev)
}

/// A duplicate of an fd whose fdinfo has shown `exp_name` and inode number, and the device that it is on. It must be closed
/// before any count is read again. Needs a pid of this process's own namespace, and the right to attach.
///
/// # Errors
/// `EBADF`: the fd has been replaced. `EAGAIN`: there can be no thread.
pub(crate) fn take(process: &ProcessDir, fd: Fd, ino: Inode) -> Result<(OwnedFd, Dev)> {
    let pid = i32::try_from(process.pid().0).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    let number = i32::try_from(fd.0).map_err(|_| Errno::BADF)?;
    let target = pidfd_open(pid, PidfdFlags::empty())?;
    // Its directory was open before: if it is still there, the pid was nobody else's meanwhile.
    process.dir().read_record(c"stat", &mut Vec::new())?;
    // Before there is anything to be closed: who has no thread would have to close it here.
    let closer = Closer::start()?;
    let duplicate = pidfd_getfd(&target, number, PidfdGetfdFlags::empty())?;
    match object(duplicate.as_fd()) {
        Ok(LinkTarget::DmaBuf(inode)) if inode.ino == ino => Ok((duplicate, inode.dev)),
        // The close of a dma-buf asks nobody.
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

/// A thread that closes one file, and ends.
struct Closer {
    files: Sender<(OwnedFd, Sender<()>)>,
}

impl Closer {
    fn start() -> Result<Closer> {
        let (files, given) = channel::<(OwnedFd, Sender<()>)>();
        let close = move || {
            // Its other end is dropped with the file: then it is closed, or there is none to be closed.
            if let Ok((file, closed)) = given.recv() {
                drop(file);
                drop(closed);
            }
        };
        thread::Builder::new().name("close".to_owned()).spawn(close).map_err(|_| Errno::AGAIN)?;
        Ok(Closer { files })
    }

    /// Closes a file, and waits until that is done or the time is over.
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

    /// Check that a file whose close waits for somebody, here a peer that does not read, is not waited for.
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

    /// Check that a file whose close waits for nobody is closed when that returns.
    #[test]
    fn a_close_that_does_not() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        Closer::start().unwrap().close(writer);
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0), "{}", reader.as_raw_fd());
    }
}
