//! `lsbuf top`: the lists on a full screen, again and again, of this machine or of a recording.
//!
//! `state` has what is shown and what each key changes. `page` makes the list of a snapshot by the
//! same functions that `lsbuf ls`, `ps`, `sum` and `diff` use, and `screen` draws it; these three
//! are pure. `sampling` is the thread that takes the samples, and `terminal` writes the frames.
//! `batch` prints tables where there is no terminal.
//!
//! Limits: rows are made for the whole list, so with hundreds of thousands of buffers keys wait for
//! that. The mouse is left to the terminal.

mod batch;
mod item;
mod keys;
mod narrow;
mod page;
mod sampling;
mod screen;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod tree;
mod trend;

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ColorChoice};
use lsbuf::model::SumKey;
use lsbuf::scan::Options;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, KeyEvent, KeyEventKind};
use ratatui::layout::Rect;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use self::page::List;
use self::sampling::{Ask, Sampling, Want};
use self::state::{Action, State};
use self::terminal::Terminal;
use crate::args::{FilterArgs, ScanArgs, sum_key};
use crate::output::{self, Ending};
use crate::past::PastArgs;
use crate::ticks::interval;

/// How often the ages on the screen are drawn anew.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// The list to begin with: buffers, processes or groups
    #[arg(long, value_name = "LIST", default_value = "buffers", hide_possible_values = true)]
    list: List,
    /// What the buffers of a group have in common: a KEY of lsbuf sum
    #[arg(long, value_name = "KEY", default_value = "command", value_parser = sum_key)]
    by: SumKey,
    /// Time from one scan to the next, or between the samples of a recording that plays
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    every: Duration,
    /// Also show how much of Shmem is left over (lsbuf reconcile), asked with every Nth scan: it
    /// takes a scan of its own
    #[arg(long, value_name = "N", conflicts_with_all = ["from", "batch"], value_parser = clap::value_parser!(u64).range(1..))]
    reconcile: Option<u64>,
    /// Print the list again and again, for a pipe or a file; of a recording, from --at on
    #[arg(long)]
    batch: bool,
    /// Stop after that many lists
    #[arg(long, value_name = "N", requires = "batch", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// JSON, schema lsbuf.snapshot/1, each answer on a line
    #[arg(short = 'J', long, requires = "batch")]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    past: PastArgs,
    #[command(flatten)]
    scan: ScanArgs,
}

impl TopArgs {
    /// What every sample is asked for.
    fn options(&self) -> Options {
        Options { unheld: self.filter.unheld, ..self.scan.options() }
    }
}

/// What the main loop waits for.
#[derive(Debug)]
enum Event {
    Key(KeyEvent),
    /// The terminal may have another size.
    Resized,
    /// There is an answer.
    Answer,
    /// There is none, and why.
    Failed(String),
    Signal(i32),
}

pub(crate) fn run(args: &TopArgs) -> Result<Ending> {
    if args.batch {
        return batch::run(args);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!("standard input and output must be a terminal; elsewhere: lsbuf top --batch");
    }
    let (sender, events) = channel();
    let sampling = Sampling::start(args, sender.clone())?;
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGQUIT, SIGTSTP, SIGCONT])
        .context("signals cannot be received")?;
    let mut terminal = Terminal::enter()?;
    watch(signals, sender);
    let mut state = State::new(&args.filter, args.list, args.by, args.every, args.past.from.is_some());
    let mut looping = Loop { events, sampling, wanted: Want { paused: false, ..Want::default() } };
    looping.run(&mut state, &mut terminal)?;
    drop(terminal);
    let coverage = state.now.as_ref().map(|answer| &answer.snapshot.coverage);
    Ok(coverage.map_or(Ending::Answered, |coverage| output::ending(coverage, args.scan.reading.strict)))
}

/// Starts the threads that wait for signals and for keys.
fn watch(mut signals: Signals, sender: Sender<Event>) {
    let keys = sender.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            if sender.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        loop {
            let event = match event::read() {
                Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => Event::Key(key),
                Ok(event::Event::Resize(..)) => Event::Resized,
                Ok(_) => continue,
                // The terminal is gone.
                Err(_) => Event::Signal(SIGHUP),
            };
            let is_last = matches!(event, Event::Signal(_));
            if keys.send(event).is_err() || is_last {
                return;
            }
        }
    });
}

/// The main loop.
struct Loop {
    events: Receiver<Event>,
    sampling: Sampling,
    /// What was asked for last.
    wanted: Want,
}

impl Loop {
    fn run(&mut self, state: &mut State<'_>, terminal: &mut Terminal) -> Result<()> {
        let is_coloured = output::styles(ColorChoice::Auto)(output::HEADING) == output::HEADING;
        loop {
            let (width, height) = terminal.size();
            // What is above the list depends on the list.
            for _ in 0..2 {
                let rows = screen::height(state, height);
                state.refresh(width, rows);
            }
            let mut cells = Buffer::empty(Rect::new(0, 0, width, height));
            screen::draw(state, &mut cells, Instant::now(), is_coloured);
            terminal.show(cells).context("the terminal cannot be written to")?;
            self.ask(state);
            let first = match self.events.recv_timeout(TICK) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => bail!("the threads have ended"),
            };
            // All that has happened is drawn by one frame.
            let mut next = Some(first);
            while let Some(event) = next {
                if self.take(event, state, terminal)? {
                    return Ok(());
                }
                next = self.events.try_recv().ok();
            }
        }
    }

    /// Asks for what the state needs, if that has changed.
    fn ask(&mut self, state: &State<'_>) {
        let want = state.want();
        if want != self.wanted {
            self.wanted = want.clone();
            self.sampling.ask(Ask::Want(want));
        }
    }

    /// Returns whether to quit.
    fn take(&mut self, event: Event, state: &mut State<'_>, terminal: &mut Terminal) -> Result<bool> {
        match event {
            Event::Resized => terminal.repaint(),
            Event::Answer => {
                if let Some(answer) = self.sampling.take() {
                    state.answer(answer);
                }
            }
            Event::Failed(why) if state.now.is_none() => bail!("{why}"),
            Event::Failed(why) => state.failure = Some(why),
            Event::Signal(SIGCONT) => terminal.enter_again()?,
            Event::Signal(SIGTSTP) => suspend(terminal)?,
            Event::Signal(signal) => {
                terminal.leave();
                // It ends this process as if nobody had caught the signal.
                emulate_default_handler(signal).context("the signal cannot be passed on")?;
                return Ok(true);
            }
            Event::Key(key) => match state.key(key) {
                Action::None => {}
                Action::Quit => return Ok(true),
                Action::Suspend => suspend(terminal)?,
                Action::Repaint => terminal.repaint(),
                Action::Ask(ask) => self.sampling.ask(ask),
            },
        }
        Ok(false)
    }
}

/// Stops this process, as Ctrl-Z does without raw mode. Returns when it goes on.
fn suspend(terminal: &mut Terminal) -> Result<()> {
    terminal.leave();
    emulate_default_handler(SIGTSTP).context("this process cannot be stopped")?;
    terminal.enter_again()
}
