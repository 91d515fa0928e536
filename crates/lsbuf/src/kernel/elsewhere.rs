//! References that are in no fd table and no address space, as far as fdinfo counts them: fds in messages that nobody
//! has received yet, and the fixed files of io_uring.
//!
//! fdinfo of an AF_UNIX socket says how many fds wait in its queue (`scm_fds`, `unix_show_fdinfo` in net/unix/af_unix.c),
//! that of a ring how many files are registered (`UserFiles`, io_uring/fdinfo.c). Neither says which files, so a number
//! other than 0 only tells that any buffer may be among them; 0 everywhere proves that none is.
//!
//! Limits: a listening socket of Linux 5.10 does not count what waits in connections that nobody has accepted; a ring
//! whose fd was closed after registering it is seen by no fd walk.

use std::collections::HashSet;

use super::parse::{Garbled, number};

/// What was counted on the machine.
#[derive(Debug, Default)]
pub(crate) struct Elsewhere {
    sockets: HashSet<u64>,
    /// Fds in queues of sockets.
    pub(crate) in_flight: u64,
    /// Files registered with rings. A ring that several processes hold counts in each.
    pub(crate) fixed: u64,
    /// Whether something that may hold fds could not be read.
    pub(crate) unknown: bool,
}

/// A kind of file that can hold others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeper {
    /// A socket, by its inode number.
    Socket(u64),
    /// An io_uring.
    Ring,
}

impl Keeper {
    /// What an fd's link names, if it is one of them.
    pub(crate) fn of(link: &[u8]) -> Option<Keeper> {
        if link == b"anon_inode:[io_uring]" {
            return Some(Keeper::Ring);
        }
        let ino = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
        number(ino, 10).ok().map(Keeper::Socket)
    }
}

impl Elsewhere {
    /// Whether this one has to be read: each socket once, however many fds it has.
    pub(crate) fn wants(&mut self, keeper: Keeper) -> bool {
        match keeper {
            Keeper::Socket(ino) => self.sockets.insert(ino),
            Keeper::Ring => true,
        }
    }

    /// Adds what its fdinfo says; `None`: it could not be read.
    pub(crate) fn add(&mut self, keeper: Keeper, fdinfo: Option<&[u8]>) {
        let counted = fdinfo.and_then(|text| match keeper {
            // Sockets of other families have no such line, and carry no fds.
            Keeper::Socket(_) => value(text, b"scm_fds:").unwrap_or(Ok(0)).ok(),
            // Not printed while the ring is busy.
            Keeper::Ring => value(text, b"UserFiles:").and_then(Result::ok),
        });
        match (keeper, counted) {
            (_, None) => self.unknown = true,
            (Keeper::Socket(_), Some(fds)) => self.in_flight = self.in_flight.saturating_add(fds),
            (Keeper::Ring, Some(files)) => self.fixed = self.fixed.saturating_add(files),
        }
    }

    /// How many references of any one buffer are in flight, where that is known.
    pub(crate) fn in_flight_of_one(&self) -> Option<u64> {
        self.none(self.in_flight)
    }

    /// How many fixed files any one buffer is, where that is known.
    pub(crate) fn fixed_of_one(&self) -> Option<u64> {
        self.none(self.fixed)
    }

    /// A registered file may itself be a socket, and a message in flight may carry a ring: one kind is only ruled out
    /// with the other.
    fn none(&self, counted: u64) -> Option<u64> {
        (counted == 0 && self.in_flight == 0 && self.fixed == 0 && !self.unknown).then_some(0)
    }
}

fn value(text: &[u8], key: &[u8]) -> Option<Result<u64, Garbled>> {
    let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(key))?;
    Some(number(line.trim_ascii(), 10))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(keeper: Keeper, fdinfo: Option<&[u8]>) -> (Option<u64>, Option<u64>) {
        let mut elsewhere = Elsewhere::default();
        elsewhere.add(keeper, fdinfo);
        (elsewhere.in_flight_of_one(), elsewhere.fixed_of_one())
    }

    /// Check that links of sockets and rings are told from all others.
    #[test]
    fn links() {
        assert_eq!(Keeper::of(b"socket:[4711]"), Some(Keeper::Socket(4711)));
        assert_eq!(Keeper::of(b"anon_inode:[io_uring]"), Some(Keeper::Ring));
        assert_eq!(Keeper::of(b"/tmp/socket:[1]"), None);
        assert_eq!(Keeper::of(b"socket:[x]"), None);
    }

    /// Check that a waiting fd anywhere makes every buffer's part unknown, not 0 and not 1.
    #[test]
    fn one_waiting_fd() {
        assert_eq!(after(Keeper::Socket(1), Some(b"pos:\t0\nscm_fds: 1\n")), (None, None));
        assert_eq!(after(Keeper::Ring, Some(b"UserFiles:\t2\n")), (None, None));
    }

    /// Check that empty queues and rings, and sockets that carry no fds, prove that there are none.
    #[test]
    fn none_anywhere() {
        assert_eq!(after(Keeper::Socket(1), Some(b"pos:\t0\nscm_fds: 0\n")), (Some(0), Some(0)));
        assert_eq!(after(Keeper::Socket(1), Some(b"pos:\t0\nflags:\t02\n")), (Some(0), Some(0)));
        assert_eq!(after(Keeper::Ring, Some(b"UserFiles:\t0\n")), (Some(0), Some(0)));
    }

    /// Check that what cannot be read proves nothing.
    #[test]
    fn unread() {
        assert_eq!(after(Keeper::Socket(1), None), (None, None));
        assert_eq!(after(Keeper::Ring, Some(b"SqMask:\t0x7\n")), (None, None));
    }

    proptest! {
        /// Check that no bytes make a parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Keeper::of(&text), after(Keeper::Ring, Some(&text)), after(Keeper::Socket(0), Some(&text)));
        }
    }
}
