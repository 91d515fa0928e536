//! Writes cpio archives in the `newc` format, which the kernel unpacks as its first filesystem
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! It has sixty lines, so no crate is used. All files belong to root and have time 0, so that the
//! same contents give the same archive. Hard links and device nodes are not supported; the kernel
//! itself provides `/dev/console`.

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// An archive under construction.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory and its parents, unless they exist.
    pub(crate) fn directory(&mut self, path: &str) {
        let path = path.trim_start_matches('/');
        if path.is_empty() || self.directories.contains(path) {
            return;
        }
        self.parent(path);
        self.directories.insert(path.to_owned());
        self.entry(path, DIRECTORY, b"");
    }

    /// Adds an executable file and its parent directories.
    pub(crate) fn program(&mut self, path: &str, contents: &[u8]) {
        self.parent(path);
        self.entry(path, PROGRAM, contents);
    }

    /// Adds a file and its parent directories.
    pub(crate) fn file(&mut self, path: &str, contents: &[u8]) {
        self.parent(path);
        self.entry(path, PLAIN, contents);
    }

    /// Adds a symbolic link to `target`, and its parent directories.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.parent(path);
        self.entry(path, LINK, target.as_bytes());
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn parent(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) {
        let path = path.trim_start_matches('/');
        self.entries += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
        // namesize, check. A file of 4 GiB would not fit here, and its archive would not fit into
        // the guest.
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(b"070701");
        for field in [self.entries, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    /// A header with its name is padded to a multiple of four bytes, and so are contents.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: path, mode, contents.
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                u32::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16).unwrap()
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = String::from_utf8(bytes[at + 110..at + 110 + name_size - 1].to_vec()).unwrap();
            let start = (at + 110 + name_size).next_multiple_of(4);
            at = (start + size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(at, bytes.len());
                return entries;
            }
            entries.push((name, mode, bytes[start..start + size].to_vec()));
        }
    }

    /// Check that an archive contains what was added, with each directory once and before its
    /// contents.
    #[test]
    fn round_trip() {
        let mut archive = Archive::default();
        archive.program("/bin/tool", b"12345");
        archive.file("/bin/data", b"");
        archive.link("init", "bin/tool");
        archive.directory("/a/b");
        let found = read(&archive.finish());
        let expected: &[(&str, u32, &[u8])] = &[
            ("bin", DIRECTORY, b""),
            ("bin/tool", PROGRAM, b"12345"),
            ("bin/data", PLAIN, b""),
            ("init", LINK, b"bin/tool"),
            ("a", DIRECTORY, b""),
            ("a/b", DIRECTORY, b""),
        ];
        let expected: Vec<_> = expected.iter().map(|&(p, m, c)| (p.to_owned(), m, c.to_vec())).collect();
        assert_eq!(found, expected);
    }
}
