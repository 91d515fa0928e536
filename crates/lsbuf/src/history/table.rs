//! Tables of intervals: a row holds from one sample to another.
//!
//! Why rows have a class: to find what holds at a sample, SQLite would have to read every row that
//! began before it. Rows of class `n` hold for at most 2^n samples, so of these only the ones that
//! began within the last 2^n samples can hold. An index by class and first sample finds them, and
//! at least half of what it finds holds.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::SampleId;

/// A table of intervals, by its name and its own columns.
#[derive(Debug)]
pub(super) struct Table {
    name: &'static str,
    columns: &'static [&'static str],
}

/// A row's key in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowId(pub(super) i64);

impl Table {
    pub(super) const fn new(name: &'static str, columns: &'static [&'static str]) -> Table {
        Table { name, columns }
    }

    /// The index by which its view finds rows, and the view with its rows at each sample.
    pub(super) fn definitions(&self) -> String {
        let Table { name, .. } = self;
        format!(
            "CREATE INDEX {name}_by_class ON {name} (class, first);\n\
             CREATE VIEW {name}_at AS\n\
             SELECT sample.id AS sample, held.* FROM sample CROSS JOIN {name} AS held\n\
             ON held.class IS NULL AND held.first <= sample.id\n\
             UNION ALL\n\
             SELECT sample.id AS sample, held.* FROM sample CROSS JOIN span CROSS JOIN {name} AS held\n\
             ON held.class = span.class AND held.first BETWEEN sample.id - span.length + 1 AND sample.id\n\
             AND held.last >= sample.id;\n"
        )
    }

    /// Adds a row that holds from that sample on.
    pub(super) fn begin(
        &self,
        db: &Connection,
        first: SampleId,
        values: Vec<Value>,
    ) -> rusqlite::Result<RowId> {
        let Table { name, columns } = self;
        let marks = ", ?".repeat(columns.len());
        let sql = format!("INSERT INTO {name} (first, {}) VALUES (?{marks})", columns.join(", "));
        let values = [Value::Integer(first.0)].into_iter().chain(values);
        db.prepare_cached(&sql)?.insert(params_from_iter(values)).map(RowId)
    }

    /// Says that a row held for the last time in that sample.
    pub(super) fn end(&self, db: &Connection, row: RowId, last: SampleId) -> rusqlite::Result<()> {
        let sql =
            format!("UPDATE {} SET last = ?2, class = {} WHERE id = ?1", self.name, class("?2 - first"));
        db.prepare_cached(&sql)?.execute((row.0, last.0)).map(drop)
    }

    /// Says of every row that still holds that it held for the last time in that sample.
    pub(super) fn end_all(&self, db: &Connection, last: SampleId) -> rusqlite::Result<()> {
        let sql = format!(
            "UPDATE {} SET last = ?1, class = {} WHERE class IS NULL",
            self.name,
            class("?1 - first")
        );
        db.execute(&sql, [last.0]).map(drop)
    }

    /// Reads the rows that hold at a sample, in the order in which they were added.
    pub(super) fn each_at<E: From<rusqlite::Error>>(
        &self,
        db: &Connection,
        sample: SampleId,
        mut take: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Table { name, columns } = self;
        let sql = format!("SELECT {} FROM {name}_at WHERE sample = ?1 ORDER BY id", columns.join(", "));
        let mut statement = db.prepare_cached(&sql)?;
        let mut rows = statement.query([sample.0])?;
        while let Some(row) = rows.next()? {
            take(row)?;
        }
        Ok(())
    }
}

/// The number of binary digits of an expression, in SQL: those of 0 are none.
fn class(expression: &str) -> String {
    format!("(SELECT min(span.class) FROM span WHERE span.length > {expression})")
}
