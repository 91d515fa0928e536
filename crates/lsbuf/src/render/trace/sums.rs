//! What a trace comes to, as tables: events counted, and buffers made, freed and left.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::super::align::aligned;
use super::super::cell::Sizes;
use super::super::origin::call;
use super::super::summary::size;
use super::who_made;
use crate::model::{Bytes, Event, Happening, Kind, Stack};
use crate::trace::{Balance, BalanceRow};

/// How many events there were of each sort and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceCounts(BTreeMap<(usize, &'static str), (u64, Bytes)>);

impl TraceCounts {
    /// Counts an event.
    pub fn add(&mut self, event: &Event) {
        let kind = event.buffer.kind.map_or("?", Kind::as_str);
        let (count, bytes) = self.0.entry((event.what.nth(), kind)).or_default();
        *count += 1;
        *bytes = *bytes + event.buffer.size;
    }

    /// Each sort of event and kind of buffer (`?`: not known), with the number of events and the
    /// sizes of their buffers together, each as it was at the event.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, &'static str, u64, Bytes)> + '_ {
        self.0.iter().map(|((nth, kind), (count, bytes))| (Happening::WORDS[*nth], *kind, *count, *bytes))
    }
}

/// Writes the counts as a table.
///
/// # Errors
/// Those of `out`.
pub fn trace_counts(out: &mut dyn Write, counts: &TraceCounts, sizes: Sizes) -> io::Result<()> {
    let mut rows = vec![["EVENT", "KIND", "COUNT", "BYTES"].map(str::to_owned).to_vec()];
    rows.extend(counts.rows().map(|(event, kind, count, bytes)| {
        vec![event.to_owned(), kind.to_owned(), count.to_string(), size(Some(bytes), sizes)]
    }));
    aligned(out, &rows, &[false, false, true, true])
}

/// Writes what was made, freed and is left, by the command and the stack that made it.
///
/// # Errors
/// Those of `out`.
pub fn trace_balance(out: &mut dyn Write, rows: &[BalanceRow], sizes: Sizes) -> io::Result<()> {
    let heading =
        ["MADE", "FREED", "LEFT", "LEFT-BYTES", "KIND", "COMMAND", "MADE-BY"].map(str::to_owned).to_vec();
    let figures = |sum: crate::trace::BalanceSum| {
        [
            sum.made.to_string(),
            sum.freed.to_string(),
            sum.left().to_string(),
            size(Some(sum.left_bytes), sizes),
        ]
    };
    let mut lines = vec![heading];
    for row in rows {
        let [made, freed, left, bytes] = figures(row.sum);
        let kind = row.kind.map_or("?", Kind::as_str).to_owned();
        let (command, way) = (who_made(&row.command), way(row.stack.as_deref()));
        lines.push(vec![made, freed, left, bytes, kind, command, way]);
    }
    let [made, freed, left, bytes] = figures(Balance::total(rows));
    lines.push(vec![made, freed, left, bytes, "all".to_owned(), String::new(), String::new()]);
    aligned(out, &lines, &[true, true, true, true, false, false, false])
}

/// The calls from the program's own one outwards.
fn way(stack: Option<&Stack>) -> String {
    let calls: Vec<String> = stack.into_iter().flat_map(Stack::own_calls).map(call).collect();
    if calls.is_empty() { "?".to_owned() } else { calls.join(" < ") }
}
