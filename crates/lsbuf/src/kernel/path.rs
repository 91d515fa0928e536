//! Short paths below a process's directory, such as `fd/7`.
//!
//! There is one for each fd and mapping, so they are built on the stack, without an allocation.

use std::fmt::{self, Write};

use crate::model::{Fd, MapRef};

/// Room for the longest path: `map_files/` and two addresses.
const ROOM: usize = 48;

/// A path.
#[derive(Debug)]
pub(crate) struct Path {
    len: usize,
    text: [u8; ROOM],
}

impl Path {
    /// Builds a path from its parts. A path that does not fit is empty, which names no file.
    pub(crate) fn new(parts: fmt::Arguments<'_>) -> Path {
        let mut path = Path { len: 0, text: [0; ROOM] };
        if path.write_fmt(parts).is_err() {
            path.len = 0;
        }
        path
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        self.text.get(..self.len).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl Write for Path {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.len + part.len();
        self.text.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The link of one fd, relative to the process's directory.
pub(crate) fn fd_link(fd: Fd) -> Path {
    Path::new(format_args!("fd/{fd}"))
}

/// The fdinfo of one fd, relative to the process's directory.
pub(crate) fn fdinfo_path(fd: Fd) -> Path {
    Path::new(format_args!("fdinfo/{fd}"))
}

/// The link of one VMA, relative to the process's directory.
pub(crate) fn map_files_link(vma: &MapRef) -> Path {
    Path::new(format_args!("map_files/{:x}-{:x}", vma.start, vma.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the longest path fits, and that a longer one becomes empty.
    #[test]
    fn the_longest() {
        let path = Path::new(format_args!("map_files/{:x}-{:x}", u64::MAX, u64::MAX));
        assert_eq!(path.as_str(), "map_files/ffffffffffffffff-ffffffffffffffff");
        assert_eq!(Path::new(format_args!("{:049}", 0)).as_str(), "");
    }
}
