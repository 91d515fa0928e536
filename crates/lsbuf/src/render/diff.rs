//! `lsbuf diff`: the columns of changed buffers, processes and groups, the lines below them, and
//! JSON of the schema `lsbuf.diff/1` (`docs/lsbuf.diff-1.schema.json`).

use std::io::{self, Write};

use serde::Serialize;

use super::layout::{self, JsonLayout};
use super::sum::{JsonGroup, key};
use super::{Cell, Column, Sizes, Style, View};
use crate::model::serialize::{Lost, Rows, Time, lost_bytes, timestamp};
use crate::model::{
    Bytes, Change, ChangedBuffer, ChangedGroup, ChangedProcess, Coverage, Dev, Diff, GroupFigures, Host,
    Inode, Kind, Label, Pid, ProcessFigures, Snapshot, SumKey, counted,
};

/// What is shown of a difference.
#[derive(Clone, Debug)]
pub struct Differences<'a> {
    /// The difference.
    pub diff: &'a Diff<'a>,
    /// [`Diff::processes`], if they are shown.
    pub processes: Vec<ChangedProcess<'a>>,
    /// [`Diff::groups`], if they are shown, with their key.
    pub groups: Vec<ChangedGroup>,
}

/// The columns of changed buffers, unless others are chosen.
pub const DEFAULT_DIFF_COLUMNS: &[&str] =
    &["CHANGE", "KIND", "INO", "COST", "+COST", "NAME", "GAINED", "LOST"];

/// Columns of changed buffers. Rows are indices into [`Diff::buffers`].
pub const DIFF_COLUMNS: &[Column] = &[
    Column {
        name: "CHANGE",
        help: "born, died, grown, shrunk; holders: others hold it",
        cell: |v, i| of(v, i, |c| Cell::Words(Some(c.change.as_str().into()))),
    },
    Column {
        name: "KIND",
        help: "kind of buffer",
        cell: |v, i| of(v, i, |c| Cell::Words(Some(c.buffer.id.kind.as_str().into()))),
    },
    Column {
        name: "INO",
        help: "inode number; of a segment its id",
        cell: |v, i| of(v, i, |c| Cell::Number(Some(c.buffer.id.ino.0))),
    },
    Column {
        name: "SIZE",
        help: "its length, or as it was last",
        cell: |v, i| of(v, i, |c| Cell::Size(c.buffer.size)),
    },
    Column {
        name: "COST",
        help: "what it takes, or took last: CHARGED, or SIZE where that is not reported",
        cell: |v, i| of(v, i, |c| Cell::Size(c.buffer.cost())),
    },
    Column {
        name: "+COST",
        help: "by how much that has changed",
        cell: |v, i| of(v, i, |c| Cell::SizeChange(c.cost)),
    },
    Column {
        name: "EXPORTER",
        help: "who made a dma-buf: a DMA heap or a driver",
        cell: |v, i| {
            of(v, i, |c| match c.buffer.id.kind {
                Kind::DmaBuf => Cell::Text(c.buffer.exporter.clone()),
                _ => Cell::Words(None),
            })
        },
    },
    Column { name: "NAME", help: "its name", cell: |v, i| of(v, i, |c| Cell::Text(c.buffer.name.clone())) },
    Column {
        name: "GAINED",
        help: "processes that hold it and did not before",
        cell: |v, i| of_diff(v, i, |d, c| Cell::Words(pids(&c.gained, d.after.snapshot()))),
    },
    Column {
        name: "LOST",
        help: "processes that held it and do not now",
        cell: |v, i| of_diff(v, i, |d, c| Cell::Words(pids(&c.lost, d.before.snapshot()))),
    },
];

