//! The lines below a table: the totals of the whole machine, and how many buffers the table shows.
//! In place of an empty table: one line that says what was read.

use super::{Cell, Sizes, Style, View};
use crate::model::{Bytes, Kind, KindTotals, Kinds, Part, UnheldList, counted};

/// The totals of the machine: a line for dma-bufs and one for shmem.
#[must_use]
pub fn summary(view: &View<'_>, sizes: Sizes) -> String {
    let totals = &view.ledger.totals;
    let snapshot = view.snapshot();
    let rows = || view.buffers.iter().filter(|&&i| i < snapshot.buffers.len());
    let shown = match rows().count() as u64 {
        all if all == totals.buffers => String::new(),
        some => {
            let costs = || rows().map(|&i| snapshot.buffers[i].cost());
            let cost = total(Bytes::total(costs()), Bytes::at_least(costs()), sizes);
            format!("{} shown, {cost}; the machine: ", counted(some, "buffer", "buffers"))
        }
    };
    let any = |kinds: Kinds| view.ledger.kinds.iter().any(|totals| kinds.has(totals.kind));
    let mut lines = Vec::new();
    // A line that says "0 dma-bufs" is only useful if nothing else was looked for.
    if any(Kinds::DMABUF) || !view.snapshot().kinds.has_shmem() {
        lines.push(dmabufs(view, sizes));
    }
    if any(Kinds::SHMEM) {
        lines.push(shmem(view, sizes));
    }
    if totals.same_memory > Bytes(0) {
        let (same, all) = (totals.same_memory, total(totals.size, totals.at_least, sizes));
        lines.push(format!("{} of both is the same memory: {all} together", size(Some(same), sizes)));
    }
    let unheld = snapshot.unheld.as_ref().map(|files| unheld(files, sizes)).unwrap_or_default();
    format!("{unheld}{shown}{}", lines.join("\n"))
}

/// The line of the files that nobody holds, which are in no other line.
fn unheld(files: &UnheldList, sizes: Sizes) -> String {
    let many = counted(files.len() as u64, "file", "files");
    let seems = if files.is_proven() { "nobody holds" } else { "nobody seems to hold" };
    format!("{many} that {seems}, {} charged\n", size(Some(files.charged()), sizes))
}

/// A sum as far as it is known.
pub(super) fn total(sum: Option<Bytes>, at_least: Bytes, sizes: Sizes) -> String {
    match sum {
        None if at_least > Bytes(0) => format!("at least {}", size(Some(at_least), sizes)),
        _ => size(sum, sizes),
    }
}

pub(super) fn size(size: Option<Bytes>, sizes: Sizes) -> String {
    Cell::Size(size).write(Style::Table, sizes)
}

fn dmabufs(view: &View<'_>, sizes: Sizes) -> String {
    let part = Part::of(view.ledger, Kinds::DMABUF);
    let exporters = view.ledger.exporters.iter().map(|e| {
        let name = Cell::Text(e.exporter.clone()).write(Style::Table, sizes);
        format!("{name} {} in {}", size(e.size, sizes), e.buffers)
    });
    let refs = if part.estimate { Cell::Estimate(part.kernel_refs) } else { Cell::Number(part.kernel_refs) };
    format!(
        "{}, {} exported{}: {} held by {}, {} by none; {} kernel {}",
        counted(part.buffers, "dma-buf", "dma-bufs"),
        total(part.size, part.size_at_least, sizes),
        in_brackets(exporters),
        size(part.held, sizes),
        counted(part.holders, "process", "processes"),
        size(part.kernel_only, sizes),
        refs.write(Style::Table, sizes),
        if part.kernel_refs == Some(1) { "reference" } else { "references" },
    )
}

fn shmem(view: &View<'_>, sizes: Sizes) -> String {
    let part = Part::of(view.ledger, Kinds::SHMEM);
    let mut kinds: Vec<&KindTotals> = view.ledger.kinds.iter().filter(|k| k.kind != Kind::DmaBuf).collect();
    kinds.sort_by_key(|k| std::cmp::Reverse(k.cost()));
    let kinds =
        kinds.iter().map(|k| format!("{} {} in {}", k.kind, total(k.cost(), k.at_least, sizes), k.buffers));
    let unseen = match part.held_unseen {
        Some(Bytes(0)) => String::new(),
        unseen => format!(", {} by processes that could not be read", size(unseen, sizes)),
    };
    format!(
        "{} of shared memory, {} charged of {} in size{}: {} held by {}{unseen}, {} by none",
        counted(part.buffers, "buffer", "buffers"),
        total(part.cost, part.at_least, sizes),
        total(part.size, part.size_at_least, sizes),
        in_brackets(kinds),
        size(part.held, sizes),
        counted(part.holders, "process", "processes"),
        size(part.kernel_only, sizes),
    )
}

