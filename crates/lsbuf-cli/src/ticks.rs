//! When the next sample is due: at fixed times after the start, until a signal or the end.
//!
//! So the number of samples does not depend on how long one takes. A time that has passed while a
//! sample was taken is left out.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lsbuf::history::duration;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The times of samples.
#[derive(Debug)]
pub(crate) struct Ticks {
    stop: Receiver<i32>,
    begun: Instant,
    every: Duration,
    next: Instant,
    end: Option<Instant>,
}

impl Ticks {
    /// Begins now. `stop` is what [`signals`] returns; after `length` it ends.
    pub(crate) fn start(stop: Receiver<i32>, every: Duration, length: Option<Duration>) -> Ticks {
        let begun = Instant::now();
        Ticks { stop, begun, every, next: begun, end: length.map(|length| begun + length) }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Waits until the next sample is due. Returns whether one is: no signal came, nor the end.
    pub(crate) fn wait(&mut self) -> bool {
        while self.next <= Instant::now() {
            self.next += self.every;
        }
        let wake = self.end.map_or(self.next, |end| end.min(self.next));
        let waited = self.stop.recv_timeout(wake.saturating_duration_since(Instant::now()));
        waited == Err(RecvTimeoutError::Timeout) && self.end.is_none_or(|end| wake < end)
    }
}

/// A length of time from one sample to the next.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let least = Duration::from_millis(10);
    let every = duration(text)?;
    if every < least { Err("the shortest interval is 10ms".to_owned()) } else { Ok(every) }
}

/// Receives the signals that ask this process to end.
pub(crate) fn signals() -> Result<Receiver<i32>> {
    let (sender, receiver) = channel();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("signals cannot be received")?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // The second one finds nobody who listens, and ends the process as it would without us.
            if sender.send(signal).is_err() {
                std::process::exit(130);
            }
        }
    });
    Ok(receiver)
}
