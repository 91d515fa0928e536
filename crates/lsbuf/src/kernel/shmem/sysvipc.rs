//! The kernel's table of System V segments, `/proc/sysvipc/shm` (`sysvipc_shm_proc_show` in
//! ipc/shm.c). It lists every segment of an IPC namespace, attached or not.
//!
//! The file shows the IPC namespace of the process that opens it. To read that of another one,
//! lsbuf starts a thread, which enters that namespace, reads the file and ends. That needs
//! CAP_SYS_ADMIN. A namespace is entered through a process in it, or through what keeps it
//! ([`kept_ipc`](super::kept_ipc)). Pids are those of the reader's pid namespace; a process outside
//! of it has pid 0.
//!
//! Limits: a recorded tree has the table of its own IPC namespace in `sysvipc/shm`, and no other.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::kept_ipc::NamespaceKeeper;
use crate::kernel::parse::{self, Malformed, number, number32};
use crate::kernel::path::Path;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::tree::Folder;
use crate::model::{Bytes, Inode, IpcNamespace, Pid, Segment, SegmentReach};

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

/// IPC namespaces, and how each can be entered.
#[derive(Debug, Default)]
pub(crate) struct Namespaces(HashMap<IpcNamespace, Entrances>);

/// How a namespace can be entered. Several ways are kept because some may have gone when it is
/// read.
#[derive(Debug, Default)]
struct Entrances {
    /// Tasks that were found in it, by ids below `/proc`.
    tasks: Vec<Pid>,
    /// What keeps it besides.
    keepers: Vec<NamespaceKeeper>,
}

/// What was read of one namespace: its table, and how it was reached.
pub(crate) type NamespaceTable = Result<(SegmentReach, Vec<SegmentRow>)>;

impl Namespaces {
    const FEW: usize = 8;

    /// Notes that a process is in a namespace.
    pub(crate) fn add(&mut self, namespace: IpcNamespace, pid: Pid) {
        let tasks = &mut self.0.entry(namespace).or_default().tasks;
        if tasks.len() < Namespaces::FEW {
            tasks.push(pid);
        }
    }

    /// Notes what keeps a namespace.
    pub(crate) fn keep(&mut self, namespace: IpcNamespace, keeper: NamespaceKeeper) {
        let keepers = &mut self.0.entry(namespace).or_default().keepers;
        if keepers.len() < Namespaces::FEW {
            keepers.push(keeper);
        }
    }

    /// What keeps a namespace, as far as it was noted.
    #[cfg(test)]
    pub(super) fn kept(&self, namespace: IpcNamespace) -> &[NamespaceKeeper] {
        self.0.get(&namespace).map_or(&[], |entrances| &entrances.keepers)
    }

    /// The table of each namespace, or why it cannot be read. A namespace that all noted processes
    /// have left, and nothing keeps any more, is missing.
    pub(crate) fn tables(&self, root: &ProcRoot) -> Vec<(IpcNamespace, NamespaceTable)> {
        let own = own(root);
        let read = |(&namespace, entrances): (&IpcNamespace, &Entrances)| {
            if Some(namespace) == own {
                return Some((namespace, rows(root.dir()).map(|rows| (SegmentReach::Own, rows))));
            }
            let of_task = |&pid: &Pid| {
                let file = through_task(root, namespace, pid)?;
                Ok((SegmentReach::Process(pid), rows_of(root, &file)?))
            };
            let of_keeper = |keeper: &NamespaceKeeper| {
                let (file, path) = keeper.open(root, namespace.0)?;
                Ok((SegmentReach::Path(path), rows_of(root, &file)?))
            };
            let keepers = entrances.keepers.iter().filter(|_| root.is_live());
            let tables = entrances.tasks.iter().map(of_task).chain(keepers.map(of_keeper));
            let mut refused = None;
            for table in tables {
                match table {
                    Ok(_) => return Some((namespace, table)),
                    Err(Errno::NOENT | Errno::SRCH | Errno::STALE) => {}
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
            refused.map(|error| (namespace, Err(error)))
        };
        self.0.iter().filter_map(read).collect()
    }
}

/// Opens another namespace through a process in it. `STALE`: the process has left it.
fn through_task(root: &ProcRoot, wanted: IpcNamespace, pid: Pid) -> Result<OwnedFd> {
    let process = ProcessDir::open(root, pid)?;
    if ipc_namespace(process.dir(), "").is_some_and(|now| now != wanted) {
        return Err(Errno::STALE);
    }
    process.dir().file(c"ns/ipc")
}

/// Reads the table of another namespace, by its file.
fn rows_of(root: &ProcRoot, namespace: &OwnedFd) -> Result<Vec<SegmentRow>> {
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
    namespace_of(process.link(Path::new(format_args!("{task}ns/ipc")).as_str(), &mut room).ok()?)
}

/// The namespace that a link or the root of a mount names: `ipc:[NUMBER]`.
pub(crate) fn namespace_of(link: &[u8]) -> Option<IpcNamespace> {
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
            reached: None,
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
            reached: None,
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
