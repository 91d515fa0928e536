//! Reading small kernel files and directories into buffers that are used again.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RawDir, openat};
use rustix::io::{Errno, Result, read};
use rustix::path::Arg;

/// The buffers of one scan, allocated once.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Directory entries. 32 KiB take about a thousand fds per call.
    pub(crate) dir: Vec<MaybeUninit<u8>>,
    /// A link's target; no link of procfs is longer than a page.
    pub(crate) link: Vec<MaybeUninit<u8>>,
    /// Text of a whole small file.
    pub(crate) text: Vec<u8>,
    /// Text that is read piece by piece.
    pub(crate) chunk: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers {
            dir: vec![MaybeUninit::uninit(); 32 << 10],
            link: vec![MaybeUninit::uninit(); 4 << 10],
            text: Vec::new(),
            chunk: Vec::new(),
        }
    }
}

/// Opens a directory for reading.
pub(crate) fn open_dir<P: Arg>(at: impl AsFd, path: P) -> Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file for reading. Non-blocking, so that a recorded tree with a FIFO in it cannot hang us.
pub(crate) fn open_file<P: Arg>(at: impl AsFd, path: P) -> Result<OwnedFd> {
    openat(at, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
}

/// Reads a whole file into `text`, replacing what was there.
pub(crate) fn file<P: Arg>(at: impl AsFd, path: P, text: &mut Vec<u8>) -> Result<()> {
    let fd = open_file(at, path)?;
    text.clear();
    loop {
        let filled = text.len();
        text.resize(filled.max(512) * 2, 0);
        let n = retry(|| read(&fd, &mut text[filled..]))?;
        text.truncate(filled + n);
        if n == 0 {
            return Ok(());
        }
    }
}

/// Reads `fd` in pieces and hands over each line without its newline. A last line without newline
/// counts too. `chunk` grows to the longest line.
pub(crate) fn lines(fd: BorrowedFd<'_>, chunk: &mut Vec<u8>, mut each: impl FnMut(&[u8])) -> Result<()> {
    const ROOM: usize = 16 << 10;
    let mut kept = 0;
    loop {
        if chunk.len() < kept + ROOM {
            chunk.resize(kept + ROOM, 0);
        }
        let n = retry(|| read(fd, &mut chunk[kept..]))?;
        let filled = kept + n;
        if n == 0 {
            if kept > 0 {
                each(&chunk[..kept]);
            }
            return Ok(());
        }
        let mut begin = 0;
        while let Some(len) = chunk[begin..filled].iter().position(|&b| b == b'\n') {
            each(&chunk[begin..begin + len]);
            begin += len + 1;
        }
        chunk.copy_within(begin..filled, 0);
        kept = filled - begin;
    }
}

/// Hands over the name of each entry of a directory but `.` and `..`.
pub(crate) fn names(
    dir: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
    mut each: impl FnMut(&std::ffi::CStr) -> Result<()>,
) -> Result<()> {
    let mut entries = RawDir::new(dir, buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            each(name)?;
        }
    }
    Ok(())
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

    fn lines_of(text: &[u8]) -> Vec<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let mut found = Vec::new();
        lines(file.as_fd(), &mut Vec::new(), |line| found.push(line.to_vec())).unwrap();
        found
    }

    /// Check that a line longer than the room for one read arrives whole.
    #[test]
    fn long_lines_arrive_whole() {
        let long = vec![b'x'; 100_000];
        let text = [b"a\n", long.as_slice(), b"\nb"].concat();
        assert_eq!(lines_of(&text), [b"a".to_vec(), long, b"b".to_vec()]);
    }

    proptest! {
        /// Check that lines are those of splitting the whole text at newlines.
        #[test]
        fn lines_are_the_split(text in "[a\n]{0,200}") {
            let mut expected: Vec<&str> = text.split('\n').collect();
            if expected.last() == Some(&"") {
                expected.pop();
            }
            let found = lines_of(text.as_bytes());
            prop_assert_eq!(found, expected.iter().map(|l| l.as_bytes().to_vec()).collect::<Vec<_>>());
        }
    }
}
