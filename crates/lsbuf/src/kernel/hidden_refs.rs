//! References that are in no fd table and no address space, as far as fdinfo counts them: fds in
//! messages that have not been received yet, and files that are registered with an io_uring.
//!
//! The fdinfo of an AF_UNIX socket says how many fds wait in its queue (`scm_fds`,
//! `unix_show_fdinfo` in net/unix/af_unix.c), but not which. So a number above 0 means that any
//! buffer may be among them.
//!
//! The fdinfo of an io_uring has a line for each registered file (`UserFiles: SLOTS`, then `SLOT:
//! PATH`; io_uring/fdinfo.c). Linux 6.18 prints the whole path; 6.12 and older kernels print only
//! the last name, which is `dmabuf` for every dma-buf. A matching path proves nothing; a different
//! path rules a dma-buf out. A path also does not say which dma-buf it is, because names can change
//! while they are read.
//!
//! A process can keep an io_uring by a mapping alone. The mapping shows that the ring exists, but
//! not which files it has.
//!
//! Limits:
//! - An io_uring that prints no slot counts as unread, because it may have been busy.
//! - An io_uring without an fd and without a mapping is not seen. A program can make one with
//!   IORING_SETUP_REGISTERED_FD_ONLY and IORING_SETUP_NO_MMAP.
//! - A sender that waits for room in a queue holds the files of its message before `scm_fds` counts
//!   them.
//! - Connections that have not been accepted are the subject of [`super::pending`].

use std::collections::HashSet;

use super::LINK_PREFIX;
use super::parse::{Malformed, cut, number};
use crate::model::HiddenRefs;

/// The name of an io_uring in the link of an fd and in `maps`.
pub(crate) const RING_LINK: &[u8] = b"anon_inode:[io_uring]";

/// The references that were counted so far.
#[derive(Debug, Default)]
pub(crate) struct HiddenRefCounter {
    sockets: HashSet<u64>,
    /// fds in queues of sockets.
    in_flight: u64,
    /// Registered files that may be dma-bufs.
    fixed: u64,
    /// Registered sockets and io_urings, which may themselves hold files.
    nested: u64,
    /// Registered files of any other kind.
    others: u64,
    /// How many io_urings were read.
    pub(crate) rings: u64,
    /// Whether a socket or io_uring that may hold files could not be read.
    pub(crate) unknown: bool,
}

/// A kind of file that can hold others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKeeper {
    /// A socket, by its inode number.
    Socket(u64),
    /// An io_uring.
    Ring,
}

impl FileKeeper {
    /// The keeper that an fd's link names, if it names one.
    pub(crate) fn of(link: &[u8]) -> Option<FileKeeper> {
        if link == RING_LINK {
            return Some(FileKeeper::Ring);
        }
        let ino = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
        number(ino, 10).ok().map(FileKeeper::Socket)
    }
}

impl HiddenRefCounter {
    /// Whether this keeper has to be read. A socket is read only once, however many fds it has.
    pub(crate) fn wants(&mut self, keeper: FileKeeper) -> bool {
        match keeper {
            FileKeeper::Socket(ino) => self.sockets.insert(ino),
            FileKeeper::Ring => true,
        }
    }

    /// Adds the text of a keeper's fdinfo; `None`: it could not be read.
    pub(crate) fn add(&mut self, keeper: FileKeeper, fdinfo: Option<&[u8]>) {
        let understood = match (keeper, fdinfo) {
            (_, None) => Err(Malformed),
            // The fd may have been replaced after its link was read.
            (FileKeeper::Socket(ino), Some(text))
                if value(text, b"ino:").is_some_and(|own| own != Ok(ino)) =>
            {
                Err(Malformed)
            }
            (FileKeeper::Socket(_), Some(text)) => {
                in_queue(text).map(|fds| self.in_flight = self.in_flight.saturating_add(fds))
            }
            (FileKeeper::Ring, Some(text)) => {
                self.rings += 1;
                self.add_ring(text)
            }
        };
        self.unknown |= understood.is_err();
    }

