//! `lsbuf sum`: the columns of groups, the line below them that says how they add up, and JSON of
//! the schema `lsbuf.sum/1` (`docs/lsbuf.sum-1.schema.json`).

use std::io::{self, Write};

use serde::Serialize;

use super::details::short_id;
use super::layout::{self, JsonLayout};
use super::summary::{size, total};
use super::{Cell, Column, Sizes, View};
use crate::model::serialize::{Rows, Time, lost_bytes, timestamp};
use crate::model::{
    Bytes, Coverage, Group, GroupFigures, Host, KindTotals, Label, Sum, SumKey, SumTotals, Totals, counted,
};

/// The columns of groups, unless others are chosen.
pub const DEFAULT_SUM_COLUMNS: &[&str] =
    &["KEY", "BUFS", "SIZE", "COST", "PSS", "USS", "SHARED", "FDS", "MAPS", "PROCS"];

/// Columns of `sum`. Their rows are indices into the groups of [`View::sum`].
pub const SUM_COLUMNS: &[Column] = &[
    Column {
        name: "KEY",
        help: "the group; (none) no such key, - held by none, ? unknown",
        cell: |v, i| of(v, i, |g| key(&g.group)),
    },
    Column {
        name: "BUFS",
        help: "distinct buffers",
        cell: |v, i| of(v, i, |g| Cell::Number(Some(g.buffers))),
    },
    Column { name: "SIZE", help: "their lengths together", cell: |v, i| of(v, i, |g| Cell::Size(g.size)) },
    Column {
        name: "COST",
        help: "what they take: CHARGED, or SIZE where that is not reported",
        cell: |v, i| of(v, i, |g| Cell::Size(g.cost)),
    },
    Column {
        name: "PSS",
        help: "COST split among all holders: the parts of those in this group",
        cell: |v, i| of(v, i, |g| Cell::Size(g.pss)),
    },
    Column {
        name: "USS",
        help: "what the exit of all its processes would free; ? without a COUNT",
        cell: |v, i| of(v, i, |g| Cell::Size(g.uss)),
    },
    Column {
        name: "SHARED",
        help: "COST of those that count in another group, too",
        cell: |v, i| of(v, i, |g| Cell::Size(g.shared)),
    },
    Column {
        name: "FDS",
        help: "fds of them; an fd table that processes share counts once",
        cell: |v, i| of(v, i, |g| Cell::Number(Some(g.fds))),
    },
    Column {
        name: "MAPS",
        help: "mappings of them; a shared address space counts once",
        cell: |v, i| of(v, i, |g| Cell::Number(Some(g.maps))),
    },
    Column {
        name: "PROCS",
        help: "processes of the group that hold one of them",
        cell: |v, i| of(v, i, |g| Cell::Number(Some(g.processes))),
    },
];

/// A cell of the group at that index. Unknown if nothing was summed up.
fn of(view: &View<'_>, index: usize, cell: impl Fn(&GroupFigures) -> Cell) -> Cell {
    view.sum.and_then(|sum| sum.groups.get(index)).map_or(Cell::Number(None), cell)
}

/// What stands for those without such a key.
const NONE: &str = "(none)";

pub(super) fn key(group: &Group) -> Cell {
    match group {
        // A name may be anything, so it must not pass for that word.
        Group::Key(label) if label.as_bytes() == NONE.as_bytes() => {
            Cell::Words(Some(NONE.replace('(', "\\x28").into()))
        }
        Group::Key(label) => Cell::Text(Some(short_id(label))),
        Group::None => Cell::Words(Some(NONE.into())),
        Group::Unheld => Cell::Words(None),
        Group::Unknown => Cell::Text(None),
    }
}

