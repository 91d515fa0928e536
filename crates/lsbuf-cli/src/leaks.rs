//! `lsbuf leaks`: which groups of buffers grow and do not come back, from a recording or from a
//! while of watching.
//!
//! What is watched is recorded in memory, so both are judged by the same code.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use globset::GlobMatcher;
use lsbuf::history::{Growth, LivedBuffer, Recorder, Recording, SuspectHolder, Suspects, When, duration};
use lsbuf::model::{Bytes, Detail, Kind, Kinds, Ledger, Snapshot};
use lsbuf::render::{Column, DEFAULT_LEAK_COLUMNS, LEAK_COLUMNS, View};
use lsbuf::scan::{Options, Scanner};

use crate::args::{Columns, Format, ScanArgs, choose, find, glob, size};
use crate::output::{self, Ending};
use crate::past::Source;
use crate::ticks::{Ticks, interval, signals};
use crate::{commands, select};

#[derive(Debug, Args)]
pub(crate) struct LeaksArgs {
    /// The recording (lsbuf record); without it this machine is watched for a while
    // Not with --source: LSBUF_SOURCE counts as that, and is no mistake.
    #[arg(value_name = "FILE", conflicts_with_all = ["length", "every", "proc_root", "sys_root", "pins"])]
    file: Option<PathBuf>,
    /// How long to watch
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = duration)]
    length: Duration,
    /// Time from one sample to the next
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    every: Duration,
    /// Only from that TIME of the recording on: start (the default), -1h (before the end), 14:05,
    /// or as in RFC 3339
    #[arg(long, value_name = "TIME", requires = "file", allow_hyphen_values = true)]
    since: Option<When>,
    /// Only up to that TIME of the recording
    #[arg(long, value_name = "TIME", requires = "file", allow_hyphen_values = true)]
    until: Option<When>,
    /// Show every group, not only those that grow
    #[arg(short, long)]
    all: bool,
    /// Exit with status 4 if a group grows
    #[arg(long, value_name = "STATE")]
    fail_on: Option<FailOn>,
    /// No evidence below the table, and no progress
    #[arg(short, long)]
    quiet: bool,
    /// Columns to show; +COL,… adds to the default ones
    #[arg(short, long, value_name = "COL,…", value_parser = |s: &str| choose(s, LEAK_COLUMNS), conflicts_with_all = ["json", "compact"])]
    output: Option<Columns>,
    /// Column to sort by: numbers largest first, text from A to Z [default: the worst first]
    #[arg(long, value_name = "COL", value_parser = |s: &str| find(s, LEAK_COLUMNS))]
    sort: Option<Column>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    filter: LeakFilter,
    #[command(flatten)]
    scan: ScanArgs,
}

/// What to fail on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Growing,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Filter")]
struct LeakFilter {
    /// Only what commands hold that match, such as 'python*'
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    command: Option<GlobMatcher>,
    /// Only dma-bufs of these exporters, by exact name: system,udmabuf
    #[arg(long = "exporter", value_name = "EXPORTER", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    exporters: Vec<String>,
    /// Only buffers whose name matches, such as 'cam*'
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    name: Option<GlobMatcher>,
    /// Only buffers of at least this SIZE, such as 10M
    #[arg(long, value_name = "SIZE", value_parser = size)]
    min_size: Option<Bytes>,
}

impl LeakFilter {
    fn passes(&self, kinds: Kinds, buffer: &LivedBuffer<'_>) -> bool {
        kinds.has(buffer.kind)
            && select::is_made_by(&self.exporters, buffer.exporter)
            && select::is_named(self.name.as_ref(), buffer.name)
            && self.min_size.is_none_or(|least| buffer.size.is_some_and(|size| size >= least))
    }

    fn has(&self, holder: Option<&SuspectHolder>) -> bool {
        select::is_named(self.command.as_ref(), holder.map(|holder| &holder.comm))
    }

    /// Whether it chooses among buffers, so that sync_files are not meant.
    fn is_by_buffer(&self) -> bool {
        self.name.is_some() || self.min_size.is_some() || !self.exporters.is_empty()
    }
}

