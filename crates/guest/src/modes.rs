//! The jobs this binary can do in a guest.
//!
//! Process 1 starts the binary again with the name of a mode and its arguments. What a mode writes to its standard
//! output and error reaches the host as output events, and its exit status ends the report.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

use crate::report::Reporter;
use crate::{bench, caller, demo, record, runner, scenarios, soak};

/// A job and the function that does it.
#[derive(Debug)]
pub struct Mode {
    /// The first argument that chooses it.
    pub name: &'static str,
    /// Does it, with the arguments after the name.
    pub run: fn(&[String]) -> anyhow::Result<ExitCode>,
}

/// The mode of a program that only runs.
pub const WAIT: &str = "wait";

/// All modes.
pub const MODES: &[Mode] = &[
    Mode { name: "scenarios", run: run_all },
    Mode { name: "scenario", run: scenario },
    Mode { name: "as", run: caller::run },
    Mode { name: "bench", run: bench::run },
    Mode { name: "demo", run: demo::run },
    Mode { name: "soak", run: soak::run_mode },
    Mode { name: soak::PLAYER_MODE, run: soak::run_player },
    Mode { name: "record", run: |_| record::run() },
    Mode { name: "sh", run: sh },
    Mode { name: scenarios::INCARNATION, run: incarnation },
    Mode { name: WAIT, run: wait },
];

/// Runs the mode that the first of `arguments` names.
///
/// # Errors
///
/// The name is missing or unknown, or the mode itself failed.
pub fn run_mode(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let name = arguments.first().map_or("", String::as_str);
    let Some(mode) = MODES.iter().find(|mode| mode.name == name) else {
        let names: Vec<&str> = MODES.iter().map(|mode| mode.name).collect();
        bail!("unknown mode {name:?}; valid: {}", names.join(", "));
    };
    (mode.run)(arguments.get(1..).unwrap_or_default())
}

/// Runs the named scenarios, or all of them, each in a process of its own.
fn run_all(names: &[String]) -> anyhow::Result<ExitCode> {
    let all_ok = runner::run_all(names, &Reporter::from_environment()?)?;
    Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one scenario in this process. The needs are not looked at.
fn scenario(names: &[String]) -> anyhow::Result<ExitCode> {
    let [name] = names else { bail!("usage: scenario NAME") };
    runner::run_here(name, Reporter::from_environment()?)?;
    Ok(ExitCode::SUCCESS)
}

/// Holds a buffer for a moment and runs this mode again, for a scenario that watches one process become many programs.
fn incarnation(arguments: &[String]) -> anyhow::Result<ExitCode> {
    scenarios::become_next(arguments).map(|()| ExitCode::SUCCESS)
}

/// Says by a line that it has begun, and waits for the end of its standard input.
fn wait(_: &[String]) -> anyhow::Result<ExitCode> {
    println!("waiting");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command line: in busybox's shell where the initramfs has one, else split at spaces and started directly.
///
/// # Errors
///
/// The line is empty or its program cannot be started.
pub fn sh(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let line = arguments.join(" ");
    let mut command = if std::fs::exists("/bin/busybox")? {
        // It complains about the programs that exist already under an applet's name; those are to stay.
        Command::new("/bin/busybox")
            .args(["--install", "-s", "/bin"])
            .stderr(Stdio::null())
            .status()
            .context("installing busybox")?;
        let mut shell = Command::new("/bin/busybox");
        shell.args(["sh", "-c", &line]);
        shell
    } else {
        let mut words = line.split_ascii_whitespace();
        let mut command = Command::new(words.next().context("an empty command line")?);
        command.args(words);
        command
    };
    let status = command.status().with_context(|| format!("running {line:?}"))?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
