//! Buffers, their states, and who holds them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::super::SampleId;
use super::super::table::{self, RowId, Table};
use super::super::value::{
    Json, Unsigned, Word, bytes, count, flag, json, json_list, label, maybe, nanos, number, word,
};
use super::Unreadable;
use crate::model::deserialize::parts::JsonParts;
use crate::model::serialize::parts::parts;
use crate::model::{
    Buffer, BufferId, Bytes, Fd, Holder, Inode, IpcNamespace, Label, MapRef, NameLives, Pid, Residual,
    ThreadFds, measure,
};

pub(in super::super) const BUFFER_STATE: Table = Table::new(
    "buffer_state",
    &[
        "buffer",
        "size",
        "charged",
        "swapped",
        "huge_page",
        "deleted",
        "name",
        "exporter",
        "created_at",
        "creator_uid",
        "name_stays",
        "count",
        "fd",
        "map",
        "opath",
        "in_flight",
        "io_uring",
        "exe",
        "kernel",
        "estimate_reason",
        "leak_shape",
        "parts",
    ],
);

pub(in super::super) const HOLDING: Table = Table::new(
    "holding",
    &[
        "buffer",
        "process",
        "fd",
        "map",
        "opath",
        "mapped",
        "runs",
        "fds",
        "opaths",
        "maps",
        "threads",
        "fd_table_of",
        "address_space_of",
    ],
);

