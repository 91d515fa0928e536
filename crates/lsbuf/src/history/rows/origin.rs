//! Who made buffers. A stack is stored once for all buffers that were made by it, and a birth once
//! for all states of its buffer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row};

use super::super::SampleId;
use super::super::checksum;
use super::super::table::{self, RowId, Table};
use super::super::value::{Json, json};
use super::Unreadable;
use crate::model::{Birth, Buffer, Origin, Stack};

pub(in super::super) const ORIGIN: Table = Table::new("origin", &["buffer", "born", "stack"]);

/// The columns of table stack.
const STACK: &[&str] = &["calls"];

/// A buffer's origin. Its stack gets a row, unless it has one.
pub(in super::super) fn origin(
    db: &Connection,
    buffer: RowId,
    origin: &Origin,
) -> rusqlite::Result<Vec<Value>> {
    let (born, stack) = match origin {
        Origin::Made(birth) => {
            let stack = birth.stack.as_deref().map(|stack| stack_row(db, stack)).transpose()?;
            (json(Origin::Made(Box::new(Birth { stack: None, ..Birth::clone(birth) }))), stack)
        }
        Origin::Before | Origin::Unknown(_) => (json(origin), None),
    };
    let stack = stack.map_or(Value::Null, |row| Value::Integer(row.0));
    Ok(vec![Value::Integer(buffer.0), born, stack])
}

fn stack_row(db: &Connection, stack: &Stack) -> rusqlite::Result<RowId> {
    let calls = json(stack);
    let sum = checksum::sum(std::slice::from_ref(&calls));
    let known = db
        .prepare_cached("SELECT id FROM stack WHERE sum = ?1 AND calls = ?2")?
        .query_row((sum, &calls), |row| row.get(0))
        .optional()?;
    known.map_or_else(|| table::insert(db, "stack", STACK, vec![calls]), |row| Ok(RowId(row)))
}

/// The stacks that were read, by their rows.
#[derive(Debug, Default)]
pub(in super::super) struct Stacks(HashMap<i64, Arc<Stack>>);

impl Stacks {
    /// The origin of a row.
    pub(in super::super) fn origin(&mut self, db: &Connection, row: &Row<'_>) -> Result<Origin, Unreadable> {
        let Json(mut origin) = row.get::<_, Json<Origin>>("born")?;
        if let (Origin::Made(birth), Some(stack)) = (&mut origin, row.get("stack")?) {
            birth.stack = Some(self.stack(db, stack)?);
        }
        Ok(origin)
    }

    fn stack(&mut self, db: &Connection, row: i64) -> Result<Arc<Stack>, Unreadable> {
        Ok(Arc::clone(match self.0.entry(row) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let read = |row: &Row<'_>| row.get::<_, Json<Stack>>("calls");
                unknown.insert(Arc::new(table::get(db, "stack", STACK, RowId(row), read)?.0))
            }
        }))
    }
}

/// Gives the buffers at a sample their origins. Returns how many rows were read.
pub(in super::super) fn read_origins(
    db: &Connection,
    sample: SampleId,
    buffers: &mut HashMap<i64, Buffer>,
) -> Result<u64, Unreadable> {
    let mut stacks = Stacks::default();
    ORIGIN.each_at(db, sample, |row| {
        let of: i64 = row.get("buffer")?;
        let buffer = buffers.get_mut(&of);
        let buffer = buffer.ok_or_else(|| format!("an origin is of buffer {of}, which is missing"))?;
        buffer.origin = Some(Box::new(stacks.origin(db, row)?));
        Ok(())
    })
}

/// What was known at last of a buffer's origin.
pub(in super::super) fn last_origin(
    db: &Connection,
    buffer: RowId,
) -> Result<Option<Box<Origin>>, Unreadable> {
    let (mut stacks, mut last) = (Stacks::default(), None);
    ORIGIN.each_of(db, "buffer", buffer, |row| {
        last = Some(Box::new(stacks.origin(db, row)?));
        Ok(())
    })?;
    Ok(last)
}
