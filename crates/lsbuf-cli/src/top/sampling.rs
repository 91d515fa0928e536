//! The thread that takes the samples: it scans this machine, or reads a recording.
//!
//! The main thread never waits for it. What it has not taken in time is replaced by what is newer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lsbuf::history::{Recording, Sample, When};
use lsbuf::model::{BufferId, Bytes, Details, Kind, Snapshot};
use lsbuf::scan::{Options, Scanner};

use super::trend::LENGTH;
use super::{Event, TopArgs};
use crate::past;

/// What is asked of the thread.
#[derive(Debug, PartialEq)]
pub(crate) enum Ask {
    /// Samples like this from now on.
    Want(Want),
    /// Of a recording: so many samples later.
    Step(i64),
    /// Of a recording: the sample of that time.
    Go(When),
}

/// What samples must have, and whether they are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Want {
    pub(crate) details: Details,
    pub(crate) payers: bool,
    /// Everything that is paid for, as `lsbuf sum --by payer` asks for it.
    pub(crate) payer_groups: bool,
    /// A buffer that is shown in full.
    pub(crate) opened: Option<BufferId>,
    pub(crate) paused: bool,
}

/// A sample.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its place in time: later ones have larger numbers.
    pub(crate) place: i64,
    pub(crate) snapshot: Arc<Snapshot>,
    /// When it was ready.
    pub(crate) at: Instant,
    /// What it took, with all that was asked besides.
    pub(crate) took: Duration,
    /// Of a recording: which sample of how many.
    pub(crate) nth: Option<(usize, usize)>,
    /// The last samples before it that were not taken, or not shown before.
    pub(crate) earlier: Vec<(i64, Arc<Snapshot>)>,
    pub(crate) left_over: Option<LeftOver>,
}

/// What nobody explains of `Shmem`, as `lsbuf reconcile` says it.
#[derive(Clone, Debug)]
pub(crate) struct LeftOver {
    pub(crate) shmem: Bytes,
    pub(crate) left_over: i128,
    pub(crate) is_complete: bool,
    pub(crate) at: Instant,
}

/// The main thread's end.
pub(crate) struct Sampling {
    asks: Sender<Ask>,
    newest: Arc<Mutex<Option<Answer>>>,
}

impl Sampling {
    /// Starts the thread. It sends an event when there is an answer.
    pub(crate) fn start(args: &TopArgs, events: Sender<Event>) -> Result<Sampling> {
        let (asks, asked) = channel();
        let newest = Arc::new(Mutex::new(None));
        let outlet = Outlet { events, newest: Arc::clone(&newest) };
        match &args.past.from {
            None => {
                let live = Live {
                    options: args.options(),
                    every: args.every,
                    reconcile: args.reconcile,
                    reconcile_options: args.scan.reading.options(),
                };
                thread::spawn(move || live.run(&asked, &outlet));
            }
            Some(from) => {
                let replay = Replay::open(from, args)?;
                thread::spawn(move || replay.run(&asked, &outlet));
            }
        }
        Ok(Sampling { asks, newest })
    }

    pub(crate) fn ask(&self, ask: Ask) {
        // If the thread has ended, it has said why.
        let _ = self.asks.send(ask);
    }

    /// The newest answer, once.
    pub(crate) fn take(&self) -> Option<Answer> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The thread's end.
struct Outlet {
    events: Sender<Event>,
    newest: Arc<Mutex<Option<Answer>>>,
}

impl Outlet {
    /// Leaves an answer. One that was not taken yet becomes an earlier sample of it.
    fn put(&self, mut answer: Answer) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let missed = newest.take();
        let is_first = missed.is_none();
        if let Some(missed) = missed {
            answer.earlier.extend(missed.earlier);
            answer.earlier.push((missed.place, missed.snapshot));
            answer.earlier.sort_by_key(|(place, _)| *place);
            let surplus = answer.earlier.len().saturating_sub(LENGTH);
            answer.earlier.drain(..surplus);
        }
        *newest = Some(answer);
        drop(newest);
        if is_first {
            // Without a receiver the program is about to end.
            let _ = self.events.send(Event::Answer);
        }
    }

    fn fail(&self, error: &anyhow::Error) {
        let _ = self.events.send(Event::Failed(format!("{error:#}")));
    }
}

/// Scans this machine.
struct Live {
    options: Options,
    every: Duration,
    reconcile: Option<u64>,
    reconcile_options: Options,
}