/// The row of that buffer; a new one if it has none.
pub(in super::super) fn buffer_row(db: &Connection, boot: RowId, buffer: &Buffer) -> rusqlite::Result<RowId> {
    let BufferId { kind, dev, ino, ipc } = buffer.id;
    let values = [
        Value::Integer(boot.0),
        word(kind.as_str()),
        maybe(dev, |dev| Value::Text(dev.to_string())),
        number(ino.0),
        maybe(ipc, |ipc| number(ipc.0.0)),
    ];
    let newest = db
        .prepare_cached(
            "SELECT buffer.id, state.created_at FROM buffer JOIN buffer_state AS state \
             ON state.buffer = buffer.id WHERE boot = ?1 AND kind = ?2 AND dev IS ?3 AND ino = ?4 \
             AND ipc_namespace IS ?5 ORDER BY state.id DESC LIMIT 1",
        )?
        .query_row(params_from_iter(&values), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match newest {
        Some((row, created_at)) if is_born(buffer, time_of_nanos(created_at)) => Ok(RowId(row)),
        _ => table::insert(db, "buffer", IDENTITY, values.to_vec()),
    }
}

/// The boot of that buffer.
pub(in super::super) fn boot_of(db: &Connection, row: RowId) -> Result<RowId, Unreadable> {
    table::get(db, "buffer", IDENTITY, row, |row| row.get("boot").map(RowId))
}

/// A buffer's state.
pub(in super::super) fn buffer_state(row: RowId, buffer: &Buffer, saw_every_process: bool) -> Vec<Value> {
    let (account, shape) = measure(buffer, saw_every_process);
    vec![
        Value::Integer(row.0),
        bytes(buffer.size),
        bytes(buffer.charged),
        bytes(buffer.swapped),
        bytes(buffer.huge_page),
        maybe(buffer.deleted, flag),
        maybe(buffer.name.as_ref(), label),
        maybe(buffer.exporter.as_ref(), label),
        maybe(buffer.created_at, nanos),
        maybe(buffer.creator_uid, |uid| Value::Integer(uid.into())),
        maybe(buffer.name_lives.stays(), flag),
        count(buffer.count),
        number(account.fd),
        number(account.map),
        number(account.opath),
        count(buffer.in_flight),
        count(buffer.io_uring),
        count(buffer.exe),
        count(buffer.residual.number()),
        maybe(buffer.residual.why(), |why| word(why.as_str())),
        maybe(shape, |shape| word(shape.as_str())),
        maybe(parts(buffer), json),
    ]
}

/// What a process holds of a buffer.
pub(in super::super) fn holding(buffer: RowId, process: RowId, holder: &Holder) -> Vec<Value> {
    vec![
        Value::Integer(buffer.0),
        Value::Integer(process.0),
        number(holder.fd_refs()),
        number(holder.map_refs()),
        number(holder.opath_refs()),
        number(holder.mapped().0),
        flag(holder.runs),
        json_list(&holder.fds),
        json_list(&holder.opaths),
        json_list(&holder.maps),
        json_list(&holder.threads),
        maybe(holder.fd_table_of, |pid| Value::Integer(pid.0.into())),
        maybe(holder.address_space_of, |pid| Value::Integer(pid.0.into())),
    ]
}

/// Whether a buffer is the one that had its identity and was made at that time.
fn is_born(buffer: &Buffer, created_at: Option<SystemTime>) -> bool {
    Buffer { created_at, ..Buffer::new(buffer.id) }.is_same(buffer)
}

/// The columns of table buffer.
const IDENTITY: &[&str] = &["boot", "kind", "dev", "ino", "ipc_namespace"];

/// The buffers at a sample, by their rows, without holders, and how many rows were read.
pub(in super::super) fn read_buffers(
    db: &Connection,
    sample: SampleId,
) -> Result<(HashMap<i64, Buffer>, u64), Unreadable> {
    let mut buffers = HashMap::new();
    let rows = BUFFER_STATE.each_at(db, sample, |row| {
        let key: i64 = row.get("buffer")?;
        buffers.insert(key, read_buffer(db, row)?);
        Ok(())
    })?;
    Ok((buffers, rows))
}

/// The buffer of a row of its states, without holders.
pub(in super::super) fn read_buffer(db: &Connection, state: &Row<'_>) -> Result<Buffer, Unreadable> {
    let mut buffer = table::get(db, "buffer", IDENTITY, RowId(state.get("buffer")?), identity)?;
    fill(&mut buffer, state)?;
    Ok(buffer)
}

fn identity(row: &Row<'_>) -> rusqlite::Result<Buffer> {
    let ipc: Option<Unsigned> = row.get("ipc_namespace")?;
    let id = BufferId {
        kind: row.get::<_, Word<_>>("kind")?.0,
        dev: row.get::<_, Option<Word<_>>>("dev")?.map(|dev| dev.0),
        ino: Inode(row.get::<_, Unsigned>("ino")?.0),
        ipc: ipc.map(|ipc| IpcNamespace(Inode(ipc.0))),
    };
    Ok(Buffer::new(id))
}

fn time_of_nanos(nanos: Option<i64>) -> Option<SystemTime> {
    let nanos = nanos.and_then(|nanos| u64::try_from(nanos).ok())?;
    UNIX_EPOCH.checked_add(Duration::from_nanos(nanos))
}

fn fill(buffer: &mut Buffer, row: &Row<'_>) -> Result<(), Unreadable> {
    let number = |column: &str| row.get::<_, Option<Unsigned>>(column).map(|n| n.map(|n| n.0));
    let size = |column: &str| number(column).map(|n| n.map(Bytes));
    buffer.size = size("size")?;
    buffer.charged = size("charged")?;
    buffer.swapped = size("swapped")?;
    buffer.huge_page = size("huge_page")?;
    buffer.deleted = row.get("deleted")?;
    buffer.name = row.get::<_, Option<Label>>("name")?;
    buffer.exporter = row.get::<_, Option<Label>>("exporter")?;
    buffer.created_at = time_of_nanos(row.get("created_at")?);
    buffer.creator_uid = row.get("creator_uid")?;
    buffer.name_lives = NameLives::of_stays(row.get("name_stays")?);
    buffer.count = number("count")?;
    buffer.in_flight = number("in_flight")?;
    buffer.io_uring = number("io_uring")?;
    buffer.exe = number("exe")?;
    let why = row.get::<_, Option<Word<_>>>("estimate_reason")?.map(|why| why.0);
    buffer.residual = Residual::of_parts(number("kernel")?, why)
        .ok_or_else(|| "a residual that is unknown has no estimate_reason".to_owned())?;
    if let Some(Json(parts)) = row.get::<_, Option<Json<JsonParts>>>("parts")? {
        parts.fill(buffer)?;
    }
    Ok(())
}

/// Gives the buffers at a sample their holders. `pids` has the pid of each process's row.
pub(in super::super) fn read_holders(
    db: &Connection,
    sample: SampleId,
    pids: &HashMap<i64, Pid>,
    buffers: &mut HashMap<i64, Buffer>,
) -> Result<u64, Unreadable> {
    HOLDING.each_at(db, sample, |row| {
        let of: (i64, i64) = (row.get("buffer")?, row.get("process")?);
        let (Some(buffer), Some(&pid)) = (buffers.get_mut(&of.0), pids.get(&of.1)) else {
            return Err(Unreadable::from(format!(
                "buffer {} is held by process {} and one of them is missing",
                of.0, of.1
            )));
        };
        buffer.holders.push(read_holder(row, pid)?);
        Ok(())
    })
}

/// What that process holds by a row of holdings.
pub(in super::super) fn read_holder(row: &Row<'_>, pid: Pid) -> Result<Holder, Unreadable> {
    let tgid = |column: &str| row.get::<_, Option<u32>>(column).map(|pid| pid.map(Pid));
    Ok(Holder {
        fds: list::<Fd>(row, "fds")?.into(),
        opaths: list::<Fd>(row, "opaths")?.into(),
        maps: list::<MapRef>(row, "maps")?.into(),
        threads: list::<ThreadFds>(row, "threads")?.into(),
        runs: row.get("runs")?,
        fd_table_of: tgid("fd_table_of")?,
        address_space_of: tgid("address_space_of")?,
        ..Holder::new(pid)
    })
}

fn list<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Vec<T>> {
    Ok(row.get::<_, Option<Json<Vec<T>>>>(column)?.map_or_else(Vec::new, |list| list.0))
}
