//! The ways to read a world: a table, and a first run of each.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;

use super::figures::References;
use crate::sys::measure::{self, Watched};
use crate::way::KINDS;

/// One way to read a world.
#[derive(Debug)]
pub(super) struct BenchWay {
    pub(super) name: &'static str,
    /// A program of this project, or one of the machine.
    program: &'static str,
    /// Its arguments. [`PINS`] and [`FILES`] stand for folders of the setting.
    arguments: &'static [&'static str],
    /// Whether it prints lsbuf's JSON, which is compared with what was made.
    answers: bool,
    /// The sources for `lsbuf-bench`, if the way is also measured as a scanner.
    pub(super) source: Option<&'static str>,
}

/// The command, in the folder of programs.
const LSBUF: &str = "lsbuf";
/// A program that scans in a loop with lsbuf's library.
pub(super) const SCANNER: &str = "lsbuf-bench";

/// In arguments: the folder of pinned BPF iterators.
const PINS: &str = "{pins}";
/// In arguments: a folder without pinned BPF iterators. So lsbuf uses none that the machine has.
const NO_PINS: &str = "{no-pins}";
/// In arguments: a folder with pinned BPF iterators and a flight recorder that is older than the
/// world.
const RECORDED: &str = "{recorded}";
/// In arguments: the folder of the files that nobody holds.
const FILES: &str = "{files}";

/// BPF iterators that lsbuf loads itself.
pub const BPF: &str = "lsbuf, BPF";
/// BPF iterators that were loaded and pinned before.
pub const PINNED: &str = "lsbuf, BPF pinned";
/// As [`PINNED`], of every kind where the other ways look for dma-bufs alone.
pub const PINNED_ALL: &str = "lsbuf, BPF pinned, all kinds";
/// As [`PINNED`], with a table in place of JSON.
pub const PINNED_TABLE: &str = "lsbuf, BPF pinned, table";
/// As [`PINNED_TABLE`], with a column that says who made each buffer.
pub const ORIGINS: &str = "lsbuf, BPF pinned, table with ORIGIN";
/// The sources that lsbuf chooses by default.
pub const AUTO: &str = "lsbuf, auto";
/// procfs with its fastest way to read mappings.
pub const PROCFS: &str = "lsbuf, procfs";
/// procfs with the text of every mapping.
pub const TEXT: &str = "lsbuf, text maps";
/// What starting the program costs.
pub const START: &str = "process start (lsbuf --version)";

/// A way of lsbuf with these sources, as a command and as a scanner.
const fn lsbuf(name: &'static str, source: &'static str, arguments: &'static [&'static str]) -> BenchWay {
    BenchWay { name, program: LSBUF, arguments, answers: true, source: Some(source) }
}

/// A way of lsbuf that is measured only as a command.
const fn command(name: &'static str, arguments: &'static [&'static str]) -> BenchWay {
    BenchWay { name, program: LSBUF, arguments, answers: true, source: None }
}

/// A program whose answer is not compared.
const fn other(name: &'static str, program: &'static str, arguments: &'static [&'static str]) -> BenchWay {
    BenchWay { name, program, arguments, answers: false, source: None }
}

const LSOF: BenchWay = other("lsof", "lsof", &["-n", "-P", "-w"]);
const PROCESS_START: BenchWay = other(START, LSBUF, &["--version"]);

/// The ways to read worlds of dma-bufs. All but one look for dma-bufs alone. To add a way, add a
/// row. A way whose arguments lsbuf refuses is missing, with the reason.
const WAYS: &[BenchWay] = &[
    lsbuf(PINNED, "bpf", &["-d", "--json", "--source", "bpf", "--pins", PINS]),
    other(PINNED_ALL, LSBUF, &["--json", "--source", "bpf", "--pins", PINS]),
    other(PINNED_TABLE, LSBUF, &["-d", "--source", "bpf", "--pins", PINS]),
    other(ORIGINS, LSBUF, &["-d", "-o", "+ORIGIN", "--source", "bpf", "--pins", RECORDED]),
    lsbuf(BPF, "bpf", &["-d", "--json", "--source", "bpf", "--pins", NO_PINS]),
    lsbuf(AUTO, "auto", &["-d", "--json", "--pins", NO_PINS]),
    lsbuf(PROCFS, "procfs,bufinfo", &["-d", "--json", "--source", "procfs,bufinfo"]),
    lsbuf("lsbuf, PROCMAP_QUERY", "procmap,bufinfo", &["-d", "--json", "--source", "procmap,bufinfo"]),
    lsbuf(TEXT, "maps,bufinfo", &["-d", "--json", "--source", "maps,bufinfo"]),
    lsbuf("lsbuf, map_files", "map_files,bufinfo", &["-d", "--json", "--source", "map_files,bufinfo"]),
    LSOF,
    PROCESS_START,
];

