//! `lsbuf metrics`: the figures of one scan for Prometheus; and what `lsbuf serve` makes its
//! metrics from.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use lsbuf::model::{Detail, Details, Ledger, Snapshot, SumKey};
use lsbuf::origins::{self, Recorded};
use lsbuf::reconcile::Reconciliation;
use lsbuf::render::{MOST_SERIES, MetricsFormat, Scrape};
use lsbuf::scan::{Options, Scanner};

use crate::args::ReadingArgs;
use crate::files;
use crate::output::{self, Ending};

#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// Write them to FILE, which is replaced at once: for the textfile collector of node_exporter,
    /// which wants a name that ends in .prom
    #[arg(long, value_name = "FILE", conflicts_with = "openmetrics")]
    textfile: Option<PathBuf>,
    /// Print OpenMetrics 1.0.0 in place of Prometheus text
    #[arg(long)]
    openmetrics: bool,
    #[command(flatten)]
    limit: SeriesArg,
    #[command(flatten)]
    reading: ReadingArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SeriesArg {
    /// The most series of one answer. The workloads with the most memory are kept; the others are
    /// added up
    #[arg(long, value_name = "N", default_value_t = MOST_SERIES as u64)]
    #[arg(value_parser = clap::value_parser!(u64).range(100..=5000))]
    max_series: u64,
}

impl SeriesArg {
    pub(crate) fn most(&self) -> usize {
        usize::try_from(self.max_series).unwrap_or(MOST_SERIES)
    }
}

pub(crate) fn run(args: &MetricsArgs) -> Result<Ending> {
    let options = options(&args.reading);
    let measured = Measured::of(&mut Scanner::new(options.clone())?, &options)?;
    let format = if args.openmetrics { MetricsFormat::OpenMetrics } else { MetricsFormat::Text };
    let text = measured.metrics(format, args.limit.most(), None)?;
    match &args.textfile {
        Some(file) => files::replace(file, |out| out.write_all(text.as_bytes()))?,
        None => {
            let mut out = output::buffered()?;
            output::unless_closed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))?;
        }
    }
    Ok(output::conclude(&measured.snapshot, args.reading.strict))
}

/// For how long what was read of a process is used again by a scanner that scans more than once.
const DETAILS_FOR: Duration = Duration::from_secs(60);

/// A scan for metrics.
pub(crate) fn options(reading: &ReadingArgs) -> Options {
    let details = SumKey::Workload.details().and(Details::from(Detail::FdLimit));
    Options { details, details_for: DETAILS_FOR, ..reading.options() }
}

/// What metrics are made from.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) snapshot: Snapshot,
    /// `None`: a recorded machine has no account.
    shmem: Option<Reconciliation>,
    recorder: Option<Recorded>,
}

impl Measured {
    pub(crate) fn of(scanner: &mut Scanner, options: &Options) -> Result<Measured> {
        let is_own = options.proc_root == Path::new("/proc");
        let (snapshot, shmem) = if is_own {
            scanner.scan_and_reconcile().map(|(snapshot, shmem)| (snapshot, Some(shmem)))
        } else {
            scanner.scan().map(|snapshot| (snapshot, None))
        }
        .context("the scan failed")?;
        let recorder = is_own.then(|| origins::recorded(&options.pins)).flatten();
        Ok(Measured { snapshot, shmem, recorder })
    }

    /// The metrics as text. `scans`: how many scans gave an answer, and how many did not.
    pub(crate) fn metrics(
        &self,
        format: MetricsFormat,
        most: usize,
        scans: Option<(u64, u64)>,
    ) -> Result<String> {
        let ledger = Ledger::of(&self.snapshot);
        let (shmem, recorder) = (self.shmem.as_ref(), self.recorder.as_ref());
        let scrape = Scrape { ledger: &ledger, shmem, recorder, scans, most };
        lsbuf::render::metrics(&scrape, format).context("the metrics cannot be written")
    }
}
