//! The lines of `/proc/meminfo` that count shared memory, and how much swap is in use
//! (`meminfo_proc_show` in fs/proc/meminfo.c).
//!
//! `Shmem:` is the kernel's counter `NR_SHMEM`: the pages in memory of all files of every tmpfs,
//! including the kernel's own tmpfs, which is mounted nowhere. `Hugetlb:` counts huge pages of
//! every size, used or not; none of them is in `Shmem:`. No line counts the pages of memfd_secret
//! alone, which are in `Cached:` and `Unevictable:`, nor those of guest_memfd.
//!
//! The counter has a part for each processor. A part is added to the sum when it is large enough,
//! and about every second. [`fold`] adds all of them at once. That interrupts each processor for a
//! moment, and only root may do it.
//!
//! Limits: the values that are added were read at slightly different times.

use rustix::io::{Errno, Result};

use super::parse::{Malformed, cut, number};
use super::tree::Folder;
use crate::model::Bytes;

/// The values that lsbuf uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meminfo {
    /// `Shmem:`.
    pub(crate) shmem: Bytes,
    /// `SwapTotal:` less `SwapFree:`.
    pub(crate) swap_used: Bytes,
    /// `Hugetlb:`; 0 if the kernel has no huge pages and so no such line.
    pub(crate) hugetlb: Bytes,
}

/// Reads `meminfo`.
pub(crate) fn read(root: &Folder) -> Result<Meminfo> {
    let mut text = Vec::new();
    root.read_file(c"meminfo", &mut text)?;
    parse(&text).map_err(|Malformed| Errno::BADMSG)
}

/// Whether pages are locked in memory (`Mlocked:`), also if that cannot be read. Pages that were
/// locked a moment ago may not be counted yet.
pub(crate) fn has_locked(root: &Folder) -> bool {
    let mut text = Vec::new();
    root.read_file(c"meminfo", &mut text).is_err() || !says_none_locked(&text)
}

fn says_none_locked(text: &[u8]) -> bool {
    let mut lines = text.split(|&b| b == b'\n').filter_map(|line| cut(line, b':').ok());
    let locked = lines.find_map(|(key, rest)| (key == b"Mlocked").then_some(rest));
    locked.and_then(|rest| kilobytes(rest).ok()) == Some(Bytes(0))
}

/// Makes the kernel add up what each processor has counted (`vmstat_refresh` in mm/vmstat.c).
pub(crate) fn fold(root: &Folder) -> Result<()> {
    match root.read_file(c"sys/vm/stat_refresh", &mut Vec::new()) {
        // It has added them up, and has found some other counter below zero. Kernels before 5.13
        // report that as an error.
        Err(Errno::INVAL) => Ok(()),
        done => done,
    }
}

/// Parses `meminfo`. A line that is used must not occur twice, and its value must be in kB.
pub(crate) fn parse(text: &[u8]) -> std::result::Result<Meminfo, Malformed> {
    let value = |name: &[u8]| -> std::result::Result<Option<Bytes>, Malformed> {
        let mut lines = text.split(|&b| b == b'\n').filter_map(|line| {
            let (key, rest) = cut(line, b':').ok()?;
            (key == name).then_some(rest)
        });
        match (lines.next(), lines.next()) {
            (Some(rest), None) => kilobytes(rest).map(Some),
            (None, _) => Ok(None),
            (Some(_), Some(_)) => Err(Malformed),
        }
    };
    let stated = |name| value(name)?.ok_or(Malformed);
    let (total, free) = (stated(b"SwapTotal")?, stated(b"SwapFree")?);
    Ok(Meminfo {
        shmem: stated(b"Shmem")?,
        // While swap is being switched off, it is still free but no longer in the total.
        swap_used: Bytes(total.0.saturating_sub(free.0)),
        hugetlb: value(b"Hugetlb")?.unwrap_or_default(),
    })
}

/// A value such as ` 1234 kB`, in units of 1024 bytes.
fn kilobytes(text: &[u8]) -> std::result::Result<Bytes, Malformed> {
    let digits = text.trim_ascii_start().strip_suffix(b" kB").ok_or(Malformed)?;
    number(digits, 10)?.checked_mul(1024).map(Bytes).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::kernel::root::ProcRoot;

    fn text(shmem: &str) -> Vec<u8> {
        format!("MemTotal:       24683656 kB\nSwapTotal:           100 kB\nSwapFree:             60 kB\nShmem:{shmem}\nShmemHugePages:        0 kB\nHugePages_Total:       2\nHugetlb:            4096 kB\n").into_bytes()
    }

    /// Check that each line is read into its field, and that a longer key is another line.
    #[test]
    fn lines() {
        let expected =
            Meminfo { shmem: Bytes(8968 << 10), swap_used: Bytes(40 << 10), hugetlb: Bytes(4 << 20) };
        assert_eq!(parse(&text("              8968 kB")), Ok(expected));
    }

    /// Check that another unit, a sign, a second line or a value that is too large is refused.
    #[test]
    fn malformed() {
        for value in
            [" 1", " 1 MB", " -1 kB", " kB", " 1 kB\nShmem: 1 kB", " 18446744073709551615 kB", " 1  kB"]
        {
            assert_eq!(parse(&text(value)), Err(Malformed), "{value}");
        }
        assert_eq!(parse(b"Shmem: 1 kB\n"), Err(Malformed));
    }

    /// Check that this kernel's meminfo can be read.
    #[test]
    fn live() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        read(root.dir()).unwrap();
    }

    proptest! {
        /// Check that a size is read back as printed, however it is padded.
        #[test]
        fn round_trip(kb in 0u64..1 << 54, padding in 1usize..30) {
            let found = parse(&text(&format!("{}{kb} kB", " ".repeat(padding)))).unwrap();
            prop_assert_eq!(found.shmem, Bytes(kb << 10));
        }

        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300), value in "[ 0-9kB:\n-]{0,30}") {
            let _ = parse(&bytes);
            let _ = parse(&text(&value));
        }
    }

    /// Check that only the line that says so means that nothing is locked.
    #[test]
    fn locked_pages() {
        assert!(says_none_locked(b"Unevictable:   12 kB\nMlocked:           0 kB\nSwapTotal:  0 kB\n"));
        for unclear in [&b"Mlocked:           4 kB\n"[..], b"Mlocked: 0\n", b"Unevictable:   0 kB\n", b""] {
            assert!(!says_none_locked(unclear));
        }
    }
}
