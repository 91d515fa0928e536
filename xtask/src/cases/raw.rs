//! Rows of `lsbuf --raw`, by the headings.

use std::collections::BTreeMap;

use anyhow::Context;

use super::Pair;
use super::plain::Figures;

/// The cells of one row, by heading.
#[derive(Debug, Default)]
pub(super) struct Cells(BTreeMap<String, String>);

impl Cells {
    /// The cell of that column; empty if there is none.
    pub(super) fn get(&self, column: &str) -> &str {
        self.0.get(column).map_or("", String::as_str)
    }
}

/// The rows by the number in column `key`. A row without such a number is left out.
pub(super) fn rows(text: &str, key: &str) -> anyhow::Result<BTreeMap<u64, Cells>> {
    let mut lines = text.lines();
    let headings: Vec<&str> = lines.next().context("lsbuf printed nothing")?.split(' ').collect();
    let mut rows = BTreeMap::new();
    for line in lines {
        let cells = headings.iter().map(|heading| (*heading).to_owned()).zip(line.split(' ').map(decoded));
        let cells = Cells(cells.collect());
        if let Ok(number) = cells.get(key).parse() {
            rows.insert(number, cells);
        }
    }
    Ok(rows)
}

/// The claims that a row of `lsbuf ps` makes of a process.
pub(super) fn figures(name: &str, row: &Cells, right: &Figures) -> Pair {
    let columns = ["RSS", "USS", "BUFS", "FDS", "MAPS"];
    let answer: Vec<String> = columns.iter().map(|column| format!("{column} {}", row.get(column))).collect();
    let Figures { rss, uss, buffers, fds, maps } = right;
    let right = format!("RSS {rss} USS {uss} BUFS {buffers} FDS {fds} MAPS {maps}");
    Pair::new(name, answer.join(" "), right)
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
        let rows = rows("PID ARGS\n12 a\\x20b\n- total\n", "PID").unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[&12].get("ARGS"), "a b");
        assert_eq!(rows[&12].get("USS"), "");
    }

    /// Check that no text makes the decoding panic, and that unknown escapes stay.
    #[test]
    fn broken_escapes() {
        assert_eq!(decoded("\\x"), "\\x");
        assert_eq!(decoded("\\xff\\x4ß"), "\\xff\\x4ß");
    }
}
