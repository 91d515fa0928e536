//! What a scenario is, and what it is given.
//!
//! A scenario is a row: a name, a claim, what it needs of the kernel, the ways in which lsbuf runs,
//! and a function. The function reports through its [`Ctx`] what it compared. This module does not
//! know which scenarios exist; [`crate::suite`] lists them.

use std::fmt::{self, Display};

use anyhow::{Context, bail};

use crate::kernels::{self, Kernels};
use crate::need::Need;
use crate::report::{Event, Outcome, Reporter};
use crate::way::Way;

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What it proves, as one sentence.
    pub claim: &'static str,
    /// What the kernel must have for it to run.
    pub needs: &'static [Need],
    /// Which of the kernels that have it must run this.
    pub kernels: Kernels,
    /// The ways in which lsbuf runs; the scenario runs once for each. Empty if the scenario does
    /// not run lsbuf, or chooses the source itself.
    pub ways: &'static [Way],
    /// Runs it. An error is a failure.
    pub run: fn(&mut Ctx) -> anyhow::Result<()>,
}

/// One run of a scenario. It is printed as the scenario's name and the way: `dup (bpf)`.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The scenario that runs.
    pub scenario: &'static Scenario,
    /// The way in which lsbuf runs, if the scenario lists any.
    pub way: Option<Way>,
}

impl Run {
    /// What the kernel must have for this run.
    pub fn needs(self) -> impl Iterator<Item = Need> {
        let ways = self.way.map_or(&[][..], Way::needs);
        self.scenario.needs.iter().chain(ways).copied()
    }

    /// The places of the kernels on which this must run. Each kernel is given by what it lacks, the
    /// oldest first.
    pub fn kernels(self, kernels: &[&[Need]]) -> Vec<usize> {
        let needs: Vec<Need> = self.needs().collect();
        kernels::chosen(self.scenario.kernels, &needs, self.way, kernels)
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scenario.name)?;
        self.way.map_or(Ok(()), |way| write!(f, " ({way})"))
    }
}

/// Every run of these scenarios, in their order.
pub fn runs(scenarios: &[&'static Scenario]) -> Vec<Run> {
    let each = |&scenario: &&'static Scenario| {
        let none = scenario.ways.is_empty().then_some(None);
        let ways = none.into_iter().chain(scenario.ways.iter().copied().map(Some));
        ways.map(move |way| Run { scenario, way })
    };
    scenarios.iter().flat_map(each).collect()
}

/// What a scenario is given: it reports its comparisons here.
#[derive(Debug)]
pub struct Ctx {
    run: String,
    /// The way in which lsbuf runs.
    pub way: Way,
    reporter: Reporter,
    checks: usize,
    broken: Vec<String>,
}

impl Ctx {
    /// The context of a run that has made no check yet.
    #[must_use]
    pub fn new(run: Run, way: Way, reporter: Reporter) -> Ctx {
        Ctx { run: run.to_string(), way, reporter, checks: 0, broken: Vec::new() }
    }

    /// Compares, as text, what is known to be true with what was found or printed, and reports
    /// both.
    ///
    /// A difference fails the scenario only at its end, so that later checks are still made and
    /// reported.
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

    /// Reports a point of `lsbuf check`. The host's table of kernels says whether the outcome is
    /// the expected one.
    ///
    /// # Errors
    ///
    /// The report cannot be written.
    pub fn point(&self, id: &str, outcome: Outcome, detail: &str) -> anyhow::Result<()> {
        let event = Event::Point { id: id.to_owned(), outcome, detail: detail.to_owned() };
        self.reporter.send(&event).context("reporting a point")
    }

    /// Reports a claim that holds or does not hold.
    ///
    /// # Errors
    ///
    /// The report cannot be written.
    pub fn check(&mut self, what: impl Into<String>, holds: bool) -> anyhow::Result<()> {
        self.check_eq(what, true, holds)
    }

    /// Fails unless checks were made and all of them held.
    ///
    /// # Errors
    ///
    /// No check was made, or one did not hold.
    pub fn finish(self) -> anyhow::Result<()> {
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

    /// Check that a broken check fails the scenario only at its end, and that a later check that
    /// holds does not undo it.
    #[test]
    fn a_broken_check_fails_at_the_end() {
        let mut ctx = ctx();
        ctx.check_eq("one", 1, 2).unwrap();
        ctx.check("two", true).unwrap();
        assert_eq!(ctx.finish().unwrap_err().to_string(), "one: expected \"1\", found \"2\"");
    }

    /// Check that a scenario that checks nothing fails.
    #[test]
    fn no_check_is_a_failure() {
        assert!(ctx().finish().is_err());
    }
}
