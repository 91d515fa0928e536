//! Open files of a buffer that several processes have: who inherited an fd, and from whom.
//!
//! A forked process gets the fds of its parent, and both then have the same open file: one
//! `struct file` in the kernel. A process that opens the buffer by itself has an open file of its
//! own. So where a process and one of its ancestors have the same open file, the process inherited
//! it.
//!
//! Limits: a process that sends a file to its child, in a message, gives it the same open file.
//! That looks like an inherited one. If an ancestor has exited, another process is the parent now,
//! and then nothing is known to be inherited.

use std::collections::BTreeMap;

use super::{FdList, Pid};

/// The open files that several of a buffer's holders have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenFiles {
    /// Ordered by the first holder and its first fd.
    pub files: Vec<OpenFile>,
}

/// One open file that several processes have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenFile {
    /// The processes, ordered by pid. Each has an fd table of its own.
    pub holders: Vec<OpenFileHolder>,
}

/// The fds by which a process has an open file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenFileHolder {
    /// The process.
    pub pid: Pid,
    /// Its fds of that open file, also those opened with `O_PATH`, in order.
    pub fds: FdList,
    /// The nearest of its ancestors that has the same open file. `None`: none has, as far as its
    /// ancestors are known.
    pub inherited_from: Option<Pid>,
}

impl OpenFile {
    /// An open file by the fds of each process, which has at least one. `parents` has the parent of
    /// each process as far as it is known.
    pub(crate) fn of(fds: BTreeMap<Pid, FdList>, parents: &BTreeMap<Pid, Pid>) -> OpenFile {
        let nearest = |pid: &Pid| {
            // Parents that were not read at one moment could name each other.
            let ancestors = std::iter::successors(parents.get(pid), |at| parents.get(at)).take(parents.len());
            ancestors.copied().find(|ancestor| ancestor != pid && fds.contains_key(ancestor))
        };
        let from: Vec<Option<Pid>> = fds.keys().map(nearest).collect();
        let holder = |((pid, fds), inherited_from)| OpenFileHolder { pid, fds, inherited_from };
        OpenFile { holders: fds.into_iter().zip(from).map(holder).collect() }
    }
}

impl OpenFiles {
    /// How many fds of these a process inherited, by the process from which.
    #[must_use]
    pub fn inherited(&self, pid: Pid) -> BTreeMap<Pid, u64> {
        let mut found = BTreeMap::new();
        for holder in self.files.iter().flat_map(|file| &file.holders).filter(|holder| holder.pid == pid) {
            if let Some(from) = holder.inherited_from {
                *found.entry(from).or_default() += holder.fds.len() as u64;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pids: &[u32], parents: &[(u32, u32)]) -> Vec<(u32, Option<u32>)> {
        let fds = pids.iter().map(|&pid| (Pid(pid), FdList::from(vec![super::super::Fd(3)]))).collect();
        let parents = parents.iter().map(|&(of, parent)| (Pid(of), Pid(parent))).collect();
        let found = OpenFile::of(fds, &parents).holders.into_iter();
        found.map(|holder| (holder.pid.0, holder.inherited_from.map(|pid| pid.0))).collect()
    }

    /// Check that an open file is inherited from the nearest ancestor that has it, and that nothing
    /// is said of processes that are not related or whose parents are not known.
    #[test]
    fn the_nearest_ancestor() {
        let parents = [(20, 10), (30, 20), (40, 35), (35, 20), (10, 1)];
        let expected = [(10, None), (20, Some(10)), (30, Some(20)), (40, Some(20)), (50, None)];
        assert_eq!(file(&[10, 20, 30, 40, 50], &parents), expected);
        assert_eq!(file(&[20, 30], &[]), [(20, None), (30, None)]);
    }

    /// Check that parents that name each other end the search.
    #[test]
    fn circles() {
        assert_eq!(file(&[2, 9], &[(2, 3), (3, 2)]), [(2, None), (9, None)]);
    }

    /// Check that inherited fds are added up by the process from which they are.
    #[test]
    fn sums() {
        let file = |fds: &[u32], from| OpenFile {
            holders: vec![OpenFileHolder {
                pid: Pid(7),
                fds: fds.iter().map(|&fd| super::super::Fd(fd)).collect(),
                inherited_from: from,
            }],
        };
        let files = OpenFiles {
            files: vec![file(&[3, 4], Some(Pid(1))), file(&[5], Some(Pid(1))), file(&[6], None)],
        };
        assert_eq!(files.inherited(Pid(7)), BTreeMap::from([(Pid(1), 3)]));
        assert_eq!(files.inherited(Pid(8)), BTreeMap::new());
    }
}
