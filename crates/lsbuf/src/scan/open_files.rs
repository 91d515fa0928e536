//! Adds to buffers which of their holders have the same open file, and which of them inherited it
//! ([`OpenFiles`]). Read only if it was asked for, by kcmp(2) whichever source found the holders.
//!
//! A pid of a holder is believed only if the process with it now started when the holder did, and
//! an fd only if it is one of the buffer after it was compared.
//!
//! Limits: those of [`open_files`]. System V segments have no fds that processes inherit.

use std::collections::BTreeMap;

use rustix::process::{Resource, getrlimit};

use crate::kernel::open_files::{self, Slot};
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::kernel::task;
use crate::model::{Buffer, FdList, Holder, Kind, OpenFile, OpenFiles, Pid, Process};

/// Adds them to these buffers. `processes` has the holders.
pub(super) fn add<'b>(root: &ProcRoot, processes: &[Process], buffers: impl Iterator<Item = &'b mut Buffer>) {
    if !root.has_own_pids() {
        return;
    }
    let mut parents = Parents { root, known: BTreeMap::new() };
    // Half of the files that this process may open, which leaves enough for everything else.
    let most = getrlimit(Resource::Nofile).current.map_or(Folders::MOST, |limit| limit / 2);
    let most = usize::try_from(most.min(Folders::MOST)).unwrap_or(1).max(1);
    let mut folders = Folders { root, processes, most, known: BTreeMap::new() };
    for buffer in buffers.filter(|buffer| buffer.id.kind != Kind::Sysv) {
        buffer.open_files = of_buffer(buffer, &mut folders, &mut parents).map(Box::new);
    }
}

/// The open files of a buffer that several processes have. `None`: unknown.
fn of_buffer(buffer: &Buffer, folders: &mut Folders<'_>, parents: &mut Parents<'_>) -> Option<OpenFiles> {
    // Processes that share a table are not told apart by its fds.
    let has_own = |holder: &&Holder| holder.fd_table_of.is_none() && holder.slots() > (0, 0);
    if buffer.holders.iter().filter(has_own).nth(1).is_none() {
        return Some(OpenFiles::default());
    }
    let slots: Vec<Slot> = buffer
        .holders
        .iter()
        .filter(has_own)
        .flat_map(|holder| holder.fds.iter().chain(&holder.opaths).map(|&fd| (holder.pid, fd)))
        .collect();
    let mut files = Vec::new();
    for file in open_files::shared(&slots)? {
        let mut of_each: BTreeMap<Pid, Vec<_>> = BTreeMap::new();
        for (pid, fd) in file {
            if folders.of(pid).is_some_and(|folder| open_files::is_of(folder, fd, buffer.id)) {
                of_each.entry(pid).or_default().push(fd);
            }
        }
        if of_each.len() < 2 {
            continue;
        }
        of_each.keys().for_each(|&pid| parents.read(pid));
        let fds = of_each.into_iter().map(|(pid, mut fds)| {
            fds.sort_unstable();
            (pid, FdList::from(fds))
        });
        files.push(OpenFile::of(fds.collect(), &parents.known));
    }
    files.sort_by_key(|file| file.holders.first().map(|first| (first.pid, first.fds.first().copied())));
    Some(OpenFiles { files })
}

/// The folders of holders. One that is open stays that of its process, so it serves for all
/// buffers.
struct Folders<'r> {
    root: &'r ProcRoot,
    processes: &'r [Process],
    /// How many may be open at once.
    most: usize,
    known: BTreeMap<Pid, Option<ProcessDir>>,
}

impl Folders<'_> {
    /// How many are open at once, whatever the limit of this process is.
    const MOST: u64 = 2048;

    /// The folder of a holder, if its pid has not become another process's.
    fn of(&mut self, pid: Pid) -> Option<&ProcessDir> {
        if self.known.len() >= self.most && !self.known.contains_key(&pid) {
            self.known.clear();
        }
        let (root, processes) = (self.root, self.processes);
        self.known.entry(pid).or_insert_with(|| same_process(root, processes, pid)).as_ref()
    }
}

fn same_process(root: &ProcRoot, processes: &[Process], pid: Pid) -> Option<ProcessDir> {
    let at = processes.binary_search_by_key(&pid, |process| process.pid).ok()?;
    let folder = ProcessDir::open(root, pid).ok()?;
    let mut text = Vec::new();
    folder.dir().read_record(c"stat", &mut text).ok()?;
    (task::stat(&text).ok()?.1 == processes[at].start_time).then_some(folder)
}

/// The parents of processes and of their ancestors.
struct Parents<'r> {
    root: &'r ProcRoot,
    known: BTreeMap<Pid, Pid>,
}

impl Parents<'_> {
    /// Reads the parent of a process, and so on upwards, as far as they are not known yet.
    fn read(&mut self, pid: Pid) {
        let mut at = pid;
        let mut text = Vec::new();
        while !self.known.contains_key(&at) {
            let folder = ProcessDir::open(self.root, at).ok();
            let read = folder.and_then(|folder| folder.dir().read_record(c"stat", &mut text).ok());
            let Some(parent) = read.and_then(|()| task::parent(&text).ok().flatten()) else { return };
            self.known.insert(at, Pid(parent));
            at = Pid(parent);
        }
    }
}
