//! The terminal: stdout with or without colour, its width, and words for people on stderr.

use std::io::{self, BufWriter, IsTerminal, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use lsbuf::escape::escape;
use lsbuf::model::{Coverage, LeakShape, Snapshot};
use lsbuf::render::Sizes;

use crate::stdout;

/// How a command that printed its answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With what there was to answer.
    Answered,
    /// With an answer that names a failure.
    Failed,
    /// In part, where only a whole answer was wanted.
    StrictlyPartial,
}

/// Standard output for programs, buffered; an error if there is none.
pub(crate) fn plain() -> io::Result<BufWriter<io::Stdout>> {
    stdout::check()?;
    Ok(BufWriter::with_capacity(64 << 10, io::stdout()))
}

/// Standard output for people, buffered; drops colour where it is not wanted. An error if there is
/// none.
pub(crate) fn colored(color: ColorChoice) -> io::Result<BufWriter<AutoStream<io::Stdout>>> {
    stdout::check()?;
    let choice = match color {
        ColorChoice::Auto => AutoStream::choice(&io::stdout()),
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    };
    Ok(BufWriter::new(AutoStream::new(io::stdout(), choice)))
}

/// Columns of the terminal; `None`: not a terminal, and nothing is cut.
pub(crate) fn width() -> Option<u16> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0)
}

/// How sizes are written.
pub(crate) fn sizes(human: bool, bytes: bool) -> Sizes {
    if human || !bytes && io::stdout().is_terminal() { Sizes::Human } else { Sizes::Bytes }
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

/// A reader that has seen enough is no error; what there is to say on stderr is still said.
pub(crate) fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

/// One line on stderr. It may quote arguments and paths, so it is made harmless first.
pub(crate) fn say(text: &str) {
    // Without a stderr there is nobody to tell.
    let _ = writeln!(io::stderr(), "lsbuf: {}", escape(text.as_bytes()).replace("\\\\", "\\"));
}

/// Says on stderr what a reader of the answer must know, and how the command ends for it.
pub(crate) fn conclude(snapshot: &Snapshot, strict: bool) -> Ending {
    say_notes(&snapshot.coverage);
    ending(&snapshot.coverage, strict)
}

/// Says on stderr what a reader of the answer must know.
pub(crate) fn say_notes(coverage: &Coverage) {
    if !coverage.notes.is_empty() {
        let notes: Vec<String> = coverage.notes.iter().map(ToString::to_string).collect();
        let kind = if coverage.is_complete() { "note" } else { "partial" };
        say(&format!("{kind}: {}", notes.join("; ")));
    }
}

/// How the command ends.
pub(crate) fn ending(coverage: &Coverage, strict: bool) -> Ending {
    if strict && !coverage.is_complete() { Ending::StrictlyPartial } else { Ending::Answered }
}
