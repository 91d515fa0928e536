//! Rows of `lsbuf --raw`, by the headings.

use std::collections::BTreeMap;

use anyhow::Context;

use super::Pair;
use super::plain::{Figures, named};

/// The rows by the number in one column.
#[derive(Debug)]
pub(super) struct Rows(BTreeMap<u64, BTreeMap<String, String>>);

impl Rows {
    /// Reads the rows. One without a number in column `key` is left out.
    pub(super) fn read(text: &str, key: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let headings: Vec<&str> = lines.next().context("lsbuf printed nothing")?.split(' ').collect();
        let mut rows = BTreeMap::new();
        for line in lines {
            let cells = headings.iter().map(|heading| (*heading).to_owned());
            let cells: BTreeMap<String, String> = cells.zip(line.split(' ').map(decoded)).collect();
            if let Some(number) = cells.get(key).and_then(|cell| cell.parse().ok()) {
                rows.insert(number, cells);
            }
        }
        Ok(Self(rows))
    }

    /// The cell of that row in that column.
    pub(super) fn cell(&self, number: impl Into<u64>, column: &str) -> &str {
        self.0.get(&number.into()).map_or("no row", |row| row.get(column).map_or("no column", String::as_str))
    }

    /// The figures that `lsbuf ps` prints of a process, beside the right ones.
    pub(super) fn figures(&self, pid: u32, right: &Figures) -> Pair {
        let Figures { rss, uss, buffers, fds, maps } = right;
        let right = format!("RSS {rss} USS {uss} BUFS {buffers} FDS {fds} MAPS {maps}");
        let columns = ["RSS", "USS", "BUFS", "FDS", "MAPS"];
        let answer = columns.map(|column| format!("{column} {}", self.cell(pid, column)));
        Pair::new(named(pid), answer.join(" "), right)
    }
}

/// A cell with `\xNN` as the character it stands for. What is no such escape stays as it is.
fn decoded(cell: &str) -> String {
    let mut text = String::new();
    let mut rest = cell;
    while let Some((before, after)) = rest.split_once("\\x") {
        text.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(u8::is_ascii) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                text.push_str("\\x");
                rest = after;
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that cells are found by heading, and that an escaped blank is one.
    #[test]
    fn cells_by_heading() {
        let rows = Rows::read("PID ARGS\n12 a\\x20b\n- total\n", "PID").unwrap();
        assert_eq!(rows.cell(12u32, "ARGS"), "a b");
        assert_eq!(rows.cell(12u32, "USS"), "no column");
        assert_eq!(rows.cell(13u32, "ARGS"), "no row");
    }

    /// Check that no text makes the decoding panic, and that unknown escapes stay.
    #[test]
    fn broken_escapes() {
        assert_eq!(decoded("\\x"), "\\x");
        assert_eq!(decoded("\\xff\\x4ß"), "\\xff\\x4ß");
    }
}
