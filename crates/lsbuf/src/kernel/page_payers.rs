//! To which cgroup each page of a file is charged, without BPF.
//!
//! `/proc/kpagecgroup` has, for each page frame, the inode number of the cgroup that is charged for
//! it (`page_cgroup_ino` in mm/memcontrol.c). Which frames a file has is shown by the pagemap of a
//! process that has mapped it. So lsbuf maps the file, read-only and a piece at a time, and reads
//! its own pagemap. The pagemap shows only pages that were accessed through the mapping. lsbuf
//! accesses those alone that are in memory already (mincore(2)), so that no hole is filled. It does
//! so by process_vm_readv(2), which fails where the file has been cut meanwhile, and kills nobody.
//!
//! A page can move to another frame at any time. So the pagemap is read again after the tables of
//! frames, and a page that has moved meanwhile is not ascribed to anybody.
//!
//! Limits: it needs CAP_SYS_ADMIN. Of huge pages only the first frame is charged on some kernels,
//! so they are not ascribed to anybody. The kernel names no removed cgroup but the nearest ancestor
//! of it that is left. A page that is in memory because it is being swapped in or out counts as one
//! in memory, so nothing is read while the machine has such pages ([`has_swap_cache`]). If a hole
//! is punched into the file just between two system calls, accessing it fills that hole with one
//! page of zeros.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result, pread};
use rustix::param::page_size;

use super::own::Region;
use super::parse::cut;
use super::read::retry;
use super::root::ProcRoot;
use super::tree::Folder;

/// The tables that are indexed by the numbers of pages.
#[derive(Debug)]
pub(crate) struct PageTables {
    /// Of this process.
    pagemap: OwnedFd,
    cgroups: OwnedFd,
    flags: OwnedFd,
}

/// Pages of a file that are in memory, by who pays for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PaidPages {
    /// By the inode number of the cgroup.
    pub(crate) cgroups: BTreeMap<u64, u64>,
    pub(crate) nobody: u64,
    pub(crate) unknown: u64,
}

impl PaidPages {
    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.cgroups.values().fold(self.nobody.saturating_add(self.unknown), |sum, &n| sum.saturating_add(n))
    }
}

/// So many pages are mapped at once: as many as process_vm_readv(2) takes places (`UIO_MAXIOV`).
const AT_ONCE: usize = 1024;

impl PageTables {
    /// Opens them.
    pub(crate) fn open(root: &ProcRoot) -> Result<PageTables> {
        let open = |path: &str| root.dir().file(path);
        Ok(PageTables {
            pagemap: open("self/pagemap")?,
            cgroups: open("kpagecgroup")?,
            flags: open("kpageflags")?,
        })
    }

    /// Counts the pages of the first `len` bytes of a file. `PERM`: the kernel shows no frames.
    pub(crate) fn count(&self, file: BorrowedFd<'_>, len: u64) -> Result<PaidPages> {
        let mut found = PaidPages::default();
        let page = page_size() as u64;
        let pages = len.div_ceil(page);
        let mut first = 0;
        while first < pages {
            let number = usize::try_from(pages - first).unwrap_or(AT_ONCE).min(AT_ONCE);
            let region = Region::readable(file, first * page, number * page_size())?;
            self.count_mapped(&region, &mut found)?;
            first += number as u64;
        }
        Ok(found)
    }

    fn count_mapped(&self, region: &Region, found: &mut PaidPages) -> Result<()> {
        let resident = region.resident()?;
        if resident.is_empty() {
            return Ok(());
        }
        region.access(&resident)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        self.entries(region, &mut before)?;
        let charges: Vec<Option<u64>> = resident
            .iter()
            .map(|&nth| before[nth].frame()?.checked_mul(8).map(|at| self.charge(at))?)
            .collect();
        self.entries(region, &mut after)?;
        for (nth, charge) in resident.into_iter().zip(charges) {
            if before[nth].is_hidden() {
                return Err(Errno::PERM);
            }
            match charge.filter(|_| before[nth] == after[nth]) {
                None => found.unknown += 1,
                Some(0) => found.nobody += 1,
                Some(cgroup) => *found.cgroups.entry(cgroup).or_default() += 1,
            }
        }
        Ok(())
    }

    /// The cgroup of a frame, whose entries are at that place; 0: none. `None`: unknown.
    fn charge(&self, at: u64) -> Option<u64> {
        let flags = word(self.flags.as_fd(), at).ok()?;
        if flags & PARTS_OF_HUGE_PAGES != 0 {
            return None;
        }
        word(self.cgroups.as_fd(), at).ok()
    }

