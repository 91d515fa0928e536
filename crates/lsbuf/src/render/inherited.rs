//! Who inherited an fd and from whom, in columns and in `lsbuf show`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::show::{process, ranges};
use super::{Cell, View};
use crate::model::{Buffer, Kind, OpenFiles, Pid};

/// From whom a process inherited fds of any of the buffers, and how many: `weston:12(20)`. Unknown
/// if that is unknown of one of its buffers.
pub(super) fn of_process(view: &View<'_>, index: usize) -> Cell {
    let snapshot = view.snapshot();
    let pid = snapshot.processes[index].pid;
    let mut from = BTreeMap::<Pid, u64>::new();
    for buffer in &snapshot.buffers {
        if buffer.holders.binary_search_by_key(&pid, |holder| holder.pid).is_err() || !can_inherit(buffer) {
            continue;
        }
        let Some(open) = &buffer.open_files else { return Cell::Text(None) };
        for (ancestor, fds) in open.inherited(pid) {
            *from.entry(ancestor).or_default() += fds;
        }
    }
    words(from.into_iter().map(|(ancestor, fds)| format!("{}({fds})", process(view, ancestor))).collect())
}

/// Which holders of a buffer inherited fds: `bash:13(20<12)` has inherited 20 from process 12.
pub(super) fn of_buffer(view: &View<'_>, index: usize) -> Cell {
    let buffer = view.buffer(index);
    match &buffer.open_files {
        _ if !can_inherit(&buffer) || buffer.holders.is_empty() => Cell::Words(None),
        None => Cell::Text(None),
        Some(open) => {
            let of_holder = |pid| {
                let heir = process(view, pid);
                let from = open.inherited(pid).into_iter();
                from.map(move |(ancestor, fds)| format!("{heir}({fds}<{ancestor})"))
            };
            words(buffer.holders.iter().flat_map(|holder| of_holder(holder.pid)).collect())
        }
    }
}

/// Whether processes have fds of it that a child can inherit.
fn can_inherit(buffer: &Buffer) -> bool {
    buffer.id.kind != Kind::Sysv
}

fn words(all: Vec<String>) -> Cell {
    Cell::Words((!all.is_empty()).then(|| all.join(",").into()))
}

/// The lines of `lsbuf show`: each open file that several processes have.
pub(super) fn open_files(out: &mut dyn Write, view: &View<'_>, buffer: &Buffer) -> io::Result<()> {
    let Some(OpenFiles { files }) = buffer.open_files.as_deref() else { return Ok(()) };
    for file in files {
        writeln!(out, "  one open file in {} processes", file.holders.len())?;
        for holder in &file.holders {
            let fds: Vec<String> = ranges(&holder.fds).collect();
            write!(out, "    {}  {}", process(view, holder.pid), fds.join(", "))?;
            if let Some(ancestor) = holder.inherited_from {
                write!(out, "  inherited from {ancestor} (shared open file)")?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::{
        BufferId, Coverage, Fd, FdList, Holder, Host, Inode, Kinds, Ledger, OpenFile, Process, Snapshot,
    };
    use crate::render::{Sizes, Style, View};

    /// A memfd that 12 has by fds 3 and 4, and 13 as well, whose command name is hostile.
    fn snapshot(known: bool) -> Snapshot {
        let mut buffer = Buffer::new(BufferId::new(Kind::Memfd, None, Inode(1)));
        let fds = || FdList::from(vec![Fd(3), Fd(4)]);
        buffer.holders = [12, 13].map(|pid| Holder { fds: fds(), ..Holder::new(Pid(pid)) }).into();
        let of_each = BTreeMap::from([(Pid(12), fds()), (Pid(13), fds())]);
        let files = vec![OpenFile::of(of_each, &BTreeMap::from([(Pid(13), Pid(12))]))];
        buffer.open_files = known.then(|| Box::new(OpenFiles { files }));
        let processes = [(12, "weston"), (13, "b\nsh")].map(|(pid, comm)| process_called(Pid(pid), comm));
        Snapshot {
            taken_at: SystemTime::UNIX_EPOCH,
            host: Host::default(),
            kinds: Kinds::ALL,
            coverage: Coverage::default(),
            buffers: vec![buffer],
            unheld: None,
            processes: processes.into(),
            devices: Vec::new(),
            mount_points: BTreeMap::new(),
        }
    }

    fn process_called(pid: Pid, comm: &str) -> Process {
        let comm = comm.into();
        Process { pid, start_time: 1, comm, uid: None, cgroup: None, sync_files: None, details: None }
    }

    fn shown(cell: Cell) -> String {
        cell.write(Style::Raw, Sizes::Bytes)
    }

    /// Check that an heir is shown with whom it inherited from, and that its name cannot forge a
    /// line.
    #[test]
    fn cells() {
        let snapshot = snapshot(true);
        let ledger = Ledger::of(&snapshot);
        let view = View::all(&ledger);
        assert_eq!(shown(of_buffer(&view, 0)), "b\\x0ash:13(2<12)");
        assert_eq!([0, 1].map(|row| shown(of_process(&view, row))), ["-", "weston:12(2)"]);
        let mut text = Vec::new();
        open_files(&mut text, &view, &snapshot.buffers[0]).unwrap();
        let expected = "  one open file in 2 processes\n    weston:12  fds 3-4 (2)\n    \
                        b\\x0ash:13  fds 3-4 (2)  inherited from 12 (shared open file)\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    /// Check that nothing is said where the open files are not known.
    #[test]
    fn unknown() {
        let snapshot = snapshot(false);
        let ledger = Ledger::of(&snapshot);
        let view = View::all(&ledger);
        assert_eq!((shown(of_buffer(&view, 0)), shown(of_process(&view, 1))), ("?".into(), "?".into()));
    }
}
