//! `cargo xtask cases`: the questions of docs/cases.md, asked of the software that people asked
//! about.
//!
//! The scenarios in guests replay the same questions with small programs. Here PostgreSQL,
//! TigerVNC, Chromium and others run on this machine, as an ordinary user and in a folder of their
//! own. lsbuf is asked with the command of docs/cases.md. The right answer comes from the software
//! (a message, an option, a list of clients) or from a [plain] reading of `/proc` that shares no
//! code with lsbuf.
//!
//! Limits: this needs root and installs packages on this machine, so it is no part of
//! `cargo xtask test`. The kernel is that of this machine. If this program is killed, the programs
//! that it started go on.

mod audio;
mod browser;
mod desktop;
mod java;
mod json;
mod place;
mod plain;
mod postgres;
mod raw;
mod virtual_machines;
mod vnc;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::Args;

use crate::cmd::{self, Usage};
use crate::host;
use crate::show::visible;
use crate::workspace::Workspace;

use place::Place;

/// Ask lsbuf about real software: the cases of docs/cases.md that named PostgreSQL, TigerVNC,
/// Chromium, OpenJDK, Weston, PulseAudio or QEMU; needs root, and installs what is missing
#[derive(Debug, Args)]
pub(crate) struct CasesArgs {
    /// Only the case with this number; may be given more than once
    #[arg(long = "case", value_name = "NUMBER")]
    numbers: Vec<u8>,
}

/// One case, and what must be installed for it.
struct Case {
    /// Its number in docs/cases.md.
    number: u8,
    software: &'static str,
    /// The Debian packages.
    packages: &'static [&'static str],
    /// Where the program is, if it is installed.
    program: fn() -> Option<PathBuf>,
    /// What else must be there: names of programs, or paths.
    also: &'static [&'static str],
    /// The option that makes the program print its version.
    version: &'static str,
    /// The arguments of lsbuf, as in docs/cases.md.
    command: &'static str,
    run: fn(&Place, &Case, &Path) -> anyhow::Result<Answer>,
}

/// What lsbuf was asked, and how its answer compares.
struct Answer {
    command: String,
    pairs: Vec<Pair>,
}

/// One claim of an answer, and the right one.
#[derive(Debug, PartialEq, Eq)]
struct Pair {
    what: String,
    answer: String,
    right: String,
}

impl Pair {
    fn new(what: impl ToString, answer: impl ToString, right: impl ToString) -> Self {
        Self { what: what.to_string(), answer: answer.to_string(), right: right.to_string() }
    }

    fn is_right(&self) -> bool {
        self.answer == self.right
    }
}

const CASES: &[Case] = &[
    vnc::CASE,
    browser::CASE,
    java::CASE,
    desktop::CASE,
    postgres::CASE,
    audio::CASE,
    virtual_machines::CASE,
    virtual_machines::TWICE,
];

