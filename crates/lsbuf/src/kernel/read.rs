//! Reads kernel files and directories.
//!
//! Most files of procfs state no size, and an untrusted process can make some of them very long.
//! The functions here use few system calls, reuse buffers, and stop at an upper limit.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memchr::memmem::Finder;
use memchr::{memchr, memrchr};
use rustix::fs::{Mode, OFlags, RawDir, openat};
use rustix::io::{Errno, Result, read};
use rustix::path::Arg;

use super::guard;

/// Room for directory entries, in bytes: about a thousand entries per call.
const DIR_ROOM: usize = 32 << 10;

/// Room for a link's target, in bytes: PATH_MAX, which is no page size. Older kernels print a link
/// into a page (`do_proc_readlink` in fs/proc/base.c) and can have longer ones where pages are
/// larger; those are cut off.
pub(crate) const LINK_ROOM: usize = 4 << 10;

/// Opens a directory for reading.
pub(crate) fn open_dir<P: Arg>(at: impl AsFd, path: P) -> Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file for reading, without waiting for the other end of a FIFO.
pub(crate) fn open_file<P: Arg>(at: impl AsFd, path: P) -> Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a whole file into `text`, and replaces what was there.
pub(crate) fn file<P: Arg>(at: impl AsFd, path: P, text: &mut Vec<u8>) -> Result<()> {
    whole(&open_file(at, path)?, text)
}

/// As [`file()`], for an open file.
pub(crate) fn whole(file: &OwnedFd, text: &mut Vec<u8>) -> Result<()> {
    text.clear();
    while fill(file, text)? != Filled::End {}
    Ok(())
}

/// Reads a file that the kernel prints as one record (`single_open`: fdinfo, stat, status, cgroup,
/// bufinfo) into `text`, and replaces what was there. A read that returns less than there was room
/// for is the last one, so no further read is needed to find the end.
pub(crate) fn record<P: Arg>(at: impl AsFd, path: P, text: &mut Vec<u8>) -> Result<()> {
    one_record(&open_file(at, path)?, text)
}

/// As [`record()`], for an open file.
pub(crate) fn one_record(file: &OwnedFd, text: &mut Vec<u8>) -> Result<()> {
    text.clear();
    while fill(file, text)? == Filled::Whole {}
    Ok(())
}