/// The columns of changed processes.
pub const DIFF_PROCESS_COLUMNS: &[Column] = &[
    Column {
        name: "PID",
        help: "process id",
        cell: |v, i| of_process(v, i, |p| Cell::Number(Some(p.process.pid.0.into()))),
    },
    Column {
        name: "COMMAND",
        help: "its command",
        cell: |v, i| of_process(v, i, |p| Cell::Text(Some(p.process.comm.clone()))),
    },
    Column {
        name: "RSS",
        help: "what its buffers cost now",
        cell: |v, i| of_process(v, i, |p| Cell::Size(now(p, |f| f.rss))),
    },
    Column {
        name: "+RSS",
        help: "by how much that has changed",
        cell: |v, i| of_process(v, i, |p| Cell::SizeChange(moved(p, |f| f.rss))),
    },
    Column {
        name: "+PSS",
        help: "by how much its part has changed",
        cell: |v, i| of_process(v, i, |p| Cell::SizeChange(moved(p, |f| f.pss))),
    },
    Column {
        name: "+USS",
        help: "by how much has changed what its exit would free",
        cell: |v, i| of_process(v, i, |p| Cell::SizeChange(moved(p, |f| f.uss))),
    },
    Column {
        name: "BUFS",
        help: "buffers that it holds now",
        cell: |v, i| of_process(v, i, |p| Cell::Number(Some(p.after.map_or(0, |f| f.buffers)))),
    },
    Column {
        name: "+BUFS",
        help: "by how many that has changed",
        cell: |v, i| of_process(v, i, |p| Cell::NumberChange(moved(p, |f| Some(Bytes(f.buffers))))),
    },
    Column {
        name: "+FDS",
        help: "by how many its fds of buffers have changed",
        cell: |v, i| of_process(v, i, |p| Cell::NumberChange(moved(p, |f| Some(Bytes(f.fds))))),
    },
    Column {
        name: "+MAPS",
        help: "by how many its mappings of buffers have changed",
        cell: |v, i| of_process(v, i, |p| Cell::NumberChange(moved(p, |f| Some(Bytes(f.maps))))),
    },
];

/// The columns of changed groups.
pub const DIFF_GROUP_COLUMNS: &[Column] = &[
    Column {
        name: "KEY",
        help: "the group; (none) no such key, - held by none, ? unknown",
        cell: |v, i| of_group(v, i, |g| key(&g.group)),
    },
    Column {
        name: "BUFS",
        help: "buffers in it now",
        cell: |v, i| of_group(v, i, |g| Cell::Number(Some(buffers(&g.after)))),
    },
    Column {
        name: "BORN",
        help: "those that were born",
        cell: |v, i| of_group(v, i, |g| Cell::Number(Some(buffers(&g.born)))),
    },
    Column {
        name: "DIED",
        help: "those that died, by the groups in which they were",
        cell: |v, i| of_group(v, i, |g| Cell::Number(Some(buffers(&g.died)))),
    },
    Column {
        name: "COST",
        help: "what they take now",
        cell: |v, i| of_group(v, i, |g| Cell::Size(cost(&g.after))),
    },
    Column {
        name: "+COST",
        help: "by how much that has changed",
        cell: |v, i| of_group(v, i, |g| Cell::SizeChange(less(cost(&g.after), cost(&g.before)))),
    },
    Column {
        name: "BORN-COST",
        help: "what those take that were born",
        cell: |v, i| of_group(v, i, |g| Cell::Size(cost(&g.born))),
    },
    Column {
        name: "DIED-COST",
        help: "what those took that died",
        cell: |v, i| of_group(v, i, |g| Cell::Size(cost(&g.died))),
    },
];

fn of_diff(view: &View<'_>, index: usize, cell: impl Fn(&Diff<'_>, &ChangedBuffer<'_>) -> Cell) -> Cell {
    let diff = view.differences.map(|differences| differences.diff);
    let changed = diff.and_then(|diff| Some((diff, diff.buffers.get(index)?)));
    changed.map_or(Cell::Number(None), |(diff, changed)| cell(diff, changed))
}

fn of(view: &View<'_>, index: usize, cell: impl Fn(&ChangedBuffer<'_>) -> Cell) -> Cell {
    of_diff(view, index, |_, changed| cell(changed))
}

