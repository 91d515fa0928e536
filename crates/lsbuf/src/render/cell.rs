//! One value of a table, independent of the format that it is written in.

use std::borrow::Cow;
use std::cmp::{Ordering, Reverse};
use std::fmt::Write;
use std::time::Duration;

use super::digits::Digits;
use crate::escape::{push_blanks_escaped, push_escaped, push_gaps_escaped};
use crate::model::{Bytes, Label};

/// How sizes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// `8.0M`: powers of 1024, for people.
    Human,
    /// Plain numbers of bytes.
    Bytes,
}

/// In which format a cell is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A table for people: `?` for unknown, `~` before an estimate; of blanks in text only single
    /// ones between other characters stay.
    Table,
    /// The same with columns one blank apart: no blank in text stays.
    NarrowTable,
    /// Fields separated by a blank: `?` for unknown, blanks in text escaped, no marks on numbers.
    Raw,
    /// CSV: unknown is empty, no marks on numbers. Text that begins like a formula, or with `'`,
    /// gets a `'` in front, so that a spreadsheet takes it for text.
    Csv,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Text that other processes chose; `None`: unknown.
    Text(Option<Label>),
    /// lsbuf's own words, in which untrusted text is already escaped; `None`: does not apply.
    Words(Option<Cow<'static, str>>),
    /// A size.
    Size(Option<Bytes>),
    /// A number that is not a size.
    Number(Option<u64>),
    /// A number that is an estimate.
    Estimate(Option<u64>),
    /// By how much a size has changed: `+8.0M`; `None`: unknown.
    SizeChange(Option<i128>),
    /// By how much a number has changed: `+3`; `None`: unknown.
    NumberChange(Option<i128>),
    /// A number with two decimals, in hundredths: `0.97`; `None`: unknown.
    Hundredths(Option<i128>),
    /// A time that has passed: `3d4h` for people, seconds for programs; `None`: unknown.
    Age(Option<Duration>),
}

impl Cell {
    /// The cell as text.
    #[must_use]
    pub fn write(&self, style: Style, sizes: Sizes) -> String {
        let mut text = String::new();
        self.add_to(&mut text, style, sizes);
        text
    }

    /// Adds the cell to a text.
    pub(super) fn add_to(&self, text: &mut String, style: Style, sizes: Sizes) {
        match self {
            Cell::Text(None)
            | Cell::Size(None)
            | Cell::Number(None)
            | Cell::Estimate(None)
            | Cell::SizeChange(None)
            | Cell::NumberChange(None)
            | Cell::Hundredths(None)
            | Cell::Age(None) => {
                text.push_str(if style == Style::Csv { "" } else { "?" });
            }
            Cell::Text(Some(label)) => add_label(text, label.as_bytes(), style),
            Cell::Words(None) => text.push_str(empty(style)),
            Cell::Words(Some(words)) => add_words(text, words, style),
            // Writing to a String cannot fail.
            Cell::Size(Some(size)) if sizes == Sizes::Human => _ = write!(text, "{size}"),
            &Cell::Size(Some(Bytes(n))) | &Cell::Number(Some(n)) => text.push_str(Digits::of(n).as_str()),
            &Cell::SizeChange(Some(change)) if sizes == Sizes::Human => {
                text.push_str(sign(change));
                _ = write!(text, "{}", Bytes(u64::try_from(change.unsigned_abs()).unwrap_or(u64::MAX)));
            }
            // A spreadsheet takes a number with a sign for that number.
            &Cell::SizeChange(Some(change)) | &Cell::NumberChange(Some(change)) => {
                _ = write!(text, "{}{}", sign(change), change.unsigned_abs());
            }
            &Cell::Hundredths(Some(n)) => {
                let minus = if n < 0 { "-" } else { "" };
                _ = write!(text, "{minus}{}.{:02}", n.unsigned_abs() / 100, n.unsigned_abs() % 100);
            }
            Cell::Age(Some(age)) if sizes == Sizes::Human => push_age(text, age.as_secs()),
            Cell::Age(Some(age)) => text.push_str(Digits::of(age.as_secs()).as_str()),
            &Cell::Estimate(Some(n)) => {
                if matches!(style, Style::Table | Style::NarrowTable) {
                    text.push('~');
                }
                text.push_str(Digits::of(n).as_str());
            }
        }
    }