/// Parts of a sum, in brackets; an empty text if there are none.
fn in_brackets(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// One line in place of an empty table: what was read, and whether anything is missing.
#[must_use]
pub fn nothing(view: &View<'_>) -> String {
    let snapshot = view.snapshot();
    let coverage = &snapshot.coverage;
    let sources: Vec<&str> = coverage.sources.iter().map(|s| s.as_str()).collect();
    let what = if snapshot.kinds.has_shmem() { "buffer" } else { "dma-buf" };
    let found = match snapshot.buffers.len() {
        0 => format!("no {what} found"),
        // An empty list of processes.
        1 if !view.buffers.is_empty() => format!("no process that could be read holds the only {what}"),
        n if !view.buffers.is_empty() => {
            format!("no process that could be read holds one of the {n} {what}s")
        }
        1 => format!("the only {what} does not match"),
        n => format!("none of {n} {what}s matches"),
    };
    let notes: Vec<String> = coverage.notes.iter().map(|n| format!("; {n}")).collect();
    let partial = if coverage.is_complete() { "" } else { "; this answer is partial" };
    format!(
        "{found}; looked at {} of {}, by {}{partial}{}",
        coverage.processes.read,
        counted(coverage.processes.total, "process", "processes"),
        sources.join(", "),
        notes.concat()
    )
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::{Buffer, BufferId, Coverage, Holder, Host, Inode, Ledger, Pid, Residual, Snapshot};

    /// A view of buffers which are held by process 1 and charged in full.
    fn with_view<T>(buffers: &[(Kind, Option<u64>)], ask: impl FnOnce(&mut View<'_>) -> T) -> T {
        let buffer = |(ino, &(kind, size)): (usize, &(Kind, Option<u64>))| Buffer {
            size: size.map(Bytes),
            charged: size.map(Bytes),
            count: Some(1),
            residual: Residual::Exact(0),
            holders: vec![Holder { fds: vec![crate::model::Fd(3)].into(), ..Holder::new(Pid(1)) }],
            ..Buffer::new(BufferId::new(kind, None, Inode(ino as u64)))
        };
        let snapshot = Snapshot {
            taken_at: SystemTime::UNIX_EPOCH,
            host: Host::default(),
            kinds: Kinds::ALL,
            coverage: Coverage::default(),
            buffers: buffers.iter().enumerate().map(buffer).collect(),
            unheld: None,
            processes: Vec::new(),
            devices: Vec::new(),
            mount_points: std::collections::BTreeMap::new(),
        };
        let ledger = Ledger::of(&snapshot);
        ask(&mut View::all(&ledger))
    }

    /// Check that three memfds of 2^63 - 1 bytes are at least 2^64 - 1, and what is held of them is
    /// unknown.
    #[test]
    fn beyond_64_bits() {
        let line = with_view(&[(Kind::Memfd, Some((1 << 63) - 1)); 3], |view| summary(view, Sizes::Bytes));
        assert_eq!(
            line,
            "3 buffers of shared memory, at least 18446744073709551615 charged of at least \
             18446744073709551615 in size \
             (memfd at least 18446744073709551615 in 3): ? held by 1 process, 0 by none"
        );
    }

    /// Check that a sum with an unknown part says what is known of it, and that a sum of unknown
    /// parts is unknown.
    #[test]
    fn a_size_that_is_unknown() {
        let line = |sizes: &[Option<u64>]| {
            let buffers: Vec<_> = sizes.iter().map(|&size| (Kind::DmaBuf, size)).collect();
            with_view(&buffers, |view| summary(view, Sizes::Bytes))
        };
        assert!(line(&[Some(8), None]).starts_with("2 dma-bufs, at least 8 exported (? ? in 2): ? held"));
        assert!(line(&[None]).starts_with("1 dma-buf, ? exported"));
    }

    /// Check that the line tells the rows that are shown from the whole machine.
    #[test]
    fn a_part_that_is_shown() {
        let line = with_view(&[(Kind::DmaBuf, Some(8)), (Kind::DmaBuf, Some(16))], |view| {
            view.buffers = vec![1];
            summary(view, Sizes::Bytes)
        });
        assert!(line.starts_with("1 buffer shown, 16; the machine: 2 dma-bufs, 24 exported"), "{line}");
    }

    /// Check that an empty list of buffers is told from an empty list of their holders.
    #[test]
    fn empty_lists() {
        let buffers = [(Kind::DmaBuf, Some(8)), (Kind::DmaBuf, Some(16))];
        let line = with_view(&buffers, |view| nothing(view));
        assert!(line.starts_with("no process that could be read holds one of the 2 buffers;"), "{line}");
        let line = with_view(&buffers, |view| {
            view.buffers.clear();
            nothing(view)
        });
        assert!(line.starts_with("none of 2 buffers matches;"), "{line}");
    }
}
