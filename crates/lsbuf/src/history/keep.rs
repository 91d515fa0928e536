//! How much of the past is kept, and what happens when the disk is full.
//!
//! What is too old or too much is deleted sample by sample, the oldest first, and the file shrinks.
//! While a recording is written, a file with `-reserve` at its end lies beside it. It only takes
//! room. When the disk is full, it is removed: to delete samples takes some room, too.
//!
//! How old a sample is, the clock since boot tells, as long as it is of this boot: the wall clock
//! may be set. Of samples of earlier boots only the wall clock tells, and one that was set while
//! the recorder ran is not believed if it makes them older.
//!
//! Limits: a wall clock that is wrong from the start of the recorder on may delete samples of
//! earlier boots, or keep them until the file is too large. SQLite's log (`-wal`) comes on top of
//! the size that is kept; it has some 4 MiB, and more while somebody reads for long. On filesystems
//! that write every change to a new place, a reserve may not help.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate};

use super::rows::{self, BUFFER_STATE, HOLDING, ORIGIN, PROCESS_STATE, TABLES};
use super::table::RowId;
use super::value::Unsigned;
use super::{Sample, SampleId};
use crate::model::Bytes;

/// How much of the past a recording keeps. The default keeps all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Samples that are older than this are deleted.
    pub age: Option<Duration>,
    /// When the file gets larger than this, the oldest samples are deleted.
    pub size: Option<Bytes>,
}

/// Keeps a recording as large as it may be.
#[derive(Debug)]
pub(super) struct Keeping {
    keep: Keep,
    /// `None`: the recording is in memory.
    reserve: Option<PathBuf>,
    /// The first sample of this recorder.
    first: Option<Sample>,
}

/// Bytes of the reserve. To delete some samples takes a few hundred pages of the log.
const RESERVE: u64 = 2 << 20;

/// How often age and size are looked at: once in so many samples.
const EVERY: i64 = 16;

impl Keeping {
    pub(super) fn new(path: &Path, keep: Keep) -> Keeping {
        let mut reserve = path.as_os_str().to_owned();
        reserve.push("-reserve");
        let keeping = Keeping { keep, reserve: Some(reserve.into()), first: None };
        keeping.take_reserve();
        keeping
    }

    /// Keeps all of a recording in memory.
    pub(super) fn of_memory() -> Keeping {
        Keeping { keep: Keep::default(), reserve: None, first: None }
    }

    /// Deletes what is not to be kept after that sample of that boot was added.
    pub(super) fn keep(&mut self, db: &Connection, newest: Sample, boot: RowId) -> rusqlite::Result<()> {
        let first = *self.first.get_or_insert(newest);
        if newest.id.0 % EVERY != 0 {
            return Ok(());
        }
        if let Some(age) = self.keep.age {
            let passed = newest.boottime.saturating_sub(first.boottime);
            let now = newest.taken_at.min(first.taken_at.checked_add(passed).unwrap_or(newest.taken_at));
            let oldest = first_young(db, age, Sample { taken_at: now, ..newest }, boot)?;
            if has_before(db, oldest)? {
                delete_before(db, oldest)?;
            }
        }
        while let Some(most) = self.keep.size
            && size(db)? > most.0
        {
            let Some(oldest) = after_some(db, newest.id)? else { break };
            delete_before(db, oldest)?;
        }
        Ok(())
    }

    /// Deletes the oldest samples because the disk is full. Returns whether there is room now.
    pub(super) fn make_room(&self, db: &Connection) -> bool {
        // Without it there is no room to delete anything.
        let removed = self.reserve.as_ref().is_some_and(|reserve| std::fs::remove_file(reserve).is_ok());
        let newest = super::recorder::newest_sample(db).ok().flatten();
        let oldest = newest.and_then(|newest| after_some(db, newest).ok().flatten());
        let deleted = oldest.is_some_and(|oldest| delete_before(db, oldest).is_ok());
        if deleted {
            self.take_reserve();
        }
        deleted && removed
    }

