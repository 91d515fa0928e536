//! Between which samples something happened to a buffer: it was born or died, a process received it
//! or let it go.
//!
//! A sample says what was there, and not when it came. So each event lies between two samples: the
//! last one that did not find it yet, and the first one that did. Only samples that could have
//! found it count. Those are the samples of its boot that looked for its kind, and all samples of
//! other boots, where it cannot be.
//!
//! Limits: after the hostname was changed, a recording takes what it finds for other buffers, so
//! samples from then on tell nothing of those before. A sample that is not complete may have
//! overlooked it. [`Moment::is_complete`] says so.

use std::collections::HashSet;

use rusqlite::Connection;

use super::life::{Lasting, Life};
use super::rows::{self, Unreadable};
use super::table::RowId;
use super::{Sample, SampleId};
use crate::model::{Buffer, Holder, Kind, Process};

/// A sample, as the end of a time in which something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moment {
    /// Which sample.
    pub sample: Sample,
    /// Whether its answer was complete. If not, it may have overlooked something.
    pub is_complete: bool,
}

/// When something happened: after one sample, and by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Between {
    /// The last sample before it. `None`: it happened before the first one that could tell.
    pub after: Option<Moment>,
    /// The first sample after it.
    pub by: Moment,
}

/// A state of a buffer, or what a process held of it, and for how long it was so.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Span<'l, T> {
    /// The first sample that found it so.
    pub from: Moment,
    /// The last one.
    pub until: Moment,
    /// Whether samples just before it did not find the buffer, though an earlier one had found it.
    pub is_after_gap: bool,
    /// What it was.
    pub what: &'l T,
}

/// For how long a process had a buffer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Hold<'l> {
    /// The process, as it was last seen.
    pub process: &'l Process,
    /// When it received the buffer.
    pub received: Between,
    /// When it let the buffer go. `None`: it had it in the last sample that could tell.
    pub let_go: Option<Between>,
    /// What it held, in order of time. At least one.
    pub parts: Vec<Span<'l, Holder>>,
}

impl Life {
    /// When it was born, as far as the recording tells. `None`: no sample is left that could tell.
    #[must_use]
    pub fn born(&self) -> Option<Between> {
        self.moments.begin(self.states.first()?)
    }

    /// When it died. `None`: it was there in the last sample that could tell.
    #[must_use]
    pub fn died(&self) -> Option<Between> {
        self.moments.end(self.states.last()?)
    }

    /// Its states, with the samples from which to which each lasted, without holders. Where the
    /// recorder was started anew and nothing had changed, that is one state.
    #[must_use]
    pub fn spans(&self) -> Vec<Span<'_, Buffer>> {
        self.moments.spans(self.states.iter().map(|state| (state, &state.what)))
    }

    /// Who had it, in the order in which they received it. A process that let it go and received it
    /// again is there twice.
    #[must_use]
    pub fn holds(&self) -> Vec<Hold<'_>> {
        let mut order: Vec<&Lasting<(Process, Holder)>> = self.holders.iter().collect();
        order.sort_by_key(|held| {
            let process = &held.what.0;
            (process.pid, process.start_time, held.first.map(|first| first.id))
        });
        let is_next = |one: &&Lasting<(Process, Holder)>, next: &&Lasting<(Process, Holder)>| {
            let of = |held: &Lasting<(Process, Holder)>| (held.what.0.pid, held.what.0.start_time);
            of(one) == of(next) && self.moments.is_next(one, next)
        };
        let holds = order.chunk_by(is_next).filter_map(|parts| {
            let (first, last) = (parts.first()?, parts.last()?);
            Some(Hold {
                process: &last.what.0,
                received: self.moments.begin(first)?,
                let_go: self.moments.end(last),
                parts: self.moments.spans(parts.iter().map(|part| (*part, &part.what.1))),
            })
        });
        let mut holds: Vec<Hold<'_>> = holds.collect();
        holds.sort_by_key(|hold| (hold.received.by.sample.id, hold.process.pid));
        holds
    }
}

/// The samples that can tell whether a buffer was there, in order.
#[derive(Clone, Debug)]
pub(super) struct Moments(Vec<Moment>);

