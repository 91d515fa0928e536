//! How to pass dma-bufs to another process: over a Unix socket, with `SCM_RIGHTS`.
//!
//! A received descriptor may be anything, so [`receive`] proves that each one is a dma-buf. While a
//! message is in flight, each buffer in it has one reference that is in no process's fd table.
//!
//! Use a `SOCK_SEQPACKET` socket, which keeps messages apart. On a stream socket the buffers arrive
//! with the first byte of their payload, but as with any stream, the payload may arrive in parts,
//! or joined with other bytes that came without buffers. Limits: no addresses, no credentials, and
//! at most [`MAX_BUFS`] buffers in one message.
//!
//! ```no_run
//! use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let flags = SocketFlags::CLOEXEC;
//! let (here, there) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
//! let buf = dmabuf::Heap::open("system")?.allocate(4096)?;
//! dmabuf::share::send(&here, &[&buf], b"frame 1")?;
//!
//! let mut payload = [0; 64];
//! let received = dmabuf::share::receive(&there, &mut payload)?;
//! assert_eq!(received.bufs[0].identity()?, buf.identity()?);
//! assert_eq!(&payload[..received.payload_len], b"frame 1");
//! # Ok(())
//! # }
//! ```

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send as send_bytes, sendmsg,
};

use crate::{DmaBuf, Error, ErrorKind, Result};

/// The most buffers that one message can carry (`SCM_MAX_FD` in the kernel's `include/net/scm.h`).
pub const MAX_BUFS: usize = 253;

const CONTROL_LEN: usize = rustix::cmsg_space!(ScmRights(MAX_BUFS));

/// The contents of one message.
#[derive(Debug)]
#[non_exhaustive]
pub struct Received {
    /// The buffers, in the order in which they were sent. All descriptors are close-on-exec.
    pub bufs: Vec<DmaBuf>,
    /// How many bytes of the caller's payload buffer were filled.
    pub payload_len: usize,
}

/// Sends buffers together with a payload of at least one byte. The caller keeps its own
/// descriptors.
///
/// # Errors
///
/// * [`ErrorKind::TooManyBuffers`]: more than [`MAX_BUFS`]; no call was made.
/// * [`ErrorKind::InvalidPayload`]: empty, because a stream socket drops descriptors that come with
///   no byte; or too long for one packet.
/// * [`ErrorKind::Disconnected`]: the other end is closed. No SIGPIPE is raised.
/// * [`ErrorKind::WouldBlock`]: a non-blocking socket is full. On a stream socket, a part of the
///   payload may have been sent.
/// * [`ErrorKind::OutOfDescriptors`]: this user has more descriptors in flight than `ulimit -n`
///   allows.
pub fn send(socket: impl AsFd, bufs: &[&DmaBuf], payload: &[u8]) -> Result<()> {
    if bufs.len() > MAX_BUFS {
        return Err(Error::new(
            ErrorKind::TooManyBuffers,
            format!("{} buffers are more than the {MAX_BUFS} of one message; send several", bufs.len()),
        ));
    }
    if payload.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidPayload,
            "the payload is empty, and a stream socket delivers no descriptors without a byte; send at least one",
        ));
    }
    let fds: Vec<BorrowedFd<'_>> = bufs.iter().map(|buf| buf.as_fd()).collect();
    send_fds(socket.as_fd(), &fds, payload)
}

fn send_fds(socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>], payload: &[u8]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); CONTROL_LEN];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::new(
            ErrorKind::TooManyBuffers,
            "the buffers do not fit into one message; send several",
        ));
    }
    let mut sent =
        retry_on_intr(|| sendmsg(socket, &[IoSlice::new(payload)], &mut control, SendFlags::NOSIGNAL))
            .map_err(send_error)?;
    // Only a stream socket accepts a part of the payload. The descriptors were sent with that part,
    // so the remaining bytes are sent without them.
    while sent < payload.len() {
        let rest = payload.get(sent..).unwrap_or_default();
        sent += retry_on_intr(|| send_bytes(socket, rest, SendFlags::NOSIGNAL)).map_err(send_error)?;
    }
    Ok(())
}

