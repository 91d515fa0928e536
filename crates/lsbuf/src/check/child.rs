//! The second process: it holds a buffer that it inherited or was sent, and says what it sees.
//!
//! It is this program started again. Its standard output *is* the inherited buffer, because a standard stream is the one
//! fd that can be handed down and taken up again without `unsafe`; its standard input is a socket, over which it is told
//! what to do, one word a message, and answers each. When the socket closes, it ends.

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
    /// What it is to be given.
    pub arguments: Vec<OsString>,
}

/// Long enough for any machine to start a process; only a broken helper takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says the identity of the inherited buffer.
const LOOK: &[u8] = b"look";
/// Keeps the buffer that comes with the message, and says its identity.
const TAKE: &[u8] = b"take";
/// Gives the inherited buffer the name [`GIVEN`].
const NAME: &[u8] = b"name";

/// The answer to a request that has no other.
const DONE: &[u8] = b"done";

/// The name that the second process gives.
pub(super) const GIVEN: &[u8] = b"by another";

/// The second process, as the check sees it. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    socket: OwnedFd,
}

impl Child {
    /// Starts it with a copy of the buffer's fd, and waits until that is all it holds of it.
    pub(super) fn start(helper: &Helper, buf: &DmaBuf) -> Result<Child, Fault> {
        let (here, there) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .attempt("making a socket")?;
        set_socket_timeout(&here, Timeout::Recv, Some(PATIENCE)).attempt("setting a time limit")?;
        // The command owns the fds that it hands down, and drops them here with it.
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

    /// Whether it sees, through the fd it inherited, the buffer that it should.
    pub(super) fn sees(&self, buf: &DmaBuf) -> Tried {
        same_text("another process sees", describe(buf)?.as_bytes(), &self.ask(&[], LOOK)?)
    }

    /// Sends the buffer, and whether what arrives is it.
    pub(super) fn takes(&self, buf: &DmaBuf) -> Tried {
        same_text("the receiver sees", describe(buf)?.as_bytes(), &self.ask(&[buf], TAKE)?)
    }

    /// Has it name the buffer.
    pub(super) fn names(&self) -> Tried {
        same_text("naming it", DONE, &self.ask(&[], NAME)?)
    }

    fn ask(&self, bufs: &[&DmaBuf], request: &[u8]) -> Result<Vec<u8>, Fault> {
        // That it does not answer says nothing about the kernel.
        let silent = |error: dmabuf::Error| Fault::Untried(format!("the second process: {error}"));
        share::send(&self.socket, bufs, request).map_err(silent)?;
        let mut answer = [0; 512];
        let len = share::receive(&self.socket, &mut answer).map_err(silent)?.payload_len;
        Ok(answer[..len].to_vec())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself. Waiting makes sure that its references are gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn describe(buf: &DmaBuf) -> dmabuf::Result<String> {
    let identity = buf.identity()?;
    Ok(format!("{}:{} {} {}", identity.dev.major, identity.dev.minor, identity.ino, identity.size))
}

/// What the second process does: serves requests on standard input until it closes. For the program that
/// [`Helper`] names.
///
/// # Errors
/// Standard input is no socket of a running check.
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

/// A copy for the time of one request: an fd that is borrowed cannot be taken for a dma-buf.
fn inherited() -> Result<DmaBuf, Fault> {
    let copy = fcntl_dupfd_cloexec(io::stdout(), 3).attempt("copying the inherited fd")?;
    Ok(DmaBuf::try_from_fd(copy)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a request that is none, or lacks its buffer, is answered with an error.
    #[test]
    fn strange_requests() {
        assert!(serve(b"dance", None).is_err() && serve(TAKE, None).is_err());
    }
}
