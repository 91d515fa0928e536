//! Processes and their states.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};

use super::super::SampleId;
use super::super::table::{self, RowId, Table};
use super::super::value::{Json, Unsigned, count, json, label, maybe};
use super::Unreadable;
use crate::model::{Label, Pid, Process, ProcessDetails};

pub(in super::super) const PROCESS_STATE: Table =
    Table::new("process_state", &["process", "comm", "uid", "cgroup", "sync_files", "details"]);

/// The row of that process; a new one if it has none.
pub(in super::super) fn process_row(
    db: &Connection,
    boot: RowId,
    process: &Process,
) -> rusqlite::Result<RowId> {
    let values = (boot.0, process.pid.0, process.start_time.cast_signed());
    let known = db
        .prepare_cached("SELECT id FROM process WHERE boot = ?1 AND pid = ?2 AND start_time = ?3")?
        .query_row(values, |row| row.get(0))
        .optional()?;
    match known {
        Some(known) => Ok(RowId(known)),
        None => table::insert(
            db,
            "process",
            IDENTITY,
            vec![Value::Integer(values.0), Value::Integer(values.1.into()), Value::Integer(values.2)],
        ),
    }
}

/// A process's state.
pub(in super::super) fn process_state(row: RowId, process: &Process) -> Vec<Value> {
    vec![
        Value::Integer(row.0),
        label(&process.comm),
        maybe(process.uid, |uid| Value::Integer(uid.into())),
        maybe(process.cgroup.as_ref(), label),
        count(process.sync_files),
        maybe(process.details.as_deref(), json),
    ]
}

/// The columns of table process.
const IDENTITY: &[&str] = &["boot", "pid", "start_time"];

/// The processes at a sample.
#[derive(Debug, Default)]
pub(in super::super) struct Processes {
    /// By pid.
    pub(in super::super) all: Vec<Process>,
    /// The pid of each process's row.
    pub(in super::super) pids: HashMap<i64, Pid>,
    /// How many rows were read.
    pub(in super::super) rows: u64,
}

/// Reads the processes at a sample.
pub(in super::super) fn read_processes(db: &Connection, sample: SampleId) -> Result<Processes, Unreadable> {
    let mut found = Processes::default();
    found.rows = PROCESS_STATE.each_at(db, sample, |row| {
        let process = read_process(db, row)?;
        found.pids.insert(row.get("process")?, process.pid);
        found.all.push(process);
        Ok(())
    })?;
    found.all.sort_by_key(|process| process.pid);
    Ok(found)
}

/// The process of a row of its states.
pub(in super::super) fn read_process(db: &Connection, state: &Row<'_>) -> Result<Process, Unreadable> {
    let identity = |row: &Row<'_>| Ok((Pid(row.get("pid")?), row.get::<_, Unsigned>("start_time")?.0));
    let (pid, start_time) = table::get(db, "process", IDENTITY, RowId(state.get("process")?), identity)?;
    let details: Option<Json<ProcessDetails>> = state.get("details")?;
    Ok(Process {
        pid,
        start_time,
        comm: state.get::<_, Label>("comm")?,
        uid: state.get("uid")?,
        cgroup: state.get::<_, Option<Label>>("cgroup")?,
        sync_files: state.get::<_, Option<Unsigned>>("sync_files")?.map(|n| n.0),
        details: details.map(|details| Box::new(details.0)),
    })
}
