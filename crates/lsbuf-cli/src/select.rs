//! Filters and order: which buffers and processes of a snapshot are shown.
//!
//! Filters choose rows. The figures in a row and the totals are always of the whole machine.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::GlobMatcher;
use lsbuf::escape::unescape;
use lsbuf::model::{Buffer, Label, Pid};
use lsbuf::render::{Column, View};

use crate::args::FilterArgs;

/// Whether a buffer passes all filters.
pub(crate) fn passes(filter: &FilterArgs, buffer: &Buffer) -> bool {
    let exporter = buffer.exporter.as_ref();
    (filter.pids.is_empty() || buffer.holders.iter().any(|h| filter.pids.contains(&h.pid)))
        && is_made_by(&filter.exporters, exporter)
        && is_named(filter.name.as_ref(), buffer.name.as_ref())
        && filter.min_size.is_none_or(|min| buffer.size.is_some_and(|size| size >= min))
        && (!filter.unheld || buffer.is_unheld())
        && (!filter.deleted || buffer.deleted == Some(true))
}

/// Whether a name fits a pattern, if there is one.
pub(crate) fn is_named(glob: Option<&GlobMatcher>, name: Option<&Label>) -> bool {
    glob.is_none_or(|glob| name.is_some_and(|name| glob.is_match(OsStr::from_bytes(name.as_bytes()))))
}

/// Whether an exporter is one of those, as it is or as lsbuf prints it. No list has all of them.
pub(crate) fn is_made_by(wanted: &[String], exporter: Option<&Label>) -> bool {
    let is = |one: &Label, wanted: &String| {
        one.as_bytes() == wanted.as_bytes() || unescape(wanted).is_some_and(|bytes| one.as_bytes() == bytes)
    };
    wanted.is_empty() || exporter.is_some_and(|one| wanted.iter().any(|wanted| is(one, wanted)))
}

/// Keeps the buffers that pass, and the processes that hold one of them. A process that has only
/// sync_files stays unless a filter is about the buffers themselves.
pub(crate) fn filter(view: &mut View<'_>, filter: &FilterArgs) {
    let FilterArgs { pids, exporters, name, min_size, unheld, deleted } = filter;
    let chosen = !exporters.is_empty() || name.is_some() || min_size.is_some() || *unheld || *deleted;
    if pids.is_empty() && !chosen {
        return;
    }
    let snapshot = view.snapshot();
    // Most often there is no other filter, and there may be a million such files.
    let only_unheld =
        pids.is_empty() && exporters.is_empty() && name.is_none() && min_size.is_none() && !*deleted;
    let mut buffers = std::mem::take(&mut view.buffers);
    buffers.retain(|&i| only_unheld && i >= snapshot.buffers.len() || passes(filter, &view.buffer(i)));
    view.buffers = buffers;
    let holders = holders(view);
    view.processes.retain(|&i| {
        let process = &snapshot.processes[i];
        holders.contains(&process.pid) || !chosen && process.sync_files > Some(0)
    });
}

/// The view's processes that `--pid` names, or all.
pub(crate) fn asked(view: &View<'_>, filter: &FilterArgs) -> Vec<usize> {
    let wanted =
        |&i: &usize| filter.pids.is_empty() || filter.pids.contains(&view.snapshot().processes[i].pid);
    view.processes.iter().copied().filter(wanted).collect()
}

/// Orders processes or groups by a column; equal ones keep their order.
pub(crate) fn sort_others(rows: &mut [usize], view: &View<'_>, by: &Column) {
    rows.sort_by_cached_key(|&row| Key(by.cell(view, row)));
}

/// Orders rows of buffers by a column; equal ones keep the snapshot's order.
pub(crate) fn sort(rows: &mut Vec<usize>, view: &View<'_>, by: &Column) {
    let found = view.snapshot().buffers.len();
    let mut unheld = rows.split_off(rows.partition_point(|&row| row < found));
    let key = |&row: &usize| Key(by.cell(view, row));
    rows.sort_by_cached_key(key);
    // There may be a million of these, and their list is in this order.
    if by.name != "COST" {
        unheld.sort_by_cached_key(key);
    }
    if rows.is_empty() {
        *rows = unheld;
        return;
    }
    let mut rest = &unheld[..];
    for row in std::mem::take(rows) {
        let key_of_row = key(&row);
        let (before, behind) = rest.split_at(rest.partition_point(|row| key(row) < key_of_row));
        rows.extend_from_slice(before);
        rows.push(row);
        rest = behind;
    }
    rows.extend_from_slice(rest);
}

#[derive(PartialEq, Eq)]
struct Key(lsbuf::render::Cell);

impl Ord for Key {
    fn cmp(&self, other: &Key) -> std::cmp::Ordering {
        self.0.order(&other.0)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
/// Leaves only the processes that hold one of the buffers of the view.
pub(crate) fn only_holders(view: &mut View<'_>) {
    let holders = holders(view);
    let snapshot = view.snapshot();
    view.processes.retain(|&nth| holders.contains(&snapshot.processes[nth].pid));
}

/// The processes that hold one of the buffers of the view.
fn holders(view: &View<'_>) -> HashSet<Pid> {
    let shown = view.buffers.iter().filter_map(|&index| view.snapshot().buffers.get(index));
    shown.flat_map(|buffer| &buffer.holders).map(|holder| holder.pid).collect()
}
