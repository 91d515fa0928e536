//! Rows and columns as an aligned table, as raw fields, and as CSV.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Column, Sizes, Style, View};

/// Text columns are not cut below this many characters.
const NARROWEST: usize = 8;

/// How many blanks are between two columns: fewer where lines would be too long even with all text
/// cut.
const GAPS: [usize; 2] = [2, 1];

/// The lines of an aligned table: the heading first, then one line for each row. If lines would be
/// longer than `width`, the widest columns of text are cut, then the gaps between columns shrink.
/// Numbers are never cut, so on a very narrow terminal lines wrap.
#[must_use]
pub fn table(
    view: &View<'_>,
    rows: &[usize],
    columns: &[Column],
    sizes: Sizes,
    width: Option<u16>,
) -> Vec<String> {
    let is_number = |column: &Column| rows.first().is_some_and(|&row| column.cell(view, row).is_number());
    let in_style = |style| rows.iter().map(move |&row| fields(view, row, columns, style, sizes));
    let mut cells: Vec<Vec<String>> = in_style(Style::Table).collect();
    let mut gap = GAPS[0];
    if let Some(width) = width {
        let mut widths: Vec<usize> = columns.iter().map(|column| column.name.width()).collect();
        for row in &cells {
            widths.iter_mut().zip(row).for_each(|(widest, cell)| *widest = cell.width().max(*widest));
        }
        let text: Vec<usize> = (0..columns.len()).filter(|&nth| !is_number(&columns[nth])).collect();
        (widths, gap) = fit(&widths, &text, usize::from(width));
        if gap < GAPS[0] {
            cells = in_style(Style::NarrowTable).collect();
        }
        for row in &mut cells {
            row.iter_mut().zip(&widths).for_each(|(cell, &width)| cut(cell, width));
        }
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.name)).add_rows(cells);
    for (nth, column) in columns.iter().enumerate() {
        let Some(shown) = table.column_mut(nth) else { continue };
        shown.set_padding((0, if nth + 1 == columns.len() { 0 } else { gap as u16 }));
        if is_number(column) {
            shown.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// The widths of the columns, and the gap between them, with which a line fits into `width`; if
/// none does, the narrowest.
fn fit(widths: &[usize], text: &[usize], width: usize) -> (Vec<usize>, usize) {
    let with = |gap: usize| {
        let (gaps, mut widths) = (gap * widths.len().saturating_sub(1), widths.to_vec());
        take_from(&mut widths, text, width.saturating_sub(gaps));
        let fits = widths.iter().sum::<usize>() + gaps <= width;
        (fits, (widths, gap))
    };
    let [(fits, wide), (_, narrow)] = GAPS.map(with);
    if fits { wide } else { narrow }
}

/// Narrows the widest of the `text` columns until all columns together are no wider than `width`.
fn take_from(widths: &mut [usize], text: &[usize], width: usize) {
    loop {
        let total: usize = widths.iter().sum();
        let widest =
            text.iter().copied().max_by_key(|&nth| widths[nth]).filter(|&nth| widths[nth] > NARROWEST);
        let (true, Some(widest)) = (total > width, widest) else { return };
        let next = text.iter().filter(|&&nth| nth != widest).map(|&nth| widths[nth]).max().unwrap_or(0);
        // No narrower than the next widest, so that the columns share the loss; but by at least
        // one.
        let floor = next.clamp(NARROWEST, widths[widest] - 1);
        widths[widest] = (widths[widest] - (total - width).min(widths[widest])).max(floor);
    }
}

/// Cuts text to a width; an ellipsis says that something is missing.
fn cut(text: &mut String, width: usize) {
    if text.width() <= width {
        return;
    }
    let mut used = 1;
    let kept = text.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used <= width
    });
    *text = kept.chain(['…']).collect();
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
        writeln!(out, "{}", fields(view, row, columns, Style::Raw, sizes).join(" "))?;
    }
    Ok(())
}

/// CSV as in RFC 4180, but with a bare newline after each record.
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

    fn cut_to(text: &str, width: usize) -> String {
        let mut text = text.to_owned();
        cut(&mut text, width);
        text
    }

    /// Check that text that fits stays whole, and other text is cut to the width.
    #[test]
    fn cutting() {
        assert_eq!(cut_to("abcdef", 6), "abcdef");
        assert_eq!(cut_to("abcdef", 5), "abcd…");
    }

    /// Check that a character two columns wide is neither cut in half nor wider than the column.
    #[test]
    fn wide_characters() {
        assert_eq!(cut_to("a前前", 5), "a前前");
        assert_eq!(cut_to("a前前", 4), "a前…");
        assert_eq!(cut_to("a前前", 3), "a…");
    }

    /// Check that gaps shrink only where no text can be cut any more.
    #[test]
    fn gaps_give_way_last() {
        assert_eq!(fit(&[10, 8, 8], &[1, 2], 30), (vec![10, 8, 8], 2));
        assert_eq!(fit(&[10, 8, 8], &[1, 2], 29), (vec![10, 8, 8], 1));
        assert_eq!(fit(&[10, 10, 8], &[1, 2], 29), (vec![10, 9, 8], 1));
    }

    /// Check that the widest text is cut first, and numbers never.
    #[test]
    fn the_widest_text_gives_way() {
        let fit = |width| fit(&[40, 20, 50], &[1, 2], width);
        assert_eq!(fit(100), (vec![40, 20, 36], 2));
        assert_eq!(fit(70), (vec![40, 13, 13], 2));
        assert_eq!(fit(5), (vec![40, NARROWEST, NARROWEST], 1));
    }
}
