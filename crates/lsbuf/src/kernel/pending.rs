//! AF_UNIX connections that the listening process has not accepted yet.
//!
//! fds may wait in such a connection, although no process has an fd of its socket. The fdinfo of
//! the listening socket counts them (`unix_show_fdinfo` in net/unix/af_unix.c), but did not on
//! Linux 5.10. lsbuf tries with a socket of its own whether this kernel counts them. Where it does
//! not, `/proc/net/unix` at least shows that there is such a connection: a socket that is
//! connecting and has no inode (`unix_seq_show`).
//!
//! Limits: `/proc/net/unix` shows only the reader's network namespace. On a kernel that does not
//! count, fds in connections of another network namespace go unnoticed.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, bind, connect, getsockname, listen, sendmsg, socket_with,
};

use super::hidden_refs;
use super::root::ProcRoot;

/// Whether the kernel counts fds in a connection that has not been accepted.
pub(crate) fn are_counted(root: &ProcRoot) -> bool {
    try_own(root).unwrap_or(false)
}

/// Sends an fd to a listening socket of our own, does not accept the connection, and reads the
/// socket's fdinfo.
fn try_own(root: &ProcRoot) -> Result<bool> {
    let stream = || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (listener, sender) = (stream()?, stream()?);
    // Given no name, the kernel chooses an abstract name that no other socket has.
    bind(&listener, &SocketAddrUnix::new_unnamed())?;
    listen(&listener, 1)?;
    connect(&sender, &getsockname(&listener)?)?;
    let fds = [root.dir().fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    rights.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(&sender, &[IoSlice::new(b"1")], &mut rights, SendFlags::NOSIGNAL)?;
    let mut text = Vec::new();
    let own = format!("self/fdinfo/{}", listener.as_fd().as_raw_fd());
    root.dir().read_record(own.as_str(), &mut text)?;
    Ok(hidden_refs::in_queue(&text).is_ok_and(|fds| fds > 0))
}

/// Whether there is such a connection. Also `true` if the file cannot be read.
pub(crate) fn are_there(root: &ProcRoot) -> bool {
    let mut text = Vec::new();
    root.dir()
        .read_file(c"self/net/unix", &mut text)
        .map_or(true, |()| text.split(|&b| b == b'\n').any(is_pending))
}

/// Whether a line of `/proc/net/unix` is such a connection. A line is `ADDRESS: REFS PROTOCOL FLAGS
/// TYPE STATE INODE [NAME]`.
pub(crate) fn is_pending(line: &[u8]) -> bool {
    let mut words = line.split(|&b| b == b' ').filter(|word| !word.is_empty()).skip(5);
    words.next() == Some(b"02") && words.next() == Some(b"0")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Check that a connection without an inode is recognised, and other sockets and listeners are
    /// not.
    #[test]
    fn lines() {
        assert!(is_pending(b"ffff: 00000002 00000000 00000000 0001 02     0 @x"));
        assert!(!is_pending(b"ffff: 00000003 00000000 00000000 0001 03 12345"));
        assert!(!is_pending(b"ffff: 00000002 00000000 00010000 0001 01 12346 @x"));
        assert!(!is_pending(b"Num       RefCount Protocol Flags    Type St Inode Path"));
    }

    /// Check that the trial works wherever sockets do.
    #[test]
    fn own_socket() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        assert!(try_own(&root).is_ok());
    }
}
