//! NDJSON: a JSON object on each line. Times are as in RFC 3339, to the microsecond.

use std::io::{self, Write};

use jiff::Timestamp;
use rusqlite::types::Value;
use serde_json::{Map, Value as Json};

use super::Part;
use super::tables::{Exported, Kind};

/// A file of lines.
pub(super) struct Lines<W> {
    out: W,
    table: &'static Exported,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(out: W, table: &'static Exported) -> Lines<W> {
        Lines { out, table }
    }
}

impl<W: Write> Part for Lines<W> {
    fn add(&mut self, row: Vec<Value>) -> io::Result<()> {
        let mut object = Map::new();
        for (&(name, kind, _), value) in self.table.columns().zip(row) {
            let value = match (kind, value) {
                (Kind::Truth, Value::Integer(number)) => Json::Bool(number != 0),
                (Kind::Time, Value::Integer(micros)) => {
                    Timestamp::from_microsecond(micros).map_or(Json::Null, |stamp| stamp.to_string().into())
                }
                (_, Value::Integer(number)) => number.into(),
                (_, Value::Text(text)) => text.into(),
                _ => Json::Null,
            };
            object.insert(name.to_owned(), value);
        }
        serde_json::to_writer(&mut self.out, &object)?;
        self.out.write_all(b"\n")
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.out.flush()
    }
}
