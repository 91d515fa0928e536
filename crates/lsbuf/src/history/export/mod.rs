//! A recording as tables in files, for other engines: NDJSON or Parquet.
//!
//! Each table has a folder, and in it one for each boot and each day (UTC), as engines expect of
//! partitions: `buffer/boot=ID/date=2026-11-27/part-0.ndjson`. A row is one interval. It has the
//! times of its first and last sample, and everything that tells what it belongs to: the machine,
//! the boot, the buffer or process. So the files of many machines can lie in one folder.
//!
//! Text that processes choose is written as lsbuf prints it ([`escape`]): no byte is lost, and no
//! control character gets out.
//!
//! Limits: a row stands under the day of its first sample. What began before the first sample of
//! the recording stands under the day of that sample.

mod ndjson;
#[cfg(feature = "parquet")]
mod parquet;
mod tables;

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use super::Recording;
use super::rows::{TABLES, Unreadable};
use crate::error::Error;
use crate::escape::escape;
use tables::{EXPORTED, Exported};

/// A format of exported files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// A JSON object on each line.
    Ndjson,
    /// Apache Parquet, compressed by Snappy. Only with the feature `parquet`.
    Parquet,
}

impl Format {
    /// The formats that this build writes.
    pub const ALL: &'static [Format] = &[
        Format::Ndjson,
        #[cfg(feature = "parquet")]
        Format::Parquet,
    ];

    /// The word for it, which is also the extension of its files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Ndjson => "ndjson",
            Format::Parquet => "parquet",
        }
    }

    /// The format of which [`Format::as_str`] has that word, if this build writes it.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Format> {
        Format::ALL.iter().copied().find(|format| format.as_str() == word)
    }
}

/// What an export has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// How many files.
    pub files: u64,
    /// How many rows in all of them.
    pub rows: u64,
}

impl Recording {
    /// Writes the tables of the recording below a folder, which is made. Files that are there
    /// already are not replaced.
    ///
    /// # Errors
    /// If the recording is damaged or cannot be read, if a file is there already or cannot be
    /// written, or if this build lacks the format.
    pub fn export(&self, folder: impl AsRef<Path>, format: Format) -> Result<Written, Error> {
        let mut written = Written::default();
        self.reading(|db| {
            TABLES.iter().try_for_each(|table| table.verify(db))?;
            for table in EXPORTED {
                let mut writer = Writer { folder: folder.as_ref(), format, table, part: None, written };
                written = writer.table(db, table)?;
            }
            Ok(())
        })?;
        Ok(written)
    }
}

/// Where rows of one partition go.
trait Part {
    /// Adds a row: one value for each column of the table.
    fn add(&mut self, row: Vec<Value>) -> io::Result<()>;

    /// Writes what is left.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Writes the rows of a table to the files of its partitions.
struct Writer<'a> {
    folder: &'a Path,
    format: Format,
    table: &'static Exported,
    part: Option<(PathBuf, Box<dyn Part>)>,
    written: Written,
}

impl Writer<'_> {
    fn table(&mut self, db: &Connection, table: &Exported) -> Result<Written, Unreadable> {
        let mut statement = db.prepare(&table.sql())?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let folder = partition(self.folder, table.name, row)?;
            self.row(folder, row)?;
        }
        self.finish()?;
        Ok(self.written)
    }

    fn row(&mut self, folder: PathBuf, row: &Row<'_>) -> Result<(), Unreadable> {
        if self.part.as_ref().is_none_or(|(open, _)| *open != folder) {
            self.finish()?;
            let part = self.open(&folder).map_err(|error| cannot_write(&folder, error))?;
            self.part = Some((folder, part));
            self.written.files += 1;
        }
        let columns = self.table.columns().count();
        let values = (0..columns).map(|nth| Ok(shown(row.get(nth)?)));
        let values = values.collect::<rusqlite::Result<Vec<Value>>>()?;
        self.written.rows += 1;
        match &mut self.part {
            Some((folder, part)) => part.add(values).map_err(|error| cannot_write(folder, error)),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), Unreadable> {
        match self.part.take() {
            Some((folder, part)) => part.finish().map_err(|error| cannot_write(&folder, error)),
            None => Ok(()),
        }
    }

    /// Opens the first file of a partition that is not there yet. A clock that was set back may
    /// lead to a day again.
    fn open(&self, folder: &Path) -> io::Result<Box<dyn Part>> {
        fs::create_dir_all(folder)?;
        let extension = self.format.as_str();
        let mut number = 0u32;
        let file = loop {
            let path = folder.join(format!("part-{number}.{extension}"));
            match File::create_new(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.written.files > 0 => {
                    number += 1
                }
                opened => break opened?,
            }
        };
        let file = BufWriter::new(file);
        match self.format {
            Format::Ndjson => Ok(Box::new(ndjson::Lines::new(file, self.table))),
            #[cfg(feature = "parquet")]
            Format::Parquet => Ok(Box::new(parquet::Columns::new(file, self.table)?)),
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "it was built without Parquet"))
            }
        }
    }
}

/// Where a row belongs. The column behind those of the table is the time by which it is filed.
fn partition(folder: &Path, table: &str, row: &Row<'_>) -> Result<PathBuf, Unreadable> {
    let boot: Option<String> = row.get("boot_id")?;
    let at: i64 = row.get("filed_at")?;
    let date = Timestamp::from_microsecond(at)
        .map_or_else(|_| "unknown".to_owned(), |stamp| stamp.strftime("%Y-%m-%d").to_string());
    // A boot id comes from a file, so it must not lead elsewhere.
    let boot: String =
        boot.unwrap_or_default().chars().filter(|c| c.is_ascii_hexdigit() || *c == '-').collect();
    let boot = if boot.is_empty() { "unknown" } else { &boot };
    Ok(folder.join(table).join(format!("boot={boot}")).join(format!("date={date}")))
}

/// A value as it is exported: what processes chose as lsbuf prints it.
fn shown(value: Value) -> Value {
    match value {
        Value::Text(text) => Value::Text(escape(text.as_bytes())),
        Value::Blob(bytes) => Value::Text(escape(&bytes)),
        other => other,
    }
}

fn cannot_write(folder: &Path, error: io::Error) -> Unreadable {
    Unreadable::Elsewhere(Error::io(error, format!("{} cannot be written", folder.display())))
}

#[cfg(test)]
mod tests;