/// One line: what the groups come to, what of it is counted more than once, and what the buffers
/// come to.
#[must_use]
pub fn sum_summary(sum: &Sum, sizes: Sizes) -> String {
    let SumTotals { buffers, cost, at_least, counted_again, in_several, .. } = sum.totals;
    let groups = counted(sum.groups.len() as u64, "group", "groups");
    let buffers = counted(buffers, "buffer", "buffers");
    let cost = total(cost, at_least, sizes);
    if sum.by == SumKey::Payer {
        let shared = counted(in_several, "buffer has", "buffers have");
        return format!("{groups}, {cost} in {buffers}; {shared} several payers and no page counts twice");
    }
    if in_several == 0 {
        return format!("{groups}, {cost} in {buffers}, each in one group");
    }
    let costs = Bytes::total(sum.groups.iter().map(|group| group.cost));
    let least = Bytes::at_least(sum.groups.iter().map(|group| Some(group.at_least)));
    format!(
        "{groups}, {} in all; less {} that count again, as {} in several groups: {cost} in {buffers}",
        total(costs, least, sizes),
        size(counted_again, sizes),
        counted(in_several, "buffer is", "buffers are"),
    )
}

#[derive(Serialize)]
struct Document<'a, G> {
    schema: &'static str,
    taken_at: Option<Time>,
    host: &'a Host,
    scan: &'a Coverage,
    by: &'static str,
    groups: G,
    sum: JsonSum,
    totals: &'a Totals,
    kinds: &'a [KindTotals],
}

#[derive(Serialize)]
struct JsonSum {
    buffers: u64,
    cost: Option<Bytes>,
    at_least: Bytes,
    held: Option<Bytes>,
    counted_again: Option<Bytes>,
    in_several: u64,
}

#[derive(Serialize)]
pub(super) struct JsonGroup<'a> {
    group: &'static str,
    key: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_bytes: Option<String>,
    buffers: u64,
    size: Option<Bytes>,
    cost: Option<Bytes>,
    at_least: Bytes,
    pss: Option<Bytes>,
    uss: Option<Bytes>,
    shared: Option<Bytes>,
    fds: u64,
    maps: u64,
    processes: u64,
}

impl JsonGroup<'_> {
    pub(super) fn of(figures: &GroupFigures) -> JsonGroup<'_> {
        let (group, key) = match &figures.group {
            Group::Key(key) => ("key", Some(key)),
            Group::None => ("none", None),
            Group::Unheld => ("unheld", None),
            Group::Unknown => ("unknown", None),
        };
        JsonGroup {
            group,
            key,
            key_bytes: lost_bytes(key),
            buffers: figures.buffers,
            size: figures.size,
            cost: figures.cost,
            at_least: figures.at_least,
            pss: figures.pss,
            uss: figures.uss,
            shared: figures.shared,
            fds: figures.fds,
            maps: figures.maps,
            processes: figures.processes,
        }
    }
}

/// Writes some groups of a sum as one JSON document, in that order.
///
/// # Errors
/// Those of `out`.
pub fn sum_json(
    out: &mut dyn Write,
    view: &View<'_>,
    sum: &Sum,
    rows: &[usize],
    layout: JsonLayout,
) -> io::Result<()> {
    let SumTotals { buffers, cost, at_least, held, counted_again, in_several } = sum.totals;
    let snapshot = view.snapshot();
    let document = Document {
        schema: "lsbuf.sum/1",
        taken_at: timestamp(snapshot.taken_at),
        host: &snapshot.host,
        scan: &snapshot.coverage,
        by: SumKey::as_str(sum.by),
        groups: Rows(|| rows.iter().map(|&row| JsonGroup::of(&sum.groups[row]))),
        sum: JsonSum { buffers, cost, at_least, held, counted_again, in_several },
        totals: &view.ledger.totals,
        kinds: &view.ledger.kinds,
    };
    layout::document(out, &document, layout)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Style;

    /// Check that no name can pass for one of the signs, in any format.
    #[test]
    fn signs_are_no_keys() {
        let signs = [Group::None, Group::Unheld, Group::Unknown];
        for style in [Style::Table, Style::NarrowTable, Style::Raw] {
            let shown = |group: &Group| key(group).write(style, Sizes::Bytes);
            for name in ["(none)", "-", "?"] {
                let forged = Group::Key(name.into());
                assert!(signs.iter().all(|sign| shown(sign) != shown(&forged)), "{name}");
            }
        }
        assert_eq!(key(&Group::Key("(none)".into())).write(Style::Raw, Sizes::Bytes), r"\x28none)");
    }
}