/// The ways to read worlds of shared memory. They look for every kind, as a person would.
const SHARED_WAYS: &[BenchWay] = &[
    command(PINNED, &["--json", "--source", "bpf", "--pins", PINS]),
    other(PINNED_TABLE, LSBUF, &["--source", "bpf", "--pins", PINS]),
    command(BPF, &["--json", "--source", "bpf", "--pins", NO_PINS]),
    command(PROCFS, &["--json", "--source", "procfs,bufinfo"]),
    LSOF,
    other("lsfd", "lsfd", &["--raw"]),
    other("smem", "smem", &[]),
    PROCESS_START,
];

/// The program that lists the files of a folder, by their directories alone.
pub const FIND: &str = "find -xdev";

/// The ways to read a machine beside files of a tmpfs that nobody holds. lsbuf leaves them out.
const UNHELD_WAYS: &[BenchWay] = &[
    command(PINNED, &["--json", "--source", "bpf", "--pins", PINS]),
    other(PINNED_TABLE, LSBUF, &["--source", "bpf", "--pins", PINS]),
    command(BPF, &["--json", "--source", "bpf", "--pins", NO_PINS]),
    command(PROCFS, &["--json", "--source", "procfs,bufinfo"]),
    other(FIND, "find", &[FILES, "-xdev"]),
    other("find -xdev, sizes", "find", &[FILES, "-xdev", "-type", "f", "-printf", "%i %s %b %p\\n"]),
    PROCESS_START,
];

/// What all ways of one world have in common.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) ways: &'static [BenchWay],
    /// The folder of this project's programs.
    pub(super) programs: PathBuf,
    /// A folder that belongs to the benchmark.
    pub(super) folder: PathBuf,
    /// What there is to find; `None` if that is not known.
    pub(super) expected: Option<References>,
    /// Only buffers with this name or below this folder are the world's own; `None` if all are.
    pub(super) named: Option<String>,
    /// A way that does not answer within this time is missing, because it would take the time of
    /// the others.
    pub(super) limit: Duration,
}

impl Setting {
    /// How a world of dma-bufs is read, or the machine as it is.
    pub(super) fn of_dma_bufs(programs: PathBuf, folder: PathBuf, expected: Option<References>) -> Setting {
        let limit = Duration::from_secs(100);
        Setting { ways: WAYS, programs, folder, expected, named: None, limit }
    }

    /// How a world of memfds with this name is read.
    pub(super) fn of_memfds(programs: PathBuf, folder: PathBuf, expected: References, name: &str) -> Setting {
        let (named, limit) = (Some(name.to_owned()), Duration::from_secs(300));
        let expected = Some(expected);
        Setting { ways: SHARED_WAYS, programs, folder, expected, named, limit }
    }

    /// How a machine is read that has files which nobody holds.
    pub(super) fn of_unheld(programs: PathBuf, folder: PathBuf) -> Setting {
        let expected = Some(References { buffers: 0, fd: 0, map: 0 });
        let named = Some(Setting::files_below(&folder).to_string_lossy().into_owned());
        let limit = Duration::from_secs(300);
        Setting { ways: UNHELD_WAYS, programs, folder, expected, named, limit }
    }

    /// Where the files that nobody holds are.
    pub(super) fn files(&self) -> PathBuf {
        Setting::files_below(&self.folder)
    }

    fn files_below(folder: &Path) -> PathBuf {
        folder.join("files")
    }

    /// Where BPF iterators are pinned.
    pub(super) fn pins(&self) -> PathBuf {
        self.folder.join("pins")
    }

    /// Where none are.
    pub(super) fn no_pins(&self) -> PathBuf {
        self.folder.join("no-pins")
    }

