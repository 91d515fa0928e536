//! References that are in no fd table and no address space, as far as fdinfo counts them: fds in messages that nobody
//! has received yet, and the fixed files of io_uring.
//!
//! fdinfo of an AF_UNIX socket says how many fds wait in its queue (`scm_fds`, `unix_show_fdinfo` in net/unix/af_unix.c), but
//! not which: any number but 0 tells only that any buffer may be among them. fdinfo of a ring has a line for each
//! registered file (`UserFiles: SLOTS`, then `SLOT: PATH`; io_uring/fdinfo.c): its whole path on Linux 6.18, on 6.12 and before
//! only its name, which is `dmabuf` for every dma-buf. A path proves nothing, but who has another one is no dma-buf. Which of
//! the dma-bufs it is the path does not tell: names change while they are read.
//!
//! A ring may be kept by its mapping alone, which shows it but nothing of its files.
//!
//! Limits: a ring of which no slot is printed counts as unread, since it may have been busy; one that is neither an fd nor
//! mapped (registered with itself, its memory the program's own) is not seen; a sender that waits for room in a queue
//! holds its message's files before `scm_fds` counts them. Connections that nobody has accepted are [`super::pending`]'s.

use std::collections::HashSet;

use super::LINK_PREFIX;
use super::parse::{Malformed, cut, number};
use crate::model::HiddenRefs;

/// What an io_uring is called, as an fd and as a mapping.
pub(crate) const RING_LINK: &[u8] = b"anon_inode:[io_uring]";

/// What was counted on the machine.
#[derive(Debug, Default)]
pub(crate) struct HiddenRefCounter {
    sockets: HashSet<u64>,
    /// Fds in queues of sockets.
    in_flight: u64,
    /// Registered files that may be dma-bufs.
    fixed: u64,
    /// Registered sockets and rings, which may themselves keep files.
    nested: u64,
    /// Registered files of any other kind.
    others: u64,
    /// How many rings were read.
    pub(crate) rings: u64,
    /// Whether something that may hold fds could not be read.
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
    /// What an fd's link names, if it is one of them.
    pub(crate) fn of(link: &[u8]) -> Option<FileKeeper> {
        if link == RING_LINK {
            return Some(FileKeeper::Ring);
        }
        let ino = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
        number(ino, 10).ok().map(FileKeeper::Socket)
    }
}

impl HiddenRefCounter {
    /// Whether this one has to be read: each socket once, however many fds it has.
    pub(crate) fn wants(&mut self, keeper: FileKeeper) -> bool {
        match keeper {
            FileKeeper::Socket(ino) => self.sockets.insert(ino),
            FileKeeper::Ring => true,
        }
    }

    /// Adds what its fdinfo says; `None`: it could not be read.
    pub(crate) fn add(&mut self, keeper: FileKeeper, fdinfo: Option<&[u8]>) {
        let understood = match (keeper, fdinfo) {
            (_, None) => Err(Malformed),
            // The fd may have been replaced since its link was read.
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
        // Not printed while the ring is busy, where paths are escaped.
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
        // Where names are printed raw a busy ring tells how many slots it has and prints none of them. So does one
        // whose slots are all empty where empty ones are left out: nothing tells the two apart.
        if next_slot == 0 && stated > 0 {
            return Err(Malformed);
        }
        // Where names are printed raw every slot is, so a newline in a name can only forge a slot that comes twice, or a
        // second end. Where paths are escaped empty slots are left out.
        if lines.any(is_end) { Err(Malformed) } else { Ok(()) }
    }

    /// How many references of any one buffer are in flight, where that is known.
    pub(crate) fn in_flight_of_one(&self) -> Option<u64> {
        self.nothing_hides().then_some(0)
    }

    /// How many fixed files any one buffer is, where that is known.
    pub(crate) fn fixed_of_one(&self) -> Option<u64> {
        (self.fixed == 0 && self.nothing_hides()).then_some(0)
    }

    /// A registered file may itself be a socket, and a message in flight may carry a ring: one kind is only ruled out
    /// with the other.
    fn nothing_hides(&self) -> bool {
        self.in_flight == 0 && self.nested == 0 && !self.unknown
    }

    /// Whether no ring has any file registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.fixed == 0 && self.others == 0 && self.nothing_hides()
    }

