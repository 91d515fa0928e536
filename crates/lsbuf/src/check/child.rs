//! The second process of a check: it holds a buffer that it inherited or received, and reports what
//! it sees.
//!
//! Some claims are about buffers that change hands, so one process is not enough. The second one is
//! this program, started again. Its standard output *is* the inherited buffer, because a standard
//! stream is the only fd that can be passed on and used again without `unsafe`. Its standard input
//! is a socket: each message is one word that says what to do, and gets one answer. It ends when
//! the socket closes.
//!
//! Limits: there is one second process at a time.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use dmabuf::{DmaBuf, ErrorKind, share};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::judge::{Attempt, Fault, Tried, same_text};
use crate::error::Error;

/// A program that calls [`assist`] if started with these arguments.
#[derive(Clone, Debug)]
pub struct Helper {
    /// The program, such as `/proc/self/exe`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// Enough for any machine to start a process; only a broken helper takes longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Report the identity of the inherited buffer.
const LOOK: &[u8] = b"look";
/// Keep the buffer that comes with the message, and report its identity.
const TAKE: &[u8] = b"take";
/// Give the inherited buffer the name [`GIVEN`].
const NAME: &[u8] = b"name";

/// The answer to a request that asks for nothing.
const DONE: &[u8] = b"done";

/// The name that the second process gives.
pub(super) const GIVEN: &[u8] = b"by another";

/// The second process, as seen from the check. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    socket: OwnedFd,
}

impl Child {
    /// Starts it with a copy of the buffer's fd, and waits until it holds nothing else of the
    /// buffer.
    pub(super) fn start(helper: &Helper, buf: &DmaBuf) -> Result<Child, Fault> {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .attempt("making a socket")?;
        set_socket_timeout(&here, Timeout::Recv, Some(ANSWER_TIMEOUT)).attempt("setting a time limit")?;
        // The command owns the fds that it passes on, and closes this process's copies when it is
        // dropped.
        let process = Command::new(&helper.program)
            .args(&helper.arguments)
            .stdin(there)
            .stdout(OwnedFd::from(buf.try_clone()?))
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Fault::Untried(format!("starting {}: {error}", helper.program.display())))?;
        let child = Child { process, socket: here };
        child.sees(buf)?;
        Ok(child)
    }

    /// Whether it sees the right buffer through the inherited fd.
    pub(super) fn sees(&self, buf: &DmaBuf) -> Tried {
        same_text("another process sees", describe(buf)?.as_bytes(), &self.ask(&[], LOOK)?)
    }

    /// Sends it the buffer; whether what arrives is the same buffer.
    pub(super) fn takes(&self, buf: &DmaBuf) -> Tried {
        same_text("the receiver sees", describe(buf)?.as_bytes(), &self.ask(&[buf], TAKE)?)
    }

    /// Lets it name the buffer.
    pub(super) fn names(&self) -> Tried {
        same_text("naming it", DONE, &self.ask(&[], NAME)?)
    }

    fn ask(&self, bufs: &[&DmaBuf], request: &[u8]) -> Result<Vec<u8>, Fault> {
        // A missing answer says nothing about the kernel.
        let silent = |error: dmabuf::Error| Fault::Untried(format!("the second process: {error}"));
        share::send(&self.socket, bufs, request).map_err(silent)?;
        let mut answer = [0; 512];
        let len = share::receive(&self.socket, &mut answer).map_err(silent)?.payload_len;
        Ok(answer[..len].to_vec())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already. Waiting for it makes sure that its references are released.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn describe(buf: &DmaBuf) -> dmabuf::Result<String> {
    let identity = buf.identity()?;
    Ok(format!("{}:{} {} {}", identity.dev.major, identity.dev.minor, identity.ino, identity.size))
}

/// The second process: answers requests on standard input until that closes. The program of a
/// [`Helper`] calls this.
///
/// # Errors
/// If standard input is not the socket of a running check.
pub fn assist() -> Result<(), Error> {
    let lost = |error: dmabuf::Error| {
        Error::io(
            io::Error::other(error),
            "this is for lsbuf check's own use: standard input is not its socket".into(),
        )
    };
    let socket = io::stdin();
    let mut kept = Vec::new();
    loop {
        let mut request = [0; 16];
        let received = match share::receive(&socket, &mut request) {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::Disconnected => return Ok(()),
            Err(error) => return Err(lost(error)),
        };
        kept.extend(received.bufs);
        let answer = match serve(&request[..received.payload_len], kept.last()) {
            Ok(answer) => answer,
            Err(Fault::Broken(text) | Fault::Untried(text)) => text.into_bytes(),
        };
        share::send(&socket, &[], &answer).map_err(lost)?;
    }
}

fn serve(request: &[u8], taken: Option<&DmaBuf>) -> Result<Vec<u8>, Fault> {
    match (request, taken) {
        (LOOK, _) => Ok(describe(&inherited()?)?.into_bytes()),
        (TAKE, Some(buf)) => Ok(describe(buf)?.into_bytes()),
        (NAME, _) => {
            inherited()?.set_name(GIVEN)?;
            Ok(DONE.to_vec())
        }
        _ => Err(Fault::Broken("no such request".to_owned())),
    }
}

/// A copy of the inherited fd for one request: a borrowed fd cannot become a [`DmaBuf`].
fn inherited() -> Result<DmaBuf, Fault> {
    let copy = fcntl_dupfd_cloexec(io::stdout(), 3).attempt("copying the inherited fd")?;
    Ok(DmaBuf::try_from_fd(copy)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that an unknown request, or one that lacks its buffer, gets an error.
    #[test]
    fn unknown_requests() {
        assert!(serve(b"dance", None).is_err() && serve(TAKE, None).is_err());
    }
}