    /// Where BPF iterators are pinned beside a flight recorder.
    fn recorded(&self) -> PathBuf {
        Setting::recorded_below(&self.folder)
    }

    fn recorded_below(folder: &Path) -> PathBuf {
        folder.join("recorded")
    }

    /// The command of a way.
    fn command(&self, way: &BenchWay) -> Command {
        let mut command = match way.program {
            LSBUF => Command::new(self.programs.join(LSBUF)),
            other => Command::new(other),
        };
        for &argument in way.arguments {
            match argument {
                PINS => command.arg(self.pins()),
                NO_PINS => command.arg(self.no_pins()),
                RECORDED => command.arg(self.recorded()),
                FILES => command.arg(self.files()),
                word => command.arg(word),
            };
        }
        // A guest's environment asks for dma-bufs alone, which is for scenarios.
        command.env_remove(KINDS);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Pinned BPF programs. They are removed when this goes.
#[derive(Debug)]
pub(super) struct BenchPins {
    lsbuf: PathBuf,
    folder: PathBuf,
}

impl BenchPins {
    /// Pins the iterators. Where that is impossible, the ways that need them say so.
    pub(super) fn install(setting: &Setting) -> BenchPins {
        BenchPins::with(&setting.programs, setting.pins(), &["install"])
    }

    /// Pins a flight recorder and iterators beside it, for a world that is made afterwards.
    pub(super) fn record(programs: &Path, folder: &Path) -> BenchPins {
        BenchPins::with(programs, Setting::recorded_below(folder), &["install", "--origins"])
    }

    fn with(programs: &Path, folder: PathBuf, action: &[&str]) -> BenchPins {
        let pins = BenchPins { lsbuf: programs.join(LSBUF), folder };
        if let Err(why) = pins.tell(action) {
            eprintln!("pinning BPF programs: {why:#}");
        }
        pins
    }

    fn tell(&self, action: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(&self.lsbuf);
        command.arg("probes").args(action).arg("--pins").arg(&self.folder).stdin(Stdio::null());
        let told = command.output().context("starting lsbuf")?;
        let errors = String::from_utf8_lossy(&told.stderr);
        ensure!(told.status.success(), "{}", errors.lines().next().unwrap_or("it says nothing"));
        Ok(())
    }
}

impl Drop for BenchPins {
    fn drop(&mut self) {
        // There are none if they could not be installed.
        if self.folder.exists()
            && let Err(why) = self.tell(&["remove"])
        {
            eprintln!("removing the pinned BPF programs: {why:#}");
        }
    }
}

/// A way after its first run.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) way: &'static BenchWay,
    pub(super) setting: &'a Setting,
    /// Whether its answer was complete.
    pub(super) complete: Option<bool>,
    /// The memory and system calls that it takes, or why it cannot run here.
    pub(super) watched: Result<Watched, String>,
}

impl Asked<'_> {
    /// Runs the way once, and compares lsbuf's answer with what was made.
    ///
    /// # Errors
    ///
    /// The answer is another one.
    pub(super) fn new<'a>(way: &'static BenchWay, setting: &'a Setting) -> anyhow::Result<Asked<'a>> {
        eprintln!("asking: {}", way.name);
        let mut asked = Asked { way, setting, complete: None, watched: Err(String::new()) };
        asked.watched = match asked.ask() {
            Err(why) => Err(format!("{why:#}")),
            Ok((watched, None)) => Ok(watched),
            Ok((watched, Some(answer))) => {
                asked.complete = Some(answer.scan.complete);
                let found = answer.references(setting.named.as_deref());
                match setting.expected {
                    Some(expected) if expected != found => {
                        bail!("{}: its answer has {found}, and there are {expected}", way.name);
                    }
                    _ => Ok(watched),
                }
            }
        };
        Ok(asked)
    }

    /// The command that is timed.
    pub(super) fn command(&self) -> Command {
        self.setting.command(self.way)
    }

