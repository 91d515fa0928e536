//! Which processes are in which mount and IPC namespaces, and which filesystems they see.
//!
//! A file of a tmpfs stays after its holder has exited if another process sees that tmpfs mounted.
//! A segment stays if another process is in its IPC namespace. Both are read from the links in
//! `/proc/P/ns` and from one mount table for each mount namespace and root.
//!
//! Limits: a namespace can also live without a process. That nobody was found in it proves nothing.

use std::collections::{HashMap, HashSet};

use super::MountView;
use super::mounts::Mounts;
use super::sysvipc::ipc_namespace;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::model::{Dev, IpcNamespace, Pid};

/// The namespaces of processes, as far as they were read.
#[derive(Debug)]
pub(crate) struct Members<'r> {
    root: &'r ProcRoot,
    /// Processes that have not been read yet. The next one is the last of these.
    unread: Vec<Pid>,
    /// Which table of `tables` shows what each process sees. `None`: that could not be read.
    views: HashMap<Pid, Option<usize>>,
    of_view: HashMap<MountView, usize>,
    tables: Vec<Table>,
    ipc: HashMap<IpcNamespace, Few>,
}

/// What the processes of one mount namespace and root see.
#[derive(Debug)]
struct Table {
    devices: HashSet<Dev>,
    members: Few,
}

/// The first two processes of several: one of them is another one than any given process.
#[derive(Debug, Default)]
struct Few([Option<Pid>; 2]);

impl Few {
    fn add(&mut self, pid: Pid) {
        if let Some(free) = self.0.iter_mut().find(|one| one.is_none()) {
            *free = Some(pid);
        }
    }

    fn has_other_than(&self, pid: Pid) -> bool {
        self.0.iter().flatten().any(|&one| one != pid)
    }
}

impl<'r> Members<'r> {
    /// Reads nothing yet. `own` are processes that do not count.
    pub(crate) fn of(root: &'r ProcRoot, own: &[Pid]) -> Members<'r> {
        let listed = root.processes().unwrap_or_default();
        let mut unread: Vec<Pid> = listed.into_iter().map(|(pid, _)| pid).rev().collect();
        unread.retain(|pid| !own.contains(pid));
        let (views, of_view, ipc) = (HashMap::new(), HashMap::new(), HashMap::new());
        Members { root, unread, views, of_view, tables: Vec::new(), ipc }
    }

    /// Whether another process than `pid` sees that filesystem mounted.
    pub(crate) fn shows(&mut self, dev: Dev, pid: Pid) -> bool {
        self.find(|members| {
            let shows = |table: &Table| table.devices.contains(&dev) && table.members.has_other_than(pid);
            members.tables.iter().any(shows)
        })
    }

    /// Whether another process than `pid` is in that IPC namespace.
    pub(crate) fn has_other(&mut self, ipc: IpcNamespace, pid: Pid) -> bool {
        self.find(|members| members.ipc.get(&ipc).is_some_and(|few| few.has_other_than(pid)))
    }

    /// Whether a process sees that filesystem mounted. `None`: its mounts cannot be read.
    pub(crate) fn sees(&mut self, pid: Pid, dev: Dev) -> Option<bool> {
        self.read(pid);
        let table = (*self.views.get(&pid)?)?;
        Some(self.tables[table].devices.contains(&dev))
    }

    /// Reads one process after the other until it is so, or all are read.
    fn find(&mut self, is_so: impl Fn(&Members<'r>) -> bool) -> bool {
        loop {
            if is_so(self) {
                return true;
            }
            let Some(pid) = self.unread.pop() else { return false };
            self.read(pid);
        }
    }

    fn read(&mut self, pid: Pid) {
        if self.views.contains_key(&pid) {
            return;
        }
        let table = ProcessDir::open(self.root, pid).ok().and_then(|process| {
            if let Some(ipc) = ipc_namespace(process.dir(), "") {
                self.ipc.entry(ipc).or_default().add(pid);
            }
            let view = MountView::of(&process).ok()?;
            if let Some(&known) = self.of_view.get(&view) {
                return Some(known);
            }
            let mut text = Vec::new();
            process.dir().read_file(c"mountinfo", &mut text).ok()?;
            let devices = Mounts::parse(&text).devices().map(|(dev, _)| dev).collect();
            self.of_view.insert(view, self.tables.len());
            self.tables.push(Table { devices, members: Few::default() });
            Some(self.tables.len() - 1)
        });
        if let Some(table) = table {
            self.tables[table].members.add(pid);
        }
        self.views.insert(pid, table);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::kernel::identity::device_of;

    /// Check that this process sees the tmpfs of `/dev/shm` and no unknown one, and that it is no
    /// other process than itself.
    #[test]
    fn own() {
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let mut members = Members::of(&root, &[]);
        let shm = device_of(&rustix::fs::stat("/dev/shm").unwrap());
        let (own, unknown) = (Pid(std::process::id()), Dev { major: 0, minor: u32::MAX });
        assert_eq!((members.sees(own, shm), members.sees(own, unknown)), (Some(true), Some(false)));
        assert!(!members.shows(unknown, own));
        let mut few = Few::default();
        few.add(own);
        assert!(!few.has_other_than(own) && few.has_other_than(Pid(0)));
    }
}
