//! What `/proc` says of the programs of a case: a second opinion that shares no code with lsbuf.
//!
//! A regular file on a tmpfs is shared memory: memfds, SysV segments and shared anonymous memory
//! are files of the kernel's own tmpfs. The programs run in a private folder, so no other process
//! has their buffers, and what one process alone has is freed by its exit.
//!
//! Limits: huge pages and dma-bufs are on other filesystems. What a message carries is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::statfs;

/// The magic number of tmpfs in `struct statfs`.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// The unit of `st_blocks`, whatever the size of pages.
const BLOCK: u64 = 512;

/// A file, by device and inode number.
type Object = (u64, u64);

/// What one process has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Has {
    fds: BTreeMap<Object, u64>,
    maps: BTreeMap<Object, u64>,
}

impl Has {
    fn objects(&self) -> BTreeSet<Object> {
        self.fds.keys().chain(self.maps.keys()).copied().collect()
    }
}

/// What the processes have, and how much memory each file has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plain {
    processes: BTreeMap<u32, Has>,
    allocated: BTreeMap<Object, u64>,
}

/// The figures that `lsbuf ps` prints, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) rss: u64,
    pub(super) uss: u64,
    pub(super) buffers: usize,
    pub(super) fds: u64,
    pub(super) maps: u64,
}

impl Plain {
    /// Reads the fds and mappings of all descendants of this process. `wanted` chooses files by
    /// the path that the kernel prints.
    pub(super) fn read(wanted: fn(&str) -> bool) -> anyhow::Result<Self> {
        let mut plain = Self::default();
        for pid in descendants()? {
            let mut has = Has::default();
            for (folder, count) in [("fd", &mut has.fds), ("map_files", &mut has.maps)] {
                // A process that has ended has no such folder.
                let Ok(links) = fs::read_dir(format!("/proc/{pid}/{folder}")) else { continue };
                for link in links.flatten().map(|link| link.path()) {
                    if let Some((object, bytes)) = shared(&link, wanted) {
                        *count.entry(object).or_default() += 1;
                        plain.allocated.insert(object, bytes);
                    }
                }
            }
            if has != Has::default() {
                plain.processes.insert(pid, has);
            }
        }
        Ok(plain)
    }

    /// Whether that process has a memfd.
    pub(super) fn has_memfd(pid: u32) -> bool {
        Self::read(memfds).is_ok_and(|plain| plain.processes.contains_key(&pid))
    }

    /// The processes that have something.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.processes.keys().copied().collect()
    }

    /// The figures of each process.
    pub(super) fn figures(&self) -> BTreeMap<u32, Figures> {
        let holders = self.holders();
        let figures = |has: &Has| {
            let objects = has.objects();
            let memory = |object: &Object| self.allocated.get(object).copied().unwrap_or(0);
            let alone = |object: &&Object| holders.get(object).is_some_and(|pids| pids.len() == 1);
            Figures {
                rss: objects.iter().map(memory).sum(),
                uss: objects.iter().filter(alone).map(memory).sum(),
                buffers: objects.len(),
                fds: has.fds.values().sum(),
                maps: has.maps.values().sum(),
            }
        };
        self.processes.iter().map(|(pid, has)| (*pid, figures(has))).collect()
    }

    /// The processes that have each file.
    fn holders(&self) -> BTreeMap<Object, Vec<u32>> {
        let mut holders: BTreeMap<Object, Vec<u32>> = BTreeMap::new();
        for (pid, has) in &self.processes {
            for object in has.objects() {
                holders.entry(object).or_default().push(*pid);
            }
        }
        holders
    }

    /// The processes that have each file, by its inode number.
    pub(super) fn holders_by_inode(&self) -> BTreeMap<u64, Vec<u32>> {
        self.holders().into_iter().map(|((_, ino), pids)| (ino, pids)).collect()
    }

    /// Whether both processes have an fd of one file.
    pub(super) fn share_an_fd(&self, one: u32, other: u32) -> bool {
        let both = self.processes.get(&one).zip(self.processes.get(&other));
        both.is_some_and(|(one, other)| one.fds.keys().any(|object| other.fds.contains_key(object)))
    }
}

