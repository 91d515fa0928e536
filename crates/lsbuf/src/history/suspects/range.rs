//! The samples of a range: when each was taken, which are partial, and where more was looked for.
//!
//! Limit: what one run of the recorder did not look for, or could not see, and the next one did,
//! need not be born between them. It counts as older.

use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use crate::history::rows::{self, Unreadable};
use crate::history::value::{Json, Unsigned, time};
use crate::model::{Kind, Kinds};

/// The samples of a range.
pub(super) struct Range {
    pub(super) ids: Vec<i64>,
    /// The time of each after the first one.
    pub(super) times: Vec<Duration>,
    /// Where a run begins that looks for more than the one before: the index of its first sample,
    /// and the kinds that may have been there before.
    pub(super) widened: Vec<(usize, Kinds)>,
}

/// What was read of the sample before.
struct Previous {
    boot: i64,
    run: i64,
    taken_at: SystemTime,
    boottime: Duration,
}

impl Range {
    pub(super) fn read(db: &Connection, first: i64, last: i64) -> Result<Range, Unreadable> {
        let mut statement = db.prepare_cached(
            "SELECT sample.id, run.boot, run.id, taken_at, boottime FROM sample \
             JOIN run ON run.id = sample.run WHERE sample.id BETWEEN ?1 AND ?2 ORDER BY sample.id",
        )?;
        let mut rows = statement.query([first, last])?;
        let mut range = Range { ids: Vec::new(), times: Vec::new(), widened: Vec::new() };
        let mut before: Option<Previous> = None;
        while let Some(row) = rows.next()? {
            let now = Previous {
                boot: row.get(1)?,
                run: row.get(2)?,
                taken_at: time(row.get(3)?),
                boottime: Duration::from_micros(row.get::<_, Unsigned>(4)?.0),
            };
            let id = row.get(0)?;
            let passed = match &before {
                None => Duration::ZERO,
                Some(before) if before.boot == now.boot => now.boottime.saturating_sub(before.boottime),
                Some(before) => now.taken_at.duration_since(before.taken_at).unwrap_or_default(),
            };
            if let Some(before) = before.as_ref().filter(|before| before.run != now.run) {
                range.widen(db, before.run, id)?;
            }
            range.times.push(range.length().saturating_add(passed));
            range.ids.push(id);
            before = Some(now);
        }
        Ok(range)
    }

    pub(super) fn length(&self) -> Duration {
        self.times.last().copied().unwrap_or_default()
    }

    /// Notes what a run looks for, and the one before it did not.
    fn widen(&mut self, db: &Connection, before: i64, sample: i64) -> Result<(), Unreadable> {
        let saw = |sample: i64| {
            let sql = "SELECT coalesce(max(saw_every_process), 0) FROM coverage_at WHERE sample = ?1";
            db.prepare_cached(sql)?.query_row([sample], |row| row.get::<_, bool>(0))
        };
        let looked_for = |run: i64| {
            let sql = "SELECT looked_for FROM run WHERE id = ?1";
            db.prepare_cached(sql)?.query_row([run], |row| row.get::<_, Json<Vec<Kind>>>(0))
        };
        let saw_before = self.ids.last().map(|&last| saw(last)).transpose()?.unwrap_or_default();
        let is_known = saw_before || !saw(sample)?;
        let looked_for: Kinds = looked_for(before).map(|kinds| kinds.0.into_iter().collect())?;
        let new = Kind::ALL.iter().copied().filter(|&kind| !is_known || !looked_for.has(kind));
        let new: Vec<Kind> = new.collect();
        if !new.is_empty() {
            self.widened.push((self.ids.len(), new.into_iter().collect()));
        }
        Ok(())
    }

    /// How many of the samples are partial.
    pub(super) fn partial(&self, db: &Connection) -> Result<u64, Unreadable> {
        let spans = rows::partial_samples(db)?.into_iter();
        let within = spans.filter_map(|(first, last)| self.within(first.0, last.0));
        Ok(within.map(|(from, until)| until - from + 1).sum::<usize>() as u64)
    }

    /// The samples of the range among those, by their indices, both included. `None`: there are
    /// none.
    pub(super) fn within(&self, first: i64, last: i64) -> Option<(usize, usize)> {
        let from = self.ids.partition_point(|&id| id < first);
        let until = self.ids.partition_point(|&id| id <= last);
        (from < until).then(|| (from, until - 1))
    }
}
