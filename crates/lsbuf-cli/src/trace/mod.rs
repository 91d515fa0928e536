//! `lsbuf trace`: events as they happen, of the whole machine or of a command.
//!
//! Events are printed as they come, and what was lost where it was lost. At the end it says what
//! was lost in all, and of a command what it has made, freed and left.

mod chosen;
mod command;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use clap::{ArgGroup, Args};
use lsbuf::history::duration;
use lsbuf::model::{Bytes, Happening, Unwind, counted};
use lsbuf::render::{self, Sizes, TraceCounts};
use lsbuf::trace::{Balance, Item, Losses, Settings, Stacks, Trace};

use self::chosen::ChosenEvents;
use self::command::Traced;
use crate::args::size;
use crate::output::{self, Ending};
use crate::stdout;
use crate::ticks::signals;

/// How long to wait for events before looking whether the end has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The room for events of which each has a copy of a stack: about 900.
const WITH_COPIES: Bytes = Bytes(32 << 20);

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("with_stacks").args(["stacks", "pprof", "command"]).multiple(true)))]
pub(crate) struct TraceArgs {
    /// Trace this command and what it starts, and say at its end what was made, freed and left
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
    /// Print the calls that led to each event
    #[arg(long)]
    stacks: bool,
    /// How to find the calls of programs: fp, by frame pointers; dwarf, by the tables in their
    /// files, from a copy of the stack, which takes more room and time. For --stacks, --pprof or
    /// COMMAND
    #[arg(long, value_name = "HOW", default_value = "fp", value_parser = unwind, requires_if("dwarf", "with_stacks"))]
    unwind: Unwind,
    /// Count events in place of printing them
    #[arg(long)]
    summary: bool,
    /// Stop after that time; without it a signal or the end of COMMAND stops it
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    length: Option<Duration>,
    /// Write to FILE in place of standard output
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// At the end write what was made, freed and left as a profile for pprof
    #[arg(long, value_name = "FILE")]
    pprof: Option<PathBuf>,
    /// Room for events until they are read; more loses fewer of a storm [default: 8M, and 32M with
    /// --unwind dwarf]
    #[arg(long, value_name = "SIZE", value_parser = room)]
    room: Option<Bytes>,
    /// Exit with status 3 if anything was lost
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: TraceFormat,
    #[command(flatten)]
    chosen: ChosenEvents,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Format")]
struct TraceFormat {
    /// One JSON object on each line, schema lsbuf.trace/1
    #[arg(short = 'J', long, conflicts_with_all = ["noheadings", "human"])]
    json: bool,
    /// No headings
    #[arg(short, long)]
    noheadings: bool,
    /// Sizes in bytes (the default unless on a terminal)
    #[arg(short, long, conflicts_with = "human")]
    bytes: bool,
    /// Sizes like 8.0M (the default on a terminal)
    #[arg(long)]
    human: bool,
}

fn unwind(text: &str) -> Result<Unwind, String> {
    Unwind::of_word(text).ok_or_else(|| "valid: fp, dwarf".to_owned())
}

fn room(text: &str) -> Result<Bytes, String> {
    let room = size(text)?;
    let valid = Bytes(64 << 10)..=Bytes(1 << 30);
    if valid.contains(&room) { Ok(room) } else { Err("valid: 64K to 1G".to_owned()) }
}

impl TraceArgs {
    /// Whether it says at its end what was made, freed and left. That needs the stacks of births.
    fn has_balance(&self) -> bool {
        !self.command.is_empty() || self.pprof.is_some()
    }
}

pub(crate) fn run(args: &TraceArgs) -> Result<Ending> {
    let stop = signals()?;
    let mut out = Out::open(args)?;
    let stacks = match (args.stacks, args.has_balance()) {
        (true, _) => Stacks::OfAll,
        (false, true) => Stacks::OfBirths,
        (false, false) => Stacks::None,
    };
    let mut settings = Settings::default();
    settings.stacks = stacks;
    settings.only_command = !args.command.is_empty();
    settings.unwind = args.unwind;
    settings.room = args.room.unwrap_or(match args.unwind {
        Unwind::Dwarf => WITH_COPIES,
        _ => settings.room,
    });
    let mut trace = Trace::start(settings)?;
    let left_out: Vec<(&str, String)> = trace.left_out().collect();
    for (what, why) in &left_out {
        output::say(&format!("note: {what} cannot be seen: {why}"));
    }
    out.begin(&left_out)?;
    let mut traced = if args.command.is_empty() { None } else { Some(Traced::start(&trace, &args.command)?) };
    let mut seen = Seen::default();
    let begun = Instant::now();
    while !is_over(&stop, args.length.map(|length| begun + length), traced.as_mut())? {
        let items = trace.next(LOOK_EVERY)?;
        out.take(&mut trace, items, &mut seen)?;
    }
    let items = trace.finish()?;
    out.take(&mut trace, items, &mut seen)?;
    let lost = trace.losses();
    drop(trace);
    out.end(seen, &lost)?;
    let losses: Vec<String> = lost.all().map(|(cause, lost)| format!("{lost} {}", cause.says())).collect();
    if !losses.is_empty() {
        output::say(&format!("lost: {}", losses.join("; ")));
    }
    if args.strict && !losses.is_empty() {
        return Ok(Ending::StrictlyPartial);
    }
    traced.map_or(Ok(Ending::Answered), |traced| traced.ending())
}

/// Whether the trace is at its end.
fn is_over(stop: &Receiver<i32>, end: Option<Instant>, traced: Option<&mut Traced>) -> Result<bool> {
    let signal = stop.try_recv().ok();
    let late = end.is_some_and(|end| Instant::now() >= end);
    match traced {
        None => Ok(signal.is_some() || late),
        Some(traced) => Ok(traced.is_over(signal)? || late),
    }
}

/// What was seen so far.
#[derive(Default)]
struct Seen {
    events: u64,
    counts: TraceCounts,
    balance: Balance,
}

/// Where events go, and in which form.
struct Out<'a> {
    args: &'a TraceArgs,
    to: Box<dyn Write>,
    sizes: Sizes,
}

