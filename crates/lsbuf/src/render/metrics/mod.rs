//! The figures as metrics, for Prometheus and whatever else reads its formats.
//!
//! What a scan has found is a gauge: all series are made anew from each scan, so none outlives what
//! it is of. A figure that is not known has no sample; it is never 0. Counters are only what counts
//! by itself: scans, and the births and deaths of the flight recorder.
//!
//! Labels are bounded: kinds, exporters, mount points, workloads. Never pids, inodes, names of
//! buffers, paths of files, command lines or ids of containers.
//!
//! | module | what |
//! |---|---|
//! | `family` | metrics as data |
//! | `node` | figures of the whole machine |
//! | `workloads` | figures of containers in pods and of units |
//! | `own` | the scan itself, and the flight recorder |
//! | `encode` | the text |
//!
//! Limit: an exporter can have any name, and a machine any number of workloads. The largest ones
//! are kept within [`Scrape::most`] series, and the others are added up as `other`.

mod encode;
mod family;
mod node;
mod own;
#[cfg(all(test, feature = "history"))]
mod tests;
mod workloads;

use std::fmt;

use self::family::Family;
use crate::model::Ledger;
use crate::origins::Recorded;
use crate::reconcile::Reconciliation;

/// How many series one answer has at most, unless another number is chosen.
pub const MOST_SERIES: usize = 1000;

/// Which text form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricsFormat {
    /// Prometheus text, version 0.0.4, which every scraper takes.
    #[default]
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// The media type for an answer over HTTP.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            MetricsFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
            MetricsFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What metrics are made from.
#[derive(Clone, Copy, Debug)]
pub struct Scrape<'a> {
    /// The scan, with the details of [`SumKey::Workload`](crate::model::SumKey) and
    /// [`Detail::FdLimit`](crate::model::Detail).
    pub ledger: &'a Ledger<'a>,
    /// The account of shared memory, if it was made.
    pub shmem: Option<&'a Reconciliation>,
    /// What the flight recorder says of itself, if one is installed.
    pub recorder: Option<&'a Recorded>,
    /// How many scans this process has made until now: how many gave an answer, and how many did
    /// not. `None`: it makes only one.
    pub scans: Option<(u64, u64)>,
    /// How many series the answer has at most.
    pub most: usize,
}

/// Writes the metrics.
///
/// # Errors
/// Those of formatting, which a `String` has none of.
pub fn metrics(scrape: &Scrape<'_>, format: MetricsFormat) -> Result<String, fmt::Error> {
    encode::text_of(families(scrape), format)
}

/// All families, of no more than [`Scrape::most`] series.
fn families(scrape: &Scrape<'_>) -> Vec<Family> {
    let mut families = own::families(scrape);
    families.extend(node::families(scrape));
    // The series that says how many are missing counts, too.
    let used = 1 + series(&families);
    families.extend(workloads::families(scrape.ledger, scrape.most.saturating_sub(used)));
    let dropped = limit(&mut families, scrape.most.saturating_sub(1));
    let mut missing = Family::gauge(
        "series_dropped",
        family::Unit::None,
        "Series that are missing because there would be more than lsbuf may give.",
    );
    missing.add(Vec::new(), dropped as i128);
    families.push(missing);
    families
}

fn series(families: &[Family]) -> usize {
    families.iter().map(|family| family.samples.len()).sum()
}

/// Drops series behind the most. Returns how many.
fn limit(families: &mut [Family], most: usize) -> usize {
    let (mut room, mut dropped) = (most, 0);
    for family in families {
        let before = family.samples.len();
        let mut kept = 0;
        family.samples.retain(|_, _| {
            kept += 1;
            kept <= room
        });
        dropped += before - family.samples.len();
        room -= family.samples.len();
    }
    dropped
}
