//! One function for each subcommand: read the machine, choose rows, print.

use std::collections::HashSet;
use std::io::{self, Write};

use anyhow::{Context, Result, bail};
use clap::ColorChoice;
use lsbuf::check;
use lsbuf::escape::escape;
use lsbuf::model::{Details, Kind, Ledger, Pid, Snapshot, Source, Sum, SumKey};
use lsbuf::reconcile::Uncertainty;
use lsbuf::render::{
    BUFFER_COLUMNS, Cell, Column, DEFAULT_BUFFER_COLUMNS, DEFAULT_DMABUF_COLUMNS, DEFAULT_PROCESS_COLUMNS,
    DEFAULT_SUM_COLUMNS, DEFAULT_UNHELD_COLUMNS, PROCESS_COLUMNS, RARE_REFERENCE_COLUMNS, SUM_COLUMNS, View,
};
use lsbuf::scan::{Options, Scanner, SourceCheck, SourceState};

use crate::args::{
    CHECK_HELPER, Columns, DoctorArgs, Format, ListingArgs, LsArgs, PsArgs, ReconcileArgs, ShowArgs, SumArgs,
};
use crate::output::{self, Ending};
use crate::{named, past, select};

/// `lsbuf ls`.
pub(crate) fn ls(args: &LsArgs) -> Result<Ending> {
    let wanted = args.details.wanted(asked(&args.output, &args.sort));
    let mut options = Options { unheld: args.listing.filter.unheld, ..args.listing.options(wanted) };
    options.payers |= asked(&args.output, &args.sort).any(|column| column.name == "PAYER");
    let snapshot = answer(options, &args.listing)?;
    let ledger = Ledger::of(&snapshot);
    let mut view = View::all(&ledger);
    select::filter(&mut view, &args.listing.filter);
    let mut rows = view.buffers.clone();
    select::sort(&mut rows, &view, &args.sort);
    view.buffers.clone_from(&rows);
    let columns = Columns::or_default(
        &args.output,
        BUFFER_COLUMNS,
        &default_columns(&view, args.listing.filter.unheld, args.listing.format.is_for_programs()),
    );
    let style = |row: usize| output::row_style(view.shape(row));
    list(&view, &rows, &columns, &args.listing, style)
}

/// The columns that the user named, in order to see them or to sort by one.
fn asked<'c>(output: &'c Option<Columns>, sort: &'c Column) -> impl Iterator<Item = &'c Column> {
    Columns::named(output).iter().chain([sort])
}

/// The columns of a list of buffers if the user chose none. For programs they depend only on the
/// arguments. For people they leave out what is empty in these rows, and add what tells the rows
/// apart.
pub(crate) fn default_columns(view: &View<'_>, unheld: bool, for_programs: bool) -> Vec<&'static str> {
    let with_shmem = view.snapshot().kinds.has_shmem();
    let mut columns = if unheld {
        DEFAULT_UNHELD_COLUMNS.to_vec()
    } else if with_shmem {
        DEFAULT_BUFFER_COLUMNS.to_vec()
    } else {
        DEFAULT_DMABUF_COLUMNS.to_vec()
    };
    if for_programs {
        return columns;
    }
    // Files that nobody holds have no references, and are neither dma-bufs nor segments.
    let found = || view.buffers.iter().filter(|&&row| view.row(row).is_some());
    let has_any = |name: &str| {
        let column = BUFFER_COLUMNS.iter().find(|column| column.name == name);
        let some = |&row: &usize| matches!(column.map(|c| c.cell(view, row)), Some(Cell::Number(Some(1..))));
        found().any(some)
    };
    columns.extend(RARE_REFERENCE_COLUMNS.iter().filter(|name| has_any(name)));
    let can_remove = |&row: &usize| {
        let buffer = view.buffer(row);
        buffer.segment.as_ref().is_some_and(|segment| segment.remove_command(buffer.id.ino).is_some())
    };
    // Beside files it would leave no room for their paths.
    let has_files = view.buffers.len() > found().count();
    if unheld && !has_files && found().any(can_remove) {
        columns.push("REMOVE");
    }
    if with_shmem {
        let ids = || found().map(|&row| view.buffer(row).id);
        if ids().all(|id| id.kind != Kind::DmaBuf) {
            columns.retain(|&name| name != "EXPORTER");
        }
        let mut segments = ids().filter(|id| id.kind == Kind::Sysv);
        // The same id can be another segment's in another namespace.
        if segments.next().is_some_and(|first| segments.any(|other| other.ipc != first.ipc)) {
            columns.push("IPC");
        }
    }
    if !unheld {
        // What was added stands where it stands in the list of all columns.
        columns.sort_by_key(|name| BUFFER_COLUMNS.iter().position(|column| column.name == *name));
    }
    columns
}

/// `lsbuf ps`.
pub(crate) fn ps(args: &PsArgs) -> Result<Ending> {
    let wanted = args.details.wanted(asked(&args.output, &args.sort));
    let snapshot = answer(args.listing.options(wanted), &args.listing)?;
    let ledger = Ledger::of(&snapshot);
    let mut view = View::all(&ledger);
    select::filter(&mut view, &args.listing.filter);
    let mut rows = select::asked(&view, &args.listing.filter);
    select::sort_others(&mut rows, &view, &args.sort);
    view.processes.clone_from(&rows);
    let default = default_process_columns(&view, &rows, args.listing.format.is_for_programs());
    let columns = Columns::or_default(&args.output, PROCESS_COLUMNS, &default);
    list(&view, &rows, &columns, &args.listing, |_| anstyle::Style::new())
}

/// The columns of a list of processes if the user chose none.
pub(crate) fn default_process_columns(
    view: &View<'_>,
    rows: &[usize],
    for_programs: bool,
) -> Vec<&'static str> {
    let mut default = DEFAULT_PROCESS_COLUMNS.to_vec();
    // Without it, a row of a process that has only sync_files would say nothing.
    let has_sync_files = |&row: &usize| view.snapshot().processes[row].sync_files > Some(0);
    if !for_programs && rows.iter().any(has_sync_files) {
        default.push("SYNCS");
    }
    default
}

