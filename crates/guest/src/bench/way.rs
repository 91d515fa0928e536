//! The ways to read a world: a table, and a first run of each.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::fs::{MemfdFlags, memfd_create};

use super::figures::References;
use crate::answer::Answer;
use crate::sys::measure::{self, Watched};

/// One way to read a world.
#[derive(Debug)]
pub(super) struct BenchWay {
    pub(super) name: &'static str,
    /// A program of this project, or one of the machine.
    pub(super) program: &'static str,
    pub(super) arguments: &'static [&'static str],
    /// The sources for `lsbuf-bench`, if the way can be a scanner.
    pub(super) source: Option<&'static str>,
    /// Arguments for lsbuf before each run and after it. These calls are not timed.
    around: Option<(&'static [&'static str], &'static [&'static str])>,
}

/// The command, in the folder of programs.
const LSBUF: &str = "lsbuf";
/// A program that scans in a loop with lsbuf's library.
pub(super) const SCANNER: &str = "lsbuf-bench";

/// A way that does not answer within this time is missing, because it would take the time of the
/// others.
const LIMIT: Duration = Duration::from_secs(100);

/// BPF iterators that lsbuf loads itself.
pub const BPF: &str = "lsbuf, BPF";
/// BPF iterators that were loaded and pinned before.
pub const PINNED: &str = "lsbuf, BPF pinned";
/// The sources that lsbuf chooses by default.
pub const AUTO: &str = "lsbuf, auto";
/// procfs with its fastest way to read mappings.
pub const PROCFS: &str = "lsbuf, procfs";
/// procfs with the text of every mapping.
pub const TEXT: &str = "lsbuf, text maps";
/// What starting the program costs.
pub const START: &str = "process start (lsbuf --version)";

/// A way of lsbuf with these sources.
const fn lsbuf(name: &'static str, source: &'static str, arguments: &'static [&'static str]) -> BenchWay {
    BenchWay { name, program: LSBUF, arguments, source: Some(source), around: None }
}

/// All ways. They look for dma-bufs alone, because the worlds are made of them. To add a way, add a
/// row. A way whose arguments lsbuf refuses is missing, with the reason.
pub(super) const WAYS: &[BenchWay] = &[
    BenchWay {
        around: Some((&["probes", "install"], &["probes", "remove"])),
        ..lsbuf(PINNED, "bpf", &["-d", "--json", "--source", "bpf"])
    },
    lsbuf(BPF, "bpf", &["-d", "--json", "--source", "bpf"]),
    lsbuf(AUTO, "auto", &["-d", "--json"]),
    lsbuf(PROCFS, "procfs,bufinfo", &["-d", "--json", "--source", "procfs,bufinfo"]),
    lsbuf("lsbuf, PROCMAP_QUERY", "procmap,bufinfo", &["-d", "--json", "--source", "procmap,bufinfo"]),
    lsbuf(TEXT, "maps,bufinfo", &["-d", "--json", "--source", "maps,bufinfo"]),
    lsbuf("lsbuf, map_files", "map_files,bufinfo", &["-d", "--json", "--source", "map_files,bufinfo"]),
    BenchWay { name: "lsof", program: "lsof", arguments: &["-n", "-P", "-w"], source: None, around: None },
    BenchWay { name: START, program: LSBUF, arguments: &["--version"], source: None, around: None },
];

/// A way after its first run, which is not timed.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) way: &'static BenchWay,
    programs: PathBuf,
    /// Whether its answer was complete.
    pub(super) complete: Option<bool>,
    /// The memory and system calls that it takes, or why it cannot run here.
    pub(super) watched: Result<Watched, String>,
}

