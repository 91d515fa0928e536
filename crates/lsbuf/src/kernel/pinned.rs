//! Memory that io_urings have registered (`IORING_REGISTER_BUFFERS`), and who has the rings.
//!
//! A ring that has registered memory keeps its pages, also after the file that they were of is
//! closed and unmapped. The pages are then in no file, in no mapping and in no list, and not in
//! `Shmem`. What is left is the ring's fdinfo (`io_uring_show_fdinfo` in io_uring/fdinfo.c, before
//! Linux 6.0 in fs/io_uring.c): the line `UserBufs:` and for each piece of memory a line
//! `NTH: 0xADDRESS/LENGTH`. `VmPin` in `/proc/P/status` is no substitute: it stayed 0 for root on
//! Linux 7.2.
//!
//! Limits: the kernel does not tell what memory it is, so it may be ordinary memory, or of a file
//! that still exists. A ring that no process has by an fd is not found. A ring that several
//! processes have counts for each.

use std::mem::MaybeUninit;

use super::fds::{self, SlotReader};
use super::hidden_refs::FileKeeper;
use super::parse::{cut, number};
use super::process::ProcessDir;
use super::read::LINK_ROOM;
use super::root::ProcRoot;
use crate::model::{Bytes, Fd, Pid};

/// Every process but these that has an io_uring with registered memory, and how much that is.
pub(crate) fn by_rings(root: &ProcRoot, without: &[Pid]) -> Vec<(Pid, Bytes)> {
    let (mut found, mut slots) = (Vec::new(), SlotReader::default());
    for (pid, _) in root.processes().unwrap_or_default() {
        if without.contains(&pid) {
            continue;
        }
        // A process that exits meanwhile, or refuses, adds nothing.
        let Ok(process) = ProcessDir::open(root, pid) else { continue };
        let bytes = of_process(&process, &mut slots);
        if bytes > 0 {
            found.push((pid, Bytes(bytes)));
        }
    }
    found
}

fn of_process(process: &ProcessDir, slots: &mut SlotReader) -> u64 {
    let Ok(table) = process.dir().folder(c"fd") else { return 0 };
    let (mut rings, mut text) = (Vec::new(), Vec::new());
    let mut room = [MaybeUninit::uninit(); LINK_ROOM];
    // What could be listed before an error is used.
    let _ = slots.each(&table, |entry| {
        let keeper = table.link(entry, &mut room).ok().and_then(FileKeeper::of);
        if matches!(keeper, Some(FileKeeper::Ring)) {
            rings.extend(entry.to_str().ok().and_then(|fd| fd.parse().ok()).map(Fd));
        }
        Ok(())
    });
    let mut bytes = 0_u64;
    for fd in rings {
        if process.dir().read_record(fds::fdinfo_path(fd).as_str(), &mut text).is_ok() {
            bytes = bytes.saturating_add(registered(&text));
        }
    }
    bytes
}

/// How many bytes the fdinfo of a ring lists below `UserBufs:`.
pub(crate) fn registered(fdinfo: &[u8]) -> u64 {
    let mut lines = fdinfo.split(|&byte| byte == b'\n').skip_while(|line| !line.starts_with(b"UserBufs:"));
    lines.next();
    let length = |line: &[u8]| {
        let (_, range) = cut(line, b':').ok()?;
        let (address, length) = cut(range, b'/').ok()?;
        address.starts_with(b" 0x").then(|| number(length, 10).ok())?
    };
    // An empty slot has no length. The line of the next list begins with a letter.
    let slots = lines.take_while(|line| line.first().is_some_and(|&b| b == b' ' || b.is_ascii_digit()));
    slots.filter_map(length).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that the lengths of registered memory are added up, and that no path of a fixed file
    /// and no later list is taken for one.
    #[test]
    fn lengths() {
        let text = b"SqThread:\t-1\nUserFiles:\t1\n    0: /UserBufs:\nUserBufs:\t3\n    0: 0x7f00/65536\n\
            \x20   1: <none>\n    2: 0x9000/4096\nPollList:\n  op=6, task_works=0\n    9: 0x1/7\n";
        assert_eq!(registered(text), 65536 + 4096);
        assert_eq!(registered(b"UserFiles:\t1\n    0: 0x7f00/65536\n"), 0);
    }

    proptest! {
        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = registered(&[b"UserBufs:\n", &text[..]].concat());
        }
    }
}
