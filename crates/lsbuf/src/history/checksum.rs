//! Checksums of rows: SQLite has none, so a flipped bit of a disk would pass for a figure.
//!
//! The sum is a CRC-32 of the columns, in the order in which they are stored. It does not protect
//! from somebody who changes a file on purpose.

use crc32fast::Hasher;
use rusqlite::Row;
use rusqlite::types::{Value, ValueRef};

/// The checksum of these columns.
pub(super) fn sum(values: &[Value]) -> i64 {
    let mut hasher = Hasher::new();
    values.iter().for_each(|value| add(&mut hasher, value.into()));
    hasher.finalize().into()
}

/// The checksum of some columns of a row that was read, by their positions.
pub(super) fn sum_of(row: &Row<'_>, columns: std::ops::Range<usize>) -> rusqlite::Result<i64> {
    let mut hasher = Hasher::new();
    for column in columns {
        add(&mut hasher, row.get_ref(column)?);
    }
    Ok(hasher.finalize().into())
}

/// Of the last sample of a row, which is not known when its other columns are written. Nothing for
/// a row that still holds.
pub(super) fn sum_of_last(last: Option<i64>) -> i64 {
    last.map_or(0, |last| sum(&[Value::Integer(last)]))
}

fn add(hasher: &mut Hasher, value: ValueRef<'_>) {
    let (kind, bytes): (u8, &[u8]) = match &value {
        ValueRef::Null => (0, &[]),
        ValueRef::Integer(number) => (1, &number.to_le_bytes()),
        ValueRef::Real(number) => (2, &number.to_le_bytes()),
        ValueRef::Text(text) => (3, text),
        ValueRef::Blob(blob) => (4, blob),
    };
    // With its length, so that what is in one column cannot be in the next one.
    hasher.update(&[kind]);
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}