    /// Whether columns of such cells are aligned to the right.
    pub(super) fn is_number(&self) -> bool {
        !matches!(self, Cell::Text(_) | Cell::Words(_))
    }

    /// The order in lists: the largest number and the first text of the alphabet first, unknown
    /// last.
    #[must_use]
    pub fn order(&self, other: &Cell) -> Ordering {
        self.rank().cmp(&other.rank())
    }

    fn rank(&self) -> Rank<'_> {
        let signed = |n: &Option<i128>| n.map_or(Rank::Unknown, |n| Rank::Number(Reverse(n)));
        let number = |n: &Option<u64>| signed(&n.map(i128::from));
        match self {
            Cell::Size(size) => number(&size.map(|s| s.0)),
            Cell::Number(n) | Cell::Estimate(n) => number(n),
            Cell::SizeChange(n) | Cell::NumberChange(n) | Cell::Hundredths(n) => signed(n),
            Cell::Age(age) => number(&age.map(|age| age.as_secs())),
            Cell::Text(text) => text.as_ref().map_or(Rank::Unknown, |t| Rank::Text(t.as_bytes())),
            Cell::Words(words) => words.as_ref().map_or(Rank::DoesNotApply, |w| Rank::Text(w.as_bytes())),
        }
    }
}

/// The place of a cell in a list. There is one order for all cells, because a column may mix them.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Rank<'a> {
    Number(Reverse<i128>),
    Text(&'a [u8]),
    DoesNotApply,
    Unknown,
}

fn sign(change: i128) -> &'static str {
    match change {
        0 => "",
        1.. => "+",
        _ => "-",
    }
}

fn add_label(text: &mut String, bytes: &[u8], style: Style) {
    match (style, bytes) {
        (_, b"") => text.push_str(empty(style)),
        (Style::Csv, _) => add_as_data(text, |text| push_escaped(text, bytes)),
        // A name that is just the sign for "none" or "unknown" must not be read as that sign.
        (_, b"-") => text.push_str("\\x2d"),
        (_, b"?") => text.push_str("\\x3f"),
        (Style::Raw | Style::NarrowTable, _) => push_blanks_escaped(text, bytes),
        (Style::Table, _) => push_gaps_escaped(text, bytes),
    }
}

/// Adds an age in its two largest units.
fn push_age(text: &mut String, seconds: u64) {
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
    let first = units.iter().position(|&(unit, _)| seconds >= unit).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    for &(unit, name) in units.iter().skip(first).take(2) {
        let number = rest / unit;
        rest %= unit;
        if number > 0 || seconds == 0 {
            text.push_str(Digits::of(number).as_str());
            text.push(name);
        }
    }
}

fn add_words(text: &mut String, words: &str, style: Style) {
    match style {
        Style::Raw => text.push_str(&words.replace(' ', "\\x20")),
        Style::Csv => add_as_data(text, |text| text.push_str(words)),
        Style::Table | Style::NarrowTable => text.push_str(words),
    }
}

/// Adds a text with a `'` in front if a spreadsheet would take it for a formula, or if it begins
/// with `'` already, so that removing the first `'` always gives the text back. Control characters,
/// which such programs skip, are escaped by now.
fn add_as_data(text: &mut String, add: impl FnOnce(&mut String)) {
    let start = text.len();
    add(text);
    // Some spreadsheets accept the full-width forms, too.
    if text[start..].starts_with(['=', '+', '-', '@', '\'', '＝', '＋', '－', '＠']) {
        text.insert(start, '\'');
    }
}

