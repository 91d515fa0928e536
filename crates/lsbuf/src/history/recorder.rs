//! Appends snapshots to a recording.
//!
//! The recorder keeps the newest snapshot and the rows that still hold. A new snapshot is compared
//! with it, and only what differs is written. Each snapshot is one transaction: after a crash the
//! file has all of a sample or nothing of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode};
use rustix::time::{ClockId, clock_gettime};

use super::file::{self, Lock};
use super::keep::{self, Keep, Keeping};
use super::rows::{self, TABLES};
use super::table::{RowId, Table};
use super::{Recording, Sample, SampleId};
use crate::error::Error;
use crate::model::{Buffer, Holder, Host, Kinds, Pid, Process, Snapshot, measure};

/// A recording that is open to be written. Only one process can have it open so.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    db: Connection,
    state: State,
    keeping: Keeping,
    _lock: Option<Lock>,
}

/// What one snapshot added to a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// The sample that it became.
    pub sample: Sample,
    /// How many rows began or ended, beside the sample's own.
    pub changes: u64,
}

/// What was written last.
#[derive(Debug, Default)]
struct State {
    machine: Option<String>,
    run: Option<Run>,
    newest: Option<Newest>,
}

/// The run of this recorder, of one boot and one set of kinds.
#[derive(Clone, Debug)]
struct Run {
    row: RowId,
    boot: RowId,
    host: Host,
    kinds: Kinds,
}

/// The newest snapshot and the rows that hold in it.
#[derive(Debug)]
struct Newest {
    snapshot: Snapshot,
    open: Open,
}

/// The rows that hold in a sample.
#[derive(Debug)]
struct Open {
    sample: SampleId,
    processes: HashMap<Pid, OpenProcess>,
    /// One for each of the snapshot's buffers.
    buffers: Vec<OpenBuffer>,
    /// Rows of the small tables, with what they have.
    others: Vec<(usize, Vec<Value>, RowId)>,
}

#[derive(Clone, Copy, Debug)]
struct OpenProcess {
    row: RowId,
    state: RowId,
}

#[derive(Debug)]
struct OpenBuffer {
    row: RowId,
    state: RowId,
    origin: Option<RowId>,
    /// One for each holder.
    holdings: Vec<RowId>,
}

impl Recorder {
    /// Opens a recording to append to it, and makes it if it is not there.
    ///
    /// # Errors
    /// If the file cannot be opened or made, is no recording, was written by a newer release, or
    /// another process records into it.
    pub fn open(path: impl AsRef<Path>, keep: Keep) -> Result<Recorder, Error> {
        let path = path.as_ref();
        let (db, lock) = file::open_to_write(path)?;
        let keeping = Keeping::new(path, keep);
        let recorder =
            Recorder { path: path.to_owned(), db, state: State::default(), keeping, _lock: Some(lock) };
        recorder.end_run().map_err(|error| file::failed(path, &error))?;
        Ok(recorder)
    }

    /// Names the machine that is recorded, so that recordings of many can be told apart
    /// ([`export`](super::export)). On Linux machine-id(5) is meant for that. To be called before
    /// the first snapshot.
    pub fn set_machine(&mut self, id: Option<String>) {
        self.state.machine = id;
    }

