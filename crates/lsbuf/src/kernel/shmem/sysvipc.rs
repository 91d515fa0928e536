//! The kernel's table of System V segments, `/proc/sysvipc/shm` (`sysvipc_shm_proc_show` in
//! ipc/shm.c). It lists every segment of an IPC namespace, attached or not.
//!
//! The file shows the IPC namespace of the process that opens it. To read that of another one,
//! lsbuf starts a thread, which enters that namespace, reads the file and ends. That needs
//! CAP_SYS_ADMIN. Pids are those of the reader's pid namespace; a process outside of it has pid 0.
//!
//! Limits: a recorded tree has the table of its own IPC namespace in `sysvipc/shm`, and no other.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::io::{Errno, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::kernel::parse::{self, Malformed, number, number32};
use crate::kernel::path::Path;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::tree::Folder;
use crate::model::{Bytes, Inode, IpcNamespace, Pid, Segment};

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRow {
    /// The segment's id. It is also the number of its inode (`newseg`).
    pub(crate) ino: Inode,
    pub(crate) size: Bytes,
    /// The user who created it.
    pub(crate) creator_uid: u32,
    pub(crate) segment: Box<Segment>,
}

/// IPC namespaces, each with a few tasks that were found in it, by ids below `/proc`. Several are
/// kept because some may have left the namespace when it is read.
#[derive(Debug, Default)]
pub(crate) struct Namespaces(HashMap<IpcNamespace, Vec<Pid>>);

impl Namespaces {
    const FEW: usize = 8;

    /// Notes that a process is in a namespace.
    pub(crate) fn add(&mut self, namespace: IpcNamespace, pid: Pid) {
        let pids = self.0.entry(namespace).or_default();
        if pids.len() < Namespaces::FEW {
            pids.push(pid);
        }
    }

    /// The table of each namespace, or why it cannot be read. A namespace that all noted processes
    /// have left is missing.
    pub(crate) fn tables(&self, root: &ProcRoot) -> Vec<(IpcNamespace, Result<Vec<SegmentRow>>)> {
        let own = own(root);
        let read = |(&namespace, pids): (&IpcNamespace, &Vec<Pid>)| {
            if Some(namespace) == own {
                return Some((namespace, rows(root.dir())));
            }
            let tables = pids.iter().map(|&pid| read(root, namespace, pid));
            let there = |table: &Result<_>| !matches!(table, Err(Errno::NOENT | Errno::SRCH | Errno::STALE));
            tables.into_iter().find(there).map(|table| (namespace, table))
        };
        self.0.iter().filter_map(read).collect()
    }
}

/// Reads the table of another namespace through a process in it. `STALE`: the process has left it.
fn read(root: &ProcRoot, wanted: IpcNamespace, pid: Pid) -> Result<Vec<SegmentRow>> {
    let process = ProcessDir::open(root, pid)?;
    if ipc_namespace(process.dir(), "").is_some_and(|now| now != wanted) {
        return Err(Errno::STALE);
    }
    let namespace = process.dir().file(c"ns/ipc")?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::InterProcessCommunication))?;
            rows(root.dir())
        });
        reading.join().unwrap_or(Err(Errno::CANCELED))
    })
}

/// The IPC namespace of lsbuf itself.
fn own(root: &ProcRoot) -> Option<IpcNamespace> {
    ipc_namespace(ProcessDir::open(root, Pid(std::process::id())).ok()?.dir(), "")
}

/// The IPC namespace of a process, or of one of its tasks with a folder below the process's.
pub(crate) fn ipc_namespace(process: &Folder, task: &str) -> Option<IpcNamespace> {
    let mut room = [MaybeUninit::uninit(); 64];
    let link = process.link(Path::new(format_args!("{task}ns/ipc")).as_str(), &mut room).ok()?;
    let number = link.strip_prefix(b"ipc:[")?.strip_suffix(b"]")?;
    parse::number(number, 10).ok().map(|ino| IpcNamespace(Inode(ino)))
}

/// The table of the reader's own namespace, or that of a recorded tree.
pub(crate) fn rows(root: &Folder) -> Result<Vec<SegmentRow>> {
    let mut text = Vec::new();
    match root.read_file(c"sysvipc/shm", &mut text) {
        Ok(()) => parse(&text).map_err(|Malformed| Errno::BADMSG),
        // The kernel has no System V IPC, or the tree was recorded without it.
        Err(Errno::NOENT) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Parses the table with its heading.
pub(crate) fn parse(text: &[u8]) -> std::result::Result<Vec<SegmentRow>, Malformed> {
    let lines = text.split(|&b| b == b'\n').skip(1).filter(|line| !line.is_empty());
    lines.map(row).collect()
}

fn row(line: &[u8]) -> std::result::Result<SegmentRow, Malformed> {
    /// `SHM_DEST` of include/uapi/linux/shm.h.
    const REMOVED: u64 = 0o1000;
    let words: Vec<&[u8]> = line.split(|&b| b == b' ').filter(|word| !word.is_empty()).collect();
    let word = |nth: usize| words.get(nth).copied().ok_or(Malformed);
    let key = std::str::from_utf8(word(0)?).ok().and_then(|key| key.parse::<i32>().ok()).ok_or(Malformed)?;
    let pid = |nth| Ok(Some(number32(word(nth)?, 10)?).filter(|&pid| pid != 0).map(Pid));
    Ok(SegmentRow {
        ino: Inode(number(word(1)?, 10)?),
        size: Bytes(number(word(3)?, 10)?),
        creator_uid: number32(word(9)?, 10)?,
        segment: Box::new(Segment {
            key: key.cast_unsigned(),
            removed: number(word(2)?, 8)? & REMOVED != 0,
            creator: pid(4)?,
            creator_comm: None,
            last: pid(5)?,
            last_comm: None,
            attached: number(word(6)?, 10)?,
            owner: number32(word(7)?, 10)?,
            rss: Bytes(number(word(14)?, 10)?),
            swap: Bytes(number(word(15)?, 10)?),
            changed: number(word(13)?, 10)?,
            used: number(word(11)?, 10)?.max(number(word(12)?, 10)?),
        }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADING: &str = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n";

    /// Check that each column is read into its field: a key with its sign bit set, a process that
    /// is gone, and the mark of removal.
    #[test]
    fn a_row() {
        let line = "-559038737          3  1600              1048576    71     0      2  1000  1000     0     0 1763000000          0 1763000000                 8192                 4096\n";
        let rows = parse(format!("{HEADING}{line}").as_bytes()).unwrap();
        let expected = Segment {
            key: 0xdead_beef,
            owner: 1000,
            creator: Some(Pid(71)),
            creator_comm: None,
            last: None,
            last_comm: None,
            attached: 2,
            removed: true,
            rss: Bytes(8192),
            swap: Bytes(4096),
            changed: 1_763_000_000,
            used: 1_763_000_000,
        };
        let segment = Box::new(expected);
        assert_eq!(rows, [SegmentRow { ino: Inode(3), size: Bytes(1 << 20), creator_uid: 0, segment }]);
    }

    /// Check that a table without segments is read, and an incomplete row is refused.
    #[test]
    fn no_row() {
        assert_eq!(parse(HEADING.as_bytes()), Ok(Vec::new()));
        assert_eq!(parse(format!("{HEADING} 1 2 600\n").as_bytes()), Err(Malformed));
    }

    proptest! {
        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&text);
        }
    }
}