impl Out<'_> {
    fn open(args: &TraceArgs) -> Result<Out<'_>> {
        let to: Box<dyn Write> = match &args.to {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
                Box::new(BufWriter::new(file))
            }
            None => {
                stdout::check()?;
                Box::new(BufWriter::new(io::stdout()))
            }
        };
        Ok(Out { args, to, sizes: output::sizes(args.format.human, args.format.bytes) })
    }

    fn begin(&mut self, left_out: &[(&str, String)]) -> io::Result<()> {
        if self.args.format.json {
            render::trace_begin_json(&mut self.to, left_out)?;
        } else if !self.args.format.noheadings && !self.args.summary {
            writeln!(self.to, "{}", render::trace_heading())?;
        }
        self.to.flush()
    }

    fn take(&mut self, trace: &mut Trace, items: Vec<Item>, seen: &mut Seen) -> io::Result<()> {
        for item in items {
            if let Item::Event(event) = &item {
                if !self.args.chosen.has(event, trace) {
                    continue;
                }
                seen.events += 1;
                if self.args.summary {
                    seen.counts.add(event);
                }
                if self.args.has_balance() {
                    seen.balance.add(event);
                }
                if self.args.summary || !self.args.chosen.has_word(event) {
                    continue;
                }
            }
            self.write(&item)?;
        }
        self.to.flush()
    }

    fn write(&mut self, item: &Item) -> io::Result<()> {
        match item {
            _ if self.args.format.json => render::trace_item_json(&mut self.to, item),
            // For the balance births have stacks in any case.
            item => render::trace_item(&mut self.to, item, self.sizes, self.args.stacks),
        }
    }

    fn end(&mut self, mut seen: Seen, lost: &Losses) -> Result<()> {
        let json = self.args.format.json;
        let with_balance = self.args.has_balance();
        let out = &mut self.to;
        if self.args.summary && json {
            render::trace_counts_json(out, &seen.counts)?;
        } else if self.args.summary {
            render::trace_counts(out, &seen.counts, self.sizes)?;
        }
        if with_balance {
            command::weigh_left(&mut seen.balance);
            let rows = seen.balance.rows();
            if let Some(path) = &self.args.pprof {
                fs::write(path, render::trace_pprof(&rows, SystemTime::now()))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            if json {
                render::trace_balance_json(out, &rows)?;
            } else {
                writeln!(out)?;
                render::trace_balance(out, &rows, self.sizes)?;
            }
        }
        if json {
            render::trace_end_json(out, seen.events, lost)?;
        } else if !self.args.summary && !with_balance && !self.args.format.noheadings {
            writeln!(out, "{}", counted(seen.events, "event", "events"))?;
        }
        out.flush()?;
        Ok(())
    }
}

/// The words of events.
pub(crate) fn word(text: &str) -> Result<&'static str, String> {
    Happening::WORDS
        .into_iter()
        .find(|word| *word == text)
        .ok_or_else(|| format!("no such event; valid: {}", Happening::WORDS.join(", ")))
}
