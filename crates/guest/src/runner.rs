//! Runs scenarios, each as a process of its own with a time limit.
//!
//! A scenario may crash, hang, or leave buffers and actors behind. As a process it takes all of that with it, and the
//! next one starts on a clean machine.

use std::fmt::Display;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::need::Need;
use crate::output::{Ended, run_reported};
use crate::pins::Pins;
use crate::processes;
use crate::report::{Event, Outcome, Reporter};
use crate::scenarios::{self, Run};
use crate::way::Way;

/// How long one scenario may take. Emulated machines are slow; a scenario that needs longer hangs.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Runs the scenarios called `names`, or all if there are no names, and says whether none failed.
///
/// # Errors
///
/// A name is unknown, the report cannot be written, or a process cannot be started.
pub fn run_all(names: &[String], reporter: &Reporter) -> anyhow::Result<bool> {
    processes::adopt_orphans()?;
    let mut all_ok = true;
    let mut pins = Pins::default();
    for run in scenarios::runs(&scenarios::select(names)?) {
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

/// Does `run` as a child and turns its end into an outcome.
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

/// Runs the scenario called `name` in this process, by the way that the environment names.
///
/// # Errors
///
/// The name is unknown, the scenario failed, a check did not hold, or it made no check at all.
pub fn run_here(name: &str, reporter: Reporter) -> anyhow::Result<()> {
    let selected = scenarios::select(&[name.to_owned()])?;
    let scenario = selected.first().context("no scenario")?;
    let way = Way::of_environment();
    let run = Run { scenario, way: (!scenario.ways.is_empty()).then_some(way) };
    let mut ctx = Ctx { run: run.to_string(), way, reporter, checks: 0, broken: Vec::new() };
    (scenario.run)(&mut ctx)?;
    ctx.finish()
}

/// What a scenario is given: the place to say what it compared.
#[derive(Debug)]
pub struct Ctx {
    run: String,
    /// How lsbuf is asked.
    pub way: Way,
    reporter: Reporter,
    checks: usize,
    broken: Vec<String>,
}

impl Ctx {
    /// Compares what is known to be true with what was found or printed, as text, and records both.
    ///
    /// A difference fails the scenario at its end, so that the later checks are still made and seen.
    ///
    /// # Errors
    ///
    /// The report cannot be written.
    pub fn check_eq(
        &mut self,
        what: impl Into<String>,
        expected: impl Display,
        printed: impl Display,
    ) -> anyhow::Result<()> {
        let (what, expected, printed) = (what.into(), expected.to_string(), printed.to_string());
        self.checks += 1;
        if expected != printed {
            self.broken.push(format!("{what}: expected {expected:?}, found {printed:?}"));
        }
        let scenario = self.run.clone();
        let event = Event::Check { scenario, what, expected, printed };
        self.reporter.send(&event).context("reporting a check")
    }

    /// Records a point of `lsbuf check`. Whether it is as it should be, the host's table says.
    ///
    /// # Errors
    ///
    /// The report cannot be written.
    pub fn point(&self, id: &str, outcome: Outcome, detail: &str) -> anyhow::Result<()> {
        let event = Event::Point { id: id.to_owned(), outcome, detail: detail.to_owned() };
        self.reporter.send(&event).context("reporting a point")
    }

    /// Records a claim that holds or does not.
    ///
    /// # Errors
    ///
    /// The report cannot be written.
    pub fn check(&mut self, what: impl Into<String>, holds: bool) -> anyhow::Result<()> {
        self.check_eq(what, true, holds)
    }

    /// Fails unless checks were made and all of them held.
    fn finish(self) -> anyhow::Result<()> {
        if self.checks == 0 {
            bail!("the scenario made no check");
        }
        if !self.broken.is_empty() {
            bail!("{}", self.broken.join("\n"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ctx() -> Ctx {
        let null = std::fs::File::options().append(true).open("/dev/null").unwrap();
        Ctx {
            run: "test".into(),
            way: Way::Auto,
            reporter: Reporter::new(null),
            checks: 0,
            broken: Vec::new(),
        }
    }

    /// Check that a broken check fails the scenario only at its end, and that later checks do not mend it.
    #[test]
    fn a_broken_check_fails_at_the_end() {
        let mut ctx = ctx();
        ctx.check_eq("one", 1, 2).unwrap();
        ctx.check("two", true).unwrap();
        assert_eq!(ctx.finish().unwrap_err().to_string(), "one: expected \"1\", found \"2\"");
    }

    /// Check that a scenario which checks nothing does not pass.
    #[test]
    fn no_check_is_a_failure() {
        assert!(ctx().finish().is_err());
    }
}
