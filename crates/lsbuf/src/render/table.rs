//! Rows and columns as an aligned table, as raw fields, and as CSV.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, presets};

use super::{Cell, Column, Sizes, Style, View};

/// The lines of an aligned table: the heading first, then one line per row. Where `width` is given, the last
/// column is cut to fit it.
#[must_use]
pub fn table(
    view: &View<'_>,
    rows: &[usize],
    columns: &[Column],
    sizes: Sizes,
    width: Option<u16>,
) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        table.set_truncation_indicator("…");
    } else {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(columns.iter().map(|c| c.name).collect::<Vec<_>>());
    for &row in rows {
        let mut cells = Row::from(columns.iter().map(|c| c.cell(view, row).write(Style::Table, sizes)));
        cells.max_height(1);
        table.add_row(cells);
    }
    for (nth, column) in columns.iter().enumerate() {
        let number = rows.first().is_some_and(|&row| column.cell(view, row).is_number());
        let last = nth + 1 == columns.len();
        if let Some(shown) = table.column_mut(nth) {
            shown.set_padding((0, if last { 0 } else { 2 }));
            if number {
                shown.set_cell_alignment(CellAlignment::Right);
            }
            if !last {
                shown.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// Fields separated by one blank, a line per row, without alignment.
///
/// # Errors
/// Those of `out`.
pub fn raw(
    out: &mut dyn Write,
    view: &View<'_>,
    rows: &[usize],
    columns: &[Column],
    sizes: Sizes,
    heading: bool,
) -> io::Result<()> {
    if heading {
        writeln!(out, "{}", columns.iter().map(|c| c.name).collect::<Vec<_>>().join(" "))?;
    }
    for &row in rows {
        let fields: Vec<String> =
            columns.iter().map(|c| c.cell(view, row).write(Style::Raw, sizes)).collect();
        writeln!(out, "{}", fields.join(" "))?;
    }
    Ok(())
}

/// CSV as RFC 4180 has it, but with a bare newline after each record.
///
/// # Errors
/// Those of `out`.
pub fn csv(
    out: &mut dyn Write,
    view: &View<'_>,
    rows: &[usize],
    columns: &[Column],
    sizes: Sizes,
    heading: bool,
) -> io::Result<()> {
    let mut records = csv::Writer::from_writer(out);
    if heading {
        records.write_record(columns.iter().map(|c| c.name)).map_err(io::Error::from)?;
    }
    for &row in rows {
        let field = |c: &Column| -> String { Cell::write(&c.cell(view, row), Style::Csv, sizes) };
        records.write_record(columns.iter().map(field)).map_err(io::Error::from)?;
    }
    records.flush()
}
