//! `lsbuf diff`: what changed between two times of a recording, two answers that were stored, or
//! one of these and now; and what a command leaves behind.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use lsbuf::history::{Recording, When, duration};
use lsbuf::model::{Buffer, Change, Details, Diff, Ledger, Snapshot, SumKey};
use lsbuf::render::{
    Column, DEFAULT_DIFF_COLUMNS, DIFF_COLUMNS, DIFF_GROUP_COLUMNS, DIFF_PROCESS_COLUMNS, Differences, View,
};
use lsbuf::scan::{Options, Scanner};

use crate::args::{FilterArgs, Format, ScanArgs, sum_key};
use crate::output::{self, Ending};
use crate::past::Source;
use crate::{commands, select};

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The earlier answer: a TIME of the recording (with --from), a file that lsbuf -J wrote, or -
    /// for standard input
    #[arg(value_name = "A", required_unless_present = "watch", allow_hyphen_values = true)]
    before: Option<String>,
    /// The later answer: as A, or now
    #[arg(value_name = "B", requires = "before", allow_hyphen_values = true)]
    after: Option<String>,
    /// The recording that A and B are times of
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Run COMMAND and show what was born meanwhile and is still there TIME after it has ended
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with_all = ["before", "after", "from"], requires = "command")]
    watch: Option<Duration>,
    /// Exit with status 4 if the command has succeeded and left something behind
    #[arg(long, requires = "watch")]
    fail_on_leftover: bool,
    /// The command, behind --
    #[arg(last = true, value_name = "COMMAND", requires = "watch")]
    command: Vec<String>,
    /// Sum up: by process, or by a KEY of lsbuf sum
    #[arg(long, value_name = "KEY", value_parser = key)]
    by: Option<Key>,
    /// Columns to show; +COL,… adds to the default ones
    #[arg(short, long, value_name = "COL,…", conflicts_with_all = ["json", "compact"])]
    output: Option<String>,
    /// Column to sort by: numbers largest first, text from A to Z
    #[arg(long, value_name = "COL")]
    sort: Option<String>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    scan: ScanArgs,
}

/// By what changes are summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Process,
    Sum(SumKey),
}

fn key(text: &str) -> Result<Key, String> {
    if text == "process" {
        return Ok(Key::Process);
    }
    sum_key(text).map(Key::Sum).map_err(|error| error.replace("valid: ", "valid: process, "))
}

impl DiffArgs {
    /// What a scan of now is asked for.
    fn options(&self) -> Options {
        let details = match self.by {
            Some(Key::Sum(key)) => key.details(),
            _ => Details::NONE,
        };
        let payers = self.by == Some(Key::Sum(SumKey::Payer));
        let options = self.scan.options();
        Options { details, payers: options.payers || payers, ..options }
    }
}

pub(crate) fn run(args: &DiffArgs) -> Result<Ending> {
    if let Some(wait) = args.watch {
        return watch(args, wait);
    }
    let before = args.before.as_deref().unwrap_or_default();
    let (before, after) = (answer(args, before)?, answer(args, args.after.as_deref().unwrap_or("now"))?);
    show(args, &before, &after)?;
    let strict = args.scan.reading.strict;
    for snapshot in [&before, &after] {
        if output::conclude(snapshot, strict) != Ending::Answered {
            return Ok(Ending::StrictlyPartial);
        }
    }
    Ok(Ending::Answered)
}

/// The answer that an argument names.
fn answer(args: &DiffArgs, text: &str) -> Result<Snapshot> {
    let options = args.options();
    let mut snapshot = match (&args.from, text) {
        (_, "now") => commands::scan(options.clone(), &[])?.1,
        (Some(from), text) if !Path::new(text).is_file() && text != "-" => {
            let when: When = text.parse().map_err(|error| anyhow::anyhow!("'{text}': {error}"))?;
            let recording = Recording::open(from)?;
            recording.snapshot(recording.sample_when(when)?.id)?
        }
        (_, path) => match Source::open(Path::new(path))? {
            Source::Document(snapshot) => *snapshot,
            Source::Recording(_) => {
                bail!("{path} is a recording; valid: lsbuf diff --from {path} TIME TIME")
            }
        },
    };
    snapshot.keep_kinds(options.kinds);
    Ok(snapshot)
}

