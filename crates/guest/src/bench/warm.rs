//! A way as a scanner that stays and scans again and again.
//!
//! The scanner is a process of `lsbuf-bench`. It scans once for every line that it is sent, and
//! prints what the scan took. So it waits while other ways are timed, and is a small part of the
//! world that they read.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::figures::{Figures, Measured, References, WarmScan, median, millis};
use super::way::SCANNER;
use crate::sys::measure::{self, SystemCalls, Taken};

/// How long a scanner's turn lasts. The first of several short scans finds the caches as other
/// programs left them. A long scan outweighs that by itself.
const TURN: Duration = Duration::from_millis(100);
/// The largest number of scans in a turn.
const AT_MOST: usize = 10;

/// A scanner that stays.
pub(super) struct WarmScanner {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    first: WarmScan,
    scans: Vec<WarmScan>,
}

impl Drop for WarmScanner {
    fn drop(&mut self) {
        // It may have ended already. Afterwards it is gone in any case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl WarmScanner {
    /// Starts a scanner and lets it scan once. The inner error says why this way cannot run here.
    pub(super) fn start(
        programs: &Path,
        source: &str,
        pins: &Path,
    ) -> anyhow::Result<Result<WarmScanner, String>> {
        let program = programs.join(SCANNER);
        let mut command = Command::new(&program);
        command.arg(source).arg(pins).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (mut input, output) = input.zip(output).context("a child without pipes")?;
        let mut output = BufReader::new(output);
        Ok(match scan(&mut input, &mut output) {
            Ok(first) => Ok(WarmScanner { child, input, output, first, scans: Vec::new() }),
            Err(_) => {
                // Its standard error ends only when it has ended.
                let _ = child.kill();
                let mut errors = String::new();
                child.stderr.take().context("a child without pipes")?.read_to_string(&mut errors)?;
                child.wait()?;
                Err(errors.lines().next().unwrap_or("it says nothing").to_owned())
            }
        })
    }

    fn scan(&mut self) -> anyhow::Result<WarmScan> {
        scan(&mut self.input, &mut self.output)
    }

    /// Scans for one turn, and times each scan.
    pub(super) fn run(&mut self) -> anyhow::Result<()> {
        let mut spent = Duration::ZERO;
        for _ in 0..AT_MOST {
            let scan = self.scan()?;
            self.scans.push(scan);
            spent += scan.taken.wall;
            if spent >= TURN {
                break;
            }
        }
        Ok(())
    }

    /// What the scans took.
    pub(super) fn taken(&self) -> Vec<Taken> {
        self.scans.iter().map(|scan| scan.taken).collect()
    }

    /// The figures, after one more scan whose system calls are counted.
    pub(super) fn measured(mut self, expected: Option<References>) -> anyhow::Result<Measured> {
        let counter = SystemCalls::of(self.child.id());
        let last = self.scan()?;
        let system_calls = counter.and_then(SystemCalls::read);
        let peak_kib = measure::high_water(self.child.id())?;
        for scan in [&self.first, &last].into_iter().chain(&self.scans) {
            ensure!(
                expected.is_none_or(|expected| scan.references == expected),
                "a scan finds {:?}, and there are {expected:?}",
                scan.references
            );
        }
        let Some(figures) = Figures::of(&self.taken(), peak_kib, system_calls) else {
            return Ok(Measured::Missing("it never scanned".into()));
        };
        Ok(Measured::Figures(Figures {
            first: Some(millis(self.first.taken.wall)),
            allocations: median(self.scans.iter().map(|scan| scan.allocations as f64)),
            ..figures
        }))
    }
}

fn scan(input: &mut ChildStdin, output: &mut BufReader<ChildStdout>) -> anyhow::Result<WarmScan> {
    input.write_all(b"\n").context("telling it to scan")?;
    let mut line = String::new();
    output.read_line(&mut line).context("listening to it")?;
    serde_json::from_str(&line).with_context(|| format!("understanding {line:?}"))
}
