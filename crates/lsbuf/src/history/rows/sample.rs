//! Samples, and the runs and boots that they belong to.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};

use super::super::table::{self, RowId};
use super::super::value::{Json, Unsigned, json, maybe, micros, number, time};
use super::super::{Sample, SampleId};
use super::Unreadable;
use crate::model::{Coverage, Host, Kind, Kinds, ProcessCounts, Snapshot};

const BOOT: &[&str] = &["machine_id", "boot_id", "hostname", "kernel"];
const RUN: &[&str] = &["boot", "lsbuf", "looked_for"];
const SAMPLE: &[&str] = &[
    "run",
    "taken_at",
    "boottime",
    "duration",
    "processes_total",
    "processes_read",
    "processes_unreadable",
    "processes_vanished",
    "rows",
];

/// The row of that boot of a machine; a new one if it has none.
pub(in super::super) fn boot_row(
    db: &Connection,
    machine: Option<&str>,
    host: &Host,
) -> rusqlite::Result<RowId> {
    let Host { hostname, kernel, boot_id } = host;
    let texts = [machine, boot_id.as_deref(), hostname.as_deref(), kernel.as_deref()];
    let known = db
        .prepare_cached(
            "SELECT id FROM boot WHERE machine_id IS ?1 AND boot_id IS ?2 AND hostname IS ?3 \
             AND kernel IS ?4",
        )?
        .query_row(texts, |row| row.get(0))
        .optional()?;
    let values = || texts.map(|text| maybe(text.map(str::to_owned), Value::Text)).to_vec();
    known.map_or_else(|| table::insert(db, "boot", BOOT, values()), |row| Ok(RowId(row)))
}

/// Adds a run: from one start of the recorder to its end, in one boot and with the same kinds.
pub(in super::super) fn add_run(db: &Connection, boot: RowId, kinds: Kinds) -> rusqlite::Result<RowId> {
    let looked_for: Vec<Kind> = kinds.iter().collect();
    let version = Value::Text(env!("CARGO_PKG_VERSION").to_owned());
    table::insert(db, "run", RUN, vec![Value::Integer(boot.0), version, json(looked_for)])
}

/// Adds a sample at which that many rows hold.
pub(in super::super) fn add_sample(
    db: &Connection,
    run: RowId,
    snapshot: &Snapshot,
    boottime: Duration,
    rows: u64,
) -> rusqlite::Result<Sample> {
    let of = |duration: Duration| number(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    let ProcessCounts { total, read, unreadable, vanished } = snapshot.coverage.processes;
    let taken_at = micros(snapshot.taken_at);
    let mut values = vec![Value::Integer(run.0), Value::Integer(taken_at), of(boottime)];
    values.push(of(snapshot.coverage.duration));
    values.extend([total, read, unreadable, vanished, rows].map(number));
    let id = table::insert(db, "sample", SAMPLE, values)?;
    Ok(Sample { id: SampleId(id.0), taken_at: time(taken_at), boottime })
}

/// When a sample was taken, from a row with `id`, `taken_at` and `boottime`.
pub(in super::super) fn sample(row: &Row<'_>) -> rusqlite::Result<Sample> {
    Ok(Sample {
        id: SampleId(row.get("id")?),
        taken_at: time(row.get("taken_at")?),
        boottime: Duration::from_micros(row.get::<_, Unsigned>("boottime")?.0),
    })
}

/// When that sample was taken; `None`: it is not there any more.
pub(in super::super) fn find_sample(db: &Connection, id: SampleId) -> rusqlite::Result<Option<Sample>> {
    let sql = "SELECT id, taken_at, boottime FROM sample WHERE id = ?1";
    db.prepare_cached(sql)?.query_row([id.0], sample).optional()
}

/// Of which boot a run is, and what it looks for.
pub(in super::super) fn read_run(db: &Connection, run: RowId) -> Result<(RowId, Kinds), Unreadable> {
    table::get(db, "run", RUN, run, |row| {
        let looked_for = row.get::<_, Json<Vec<Kind>>>("looked_for")?.0;
        Ok((RowId(row.get("boot")?), looked_for.into_iter().collect()))
    })
}

/// The machine in a boot.
pub(in super::super) fn read_host(db: &Connection, boot: RowId) -> Result<Host, Unreadable> {
    table::get(db, "boot", BOOT, boot, |row| {
        Ok(Host { hostname: row.get("hostname")?, kernel: row.get("kernel")?, boot_id: row.get("boot_id")? })
    })
}

/// What a sample has of its own, without buffers and processes, and how many rows hold at it.
pub(in super::super) fn read_sample(
    db: &Connection,
    sample: SampleId,
    mut coverage: Coverage,
) -> Result<(Snapshot, u64), Unreadable> {
    let (run, taken_at, rows) = table::get(db, "sample", SAMPLE, RowId(sample.0), |row| {
        let number = |column: &str| row.get::<_, Unsigned>(column).map(|number| number.0);
        coverage.duration = Duration::from_micros(number("duration")?);
        coverage.processes = ProcessCounts {
            total: number("processes_total")?,
            read: number("processes_read")?,
            unreadable: number("processes_unreadable")?,
            vanished: number("processes_vanished")?,
        };
        Ok((RowId(row.get("run")?), time(row.get("taken_at")?), number("rows")?))
    })?;
    let (boot, kinds) = read_run(db, run)?;
    let host = read_host(db, boot)?;
    let snapshot = Snapshot {
        taken_at,
        host,
        kinds,
        coverage,
        buffers: Vec::new(),
        unheld: None,
        processes: Vec::new(),
        devices: Vec::new(),
        mount_points: BTreeMap::new(),
    };
    Ok((snapshot, rows))
}