/// Receives one message: its bytes go into `payload`, its buffers are returned.
///
/// It waits for a message unless the socket is non-blocking. A message without buffers is valid.
///
/// # Errors
///
/// On every error, all descriptors of the message are closed.
///
/// * [`ErrorKind::NotDmaBuf`], [`ErrorKind::PathOnly`]: a descriptor is not a dma-buf, or is one
///   opened with `O_PATH`; the error's text says which descriptor.
/// * [`ErrorKind::Truncated`]: the packet is longer than `payload`, or the kernel dropped
///   descriptors. It usually drops them because of this process's limit of descriptors.
/// * [`ErrorKind::InvalidPayload`]: `payload` has no room.
/// * [`ErrorKind::Disconnected`]: the other end is closed. A datagram socket does not report that
///   and keeps waiting.
/// * [`ErrorKind::WouldBlock`]: the socket is non-blocking and has no message.
pub fn receive(socket: impl AsFd, payload: &mut [u8]) -> Result<Received> {
    receive_into(socket.as_fd(), payload, &mut [MaybeUninit::uninit(); CONTROL_LEN])
}

fn receive_into(
    socket: BorrowedFd<'_>,
    payload: &mut [u8],
    space: &mut [MaybeUninit<u8>],
) -> Result<Received> {
    if payload.is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidPayload,
            "the payload buffer has no room; give at least one byte",
        ));
    }
    let mut control = RecvAncillaryBuffer::new(space);
    // The kernel sets close-on-exec as it receives. If this set it afterwards, another thread could
    // fork and exec before it.
    let message = retry_on_intr(|| {
        recvmsg(socket, &mut [IoSliceMut::new(payload)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })
    .map_err(receive_error)?;
    // Take ownership before any check, so that every early return closes all of them.
    let fds: Vec<OwnedFd> = control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Error::new(
            ErrorKind::Truncated,
            format!(
                "the kernel dropped descriptors of the message ({} arrived); the usual cause is this process's limit: \
                 raise it (ulimit -n) or close some descriptors, then have the message sent again",
                fds.len()
            ),
        ));
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Error::new(
            ErrorKind::Truncated,
            format!(
                "the message's payload is longer than the buffer's {} bytes; give a larger one",
                payload.len()
            ),
        ));
    }
    if message.bytes == 0 && fds.is_empty() {
        return Err(Error::new(ErrorKind::Disconnected, "the other end of the socket is closed"));
    }
    let total = fds.len();
    let mut bufs = Vec::with_capacity(total);
    for (index, fd) in fds.into_iter().enumerate() {
        bufs.push(DmaBuf::try_from_fd(fd).map_err(|error| {
            let position = index + 1;
            Error::new(
                error.kind(),
                format!("received descriptor {position} of {total} was refused: {error}"),
            )
        })?);
    }
    Ok(Received { bufs, payload_len: message.bytes })
}

fn send_error(errno: Errno) -> Error {
    const WHAT: &str = "cannot send the dma-bufs";
    let (kind, why) = match errno {
        // ECONNREFUSED comes from a datagram socket.
        Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED => {
            (ErrorKind::Disconnected, "the other end of the socket is closed")
        }
        Errno::AGAIN => (ErrorKind::WouldBlock, "the socket is full; poll until it can be written"),
        Errno::MSGSIZE => (ErrorKind::InvalidPayload, "the payload is too long for one packet; shorten it"),
        Errno::TOOMANYREFS => (
            ErrorKind::OutOfDescriptors,
            "too many descriptors of this user are in flight; wait until they are received, or raise ulimit -n",
        ),
        errno => return Error::from_errno(WHAT, errno),
    };
    Error::with_errno(kind, format!("{WHAT}: {why}"), errno)
}

