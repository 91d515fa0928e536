//! A trace as lines: events, what was lost, and at the end what it comes to.
//!
//! Events come one after the other, so the columns have fixed widths, and a wider cell moves those
//! behind it. JSON has one object on each line (`docs/lsbuf.trace-1.schema.json`).

mod json;
mod sums;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use self::json::{
    trace_balance_json, trace_begin_json, trace_counts_json, trace_end_json, trace_item_json,
};
pub use self::sums::{TraceCounts, trace_balance, trace_counts};
use super::align::Alignment;
use super::cell::Sizes;
use super::origin::calls;
use super::summary::size;
use crate::escape::{escape, escape_word};
use crate::model::{Event, Happening, Label, Pid, TracedBuffer, TracedMapping, Way};
use crate::trace::{Item, LossCause};

/// The columns of an event.
const COLUMNS: [(&str, usize, bool); 8] = [
    ("TIME", 15, false),
    ("EVENT", 8, false),
    ("KIND", 9, false),
    ("INO", 10, true),
    ("SIZE", 10, true),
    ("COMMAND", 20, false),
    ("NAME", 20, false),
    ("WHAT", 0, false),
];

fn alignment() -> Alignment {
    let widths = COLUMNS.iter().map(|(_, width, _)| *width).collect();
    let numbers = COLUMNS.iter().map(|(.., number)| *number).collect();
    Alignment { widths, numbers, gap: 1 }
}

/// The line above events.
#[must_use]
pub fn trace_heading() -> String {
    alignment().line(COLUMNS.iter().map(|(name, ..)| *name))
}

/// Writes one item of a trace: a line, and below it the calls, if they are wanted and it has some.
///
/// # Errors
/// Those of `out`.
pub fn trace_item(out: &mut dyn Write, item: &Item, sizes: Sizes, stacks: bool) -> io::Result<()> {
    match item {
        Item::Event(event) => {
            writeln!(out, "{}", line(event, sizes))?;
            event.stack.as_deref().filter(|_| stacks).map_or(Ok(()), |stack| calls(out, stack, "by"))
        }
        Item::Lost(cause, lost) => writeln!(out, "{}", trace_loss(*cause, *lost)),
    }
}

/// What was lost, in words.
#[must_use]
pub fn trace_loss(cause: LossCause, lost: u64) -> String {
    format!("--- {lost} {} ---", cause.says())
}

fn line(event: &Event, sizes: Sizes) -> String {
    let TracedBuffer { kind, ino, size: bytes, name, name_cut, .. } = &event.buffer;
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "?".to_owned());
    let cells = [
        clock(event.at),
        event.what.word().to_owned(),
        or_unknown(kind.map(|kind| kind.as_str().to_owned())),
        or_unknown(ino.map(|ino| ino.to_string())),
        size(Some(*bytes), sizes),
        who(&event.by.command, event.by.pid),
        match name {
            Some(name) if *name_cut => format!("{}…", escape_word(name.as_bytes())),
            Some(name) => escape_word(name.as_bytes()),
            None => "-".to_owned(),
        },
        what(event, sizes),
    ];
    alignment().line(cells.iter().map(String::as_str))
}

fn who(command: &Label, pid: Pid) -> String {
    format!("{}:{pid}", escape_word(command.as_bytes()))
}

/// A command by which buffers were made.
fn who_made(command: &Label) -> String {
    escape_word(command.as_bytes())
}

/// What only this sort of event has.
fn what(event: &Event, sizes: Sizes) -> String {
    match &event.what {
        Happening::Made => {
            let exporter = event.buffer.exporter.as_ref();
            exporter.map_or(String::new(), |exporter| format!("by {}", escape_word(exporter.as_bytes())))
        }
        Happening::Fd { fd, path_only: false } => format!("fd {fd}"),
        Happening::Fd { fd, path_only: true } => format!("fd {fd} (O_PATH)"),
        Happening::Received { fd, way, from } => {
            let from = from.as_ref().map_or("?".to_owned(), |from| who(&from.command, from.pid));
            match way {
                Way::Message => format!("fd {fd} from {from}"),
                Way::Taken => format!("fd {fd} taken from {from}"),
                Way::Other => format!("fd {fd} from {from} (neither a message nor taken)"),
            }
        }
        Happening::Mapped(TracedMapping { length, read, write, execute, shared, .. }) => {
            let letter = |is: &bool, letter| if *is { letter } else { '-' };
            let sharing = if *shared { 's' } else { 'p' };
            let access: String =
                [letter(read, 'r'), letter(write, 'w'), letter(execute, 'x'), sharing].iter().collect();
            format!("{} {access}", size(Some(*length), sizes))
        }
        Happening::Attached(device) => format!("to {}", escape(device.as_bytes())),
        Happening::Detached(device) => format!("from {}", escape(device.as_bytes())),
        Happening::Renamed | Happening::Freed => String::new(),
    }
}

/// A time of day where this process runs, with microseconds.
fn clock(at: SystemTime) -> String {
    let stamp = Timestamp::try_from(at).map(|stamp| stamp.to_zoned(TimeZone::system()));
    stamp.map_or("?".to_owned(), |zoned| zoned.strftime("%H:%M:%S%.6f").to_string())
}