impl Moments {
    /// Reads those of a buffer of that boot and kind.
    pub(super) fn read(db: &Connection, boot: RowId, kind: Kind) -> Result<Moments, Unreadable> {
        let boot_id = rows::read_host(db, boot)?.boot_id;
        let mut telling = HashSet::new();
        let runs: Vec<i64> = db
            .prepare_cached("SELECT id FROM run")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for run in runs {
            let (of, kinds) = rows::read_run(db, RowId(run))?;
            let tells = if of == boot {
                kinds.has(kind)
            } else {
                let other = rows::read_host(db, of)?.boot_id;
                other.is_some() && boot_id.is_some() && other != boot_id
            };
            telling.extend(tells.then_some(run));
        }
        let mut partial = rows::partial_samples(db)?.into_iter().peekable();
        let mut moments = Vec::new();
        let mut statement =
            db.prepare_cached("SELECT id, taken_at, boottime, run FROM sample ORDER BY id")?;
        let mut samples = statement.query([])?;
        while let Some(row) = samples.next()? {
            let sample = rows::sample(row)?;
            while partial.next_if(|&(_, last)| last < sample.id).is_some() {}
            let is_complete = partial.peek().is_none_or(|&(first, _)| sample.id < first);
            if telling.contains(&row.get("run")?) {
                moments.push(Moment { sample, is_complete });
            }
        }
        Ok(Moments(moments))
    }

    /// How many of them are before that sample.
    fn before(&self, id: SampleId) -> usize {
        self.0.partition_point(|moment| moment.sample.id < id)
    }

    /// The first and the last of them in which something was there. `None`: none is left.
    fn ends<T>(&self, lasting: &Lasting<T>) -> Option<(usize, usize)> {
        let first = lasting.first.map_or(0, |first| self.before(first.id));
        let end = lasting.last.map_or(self.0.len(), |last| self.before(SampleId(last.id.0 + 1)));
        (first < end).then(|| (first, end - 1))
    }

