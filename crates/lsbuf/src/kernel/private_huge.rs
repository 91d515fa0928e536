//! Huge pages that are a process's own: those of `mmap(MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB)`,
//! and the copies that a private mapping of a file has made.
//!
//! They are in no file, so no inode is charged for them. `/proc/P/status` says whether a process
//! has huge pages mapped at all (`HugetlbPages:`, since Linux 4.4). If so, `/proc/P/smaps` says
//! which mappings are private and of huge pages (`ht` among the `VmFlags:`, `show_smap_vma_flags`
//! in fs/proc/task_mmu.c), and `/proc/P/pagemap` which of their pages are the process's own: bit 61
//! is set for pages of a file. `Private_Hugetlb:` of smaps would not do. It counts every page that
//! one process has mapped, also those of a file.
//!
//! After fork, processes share such pages until one of them writes. The pagemap has the number of
//! each page frame, by which a page is counted once.
//!
//! Limits: without CAP_SYS_ADMIN the pagemap shows no frame numbers. Pages that processes share are
//! then counted once for each ([`OwnPages::unnumbered`]). Reading smaps and pagemap may wait for
//! the process, so it is done in a [`guard`].

use std::os::fd::AsFd;

use rustix::io::{Errno, Result};
use rustix::param::page_size;

use super::details::kilobytes;
use super::guard;
use super::process::ProcessDir;
use super::read::retry;
use super::smaps;
use crate::model::Bytes;

/// The huge pages that are a process's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnPages {
    /// The size and the frame number of each.
    pub(crate) frames: Vec<(Bytes, u64)>,
    /// The size of each page whose frame number is not shown.
    pub(crate) unnumbered: Vec<Bytes>,
}

/// Whether the process has huge pages mapped, of a file or not.
pub(crate) fn has_any(process: &ProcessDir) -> Result<bool> {
    let mut text = Vec::new();
    process.dir().read_record(c"status", &mut text)?;
    // A kernel thread has no such line.
    Ok(kilobytes(&text, b"HugetlbPages:").is_some_and(|mapped| mapped > Bytes(0)))
}

/// Reads the pages of a process. To be called in a [`guard`].
pub(crate) fn read(process: &ProcessDir) -> Result<OwnPages> {
    let mut text = Vec::new();
    read_marked(process, &mut text)?;
    let pagemap = process.dir().file(c"pagemap")?;
    let mut own = OwnPages::default();
    for mapping in mappings(&text) {
        let step = mapping.page.0;
        let mut left = mapping.mapped.0 / step;
        let mut at = mapping.start;
        while at < mapping.end && left > 0 {
            let mut entry = [0; 8];
            let place = at / page_size() as u64 * 8;
            let read = retry(|| guard::read_at(Some(process.pid()), pagemap.as_fd(), &mut entry, place))?;
            let entry = if read == entry.len() { Entry(u64::from_ne_bytes(entry)) } else { Entry(0) };
            if entry.is_present() {
                left -= 1;
                match entry.frame() {
                    _ if entry.is_of_file() => {}
                    0 => own.unnumbered.push(mapping.page),
                    frame => own.frames.push((mapping.page, frame)),
                }
            }
            at = at.saturating_add(step);
        }
    }
    Ok(own)
}

/// Reads `smaps`.
fn read_marked(process: &ProcessDir, text: &mut Vec<u8>) -> Result<()> {
    /// A longer text was made to exhaust our memory: a million mappings have less.
    const LONGEST: usize = 1 << 30;
    const PIECE: usize = 64 << 10;
    let smaps = process.dir().file(c"smaps")?;
    loop {
        let filled = text.len();
        if filled > LONGEST {
            return Err(Errno::FBIG);
        }
        text.resize(filled + PIECE, 0);
        let read = retry(|| guard::read(Some(process.pid()), smaps.as_fd(), &mut text[filled..]))?;
        text.truncate(filled + read);
        if read == 0 {
            return Ok(());
        }
    }
}

