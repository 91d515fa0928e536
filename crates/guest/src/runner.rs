//! Runs scenarios, each as a process of its own with a time limit.
//!
//! A scenario may crash, hang, or leave buffers and actors behind. When its process ends, all of
//! that ends with it, so the next scenario starts on a clean machine.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::need::Need;
use crate::output::{Ended, run_reported};
use crate::pins::ScenarioPins;
use crate::processes;
use crate::report::{Event, Outcome, Reporter};
use crate::scenario::{Ctx, Run};
use crate::suite;
use crate::way::Way;

/// How long one scenario may take. Emulated machines are slow, so a scenario that takes longer
/// hangs.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Runs the scenarios or runs with these `names`, or all if there are no names. Returns whether
/// none failed.
///
/// # Errors
///
/// A name is unknown, the report cannot be written, or a process cannot be started.
pub fn run_all(names: &[String], reporter: &Reporter) -> anyhow::Result<bool> {
    processes::adopt_orphans()?;
    let mut all_ok = true;
    let mut pins = ScenarioPins::default();
    for run in suite::select_runs(names)? {
        let started = Instant::now();
        let missing: Vec<Need> = run.needs().filter(|need| !need.probe()).collect();
        let (outcome, detail) = if !missing.is_empty() {
            skip(&missing)
        } else if let Err(error) = pins.suit(run.way) {
            (Outcome::Failed, format!("{error:#}"))
        } else {
            run_child(run, reporter)?
        };
        all_ok &= outcome != Outcome::Failed;
        let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        reporter.send(&Event::Scenario { name: run.to_string(), outcome, detail, missing, millis })?;
    }
    Ok(all_ok)
}

fn skip(missing: &[Need]) -> (Outcome, String) {
    let names: Vec<&str> = missing.iter().map(|need| need.name()).collect();
    (Outcome::Skipped, format!("no {}", names.join(", no ")))
}

/// Runs `run` as a child and returns its outcome, and why it failed.
fn run_child(run: Run, reporter: &Reporter) -> anyhow::Result<(Outcome, String)> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(program);
    command.args(["scenario", run.scenario.name]);
    if let Some(way) = run.way {
        way.choose(&mut command);
    }
    let Ended { status, errors } = run_reported(&mut command, Some(&run.to_string()), LIMIT, reporter)?;
    Ok(match status {
        Some(0) => (Outcome::Ok, String::new()),
        Some(1) => (Outcome::Failed, errors.trim_end().to_owned()),
        Some(status) => (Outcome::Failed, format!("ended with status {status}\n{}", errors.trim_end())),
        None => (Outcome::Failed, format!("not done after {} s\n{}", LIMIT.as_secs(), errors.trim_end())),
    })
}

/// Runs the scenario with this `name` in this process, in the way that the environment names.
///
/// # Errors
///
/// The name is unknown, the scenario failed, a check did not hold, or the scenario made no check.
pub fn run_here(name: &str, reporter: Reporter) -> anyhow::Result<()> {
    let selected = suite::select(&[name.to_owned()])?;
    let scenario = selected.first().context("no scenario")?;
    let way = Way::of_environment();
    let run = Run { scenario, way: (!scenario.ways.is_empty()).then_some(way) };
    let mut ctx = Ctx::new(run, way, reporter);
    (scenario.run)(&mut ctx)?;
    ctx.finish()
}
