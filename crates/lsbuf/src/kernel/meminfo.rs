//! The few lines of `/proc/meminfo` that shared memory is in (`meminfo_proc_show` in fs/proc/meminfo.c).
//!
//! `Shmem:` is the kernel's counter `NR_SHMEM`: pages in memory of every file of every tmpfs, the one that is mounted nowhere
//! among them. `Hugetlb:` counts huge pages of every size, used or not; none of them is in `Shmem:`. There is no line for
//! memfd_secret's pages, which are in `Cached:` and `Unevictable:`, nor for a guest_memfd's.
//!
//! The counter is kept in parts, one for each processor, that are added up when they are large enough, and every second or
//! so. [`fold`] adds them up at once, which interrupts each processor for a moment, and is root's.
//!
//! Limits: sums are of pages at slightly different times.

use rustix::io::{Errno, Result};

use super::parse::{Malformed, cut, number};
use super::tree::Folder;
use crate::model::Bytes;

/// What is taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meminfo {
    /// `Shmem:`.
    pub(crate) shmem: Bytes,
    /// `SwapTotal:` less `SwapFree:`.
    pub(crate) swap_used: Bytes,
    /// `Hugetlb:`; a kernel without huge pages has no such line, and none of them.
    pub(crate) hugetlb: Bytes,
}

/// Reads it.
pub(crate) fn read(root: &Folder) -> Result<Meminfo> {
    let mut text = Vec::new();
    root.read_file(c"meminfo", &mut text)?;
    parse(&text).map_err(|Malformed| Errno::BADMSG)
}

/// Has the kernel add up what each processor has counted (`vmstat_refresh` in mm/vmstat.c).
pub(crate) fn fold(root: &Folder) -> Result<()> {
    match root.read_file(c"sys/vm/stat_refresh", &mut Vec::new()) {
        // It has added up, and found some other counter below zero: so kernels before 5.13 say that.
        Err(Errno::INVAL) => Ok(()),
        done => done,
    }
}

/// Parses it. What these lines say must be said once, in kB.
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
        // Swap that is being switched off is still free and no longer there.
        swap_used: Bytes(total.0.saturating_sub(free.0)),
        hugetlb: value(b"Hugetlb")?.unwrap_or_default(),
    })
}

/// `     1234 kB`, of 1024 bytes each.
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

    /// Check that each line lands in its field, and that a longer name is another line.
    #[test]
    fn lines() {
        let expected =
            Meminfo { shmem: Bytes(8968 << 10), swap_used: Bytes(40 << 10), hugetlb: Bytes(4 << 20) };
        assert_eq!(parse(&text("              8968 kB")), Ok(expected));
    }

    /// Check that no other unit, no sign, no second line and nothing too large is taken for a size.
    #[test]
    fn malformed() {
        for value in
            [" 1", " 1 MB", " -1 kB", " kB", " 1 kB\nShmem: 1 kB", " 18446744073709551615 kB", " 1  kB"]
        {
            assert_eq!(parse(&text(value)), Err(Malformed), "{value}");
        }
        assert_eq!(parse(b"Shmem: 1 kB\n"), Err(Malformed));
    }

    /// Check that this kernel's can be read.
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
}
