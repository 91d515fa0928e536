//! The terminal: stdout with or without colour, its width, and words for people on stderr.

use std::io::{self, BufWriter, IsTerminal, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use lsbuf::escape::escape;
use lsbuf::model::{Coverage, LeakShape, Snapshot};
use lsbuf::render::{JsonLayout, Sizes};

use crate::stdout;

/// How a command that printed its answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It answered.
    Answered,
    /// It answered, and the answer is a failure.
    Failed,
    /// It answered in part, with `--strict`.
    StrictlyPartial,
    /// With a status that has another meaning.
    Status(u8),
}

/// Standard output, buffered; an error if it is closed.
pub(crate) fn buffered() -> io::Result<BufWriter<io::Stdout>> {
    stdout::check()?;
    Ok(BufWriter::with_capacity(64 << 10, io::stdout()))
}

/// Keeps styles if colour is wanted on standard output, else makes them none.
pub(crate) fn styles(color: ColorChoice) -> impl Fn(Style) -> Style {
    let is_wanted = match color {
        ColorChoice::Auto => AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never,
        ColorChoice::Always => true,
        ColorChoice::Never => false,
    };
    move |style| if is_wanted { style } else { Style::new() }
}

/// Columns of the terminal; `None`: it is no terminal, and nothing is cut.
pub(crate) fn width() -> Option<u16> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0)
}

/// How sizes are written.
pub(crate) fn sizes(human: bool, bytes: bool) -> Sizes {
    if human || !bytes && io::stdout().is_terminal() { Sizes::Human } else { Sizes::Bytes }
}

/// How JSON is laid out.
pub(crate) fn json_layout(compact: bool) -> JsonLayout {
    if compact { JsonLayout::Compact } else { JsonLayout::Lines }
}

/// Style of headings.
pub(crate) const HEADING: Style = Style::new().bold();

/// Style of a buffer's row.
pub(crate) fn row_style(shape: Option<LeakShape>) -> Style {
    match shape {
        Some(LeakShape::Fd) => AnsiColor::Red.on_default(),
        Some(LeakShape::Handle | LeakShape::InFlight | LeakShape::OPath | LeakShape::Unattached) => {
            AnsiColor::Yellow.on_default()
        }
        // A mapping without an fd is how many programs use a buffer.
        _ => Style::new(),
    }
}

/// Success where the reader has closed the pipe, so that the notes are still printed on stderr.
pub(crate) fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

/// Prints one line on stderr. It may quote arguments and paths, so it is escaped first.
pub(crate) fn say(text: &str) {
    // If stderr is closed, nothing can be said.
    let _ = writeln!(io::stderr(), "lsbuf: {}", escape(text.as_bytes()).replace("\\\\", "\\"));
}

/// Prints the notes of an answer on stderr; returns how the command ends.
pub(crate) fn conclude(snapshot: &Snapshot, strict: bool) -> Ending {
    say_notes(&snapshot.coverage);
    ending(&snapshot.coverage, strict)
}

/// Prints the notes of an answer on stderr, in one line.
pub(crate) fn say_notes(coverage: &Coverage) {
    if !coverage.notes.is_empty() {
        let notes: Vec<String> = coverage.notes.iter().map(ToString::to_string).collect();
        let kind = if coverage.is_complete() { "note" } else { "partial" };
        say(&format!("{kind}: {}", notes.join("; ")));
    }
}

/// How a command ends that printed an answer with that coverage.
pub(crate) fn ending(coverage: &Coverage, strict: bool) -> Ending {
    if strict && !coverage.is_complete() { Ending::StrictlyPartial } else { Ending::Answered }
}