    fn add_ring(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let mut lines = text.split(|&b| b == b'\n').skip_while(|line| !line.starts_with(FILES));
        // A kernel that prints whole paths leaves this line out while the ring is busy.
        let stated = lines.next().and_then(|line| line.strip_prefix(FILES)).ok_or(Malformed)?;
        let stated = number(stated.trim_ascii(), 10)?;
        let is_end = |line: &[u8]| line.starts_with(b"UserBufs:");
        let mut next_slot = 0;
        loop {
            let line = lines.next().ok_or(Malformed)?;
            if is_end(line) {
                break;
            }
            let (slot, path) = cut(line, b':')?;
            let slot = number(slot.trim_ascii_start(), 10)?;
            if !(next_slot..stated).contains(&slot) {
                return Err(Malformed);
            }
            next_slot = slot + 1;
            match Registered::of(path.strip_prefix(b" ").unwrap_or(path)) {
                Registered::Other => self.others += 1,
                Registered::DmaBuf => self.fixed += 1,
                Registered::Keeper => self.nested += 1,
            }
        }
        // On kernels that print raw names, a busy ring prints the number of slots and no slot. On
        // kernels that leave out empty slots, a ring with only empty slots prints the same. The two
        // cannot be told apart.
        if next_slot == 0 && stated > 0 {
            return Err(Malformed);
        }
        // Kernels that print raw names print every slot. So a newline in a name can only forge a
        // slot number that occurs twice, or a second end. Kernels that escape paths leave out empty
        // slots.
        if lines.any(is_end) { Err(Malformed) } else { Ok(()) }
    }

    /// How many references to any one buffer are in flight: 0, or `None` where it is not known.
    pub(crate) fn in_flight_of_one(&self) -> Option<u64> {
        self.nothing_hides().then_some(0)
    }

    /// How many registered files are any one buffer: 0, or `None` where it is not known.
    pub(crate) fn fixed_of_one(&self) -> Option<u64> {
        (self.fixed == 0 && self.nothing_hides()).then_some(0)
    }

    /// Whether no reference can be hidden in a socket or io_uring. A registered file may be a
    /// socket, and a message in flight may carry an io_uring, so neither kind can be ruled out
    /// without the other.
    fn nothing_hides(&self) -> bool {
        self.in_flight == 0 && self.nested == 0 && !self.unknown
    }

    /// Whether no io_uring has a registered file.
    pub(crate) fn is_empty(&self) -> bool {
        self.fixed == 0 && self.others == 0 && self.nothing_hides()
    }

    /// The sums.
    pub(crate) fn counts(&self) -> HiddenRefs {
        HiddenRefs { in_flight: self.in_flight, io_uring: self.fixed + self.nested, unknown: self.unknown }
    }
}

const FILES: &[u8] = b"UserFiles:";

/// How many fds wait in the queue of a socket, by the text of its fdinfo.
pub(crate) fn in_queue(text: &[u8]) -> Result<u64, Malformed> {
    // Sockets of other families have no such line and cannot carry fds.
    value(text, b"scm_fds:").unwrap_or(Ok(0))
}

/// What a registered file may be, by its path or name.
#[derive(Debug, PartialEq, Eq)]
enum Registered {
    DmaBuf,
    Keeper,
    Other,
}

impl Registered {
    fn of(path: &[u8]) -> Registered {
        match path {
            b"dmabuf" => Registered::DmaBuf,
            _ if path.starts_with(LINK_PREFIX) => Registered::DmaBuf,
            // A socket by its path or by the name of its protocol; an io_uring by its path or its
            // name.
            _ if path.starts_with(b"socket:[") || path.starts_with(b"UNIX") => Registered::Keeper,
            _ if path.ends_with(b"[io_uring]") => Registered::Keeper,
            _ => Registered::Other,
        }
    }
}

