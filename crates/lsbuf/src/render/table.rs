//! Rows and columns as an aligned table, as raw fields, and as CSV.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Column, Sizes, Style, View};

/// The lines of an aligned table: the heading first, then one line per row. Lines longer than `width` are cut.
#[must_use]
pub fn table(
    view: &View<'_>,
    rows: &[usize],
    columns: &[Column],
    sizes: Sizes,
    width: Option<u16>,
) -> Vec<String> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|c| c.name).collect::<Vec<_>>());
    for &row in rows {
        table.add_row(fields(view, row, columns, Style::Table, sizes));
    }
    for (nth, column) in columns.iter().enumerate() {
        let Some(shown) = table.column_mut(nth) else { continue };
        shown.set_padding((0, if nth + 1 == columns.len() { 0 } else { 2 }));
        if rows.first().is_some_and(|&row| column.cell(view, row).is_number()) {
            shown.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| cut(line.trim_end(), width)).collect()
}

/// A line that fits the width; an ellipsis says that something is missing.
fn cut(line: &str, width: Option<u16>) -> String {
    let Some(width) = width.map(usize::from).filter(|&width| line.width() > width) else {
        return line.to_owned();
    };
    let mut used = 1;
    let kept = line.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used <= width
    });
    kept.chain(['…']).collect()
}

fn fields(view: &View<'_>, row: usize, columns: &[Column], style: Style, sizes: Sizes) -> Vec<String> {
    columns.iter().map(|column| column.cell(view, row).write(style, sizes)).collect()
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
        records.write_record(fields(view, row, columns, Style::Csv, sizes)).map_err(io::Error::from)?;
    }
    records.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a line which fits is left alone, and one that does not is cut to the width.
    #[test]
    fn cutting() {
        assert_eq!(cut("abcdef", Some(6)), "abcdef");
        assert_eq!(cut("abcdef", Some(5)), "abcd…");
        assert_eq!(cut("abcdef", None), "abcdef");
    }

    /// Check that a character two columns wide is not cut in half, nor made to stick out.
    #[test]
    fn wide_characters() {
        assert_eq!(cut("a前前", Some(5)), "a前前");
        assert_eq!(cut("a前前", Some(4)), "a前…");
        assert_eq!(cut("a前前", Some(3)), "a…");
    }
}