impl Live {
    fn run(&self, asked: &Receiver<Ask>, outlet: &Outlet) {
        let mut want = Want::default();
        let mut scanner = None;
        let mut left_over = None;
        for place in 0.. {
            let begun = Instant::now();
            match self.scan(&mut scanner, &want) {
                Ok(snapshot) => {
                    let due = self.reconcile.is_some_and(|every| place % every.max(1) == 0);
                    if due {
                        self.reconcile(&mut left_over, outlet);
                    }
                    outlet.put(Answer {
                        place: i64::try_from(place).unwrap_or(i64::MAX),
                        snapshot: Arc::new(snapshot),
                        at: Instant::now(),
                        took: begun.elapsed(),
                        nth: None,
                        earlier: Vec::new(),
                        left_over: left_over.clone(),
                    });
                }
                Err(error) => outlet.fail(&error),
            }
            let Some(wanted) = wait(asked, &want, begun + self.every) else { return };
            let same = Want { paused: want.paused, ..wanted.clone() } == want;
            if !same {
                scanner = None;
            }
            want = wanted;
        }
    }

    fn scan(&self, scanner: &mut Option<Scanner>, want: &Want) -> Result<Snapshot> {
        let scanner = match scanner {
            Some(scanner) => scanner,
            None => scanner.insert(Scanner::new(self.wanted(want))?),
        };
        let mut snapshot = scanner.scan().context("the scan failed")?;
        let found = want.opened.and_then(|id| snapshot.buffers.iter().position(|buffer| buffer.id == id));
        if let Some(row) = found {
            let buffer = &mut snapshot.buffers[row];
            scanner.ask_seals(buffer);
            scanner.ask_private_copies(buffer);
            scanner.ask_payers(buffer);
            scanner.add_details(&mut snapshot, &[row], Details::ALL);
        }
        Ok(snapshot)
    }

    /// What to ask for so that the samples have what is wanted.
    fn wanted(&self, want: &Want) -> Options {
        let mut options = self.options.clone();
        options.payers |= want.payers;
        if want.payer_groups {
            // As lsbuf sum --by payer: what nobody holds is paid for, too.
            (options.unheld, options.without_self) = (true, false);
        }
        if let Some(id) = want.opened {
            // As lsbuf show. The details are asked of this buffer's holders alone.
            options.sources.gem_handles = true;
            options.sources.kernel_holders = true;
            options.sources.driver_shmem = true;
            options.payers |= id.kind != Kind::DmaBuf;
        } else {
            options.details = want.details;
        }
        options
    }

    fn reconcile(&self, left_over: &mut Option<LeftOver>, outlet: &Outlet) {
        match lsbuf::reconcile::reconcile(self.reconcile_options.clone()) {
            Ok(found) => {
                *left_over = Some(LeftOver {
                    shmem: found.balance.shmem,
                    left_over: found.balance.left_over,
                    is_complete: found.is_complete(),
                    at: Instant::now(),
                });
            }
            Err(error) => outlet.fail(&anyhow::Error::from(error).context("reconcile")),
        }
    }
}

