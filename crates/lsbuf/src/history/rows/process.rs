//! Processes and their states.

use std::collections::HashMap;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension};

use super::super::SampleId;
use super::super::table::{RowId, Table};
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
        None => db
            .prepare_cached("INSERT INTO process (boot, pid, start_time) VALUES (?, ?, ?)")?
            .insert(values)
            .map(RowId),
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

/// The processes at a sample, and the pid of each process's row.
pub(in super::super) fn read_processes(
    db: &Connection,
    sample: SampleId,
) -> Result<(Vec<Process>, HashMap<i64, Pid>), Unreadable> {
    let mut identities = db.prepare_cached("SELECT pid, start_time FROM process WHERE id = ?1")?;
    let (mut processes, mut pids) = (Vec::new(), HashMap::new());
    PROCESS_STATE.each_at(db, sample, |row| {
        let key: i64 = row.get("process")?;
        let (pid, start_time): (u32, Unsigned) =
            identities.query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
        pids.insert(key, Pid(pid));
        processes.push(Process {
            pid: Pid(pid),
            start_time: start_time.0,
            comm: row.get::<_, Label>("comm")?,
            uid: row.get("uid")?,
            cgroup: row.get::<_, Option<Label>>("cgroup")?,
            sync_files: row.get::<_, Option<Unsigned>>("sync_files")?.map(|n| n.0),
            details: row
                .get::<_, Option<Json<ProcessDetails>>>("details")?
                .map(|details| Box::new(details.0)),
        });
        Ok::<(), Unreadable>(())
    })?;
    processes.sort_by_key(|process| process.pid);
    Ok((processes, pids))
}
