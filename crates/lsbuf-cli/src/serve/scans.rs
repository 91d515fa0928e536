//! Scans for whoever asks: one at a time, in a thread of its own.
//!
//! All who ask while one runs wait for it, and get its answer. Each form of an answer is written
//! once.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hyper::body::Bytes;
use lsbuf::model::Ledger;
use lsbuf::render::{JsonLayout, MetricsFormat, View};
use lsbuf::scan::{Options, Scanner};
use tokio::sync::oneshot;

use crate::metrics::Measured;
use crate::named::{self, By};
use crate::select;

/// In which form an answer is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    Metrics(MetricsFormat),
    /// All of it as JSON.
    Snapshot,
    /// One buffer as JSON, `KIND:INO`.
    Buffer(String),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// There is no such buffer.
    NotFound,
    /// The scan failed.
    Failed(String),
}

type Reply = Result<Bytes, NoAnswer>;

/// The thread that scans, seen from those that ask.
#[derive(Debug)]
pub(super) struct Scans(Sender<(Form, oneshot::Sender<Reply>)>);

impl Scans {
    /// Starts it. It scans only when it is asked, at most once in `least`. Metrics have at most
    /// `most` series.
    pub(super) fn start(options: Options, least: Duration, most: usize) -> Result<Scans> {
        let scanner = Scanner::new(options.clone())?;
        let (ask, asked) = channel();
        let scanning = Scanning { scanner, options, least, most, counts: (0, 0), last: None };
        thread::Builder::new()
            .name("scans".to_owned())
            .spawn(move || scanning.answer_all(&asked))
            .context("a thread cannot be started")?;
        Ok(Scans(ask))
    }

    /// Waits for an answer in that form.
    pub(super) async fn ask(&self, form: Form) -> Reply {
        let (reply, answer) = oneshot::channel();
        let ended = || NoAnswer::Failed("lsbuf scans no more; it must be started again".to_owned());
        self.0.send((form, reply)).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

struct Scanning {
    scanner: Scanner,
    options: Options,
    least: Duration,
    most: usize,
    /// How many scans gave an answer, and how many did not.
    counts: (u64, u64),
    last: Option<Last>,
}

/// The last scan.
struct Last {
    ended: Instant,
    found: Result<Measured, String>,
    /// What was written of it.
    written: HashMap<Form, Bytes>,
}

impl Scanning {
    fn answer_all(mut self, asked: &Receiver<(Form, oneshot::Sender<Reply>)>) {
        while let Ok((form, reply)) = asked.recv() {
            // Nobody waits any more.
            if reply.is_closed() {
                continue;
            }
            let answer = self.answer(form);
            let _ = reply.send(answer);
        }
    }

    fn answer(&mut self, form: Form) -> Reply {
        let last = match self.last.take().filter(|last| last.ended.elapsed() < self.least) {
            Some(last) => last,
            None => self.scan(),
        };
        let last = self.last.insert(last);
        if let Some(written) = last.written.get(&form) {
            return Ok(written.clone());
        }
        let measured = last.found.as_ref().map_err(|why| NoAnswer::Failed(why.clone()))?;
        let failed = |error: anyhow::Error| NoAnswer::Failed(format!("{error:#}"));
        let bytes = match &form {
            Form::Metrics(format) => {
                Bytes::from(measured.metrics(*format, self.most, Some(self.counts)).map_err(failed)?)
            }
            Form::Snapshot => json(measured, None).map_err(failed)?,
            Form::Buffer(wanted) => {
                let found = named::named(&measured.snapshot.buffers, wanted);
                let found = found.iter().find(|found| found.by == By::Identity);
                // Of single buffers nothing is kept: there may be very many.
                return json(measured, Some(found.ok_or(NoAnswer::NotFound)?.row)).map_err(failed);
            }
        };
        last.written.insert(form, bytes.clone());
        Ok(bytes)
    }

    fn scan(&mut self) -> Last {
        let found = Measured::of(&mut self.scanner, &self.options).map_err(|error| format!("{error:#}"));
        match found {
            Ok(_) => self.counts.0 += 1,
            Err(_) => self.counts.1 += 1,
        }
        Last { ended: Instant::now(), found, written: HashMap::new() }
    }
}

/// The document of all buffers, or of one.
fn json(measured: &Measured, only: Option<usize>) -> Result<Bytes> {
    let ledger = Ledger::of(&measured.snapshot);
    let mut view = View::all(&ledger);
    if let Some(row) = only {
        view.buffers = vec![row];
        select::only_holders(&mut view);
    }
    let mut out = Vec::new();
    lsbuf::render::json(&mut out, &view, JsonLayout::Compact).context("the answer cannot be written")?;
    Ok(out.into())
}
