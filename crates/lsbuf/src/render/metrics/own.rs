//! Metrics of lsbuf itself: how good the answer is, what it cost, and what the flight recorder has
//! counted.

use std::time::UNIX_EPOCH;

use super::Scrape;
use super::family::{Family, Sort, Unit};

pub(super) fn families(scrape: &Scrape<'_>) -> Vec<Family> {
    let snapshot = scrape.ledger.snapshot();
    let coverage = &snapshot.coverage;
    let mut build = Family::new("build", Sort::Info, Unit::None, "The version of lsbuf.");
    build.add(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1);
    let mut complete = Family::gauge(
        "scan_complete",
        Unit::None,
        "Whether everything was read: 1, or 0 if buffers or references may be missing.",
    );
    complete.add(Vec::new(), i128::from(coverage.is_complete()));
    let mut took = Family::gauge("scan_duration", Unit::Seconds, "How long the scan took.");
    took.raise(Vec::new(), coverage.duration.as_secs_f64());
    let mut at =
        Family::gauge("last_scan_timestamp", Unit::Seconds, "When the scan began, by the wall clock.");
    if let Ok(since) = snapshot.taken_at.duration_since(UNIX_EPOCH) {
        at.raise(Vec::new(), since.as_secs_f64());
    }
    let mut unread = Family::gauge("processes_unread", Unit::None, "Processes that could not be read.");
    unread.add(Vec::new(), i128::from(coverage.processes.unreadable));
    let mut notes = Family::gauge(
        "notes",
        Unit::None,
        "Reasons why figures may be missing or are estimates, by code; 1 each.",
    );
    for note in &coverage.notes {
        notes.samples.insert(vec![("code", note.code().to_owned())], super::family::Figure::Whole(1));
    }
    let mut scans = Family::counter("scans", "Scans since lsbuf serve was started, by result.");
    for (result, count) in scrape.scans.iter().flat_map(|(good, bad)| [("answered", good), ("failed", bad)]) {
        scans.add(vec![("result", result.to_owned())], *count);
    }
    let mut families = vec![build, complete, took, at, unread, notes, scans];
    families.extend(of_recorder(scrape));
    families
}

fn of_recorder(scrape: &Scrape<'_>) -> Vec<Family> {
    let Some(recorder) = scrape.recorder else { return Vec::new() };
    let mut births = Family::counter(
        "births",
        "Buffers that the flight recorder has seen being made since it was installed.",
    );
    births.add(Vec::new(), recorder.births);
    let mut deaths = Family::counter("deaths", "Buffers that the flight recorder has seen being freed.");
    deaths.add(Vec::new(), recorder.deaths);
    let mut living =
        Family::gauge("recorded_buffers", Unit::None, "Living buffers that the flight recorder knows.");
    living.add(Vec::new(), recorder.living);
    let mut lost = Family::counter(
        "births_lost",
        "Buffers that the flight recorder has not recorded, by cause: room, for lack of room; skipped, at most so \
         many that the kernel has not shown to it.",
    );
    lost.add(vec![("cause", "room".to_owned())], recorder.full);
    if let Some(skipped) = recorder.skipped {
        lost.add(vec![("cause", "skipped".to_owned())], skipped);
    }
    vec![births, deaths, living, lost]
}