/// Calls `ask` between two readings, again until both are the same.
pub(super) fn undisturbed<T>(
    wanted: fn(&str) -> bool,
    ask: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<(Plain, T)> {
    const ATTEMPTS: u32 = 40;
    let mut before = Plain::read(wanted)?;
    for _ in 0..ATTEMPTS {
        let answer = ask()?;
        let after = Plain::read(wanted)?;
        if before == after {
            return Ok((after, answer));
        }
        before = after;
        sleep(Duration::from_millis(250));
    }
    bail!("what the programs hold changed each time that lsbuf was asked")
}

/// The file behind a link of `/proc` and the bytes that it has, if it is a wanted file of a tmpfs.
fn shared(link: &Path, wanted: fn(&str) -> bool) -> Option<(Object, u64)> {
    let path = fs::read_link(link).ok()?;
    let is_wanted = path.to_str().is_some_and(wanted);
    // No other filesystem is asked: it may be one that never answers.
    if !is_wanted {
        return None;
    }
    let data = fs::metadata(link).ok().filter(fs::Metadata::is_file)?;
    let on_tmpfs = statfs(link).ok()?.f_type == TMPFS_MAGIC;
    on_tmpfs.then(|| ((data.dev(), data.ino()), data.blocks() * BLOCK))
}

/// Whether the path is one that the kernel prints for shared memory.
pub(super) fn any_shared(path: &str) -> bool {
    ["/memfd:", "/dev/shm/", "/SYSV", "/dev/zero"].iter().any(|beginning| path.starts_with(beginning))
}

/// Whether the path is one that the kernel prints for a memfd.
pub(super) fn memfds(path: &str) -> bool {
    path.starts_with("/memfd:")
}

/// The parent of every process.
pub(super) fn parents() -> anyhow::Result<BTreeMap<u32, u32>> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent(&String::from_utf8_lossy(&stat)) {
            parents.insert(pid, parent);
        }
    }
    Ok(parents)
}

/// The parent in a line of `/proc/P/stat`. The command before it may have any character.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The processes that this one started, and what they started.
pub(super) fn descendants() -> anyhow::Result<BTreeSet<u32>> {
    let parents = parents()?;
    let own = std::process::id();
    let mut found = BTreeSet::new();
    loop {
        let is_new = |(pid, parent): &(&u32, &u32)| {
            (**parent == own || found.contains(*parent)) && !found.contains(*pid)
        };
        let more: Vec<u32> = parents.iter().filter(is_new).map(|(pid, _)| *pid).collect();
        if more.is_empty() {
            return Ok(found);
        }
        found.extend(more);
    }
}

/// The command name of a process.
fn comm(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned()
}

/// The process as lsbuf prints it: `COMMAND:PID`.
pub(super) fn named(pid: u32) -> String {
    format!("{}:{pid}", comm(pid))
}

/// The command line of a process, with blanks between its words.
pub(super) fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the parent is found behind a command with brackets and blanks.
    #[test]
    fn parent_of_a_hostile_command() {
        assert_eq!(parent("7 (a) S 1 (b) S 42 7 7 0"), Some(42));
        assert_eq!(parent(""), None);
    }

    /// Check that memory of one holder counts as RSS and USS, of two as RSS of both, and that a
    /// file counts once however often it is mapped.
    #[test]
    fn figures_of_a_shared_file() {
        let (own, both) = ((1, 10), (1, 11));
        let one = Has { fds: [(own, 1)].into(), maps: [(own, 3), (both, 1)].into() };
        let other = Has { fds: [(both, 2)].into(), maps: BTreeMap::new() };
        let plain =
            Plain { processes: [(5, one), (6, other)].into(), allocated: [(own, 4096), (both, 512)].into() };
        let figures = plain.figures();
        let expected = Figures { rss: 4608, uss: 4096, buffers: 2, fds: 1, maps: 4 };
        assert_eq!(figures.get(&5), Some(&expected));
        let expected = Figures { rss: 512, uss: 0, buffers: 1, fds: 2, maps: 0 };
        assert_eq!(figures.get(&6), Some(&expected));
        assert!(!plain.share_an_fd(5, 6));
    }
}
