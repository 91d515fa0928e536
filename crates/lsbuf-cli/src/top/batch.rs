//! `lsbuf top --batch`: the list again and again, as plain tables or as JSON.

use std::io::{self, Write};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use lsbuf::history::{When, shown};
use lsbuf::model::{Details, Ledger, Snapshot, Sum, SumKey};
use lsbuf::render::{BUFFER_COLUMNS, DEFAULT_SUM_COLUMNS, JsonLayout, PROCESS_COLUMNS, SUM_COLUMNS, View};
use lsbuf::scan::{Options, Scanner};

use super::TopArgs;
use super::page::List;
use crate::args::Columns;
use crate::output::{self, Ending};
use crate::past::Source;
use crate::{commands, past, select};

pub(crate) fn run(args: &TopArgs) -> Result<Ending> {
    let mut printing = Printing { args, printed: 0, complete: true };
    let ended = match &args.past.from {
        None => live(args, &mut printing),
        Some(from) => match Source::open(from)? {
            Source::Document(_) if args.past.at.is_some() => return Err(past::single(from)),
            Source::Document(mut snapshot) => {
                snapshot.keep_kinds(options(args).kinds);
                printing.print(&snapshot).map(|_| ())
            }
            Source::Recording(recording) => {
                let first = recording.sample_when(args.past.at.unwrap_or(When::Start))?;
                for sample in recording.samples()?.iter().filter(|sample| sample.id >= first.id) {
                    let mut snapshot = recording.snapshot(sample.id)?;
                    snapshot.keep_kinds(options(args).kinds);
                    snapshot.keep_details(options(args).details);
                    if !printing.print(&snapshot)? {
                        break;
                    }
                }
                Ok(())
            }
        },
    };
    ended?;
    Ok(if args.scan.reading.strict && !printing.complete {
        Ending::StrictlyPartial
    } else {
        Ending::Answered
    })
}

/// What each answer is asked for.
fn options(args: &TopArgs) -> Options {
    let mut options = args.options();
    if args.list == List::Groups && !args.json {
        options.details = args.by.details();
        if args.by == SumKey::Payer {
            // As lsbuf sum --by payer: what nobody holds is paid for, too.
            (options.payers, options.unheld, options.without_self) = (true, true, false);
        }
    } else {
        options.details = Details::NONE;
    }
    options
}

fn live(args: &TopArgs, printing: &mut Printing<'_>) -> Result<()> {
    let mut scanner = Scanner::new(options(args))?;
    let mut next = Instant::now();
    while printing.print(&scanner.scan().context("the scan failed")?)? {
        while next <= Instant::now() {
            next += args.every;
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

/// What is being printed.
struct Printing<'a> {
    args: &'a TopArgs,
    printed: u64,
    complete: bool,
}

impl Printing<'_> {
    /// Prints an answer. Returns whether another one is wanted.
    fn print(&mut self, snapshot: &Snapshot) -> Result<bool> {
        self.complete &= snapshot.coverage.is_complete();
        match self.write(snapshot) {
            Ok(()) => {}
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        output::say_notes(&snapshot.coverage);
        self.printed += 1;
        Ok(self.args.count.is_none_or(|count| self.printed < count))
    }

    fn write(&self, snapshot: &Snapshot) -> io::Result<()> {
        let mut out = output::buffered()?;
        let ledger = Ledger::of(snapshot);
        let mut view = View::all(&ledger);
        let filter = &self.args.filter;
        select::filter(&mut view, filter);
        if let Some(cost) = BUFFER_COLUMNS.iter().find(|column| column.name == "COST") {
            let mut rows = view.buffers.clone();
            select::sort(&mut rows, &view, cost);
            view.buffers = rows;
        }
        if self.args.json {
            lsbuf::render::json(&mut out, &view, JsonLayout::Compact)?;
            return out.flush();
        }
        let by = self.args.list.columns().iter().find(|column| column.name == self.args.list.cost());
        let sum = Sum::of(&ledger, &view.buffers, self.args.by);
        let (mut rows, all, default) = match self.args.list {
            List::Buffers => {
                let default = commands::default_columns(&view, filter.unheld, false);
                (view.buffers.clone(), BUFFER_COLUMNS, default)
            }
            List::Processes => {
                let rows = select::asked(&view, filter);
                let default = commands::default_process_columns(&view, &rows, false);
                (rows, PROCESS_COLUMNS, default)
            }
            List::Groups => {
                view.sum = Some(&sum);
                ((0..sum.groups.len()).collect(), SUM_COLUMNS, DEFAULT_SUM_COLUMNS.to_vec())
            }
        };
        if let Some(by) = by.filter(|_| self.args.list != List::Buffers) {
            select::sort_others(&mut rows, &view, by);
        }
        let columns = Columns::or_default(&None, all, &default);
        let sizes = output::sizes(false, false);
        if self.printed > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", shown(snapshot.taken_at))?;
        for line in lsbuf::render::table(&view, &rows, &columns, sizes, output::width()) {
            writeln!(out, "{line}")?;
        }
        if let Some(sum) = view.sum {
            writeln!(out, "{}", lsbuf::render::sum_summary(sum, sizes))?;
        }
        writeln!(out, "{}", lsbuf::render::summary(&view, sizes))?;
        out.flush()
    }
}
