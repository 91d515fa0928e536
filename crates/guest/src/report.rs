//! The report that a guest sends while it runs: one JSON object a line, over a serial port of its
//! own.
//!
//! Guest and host use the same types. Each line is written with one `write`, and the kernel's tty
//! layer keeps it whole. So any process of the guest may report, without a lock. The serial port is
//! slow, because each byte leaves the emulated machine on its own. That is fine for text and too
//! slow for bulk data.

use std::fs::File;
use std::io::{self, Write};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::need::Need;

/// The environment variable that names the file to which the report goes. The host gives it to
/// process 1 by the kernel's command line.
pub const REPORT_VARIABLE: &str = "LSBUF_REPORT";

/// The path, in the guest, of the [`Plan`] for this boot.
pub const PLAN_PATH: &str = "/etc/lsbuf-plan.json";

/// What the guest is to do, written into its initramfs by the host.
///
/// It is a file because the kernel's command line is short, splits at spaces, and rewrites quotes
/// and `=`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Plan {
    /// A name in [`crate::modes::MODES`].
    pub mode: String,
    /// The mode's arguments.
    pub arguments: Vec<String>,
}

/// How a scenario, or a point of `lsbuf check`, ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran, and every check held.
    Ok,
    /// A check or the point did not hold, or it ended in an error, a crash or a timeout.
    Failed,
    /// It did not run, because the kernel lacks something that it needs.
    Skipped,
}

/// The stream that a process wrote a text to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of the report.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The guest is up. The first line, unless a failure came before.
    Hello {
        /// The release of the running kernel, as `uname -r` prints it.
        kernel: String,
        /// The needs that the running kernel meets.
        has: Vec<Need>,
    },
    /// One comparison made by a scenario.
    Check {
        /// The scenario's name, and its way.
        scenario: String,
        /// What was compared.
        what: String,
        /// What the scenario knows to be true.
        expected: String,
        /// What was found or printed.
        printed: String,
    },
    /// One point of `lsbuf check`.
    Point {
        /// The point's stable id.
        id: String,
        /// How it ended.
        outcome: Outcome,
        /// What was seen, or why it was skipped.
        detail: String,
    },
    /// Text that a mode or a scenario wrote. Bytes that are not UTF-8 are replaced.
    Output {
        /// The scenario that wrote it; `None` for the mode itself.
        scenario: Option<String>,
        /// The stream that it was written to.
        stream: Stream,
        /// The text, in whole lines except at the end of the stream.
        text: String,
    },
    /// A scenario ended or was skipped.
    Scenario {
        /// Its name, and its way.
        name: String,
        /// How it ended.
        outcome: Outcome,
        /// Why, if it is not `Ok`.
        detail: String,
        /// For a skip: the needs that are not met.
        missing: Vec<Need>,
        /// How long it took, in milliseconds.
        millis: u64,
    },
    /// The guest itself could not continue.
    Failure {
        /// What went wrong.
        detail: String,
    },
    /// The mode ended and the machine powers off. Always the last line.
    Done {
        /// The mode's exit status, or 128 plus the number of the signal that ended it.
        status: i32,
    },
}

/// The writing end of a report.
#[derive(Debug)]
pub struct Reporter {
    file: File,
}

impl Reporter {
    /// A reporter that writes to `file`.
    pub fn new(file: File) -> Self {
        Self { file }
    }

    /// The reporter of this boot: it writes to the file that [`REPORT_VARIABLE`] names. Without
    /// that variable it writes to standard output, so that a person can try a mode by hand.
    ///
    /// # Errors
    ///
    /// The named file cannot be opened for writing.
    pub fn from_environment() -> anyhow::Result<Self> {
        let path = std::env::var_os(REPORT_VARIABLE).unwrap_or_else(|| "/dev/stdout".into());
        let file = File::options()
            .append(true)
            .open(&path)
            .with_context(|| format!("opening the report {}", path.display()))?;
        Ok(Self::new(file))
    }

    /// Sends one event.
    ///
    /// # Errors
    ///
    /// The report cannot be written.
    pub fn send(&self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        (&self.file).write_all(&line)
    }

    /// Waits until all sent bytes have left the serial port. Bytes that are still queued when the
    /// machine powers off are lost.
    ///
    /// # Errors
    ///
    /// The report is not a terminal.
    pub fn drain(&self) -> io::Result<()> {
        rustix::termios::tcdrain(&self.file).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that an event is read back as it was sent, and stays on one line whatever its text is.
    #[test]
    fn one_line_per_event() {
        let event = Event::Output { scenario: None, stream: Stream::Stdout, text: "a\nb\0\u{1b}[1m".into() };
        let line = serde_json::to_string(&event).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }
}
