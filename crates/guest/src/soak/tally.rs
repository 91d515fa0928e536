//! The figures of the soak test so far, and how they are printed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;

use super::history::History;
use super::journal::{Entry, JournalRecord};
use super::judge::{self, Findings, TimedAnswer};
use super::world::SoakWorld;
use crate::answer::Answer;
use crate::way::Way;

/// How many failures are printed in full. Later ones are only counted.
const PRINTED: u64 = 100;

/// The figures of a soak test.
#[derive(Clone, Debug)]
pub struct SoakTally {
    seed: u64,
    /// The current batch, from 1.
    pub(super) batch: u64,
    /// The source that lsbuf is told to use in it.
    pub(super) way: Way,
    /// Answers while the world moved.
    pub running: u64,
    /// Answers while the world was paused.
    pub paused: u64,
    /// Accounts that were compared in full.
    pub accounts: u64,
    /// How many of them were marked as estimates.
    pub estimates: u64,
    /// Buffers made.
    pub made: u64,
    /// Records in the journal.
    pub steps: u64,
    /// Residuals that were called exact and were wrong within a limit that lsbuf's documents state.
    pub limits: u64,
    /// Memfds that were missing from an answer that says that memfds may be missing.
    pub missing_with_note: u64,
    /// Buffers in all answers.
    pub listed: u64,
    /// How many of them were estimates, by the reason that lsbuf gave.
    pub reasons: BTreeMap<String, u64>,
    /// Whether a recorder runs beside the world.
    pub beside_recorder: bool,
    /// Samples of the recording, which are among the answers above.
    pub recorded: u64,
    /// Answers that were not judged: samples that were taken across the end of a batch, and answers
    /// about the paused world that have notes beside a recorder.
    pub unjudged: u64,
    /// Pauses of which the recording has a sample.
    pub recorded_pauses: u64,
    /// Pauses of which it has none.
    pub unrecorded_pauses: u64,
    /// Mistakes of lsbuf.
    pub errors: u64,
    forks_before: u64,
    minutes: u64,
}

impl SoakTally {
    pub(super) fn new(seed: u64) -> anyhow::Result<SoakTally> {
        Ok(SoakTally {
            seed,
            batch: 0,
            way: Way::Auto,
            running: 0,
            paused: 0,
            accounts: 0,
            estimates: 0,
            made: 0,
            steps: 0,
            limits: 0,
            missing_with_note: 0,
            listed: 0,
            reasons: BTreeMap::new(),
            beside_recorder: false,
            recorded: 0,
            unjudged: 0,
            recorded_pauses: 0,
            unrecorded_pauses: 0,
            errors: 0,
            forks_before: forks()?,
            minutes: 0,
        })
    }

    /// Counts what players did.
    pub(super) fn happened(&mut self, records: &[JournalRecord]) {
        self.steps += records.len() as u64;
        self.made += records.iter().filter(|r| matches!(r.entry, Entry::Made { .. })).count() as u64;
    }

    /// Judges the answers of a batch.
    pub(super) fn judged_running(
        &mut self,
        history: &History,
        scans: &[TimedAnswer],
        say: &mut impl FnMut(&str),
    ) {
        for scan in scans {
            self.running += 1;
            let findings = judge::running(history, scan, self.beside_recorder);
            self.add(findings, "while the world moved", &scan.answer, say);
        }
    }

    /// Judges an answer about the paused world. Returns whether it could be judged: beside a
    /// recorder, whose helpers start and end, an answer with notes has estimates.
    pub(super) fn judged_paused(
        &mut self,
        world: &SoakWorld,
        answer: &Answer,
        say: &mut impl FnMut(&str),
    ) -> bool {
        let has_notes = answer.0["scan"]["notes"].as_array().is_some_and(|notes| !notes.is_empty());
        if self.beside_recorder && has_notes {
            self.unjudged += 1;
            return false;
        }
        self.paused += 1;
        self.add(judge::paused(world, answer), "while the world stood still", answer, say);
        true
    }

    fn add(&mut self, findings: Findings, when: &str, answer: &Answer, say: &mut impl FnMut(&str)) {
        self.accounts += findings.accounts;
        self.estimates += findings.estimates;
        let whence = format!("seed {}, batch {} by {}, {when}", self.seed, self.batch, self.way);
        for error in findings.errors {
            self.errors += 1;
            if self.errors <= PRINTED {
                say(&format!("ERROR ({whence}): {error}\n  notes {}", answer.0["scan"]["notes"]));
            }
        }
        for wrong in findings.limits {
            self.limits += 1;
            if self.limits <= PRINTED {
                say(&format!("LIMIT ({whence}): {wrong}"));
            }
        }
        self.missing_with_note += findings.missing_with_note;
        self.listed += findings.listed;
        for (reason, buffers) in findings.reasons {
            *self.reasons.entry(reason).or_default() += buffers;
        }
    }

    /// Prints the figures once a minute.
    pub(super) fn minute(&mut self, elapsed: Duration, say: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        if elapsed.as_secs() / 60 > self.minutes {
            self.minutes = elapsed.as_secs() / 60;
            say(&self.line(elapsed)?);
        }
        Ok(())
    }

    /// Prints the result and the figures at the end.
    pub(super) fn summary(&self, elapsed: Duration, say: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        let verdict = if self.errors == 0 { "passed" } else { "FAILED" };
        say(&format!("soak {verdict}, seed {}: {}", self.seed, self.line(elapsed)?));
        let reasons: Vec<String> =
            self.reasons.iter().map(|(reason, buffers)| format!("{buffers} {reason}")).collect();
        say(&format!(
            "recorded samples {}, {} answers not judged; {} pauses have a sample, {} have none",
            self.recorded, self.unjudged, self.recorded_pauses, self.unrecorded_pauses
        ));
        say(&format!("of {} buffers in all answers estimates: {}", self.listed, reasons.join(", ")));
        Ok(())
    }

    fn line(&self, elapsed: Duration) -> anyhow::Result<String> {
        let SoakTally { batch, running, paused, accounts, estimates, made, steps, limits, errors, .. } = self;
        let started = forks()? - self.forks_before;
        Ok(format!(
            "{:>5} s: {batch} batches, scans {running} running and {paused} paused, {accounts} accounts compared \
             ({estimates} estimates), {made} buffers, {steps} steps, {started} processes, \
             {limits} at a stated limit, {} memfds missing with a note, {errors} errors",
            elapsed.as_secs(),
            self.missing_with_note,
        ))
    }
}

/// How many processes and threads have been started since the machine booted.
fn forks() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let line =
        stat.lines().find_map(|line| line.strip_prefix("processes ")).context("no count of processes")?;
    line.parse().context("understanding the count of processes")
}