fn receive_error(errno: Errno) -> Error {
    const WHAT: &str = "cannot receive dma-bufs";
    let (kind, why) = match errno {
        Errno::CONNRESET => (ErrorKind::Disconnected, "the other end of the socket is closed"),
        Errno::AGAIN => (ErrorKind::WouldBlock, "there is no message; poll until the socket can be read"),
        errno => return Error::from_errno(WHAT, errno),
    };
    Error::with_errno(kind, format!("{WHAT}: {why}"), errno)
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None).unwrap()
    }

    /// Sends descriptors that are not dma-bufs. Only a hostile or mistaken peer would do so.
    fn send_files(socket: &OwnedFd, count: usize) {
        let file = tempfile::tempfile().unwrap();
        send_fds(socket.as_fd(), &vec![file.as_fd(); count], b"x").unwrap();
    }

    /// Check that a received descriptor that is not a dma-buf is refused, and that the message
    /// names its position.
    #[test]
    fn refuses_what_is_not_a_dma_buf() {
        for kind in [SocketType::SEQPACKET, SocketType::STREAM, SocketType::DGRAM] {
            let (here, there) = pair(kind);
            send_files(&here, 2);
            let error = receive(&there, &mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotDmaBuf);
            assert!(error.to_string().contains("descriptor 1 of 2"), "{error}");
        }
    }

    /// Check that descriptors lost on the way are an error, even if some arrived.
    #[test]
    fn truncated_control_message_is_an_error() {
        let (here, there) = pair(SocketType::SEQPACKET);
        send_files(&here, 20);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let error = receive_into(there.as_fd(), &mut [0; 8], &mut space).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Truncated);
        assert!(error.to_string().contains("ulimit -n"), "{error}");
    }

    /// Check that a packet longer than the payload buffer is an error.
    #[test]
    fn truncated_payload_is_an_error() {
        let (here, there) = pair(SocketType::SEQPACKET);
        send(&here, &[], b"four").unwrap();
        assert_eq!(receive(&there, &mut [0; 3]).unwrap_err().kind(), ErrorKind::Truncated);
    }

    /// Check that as many descriptors as the kernel sends in one message all arrive.
    #[test]
    fn room_for_the_most() {
        let (here, there) = pair(SocketType::SEQPACKET);
        send_files(&here, MAX_BUFS);
        // They are refused because they are not dma-bufs and not as truncated, so all of them
        // arrived.
        let error = receive(&there, &mut [0; 8]).unwrap_err();
        assert!(error.to_string().contains("descriptor 1 of 253"), "{error}");
    }

    /// Check that a payload without buffers arrives as it was sent.
    #[test]
    fn carries_a_payload() {
        let (here, there) = pair(SocketType::SEQPACKET);
        send(&here, &[], b"hello").unwrap();
        let mut payload = [0; 8];
        let received = receive(&there, &mut payload).unwrap();
        assert!(received.bufs.is_empty());
        assert_eq!(&payload[..received.payload_len], b"hello");
    }

    /// Check that too many buffers and an empty payload are refused before any call.
    #[test]
    fn refuses_bad_arguments() {
        let (here, there) = pair(SocketType::SEQPACKET);
        let buf = DmaBuf::from_exporter(tempfile::tempfile().unwrap().into());
        assert_eq!(send(&here, &[&buf; MAX_BUFS + 1], b"x").unwrap_err().kind(), ErrorKind::TooManyBuffers);
        assert_eq!(send(&here, &[&buf], b"").unwrap_err().kind(), ErrorKind::InvalidPayload);
        assert_eq!(receive(&there, &mut []).unwrap_err().kind(), ErrorKind::InvalidPayload);
    }

    /// Check that a closed peer and an empty socket give different errors, in both directions.
    #[test]
    fn tells_closed_from_empty() {
        let (here, there) = pair(SocketType::SEQPACKET);
        assert_eq!(receive(&there, &mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(here);
        assert_eq!(receive(&there, &mut [0; 8]).unwrap_err().kind(), ErrorKind::Disconnected);
        assert_eq!(send(&there, &[], b"x").unwrap_err().kind(), ErrorKind::Disconnected);
    }
}
