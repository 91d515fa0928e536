//! Cells of text side by side, in columns that are aligned by blanks.

use std::io::{self, Write};
use std::iter::repeat_n;

use unicode_width::UnicodeWidthStr;

/// Where columns stand in a line.
#[derive(Debug)]
pub(super) struct Alignment {
    /// How wide each column is. A wider cell moves those behind it to the right.
    pub(super) widths: Vec<usize>,
    /// Whether each column is aligned to the right, as numbers are.
    pub(super) numbers: Vec<bool>,
    /// How many blanks are between two columns.
    pub(super) gap: usize,
}

impl Alignment {
    /// A line of these cells.
    pub(super) fn line<'c>(&self, cells: impl IntoIterator<Item = &'c str>) -> String {
        let mut line = self.start();
        cells.into_iter().for_each(|cell| line.add(cell));
        line.end()
    }

    /// A line without cells.
    pub(super) fn start(&self) -> Line<'_> {
        Line { alignment: self, text: String::new(), nth: 0 }
    }
}

/// A line to which cells are added from left to right.
#[derive(Debug)]
pub(super) struct Line<'a> {
    alignment: &'a Alignment,
    text: String,
    /// How many cells it has.
    nth: usize,
}

impl Line<'_> {
    /// Adds a cell of the next column.
    pub(super) fn add(&mut self, cell: &str) {
        let Alignment { widths, numbers, gap } = self.alignment;
        let blanks = widths[self.nth].saturating_sub(width_of(cell));
        let (before, behind) = if numbers[self.nth] { (blanks, 0) } else { (0, blanks) };
        let gap = if self.nth == 0 { 0 } else { *gap };
        self.text.extend(repeat_n(' ', gap + before));
        self.text.push_str(cell);
        self.text.extend(repeat_n(' ', behind));
        self.nth += 1;
    }

    /// The line, without blanks at its end.
    pub(super) fn end(mut self) -> String {
        self.text.truncate(self.text.trim_end().len());
        self.text
    }
}

/// Writes aligned lines. `numbers` says which columns have numbers.
pub(super) fn aligned(out: &mut dyn Write, lines: &[Vec<String>], numbers: &[bool]) -> io::Result<()> {
    let width = |nth: usize| lines.iter().map(|line| width_of(&line[nth])).max().unwrap_or(0);
    let alignment =
        Alignment { widths: (0..numbers.len()).map(width).collect(), numbers: numbers.to_vec(), gap: 2 };
    lines.iter().try_for_each(|line| writeln!(out, "{}", alignment.line(line.iter().map(String::as_str))))
}

/// How many columns of a terminal a text takes.
pub(super) fn width_of(text: &str) -> usize {
    // Each printable ASCII character takes one. To know that is faster than to look it up.
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) { text.len() } else { text.width() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(cells: [&str; 3]) -> String {
        Alignment { widths: vec![4, 4, 4], numbers: vec![false, true, false], gap: 2 }.line(cells)
    }

    /// Check that numbers end and text begins at the same column in each line.
    #[test]
    fn aligned() {
        assert_eq!(line(["KIND", "INO", "NAME"]), "KIND   INO  NAME");
        assert_eq!(line(["a", "9", "b"]), "a        9  b");
    }

    /// Check that a wide character takes two columns, and a combining mark none.
    #[test]
    fn wide_characters() {
        assert_eq!(line(["前", "9", "b"]), "前       9  b");
        assert_eq!(line(["e\u{301}", "9", "b"]), "e\u{301}        9  b");
    }

    /// Check that a line ends with its last text, and that an empty cell takes its column.
    #[test]
    fn empty_cells() {
        assert_eq!(line(["a", "", "b"]), "a           b");
        assert_eq!(line(["a", "9", ""]), "a        9");
        assert_eq!(line(["a", "", ""]), "a");
    }

    proptest! {
        /// Check that every text is as wide as Unicode says, also where that was not asked.
        #[test]
        fn as_wide_as_unicode_says(text in "([ -~]{0,4}|\\PC){0,8}") {
            prop_assert_eq!(width_of(&text), text.width());
        }
    }
}