    /// Runs the way once, and returns lsbuf's answer.
    fn ask(&self) -> anyhow::Result<(Watched, Option<BenchAnswer>)> {
        let is_recorded = !self.way.arguments.contains(&RECORDED) || self.setting.recorded().exists();
        ensure!(is_recorded, "the world was made without a flight recorder");
        let mut command = self.command();
        if !self.way.answers {
            return Ok((finished(command, self.setting.limit)?, None));
        }
        let mut printed = unnamed_file("answer")?;
        command.stdout(printed.try_clone()?);
        let watched = finished(command, self.setting.limit)?;
        printed.rewind()?;
        let answer = BufReader::new(printed);
        let answer: BenchAnswer = serde_json::from_reader(answer).context("lsbuf printed no JSON")?;
        Ok((watched, Some(answer)))
    }
}

/// What the benchmark reads of lsbuf's JSON. A million references fit in little memory that way.
#[derive(Debug, Deserialize)]
struct BenchAnswer {
    scan: ScanPart,
    buffers: Vec<BufferPart>,
}

#[derive(Debug, Deserialize)]
struct ScanPart {
    complete: bool,
}

#[derive(Debug, Deserialize)]
struct BufferPart {
    name: Option<String>,
    refs: RefsPart,
}

#[derive(Debug, Deserialize)]
struct RefsPart {
    fd: u64,
    map: u64,
}

impl BenchAnswer {
    /// What the answer has of the buffers with that name or below that folder, or of all.
    fn references(&self, named: Option<&str>) -> References {
        let is_own = |buffer: &BufferPart| {
            let Some(named) = named else { return true };
            buffer.name.as_deref().is_some_and(|name| name.contains(named))
        };
        let mut found = References { buffers: 0, fd: 0, map: 0 };
        for buffer in self.buffers.iter().filter(|buffer| is_own(buffer)) {
            found.buffers += 1;
            found.fd += buffer.refs.fd;
            found.map += buffer.refs.map;
        }
        found
    }
}

/// Runs a command until it ends. The error is the first line of its standard error.
fn finished(mut command: Command, limit: Duration) -> anyhow::Result<Watched> {
    let mut errors = unnamed_file("errors")?;
    command.stderr(errors.try_clone()?);
    measure::watched(command, limit).map_err(|error| {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn setting() -> Setting {
        Setting::of_dma_bufs("/".into(), "/tmp/x".into(), None)
    }

    /// Check that a way is missing, with the reason, if its program does not exist or refuses its
    /// arguments.
    #[test]
    fn missing_says_why() {
        const ABSENT: BenchWay = other("absent", "lsbuf-no-such", &[]);
        const REFUSED: BenchWay = other("refused", "cat", &["/proc/lsbuf-no-such"]);
        for (way, why) in [(&ABSENT, "starting"), (&REFUSED, "No such file")] {
            let setting = setting();
            let asked = Asked::new(way, &setting).unwrap();
            assert!(asked.watched.as_ref().is_err_and(|missing| missing.contains(why)), "{asked:?}");
        }
    }

    /// Check that folders replace the words that stand for them, and nothing else.
    #[test]
    fn folders_are_put_in() {
        const WAY: BenchWay = other("some", "true", &["--pins", PINS, NO_PINS, FILES, "{x}"]);
        let command = setting().command(&WAY);
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["--pins", "/tmp/x/pins", "/tmp/x/no-pins", "/tmp/x/files", "{x}"]);
    }

    /// Check that only buffers of the world are counted where the machine has others.
    #[test]
    fn own_buffers_are_counted() {
        let text = r#"{"scan": {"complete": true, "more": 1}, "buffers": [
            {"name": "/memfd:mine (deleted)", "refs": {"fd": 3, "map": 1, "more": 0}},
            {"name": "/memfd:other (deleted)", "refs": {"fd": 9, "map": 9}},
            {"name": null, "refs": {"fd": 1, "map": 0}}]}"#;
        let answer: BenchAnswer = serde_json::from_str(text).unwrap();
        assert_eq!(answer.references(Some("mine")), References { buffers: 1, fd: 3, map: 1 });
        assert_eq!(answer.references(None), References { buffers: 3, fd: 13, map: 10 });
    }

    /// Check that no two ways of a world have the same name.
    #[test]
    fn ways_have_names() {
        for ways in [WAYS, SHARED_WAYS, UNHELD_WAYS] {
            let mut names: Vec<&str> = ways.iter().map(|way| way.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), ways.len());
        }
    }
}