    /// The sums.
    pub(crate) fn counts(&self) -> HiddenRefs {
        HiddenRefs { in_flight: self.in_flight, io_uring: self.fixed + self.nested, unknown: self.unknown }
    }
}

const FILES: &[u8] = b"UserFiles:";

/// How many fds wait in the queue of the socket whose fdinfo this is.
pub(crate) fn in_queue(text: &[u8]) -> Result<u64, Malformed> {
    // Sockets of other families have no such line, and carry no fds.
    value(text, b"scm_fds:").unwrap_or(Ok(0))
}

/// What a registered file may be.
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
            // A socket by its path, or by the name of its protocol; a ring by its path or its name.
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

    /// Check that links of sockets and rings are told from all others.
    #[test]
    fn links() {
        assert_eq!(FileKeeper::of(b"socket:[4711]"), Some(FileKeeper::Socket(4711)));
        assert_eq!(FileKeeper::of(b"anon_inode:[io_uring]"), Some(FileKeeper::Ring));
        assert_eq!(FileKeeper::of(b"/tmp/socket:[1]"), None);
        assert_eq!(FileKeeper::of(b"socket:[x]"), None);
    }

    /// Check that a waiting fd anywhere makes every buffer's part unknown, not 0 and not 1.
    #[test]
    fn one_waiting_fd() {
        assert_eq!(after(FileKeeper::Socket(1), Some(b"pos:\t0\nscm_fds: 1\n")), (None, None));
        assert_eq!(
            after(FileKeeper::Ring, Some(b"UserFiles:\t1\n    0: socket:[7]\nUserBufs:\t0\n")),
            (None, None)
        );
    }

    /// Check that empty queues and rings, and sockets that carry no fds, prove that there are none.
    #[test]
    fn none_anywhere() {
        assert_eq!(after(FileKeeper::Socket(1), Some(b"pos:\t0\nscm_fds: 0\n")), (Some(0), Some(0)));
        assert_eq!(after(FileKeeper::Socket(1), Some(b"pos:\t0\nflags:\t02\n")), (Some(0), Some(0)));
        assert_eq!(after(FileKeeper::Ring, Some(b"UserFiles:\t0\nUserBufs:\t0\n")), (Some(0), Some(0)));
    }

    /// Check that a registered file which may be a dma-buf leaves every buffer's part unknown, and any other does not.
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

    /// Check that a text of another file than the link named is not taken for the socket's.
    #[test]
    fn a_replaced_socket() {
        assert_eq!(after(FileKeeper::Socket(5), Some(b"pos:\t0\nino:\t4\n")), (None, None));
        assert_eq!(after(FileKeeper::Socket(5), Some(b"pos:\t0\nino:\t5\nscm_fds: 0\n")), (Some(0), Some(0)));
    }

    /// Check that a file whose name breaks its line cannot push an entry out of sight, whatever lines it forges.
    #[test]
    fn a_broken_entry_is_noticed() {
        for forged in ["evil\nx", "evil\n    1: x", "evil\n    1: x\nUserBufs:\t0"] {
            let text = format!("UserFiles:\t2\n    0: {forged}\n    1: dmabuf\nUserBufs:\t0\n");
            assert_eq!(after(FileKeeper::Ring, Some(text.as_bytes())), (None, None), "{forged:?}");
        }
    }

    /// Check that a ring which was too busy to list its files is told from one that has none.
    #[test]
    fn a_busy_ring() {
        let busy = b"SqThread:\t-1\nUserFiles:\t1\nUserBufs:\t0\nPollList:\nCqOverflowList:\n";
        assert_eq!(after(FileKeeper::Ring, Some(busy)), (None, None));
    }

    /// Check that what cannot be read proves nothing.
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
