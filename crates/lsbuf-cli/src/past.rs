//! Answers of the past: a sample of a recording, or a document that `lsbuf -J` printed, in place of
//! this machine.
//!
//! Limits: a document is one answer, so it has no other times. What a recording does not keep is
//! unknown in its answers.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use lsbuf::history::{BufferNumber, Life, Recording, When, read_document};
use lsbuf::model::{Buffer, Ledger, Pid, Snapshot};
use lsbuf::render::{JsonLayout, View};
use lsbuf::scan::Options;

use crate::{named, output};

/// Which answer of the past is meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "Past")]
pub(crate) struct PastArgs {
    /// Answer from FILE in place of this machine: a recording (lsbuf record), or what lsbuf -J
    /// printed; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "proc_root", "sys_root", "pins"])]
    pub(crate) from: Option<PathBuf>,
    /// The TIME in the recording: start, end (the default), -10m (before the end), 14:05, or as in
    /// RFC 3339
    #[arg(long, value_name = "TIME", requires = "from", allow_hyphen_values = true)]
    pub(crate) at: Option<When>,
}

/// Reads the answer of a file, as [`answer`] does.
pub(crate) fn read(from: &Path, at: Option<When>, options: &Options, pids: &[Pid]) -> Result<Snapshot> {
    answer(Source::open(from)?, from, at, options, pids)
}

/// The answer of the source of that name, as far as it is of the kinds and details that the options
/// ask for. Each of these processes must be in it.
pub(crate) fn answer(
    source: Source,
    from: &Path,
    at: Option<When>,
    options: &Options,
    pids: &[Pid],
) -> Result<Snapshot> {
    let mut snapshot = match source {
        Source::Document(_) if at.is_some() => return Err(single(from)),
        Source::Document(snapshot) => *snapshot,
        Source::Recording(recording) => {
            let sample = recording.sample_when(at.unwrap_or(When::End))?;
            recording.snapshot(sample.id)?
        }
    };
    if let Some(pid) = pids.iter().find(|&&pid| snapshot.process(pid).is_none()) {
        bail!("process {pid} held nothing then");
    }
    if options.unheld {
        output::say("note: the files that nobody holds are not recorded, so none is listed");
    }
    snapshot.keep_kinds(options.kinds);
    snapshot.keep_details(options.details);
    Ok(snapshot)
}

/// Why a file with one answer has no --at.
pub(crate) fn single(from: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} is a single answer, not a recording, so it has no --at", from.display())
}

/// What a file of the past is.
pub(crate) enum Source {
    /// A recording.
    Recording(Recording),
    /// A document that `lsbuf -J` printed.
    Document(Box<Snapshot>),
}

impl Source {
    /// Opens a file and finds out what it is.
    pub(crate) fn open(path: &Path) -> Result<Source> {
        if path == Path::new("-") {
            return document(io::stdin().lock()).context("standard input").map(Source::Document);
        }
        let shown = path.display();
        let mut file = File::open(path).with_context(|| format!("{shown} cannot be opened"))?;
        let mut first = [0];
        // A document begins with a brace, and SQLite's files with the name of SQLite.
        if file.read(&mut first).with_context(|| format!("{shown} cannot be read"))? > 0 && first == *b"{" {
            let whole = first.chain(BufReader::new(file));
            return document(whole).with_context(|| format!("{shown}")).map(Source::Document);
        }
        Ok(Source::Recording(Recording::open(path)?))
    }
}

fn document(text: impl Read) -> Result<Box<Snapshot>> {
    Ok(Box::new(read_document(text)?))
}

/// Shows the lives of buffers in a recording, as text or, in that layout, as JSON.
pub(crate) fn show_lives(recording: &Recording, wanted: &[String], json: Option<JsonLayout>) -> Result<()> {
    let (numbers, buffers): (Vec<BufferNumber>, Vec<Buffer>) = recording.buffers()?.into_iter().unzip();
    let (missing, mut shown) = named::find_all(&buffers, wanted);
    let mut out = output::buffered()?;
    if let Some(layout) = json {
        let mut once = HashSet::new();
        shown.retain(|&row| once.insert(row));
        let lives: Vec<Life> =
            shown.iter().map(|&row| recording.life(numbers[row])).collect::<Result<_, _>>()?;
        let span = (recording.sample_when(When::Start)?, recording.sample_when(When::End)?);
        output::unless_closed(lsbuf::render::life_json(&mut out, &lives, span, layout))?;
    } else {
        for (nth, &row) in shown.iter().enumerate() {
            if nth > 0 {
                writeln!(out)?;
            }
            show_life(&mut out, recording, numbers[row])?;
        }
    }
    output::unless_closed(out.flush())?;
    if !missing.is_empty() {
        bail!("no buffer {} among the {} recorded", missing.join(", "), buffers.len());
    }
    Ok(())
}

/// Shows a buffer as it was when it was last seen, and then its life.
fn show_life(out: &mut impl Write, recording: &Recording, number: BufferNumber) -> Result<()> {
    let life = recording.life(number)?;
    let newest = recording.sample_when(When::End)?;
    let snapshot = recording.snapshot(life.last_seen().unwrap_or(newest).id)?;
    let ledger = Ledger::of(&snapshot);
    let view = View::all(&ledger);
    let index = snapshot.buffers.iter().position(|buffer| buffer.id == life.buffer.id);
    let index = index.context("the recording is damaged: a buffer is not in its last sample")?;
    output::unless_closed(lsbuf::render::show(&mut *out, &view, index))?;
    output::unless_closed(lsbuf::render::life(&mut *out, &life, newest))?;
    Ok(())
}
