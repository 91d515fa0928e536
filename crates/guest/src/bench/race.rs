//! Times the variants ([`way`](super::way)) in turn. In every round each of them runs once as a
//! command. If it is a variant of lsbuf, a scanner that stays alive between the rounds
//! ([`warm`](super::warm)) then scans once.
//!
//! A variant that has taken very long is left out of the remaining rounds.

use std::time::Duration;

use anyhow::Context;

use super::figures::{Figures, Measured, WayResults};
use super::warm::WarmScanner;
use super::way::{Asked, PINNED};
use crate::sys::measure::{self, EventHooks, Taken, Watched};

/// A way that has taken this much time is left out of the remaining rounds.
const ENOUGH: Duration = Duration::from_secs(30);
/// It gets at least this many runs, unless one of them alone takes as long.
const FEWEST: usize = 3;

/// Whether a way has had enough runs.
pub(super) fn is_enough(runs: &[Taken]) -> bool {
    let spent: Duration = runs.iter().map(|run| run.wall).sum();
    spent >= ENOUGH && (runs.len() >= FEWEST || runs.iter().any(|run| run.wall >= ENOUGH))
}

/// One way with its runs.
struct Lane<'a> {
    asked: &'a Asked<'a>,
    commands: Vec<Taken>,
    /// `None` if the way is not a scanner; else the scanner, or why it cannot run.
    scanner: Option<Result<WarmScanner, String>>,
}

/// Times every way that can run here.
pub(super) fn race(asked: &[Asked<'_>], rounds: usize) -> anyhow::Result<Vec<WayResults>> {
    let mut lanes = Vec::new();
    for asked in asked {
        let scanner = match (asked.way.source, &asked.watched) {
            (None, _) => None,
            (Some(_), Err(why)) => Some(Err(why.clone())),
            (Some(source), Ok(_)) => {
                let setting = asked.setting;
                let pins = if asked.way.name == PINNED { setting.pins() } else { setting.no_pins() };
                Some(WarmScanner::start(&setting.programs, source, &pins)?)
            }
        };
        lanes.push(Lane { asked, commands: asked.first_run(), scanner });
    }
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        for lane in &mut lanes {
            lane.run().with_context(|| format!("running {}", lane.asked.way.name))?;
        }
    }
    let _counted = EventHooks::tracepoint();
    lanes.into_iter().map(|lane| lane.results()).collect()
}

impl Asked<'_> {
    /// The first run as a run of the race. It is one if it took so long that the way is not run
    /// again, and if nothing was counted in it that would have slowed it.
    fn first_run(&self) -> Vec<Taken> {
        let long = |watched: &&Watched| watched.taken.wall >= ENOUGH && watched.system_calls.is_err();
        self.watched.iter().filter(long).map(|watched| watched.taken).collect()
    }
}

impl Lane<'_> {
    /// Runs the way's part of one round.
    fn run(&mut self) -> anyhow::Result<()> {
        if self.asked.watched.is_ok() && !is_enough(&self.commands) {
            self.commands.push(measure::timed(&mut self.asked.command())?);
        }
        match &mut self.scanner {
            Some(Ok(scanner)) if !is_enough(&scanner.taken()) => scanner.run(),
            _ => Ok(()),
        }
    }

    fn results(self) -> anyhow::Result<WayResults> {
        let name = self.asked.way.name;
        let one_shot = self.asked.watched.clone().and_then(|watched| {
            let figures = Figures::of(&self.commands, watched.peak_kib, watched.system_calls);
            figures.ok_or("it was never run".to_owned())
        });
        let warm = self.scanner.map(|scanner| {
            let measured = scanner.map(|scanner| scanner.measured(self.asked.setting.expected));
            measured.unwrap_or_else(|why| Ok(Measured::Missing(why)))
        });
        Ok(WayResults {
            way: name.to_owned(),
            complete: self.asked.complete,
            one_shot: one_shot.map_or_else(Measured::Missing, Measured::Figures),
            warm: warm.transpose().with_context(|| format!("scanning: {name}"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(seconds: &[u64]) -> Vec<Taken> {
        seconds.iter().map(|&s| Taken { wall: Duration::from_secs(s), ..Taken::default() }).collect()
    }

    /// Check that a slow way runs a few times, a very slow one once, and a fast one in every round.
    #[test]
    fn slow_ways_are_run_less() {
        assert!(!is_enough(&runs(&[1; 15])));
        assert!(!is_enough(&runs(&[20, 20])) && is_enough(&runs(&[20, 20, 20])));
        assert!(!is_enough(&[]) && is_enough(&runs(&[31])));
    }
}