impl Asked {
    /// Runs the way once, and compares lsbuf's answer with what was made.
    pub(super) fn new(
        way: &'static BenchWay,
        programs: &Path,
        expected: Option<References>,
    ) -> anyhow::Result<Asked> {
        let mut asked =
            Asked { way, programs: programs.to_owned(), complete: None, watched: Err(String::new()) };
        eprintln!("asking: {}", way.name);
        match asked.around(|| asked.answer()) {
            Ok((watched, answer)) => {
                let seen = answer.as_ref().map(references);
                ensure!(
                    seen.is_none() || expected.is_none() || seen == expected,
                    "{} sees {seen:?}, and there are {expected:?}",
                    way.name
                );
                asked.complete = answer.and_then(|answer| answer.0["scan"]["complete"].as_bool());
                asked.watched = Ok(watched);
            }
            Err(why) => asked.watched = Err(format!("{why:#}")),
        }
        Ok(asked)
    }

    /// The command that is timed.
    pub(super) fn command(&self) -> Command {
        let mut command = match self.way.program {
            LSBUF => Command::new(self.programs.join(LSBUF)),
            other => Command::new(other),
        };
        command.args(self.way.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Calls `run` between the calls of lsbuf that the way needs before and after.
    pub(super) fn around<T>(&self, run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let Some((before, after)) = self.way.around else { return run() };
        self.tell(before)?;
        let done = run();
        self.tell(after)?;
        done
    }

    /// Runs lsbuf without counting: this happens between timed runs, and counting would disturb
    /// them.
    fn tell(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(self.programs.join(LSBUF));
        let told = command.args(arguments).stdin(Stdio::null()).output().context("starting lsbuf")?;
        let errors = String::from_utf8_lossy(&told.stderr);
        ensure!(told.status.success(), "{}", errors.lines().next().unwrap_or("it says nothing"));
        Ok(())
    }

    /// Runs the way once, not timed, and returns lsbuf's answer.
    fn answer(&self) -> anyhow::Result<(Watched, Option<Answer>)> {
        let mut printed = unnamed_file("answer")?;
        let mut command = self.command();
        command.stdout(printed.try_clone()?);
        let watched = finished(command)?;
        if self.way.source.is_none() {
            return Ok((watched, None));
        }
        printed.rewind()?;
        let answer = serde_json::from_reader(BufReader::new(printed)).context("lsbuf printed no JSON")?;
        Ok((watched, Some(Answer(answer))))
    }
}

/// Runs a command until it ends. The error is the first line of its standard error.
fn finished(mut command: Command) -> anyhow::Result<Watched> {
    let mut errors = unnamed_file("errors")?;
    command.stderr(errors.try_clone()?);
    measure::watched(command, LIMIT).map_err(|error| {
        let mut text = String::new();
        match errors.rewind().and_then(|()| errors.read_to_string(&mut text)) {
            Ok(1..) => anyhow::anyhow!("{}", text.lines().next().unwrap_or_default()),
            Ok(0) | Err(_) => error,
        }
    })
}

/// An unnamed file in memory. A pipe would have to be read while its writer is traced.
fn unnamed_file(name: &str) -> anyhow::Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC).context("making a file in memory")?.into())
}

fn references(answer: &Answer) -> References {
    let buffers = answer.list("buffers");
    let sum = |key: &str| buffers.iter().filter_map(|buffer| buffer["refs"][key].as_u64()).sum();
    References { buffers: buffers.len() as u64, fd: sum("fd"), map: sum("map") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a way is missing, with the reason, if its program does not exist or refuses its
    /// arguments.
    #[test]
    fn missing_says_why() {
        const ABSENT: BenchWay =
            BenchWay { name: "absent", program: "lsbuf-no-such", arguments: &[], source: None, around: None };
        const REFUSED: BenchWay = BenchWay {
            name: "refused",
            program: "cat",
            arguments: &["/proc/lsbuf-no-such"],
            source: None,
            around: None,
        };
        for (way, why) in [(&ABSENT, "starting"), (&REFUSED, "No such file")] {
            let asked = Asked::new(way, Path::new("/"), None).unwrap();
            assert!(asked.watched.as_ref().is_err_and(|missing| missing.contains(why)), "{asked:?}");
        }
    }
}