/// `lsbuf sum`.
pub(crate) fn sum(args: &SumArgs) -> Result<Ending> {
    let mut options = args.listing.options(args.by.details());
    if args.by == SumKey::Payer {
        // What nobody holds is paid for, too, and so is what only lsbuf has open.
        (options.payers, options.unheld, options.without_self) = (true, true, false);
    }
    let snapshot = answer(options, &args.listing)?;
    let ledger = Ledger::of(&snapshot);
    let mut view = View::all(&ledger);
    select::filter(&mut view, &args.listing.filter);
    let sum = Sum::of(&ledger, &view.buffers, args.by);
    view.sum = Some(&sum);
    let mut rows: Vec<usize> = (0..sum.groups.len()).collect();
    select::sort_others(&mut rows, &view, &args.sort);
    let columns = Columns::or_default(&args.output, SUM_COLUMNS, DEFAULT_SUM_COLUMNS);
    list(&view, &rows, &columns, &args.listing, |_| anstyle::Style::new())
}

/// `lsbuf show`.
pub(crate) fn show(args: &ShowArgs) -> Result<Ending> {
    let Some(from) = &args.past.from else { return show_now(args) };
    let source = past::Source::open(from)?;
    if args.past.at.is_none() {
        match &source {
            past::Source::Recording(recording) => {
                let json = args.json.then(|| output::json_layout(args.compact));
                past::show_lives(recording, &args.buffers, json)?;
                return Ok(Ending::Answered);
            }
            past::Source::Document(_) if !args.json => {
                bail!("{} is a single answer, not a recording", from.display());
            }
            past::Source::Document(_) => {}
        }
    }
    let options = Options { details: Details::ALL, ..args.options() };
    let snapshot = past::answer(source, from, args.past.at, &options, &[])?;
    let (missing, shown) = named::find_all(&snapshot.buffers, &args.buffers);
    show_found(args, &snapshot, shown, &missing)
}

fn show_now(args: &ShowArgs) -> Result<Ending> {
    let (mut scanner, mut snapshot) = scan(args.options(), &[])?;
    let (mut missing, mut shown) = named::find_all(&snapshot.buffers, &args.buffers);
    look_closer(args, &mut snapshot, &mut missing, &mut shown)?;
    let found: Vec<usize> = shown.iter().copied().filter(|&index| index < snapshot.buffers.len()).collect();
    for &index in &found {
        scanner.ask_seals(&mut snapshot.buffers[index]);
        scanner.ask_private_copies(&mut snapshot.buffers[index]);
        scanner.ask_payers(&mut snapshot.buffers[index]);
    }
    scanner.add_details(&mut snapshot, &found, Details::ALL);
    show_found(args, &snapshot, shown, &missing)
}

fn show_found(
    args: &ShowArgs,
    snapshot: &Snapshot,
    mut shown: Vec<usize>,
    missing: &[&str],
) -> Result<Ending> {
    let mut once = HashSet::new();
    shown.retain(|&index| once.insert(index));
    let ledger = Ledger::of(snapshot);
    let mut view = View::all(&ledger);
    view.buffers = shown;
    select::only_holders(&mut view);
    output::unless_closed(show_all(&view, args))?;
    let ending = output::conclude(snapshot, args.scan.reading.strict);
    if !missing.is_empty() {
        bail!("no buffer {} among the {} found", missing.join(", "), snapshot.buffers.len());
    }
    Ok(ending)
}