    /// Makes a recording in memory. It has room for as much as memory has.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn in_memory() -> Result<Recorder, Error> {
        let db = file::open_in_memory()?;
        let (path, keeping) = (PathBuf::from(file::IN_MEMORY), Keeping::of_memory());
        Ok(Recorder { path, db, state: State::default(), keeping, _lock: None })
    }

    /// Appends a snapshot, and deletes what is older or more than is to be kept. If the disk is
    /// full, the oldest samples are deleted first, then the snapshot is given up.
    ///
    /// # Errors
    /// If the file cannot be written. Then nothing of the snapshot is in it, and the next one can
    /// be appended.
    pub fn append(&mut self, snapshot: Snapshot) -> Result<Appended, Error> {
        let boottime = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(boottime.tv_sec).unwrap_or_default();
        self.append_at(snapshot, Duration::new(seconds, u32::try_from(boottime.tv_nsec).unwrap_or_default()))
    }

    /// Appends a snapshot that was taken so long after the boot.
    pub(crate) fn append_at(
        &mut self,
        mut snapshot: Snapshot,
        boottime: Duration,
    ) -> Result<Appended, Error> {
        leave_out(&mut snapshot);
        let mut written = self.write(&snapshot, boottime);
        if written.as_ref().is_err_and(is_full) && self.keeping.make_room(&self.db) {
            written = self.write(&snapshot, boottime);
        }
        let (run, open, appended) = written.map_err(|error| file::failed(&self.path, &error))?;
        let kept = self.keeping.keep(&self.db, appended.sample, run.boot);
        (self.state.run, self.state.newest) = (Some(run), Some(Newest { snapshot, open }));
        kept.map_err(|error| file::failed(&self.path, &error))?;
        Ok(appended)
    }

    /// Ends the recording: what held in the last sample is marked as having held until then.
    ///
    /// # Errors
    /// If the file cannot be written. It is valid even then.
    pub fn close(self) -> Result<(), Error> {
        self.finish().map(drop)
    }

    /// Ends the recording, as [`Recorder::close`] does, and opens it to be read.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(self) -> Result<Recording, Error> {
        self.keeping.leave();
        self.end_run().map_err(|error| file::failed(&self.path, &error))?;
        Ok(Recording::of(self.path, self.db))
    }

    /// The size of the recording in bytes, without SQLite's log.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn size(&self) -> Result<u64, Error> {
        keep::size(&self.db).map_err(|error| file::failed(&self.path, &error))
    }

    fn end_run(&self) -> rusqlite::Result<()> {
        let transaction = self.db.unchecked_transaction()?;
        if let Some(last) = newest_sample(&self.db)? {
            TABLES.iter().try_for_each(|table| table.end_all(&self.db, last))?;
        }
        transaction.commit()
    }

    fn write(&self, snapshot: &Snapshot, boottime: Duration) -> rusqlite::Result<(Run, Open, Appended)> {
        let transaction = self.db.unchecked_transaction()?;
        let run = self.state.run_of(&self.db, snapshot)?;
        // What one run found says nothing of what another one looks for.
        let before = self.state.newest.as_ref().filter(|_| self.state.is_run(&run));
        if before.is_none()
            && let Some(newest) = &self.state.newest
        {
            TABLES.iter().try_for_each(|table| table.end_all(&self.db, newest.open.sample))?;
        }
        let newest = newest_sample(&self.db)?.map_or(0, |newest| newest.0);
        let mut writer =
            Writer { db: &self.db, boot: run.boot, sample: SampleId(newest + 1), before, changes: 0 };
        let processes = writer.processes(&snapshot.processes)?;
        let buffers = writer.buffers(snapshot, &processes)?;
        let others = writer.others(snapshot)?;
        let changes = writer.changes;
        let holdings: usize = buffers.iter().map(|buffer| buffer.holdings.len()).sum();
        let origins = buffers.iter().filter(|buffer| buffer.origin.is_some()).count();
        let rows = processes.len() + buffers.len() + origins + holdings + others.len();
        // Its row gets the next number, which the writer has used already.
        let sample = rows::add_sample(&self.db, run.row, snapshot, boottime, rows as u64)?;
        transaction.commit()?;
        Ok((run, Open { sample: sample.id, processes, buffers, others }, Appended { sample, changes }))
    }
}

pub(super) fn newest_sample(db: &Connection) -> rusqlite::Result<Option<SampleId>> {
    let newest: Option<i64> = db.query_row("SELECT max(id) FROM sample", [], |row| row.get(0))?;
    Ok(newest.map(SampleId))
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Removes what is not recorded: what would change in each sample, and what a process holds that is
/// not in the snapshot.
fn leave_out(snapshot: &mut Snapshot) {
    let known: Vec<Pid> = snapshot.processes.iter().map(|process| process.pid).collect();
    for buffer in &mut snapshot.buffers {
        buffer.holders.retain(|holder| known.binary_search(&holder.pid).is_ok());
    }
    snapshot.unheld = None;
    for details in snapshot.processes.iter_mut().filter_map(|process| process.details.as_mut()) {
        details.rss_shmem = None;
    }
}

impl State {
    /// The run to which a snapshot belongs: that of the one before, or a new one.
    fn run_of(&self, db: &Connection, snapshot: &Snapshot) -> rusqlite::Result<Run> {
        let Snapshot { host, kinds, .. } = snapshot;
        if let Some(run) = self.run.as_ref().filter(|run| run.host == *host && run.kinds == *kinds) {
            return Ok(run.clone());
        }
        let boot = rows::boot_row(db, self.machine.as_deref(), host)?;
        let row = rows::add_run(db, boot, *kinds)?;
        Ok(Run { row, boot, host: host.clone(), kinds: *kinds })
    }

    fn is_run(&self, run: &Run) -> bool {
        self.run.as_ref().is_some_and(|before| before.row == run.row)
    }
}

/// Writes one snapshot.
struct Writer<'a> {
    db: &'a Connection,
    boot: RowId,
    sample: SampleId,
    before: Option<&'a Newest>,
    changes: u64,
}

