//! Rows and columns as an aligned table, as raw fields, and as CSV.

use std::io::{self, Write};

use unicode_width::UnicodeWidthChar;

use super::align::{Alignment, width_of};
use super::{Column, Sizes, Style, View};

/// Text columns are not cut below this many characters.
const NARROWEST: usize = 8;

/// How many blanks are between two columns: fewer where lines would be too long even with all text
/// cut.
const GAPS: [usize; 2] = [2, 1];

/// The lines of an aligned table: the heading first, then one line for each row. If lines would be
/// longer than `width`, the widest columns of text are cut, then the gaps between columns shrink.
/// Numbers are never cut, so on a very narrow terminal lines wrap.
///
/// Each line is made when it is asked for. Only the widths of the columns are kept.
pub fn table<'a>(
    view: &'a View<'_>,
    rows: &'a [usize],
    columns: &'a [Column],
    sizes: Sizes,
    width: Option<u16>,
) -> impl Iterator<Item = String> {
    let is_number = |column: &Column| rows.first().is_some_and(|&row| column.cell(view, row).is_number());
    let numbers: Vec<bool> = columns.iter().map(is_number).collect();
    let mut cells =
        Cells { view, columns, sizes, style: Style::Table, limits: vec![usize::MAX; columns.len()] };
    // No text stands behind that of the last column, so no blanks do.
    let padded = columns.len() - usize::from(numbers.last() == Some(&false));
    let mut widths = cells.widths(rows, if width.is_some() { columns.len() } else { padded });
    let mut gap = GAPS[0];
    if let Some(width) = width {
        let text: Vec<usize> = (0..columns.len()).filter(|&nth| !numbers[nth]).collect();
        (cells.limits, gap) = fit(&widths, &text, usize::from(width));
        if gap < GAPS[0] {
            cells.style = Style::NarrowTable;
        }
        // Text can be narrower than its limit, because no wide character is cut in half.
        widths = cells.widths(rows, padded);
    }
    let alignment = Alignment { widths, numbers, gap };
    let heading = alignment.line(columns.iter().map(|column| column.name));
    let mut text = String::new();
    let line = move |&row: &usize| {
        let mut line = alignment.start();
        for nth in 0..columns.len() {
            cells.write(&mut text, row, nth);
            line.add(&text);
        }
        line.end()
    };
    std::iter::once(heading).chain(rows.iter().map(line))
}

/// The cells of a table as text.
struct Cells<'a> {
    view: &'a View<'a>,
    columns: &'a [Column],
    sizes: Sizes,
    style: Style,
    /// How wide the text of each column may be.
    limits: Vec<usize>,
}

impl Cells<'_> {
    /// Replaces `text` by the cell of a row in the column `nth`.
    fn write(&self, text: &mut String, row: usize, nth: usize) {
        text.clear();
        self.columns[nth].cell(self.view, row).add_to(text, self.style, self.sizes);
        cut(text, self.limits[nth]);
    }

    /// The widths of the columns: of their headings, and of the cells in the first `measured`
    /// columns.
    fn widths(&self, rows: &[usize], measured: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| width_of(column.name)).collect();
        let mut text = String::new();
        for &row in rows {
            for (nth, widest) in widths.iter_mut().enumerate().take(measured) {
                self.write(&mut text, row, nth);
                *widest = width_of(&text).max(*widest);
            }
        }
        widths
    }
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
    if width_of(text) <= width {
        return;
    }
    let mut used = 1;
    let kept = text.chars().take_while(|c| {
        used += c.width().unwrap_or(0);
        used <= width
    });
    *text = kept.chain(['…']).collect();
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
    let mut line = String::new();
    for &row in rows {
        line.clear();
        for (nth, column) in columns.iter().enumerate() {
            line.push_str(if nth == 0 { "" } else { " " });
            column.cell(view, row).add_to(&mut line, Style::Raw, sizes);
        }
        writeln!(out, "{line}")?;
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
    let mut field = String::new();
    for &row in rows {
        for column in columns {
            field.clear();
            column.cell(view, row).add_to(&mut field, Style::Csv, sizes);
            records.write_field(&field).map_err(io::Error::from)?;
        }
        records.write_record(None::<&[u8]>).map_err(io::Error::from)?;
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