/// Shows the difference.
fn show(args: &DiffArgs, before: &Snapshot, after: &Snapshot) -> Result<()> {
    let (before, after) = (Ledger::of(before), Ledger::of(after));
    let passes = |buffer: &Buffer| select::passes(&args.filter, buffer);
    let diff = Diff::of(&before, &after, passes);
    let mut differences = Differences { diff: &diff, processes: Vec::new(), groups: Vec::new() };
    let (columns, default, sort, number): (&[Column], Vec<&str>, &str, usize) = match args.by {
        None => (DIFF_COLUMNS, DEFAULT_DIFF_COLUMNS.to_vec(), "", diff.buffers.len()),
        Some(Key::Process) => {
            differences.processes = diff.processes();
            let pids = &args.filter.pids;
            differences.processes.retain(|changed| pids.is_empty() || pids.contains(&changed.process.pid));
            let names = DIFF_PROCESS_COLUMNS.iter().map(|column| column.name);
            (DIFF_PROCESS_COLUMNS, names.collect(), "+RSS", differences.processes.len())
        }
        Some(Key::Sum(by)) => {
            differences.groups = diff.groups(by, passes);
            let names = DIFF_GROUP_COLUMNS.iter().map(|column| column.name);
            (DIFF_GROUP_COLUMNS, names.collect(), "+COST", differences.groups.len())
        }
    };
    let chosen = args.output.as_deref().map(|list| crate::args::choose(list, columns)).transpose();
    let chosen = chosen.map_err(anyhow::Error::msg)?;
    let chosen = crate::args::Columns::or_default(&chosen, columns, &default);
    let mut view = View::all(&after);
    view.differences = Some(&differences);
    let mut rows: Vec<usize> = (0..number).collect();
    let sort = args.sort.as_deref().unwrap_or(sort);
    if !sort.is_empty() {
        let by = crate::args::find(sort, columns).map_err(anyhow::Error::msg)?;
        select::sort_others(&mut rows, &view, &by);
    }
    let by = match args.by {
        Some(Key::Sum(by)) => Some(by),
        _ => None,
    };
    if args.format.json {
        let mut out = output::buffered()?;
        let layout = output::json_layout(args.format.compact);
        let processes = args.by == Some(Key::Process);
        let written = lsbuf::render::diff_json(&mut out, &differences, processes, by, layout);
        return Ok(output::unless_closed(written.and_then(|()| std::io::Write::flush(&mut out)))?);
    }
    Ok(output::unless_closed(commands::write_list(&view, &rows, &chosen, &args.format, |_| {
        anstyle::Style::new()
    }))?)
}

/// Runs a command, and shows what was born meanwhile and is left. Waits for it to go.
fn watch(args: &DiffArgs, wait: Duration) -> Result<Ending> {
    let mut scanner = Scanner::new(args.options())?;
    let before = scanner.scan().context("the scan failed")?;
    let [program, arguments @ ..] = &args.command[..] else { bail!("a command is missing behind --") };
    let status =
        Command::new(program).args(arguments).status().with_context(|| format!("{program} cannot be run"))?;
    let deadline = Instant::now() + wait;
    let (after, left) = loop {
        let after = scanner.scan().context("the scan failed")?;
        let left = born(&before, &after);
        let now = Instant::now();
        if !has_any(args, &after, &left) || now >= deadline {
            break (after, left);
        }
        std::thread::sleep(Duration::from_millis(200).min(deadline.saturating_duration_since(now)));
    };
    let leftover = has_any(args, &after, &left);
    // What others have let go meanwhile is not what the command leaves behind.
    let mut nothing = before;
    nothing.buffers.clear();
    let mut rest = after;
    let mut index = 0..;
    rest.buffers.retain(|_| index.next().is_some_and(|index| left.contains(&index)));
    show(args, &nothing, &rest)?;
    output::say_notes(&rest.coverage);
    if leftover && args.fail_on_leftover && status.success() {
        return Ok(Ending::Status(4));
    }
    Ok(Ending::Status(code(status)))
}

/// The buffers of the later snapshot, by their indices, that the earlier one does not have.
fn born(before: &Snapshot, after: &Snapshot) -> BTreeSet<usize> {
    let (before, after) = (Ledger::of(before), Ledger::of(after));
    let diff = Diff::of(&before, &after, |_| true);
    let born = diff.buffers.iter().filter(|changed| changed.change == Change::Born);
    born.filter_map(|changed| changed.after).collect()
}

/// Whether one of these buffers passes the filters.
fn has_any(args: &DiffArgs, snapshot: &Snapshot, buffers: &BTreeSet<usize>) -> bool {
    buffers.iter().any(|&index| select::passes(&args.filter, &snapshot.buffers[index]))
}

/// The exit status that a shell gives for a command that ended so.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}
