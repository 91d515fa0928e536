//! JSON of `lsbuf leaks`, schema `lsbuf.leaks/1` (`docs/lsbuf.leaks-1.schema.json`).

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::View;
use super::layout::{self, JsonLayout};
use crate::history::{Cohort, Fences, Growth, Slope, Suspect, SuspectOrigin, Suspects};
use crate::model::serialize::{Lost, Rows, Time, lost_bytes, timestamp};
use crate::model::{Bytes, Host, Kind, Label, LeakShape};

#[derive(Serialize)]
struct Document<'a, G, F> {
    schema: &'static str,
    host: &'a Host,
    first_sample: Option<Time>,
    last_sample: Option<Time>,
    length_s: f64,
    samples: u64,
    partial_samples: u64,
    states: States,
    groups: G,
    sync_files: F,
}

/// How many groups there are in each state, shown or not.
#[derive(Serialize)]
struct States {
    growing: usize,
    too_short: usize,
    churn: usize,
    plateau: usize,
}

impl States {
    fn of(suspects: &Suspects) -> States {
        let number = |state: Growth| suspects.groups.iter().filter(|group| group.growth == state).count();
        States {
            growing: number(Growth::Growing),
            too_short: number(Growth::TooShort),
            churn: number(Growth::Churn),
            plateau: number(Growth::Plateau),
        }
    }
}

#[derive(Serialize)]
struct JsonSuspect<'a> {
    state: &'static str,
    comm: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    cgroup: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_bytes: Lost,
    kind: Kind,
    exporter: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exporter_bytes: Lost,
    name: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_bytes: Lost,
    origin: Option<JsonOrigin<'a>>,
    older: u64,
    older_died: u64,
    born: u64,
    died: u64,
    left: u64,
    bytes: Option<Bytes>,
    shared: u64,
    cohorts: Vec<JsonCohort>,
    slope: Option<JsonSlope>,
    restarts: u64,
    judged_from_s: f64,
    judged_until_s: f64,
    span_s: f64,
    oldest_s: Option<f64>,
    leak_shape: Option<LeakShape>,
    trend: &'a [u64],
}

#[derive(Serialize)]
struct JsonOrigin<'a> {
    command: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_bytes: Lost,
    stack: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack_bytes: Lost,
}

impl JsonOrigin<'_> {
    fn of(origin: &SuspectOrigin) -> JsonOrigin<'_> {
        let SuspectOrigin { command, stack } = origin;
        JsonOrigin {
            command,
            command_bytes: lost_bytes(Some(command)),
            stack: stack.as_ref(),
            stack_bytes: lost_bytes(stack.as_ref()),
        }
    }
}

#[derive(Serialize)]
struct JsonCohort {
    born: u64,
    left: u64,
}

#[derive(Serialize)]
struct JsonSlope {
    buffers_per_hour: f64,
    bytes_per_hour: Option<f64>,
    r2: Option<f64>,
}

impl JsonSlope {
    fn of(slope: Slope) -> JsonSlope {
        JsonSlope {
            buffers_per_hour: thousandths(slope.buffers_per_hour),
            bytes_per_hour: slope.bytes_per_hour.map(f64::round),
            r2: slope.r2.map(thousandths),
        }
    }
}

#[derive(Serialize)]
struct JsonFences<'a> {
    comm: &'a Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm_bytes: Lost,
    cgroup: Option<&'a Label>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_bytes: Lost,
    first: u64,
    last: u64,
    per_hour: Option<f64>,
    r2: Option<f64>,
    rising: bool,
}

impl JsonFences<'_> {
    fn of(fences: &Fences) -> JsonFences<'_> {
        let (comm, cgroup) = (&fences.holder.comm, fences.holder.cgroup.as_ref());
        JsonFences {
            comm,
            comm_bytes: lost_bytes(Some(comm)),
            cgroup,
            cgroup_bytes: lost_bytes(cgroup),
            first: fences.first,
            last: fences.last,
            per_hour: fences.per_hour.map(thousandths),
            r2: fences.r2.map(thousandths),
            rising: fences.is_rising,
        }
    }
}

/// A number with three decimals.
fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// A time in seconds with three decimals.
fn seconds(time: Duration) -> f64 {
    thousandths(time.as_secs_f64())
}

impl JsonSuspect<'_> {
    fn of(suspect: &Suspect) -> JsonSuspect<'_> {
        let Suspect { key, growth, older, older_died, born, died, bytes, shared, restarts, .. } = suspect;
        let comm = key.holder.as_ref().map(|holder| &holder.comm);
        let cgroup = key.holder.as_ref().and_then(|holder| holder.cgroup.as_ref());
        let cohort = |&Cohort { born, left }: &Cohort| JsonCohort { born, left };
        JsonSuspect {
            state: growth.as_str(),
            comm,
            comm_bytes: lost_bytes(comm),
            cgroup,
            cgroup_bytes: lost_bytes(cgroup),
            kind: key.kind,
            exporter: key.exporter.as_ref(),
            exporter_bytes: lost_bytes(key.exporter.as_ref()),
            name: key.name.as_ref(),
            name_bytes: lost_bytes(key.name.as_ref()),
            origin: key.origin.as_ref().map(JsonOrigin::of),
            older: *older,
            older_died: *older_died,
            born: *born,
            died: *died,
            left: suspect.left(),
            bytes: *bytes,
            shared: *shared,
            cohorts: suspect.cohorts.iter().map(cohort).collect(),
            slope: suspect.slope.map(JsonSlope::of),
            restarts: *restarts,
            judged_from_s: seconds(suspect.judged.from),
            judged_until_s: seconds(suspect.judged.until),
            span_s: seconds(suspect.span),
            oldest_s: suspect.oldest.map(seconds),
            leak_shape: suspect.shape,
            trend: &suspect.trend,
        }
    }
}

/// Writes these groups as one JSON document. The view's snapshot is that of the last sample.
///
/// # Errors
/// Those of `out`.
pub fn leaks_json(
    out: &mut dyn Write,
    view: &View<'_>,
    suspects: &Suspects,
    rows: &[usize],
    layout: JsonLayout,
) -> io::Result<()> {
    let document = Document {
        schema: "lsbuf.leaks/1",
        host: &view.snapshot().host,
        first_sample: timestamp(suspects.first.taken_at),
        last_sample: timestamp(suspects.last.taken_at),
        length_s: seconds(suspects.length),
        samples: suspects.samples,
        partial_samples: suspects.partial,
        states: States::of(suspects),
        groups: Rows(|| rows.iter().filter_map(|&row| suspects.groups.get(row)).map(JsonSuspect::of)),
        sync_files: Rows(|| suspects.fences.iter().map(JsonFences::of)),
    };
    layout::document(out, &document, layout)
}