/// Reads a file that states its size, as binary files of sysfs do. Such a file returns one page per
/// read however much room there is, so the room is allocated at once.
#[cfg(any(feature = "bpf", feature = "check"))]
pub(crate) fn sized<P: Arg>(at: impl AsFd, path: P, bytes: &mut Vec<u8>) -> Result<()> {
    let fd = open_file(at, path)?;
    let size = usize::try_from(rustix::fs::fstat(&fd)?.st_size)
        .ok()
        .filter(|&size| size <= LARGEST)
        .ok_or(Errno::FBIG)?;
    bytes.clear();
    bytes.resize(size, 0);
    let mut filled = 0;
    while filled < size {
        match retry(|| read(&fd, &mut bytes[filled..]))? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Ok(())
}

/// An upper limit that no kernel file comes near: bufinfo of 100,000 buffers has 10 MiB. A longer
/// file was made to exhaust our memory.
const LARGEST: usize = 64 << 20;

/// The limit for a text that is read line by line. The text of a million mappings is shorter.
const LONGEST: usize = 1 << 30;

/// Room that is worth a read.
const ENOUGH: usize = 256;

/// The most room that is cleared for a read; no page size.
const PIECE: usize = 4 << 10;

/// How much of its room one read has filled.
#[derive(PartialEq, Eq)]
enum Filled {
    Whole,
    Part,
    End,
}

fn fill(fd: &OwnedFd, text: &mut Vec<u8>) -> Result<Filled> {
    let filled = text.len();
    if filled > LARGEST {
        return Err(Errno::FBIG);
    }
    let free = text.capacity() - filled;
    let room = if free < ENOUGH { filled.max(512) * 2 } else { filled + free.min(PIECE) };
    text.resize(room, 0);
    let n = retry(|| read(fd, &mut text[filled..]))?;
    let room = text.len() - filled;
    text.truncate(filled + n);
    Ok(match n {
        0 => Filled::End,
        n if n == room => Filled::Whole,
        _ => Filled::Part,
    })
}

/// Reads `fd` in pieces. Calls `each` for every line that contains one of `needles`, with the
/// needle's index and without the newline; in order for each needle. A last line without a newline
/// counts too. `chunk` grows to the longest line. Returns whether there was any text.
pub(crate) fn lines_with(
    fd: BorrowedFd<'_>,
    needles: &[Finder<'_>],
    chunk: &mut Vec<u8>,
    mut each: impl FnMut(usize, &[u8]),
) -> Result<bool> {
    const ROOM: usize = 16 << 10;
    let (mut kept, mut total) = (0, 0);
    loop {
        if kept > LARGEST || total > LONGEST {
            return Err(Errno::FBIG);
        }
        if chunk.len() < kept + ROOM {
            chunk.resize(kept + ROOM, 0);
        }
        let n = retry(|| guard::read(None, fd, &mut chunk[kept..]))?;
        let filled = kept + n;
        // The part that was kept has no newline.
        let whole =
            if n == 0 { filled } else { memrchr(b'\n', &chunk[kept..filled]).map_or(0, |at| kept + at + 1) };
        for (nth, needle) in needles.iter().enumerate() {
            let mut rest = &chunk[..whole];
            while let Some(at) = needle.find(rest) {
                let begin = memrchr(b'\n', &rest[..at]).map_or(0, |at| at + 1);
                let end = memchr(b'\n', &rest[at..]).map_or(rest.len(), |len| at + len);
                each(nth, &rest[begin..end]);
                rest = &rest[end..];
            }
        }
        if n == 0 {
            return Ok(total > 0);
        }
        total += n;
        chunk.copy_within(whole..filled, 0);
        kept = filled - whole;
    }
}

/// Calls `each` with the name and inode number of each entry of a directory, without `.` and `..`.
pub(crate) fn entries(
    dir: BorrowedFd<'_>,
    each: impl FnMut(&std::ffi::CStr, u64) -> Result<()>,
) -> Result<()> {
    entries_in_pieces(dir, &mut [MaybeUninit::uninit(); DIR_ROOM], each).map(drop)
}

/// As [`entries`], with a buffer that one getdents64(2) call fills. Returns how many calls it took.
/// The entries of one call are listed at almost the same moment, while `each` runs between two
/// calls.
pub(crate) fn entries_in_pieces(
    dir: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
    mut each: impl FnMut(&std::ffi::CStr, u64) -> Result<()>,
) -> Result<usize> {
    let mut entries = RawDir::new(dir, buffer);
    let mut pieces = 0;
    loop {
        let is_next_piece = entries.is_buffer_empty();
        let Some(entry) = guard::next_entry(&mut entries) else { return Ok(pieces) };
        let entry = entry?;
        pieces += usize::from(is_next_piece);
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name, entry.ino())?;
        }
    }
}

/// Repeats a call that a signal has interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn lines_of(text: &[u8], needle: &str) -> Vec<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut found = Vec::new();
        lines_with(file.as_fd(), &[Finder::new(needle)], &mut Vec::new(), |_, line| {
            found.push(line.to_vec())
        })
        .unwrap();
        found
    }

    /// Check that a line longer than one read is passed on whole.
    #[test]
    fn long_lines_arrive_whole() {
        let long = vec![b'x'; 100_000];
        let text = [b"a\n", long.as_slice(), b"\nbx"].concat();
        assert_eq!(lines_of(&text, "x"), [long, b"bx".to_vec()]);
    }

    proptest! {
        /// Check that the lines are those of splitting the whole text at newlines and searching
        /// each.
        #[test]
        fn lines_are_the_split(text in "[ab\n]{0,200}", needle in "[ab]{1,3}") {
            let expected: Vec<Vec<u8>> =
                text.split('\n').filter(|l| l.contains(&needle)).map(|l| l.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines_of(text.as_bytes(), &needle), expected);
        }

        /// Check that a file that is read as one record is whole, whatever its size and the
        /// buffer's.
        #[test]
        fn records_are_whole(len in prop_oneof![0..10usize, 1020..1030usize, 2040..2060usize, 0..9000usize]) {
            let file = tempfile::NamedTempFile::new().unwrap();
            let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
            std::fs::write(file.path(), &bytes).unwrap();
            let mut text = vec![1, 2, 3];
            record(rustix::fs::CWD, file.path(), &mut text).unwrap();
            prop_assert_eq!(&text, &bytes);
            super::file(rustix::fs::CWD, file.path(), &mut text).unwrap();
            prop_assert_eq!(&text, &bytes);
        }
    }
}
