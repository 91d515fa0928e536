//! Tables of intervals: a row holds from one sample to another.
//!
//! Why rows have a class: to find what holds at a sample, SQLite would have to read every row that
//! began before it. Rows of class `n` hold for at most 2^n samples, so of these only the ones that
//! began within the last 2^n samples can hold. An index by class and first sample finds them, and
//! at least half of what it finds holds.

use std::collections::HashSet;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::rows::Unreadable;
use super::{SampleId, checksum};

/// A table of intervals, by its name and its own columns.
#[derive(Debug, PartialEq, Eq)]
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
        let sql = format!("INSERT INTO {name} (sum, first, {}) VALUES (?, ?{marks})", columns.join(", "));
        let values: Vec<Value> = [Value::Integer(first.0)].into_iter().chain(values).collect();
        let sum = Value::Integer(checksum::sum(&values));
        let values = [sum].into_iter().chain(values);
        db.prepare_cached(&sql)?.insert(params_from_iter(values)).map(RowId)
    }

    /// Says that a row held for the last time in that sample.
    pub(super) fn end(&self, db: &Connection, row: RowId, last: SampleId) -> rusqlite::Result<()> {
        let sql = format!("{} WHERE id = ?3", self.ending());
        let values = (last.0, checksum::sum_of_last(Some(last.0)), row.0);
        db.prepare_cached(&sql)?.execute(values).map(drop)
    }

    /// Says of every row that still holds that it held for the last time in that sample.
    pub(super) fn end_all(&self, db: &Connection, last: SampleId) -> rusqlite::Result<()> {
        let sql = format!("{} WHERE class IS NULL", self.ending());
        db.execute(&sql, (last.0, checksum::sum_of_last(Some(last.0)))).map(drop)
    }

    fn ending(&self) -> String {
        // The difference of "or" and "and" is "exclusive or", which SQL lacks.
        format!(
            "UPDATE {} SET last = ?1, sum = (sum | ?2) - (sum & ?2), class = \
             (SELECT min(span.class) FROM span WHERE span.length > ?1 - first)",
            self.name
        )
    }

    /// Reads the rows that hold at a sample, in the order in which they were added. Returns how
    /// many these are.
    pub(super) fn each_at(
        &self,
        db: &Connection,
        sample: SampleId,
        take: impl FnMut(&Row<'_>) -> Result<(), Unreadable>,
    ) -> Result<u64, Unreadable> {
        self.each(db, &format!("{}_at WHERE sample = ?1", self.name), sample.0, take)
    }

    /// Reads the rows of which a column has that value, whenever they hold.
    pub(super) fn each_of(
        &self,
        db: &Connection,
        column: &str,
        value: RowId,
        take: impl FnMut(&Row<'_>) -> Result<(), Unreadable>,
    ) -> Result<u64, Unreadable> {
        self.each(db, &format!("{} WHERE {column} = ?1", self.name), value.0, take)
    }

    /// Reads every row, to see whether its checksum is right.
    pub(super) fn verify(&self, db: &Connection) -> Result<(), Unreadable> {
        self.each(db, &format!("{} WHERE id >= ?1", self.name), i64::MIN, |_| Ok(())).map(drop)
    }

    fn each(
        &self,
        db: &Connection,
        rows: &str,
        of: i64,
        mut take: impl FnMut(&Row<'_>) -> Result<(), Unreadable>,
    ) -> Result<u64, Unreadable> {
        let mut statement = db.prepare_cached(&format!("{} FROM {rows} ORDER BY id", self.selection()))?;
        let mut rows = statement.query([of])?;
        let mut number = 0;
        while let Some(row) = rows.next()? {
            self.check(row)?;
            take(row)?;
            number += 1;
        }
        Ok(number)
    }

    fn selection(&self) -> String {
        format!("SELECT sum, last, first, {}", self.columns.join(", "))
    }

    /// The command that reads all rows in the order of a column, and of equal ones in the order in
    /// which they were added. Each row must be checked.
    pub(super) fn all_by(&self, column: &str) -> String {
        format!("{} FROM {} ORDER BY {column}, id", self.selection(), self.name)
    }

    /// Where a column is in a row that was read.
    pub(super) fn column(&self, name: &str) -> Result<usize, Unreadable> {
        let own = ["sum", "last", "first"];
        let found = own.iter().chain(self.columns).position(|column| *column == name);
        found.ok_or_else(|| Unreadable::from(format!("table {} lacks column {name}", self.name)))
    }

    /// Compares a row with its checksum.
    pub(super) fn check(&self, row: &Row<'_>) -> Result<(), Unreadable> {
        let sum = checksum::sum_of(row, 2..self.columns.len() + 3)?;
        if row.get::<_, i64>(0)? == sum ^ checksum::sum_of_last(row.get(1)?) {
            return Ok(());
        }
        Err(Unreadable::from(format!("a row of table {} has a wrong checksum", self.name)))
    }

    /// Deletes the rows that held for the last time before that sample. Returns the values of a
    /// column of these.
    pub(super) fn delete_before(
        &self,
        db: &Connection,
        oldest: SampleId,
        column: &str,
    ) -> rusqlite::Result<HashSet<i64>> {
        let Table { name, .. } = self;
        let sql = format!(
            "DELETE FROM {name} WHERE id IN (SELECT held.id FROM span CROSS JOIN {name} AS held \
             ON held.class = span.class AND held.first < ?1 WHERE held.last < ?1) RETURNING {column}"
        );
        db.prepare_cached(&sql)?.query_map([oldest.0], |row| row.get(0))?.collect()
    }
}

/// Adds a row of a table whose rows hold for ever.
pub(super) fn insert(
    db: &Connection,
    table: &str,
    columns: &[&str],
    values: Vec<Value>,
) -> rusqlite::Result<RowId> {
    let marks = ", ?".repeat(columns.len());
    let sql = format!("INSERT INTO {table} (sum, {}) VALUES (?{marks})", columns.join(", "));
    let sum = Value::Integer(checksum::sum(&values));
    db.prepare_cached(&sql)?.insert(params_from_iter([sum].into_iter().chain(values))).map(RowId)
}

/// Reads a row of such a table.
pub(super) fn get<T>(
    db: &Connection,
    table: &str,
    columns: &[&str],
    row: RowId,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<T, Unreadable> {
    let sql = format!("SELECT sum, {} FROM {table} WHERE id = ?1", columns.join(", "));
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([row.0])?;
    let Some(found) = rows.next()? else {
        return Err(Unreadable::from(format!("table {table} lacks row {}", row.0)));
    };
    if found.get::<_, i64>("sum")? != checksum::sum_of(found, 1..columns.len() + 1)? {
        return Err(Unreadable::from(format!("a row of table {table} has a wrong checksum")));
    }
    Ok(read(found)?)
}
