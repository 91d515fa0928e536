//! `lsbuf report`: who made the buffers, for tools that draw stacks.
//!
//! A profile is made whole before its file is, so that a scan that fails replaces nothing.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args};
use lsbuf::model::{Detail, Ledger, counted};
use lsbuf::render::{View, Weight};
use lsbuf::scan::Options;

use crate::args::{FilterArgs, ScanArgs};
use crate::output::{self, Ending};
use crate::past::PastArgs;
use crate::{commands, past, select};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("as").required(true).args(["folded", "pprof"])))]
pub(crate) struct ReportArgs {
    /// Folded stacks, which flame graphs are made of: on each line frames from the outermost
    /// inwards, and the bytes that its buffers cost
    #[arg(long)]
    folded: bool,
    /// In folded stacks the number of buffers in place of bytes
    #[arg(long, conflicts_with = "pprof")]
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

pub(crate) fn run(args: &ReportArgs) -> Result<Ending> {
    let details = [Detail::Origin, Detail::Stacks].into_iter().collect();
    let options = Options { details, unheld: args.filter.unheld, ..args.scan.options() };
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
