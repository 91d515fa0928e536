//! The pools of huge pages: `/sys/kernel/mm/hugepages/hugepages-SIZEkB` (mm/hugetlb_sysfs.c), one
//! folder for each size of huge pages that the machine supports.
//!
//! `nr_hugepages` counts all pages of a pool, with those that were allocated beyond its fixed size
//! (`surplus_hugepages`). `free_hugepages` counts the pages that nobody uses. Some of these are
//! promised to mappings that have not touched them yet (`resv_hugepages`).
//!
//! Limits: the files are read one after another, while pages may be taken or freed.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Result;

use super::parse::number;
use super::read;
use crate::model::{Bytes, HugePool};

/// Where the pools are, below the root of sysfs.
const FOLDER: &str = "kernel/mm/hugepages";

/// Every pool, ordered by the size of its pages. Empty: the kernel has no huge pages.
pub(crate) fn pools(sys: &Path) -> Result<Vec<HugePool>> {
    sizes(sys)?.into_iter().map(|size| pool(sys, size)).collect()
}

/// The sizes of huge pages, ascending.
pub(crate) fn sizes(sys: &Path) -> Result<Vec<Bytes>> {
    let folder = match read::open_dir(CWD, sys.join(FOLDER)) {
        Ok(folder) => folder,
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut sizes = Vec::new();
    read::entries(folder.as_fd(), |name, _| {
        sizes.extend(size_of(name.to_bytes()));
        Ok(())
    })?;
    sizes.sort_unstable();
    Ok(sizes)
}

/// The size of the pages of a pool, by the name of its folder.
fn size_of(name: &[u8]) -> Option<Bytes> {
    let kib = number(name.strip_prefix(b"hugepages-")?.strip_suffix(b"kB")?, 10).ok()?;
    kib.checked_mul(1024).filter(|&size| size > 0).map(Bytes)
}

fn pool(sys: &Path, size: Bytes) -> Result<HugePool> {
    let folder = sys.join(FOLDER).join(format!("hugepages-{}kB", size.0 / 1024));
    let count = |file: &str| {
        let mut text = Vec::new();
        read::record(CWD, folder.join(file), &mut text)?;
        number(text.trim_ascii_end(), 10).map_err(|_| rustix::io::Errno::BADMSG)
    };
    Ok(HugePool {
        size,
        total: count("nr_hugepages")?,
        free: count("free_hugepages")?,
        reserved: count("resv_hugepages")?,
        surplus: count("surplus_hugepages")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each pool is read, smallest pages first, and that another folder is none.
    #[test]
    fn of_a_sysfs() {
        let sys = tempfile::tempdir().unwrap();
        let write = |pool: &str, values: [u64; 4]| {
            let folder = sys.path().join(FOLDER).join(pool);
            std::fs::create_dir_all(&folder).unwrap();
            for (name, value) in ["nr", "free", "resv", "surplus"].iter().zip(values) {
                std::fs::write(folder.join(format!("{name}_hugepages")), format!("{value}\n")).unwrap();
            }
        };
        assert_eq!(pools(sys.path()), Ok(Vec::new()));
        write("hugepages-1048576kB", [1, 1, 0, 0]);
        write("hugepages-2048kB", [60, 35, 2, 3]);
        write("hugepages-xkB", [0; 4]);
        let small = HugePool { size: Bytes(2 << 20), total: 60, free: 35, reserved: 2, surplus: 3 };
        let large = HugePool { size: Bytes(1 << 30), total: 1, free: 1, reserved: 0, surplus: 0 };
        assert_eq!(pools(sys.path()), Ok(vec![small, large]));
    }

    /// Check that a pool whose count is no number is an error, and not 0.
    #[test]
    fn malformed() {
        let sys = tempfile::tempdir().unwrap();
        let folder = sys.path().join(FOLDER).join("hugepages-2048kB");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("nr_hugepages"), "many\n").unwrap();
        assert_eq!(pools(sys.path()), Err(rustix::io::Errno::BADMSG));
    }
}