    /// The entries of the pagemap for each page of a region.
    fn entries(&self, region: &Region, entries: &mut Vec<Entry>) -> Result<()> {
        let pages = (region.end() - region.start()) as usize / page_size();
        let mut bytes = vec![0; pages * 8];
        let at = region.start() / page_size() as u64 * 8;
        let read = retry(|| pread(&self.pagemap, &mut bytes, at))?;
        entries.clear();
        entries.extend(
            bytes[..read]
                .chunks_exact(8)
                .map(|entry| Entry(u64::from_ne_bytes(entry.try_into().unwrap_or_default()))),
        );
        entries.resize(pages, Entry(0));
        Ok(())
    }
}

/// Bits of `/proc/kpageflags` (include/uapi/linux/kernel-page-flags.h): the head and the tails of a
/// compound page, huge pages, and huge pages of ordinary memory.
const PARTS_OF_HUGE_PAGES: u64 = 1 << 15 | 1 << 16 | 1 << 17 | 1 << 22;

/// The number at a place of a table.
fn word(table: BorrowedFd<'_>, at: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    match retry(|| pread(table, &mut bytes, at))? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(Errno::NODATA),
    }
}

/// An entry of a pagemap (Documentation/admin-guide/mm/pagemap.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    fn is_present(self) -> bool {
        self.0 >> 63 != 0
    }

    /// The number of the page frame. `None`: there is none, or it is not shown.
    fn frame(self) -> Option<u64> {
        let number = self.0 & ((1 << 55) - 1);
        (self.is_present() && number > 0).then_some(number)
    }

    /// Whether there is a frame whose number is not shown.
    fn is_hidden(self) -> bool {
        self.is_present() && self.frame().is_none()
    }
}

/// Whether pages of swap are in memory (`SwapCached:` of meminfo), also if that cannot be read.
pub(crate) fn has_swap_cache(root: &Folder) -> bool {
    let mut text = Vec::new();
    root.read_file(c"meminfo", &mut text).is_err() || !says_no_swap_cache(&text)
}

fn says_no_swap_cache(text: &[u8]) -> bool {
    let mut lines = text.split(|&b| b == b'\n').filter_map(|line| cut(line, b':').ok());
    let cached = lines.find_map(|(key, rest)| (key == b"SwapCached").then_some(rest));
    cached.is_some_and(|rest| rest.trim_ascii() == b"0 kB")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
    use rustix::io::pwrite;

    use super::*;

    /// Check that every page in memory is counted once and that no hole is filled, if this process
    /// may read the tables.
    #[test]
    fn own_file() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let Ok(tables) = PageTables::open(&root) else { return };
        let file = memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
        let page = page_size() as u64;
        ftruncate(&file, 3000 * page).unwrap();
        for nth in [0, 7, 1023, 1024, 2999] {
            pwrite(&file, b"x", nth * page).unwrap();
        }
        let blocks = fstat(&file).unwrap().st_blocks;
        match tables.count(file.as_fd(), 3000 * page) {
            Ok(found) => assert_eq!(found.total(), 5, "{found:?}"),
            Err(errno) => assert_eq!(errno, Errno::PERM),
        }
        assert_eq!(fstat(&file).unwrap().st_blocks, blocks);
    }

    /// Check that a file that is shorter than was believed kills nobody.
    #[test]
    fn cut_file() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let Ok(tables) = PageTables::open(&root) else { return };
        let file = memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(tables.count(file.as_fd(), 1 << 20).map(|found| found.total()), Ok(0));
        assert_eq!(fstat(&file).unwrap().st_blocks, 0);
    }

    /// Check that each bit of an entry is read at its place.
    #[test]
    fn entries() {
        assert_eq!(Entry(1 << 63 | 1 << 61 | 7).frame(), Some(7));
        assert_eq!((Entry(1 << 62 | 9).frame(), Entry(1 << 63 | 1 << 55).frame()), (None, None));
        assert!(Entry(1 << 63).is_hidden() && !Entry(1 << 62).is_hidden());
    }

    /// Check that only a table of 0 kB says that no page of swap is in memory.
    #[test]
    fn swap_caches() {
        assert!(says_no_swap_cache(b"MemFree: 1 kB\nSwapCached:            0 kB\nActive: 4 kB\n"));
        assert!(!says_no_swap_cache(b"SwapCached:       12 kB\n") && !says_no_swap_cache(b""));
    }
}
