//! The course of time: how many bytes each group of buffers had at some moments of a range, and how
//! many buffers were born and died between these.
//!
//! A picture has room for some hundred moments, and a recording may have a million samples. So some
//! samples are chosen, evenly spaced. Bytes are exact at each of them. A birth or a death counts at
//! the first of them that is not before it.
//!
//! Limits: memory that two buffers have in common counts twice. A buffer that was not found for a
//! while and came back was neither born nor dead. What was there in the first sample is no birth.

use std::collections::{BTreeMap, HashMap};

use rusqlite::Connection;

use super::rows::{self, BUFFER_STATE, Unreadable};
use super::suspects::reader::{LivedBuffer, Ordered, State, StateColumns};
use super::value::Word;
use super::{Recording, Sample};
use crate::error::Error;
use crate::model::{Kind, Label};

/// Bytes, births and deaths over a range of a recording.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Course {
    /// The chosen samples, in order, with the first and the last of the range.
    pub points: Vec<Sample>,
    /// How many samples the range has.
    pub samples: u64,
    /// How many of these are partial. A buffer that was not seen counts as not there.
    pub partial: u64,
    /// Each group, in the order of kinds and exporters.
    pub groups: Vec<CourseGroup>,
    /// How many buffers were born after the point before, and by each point. The first is 0.
    pub births: Vec<u64>,
    /// How many died after the point before, and by each point. The first is 0.
    pub deaths: Vec<u64>,
    /// How many buffers had an unknown cost for a while, which is in no figure.
    pub unknown_costs: u64,
}

/// The buffers of a kind, of dma-bufs those of an exporter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CourseGroup {
    /// Their kind.
    pub kind: Kind,
    /// Who made them; `None`: unknown, or they are no dma-bufs.
    pub exporter: Option<Label>,
    /// What they cost at each of [`Course::points`].
    pub bytes: Vec<u64>,
}

impl Recording {
    /// The course from one sample to another with at most so many points, and at least two if there
    /// are two samples; of those buffers for which `is_wanted` is true.
    ///
    /// ```
    /// use lsbuf::history::Recorder;
    /// # use lsbuf::scan::{Options, Scanner};
    /// let mut recorder = Recorder::in_memory()?;
    /// # let mut scanner = Scanner::new(Options::default())?;
    /// for _ in 0..3 {
    ///     recorder.append(scanner.scan()?)?;
    /// }
    /// let recording = recorder.finish()?;
    /// let (first, last) = recording.span()?.expect("three were appended");
    /// let course = recording.course(first, last, 600, |_| true)?;
    /// assert_eq!(course.points.len(), 3);
    /// # Ok::<(), lsbuf::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn course(
        &self,
        first: Sample,
        last: Sample,
        points: usize,
        is_wanted: impl FnMut(&LivedBuffer<'_>) -> bool,
    ) -> Result<Course, Error> {
        self.reading(|db| {
            let samples = samples(db, first, last)?;
            let partial = partial(db, &samples)?;
            let chosen = evenly(samples.len(), points);
            let mut summing = Summing::new(&samples, chosen, is_wanted);
            summing.read(db)?;
            Ok(summing.course(&samples, partial))
        })
    }
}

/// The samples of a range, in order.
fn samples(db: &Connection, first: Sample, last: Sample) -> Result<Vec<Sample>, Unreadable> {
    let sql = "SELECT id, taken_at, boottime FROM sample WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
    let mut statement = db.prepare_cached(sql)?;
    let samples = statement.query_map([first.id.0, last.id.0], rows::sample)?;
    Ok(samples.collect::<Result<_, _>>()?)
}

/// How many of the samples are partial.
fn partial(db: &Connection, samples: &[Sample]) -> Result<u64, Unreadable> {
    let spans = rows::partial_samples(db)?.into_iter();
    let number = spans.map(|(first, last)| {
        let end = samples.partition_point(|sample| sample.id <= last);
        end.saturating_sub(samples.partition_point(|sample| sample.id < first))
    });
    Ok(number.sum::<usize>() as u64)
}

