//! JSON of a trace: one object on each line, schema `lsbuf.trace/1`
//! (`docs/lsbuf.trace-1.schema.json`). `event` says what each object is.

use std::io::{self, Write};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;

use super::super::layout::{self, JsonLayout};
use super::TraceCounts;
use crate::model::serialize::origin::nanos;
use crate::model::serialize::{Lost, Rows, lost_bytes};
use crate::model::{
    Actor, Bytes, Dev, Event, Fd, Giver, Happening, Inode, IpcNamespace, Kind, Label, Pid, Stack, Tid,
    TracedBuffer, TracedMapping,
};
use crate::trace::{Balance, BalanceRow, BalanceSum, Item, Losses};

/// Writes the first object: what follows, and what is not seen.
///
/// # Errors
/// Those of `out`.
pub fn trace_begin_json(out: &mut dyn Write, left_out: &[(&str, String)]) -> io::Result<()> {
    #[derive(Serialize)]
    struct Begin<U> {
        event: &'static str,
        schema: &'static str,
        unseen: U,
    }
    #[derive(Serialize)]
    struct Unseen<'a> {
        what: &'a str,
        why: &'a str,
    }
    let unseen = Rows(|| left_out.iter().map(|(what, why)| Unseen { what, why }));
    line(out, &Begin { event: "begin", schema: "lsbuf.trace/1", unseen })
}

/// Writes an event, or what was lost.
///
/// # Errors
/// Those of `out`.
pub fn trace_item_json(out: &mut dyn Write, item: &Item) -> io::Result<()> {
    match item {
        Item::Event(event) => line(out, &JsonEvent::of(event)),
        Item::Lost(cause, lost) => line(out, &JsonLoss { event: "lost", cause: cause.word(), count: *lost }),
    }
}

/// Writes how many events there were.
///
/// # Errors
/// Those of `out`.
pub fn trace_counts_json(out: &mut dyn Write, counts: &TraceCounts) -> io::Result<()> {
    #[derive(Serialize)]
    struct Counted {
        event: &'static str,
        of: &'static str,
        kind: Option<&'static str>,
        count: u64,
        bytes: Bytes,
    }
    counts.rows().try_for_each(|(of, kind, count, bytes)| {
        let kind = Some(kind).filter(|kind| *kind != "?");
        line(out, &Counted { event: "counted", of, kind, count, bytes })
    })
}

/// Writes what was made, freed and is left.
///
/// # Errors
/// Those of `out`.
pub fn trace_balance_json(out: &mut dyn Write, rows: &[BalanceRow]) -> io::Result<()> {
    #[derive(Serialize)]
    struct JsonBalance<'a> {
        event: &'static str,
        command: Option<&'a Label>,
        #[serde(skip_serializing_if = "Option::is_none")]
        command_bytes: Lost,
        kind: Option<Kind>,
        made: u64,
        freed: u64,
        left: u64,
        made_bytes: Bytes,
        left_bytes: Bytes,
        stack: Option<&'a Stack>,
    }
    let mut write = |event, sum: &BalanceSum, row: Option<&BalanceRow>| {
        let command = row.map(|row| &row.command);
        let balance = JsonBalance {
            event,
            command,
            command_bytes: lost_bytes(command),
            kind: row.and_then(|row| row.kind),
            made: sum.made,
            freed: sum.freed,
            left: sum.left(),
            made_bytes: sum.made_bytes,
            left_bytes: sum.left_bytes,
            stack: row.and_then(|row| row.stack.as_deref()),
        };
        line(out, &balance)
    };
    rows.iter().try_for_each(|row| write("balance", &row.sum, Some(row)))?;
    write("balance_total", &Balance::total(rows), None)
}

/// Writes the last object: how many events were written, and what was lost in all.
///
/// # Errors
/// Those of `out`.
pub fn trace_end_json(out: &mut dyn Write, events: u64, losses: &Losses) -> io::Result<()> {
    #[derive(Serialize)]
    struct End<L> {
        event: &'static str,
        events: u64,
        lost: L,
    }
    let lost = Rows(|| losses.all().map(|(cause, count)| Cause { cause: cause.word(), count }));
    line(out, &End { event: "end", events, lost })
}

#[derive(Serialize)]
struct Cause {
    cause: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct JsonLoss {
    event: &'static str,
    cause: &'static str,
    count: u64,
}

#[derive(Serialize)]
struct JsonEvent<'a> {
    event: &'static str,
    at: Option<String>,
    after_boot_ns: u64,
    buffer: JsonBuffer<'a>,
    by: JsonActor<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<Fd>,
    #[serde(skip_serializing_if = "is_false")]
    path_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<JsonReceipt<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mapping: Option<JsonMapping>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_bytes: Lost,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack: Option<&'a Stack>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

#[derive(Serialize)]
struct JsonBuffer<'a> {
    id: String,
    kind: Option<Kind>,
    ino: Option<Inode>,
    dev: Option<Dev>,
    ipc_ns: Option<Inode>,
    size: Bytes,
    memory: Bytes,
    name: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    #[serde(skip_serializing_if = "is_false")]
    name_cut: bool,
    exporter: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter_bytes: Lost,
}