    /// From which of them to which each of these was so; equal neighbours are one.
    fn spans<'l, L: 'l, T: PartialEq>(
        &self,
        all: impl Iterator<Item = (&'l Lasting<L>, &'l T)>,
    ) -> Vec<Span<'l, T>> {
        let mut spans: Vec<Span<'l, T>> = Vec::new();
        let mut next = None;
        for (lasting, what) in all {
            let Some((first, last)) = self.ends(lasting) else { continue };
            let is_after_gap = next.is_some_and(|next| next != first);
            next = Some(last + 1);
            match spans.last_mut() {
                Some(before) if !is_after_gap && before.what == what => before.until = self.0[last],
                _ => spans.push(Span { from: self.0[first], until: self.0[last], is_after_gap, what }),
            }
        }
        spans
    }

    fn begin<T>(&self, lasting: &Lasting<T>) -> Option<Between> {
        let (first, _) = self.ends(lasting)?;
        Some(Between { after: first.checked_sub(1).map(|before| self.0[before]), by: self.0[first] })
    }

    fn end<T>(&self, lasting: &Lasting<T>) -> Option<Between> {
        let (_, last) = self.ends(lasting)?;
        self.0.get(last + 1).map(|&by| Between { after: Some(self.0[last]), by })
    }

    /// Whether no sample between these two could tell that it was not there.
    fn is_next<T>(&self, one: &Lasting<T>, next: &Lasting<T>) -> bool {
        let ends = self.ends(one).zip(self.ends(next));
        ends.is_some_and(|((_, last), (first, _))| last + 1 == first)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::history::{Keep, Recorder, Recording};
    use crate::model::examples::{buffer, holder, snapshot};
    use crate::model::{Gaps, Kinds, Note, Pid, Snapshot};

    /// A snapshot of one dma-buf that these processes have, each by so many fds. Without processes
    /// it is not there.
    fn held_by(holders: &[(u32, usize)]) -> Snapshot {
        let holders: Vec<Holder> = holders.iter().map(|&(pid, fds)| holder(pid, fds, 0, &[])).collect();
        let there = (!holders.is_empty()).then(|| buffer(7, Some(4096), Some(9), holders));
        snapshot(there.into_iter().collect(), Gaps::default())
    }

    fn finished(mut recorder: Recorder, snapshots: Vec<Snapshot>) -> Recording {
        for (nth, snapshot) in snapshots.into_iter().enumerate() {
            recorder.append_at(snapshot, Duration::from_secs(nth as u64)).unwrap();
        }
        recorder.finish().unwrap()
    }

    fn life(snapshots: Vec<Snapshot>) -> Life {
        let recording = finished(Recorder::in_memory().unwrap(), snapshots);
        recording.life(recording.buffers().unwrap()[0].0).unwrap()
    }

    /// The numbers of the two samples.
    fn ids(between: Between) -> (Option<i64>, i64) {
        (between.after.map(|after| after.sample.id.0), between.by.sample.id.0)
    }

    /// Check that birth, death, receiving and letting go lie between the last sample without and
    /// the first one with it, and that another number of fds is no letting go.
    #[test]
    fn events_lie_between_samples() {
        let nothing = || held_by(&[]);
        let one = |fds| held_by(&[(1, fds)]);
        let life = life(vec![nothing(), one(1), one(2), held_by(&[(2, 1)]), nothing()]);
        assert_eq!(life.born().map(ids), Some((Some(1), 2)));
        assert_eq!(life.died().map(ids), Some((Some(4), 5)));
        let told = |hold: &Hold<'_>| {
            let part = |part: &Span<'_, Holder>| {
                (part.from.sample.id.0, part.until.sample.id.0, part.what.fd_refs())
            };
            (
                hold.process.pid,
                ids(hold.received),
                hold.let_go.map(ids),
                hold.parts.iter().map(part).collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            life.holds().iter().map(told).collect::<Vec<_>>(),
            [
                (Pid(1), (Some(1), 2), Some((Some(3), 4)), vec![(2, 2, 1), (3, 3, 2)]),
                (Pid(2), (Some(3), 4), Some((Some(4), 5)), vec![(4, 4, 1)]),
            ]
        );
    }

    /// Check that a sample which did not look for dma-bufs tells nothing: not of the birth, of a
    /// gap, or of the death.
    #[test]
    fn other_kinds_tell_nothing() {
        let blind = || Snapshot { kinds: [Kind::Memfd].into_iter().collect::<Kinds>(), ..held_by(&[]) };
        let there = || held_by(&[(1, 1)]);
        let life = life(vec![held_by(&[]), blind(), there(), blind(), there(), blind()]);
        assert_eq!((life.born().map(ids), life.died()), (Some((Some(1), 3)), None));
        let (spans, holds) = (life.spans(), life.holds());
        assert_eq!((spans.len(), spans[0].from.sample.id.0, spans[0].until.sample.id.0), (1, 3, 5));
        assert_eq!((holds.len(), holds[0].parts.len(), holds[0].let_go), (1, 1, None));
    }

    /// Check that a buffer which was not found for a while has a gap and no death, and that its
    /// holder received it twice.
    #[test]
    fn gaps() {
        let life = life(vec![held_by(&[(1, 1)]), held_by(&[]), held_by(&[(1, 1)])]);
        assert_eq!((life.born().map(ids), life.died()), (Some((None, 1)), None));
        assert_eq!(life.spans().iter().map(|span| span.is_after_gap).collect::<Vec<_>>(), [false, true]);
        let holds = life.holds();
        assert_eq!([ids(holds[0].received), ids(holds[1].received)], [(None, 1), (Some(2), 3)]);
    }

    /// Check that a sample of another boot ends a life, and that one of which the boot is not known
    /// tells nothing.
    #[test]
    fn boots() {
        let of = |boot: Option<&str>, holders: &[(u32, usize)]| {
            let mut snapshot = held_by(holders);
            snapshot.host.boot_id = boot.map(str::to_owned);
            snapshot
        };
        let there = || of(Some("a"), &[(1, 1)]);
        let died = |next| life(vec![there(), next]).died().map(ids);
        assert_eq!(died(of(Some("b"), &[(1, 1)])), Some((Some(1), 2)));
        assert_eq!(died(of(None, &[])), None);
        let renamed = || {
            let mut renamed = there();
            renamed.host.hostname = Some("other".to_owned());
            renamed
        };
        assert_eq!(died(renamed()), None);
    }

    /// Check that a sample which overlooked something is marked.
    #[test]
    fn partial_samples() {
        let mut partial = held_by(&[]);
        partial.coverage.notes.push(Note::NotWholeMachine);
        let whole = life(vec![partial.clone(), held_by(&[(1, 1)]), partial]);
        let is_complete = |moment: Option<Moment>| moment.unwrap().is_complete;
        let (born, died) = (whole.born().unwrap(), whole.died().unwrap());
        assert_eq!([is_complete(born.after), born.by.is_complete], [false, true]);
        assert_eq!([is_complete(died.after), died.by.is_complete], [true, false]);
    }

    /// Check that of a buffer whose first samples were deleted nothing is said but that it was
    /// there in the oldest sample that is left.
    #[test]
    fn deleted_samples() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep { age: Some(Duration::from_secs(4)), ..Keep::default() };
        let recorder = Recorder::open(folder.path().join("r.db"), keep).unwrap();
        let recording = finished(recorder, (0..32).map(|_| held_by(&[(1, 1)])).collect());
        let oldest = recording.samples().unwrap()[0];
        let life = recording.life(recording.buffers().unwrap()[0].0).unwrap();
        assert!(oldest.id.0 > 1);
        assert_eq!(life.born().map(ids), Some((None, oldest.id.0)));
        assert_eq!(life.spans().iter().map(|span| span.from.sample).collect::<Vec<_>>(), [oldest]);
    }
}