/// Which of that many samples are chosen: the first, the last, and others evenly between them.
fn evenly(samples: usize, points: usize) -> Vec<usize> {
    if samples <= points.max(2) {
        return (0..samples).collect();
    }
    let steps = points.max(2) - 1;
    (0..=steps).map(|nth| nth * (samples - 1) / steps).collect()
}

/// Sums by group, gathered as differences from one point to the next.
struct Summing<F> {
    ids: Vec<i64>,
    /// Indices of `ids`.
    points: Vec<usize>,
    groups: BTreeMap<(Kind, Option<Label>), Vec<i128>>,
    births: Vec<u64>,
    deaths: Vec<u64>,
    unknown_costs: u64,
    is_wanted: F,
}

/// A buffer as it is gathered from its states: from which sample to which it had each cost.
struct Lived {
    row: i64,
    parts: Vec<(usize, usize, Option<u64>)>,
    state: State,
}

impl<F: FnMut(&LivedBuffer<'_>) -> bool> Summing<F> {
    fn new(samples: &[Sample], points: Vec<usize>, is_wanted: F) -> Summing<F> {
        let none = vec![0; points.len()];
        Summing {
            ids: samples.iter().map(|sample| sample.id.0).collect(),
            points,
            groups: BTreeMap::new(),
            births: none.clone(),
            deaths: none,
            unknown_costs: 0,
            is_wanted,
        }
    }

    fn read(&mut self, db: &Connection) -> Result<(), Unreadable> {
        let newest: Option<i64> = db.query_row("SELECT max(id) FROM sample", [], |row| row.get(0))?;
        let kinds = kinds(db)?;
        let kind_of = |buffer: i64| {
            kinds.get(&buffer).copied().ok_or_else(|| format!("table buffer lacks row {buffer}"))
        };
        let columns = StateColumns::new()?;
        let mut states = db.prepare_cached(&BUFFER_STATE.all_by("buffer"))?;
        let mut states = Ordered::new(&BUFFER_STATE, states.query([])?, newest.unwrap_or_default())?;
        let mut lived: Option<Lived> = None;
        while let Some((row, first, last, values)) = states.next()? {
            if let Some(done) = lived.take_if(|lived| lived.row != row) {
                self.take(&done, kind_of(done.row)?);
            }
            let from = self.ids.partition_point(|&id| id < first);
            let until = self.ids.partition_point(|&id| id <= last);
            if from == until {
                continue;
            }
            let state = columns.state(values)?;
            let cost = kind_of(row)?.cost(state.size, state.charged).map(|cost| cost.0);
            let lived =
                lived.get_or_insert_with(|| Lived { row, parts: Vec::new(), state: State::default() });
            lived.parts.push((from, until - 1, cost));
            lived.state = state;
        }
        if let Some(done) = lived {
            self.take(&done, kind_of(done.row)?);
        }
        Ok(())
    }

    /// Adds a buffer.
    fn take(&mut self, lived: &Lived, kind: Kind) {
        let State { size, name, exporter, .. } = &lived.state;
        let exporter = exporter.as_ref().filter(|_| kind == Kind::DmaBuf);
        if !(self.is_wanted)(&LivedBuffer { kind, name: name.as_ref(), exporter, size: *size }) {
            return;
        }
        let points = &self.points;
        let point = |sample: usize| points.partition_point(|&point| point < sample);
        let none = || vec![0; points.len() + 1];
        let sums = self.groups.entry((kind, exporter.cloned())).or_insert_with(none);
        for &(from, until, cost) in &lived.parts {
            let cost = i128::from(cost.unwrap_or(0));
            sums[point(from)] += cost;
            sums[point(until + 1)] -= cost;
        }
        self.unknown_costs += u64::from(lived.parts.iter().any(|(.., cost)| cost.is_none()));
        let born = lived.parts.iter().map(|part| part.0).min();
        if let Some(born) = born.filter(|&sample| sample > 0) {
            self.births[point(born)] += 1;
        }
        let died = lived.parts.iter().map(|part| part.1 + 1).max();
        if let Some(died) = died.filter(|&sample| sample < self.ids.len()) {
            self.deaths[point(died)] += 1;
        }
    }

    fn course(self, samples: &[Sample], partial: u64) -> Course {
        let number = self.points.len();
        let group = |((kind, exporter), differences): (_, Vec<i128>)| {
            let mut sum = 0;
            let bytes = differences.into_iter().take(number).map(|difference| {
                sum += difference;
                u64::try_from(sum).unwrap_or(u64::MAX)
            });
            CourseGroup { kind, exporter, bytes: bytes.collect() }
        };
        Course {
            points: self.points.iter().map(|&at| samples[at]).collect(),
            samples: samples.len() as u64,
            partial,
            groups: self.groups.into_iter().map(group).collect(),
            births: self.births,
            deaths: self.deaths,
            unknown_costs: self.unknown_costs,
        }
    }
}

