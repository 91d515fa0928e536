//! Reads a recording: which samples it has, and the snapshot of each.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, Row};

use super::file;
use super::rows::{self, Unreadable};
use super::value::{Json, Unsigned, micros, time};
use crate::error::{Error, ErrorKind};
use crate::model::{Host, Kind, ProcessCounts, Snapshot};

/// A file of recorded snapshots, open to be read. Another process may write into it meanwhile.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    db: Connection,
}

/// A sample of a recording. Later ones have larger numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleId(pub i64);

/// When a sample was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sample {
    /// Which.
    pub id: SampleId,
    /// By the wall clock, to the microsecond. It may be set back between two samples.
    pub taken_at: SystemTime,
    /// Time since boot, suspends included (CLOCK_BOOTTIME).
    pub boottime: Duration,
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    /// If the file cannot be opened, is no recording, or was written by a newer release.
    pub fn open(path: impl AsRef<Path>) -> Result<Recording, Error> {
        let path = path.as_ref();
        Ok(Recording { path: path.to_owned(), db: file::open_to_read(path)? })
    }

    /// Every sample, in the order in which they were taken.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn samples(&self) -> Result<Vec<Sample>, Error> {
        let sql = "SELECT id, taken_at, boottime FROM sample ORDER BY id";
        let mut statement = self.db.prepare_cached(sql).map_err(|error| self.failed(&error))?;
        let samples = statement.query_map([], sample).and_then(Iterator::collect);
        samples.map_err(|error| self.failed(&error))
    }

    /// The first and the last sample; `None`: there is none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn span(&self) -> Result<Option<(Sample, Sample)>, Error> {
        let end = |order: &str| {
            let sql = format!("SELECT id, taken_at, boottime FROM sample ORDER BY id {order} LIMIT 1");
            self.db.query_row(&sql, [], sample).optional().map_err(|error| self.failed(&error))
        };
        Ok(end("ASC")?.zip(end("DESC")?))
    }

    /// The last sample that was taken at or before that time. `None`: all were taken later.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn sample_at(&self, at: SystemTime) -> Result<Option<Sample>, Error> {
        let sql = "SELECT id, taken_at, boottime FROM sample WHERE taken_at <= ?1 ORDER BY id DESC LIMIT 1";
        let found = self.db.query_row(sql, [micros(at)], sample).optional();
        found.map_err(|error| self.failed(&error))
    }

    /// What was found in a sample.
    ///
    /// # Errors
    /// If there is no such sample, or the file cannot be read.
    pub fn snapshot(&self, sample: SampleId) -> Result<Snapshot, Error> {
        // One transaction, so that a writer does not change what is read.
        let read = self.db.unchecked_transaction().map_err(Unreadable::from);
        read.and_then(|_transaction| read_snapshot(&self.db, sample)).map_err(|error| match error {
            Unreadable::Sqlite(error) => self.failed(&error),
            Unreadable::Nonsense(text) => {
                let path = self.path.display();
                Error::new(ErrorKind::NotRecording, format!("{path} is damaged: {text}"))
            }
        })
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        file::failed(&self.path, error)
    }
}

fn sample(row: &Row<'_>) -> rusqlite::Result<Sample> {
    Ok(Sample {
        id: SampleId(row.get("id")?),
        taken_at: time(row.get("taken_at")?),
        boottime: Duration::from_micros(row.get::<_, Unsigned>("boottime")?.0),
    })
}

fn read_snapshot(db: &Connection, sample: SampleId) -> Result<Snapshot, Unreadable> {
    let mut snapshot = read_sample(db, sample)?;
    let (processes, pids) = rows::read_processes(db, sample)?;
    let mut buffers = rows::read_buffers(db, sample)?;
    rows::read_holders(db, sample, &pids, &mut buffers)?;
    snapshot.processes = processes;
    snapshot.buffers = buffers.into_values().collect();
    snapshot.buffers.sort_unstable_by_key(|buffer| buffer.id);
    for buffer in &mut snapshot.buffers {
        buffer.holders.sort_unstable_by_key(|holder| holder.pid);
    }
    snapshot.devices = rows::read_devices(db, sample)?;
    snapshot.mount_points = rows::read_mount_points(db, sample)?;
    Ok(snapshot)
}

/// What a sample has of its own, without buffers and processes.
fn read_sample(db: &Connection, sample: SampleId) -> Result<Snapshot, Unreadable> {
    let mut coverage = rows::read_coverage(db, sample)?;
    let sql = "SELECT sample.*, run.looked_for, boot.hostname, boot.kernel, boot.boot_id FROM sample \
               JOIN run ON run.id = sample.run JOIN boot ON boot.id = run.boot WHERE sample.id = ?1";
    let read = |row: &Row<'_>| {
        let number = |column: &str| row.get::<_, Unsigned>(column).map(|number| number.0);
        coverage.duration = Duration::from_micros(number("duration")?);
        coverage.processes = ProcessCounts {
            total: number("processes_total")?,
            read: number("processes_read")?,
            unreadable: number("processes_unreadable")?,
            vanished: number("processes_vanished")?,
        };
        let host =
            Host { hostname: row.get("hostname")?, kernel: row.get("kernel")?, boot_id: row.get("boot_id")? };
        let looked_for: Json<Vec<Kind>> = row.get("looked_for")?;
        Ok(Snapshot {
            taken_at: time(row.get("taken_at")?),
            host,
            kinds: looked_for.0.into_iter().collect(),
            coverage: std::mem::take(&mut coverage),
            buffers: Vec::new(),
            unheld: None,
            processes: Vec::new(),
            devices: Vec::new(),
            mount_points: std::collections::BTreeMap::new(),
        })
    };
    let found = db.query_row(sql, [sample.0], read).optional()?;
    found.ok_or_else(|| Unreadable::from(format!("it has no sample {}", sample.0)))
}
