//! The bytes of the kernel's type information: mapped where the kernel allows it, else read.
//!
//! The file has some MiB, and sysfs returns one page per read. A mapping copies nothing and shows
//! the kernel's own pages. The kernel allows it from Linux 6.16 on (commit a539e2a6d51d).
//!
//! Limits: only the file of sysfs itself is mapped, because it never changes. What else is in its
//! place, a file in a recorded tree for example, is read.

#![allow(unsafe_code)]

use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::{ptr, slice};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use rustix::io::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::{btf, magic, read};

/// The content of the file.
#[derive(Debug)]
pub(crate) enum BtfFile {
    Mapped(Mapping),
    Read(Vec<u8>),
}

impl BtfFile {
    /// Maps or reads the file of the sysfs at `sys`.
    pub(crate) fn open(sys: &Path) -> Result<BtfFile> {
        if let Some(mapping) = Mapping::of(sys) {
            return Ok(BtfFile::Mapped(mapping));
        }
        let mut bytes = Vec::new();
        read::sized(CWD, sys.join(btf::PATH), &mut bytes)?;
        Ok(BtfFile::Read(bytes))
    }
}

impl Deref for BtfFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            BtfFile::Mapped(mapping) => mapping.bytes(),
            BtfFile::Read(bytes) => bytes,
        }
    }
}

/// A private, read-only mapping of the whole file of a sysfs.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: *mut std::ffi::c_void,
    len: usize,
}

// SAFETY: it is read-only memory that belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared reference only reads.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `None`: the kernel allows no mapping, or this is no sysfs.
    fn of(sys: &Path) -> Option<Mapping> {
        let file = Mapping::file(sys).ok()?;
        let len = usize::try_from(fstat(&file).ok()?.st_size).ok()?;
        // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
        let start = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, &file, 0) };
        Some(Mapping { start: start.ok()?, len })
    }

    /// Opens the file if `sys` is a sysfs. No link is followed below it, so the file is the sysfs's
    /// own, and no device's memory.
    fn file(sys: &Path) -> Result<OwnedFd> {
        let sys = read::open_dir(CWD, sys)?;
        if fstatfs(&sys)?.f_type != magic::SYSFS {
            return Err(Errno::XDEV);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(sys.as_fd(), btf::PATH, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the range is mapped for reading while this lives. The mapping is private, and the
        // kernel neither changes nor shortens this file while it runs: the bytes are part of the
        // kernel's own image (`btf_vmlinux_init` in kernel/bpf/sysfs_btf.c).
        unsafe { slice::from_raw_parts(self.start.cast::<u8>(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and all borrows of its bytes have ended. A failure
        // leaves it mapped until the process ends; nothing can be done about it.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the running kernel's file, read. `None`: it has none.
    fn read_whole() -> Option<Vec<u8>> {
        std::fs::read(Path::new("/sys").join(btf::PATH)).ok()
    }

    /// Check that a mapping shows what reading returns, byte by byte, if the kernel allows one.
    #[test]
    fn mapped_as_read() {
        let (Some(mapping), Some(bytes)) = (Mapping::of(Path::new("/sys")), read_whole()) else {
            eprintln!("skipped: no mapping of {} here", btf::PATH);
            return;
        };
        assert!(mapping.bytes() == bytes);
    }

    /// Check that a file that is not the sysfs's own is read and not mapped: a regular file in the
    /// same place, and the sysfs's file behind a link.
    #[test]
    fn others_are_read() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join(btf::PATH);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"types").unwrap();
        let opened = BtfFile::open(tree.path()).unwrap();
        assert!(matches!(&opened, BtfFile::Read(bytes) if bytes == b"types"));
        if let Some(bytes) = read_whole() {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(Path::new("/sys").join(btf::PATH), &path).unwrap();
            let opened = BtfFile::open(tree.path()).unwrap();
            assert!(matches!(&opened, BtfFile::Read(read) if *read == bytes));
        }
    }
}