/// Scans once more for what costs too much to be asked each time: who pays for shared memory, if
/// the source can tell, and whether a buffer that was not found is a file that nobody holds.
fn look_closer<'w>(
    args: &'w ShowArgs,
    snapshot: &mut Snapshot,
    missing: &mut Vec<&'w str>,
    shown: &mut Vec<usize>,
) -> Result<()> {
    let can_tell = snapshot.coverage.sources.contains(&Source::ShmemInodesIterator);
    let has_payers = |&row: &usize| snapshot.buffers[row].id.kind != Kind::DmaBuf;
    let payers = can_tell && shown.iter().any(has_payers);
    let unheld = !missing.is_empty() && snapshot.kinds.has_shmem();
    if !payers && !unheld {
        return Ok(());
    }
    let mut other = scan(Options { payers: can_tell, unheld, ..args.options() }, &[])?.1;
    for &row in &*shown {
        let buffer = &mut snapshot.buffers[row];
        let same = other.buffers.binary_search_by(|other| other.id.cmp(&buffer.id));
        buffer.payers = same.ok().and_then(|same| other.buffers[same].payers.take());
    }
    let Some(files) = other.unheld else { return Ok(()) };
    for (nth, file) in files.iter().enumerate() {
        if missing.is_empty() {
            break;
        }
        let buffer = [file.to_buffer()];
        let before = missing.len();
        missing.retain(|wanted| named::named(&buffer, wanted).is_empty());
        if missing.len() < before {
            shown.push(snapshot.buffers.len() + nth);
        }
    }
    snapshot.unheld = Some(files);
    Ok(())
}

fn show_all(view: &View<'_>, args: &ShowArgs) -> io::Result<()> {
    let mut out = output::buffered()?;
    if args.json {
        lsbuf::render::json(&mut out, view, output::json_layout(args.compact))?;
        return out.flush();
    }
    for (nth, &index) in view.buffers.iter().enumerate() {
        if nth > 0 {
            writeln!(out)?;
        }
        lsbuf::render::show(&mut out, view, index)?;
    }
    out.flush()
}

/// `lsbuf doctor`.
pub(crate) fn doctor(args: &DoctorArgs) -> Result<Ending> {
    let inherited = inherited();
    let diagnosis = Scanner::new(args.scan.options())?.diagnose()?;
    let mut out = output::buffered()?;
    let styled = output::styles(ColorChoice::Auto);
    for check in &diagnosis.checks {
        let SourceCheck { what, gives, state, seen, .. } = check;
        let style = styled(match state {
            SourceState::Works => anstyle::AnsiColor::Green.on_default(),
            SourceState::Partly => anstyle::AnsiColor::Yellow.on_default(),
            SourceState::Missing => anstyle::AnsiColor::Red.on_default(),
        });
        writeln!(out, "{style}{:<8}{style:#}{what:<18}{}", state.as_str(), escape(seen.as_bytes()))?;
        writeln!(out, "        {:<18}gives {gives}", "")?;
        if let Some(advice) = &check.advice {
            writeln!(out, "        {:<18}to do: {}", "", escape(advice.as_bytes()))?;
        }
        if let Some(optional) = &check.optional {
            writeln!(out, "        {:<18}optional: {optional}", "")?;
        }
    }
    if let Some(fds) = inherited.filter(|&fds| fds > 0) {
        let plural = if fds == 1 { "" } else { "s" };
        writeln!(
            out,
            "left out {:<17} {fds} fd{plural} inherited beside stdin, stdout and stderr",
            "lsbuf itself"
        )?;
    }
    write!(out, "{}", lsbuf::render::verdict(&diagnosis))?;
    out.flush()?;
    Ok(output::ending(&diagnosis.coverage, args.scan.reading.strict))
}

/// How many fds lsbuf was started with, beside stdin, stdout and stderr. To be asked before it
/// opens any itself. `None`: that cannot be read.
fn inherited() -> Option<usize> {
    let fds = std::fs::read_dir("/proc/self/fd").ok()?;
    let number = |name: std::ffi::OsString| name.to_str()?.parse::<u32>().ok();
    let above = fds.flatten().filter_map(|entry| number(entry.file_name())).filter(|&fd| fd > 2).count();
    // One of them is the fd of this folder.
    above.checked_sub(1)
}

/// `lsbuf reconcile`.
pub(crate) fn reconcile(args: &ReconcileArgs) -> Result<Ending> {
    let found = lsbuf::reconcile::reconcile(args.reading.options())?;
    let mut out = output::buffered()?;
    let sizes = output::sizes(args.human, args.bytes);
    let written = if args.json {
        lsbuf::render::reconciliation_json(&mut out, &found, output::json_layout(args.compact))
    } else {
        lsbuf::render::reconciliation(&mut out, &found, sizes)
    };
    output::unless_closed(written.and_then(|()| out.flush()))?;
    let missing: Vec<String> = found
        .uncertainties()
        .iter()
        .filter(|one| one.is_partial() && **one != Uncertainty::Partial)
        .map(ToString::to_string)
        .collect();
    if found.coverage.is_complete() && !missing.is_empty() {
        output::say(&format!("partial: {}", missing.join("; ")));
    } else {
        output::say_notes(&found.coverage);
    }
    let partial = args.reading.strict && !found.is_complete();
    Ok(if partial { Ending::StrictlyPartial } else { Ending::Answered })
}

