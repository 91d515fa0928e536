//! Parquet, by the crates `parquet` and `arrow`.

use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rusqlite::types::Value;

use super::Part;
use super::tables::{Exported, Kind};

/// Rows that are kept until they are written together.
const TOGETHER: usize = 16_384;

/// A file of columns.
pub(super) struct Columns<W: Write + Send> {
    out: ArrowWriter<W>,
    schema: Arc<Schema>,
    table: &'static Exported,
    rows: Vec<Vec<Value>>,
}

impl<W: Write + Send> Columns<W> {
    pub(super) fn new(out: W, table: &'static Exported) -> io::Result<Columns<W>> {
        let field = |&(name, kind, _): &(&str, Kind, &str)| Field::new(name, data_type(kind), true);
        let schema = Arc::new(Schema::new(table.columns().map(field).collect::<Vec<_>>()));
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let out =
            ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties)).map_err(io::Error::other)?;
        Ok(Columns { out, schema, table, rows: Vec::new() })
    }

    fn write(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(());
        }
        let columns = self.table.columns().enumerate();
        let columns = columns.map(|(nth, &(_, kind, _))| column(kind, rows.iter().map(|row| &row[nth])));
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns.collect());
        batch.map_err(io::Error::other).and_then(|batch| self.out.write(&batch).map_err(io::Error::other))
    }
}

impl<W: Write + Send> Part for Columns<W> {
    fn add(&mut self, row: Vec<Value>) -> io::Result<()> {
        self.rows.push(row);
        if self.rows.len() < TOGETHER { Ok(()) } else { self.write() }
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.write()?;
        self.out.close().map_err(io::Error::other).map(drop)
    }
}

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Number => DataType::Int64,
        Kind::Truth => DataType::Boolean,
        Kind::Text => DataType::Utf8,
        Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    }
}

fn column<'v>(kind: Kind, values: impl Iterator<Item = &'v Value>) -> ArrayRef {
    let number = |value: &Value| match value {
        Value::Integer(number) => Some(*number),
        _ => None,
    };
    match kind {
        Kind::Number => {
            let mut builder = Int64Builder::new();
            values.for_each(|value| builder.append_option(number(value)));
            Arc::new(builder.finish())
        }
        Kind::Truth => {
            let mut builder = BooleanBuilder::new();
            values.for_each(|value| builder.append_option(number(value).map(|number| number != 0)));
            Arc::new(builder.finish())
        }
        Kind::Time => {
            let mut builder = TimestampMicrosecondBuilder::new().with_timezone("UTC");
            values.for_each(|value| builder.append_option(number(value)));
            Arc::new(builder.finish())
        }
        Kind::Text => {
            let mut builder = StringBuilder::new();
            values.for_each(|value| {
                builder.append_option(match value {
                    Value::Text(text) => Some(text.as_str()),
                    _ => None,
                });
            });
            Arc::new(builder.finish())
        }
    }
}
