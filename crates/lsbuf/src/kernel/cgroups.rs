//! The cgroups of the unified hierarchy by their inode numbers, and whether removed ones are below
//! one.
//!
//! Limits: only the unified hierarchy (version 2), and only if it has the memory controller. In a
//! cgroup namespace the paths begin at the namespace's root.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use rustix::fs::statfs;
use rustix::io::{Errno, Result};

use super::parse::number;
use crate::model::Label;

/// `CGROUP2_SUPER_MAGIC` of include/uapi/linux/magic.h.
const MAGIC: u64 = 0x6367_7270;

/// The cgroups that exist.
#[derive(Debug)]
pub(crate) struct Cgroups {
    root: PathBuf,
    /// The path of each below the root, without a slash at its beginning.
    paths: HashMap<u64, PathBuf>,
}

impl Cgroups {
    /// Lists them. `sys` is the root of sysfs. `NODEV`: memory is not controlled there.
    pub(crate) fn list(sys: &Path) -> Result<Cgroups> {
        let root = sys.join("fs/cgroup");
        let controllers = || fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let is_unified = u64::try_from(statfs(&root)?.f_type) == Ok(MAGIC);
        if !is_unified || !controllers().split_whitespace().any(|one| one == "memory") {
            return Err(Errno::NODEV);
        }
        let mut paths = HashMap::from([(rustix::fs::stat(&root)?.st_ino, PathBuf::new())]);
        let mut left = vec![PathBuf::new()];
        while let Some(folder) = left.pop() {
            // It may have been removed meanwhile.
            let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let path = folder.join(entry.file_name());
                paths.insert(entry.ino(), path.clone());
                left.push(path);
            }
        }
        Ok(Cgroups { root, paths })
    }

    /// The path of a cgroup, beginning with a slash.
    pub(crate) fn path(&self, ino: u64) -> Option<Label> {
        let path = self.paths.get(&ino)?;
        Some(Label::from(&[b"/", path.as_os_str().as_bytes()].concat()[..]))
    }

    /// Whether no removed cgroup is below one.
    pub(crate) fn has_none_removed(&self, ino: u64) -> bool {
        let stat = |path: &PathBuf| fs::read(self.root.join(path).join("cgroup.stat")).ok();
        self.paths.get(&ino).and_then(stat).is_some_and(|text| says_none_dying(&text))
    }
}

/// Whether a text of `cgroup.stat` says so.
fn says_none_dying(text: &[u8]) -> bool {
    let mut lines = text.split(|&b| b == b'\n');
    let dying = lines.find_map(|line| line.strip_prefix(b"nr_dying_descendants "));
    dying.and_then(|digits| number(digits, 10).ok()) == Some(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that only a count of 0 says that no cgroup below was removed.
    #[test]
    fn dying() {
        assert!(says_none_dying(b"nr_descendants 4\nnr_dying_descendants 0\n"));
        assert!(!says_none_dying(b"nr_descendants 0\nnr_dying_descendants 10\n"));
        assert!(!says_none_dying(b"nr_descendants 0\n"));
    }

    proptest! {
        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            says_none_dying(&text);
        }
    }
}