/// Waits for the next scan. Returns what is wanted of it; `None`: nobody is there any more.
fn wait(asked: &Receiver<Ask>, want: &Want, until: Instant) -> Option<Want> {
    let mut wanted = want.clone();
    loop {
        let received = if wanted.paused {
            asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            asked.recv_timeout(until.saturating_duration_since(Instant::now()))
        };
        match received {
            Ok(Ask::Want(new)) => {
                let other = Want { paused: wanted.paused, ..new.clone() } != wanted;
                let resumed = wanted.paused && !new.paused;
                wanted = new;
                // What else is asked for is read at once. A frozen screen stays as it is.
                if !wanted.paused && (other || resumed) {
                    return Some(wanted);
                }
            }
            Ok(Ask::Step(_) | Ask::Go(_)) => {}
            Err(RecvTimeoutError::Timeout) => return Some(wanted),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Reads a recording.
struct Replay {
    source: Source,
    options: Options,
    every: Duration,
    begin: When,
    /// The samples that were read last, so that a step reads one.
    read: BTreeMap<usize, Arc<Snapshot>>,
}

enum Source {
    Recording(Recording, Vec<Sample>),
    Single(Arc<Snapshot>),
}

impl Replay {
    fn open(from: &Path, args: &TopArgs) -> Result<Replay> {
        let begin = args.past.at.unwrap_or(When::End);
        let source = match past::Source::open(from)? {
            past::Source::Recording(recording) => {
                recording.sample_when(begin)?;
                let samples = recording.samples()?;
                Source::Recording(recording, samples)
            }
            past::Source::Document(_) if args.past.at.is_some() => return Err(past::single(from)),
            past::Source::Document(mut snapshot) => {
                snapshot.keep_kinds(args.options().kinds);
                Source::Single(Arc::new(*snapshot))
            }
        };
        Ok(Replay { source, options: args.options(), every: args.every, begin, read: BTreeMap::new() })
    }

    fn run(mut self, asked: &Receiver<Ask>, outlet: &Outlet) {
        let mut playing = false;
        let mut place = match self.find(self.begin) {
            Ok(place) => place,
            Err(error) => return outlet.fail(&error),
        };
        let mut shown = None;
        loop {
            if shown != Some(place) {
                match self.answer(place) {
                    Ok(answer) => outlet.put(answer),
                    Err(error) => outlet.fail(&error),
                }
                shown = Some(place);
            }
            let received = if playing {
                asked.recv_timeout(self.every)
            } else {
                asked.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match received {
                Ok(Ask::Want(want)) => playing = !want.paused,
                Ok(Ask::Step(by)) => place = self.step(place, by),
                Ok(Ask::Go(when)) => match self.find(when) {
                    Ok(found) => place = found,
                    Err(error) => outlet.fail(&error),
                },
                Err(RecvTimeoutError::Timeout) => place = self.step(place, 1),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// The place of the sample of a time.
    fn find(&mut self, when: When) -> Result<usize> {
        let Source::Recording(recording, samples) = &mut self.source else { return Ok(0) };
        let found = recording.sample_when(when)?;
        if samples.last().is_none_or(|last| last.id < found.id) {
            *samples = recording.samples()?;
        }
        samples.iter().position(|sample| sample.id == found.id).context("the sample was deleted meanwhile")
    }

    /// The place of a sample that is so many later, or the first or the last. The recording may
    /// have grown.
    fn step(&mut self, place: usize, by: i64) -> usize {
        let Source::Recording(recording, samples) = &mut self.source else { return 0 };
        let wanted = place.saturating_add_signed(isize::try_from(by).unwrap_or_default());
        if wanted >= samples.len()
            && let Ok(now) = recording.samples()
            && now.first().map(|sample| sample.id) == samples.first().map(|sample| sample.id)
        {
            *samples = now;
        }
        wanted.min(samples.len().saturating_sub(1))
    }

    fn answer(&mut self, place: usize) -> Result<Answer> {
        let begun = Instant::now();
        let first = (place + 1).saturating_sub(LENGTH);
        self.read.retain(|nth, _| (first..=place).contains(nth));
        let mut earlier = Vec::new();
        for nth in first..place {
            earlier.push((i64::try_from(nth).unwrap_or(i64::MAX), self.read(nth)?));
        }
        let samples = match &self.source {
            Source::Recording(_, samples) => samples.len(),
            Source::Single(_) => 1,
        };
        Ok(Answer {
            place: i64::try_from(place).unwrap_or(i64::MAX),
            snapshot: self.read(place)?,
            at: Instant::now(),
            took: begun.elapsed(),
            nth: Some((place + 1, samples)),
            earlier,
            left_over: None,
        })
    }

    fn read(&mut self, nth: usize) -> Result<Arc<Snapshot>> {
        if let Some(snapshot) = self.read.get(&nth) {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = match &self.source {
            Source::Single(snapshot) => Arc::clone(snapshot),
            Source::Recording(recording, samples) => {
                let sample = samples.get(nth).context("the recording has no such sample")?;
                let mut snapshot = recording.snapshot(sample.id)?;
                snapshot.keep_kinds(self.options.kinds);
                Arc::new(snapshot)
            }
        };
        self.read.insert(nth, Arc::clone(&snapshot));
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that while it is frozen nothing is scanned, whatever else is asked for, and that a
    /// scan follows at once when it goes on.
    #[test]
    fn frozen() {
        let (asks, asked) = channel();
        let frozen = Want { paused: true, payers: true, ..Want::default() };
        asks.send(Ask::Want(Want { paused: true, ..Want::default() })).unwrap();
        asks.send(Ask::Want(frozen.clone())).unwrap();
        asks.send(Ask::Want(Want { paused: false, ..frozen.clone() })).unwrap();
        let far = Instant::now() + Duration::from_secs(3600);
        assert_eq!(wait(&asked, &Want::default(), far), Some(Want { paused: false, ..frozen }));
        assert_eq!(asked.try_recv().err(), Some(std::sync::mpsc::TryRecvError::Empty));
        drop(asks);
        assert_eq!(wait(&asked, &Want::default(), far), None);
    }
}