fn empty(style: Style) -> &'static str {
    if style == Style::Csv { "" } else { "-" }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that unknown is never written as a number.
    #[test]
    fn unknown() {
        assert_eq!(Cell::Size(None).write(Style::Table, Sizes::Human), "?");
        assert_eq!(Cell::Number(None).write(Style::Csv, Sizes::Bytes), "");
    }

    /// Check that people see an estimate's mark and programs see a number.
    #[test]
    fn estimate() {
        assert_eq!(Cell::Estimate(Some(3)).write(Style::Table, Sizes::Human), "~3");
        assert_eq!(Cell::Estimate(Some(3)).write(Style::Raw, Sizes::Human), "3");
    }

    /// Check that a change has its sign, in a table, for programs and in lists.
    #[test]
    fn changes() {
        let shown = |change, sizes| Cell::SizeChange(Some(change)).write(Style::Csv, sizes);
        assert_eq!(shown(8 << 20, Sizes::Human), "+8.0M");
        assert_eq!(shown(-(8 << 20), Sizes::Human), "-8.0M");
        assert_eq!([5, 0, -5].map(|change| shown(change, Sizes::Bytes)), ["+5", "0", "-5"]);
        let (less, more) = (Cell::NumberChange(Some(-5)), Cell::NumberChange(Some(3)));
        assert_eq!(more.order(&less), Ordering::Less);
    }

    /// Check that an age has its two largest units, and is a number of seconds for programs.
    #[test]
    fn ages() {
        let age = |seconds, sizes| Cell::Age(Some(Duration::from_secs(seconds))).write(Style::Table, sizes);
        for (seconds, shown) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (3725, "1h2m"), (86_400 * 3 + 60, "3d"), (90_000, "1d1h")]
        {
            assert_eq!(age(seconds, Sizes::Human), shown);
        }
        assert_eq!(age(3725, Sizes::Bytes), "3725");
    }

    /// Check that a name `?` cannot be read as "unknown".
    #[test]
    fn signs_are_no_names() {
        assert_eq!(Cell::Text(Some("?".into())).write(Style::Table, Sizes::Human), "\\x3f");
        assert_eq!(Cell::Text(None).write(Style::Table, Sizes::Human), "?");
    }

    /// Check that no cell of CSV is a formula, and that a text that begins with the quote stays
    /// distinct.
    #[test]
    fn formulas_are_data() {
        let csv = |text: &str| {
            let cells = [Cell::Text(Some(text.into())), Cell::Words(Some(text.to_owned().into()))];
            let [text, words] = cells.map(|cell| cell.write(Style::Csv, Sizes::Bytes));
            assert_eq!(text, words);
            text
        };
        for text in ["=cmd|' /C calc'!A0", "@SUM(1)", "-1+1", "+1", "'=1", "＝1"] {
            assert_eq!(csv(text), format!("'{text}"));
        }
        assert_eq!(csv("cam=0"), "cam=0");
        assert_eq!(Cell::Text(Some("\t=1".into())).write(Style::Csv, Sizes::Bytes), "\\x09=1");
        assert_eq!(Cell::Text(Some("=1".into())).write(Style::Table, Sizes::Bytes), "=1");
    }

    /// Check that where columns are one blank apart, no blank in a text can pass for that gap.
    #[test]
    fn narrow_tables() {
        assert_eq!(Cell::Text(Some("cam 0".into())).write(Style::Table, Sizes::Human), "cam 0");
        assert_eq!(Cell::Text(Some("cam 0".into())).write(Style::NarrowTable, Sizes::Human), "cam\\x200");
        assert_eq!(Cell::Estimate(Some(3)).write(Style::NarrowTable, Sizes::Human), "~3");
    }

    /// Check that a column with known, unknown and inapplicable cells has one order.
    #[test]
    fn mixed_columns_are_ordered() {
        let text = |t: &'static str| Cell::Words(Some(t.into()));
        let mut cells = [Cell::Text(None), text("b"), Cell::Words(None), text("a")];
        cells.sort_by(Cell::order);
        assert_eq!(cells, [text("a"), text("b"), Cell::Words(None), Cell::Text(None)]);
    }

    /// Check that the largest number comes first and the unknown last.
    #[test]
    fn largest_first() {
        let mut cells = [Cell::Size(None), Cell::Size(Some(Bytes(1))), Cell::Size(Some(Bytes(9)))];
        cells.sort_by(Cell::order);
        assert_eq!(cells, [Cell::Size(Some(Bytes(9))), Cell::Size(Some(Bytes(1))), Cell::Size(None)]);
    }
}