#[derive(Serialize)]
struct JsonActor<'a> {
    pid: Pid,
    started_ns: u64,
    command: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_bytes: Lost,
    tid: Tid,
    thread: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_bytes: Lost,
    uid: u32,
    cgroup_id: u64,
    #[serde(skip_serializing_if = "is_false")]
    kernel: bool,
    #[serde(skip_serializing_if = "is_false")]
    exiting: bool,
}

#[derive(Serialize)]
struct JsonReceipt<'a> {
    way: &'static str,
    from: Option<JsonGiver<'a>>,
}

#[derive(Serialize)]
struct JsonGiver<'a> {
    pid: Pid,
    started_ns: u64,
    command: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_bytes: Lost,
}

#[derive(Serialize)]
struct JsonMapping {
    start: Option<String>,
    length: Bytes,
    access: String,
    shared: bool,
}

impl<'a> JsonEvent<'a> {
    fn of(event: &'a Event) -> JsonEvent<'a> {
        let Event { after_boot, at, what, buffer, by, stack } = event;
        let mut json = JsonEvent {
            event: what.word(),
            at: time(*at),
            after_boot_ns: nanos(*after_boot),
            buffer: JsonBuffer::of(buffer),
            by: JsonActor::of(by),
            fd: None,
            path_only: false,
            received: None,
            mapping: None,
            device: None,
            device_bytes: None,
            stack: stack.as_deref(),
        };
        match what {
            Happening::Made | Happening::Renamed | Happening::Freed => {}
            Happening::Fd { fd, path_only } => {
                (json.fd, json.path_only) = (Some(*fd), *path_only);
            }
            Happening::Received { fd, way, from } => {
                json.fd = Some(*fd);
                json.received = Some(JsonReceipt { way: way.word(), from: from.as_ref().map(JsonGiver::of) });
            }
            Happening::Mapped(mapping) => json.mapping = Some(JsonMapping::of(mapping)),
            Happening::Attached(device) | Happening::Detached(device) => {
                json.device = Some(device);
                json.device_bytes = lost_bytes(Some(device));
            }
        }
        json
    }
}

impl<'a> JsonBuffer<'a> {
    fn of(buffer: &'a TracedBuffer) -> JsonBuffer<'a> {
        let TracedBuffer { key, kind, dev, ino, ipc, size, memory, name, name_cut, exporter } = buffer;
        JsonBuffer {
            id: format!("{:016x}", key.0),
            kind: *kind,
            ino: *ino,
            dev: *dev,
            ipc_ns: ipc.map(|IpcNamespace(ino)| ino),
            size: *size,
            memory: *memory,
            name: name.as_ref(),
            name_bytes: lost_bytes(name.as_ref()),
            name_cut: *name_cut,
            exporter: exporter.as_ref(),
            exporter_bytes: lost_bytes(exporter.as_ref()),
        }
    }
}

impl<'a> JsonActor<'a> {
    fn of(actor: &'a Actor) -> JsonActor<'a> {
        let Actor { pid, started, command, tid, thread, uid, cgroup, kernel, exiting } = actor;
        JsonActor {
            pid: *pid,
            started_ns: nanos(*started),
            command,
            command_bytes: lost_bytes(Some(command)),
            tid: *tid,
            thread,
            thread_bytes: lost_bytes(Some(thread)),
            uid: *uid,
            cgroup_id: *cgroup,
            kernel: *kernel,
            exiting: *exiting,
        }
    }
}

impl<'a> JsonGiver<'a> {
    fn of(giver: &'a Giver) -> JsonGiver<'a> {
        let Giver { pid, started, command } = giver;
        JsonGiver {
            pid: *pid,
            started_ns: nanos(*started),
            command,
            command_bytes: lost_bytes(Some(command)),
        }
    }
}

impl JsonMapping {
    fn of(mapping: &TracedMapping) -> JsonMapping {
        let TracedMapping { start, length, read, write, execute, shared } = mapping;
        let letters = [(*read, 'r'), (*write, 'w'), (*execute, 'x')];
        JsonMapping {
            start: start.map(|start| format!("{start:#x}")),
            length: *length,
            access: letters.iter().map(|(has, letter)| if *has { *letter } else { '-' }).collect(),
            shared: *shared,
        }
    }
}

fn line(out: &mut dyn Write, object: &impl Serialize) -> io::Result<()> {
    layout::document(out, object, JsonLayout::Compact)
}

/// A time in RFC 3339, to the microsecond.
fn time(at: SystemTime) -> Option<String> {
    Timestamp::try_from(at).ok().map(|stamp| format!("{stamp:.6}"))
}
