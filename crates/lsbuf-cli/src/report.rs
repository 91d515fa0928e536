//! `lsbuf report`: one HTML page to look at or to send, and who made the buffers, for tools that
//! draw stacks.
//!
//! A report is made whole before its file is, so that a scan that fails replaces nothing. A page
//! replaces only an earlier page.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use lsbuf::history::{Course, LivedBuffer, Recording, Suspects, When};
use lsbuf::model::{Detail, Details, Ledger, Snapshot, counted};
use lsbuf::render::{PageData, PageOrigin, View, Weight};
use lsbuf::scan::Options;

use crate::args::{FilterArgs, ScanArgs};
use crate::output::{self, Ending};
use crate::past::{PastArgs, Source};
use crate::{commands, files, page_file, past, select};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("as").required(true).args(["file", "folded", "pprof"])))]
pub(crate) struct ReportArgs {
    /// Write an HTML page into FILE; - is standard output. A file that is there already is only
    /// replaced if it is an earlier page of lsbuf
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// In the page aliases (command-1, path-2) in place of commands, paths, names, pids, users,
    /// cgroups and hosts; figures stay
    #[arg(long, requires = "file")]
    redact: bool,
    /// Folded stacks, which flame graphs are made of: on each line frames from the outermost
    /// inwards, and the bytes that its buffers cost
    #[arg(long)]
    folded: bool,
    /// In folded stacks the number of buffers in place of bytes
    #[arg(long, conflicts_with_all = ["pprof", "file"])]
    objects: bool,
    /// Write a profile for pprof into FILE, with buffers and bytes (inuse_objects, inuse_space); -
    /// is standard output
    #[arg(long, value_name = "FILE")]
    pprof: Option<PathBuf>,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    past: PastArgs,
    #[command(flatten)]
    scan: ScanArgs,
}

/// What a page tells besides buffers and processes. Command lines are not among it: they may have
/// passwords, and a page is sent to others.
const IN_PAGE: &[Detail] =
    &[Detail::Origin, Detail::Stacks, Detail::Workload, Detail::User, Detail::SegmentUsers];

/// How many points of time a page has.
const POINTS: usize = 600;

pub(crate) fn run(args: &ReportArgs) -> Result<Ending> {
    match &args.file {
        Some(file) => write_page(args, file),
        None => write_stacks(args),
    }
}

fn options(args: &ReportArgs, details: Details) -> Options {
    Options { details, unheld: args.filter.unheld, ..args.scan.options() }
}

/// What a recording tells of the time before its last sample.
struct OverTime {
    course: Course,
    suspects: Suspects,
}

fn write_page(args: &ReportArgs, file: &Path) -> Result<Ending> {
    let is_stdout = file == Path::new("-");
    if is_stdout && io::stdout().is_terminal() {
        bail!("a page is no text for a terminal: name a file, or pipe it");
    }
    if !is_stdout {
        page_file::check(file)?;
    }
    let (snapshot, over_time) = asked(args)?;
    let ledger = Ledger::of(&snapshot);
    let mut view = View::all(&ledger);
    select::filter(&mut view, &args.filter);
    let mut data = PageData::new(&view)?;
    if let Some(OverTime { course, suspects }) = &over_time {
        data = data.over_time(&view, course, suspects)?;
    }
    if args.redact {
        data = data.redacted()?;
    }
    let write = |out: &mut dyn Write| lsbuf::render::page(out, Some(&data), PageOrigin::File);
    if is_stdout {
        let mut out = output::buffered()?;
        output::unless_closed(write(&mut out).and_then(|()| out.flush()))?;
    } else {
        files::replace(file, write)?;
    }
    Ok(output::conclude(&snapshot, args.scan.reading.strict))
}

/// The answer that the page shows, and what came before.
fn asked(args: &ReportArgs) -> Result<(Snapshot, Option<OverTime>)> {
    let options = options(args, IN_PAGE.iter().copied().collect());
    let pids = &args.filter.pids;
    let Some(from) = &args.past.from else { return Ok((commands::scan(options, pids)?.1, None)) };
    let source = Source::open(from)?;
    let over_time = match &source {
        Source::Recording(recording) => Some(over_time(args, recording)?),
        Source::Document(_) => None,
    };
    Ok((past::answer(source, from, args.past.at, &options, pids)?, over_time))
}

fn over_time(args: &ReportArgs, recording: &Recording) -> Result<OverTime> {
    let first = recording.sample_when(When::Start)?;
    let last = recording.sample_when(args.past.at.unwrap_or(When::End))?;
    let kinds = args.scan.kinds();
    let filter = &args.filter;
    let passes = |buffer: &LivedBuffer<'_>| {
        kinds.has(buffer.kind)
            && select::is_made_by(&filter.exporters, buffer.exporter)
            && select::is_named(filter.name.as_ref(), buffer.name)
            && filter.min_size.is_none_or(|least| buffer.size.is_some_and(|size| size >= least))
    };
    let course = recording.course(first, last, POINTS, passes)?;
    Ok(OverTime { course, suspects: recording.suspects(first, last, passes)? })
}

fn write_stacks(args: &ReportArgs) -> Result<Ending> {
    let options = options(args, [Detail::Origin, Detail::Stacks].into_iter().collect());
    let snapshot = match &args.past.from {
        Some(from) => past::read(from, args.past.at, &options, &args.filter.pids)?,
        None => commands::scan(options, &args.filter.pids)?.1,
    };
    let ledger = Ledger::of(&snapshot);
    let mut view = View::all(&ledger);
    select::filter(&mut view, &args.filter);
    match args.pprof.as_deref() {
        None => {
            let weight = if args.objects { Weight::Objects } else { Weight::Bytes };
            let mut out = output::buffered()?;
            let written = lsbuf::render::folded(&mut out, &view, weight).and_then(|()| out.flush());
            output::unless_closed(written)?;
        }
        Some(file) if file == Path::new("-") => {
            if io::stdout().is_terminal() {
                bail!("a profile is no text for a terminal: name a file, or pipe it");
            }
            let mut out = output::buffered()?;
            output::unless_closed(out.write_all(&lsbuf::render::pprof(&view)).and_then(|()| out.flush()))?;
        }
        Some(file) => fs::write(file, lsbuf::render::pprof(&view))
            .with_context(|| format!("{} cannot be written", file.display()))?,
    }
    for line in unproved(args, &view) {
        output::say(&line);
    }
    Ok(output::conclude(&snapshot, args.scan.reading.strict))
}

/// What the figures leave out, in lines.
fn unproved(args: &ReportArgs, view: &View<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let is_recorded = view.snapshot().buffers.iter().any(|buffer| buffer.origin.is_some());
    if !is_recorded && !view.buffers.is_empty() {
        let line = match args.past.from {
            None => {
                "note: no flight recorder is installed, so all is [unknown] (lsbuf probes install --origins)"
            }
            Some(_) => "note: no origins were recorded, so all is [unknown] (lsbuf -J needs --details)",
        };
        lines.push(line.to_owned());
    }
    let unknown = lsbuf::render::unknown_costs(view) as u64;
    if unknown > 0 && !args.objects {
        let buffers = counted(unknown, "buffer", "buffers");
        lines.push(format!("note: {buffers} of unknown cost: no bytes of them are counted"));
    }
    lines
}
