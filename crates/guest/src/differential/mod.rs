//! The differential test: lsbuf answers about random paused worlds by every source, and each answer
//! is compared with a plain reading.
//!
//! `making` makes the world of a seed. `reading` reads which process holds what, without lsbuf's
//! library. `judge` compares. The soak test looks for errors that motion causes. This test looks
//! for errors that shapes cause: hostile names, second open files, split and moved mappings, forked
//! trees, shared fd tables and address spaces, threads with their own fd tables, System V segments,
//! messages.
//!
//! Limits: no namespaces, no zombie leaders, no fixed files of an io_uring, no `O_PATH` fds in
//! messages, and no references of drivers.

mod judge;
mod making;
mod reading;
mod source;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use self::judge::{ComparedParts, WorldTruth};
use self::making::PausedWorld;
use self::reading::PlainReading;
use self::source::ComparedSource;
use crate::answer::{Answer, LSBUF};
use crate::need::Need;

/// How many errors are printed in full. Later ones are only counted.
const PRINTED: usize = 12;

/// What the differential test is to do.
#[derive(Clone, Copy, Debug)]
pub struct DifferentialPlan {
    /// How long it runs.
    pub time: Duration,
    /// The seed of the first world. Each further world has the next number.
    pub seed: u64,
}

/// The result of the differential test.
#[derive(Clone, Debug, Default)]
pub struct DifferentialTally {
    /// How many worlds were made.
    pub worlds: u64,
    /// How many answers were compared.
    pub answers: u64,
    /// How many objects all worlds had.
    pub objects: u64,
    /// What is wrong.
    pub errors: Vec<String>,
    /// How many rows were estimates, by the reason that lsbuf gave.
    pub reasons: BTreeMap<String, u64>,
}

/// The mode: `differential SECONDS SEED`.
///
/// # Errors
///
/// The arguments are not numbers, or a world cannot be made or read.
pub fn run_mode(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [seconds, seed] = arguments else { anyhow::bail!("usage: differential SECONDS SEED") };
    let plan = DifferentialPlan { time: Duration::from_secs(seconds.parse()?), seed: seed.parse()? };
    let tally = run(plan, |line| println!("{line}"))?;
    Ok(if tally.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Makes worlds and compares. It passes each line of its output to `say`.
///
/// # Errors
///
/// A world cannot be made or read. A mistake of lsbuf is no error: it is in the tally.
pub fn run(plan: DifferentialPlan, mut say: impl FnMut(&str)) -> anyhow::Result<DifferentialTally> {
    let begun = Instant::now();
    let mut tally = DifferentialTally::default();
    let sources: Vec<ComparedSource> =
        ComparedSource::ALL.iter().filter(|source| source.need.is_none_or(Need::probe)).copied().collect();
    for seed in plan.seed.. {
        if begun.elapsed() >= plan.time {
            break;
        }
        one(seed, &sources, &mut tally, &mut say)?;
    }
    let reasons: Vec<String> =
        tally.reasons.iter().map(|(reason, rows)| format!("{rows} {reason}")).collect();
    say(&format!(
        "differential {}, seeds from {}: {} worlds, {} objects, {} answers of {} sources, {} errors; estimates: {}",
        if tally.errors.is_empty() { "passed" } else { "FAILED" },
        plan.seed,
        tally.worlds,
        tally.objects,
        tally.answers,
        sources.len(),
        tally.errors.len(),
        reasons.join(", "),
    ));
    Ok(tally)
}

/// Makes one world and compares all sources.
fn one(
    seed: u64,
    sources: &[ComparedSource],
    tally: &mut DifferentialTally,
    say: &mut impl FnMut(&str),
) -> anyhow::Result<()> {
    let world = PausedWorld::make(seed)?;
    reading::wait_for(world.group)?;
    let truth = WorldTruth::new(PlainReading::take(world.group)?, &world.flights);
    tally.worlds += 1;
    tally.objects += truth.len() as u64;
    let mut error = |tally: &mut DifferentialTally, error: String| {
        if tally.errors.len() < PRINTED {
            say(&format!("ERROR (seed {seed}): {error}"));
        }
        tally.errors.push(format!("seed {seed}: {error}"));
    };
    let mut first: Option<(&str, ComparedParts)> = None;
    for &source in sources {
        let mut command = Command::new(LSBUF);
        command.args(["--json", "--kind", "dmabuf,memfd,tmpfs,sysv,shm-anon", "--source", source.name]);
        let answer = Answer::from(&mut command)?;
        tally.answers += 1;
        let (wrong, said) = truth.judge(&answer, source, &mut tally.reasons);
        for wrong in wrong {
            error(tally, format!("by {}: {wrong}\n  notes {}", source.name, answer.0["scan"]["notes"]));
        }
        match &first {
            Some((other, before)) => {
                for difference in judge::differences(before, &said) {
                    error(tally, format!("by {other} and {}: {difference}", source.name));
                }
            }
            None => first = Some((source.name, said)),
        }
    }
    Ok(())
}
