//! JSON of the lives of buffers in a recording, schema `lsbuf.life/1`
//! (`docs/lsbuf.life-1.schema.json`).

use std::io::{self, Write};

use serde::Serialize;

use super::layout::{self, JsonLayout};
use crate::history::{Between, Hold, Life, Moment, Sample, Span};
use crate::model::serialize::{Lost, Rows, Time, lost_bytes, timestamp};
use crate::model::{Buffer, Bytes, Dev, Holder, Host, Inode, Kind, Label, Pid};

#[derive(Serialize)]
struct Document<L> {
    schema: &'static str,
    first_sample: JsonSample,
    last_sample: JsonSample,
    lives: L,
}

#[derive(Serialize)]
struct JsonSample {
    sample: i64,
    taken_at: Option<Time>,
    boottime_us: u64,
}

impl JsonSample {
    fn of(sample: Sample) -> JsonSample {
        JsonSample {
            sample: sample.id.0,
            taken_at: timestamp(sample.taken_at),
            boottime_us: u64::try_from(sample.boottime.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

#[derive(Serialize)]
struct JsonMoment {
    #[serde(flatten)]
    sample: JsonSample,
    complete: bool,
}

impl JsonMoment {
    fn of(moment: Moment) -> JsonMoment {
        JsonMoment { sample: JsonSample::of(moment.sample), complete: moment.is_complete }
    }
}

#[derive(Serialize)]
struct JsonBetween {
    after: Option<JsonMoment>,
    by: JsonMoment,
}

impl JsonBetween {
    fn of(between: Between) -> JsonBetween {
        JsonBetween { after: between.after.map(JsonMoment::of), by: JsonMoment::of(between.by) }
    }
}

#[derive(Serialize)]
struct JsonLife<'a, S> {
    kind: Kind,
    dev: Option<Dev>,
    ino: Inode,
    ipc_namespace: Option<Inode>,
    host: &'a Host,
    name: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    exporter: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter_bytes: Lost,
    created_at: Option<Time>,
    creator_uid: Option<u32>,
    born: Option<JsonBetween>,
    died: Option<JsonBetween>,
    states: S,
    holders: Vec<JsonHold<'a>>,
}

#[derive(Serialize)]
struct JsonState<'a> {
    from: JsonMoment,
    until: JsonMoment,
    after_gap: bool,
    size: Option<Bytes>,
    charged: Option<Bytes>,
    swapped: Option<Bytes>,
    cost: Option<Bytes>,
    count: Option<u64>,
    deleted: Option<bool>,
    name: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
}

impl JsonState<'_> {
    fn of(span: Span<'_, Buffer>) -> JsonState<'_> {
        let buffer = span.what;
        JsonState {
            from: JsonMoment::of(span.from),
            until: JsonMoment::of(span.until),
            after_gap: span.is_after_gap,
            size: buffer.size,
            charged: buffer.charged,
            swapped: buffer.swapped,
            cost: buffer.cost(),
            count: buffer.count,
            deleted: buffer.deleted,
            name: buffer.name.as_ref(),
            name_bytes: lost_bytes(buffer.name.as_ref()),
        }
    }
}

#[derive(Serialize)]
struct JsonHold<'a> {
    pid: Pid,
    start_time: u64,
    comm: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    uid: Option<u32>,
    cgroup: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_bytes: Lost,
    received: JsonBetween,
    let_go: Option<JsonBetween>,
    held: Vec<JsonHeld>,
}

/// What a process held from one sample to another.
#[derive(Serialize)]
struct JsonHeld {
    from: JsonMoment,
    until: JsonMoment,
    fd: u64,
    map: u64,
    opath: u64,
    mapped: Bytes,
    runs: bool,
}

impl<'a> JsonHold<'a> {
    fn of(hold: &Hold<'a>) -> JsonHold<'a> {
        let process = hold.process;
        let held = |part: &Span<'_, Holder>| JsonHeld {
            from: JsonMoment::of(part.from),
            until: JsonMoment::of(part.until),
            fd: part.what.fd_refs(),
            map: part.what.map_refs(),
            opath: part.what.opath_refs(),
            mapped: part.what.mapped(),
            runs: part.what.runs,
        };
        JsonHold {
            pid: process.pid,
            start_time: process.start_time,
            comm: &process.comm,
            comm_bytes: lost_bytes(Some(&process.comm)),
            uid: process.uid,
            cgroup: process.cgroup.as_ref(),
            cgroup_bytes: lost_bytes(process.cgroup.as_ref()),
            received: JsonBetween::of(hold.received),
            let_go: hold.let_go.map(JsonBetween::of),
            held: hold.parts.iter().map(held).collect(),
        }
    }
}

fn life_of(life: &Life) -> impl Serialize + '_ {
    let buffer = &life.buffer;
    JsonLife {
        kind: buffer.id.kind,
        dev: buffer.id.dev,
        ino: buffer.id.ino,
        ipc_namespace: buffer.id.ipc.map(|ipc| ipc.0),
        host: &life.host,
        name: buffer.name.as_ref(),
        name_bytes: lost_bytes(buffer.name.as_ref()),
        exporter: buffer.exporter.as_ref(),
        exporter_bytes: lost_bytes(buffer.exporter.as_ref()),
        created_at: buffer.created_at.and_then(timestamp),
        creator_uid: buffer.creator_uid,
        born: life.born().map(JsonBetween::of),
        died: life.died().map(JsonBetween::of),
        states: Rows(|| life.spans().into_iter().map(JsonState::of)),
        holders: life.holds().iter().map(JsonHold::of).collect(),
    }
}

/// Writes these lives as one JSON document. `first` and `last` are the ends of the recording.
///
/// # Errors
/// Those of `out`.
pub fn life_json(
    out: &mut dyn Write,
    lives: &[Life],
    (first, last): (Sample, Sample),
    layout: JsonLayout,
) -> io::Result<()> {
    let document = Document {
        schema: "lsbuf.life/1",
        first_sample: JsonSample::of(first),
        last_sample: JsonSample::of(last),
        lives: Rows(|| lives.iter().map(life_of)),
    };
    layout::document(out, &document, layout)
}