/// An entry of a pagemap (Documentation/admin-guide/mm/pagemap.rst).
#[derive(Clone, Copy, Debug)]
struct Entry(u64);

impl Entry {
    fn is_present(self) -> bool {
        self.0 >> 63 != 0
    }

    /// Whether the page belongs to a file or to shared anonymous memory.
    fn is_of_file(self) -> bool {
        self.0 >> 61 & 1 != 0
    }

    /// The number of the page frame; 0: not shown.
    fn frame(self) -> u64 {
        self.0 & ((1 << 55) - 1)
    }
}

/// A private mapping of huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrivateMapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) page: Bytes,
    /// How much of it has pages, the file's and its own.
    pub(crate) mapped: Bytes,
}

/// The private mappings of huge pages in a text of `smaps`. A path is on the line that begins a
/// mapping, and the kernel escapes newlines there, so no path can forge a line.
pub(crate) fn mappings(text: &[u8]) -> Vec<PrivateMapping> {
    let mut found = Vec::new();
    let mut current: Option<PrivateMapping> = None;
    for line in text.split(|&b| b == b'\n') {
        if line.first().is_some_and(|first| !first.is_ascii_uppercase()) {
            current = private(line);
        } else if let Some(flags) = line.strip_prefix(b"VmFlags:") {
            let is_huge = flags.split(|&b| b == b' ').any(|flag| flag == b"ht");
            found.extend(current.take().filter(|mapping| is_huge && mapping.page > Bytes(0)));
        } else if let Some(mapping) = &mut current {
            let size = |key| kilobytes(line, key);
            if let Some(page) = size(b"KernelPageSize:") {
                mapping.page = page;
            } else if let Some(mapped) = size(b"Private_Hugetlb:").or_else(|| size(b"Shared_Hugetlb:")) {
                mapping.mapped = mapping.mapped + mapped;
            }
        }
    }
    found
}

/// The line that begins a mapping: `START-END PERMS …`. `None`: it is a shared one.
fn private(line: &[u8]) -> Option<PrivateMapping> {
    let ((start, end), rest) = smaps::range(line)?;
    let is_private = rest.get(3) == Some(&b'p');
    is_private.then_some(PrivateMapping { start, end, page: Bytes(0), mapped: Bytes(0) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn smaps(perms: &str, page: u64, flags: &str) -> String {
        format!(
            "7f0000000000-7f0000800000 {perms} 00000000 00:0f 5    /anon_hugepage (deleted)\nSize: 8192 kB\n\
             KernelPageSize:     {page} kB\nMMUPageSize:  {page} kB\nShared_Hugetlb:    2048 kB\n\
             Private_Hugetlb:    4096 kB\nVmFlags: rd wr mr {flags}\n"
        )
    }

    /// Check that a private mapping of huge pages is found with how much of it is there, and that a
    /// shared one, and a private one of ordinary pages, are not.
    #[test]
    fn only_private_ones() {
        let of = |perms, page, flags| mappings(smaps(perms, page, flags).as_bytes());
        let (start, end) = (0x7f00_0000_0000, 0x7f00_0080_0000);
        let expected = PrivateMapping { start, end, page: Bytes(2 << 20), mapped: Bytes(6 << 20) };
        assert_eq!(of("rw-p", 2048, "de ht sd"), [expected]);
        assert_eq!((of("rw-s", 2048, "de ht sd"), of("rw-p", 4, "me ac")), (vec![], vec![]));
    }

    /// Check that each bit of an entry is read at its place.
    #[test]
    fn entries() {
        let entry = Entry(1 << 63 | 1 << 61 | 7);
        assert!(entry.is_present() && entry.is_of_file() && entry.frame() == 7);
        let other = Entry(1 << 62 | 1 << 55 | 9);
        assert!(!other.is_present() && !other.is_of_file() && other.frame() == 9);
    }

    proptest! {
        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[0-9a-f\n :VmFlagshtpKernPSiz-]{0,200}") {
            let _ = (mappings(&bytes), mappings(text.as_bytes()));
        }
    }
}
