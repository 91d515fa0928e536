//! Reading small kernel files and directories.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memchr::memmem::Finder;
use memchr::{memchr, memrchr};
use rustix::fs::{Mode, OFlags, RawDir, fstat, openat};
use rustix::io::{Errno, Result, read};
use rustix::path::Arg;

use super::guard;

/// Room for directory entries, in bytes: about a thousand a call.
const DIR_ROOM: usize = 32 << 10;

/// Room for a link's target, in bytes: no link of procfs is longer than a page.
pub(crate) const LINK_ROOM: usize = 4 << 10;

/// Opens a directory for reading.
pub(crate) fn open_dir<P: Arg>(at: impl AsFd, path: P) -> Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file for reading, without waiting for anybody who would have to open its other end.
pub(crate) fn open_file<P: Arg>(at: impl AsFd, path: P) -> Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a whole file into `text`, replacing what was there.
pub(crate) fn file<P: Arg>(at: impl AsFd, path: P, text: &mut Vec<u8>) -> Result<()> {
    whole(&open_file(at, path)?, text)
}

/// The same of an open file.
pub(crate) fn whole(file: &OwnedFd, text: &mut Vec<u8>) -> Result<()> {
    text.clear();
    while fill(file, text)? != Filled::End {}
    Ok(())
}

/// Reads a file that the kernel prints as one record (`single_open`: fdinfo, stat, status, cgroup, bufinfo) into `text`,
/// replacing what was there. Such a file ends where a read comes back short, which saves asking for the end.
pub(crate) fn record<P: Arg>(at: impl AsFd, path: P, text: &mut Vec<u8>) -> Result<()> {
    one_record(&open_file(at, path)?, text)
}

/// The same of an open file.
pub(crate) fn one_record(file: &OwnedFd, text: &mut Vec<u8>) -> Result<()> {
    text.clear();
    while fill(file, text)? == Filled::Whole {}
    Ok(())
}

/// Reads a file that states its size, as binary files of sysfs do: those come a page at a time, however much room there is.
#[cfg_attr(not(feature = "bpf"), allow(dead_code, reason = "only the kernel's types are read so"))]
pub(crate) fn sized<P: Arg>(at: impl AsFd, path: P, bytes: &mut Vec<u8>) -> Result<()> {
    let fd = open_file(at, path)?;
    let size =
        usize::try_from(fstat(&fd)?.st_size).ok().filter(|&size| size <= LARGEST).ok_or(Errno::FBIG)?;
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

/// No file of a kernel comes near: bufinfo of 100,000 buffers has 10 MiB. What does was made to exhaust us.
const LARGEST: usize = 64 << 20;

/// Nor does the text of a million mappings.
const LONGEST: usize = 1 << 30;

/// Room that is worth a read, and the most that is cleared for one.
const ENOUGH: usize = 256;
const PIECE: usize = 4 << 10;

/// What one read did to the room it was given.
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

/// Reads `fd` in pieces and hands over each line that contains one of `needles`, with that one's index and without its
/// newline; in order for each needle. A last line without newline counts too. `chunk` grows to the longest line. Returns
/// whether there was any text.
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
        // What was kept has no newline.
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

/// Hands over the name and inode number of each entry of a directory but `.` and `..`.
pub(crate) fn entries(
    dir: BorrowedFd<'_>,
    each: impl FnMut(&std::ffi::CStr, u64) -> Result<()>,
) -> Result<()> {
    entries_in_pieces(dir, &mut [MaybeUninit::uninit(); DIR_ROOM], each).map(drop)
}

/// The same with room for one piece (getdents64(2)). Returns in how many pieces they came: what happens within one
/// piece takes no time to speak of, while `each` runs between two.
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

/// Repeats a call that a signal interrupted.
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

    /// Check that a line longer than the room for one read arrives whole.
    #[test]
    fn long_lines_arrive_whole() {
        let long = vec![b'x'; 100_000];
        let text = [b"a\n", long.as_slice(), b"\nbx"].concat();
        assert_eq!(lines_of(&text, "x"), [long, b"bx".to_vec()]);
    }

    proptest! {
        /// Check that the lines are those of splitting the whole text at newlines and looking into each.
        #[test]
        fn lines_are_the_split(text in "[ab\n]{0,200}", needle in "[ab]{1,3}") {
            let expected: Vec<Vec<u8>> =
                text.split('\n').filter(|l| l.contains(&needle)).map(|l| l.as_bytes().to_vec()).collect();
            prop_assert_eq!(lines_of(text.as_bytes(), &needle), expected);
        }

        /// Check that a file read as one record is the file, whatever its size is to the buffer's.
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