impl Writer<'_> {
    fn begin(&mut self, table: &Table, values: Vec<Value>) -> rusqlite::Result<RowId> {
        self.changes += 1;
        table.begin(self.db, self.sample, values)
    }

    /// Ends a row with the sample before this one.
    fn end(&mut self, table: &Table, row: RowId) -> rusqlite::Result<()> {
        self.changes += 1;
        match self.before {
            Some(before) => table.end(self.db, row, before.open.sample),
            None => Ok(()),
        }
    }

    fn processes(&mut self, processes: &[Process]) -> rusqlite::Result<HashMap<Pid, OpenProcess>> {
        let mut open = HashMap::with_capacity(processes.len());
        for process in processes {
            let before = self.before.and_then(|before| {
                let same = before.snapshot.process(process.pid)?;
                let row = before.open.processes.get(&process.pid)?;
                (same.start_time == process.start_time).then_some((same, *row))
            });
            let opened = match before {
                Some((same, open)) if same == process => open,
                other => {
                    let row = match other {
                        Some((_, OpenProcess { row, state })) => {
                            self.end(&rows::PROCESS_STATE, state)?;
                            row
                        }
                        None => rows::process_row(self.db, self.boot, process)?,
                    };
                    let state = self.begin(&rows::PROCESS_STATE, rows::process_state(row, process))?;
                    OpenProcess { row, state }
                }
            };
            open.insert(process.pid, opened);
        }
        let gone = self
            .before
            .into_iter()
            .flat_map(|before| &before.open.processes)
            .filter(|(pid, before)| open.get(pid).is_none_or(|now| now.row != before.row));
        for (_, gone) in gone {
            self.end(&rows::PROCESS_STATE, gone.state)?;
        }
        Ok(open)
    }

    fn buffers(
        &mut self,
        snapshot: &Snapshot,
        processes: &HashMap<Pid, OpenProcess>,
    ) -> rusqlite::Result<Vec<OpenBuffer>> {
        let saw = snapshot.coverage.saw_every_process();
        let saw_before = self.before.map(|before| before.snapshot.coverage.saw_every_process());
        let (before, rows): (&[Buffer], &[OpenBuffer]) =
            self.before.map_or((&[], &[]), |before| (&before.snapshot.buffers, &before.open.buffers));
        let mut older = before.iter().zip(rows).peekable();
        let mut open = Vec::with_capacity(snapshot.buffers.len());
        for buffer in &snapshot.buffers {
            while let Some((_, gone)) = older.next_if(|(older, _)| older.id < buffer.id) {
                self.end_buffer(gone)?;
            }
            let same = older.next_if(|(older, _)| older.id == buffer.id);
            let opened = match same {
                Some((was, rows)) if was.is_same(buffer) => {
                    let state = if saw_before == Some(saw) && has_same_state(was, buffer) {
                        rows.state
                    } else {
                        self.end(&rows::BUFFER_STATE, rows.state)?;
                        self.begin(&rows::BUFFER_STATE, rows::buffer_state(rows.row, buffer, saw))?
                    };
                    let held = was.holders.iter().zip(&rows.holdings);
                    OpenBuffer {
                        row: rows.row,
                        state,
                        origin: if was.origin == buffer.origin {
                            rows.origin
                        } else {
                            rows.origin.map_or(Ok(()), |gone| self.end(&rows::ORIGIN, gone))?;
                            self.origin(rows.row, buffer)?
                        },
                        holdings: self.holders(rows.row, &buffer.holders, held, processes)?,
                    }
                }
                other => {
                    if let Some((_, gone)) = other {
                        self.end_buffer(gone)?;
                    }
                    let row = rows::buffer_row(self.db, self.boot, buffer)?;
                    let state = self.begin(&rows::BUFFER_STATE, rows::buffer_state(row, buffer, saw))?;
                    let origin = self.origin(row, buffer)?;
                    let holdings = self.holders(row, &buffer.holders, std::iter::empty(), processes)?;
                    OpenBuffer { row, state, origin, holdings }
                }
            };
            open.push(opened);
        }
        for (_, gone) in older {
            self.end_buffer(gone)?;
        }
        Ok(open)
    }

    /// Who made a buffer, if that was asked.
    fn origin(&mut self, row: RowId, buffer: &Buffer) -> rusqlite::Result<Option<RowId>> {
        let Some(origin) = buffer.origin.as_deref() else { return Ok(None) };
        let values = rows::origin(self.db, row, origin)?;
        self.begin(&rows::ORIGIN, values).map(Some)
    }

    fn end_buffer(&mut self, gone: &OpenBuffer) -> rusqlite::Result<()> {
        gone.origin.map_or(Ok(()), |row| self.end(&rows::ORIGIN, row))?;
        self.end(&rows::BUFFER_STATE, gone.state)?;
        gone.holdings.iter().try_for_each(|&row| self.end(&rows::HOLDING, row))
    }

    fn holders<'h>(
        &mut self,
        buffer: RowId,
        holders: &[Holder],
        before: impl Iterator<Item = (&'h Holder, &'h RowId)>,
        processes: &HashMap<Pid, OpenProcess>,
    ) -> rusqlite::Result<Vec<RowId>> {
        let mut before = before.peekable();
        let mut open = Vec::with_capacity(holders.len());
        for holder in holders {
            while let Some((_, &gone)) = before.next_if(|(older, _)| older.pid < holder.pid) {
                self.end(&rows::HOLDING, gone)?;
            }
            let same = before.next_if(|(older, _)| older.pid == holder.pid);
            let Some(process) = processes.get(&holder.pid) else { continue };
            let was = self.before.and_then(|before| before.open.processes.get(&holder.pid));
            let is_same_process = was.is_some_and(|was| was.row == process.row);
            match same {
                Some((older, &row)) if older == holder && is_same_process => open.push(row),
                other => {
                    if let Some((_, &row)) = other {
                        self.end(&rows::HOLDING, row)?;
                    }
                    open.push(self.begin(&rows::HOLDING, rows::holding(buffer, process.row, holder))?);
                }
            }
        }
        for (_, &gone) in before {
            self.end(&rows::HOLDING, gone)?;
        }
        Ok(open)
    }

    /// Writes the small tables: their rows are compared as a whole.
    fn others(&mut self, snapshot: &Snapshot) -> rusqlite::Result<Vec<(usize, Vec<Value>, RowId)>> {
        let Snapshot { coverage, devices, mount_points, .. } = snapshot;
        let notes = coverage.notes.iter().enumerate().map(|(nth, note)| (NOTE, rows::note(nth, note)));
        let devices = devices.iter().map(|device| (DEVICE, rows::device(device)));
        let points = mount_points.iter().map(|(&dev, path)| (MOUNT_POINT, rows::mount_point(dev, path)));
        let coverage = std::iter::once((COVERAGE, rows::coverage(coverage)));
        let before: &[_] = self.before.map_or(&[], |before| &before.open.others);
        let mut left: Vec<_> = before.iter().collect();
        let mut open = Vec::new();
        for (table, values) in coverage.chain(notes).chain(devices).chain(points) {
            let same = left.iter().position(|(kind, had, _)| *kind == table && *had == values);
            let row = match same {
                Some(index) => left.swap_remove(index).2,
                None => self.begin(OTHERS[table], values.clone())?,
            };
            open.push((table, values, row));
        }
        left.into_iter().try_for_each(|(table, _, row)| self.end(OTHERS[*table], *row))?;
        Ok(open)
    }
}

/// The small tables, by number.
const OTHERS: [&Table; 4] = [&rows::COVERAGE, &rows::NOTE, &rows::DEVICE, &rows::MOUNT_POINT];
const COVERAGE: usize = 0;
const NOTE: usize = 1;
const DEVICE: usize = 2;
const MOUNT_POINT: usize = 3;

/// Whether a buffer's state is as it was. Of its holders, the state has the sums.
fn has_same_state(before: &Buffer, now: &Buffer) -> bool {
    before.is_equal_but_for_holders(now)
        && (before.holders == now.holders || measure(before, true) == measure(now, true))
}