/// Runs the cases. The status is a failure if an answer is wrong or the software is missing.
pub(crate) fn cases(workspace: &Workspace, arguments: &CasesArgs) -> anyhow::Result<ExitCode> {
    let known = |number: &u8| CASES.iter().any(|case| case.number == *number);
    if let Some(number) = arguments.numbers.iter().find(|number| !known(number)) {
        let mut all: Vec<String> = CASES.iter().map(|case| case.number.to_string()).collect();
        all.dedup();
        bail!(Usage(format!("case {number} has no real software here; the cases are {}", all.join(", "))));
    }
    if !host::is_root() {
        bail!("the cases must be run by root: lsbuf is to see the processes of another user");
    }
    let wanted = |case: &&Case| arguments.numbers.is_empty() || arguments.numbers.contains(&case.number);
    let chosen: Vec<&Case> = CASES.iter().filter(wanted).collect();
    cmd::run(workspace.cargo().args(["build", "--package", "lsbuf-cli"]))?;
    let lsbuf = workspace.target.join("debug/lsbuf");
    // A package may start services. They are none of the processes that are ended later.
    let programs: Vec<_> = chosen.into_iter().map(|case| (case, provide(case))).collect();
    place::adopt_orphans()?;
    let mut rows = vec![HEADING.map(str::to_owned)];
    let mut all_right = true;
    for (case, program) in programs {
        let (lines, right) = run(case, program, &lsbuf);
        all_right &= right;
        rows.extend(lines);
    }
    print!("{}", table(&rows));
    Ok(if all_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const HEADING: [&str; 7] = ["case", "software", "command", "claim", "answer", "right answer", "ok"];

/// The lines of one case, and whether all is right.
fn run(case: &Case, program: anyhow::Result<PathBuf>, lsbuf: &Path) -> (Vec<[String; 7]>, bool) {
    let number = case.number.to_string();
    println!("case {number}: {}", case.software);
    let failed = |software: &str, word: &str, why: &anyhow::Error| {
        println!("  {word}: {}", visible(&format!("{why:#}")));
        let row = [&number, software, &format!("lsbuf {}", case.command), "-", "-", "-", word];
        (vec![row.map(str::to_owned)], false)
    };
    let program = match program {
        Ok(program) => program,
        Err(why) => return failed(case.software, "missing", &why),
    };
    let software = format!("{} {}", case.software, version(&program, case.version));
    let answer = Place::new(lsbuf).and_then(|place| {
        let answer = (case.run)(&place, case, &program);
        place.end()?;
        answer
    });
    match answer {
        Ok(answer) => {
            let right = !answer.pairs.is_empty() && answer.pairs.iter().all(Pair::is_right);
            let row = |pair: &Pair| {
                let ok = if pair.is_right() { "yes" } else { "NO" };
                let command = format!("lsbuf {}", answer.command);
                [&number, &software, &command, &pair.what, &pair.answer, &pair.right, ok].map(visible)
            };
            (answer.pairs.iter().map(row).collect(), right)
        }
        Err(why) => failed(&software, "failed", &why),
    }
}

/// The program of the case. What is missing is installed.
fn provide(case: &Case) -> anyhow::Result<PathBuf> {
    let is_there = |need: &str| {
        if need.starts_with('/') { Path::new(need).exists() } else { cmd::is_program(need) }
    };
    let find = || (case.program)().filter(|_| case.also.iter().all(|need| is_there(need)));
    if let Some(program) = find() {
        return Ok(program);
    }
    let packages = case.packages.join(" ");
    if !host::can_install() {
        bail!("the packages {packages} are not installed, and this machine has no apt-get");
    }
    host::install(case.packages)?;
    find().with_context(|| format!("the packages {packages} do not have the programs that are needed"))
}

/// The version that the program prints.
fn version(program: &Path, option: &str) -> String {
    let printed = Command::new(program).arg(option).output();
    let text = printed.map(|printed| [printed.stdout, printed.stderr].concat()).unwrap_or_default();
    find_version(&String::from_utf8_lossy(&text)).unwrap_or_else(|| "of unknown version".to_owned())
}

/// The first word that begins with a digit and has a dot in it.
fn find_version(text: &str) -> Option<String> {
    let words = text.split_whitespace().map(|word| word.trim_matches(['"', '(', ')', ',']));
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    words.filter(|word| word.is_ascii()).find(is_version).map(str::to_owned)
}

/// The rows, in columns. A row that begins like the one above does not repeat its first columns.
fn table(rows: &[[String; 7]]) -> String {
    const REPEATED: usize = 3;
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let mut text = String::new();
    let mut above: Option<&[String; 7]> = None;
    for row in rows {
        let repeats = above.is_some_and(|above| above[..REPEATED] == row[..REPEATED]);
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = if repeats && column < REPEATED { "" } else { cell };
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
        above = Some(row);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that each case asks with the command that docs/cases.md has for its number.
    #[test]
    fn commands_are_those_of_the_document() {
        let document = include_str!("../../docs/cases.md");
        for case in CASES {
            let row = document.lines().find(|line| line.starts_with(&format!("| {} |", case.number)));
            let command = format!("`lsbuf {}`", case.command);
            assert!(row.unwrap().contains(&command), "{command} is not in {row:?}");
        }
    }

    /// Check that the version is found in what different programs print.
    #[test]
    fn versions() {
        let found = |text| find_version(text).unwrap();
        assert_eq!(found("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), "15.18");
        assert_eq!(found("openjdk version \"17.0.15\" 2025-04-15"), "17.0.15");
        assert_eq!(find_version("no number"), None);
    }

    /// Check that a case without its software is said to be missing, and is no success.
    #[test]
    fn missing_software() {
        let (rows, right) = run(&java::CASE, Err(anyhow::anyhow!("no such package")), Path::new("lsbuf"));
        let row = ["7", "OpenJDK", "lsbuf ps --kind memfd", "-", "-", "-", "missing"];
        assert_eq!(rows, [row.map(str::to_owned)]);
        assert!(!right);
    }

    /// Check that a wrong answer is marked.
    #[test]
    fn wrong_answer() {
        assert!(!Pair::new("USS", 0, 4096).is_right());
        assert!(Pair::new("USS", "4096", 4096).is_right());
    }

    /// Check that columns are aligned, and that the first ones are not repeated.
    #[test]
    fn table_of_two_claims() {
        let row = |claim: &str, ok: &str| ["7", "a 1.0", "lsbuf", claim, "1", "1", ok].map(str::to_owned);
        let text = table(&[row("USS", "yes"), row("MAPS", "NO")]);
        assert_eq!(text, "7  a 1.0  lsbuf  USS   1  1  yes\n                 MAPS  1  1  NO\n");
    }
}
