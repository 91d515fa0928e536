//! Reads a recording: which samples it has, and the snapshot of each.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension};

use super::file;
use super::rows::{self, Unreadable, sample};
use super::value::micros;
use crate::error::{Error, ErrorKind};
use crate::model::Snapshot;

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

    /// That of a recorder.
    pub(super) fn of(path: PathBuf, db: Connection) -> Recording {
        Recording { path, db }
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
        self.reading(|db| read_snapshot(db, sample))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads in one transaction, so that a writer does not change what is read meanwhile.
    pub(super) fn reading<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Unreadable>,
    ) -> Result<T, Error> {
        let begun = self.db.unchecked_transaction().map_err(Unreadable::from);
        begun.and_then(|_transaction| read(&self.db)).map_err(|error| match error {
            Unreadable::Sqlite(error) => self.failed(&error),
            Unreadable::Elsewhere(error) => error,
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

fn read_snapshot(db: &Connection, sample: SampleId) -> Result<Snapshot, Unreadable> {
    let (coverage, coverage_rows) = rows::read_coverage(db, sample)?;
    let (mut snapshot, rows_then) = rows::read_sample(db, sample, coverage)?;
    let processes = rows::read_processes(db, sample)?;
    let (mut buffers, buffer_rows) = rows::read_buffers(db, sample)?;
    let holder_rows = rows::read_holders(db, sample, &processes.pids, &mut buffers)?;
    let origin_rows = rows::read_origins(db, sample, &mut buffers)?;
    let (devices, device_rows) = rows::read_devices(db, sample)?;
    let (mount_points, point_rows) = rows::read_mount_points(db, sample)?;
    let rows =
        coverage_rows + processes.rows + buffer_rows + holder_rows + origin_rows + device_rows + point_rows;
    if rows != rows_then {
        return Err(Unreadable::from(format!("sample {} had {rows_then} rows and has {rows}", sample.0)));
    }
    (snapshot.processes, snapshot.devices, snapshot.mount_points) = (processes.all, devices, mount_points);
    snapshot.buffers = buffers.into_values().collect();
    snapshot.buffers.sort_unstable_by_key(|buffer| buffer.id);
    for buffer in &mut snapshot.buffers {
        buffer.holders.sort_unstable_by_key(|holder| holder.pid);
    }
    Ok(snapshot)
}