/// The kind of each buffer's row.
fn kinds(db: &Connection) -> Result<HashMap<i64, Kind>, Unreadable> {
    let mut statement = db.prepare_cached("SELECT id, kind FROM buffer")?;
    let kinds = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, Word<Kind>>(1)?.0)))?;
    Ok(kinds.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::evenly;
    use crate::history::Recorder;
    use crate::model::examples::{buffer, snapshot};
    use crate::model::{Buffer, Gaps};

    /// Check that the first and the last are among those that are chosen, and each at most once.
    #[test]
    fn points() {
        assert_eq!(evenly(3, 600), [0, 1, 2]);
        assert_eq!(evenly(1, 600), [0]);
        assert!(evenly(0, 600).is_empty());
        assert_eq!(evenly(11, 3), [0, 5, 10]);
        assert_eq!(evenly(11, 0), [0, 10]);
        let many = evenly(604_801, 600);
        assert!(many.len() == 600 && many.is_sorted_by(|a, b| a < b) && many[599] == 604_800);
    }

    fn sized(ino: u64, size: u64) -> Buffer {
        buffer(ino, Some(size), Some(0), Vec::new())
    }

    /// Check bytes at each point, births and deaths, with all points and with few.
    #[test]
    fn bytes_births_and_deaths() {
        let mut recorder = Recorder::in_memory().unwrap();
        let worlds = [
            vec![sized(1, 10)],
            vec![sized(1, 10), sized(2, 5)],
            vec![sized(1, 30), sized(2, 5)],
            vec![sized(2, 5), buffer(3, None, Some(0), Vec::new())],
        ];
        for (nth, buffers) in (0..).zip(worlds) {
            let mut snapshot = snapshot(buffers, Gaps::default());
            snapshot.taken_at = SystemTime::UNIX_EPOCH + Duration::from_secs(nth);
            recorder.append(snapshot).unwrap();
        }
        let recording = recorder.finish().unwrap();
        let (first, last) = recording.span().unwrap().unwrap();
        let course = recording.course(first, last, 600, |_| true).unwrap();
        assert_eq!((course.points.len(), course.samples, course.groups.len()), (4, 4, 1));
        assert_eq!(course.groups[0].bytes, [10, 15, 35, 5]);
        assert_eq!((&course.births[..], &course.deaths[..]), (&[0, 1, 0, 1][..], &[0, 0, 0, 1][..]));
        assert_eq!(course.unknown_costs, 1);
        let course = recording.course(first, last, 2, |_| true).unwrap();
        assert_eq!((&course.groups[0].bytes[..], &course.births[..]), (&[10, 5][..], &[0, 2][..]));
        let none = recording.course(first, last, 600, |_| false).unwrap();
        assert!(none.groups.is_empty() && none.births == [0; 4]);
    }
}