fn of_process(view: &View<'_>, index: usize, cell: impl Fn(&ChangedProcess<'_>) -> Cell) -> Cell {
    let changed = view.differences.and_then(|differences| differences.processes.get(index));
    changed.map_or(Cell::Number(None), cell)
}

fn of_group(view: &View<'_>, index: usize, cell: impl Fn(&ChangedGroup) -> Cell) -> Cell {
    let changed = view.differences.and_then(|differences| differences.groups.get(index));
    changed.map_or(Cell::Number(None), cell)
}

/// Processes by command and pid. `None`: there are none.
fn pids(pids: &[Pid], snapshot: &Snapshot) -> Option<std::borrow::Cow<'static, str>> {
    let name = |pid: &Pid| {
        let comm = snapshot.process(*pid).map(|process| process.comm.clone()).unwrap_or_default();
        format!("{}:{pid}", Cell::Text(Some(comm)).write(Style::Raw, Sizes::Bytes))
    };
    let names: Vec<String> = pids.iter().map(name).collect();
    (!names.is_empty()).then(|| names.join(" ").into())
}

type Figure = fn(&ProcessFigures) -> Option<Bytes>;

/// A figure of a process: nothing where it holds nothing.
fn figure(figures: Option<&ProcessFigures>, figure: Figure) -> Option<Bytes> {
    figures.map_or(Some(Bytes(0)), figure)
}

fn now(changed: &ChangedProcess<'_>, of: Figure) -> Option<Bytes> {
    figure(changed.after.as_ref(), of)
}

fn moved(changed: &ChangedProcess<'_>, of: Figure) -> Option<i128> {
    less(now(changed, of), figure(changed.before.as_ref(), of))
}

fn less(after: Option<Bytes>, before: Option<Bytes>) -> Option<i128> {
    Some(i128::from(after?.0) - i128::from(before?.0))
}

fn buffers(figures: &Option<GroupFigures>) -> u64 {
    figures.as_ref().map_or(0, |figures| figures.buffers)
}

fn cost(figures: &Option<GroupFigures>) -> Option<Bytes> {
    figures.as_ref().map_or(Some(Bytes(0)), |figures| figures.cost)
}

/// Two lines: what the changes come to, and from when to when.
#[must_use]
pub fn diff_summary(diff: &Diff<'_>, sizes: Sizes) -> String {
    let change = |change: Change| {
        let (number, cost) = diff.total(change);
        let cost = Cell::SizeChange(cost).write(Style::Table, sizes);
        (number > 0).then(|| match change {
            Change::Holders => format!("{number} held by others"),
            _ => format!("{number} {} ({cost})", change.as_str()),
        })
    };
    let changes: Vec<String> = Change::ALL.iter().filter_map(|&one| change(one)).collect();
    let net: Option<i128> = diff.buffers.iter().map(|changed| changed.cost).sum();
    let net = Cell::SizeChange(net).write(Style::Table, sizes);
    let same = counted(diff.same, "buffer", "buffers");
    let (before, after) = (diff.before.snapshot().taken_at, diff.after.snapshot().taken_at);
    let length =
        after.duration_since(before).map(|length| Cell::Age(Some(length)).write(Style::Table, Sizes::Human));
    let changes = if changes.is_empty() { "no change".to_owned() } else { changes.join(", ") };
    let after = length
        .map_or_else(|_| "the second is older than the first".to_owned(), |length| format!("in {length}"));
    format!("{changes}; {net} in all, {same} as before; {after}")
}

#[derive(Serialize)]
struct Document<'a, B, P, G> {
    schema: &'static str,
    before: JsonSide<'a>,
    after: JsonSide<'a>,
    buffers: B,
    unchanged: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<G>,
}

#[derive(Serialize)]
struct JsonSide<'a> {
    taken_at: Option<Time>,
    host: &'a Host,
    scan: &'a Coverage,
}

impl JsonSide<'_> {
    fn of(snapshot: &Snapshot) -> JsonSide<'_> {
        JsonSide { taken_at: timestamp(snapshot.taken_at), host: &snapshot.host, scan: &snapshot.coverage }
    }
}