/// `lsbuf check`.
pub(crate) fn check() -> Result<Ending> {
    let helper = check::Helper { program: "/proc/self/exe".into(), arguments: vec![CHECK_HELPER.into()] };
    let report = check::run(check::Options { helper: Some(helper) });
    let mut out = output::buffered()?;
    output::unless_closed(lsbuf::render::tap(&mut out, &report).and_then(|()| out.flush()))?;
    Ok(if report.holds() { Ending::Answered } else { Ending::Failed })
}

/// The second process of `lsbuf check`.
pub(crate) fn check_helper() -> Result<Ending> {
    check::assist()?;
    Ok(Ending::Answered)
}

/// The answer of this machine, or of the past if that is asked.
fn answer(options: Options, listing: &ListingArgs) -> Result<Snapshot> {
    let pids = &listing.filter.pids;
    match &listing.past.from {
        Some(from) => past::read(from, listing.past.at, &options, pids),
        None => scan(options, pids).map(|(_, snapshot)| snapshot),
    }
}

pub(crate) fn scan(options: Options, pids: &[Pid]) -> Result<(Scanner, Snapshot)> {
    let mut scanner = Scanner::new(options).map_err(anyhow::Error::from)?;
    for &pid in pids {
        if !scanner.has_process(pid)? {
            bail!("no process {pid}");
        }
    }
    let snapshot = scanner.scan().context("the scan failed")?;
    let unreadable: Vec<String> =
        pids.iter().filter(|pid| snapshot.coverage.unreadable.contains(pid)).map(Pid::to_string).collect();
    if !unreadable.is_empty() {
        let what = if unreadable.len() == 1 { "process" } else { "processes" };
        output::say(&format!(
            "{what} {} cannot be read here, and may hold more than is shown (see lsbuf doctor)",
            unreadable.join(", ")
        ));
    }
    Ok((scanner, snapshot))
}

fn list(
    view: &View<'_>,
    rows: &[usize],
    columns: &[Column],
    listing: &ListingArgs,
    style: impl Fn(usize) -> anstyle::Style,
) -> Result<Ending> {
    let ListingArgs { format, scan, .. } = listing;
    if rows.is_empty() && !format.is_for_programs() {
        output::say(&lsbuf::render::nothing(view));
        return Ok(output::ending(&view.snapshot().coverage, scan.reading.strict));
    }
    output::unless_closed(write_list(view, rows, columns, format, style))?;
    Ok(output::conclude(view.snapshot(), scan.reading.strict))
}

pub(crate) fn write_list(
    view: &View<'_>,
    rows: &[usize],
    columns: &[Column],
    format: &Format,
    style: impl Fn(usize) -> anstyle::Style,
) -> io::Result<()> {
    let (sizes, heading) = (output::sizes(format.human, format.bytes), !format.noheadings);
    let mut out = output::buffered()?;
    if format.is_for_programs() {
        if format.json {
            let layout = output::json_layout(format.compact);
            match view.sum {
                Some(sum) => lsbuf::render::sum_json(&mut out, view, sum, rows, layout)?,
                None => lsbuf::render::json(&mut out, view, layout)?,
            }
        } else if format.csv {
            lsbuf::render::csv(&mut out, view, rows, columns, sizes, heading)?;
        } else {
            lsbuf::render::raw(&mut out, view, rows, columns, sizes, heading)?;
        }
        return out.flush();
    }
    let lines = lsbuf::render::table(view, rows, columns, sizes, output::width());
    let styles = std::iter::once(output::HEADING).chain(rows.iter().map(|&row| style(row)));
    let styled = output::styles(format.color);
    for (line, style) in lines.zip(styles.map(styled)).skip(usize::from(!heading)) {
        writeln!(out, "{style}{line}{style:#}")?;
    }
    if heading {
        writeln!(out)?;
        if let Some(differences) = view.differences {
            writeln!(out, "{}", lsbuf::render::diff_summary(differences.diff, sizes))?;
            return out.flush();
        }
        if view.suspects.is_some() {
            return out.flush();
        }
        if let Some(sum) = view.sum {
            writeln!(out, "{}", lsbuf::render::sum_summary(sum, sizes))?;
        }
        writeln!(out, "{}", lsbuf::render::summary(view, sizes))?;
    }
    out.flush()
}