pub(crate) fn run(args: &LeaksArgs) -> Result<Ending> {
    let recording = match &args.file {
        Some(file) => match Source::open(file)? {
            Source::Recording(recording) => recording,
            Source::Document(_) => bail!("{} is a single answer, not a recording", file.display()),
        },
        // What conflicts with FILE may be there, and keeps clap from asking for it.
        None if args.since.is_some() || args.until.is_some() => bail!("--since and --until need a FILE"),
        None => watch(args)?,
    };
    let first = recording.sample_when(args.since.unwrap_or(When::Start))?;
    let last = recording.sample_when(args.until.unwrap_or(When::End))?;
    if first.id > last.id {
        bail!("--since is later than --until");
    }
    let kinds = args.scan.kinds();
    let mut suspects = recording.suspects(first, last, |buffer| args.filter.passes(kinds, buffer))?;
    suspects.groups.retain(|group| args.filter.has(group.key.holder.as_ref()));
    let by_buffer = args.filter.is_by_buffer() || !kinds.has(Kind::DmaBuf);
    suspects.fences.retain(|fences| !by_buffer && args.filter.has(Some(&fences.holder)));
    let snapshot = recording.snapshot(last.id)?;
    output::unless_closed(show(args, &suspects, &snapshot))?;
    if suspects.partial > 0 {
        output::say(&format!(
            "partial: in {} of {} samples not everything was read, so births and deaths may be wrong",
            suspects.partial, suspects.samples
        ));
    }
    let grows = suspects.groups.iter().any(|group| group.growth == Growth::Growing)
        || suspects.fences.iter().any(|fences| fences.is_rising);
    Ok(match args.fail_on {
        Some(FailOn::Growing) if grows => Ending::Status(4),
        _ if args.scan.reading.strict && suspects.partial > 0 => Ending::StrictlyPartial,
        _ => Ending::Answered,
    })
}

fn show(args: &LeaksArgs, suspects: &Suspects, snapshot: &Snapshot) -> io::Result<()> {
    let ledger = Ledger::of(snapshot);
    let mut view = View::all(&ledger);
    view.suspects = Some(suspects);
    let is_shown = |&row: &usize| args.all || suspects.groups[row].growth == Growth::Growing;
    let mut rows: Vec<usize> = (0..suspects.groups.len()).filter(is_shown).collect();
    if let Some(by) = &args.sort {
        select::sort_others(&mut rows, &view, by);
    }
    if args.format.json {
        let mut out = output::buffered()?;
        let layout = output::json_layout(args.format.compact);
        lsbuf::render::leaks_json(&mut out, &view, suspects, &rows, layout)?;
        return out.flush();
    }
    let format = &args.format;
    let columns = Columns::or_default(&args.output, LEAK_COLUMNS, DEFAULT_LEAK_COLUMNS);
    if format.is_for_programs() || !rows.is_empty() {
        commands::write_list(&view, &rows, &columns, format, |_| anstyle::Style::new())?;
    }
    if format.is_for_programs() || format.noheadings {
        return Ok(());
    }
    let mut out = output::buffered()?;
    let sizes = output::sizes(format.human, format.bytes);
    let growing = rows.iter().map(|&row| &suspects.groups[row]);
    for group in growing.filter(|group| !args.quiet && group.growth == Growth::Growing) {
        writeln!(out, "{}\n", lsbuf::render::leak_evidence(group, sizes))?;
    }
    for fences in suspects.fences.iter().filter(|fences| !args.quiet && fences.is_rising) {
        writeln!(out, "{}\n", lsbuf::render::fence_evidence(fences))?;
    }
    writeln!(out, "{}", lsbuf::render::leak_summary(suspects, args.all))?;
    out.flush()
}

/// Records this machine in memory for a while. A signal ends it, and what was seen is judged.
fn watch(args: &LeaksArgs) -> Result<Recording> {
    let stop = signals()?;
    let mut recorder = Recorder::in_memory()?;
    let details = [Detail::Origin, Detail::Stacks].into_iter().collect();
    let mut scanner = Scanner::new(Options { details, ..args.scan.options() })?;
    let mut ticks = Ticks::start(stop, args.every, Some(args.length));
    let mut bar = Bar { wanted: !args.quiet && io::stderr().is_terminal() };
    let mut samples = 0;
    loop {
        recorder.append(scanner.scan().context("the scan failed")?)?;
        samples += 1;
        bar.show(samples, ticks.elapsed(), args.length);
        if !ticks.wait() {
            break;
        }
    }
    bar.end();
    Ok(recorder.finish()?)
}

/// A bar on the terminal that grows with each sample.
struct Bar {
    wanted: bool,
}

impl Bar {
    const WIDTH: usize = 40;

    fn show(&mut self, samples: u64, elapsed: Duration, length: Duration) {
        if !self.wanted {
            return;
        }
        let done = (elapsed.as_secs_f64() / length.as_secs_f64().max(0.001)).min(1.0);
        let full = (done * Bar::WIDTH as f64) as usize;
        let (full, rest) = ("#".repeat(full), ".".repeat(Bar::WIDTH - full));
        let samples = lsbuf::model::counted(samples, "sample", "samples");
        let left = length.saturating_sub(elapsed).as_secs();
        // If stderr is closed, nothing can be said.
        let _ = write!(io::stderr(), "\r[{full}{rest}] {samples}, {left}s left\x1b[K");
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.wanted) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