#[derive(Serialize)]
struct JsonChange<'a> {
    change: &'static str,
    kind: Kind,
    dev: Option<Dev>,
    ino: Inode,
    ipc_namespace: Option<Inode>,
    name: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    size: Option<Bytes>,
    cost: Option<Bytes>,
    cost_change: Option<i128>,
    gained: &'a [Pid],
    lost: &'a [Pid],
}

impl JsonChange<'_> {
    fn of<'a>(changed: &'a ChangedBuffer<'_>) -> JsonChange<'a> {
        let buffer = changed.buffer;
        JsonChange {
            change: changed.change.as_str(),
            kind: buffer.id.kind,
            dev: buffer.id.dev,
            ino: buffer.id.ino,
            ipc_namespace: buffer.id.ipc.map(|ipc| ipc.0),
            name: buffer.name.as_ref(),
            name_bytes: lost_bytes(buffer.name.as_ref()),
            size: buffer.size,
            cost: buffer.cost(),
            cost_change: changed.cost,
            gained: &changed.gained,
            lost: &changed.lost,
        }
    }
}

#[derive(Serialize)]
struct JsonChangedProcess<'a> {
    pid: Pid,
    start_time: u64,
    comm: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    before: Option<JsonFigures>,
    after: Option<JsonFigures>,
}

#[derive(Serialize)]
struct JsonFigures {
    rss: Option<Bytes>,
    pss: Option<Bytes>,
    mapped_pss: Option<Bytes>,
    uss: Option<Bytes>,
    buffers: u64,
    fds: u64,
    maps: u64,
}

impl JsonFigures {
    fn of(figures: ProcessFigures) -> JsonFigures {
        let ProcessFigures { rss, pss, mapped_pss, uss, buffers, fds, maps, .. } = figures;
        JsonFigures { rss, pss, mapped_pss, uss, buffers, fds, maps }
    }
}

impl JsonChangedProcess<'_> {
    fn of<'a>(changed: &'a ChangedProcess<'_>) -> JsonChangedProcess<'a> {
        let process = changed.process;
        JsonChangedProcess {
            pid: process.pid,
            start_time: process.start_time,
            comm: &process.comm,
            comm_bytes: lost_bytes(Some(&process.comm)),
            before: changed.before.map(JsonFigures::of),
            after: changed.after.map(JsonFigures::of),
        }
    }
}

#[derive(Serialize)]
struct JsonChangedGroup<'a> {
    before: Option<JsonGroup<'a>>,
    after: Option<JsonGroup<'a>>,
    born: Option<JsonGroup<'a>>,
    died: Option<JsonGroup<'a>>,
}

impl JsonChangedGroup<'_> {
    fn of(changed: &ChangedGroup) -> JsonChangedGroup<'_> {
        fn group(figures: &Option<GroupFigures>) -> Option<JsonGroup<'_>> {
            figures.as_ref().map(JsonGroup::of)
        }
        let ChangedGroup { before, after, born, died, .. } = changed;
        JsonChangedGroup { before: group(before), after: group(after), born: group(born), died: group(died) }
    }
}

/// Writes a difference as one JSON document. With `by` it has the groups, with `processes` the
/// processes.
///
/// # Errors
/// Those of `out`.
pub fn diff_json(
    out: &mut dyn Write,
    differences: &Differences<'_>,
    processes: bool,
    by: Option<SumKey>,
    layout: JsonLayout,
) -> io::Result<()> {
    let Differences { diff, processes: changed, groups } = differences;
    let document = Document {
        schema: "lsbuf.diff/1",
        before: JsonSide::of(diff.before.snapshot()),
        after: JsonSide::of(diff.after.snapshot()),
        buffers: Rows(|| diff.buffers.iter().map(JsonChange::of)),
        unchanged: diff.same,
        processes: processes.then_some(Rows(|| changed.iter().map(JsonChangedProcess::of))),
        by: by.map(SumKey::as_str),
        groups: by.map(|_| Rows(|| groups.iter().map(JsonChangedGroup::of))),
    };
    layout::document(out, &document, layout)
}
