//! The filter that is typed: a text that the name or the kind of a buffer has in it, or the command
//! of a process. Upper and lower case are the same.
//!
//! It compares what is shown, so names are compared as they are escaped.

use std::collections::HashSet;

use lsbuf::escape::escape;
use lsbuf::model::{Buffer, Label, Pid};
use lsbuf::render::View;

/// Keeps the buffers that match or that a process holds whose command matches, and the processes
/// that match or hold a buffer that matches.
pub(crate) fn narrow(view: &mut View<'_>, needle: &str) {
    if needle.is_empty() {
        return;
    }
    let needle = needle.to_lowercase();
    let has = |label: &Label| escape(label.as_bytes()).to_lowercase().contains(&needle);
    let snapshot = view.snapshot();
    let matching =
        |buffer: &Buffer| buffer.id.kind.as_str().contains(&needle) || buffer.name.as_ref().is_some_and(has);
    let commands: HashSet<Pid> =
        snapshot.processes.iter().filter(|process| has(&process.comm)).map(|process| process.pid).collect();
    let mut holders = HashSet::new();
    let mut buffers = std::mem::take(&mut view.buffers);
    buffers.retain(|&row| {
        let buffer = view.buffer(row);
        let found = matching(&buffer);
        if found {
            holders.extend(buffer.holders.iter().map(|holder| holder.pid));
        }
        found || buffer.holders.iter().any(|holder| commands.contains(&holder.pid))
    });
    view.buffers = buffers;
    view.processes.retain(|&row| {
        let pid = snapshot.processes[row].pid;
        commands.contains(&pid) || holders.contains(&pid)
    });
}
