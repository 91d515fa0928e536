//! Who made each buffer of a recording, as far as that was recorded.
//!
//! Limit: it is what was known at last. Buffers that are older than the flight recorder have none.

use std::collections::HashMap;

use rusqlite::Connection;

use super::SuspectOrigin;
use crate::history::rows::{ORIGIN, Stacks, Unreadable};

/// Origins by the rows of their buffers. Equal ones are kept once.
#[derive(Debug, Default)]
pub(super) struct Origins {
    all: Vec<SuspectOrigin>,
    of: HashMap<i64, u32>,
}

impl Origins {
    /// Those that were known up to that sample.
    pub(super) fn read(db: &Connection, end: i64) -> Result<Origins, Unreadable> {
        let mut statement = db.prepare_cached(&ORIGIN.all_by("buffer"))?;
        let mut rows = statement.query([])?;
        let (buffer, first) = (ORIGIN.column("buffer")?, ORIGIN.column("first")?);
        let (mut stacks, mut known) = (Stacks::default(), HashMap::new());
        let mut origins = Origins::default();
        while let Some(row) = rows.next()? {
            ORIGIN.check(row)?;
            if row.get::<_, i64>(first)? > end {
                continue;
            }
            let origin = stacks.origin(db, row)?;
            let Some(birth) = origin.birth() else { continue };
            let stack = birth.stack.as_ref().and_then(|stack| stack.key());
            let origin = SuspectOrigin { command: birth.command.clone(), stack };
            let number = *known.entry(origin).or_insert_with_key(|origin| {
                origins.all.push(origin.clone());
                u32::try_from(origins.all.len() - 1).unwrap_or(u32::MAX)
            });
            origins.of.insert(row.get(buffer)?, number);
        }
        Ok(origins)
    }

    /// Who made the buffer of that row.
    pub(super) fn of(&self, buffer: i64) -> Option<&SuspectOrigin> {
        self.all.get(*self.of.get(&buffer)? as usize)
    }
}