fn value(text: &[u8], key: &[u8]) -> Option<Result<u64, Malformed>> {
    let line = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(key))?;
    Some(number(line.trim_ascii(), 10))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(keeper: FileKeeper, fdinfo: Option<&[u8]>) -> (Option<u64>, Option<u64>) {
        let mut hidden = HiddenRefCounter::default();
        hidden.add(keeper, fdinfo);
        (hidden.in_flight_of_one(), hidden.fixed_of_one())
    }

    /// Check that links of sockets and io_urings are recognised, and no others.
    #[test]
    fn links() {
        assert_eq!(FileKeeper::of(b"socket:[4711]"), Some(FileKeeper::Socket(4711)));
        assert_eq!(FileKeeper::of(b"anon_inode:[io_uring]"), Some(FileKeeper::Ring));
        assert_eq!(FileKeeper::of(b"/tmp/socket:[1]"), None);
        assert_eq!(FileKeeper::of(b"socket:[x]"), None);
    }

    /// Check that one waiting fd makes the number unknown for every buffer, neither 0 nor 1.
    #[test]
    fn one_waiting_fd() {
        assert_eq!(after(FileKeeper::Socket(1), Some(b"pos:\t0\nscm_fds: 1\n")), (None, None));
        assert_eq!(
            after(FileKeeper::Ring, Some(b"UserFiles:\t1\n    0: socket:[7]\nUserBufs:\t0\n")),
            (None, None)
        );
    }

    /// Check that the number is 0 if there are only empty queues, empty io_urings, and sockets that
    /// cannot carry fds.
    #[test]
    fn none_anywhere() {
        assert_eq!(after(FileKeeper::Socket(1), Some(b"pos:\t0\nscm_fds: 0\n")), (Some(0), Some(0)));
        assert_eq!(after(FileKeeper::Socket(1), Some(b"pos:\t0\nflags:\t02\n")), (Some(0), Some(0)));
        assert_eq!(after(FileKeeper::Ring, Some(b"UserFiles:\t0\nUserBufs:\t0\n")), (Some(0), Some(0)));
    }

    /// Check that a registered file that may be a dma-buf makes the number unknown for every
    /// buffer, and that another file does not.
    #[test]
    fn registered() {
        let ring = |entry: &str| {
            let text = format!("SqMask:\t0x7\nUserFiles:\t1\n    0: {entry}\nUserBufs:\t0\nPollList:\n");
            after(FileKeeper::Ring, Some(text.as_bytes()))
        };
        assert_eq!(ring("/dmabuf:cam"), (Some(0), None));
        assert_eq!(ring("dmabuf"), (Some(0), None));
        assert_eq!(ring("/etc/passwd"), (Some(0), Some(0)));
        assert_eq!(ring("<none>"), (Some(0), Some(0)));
    }

    /// Check that the text of another file than the link named is not taken for the socket's.
    #[test]
    fn a_replaced_socket() {
        assert_eq!(after(FileKeeper::Socket(5), Some(b"pos:\t0\nino:\t4\n")), (None, None));
        assert_eq!(after(FileKeeper::Socket(5), Some(b"pos:\t0\nino:\t5\nscm_fds: 0\n")), (Some(0), Some(0)));
    }

    /// Check that a file whose name contains a newline cannot hide an entry, whatever lines it
    /// forges.
    #[test]
    fn a_broken_entry_is_noticed() {
        for forged in ["evil\nx", "evil\n    1: x", "evil\n    1: x\nUserBufs:\t0"] {
            let text = format!("UserFiles:\t2\n    0: {forged}\n    1: dmabuf\nUserBufs:\t0\n");
            assert_eq!(after(FileKeeper::Ring, Some(text.as_bytes())), (None, None), "{forged:?}");
        }
    }

    /// Check that a ring that was too busy to list its files is not taken for one that has none.
    #[test]
    fn a_busy_ring() {
        let busy = b"SqThread:\t-1\nUserFiles:\t1\nUserBufs:\t0\nPollList:\nCqOverflowList:\n";
        assert_eq!(after(FileKeeper::Ring, Some(busy)), (None, None));
    }

    /// Check that an unreadable keeper leaves everything unknown.
    #[test]
    fn unread() {
        assert_eq!(after(FileKeeper::Socket(1), None), (None, None));
        assert_eq!(after(FileKeeper::Ring, Some(b"SqMask:\t0x7\n")), (None, None));
    }

    proptest! {
        /// Check that no bytes make a parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (FileKeeper::of(&text), after(FileKeeper::Ring, Some(&text)), after(FileKeeper::Socket(0), Some(&text)));
        }
    }
}