    /// Removes the reserve.
    pub(super) fn leave(&self) {
        // It is of no use without the recorder, and does no harm.
        let _ = self.reserve.as_ref().map(std::fs::remove_file);
    }

    /// Takes the reserve, if there is room for it.
    fn take_reserve(&self) {
        let Some(reserve) = &self.reserve else { return };
        let options = File::options().write(true).create(true).truncate(false).open(reserve);
        let taken = options.is_ok_and(|file| fallocate(&file, FallocateFlags::empty(), 0, RESERVE).is_ok());
        if !taken {
            self.leave();
        }
    }
}

/// Bytes of the file, without SQLite's log.
pub(super) fn size(db: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    db.query_row(sql, [], |row| row.get::<_, Unsigned>(0)).map(|size| size.0)
}

/// The first sample that is not older than `age`, `now` and the boot of `now` being these.
fn first_young(db: &Connection, age: Duration, now: Sample, boot: RowId) -> rusqlite::Result<SampleId> {
    let sql = "SELECT sample.id, taken_at, boottime, run.boot FROM sample JOIN run ON run.id = sample.run \
               ORDER BY sample.id";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let sample = rows::sample(row)?;
        let is_of_this_boot = row.get::<_, i64>("boot")? == boot.0;
        let passed = if is_of_this_boot {
            now.boottime.saturating_sub(sample.boottime)
        } else {
            now.taken_at.duration_since(sample.taken_at).unwrap_or_default()
        };
        if passed <= age {
            return Ok(sample.id);
        }
    }
    Ok(now.id)
}

/// The first sample behind the oldest eighth of them; `None`: only the newest one is left.
fn after_some(db: &Connection, newest: SampleId) -> rusqlite::Result<Option<SampleId>> {
    let sql =
        "SELECT (SELECT id FROM sample ORDER BY id LIMIT 1 OFFSET (SELECT count(*) / 8 + 1 FROM sample))";
    let oldest: Option<i64> = db.query_row(sql, [], |row| row.get(0))?;
    Ok(oldest.map(SampleId).filter(|oldest| *oldest <= newest))
}

fn has_before(db: &Connection, oldest: SampleId) -> rusqlite::Result<bool> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM sample WHERE id < ?1)", [oldest.0], |row| row.get(0))
}

/// Deletes the samples before that one, and what held only in them. Gives the room back.
fn delete_before(db: &Connection, oldest: SampleId) -> rusqlite::Result<()> {
    let transaction = db.unchecked_transaction()?;
    let mut processes = PROCESS_STATE.delete_before(db, oldest, "process")?;
    processes.extend(HOLDING.delete_before(db, oldest, "process")?);
    let buffers = BUFFER_STATE.delete_before(db, oldest, "buffer")?;
    // Not every origin has a stack. No row has the number 0.
    let stacks = ORIGIN.delete_before(db, oldest, "coalesce(stack, 0)")?;
    for table in TABLES {
        table.delete_before(db, oldest, "id")?;
    }
    db.execute("DELETE FROM sample WHERE id < ?1", [oldest.0])?;
    db.execute("DELETE FROM run WHERE id < (SELECT min(run) FROM sample)", [])?;
    let of = |identity: &str, state: &str, keys: &std::collections::HashSet<i64>| {
        let sql = format!(
            "DELETE FROM {identity} WHERE id = ?1 AND NOT EXISTS \
             (SELECT 1 FROM {state} WHERE {identity} = ?1)"
        );
        let mut statement = db.prepare_cached(&sql)?;
        keys.iter().try_for_each(|key| statement.execute([key]).map(drop))
    };
    of("process", "process_state", &processes)?;
    of("buffer", "buffer_state", &buffers)?;
    of("stack", "origin", &stacks)?;
    transaction.commit()?;
    // Each step gives back one page.
    let mut vacuum = db.prepare_cached("PRAGMA incremental_vacuum")?;
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    drop(pages);
    db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")
}
