//! The jobs that this binary can do in a guest.
//!
//! Process 1 starts the binary again with the name of a mode and its arguments. What a mode writes
//! to its standard output and error reaches the host as output events. The mode's exit status ends
//! the report.

use std::process::ExitCode;

use anyhow::bail;

use crate::report::Reporter;
use crate::scenarios::hiding::reuse;
use crate::{bench, caller, demo, differential, hanging, programs, record, runner, shell, soak};

/// A job and the function that does it.
#[derive(Debug)]
pub struct Mode {
    /// The first argument, which chooses it.
    pub name: &'static str,
    /// Runs it with the arguments after the name.
    pub run: fn(&[String]) -> anyhow::Result<ExitCode>,
}

/// All modes.
pub const MODES: &[Mode] = &[
    Mode { name: "scenarios", run: run_all },
    Mode { name: "scenario", run: scenario },
    Mode { name: "as", run: caller::run },
    Mode { name: "bench", run: bench::run },
    Mode { name: "demo", run: demo::run },
    Mode { name: "soak", run: soak::run_mode },
    Mode { name: soak::LISTS_MODE, run: soak::run_lists },
    Mode { name: soak::PLAYER_MODE, run: soak::run_player },
    Mode { name: soak::CHAIN_MODE, run: soak::run_chain },
    Mode { name: "differential", run: differential::run_mode },
    Mode { name: "record", run: |_| record::run() },
    Mode { name: "sh", run: shell::run },
    Mode { name: reuse::MODE, run: incarnation },
    Mode { name: programs::WAIT, run: programs::wait },
    Mode { name: programs::AGAIN, run: programs::again },
    Mode { name: programs::LEAVE, run: programs::leave },
    Mode { name: programs::TRACED, run: programs::traced },
    Mode { name: programs::TRACED_CHILD, run: programs::traced_child },
    Mode { name: hanging::HANG, run: hanging::run_hang },
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

/// Runs the named scenarios or runs, or all of them, each in a process of its own.
fn run_all(names: &[String]) -> anyhow::Result<ExitCode> {
    let all_ok = runner::run_all(names, &Reporter::from_environment()?)?;
    Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one scenario in this process, without probing what it needs.
fn scenario(names: &[String]) -> anyhow::Result<ExitCode> {
    let [name] = names else { bail!("usage: scenario NAME") };
    runner::run_here(name, Reporter::from_environment()?)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the program of a scenario in which one process executes several programs, one after
/// another.
fn incarnation(arguments: &[String]) -> anyhow::Result<ExitCode> {
    reuse::become_next(arguments).map(|()| ExitCode::SUCCESS)
}
