//! The file of a recording: its schema and version, and who may write into it.
//!
//! Limits: the lock of the writer is flock(2), so a file on a network filesystem may have two
//! writers. SQLite's log does not work there either.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::rows;
use crate::error::{Error, ErrorKind};

/// Marks an SQLite file as a recording (`PRAGMA application_id`): "lsbf".
const APPLICATION: i32 = i32::from_be_bytes(*b"lsbf");

/// The version of the schema (`PRAGMA user_version`). A version that only adds tables or columns
/// is a new one, too.
const VERSION: i32 = 2;

/// What stands for the path of a recording in memory.
pub(super) const IN_MEMORY: &str = "the recording in memory";

/// Keeps others from writing into the file, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "the lock is the open file's")] File);

/// Opens a recording to write into it, and makes it if it is not there.
pub(super) fn open_to_write(path: &Path) -> Result<(Connection, Lock), Error> {
    let lock = lock(path)?;
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
    .map_err(|error| failed(path, &error))?;
    if is_empty(&db).map_err(|error| failed(path, &error))? {
        make(&db).map_err(|error| failed(path, &error))?;
    }
    let version = check(&db, path)?;
    set_up(&db).and_then(|()| upgrade(&db, version)).map_err(|error| failed(path, &error))?;
    Ok((db, lock))
}

/// Makes a recording in memory. Nobody else can open it, so it needs no lock.
pub(super) fn open_in_memory() -> Result<Connection, Error> {
    let path = Path::new(IN_MEMORY);
    let db = Connection::open_in_memory().map_err(|error| failed(path, &error))?;
    make(&db).map_err(|error| failed(path, &error))?;
    Ok(db)
}

/// Opens a recording to read it.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, Error> {
    // SQLite would say only that it cannot open it.
    File::open(path).map_err(|error| Error::io(error, format!("{} cannot be opened", path.display())))?;
    let db =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| failed(path, &error))?;
    let version = check(&db, path)?;
    complete(&db, version).map_err(|error| failed(path, &error))?;
    Ok(db)
}

/// What SQLite reports of that file.
pub(super) fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            Error::new(ErrorKind::NotRecording, format!("{path} is not a recording"))
        }
        Some(ErrorCode::DiskFull) => Error::io(Errno::NOSPC, format!("{path}: no space is left")),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            Error::io(Errno::ACCESS, format!("{path}: permission denied"))
        }
        Some(ErrorCode::SystemIoFailure) => Error::io(Errno::IO, format!("{path}: {error}")),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::new(ErrorKind::Busy, format!("{path} is in use: {error}"))
        }
        // What is damaged fails in many ways: a table is missing, a word is unknown.
        _ => Error::new(ErrorKind::NotRecording, format!("{path} is damaged: {error}")),
    }
}

fn lock(path: &Path) -> Result<Lock, Error> {
    let mut options = File::options();
    let opened = options.read(true).write(true).create(true).truncate(false).open(path);
    let file = opened.map_err(|error| Error::io(error, format!("{} cannot be opened", path.display())))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(Errno::WOULDBLOCK) => {
            Err(Error::new(ErrorKind::Busy, format!("another process records into {}", path.display())))
        }
        Err(error) => Err(Error::io(error, format!("{} cannot be locked", path.display()))),
    }
}

/// Whether nothing is in it. A recorder that is killed before it has made the tables leaves such a
/// file, which may have a page already.
fn is_empty(db: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT application_id = 0 AND user_version = 0 AND NOT EXISTS (SELECT 1 FROM sqlite_schema) \
               FROM pragma_application_id, pragma_user_version";
    db.query_row(sql, [], |row| row.get(0))
}

fn make(db: &Connection) -> rusqlite::Result<()> {
    // Only before the first table is made can free pages be given back.
    db.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;")?;
    let old = rows::TABLES.iter().filter(|table| !rows::TABLES_2.contains(table));
    let tables: String = old.map(|table| table.definitions()).collect();
    let (schema, views, added) = (include_str!("schema.sql"), include_str!("views.sql"), added_by_2());
    db.execute_batch(&format!(
        "BEGIN; {schema} {tables} {views} {added} PRAGMA application_id = {APPLICATION}; \
         PRAGMA user_version = {VERSION}; COMMIT;"
    ))
}

/// What version 2 of the schema added.
fn added_by_2() -> String {
    let tables: String = rows::TABLES_2.iter().map(|table| table.definitions()).collect();
    format!("{} {tables}", include_str!("schema_2.sql"))
}

/// Gives a file of an older version what it lacks.
fn upgrade(db: &Connection, version: i32) -> rusqlite::Result<()> {
    if version >= 2 {
        return Ok(());
    }
    db.execute_batch(&format!("BEGIN; {} PRAGMA user_version = {VERSION}; COMMIT;", added_by_2()))
}

/// The same for a reader, which does not change the file: what is missing is empty, and goes with
/// the connection.
fn complete(db: &Connection, version: i32) -> rusqlite::Result<()> {
    if version >= 2 {
        return Ok(());
    }
    let added = added_by_2();
    db.execute_batch(
        &added.replace("CREATE TABLE", "CREATE TEMP TABLE").replace("CREATE VIEW", "CREATE TEMP VIEW"),
    )
}

fn set_up(db: &Connection) -> rusqlite::Result<()> {
    // A power cut may lose the newest samples, but does not harm the file.
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
    // A reader that copies the log back may hold the file for a moment.
    db.busy_timeout(std::time::Duration::from_secs(5))
}

/// The version of the file, if it is a recording that this lsbuf can read.
fn check(db: &Connection, path: &Path) -> Result<i32, Error> {
    let pragma = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let marks = pragma("application_id").and_then(|mark| Ok((mark, pragma("user_version")?)));
    let (application, version) = marks.map_err(|error| failed(path, &error))?;
    let path = path.display();
    if application != APPLICATION {
        return Err(Error::new(ErrorKind::NotRecording, format!("{path} is not a recording")));
    }
    if version > VERSION {
        return Err(Error::new(
            ErrorKind::NotRecording,
            format!(
                "{path} was written by a newer lsbuf: its version is {version}, this one reads {VERSION}"
            ),
        ));
    }
    Ok(version)
}
