//! The world is recorded while it runs, and every recorded sample is judged like an answer.
//!
//! `lsbuf record` runs beside the players. After each batch its new samples are asked for
//! (`--from`, `--at`), so that each stored interval is compared with the journal at each of its
//! samples. The file itself tells when each sample was taken: SQLite reads it, and no code of lsbuf
//! does.
//!
//! Limits: a sample that was taken while one batch ended and the next one began is judged by
//! neither, and counted. So is one of a pause that has notes, because its figures are estimates.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

use super::history::History;
use super::journal::now;
use super::judge::TimedAnswer;
use super::tally::SoakTally;
use super::world::SoakWorld;
use crate::answer::{Answer, LSBUF};

/// The recording.
const FILE: &str = "/tmp/soak.db";
/// The kinds of the world.
const KINDS: &str = "dmabuf,memfd";
/// How much the two clocks may be misread.
const SLACK: i128 = 1_000_000;
/// How long each pause is at least, so that a sample is taken in it.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// Something that is true of a span of time, by the journal's clock.
#[derive(Debug)]
struct Span<T> {
    from: u64,
    to: u64,
    what: T,
}

/// The recorder, and what happened since its samples were judged.
#[derive(Debug)]
pub(super) struct Recorded {
    recorder: Child,
    /// The last sample that was judged.
    judged: i64,
    /// When the world of the next history was paused.
    since: u64,
    told: Vec<Span<History>>,
    pauses: Vec<Span<SoakWorld>>,
}

/// When a sample was taken, and its time as `--at` takes it.
struct Moment {
    began: u64,
    ended: u64,
    at: String,
}

impl Recorded {
    /// Starts the recorder.
    pub(super) fn start() -> anyhow::Result<Recorded> {
        let mut record = Command::new(LSBUF);
        record.args(["record", FILE, "--every", "20ms", "--kind", KINDS]).stdout(Stdio::null());
        let recorder = record.spawn().context("starting the recorder")?;
        Ok(Recorded { recorder, judged: 0, since: now(), told: Vec::new(), pauses: Vec::new() })
    }

    /// Says what happened up to now. Since `paused` the world has been paused.
    pub(super) fn tell(&mut self, history: History, paused: u64) {
        self.told.push(Span { from: self.since, to: now(), what: history });
        self.since = paused;
    }

    /// Says that the world was paused from then until now.
    pub(super) fn paused(&mut self, from: u64, world: &SoakWorld) {
        self.pauses.push(Span { from, to: now(), what: world.clone() });
    }

    /// Judges the samples that are new. The world must be paused.
    pub(super) fn judge(&mut self, tally: &mut SoakTally, say: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        if let Some(last) = self.told.last_mut() {
            last.to = now();
        }
        let mut seen = vec![false; self.pauses.len()];
        for moment in self.moments()? {
            let covers = |from: u64, to: u64| from <= moment.began && moment.ended <= to;
            let pause = self.pauses.iter().position(|pause| covers(pause.from, pause.to));
            let told = self.told.iter().find(|told| covers(told.from, told.to));
            let mut lsbuf = Command::new(LSBUF);
            lsbuf.args(["--json", "--from", FILE, "--at", &moment.at, "--kind", KINDS]);
            let answer = Answer::from(&mut lsbuf)?;
            tally.recorded += 1;
            if let Some(pause) = pause {
                seen[pause] |= tally.judged_paused(&self.pauses[pause].what, &answer, say);
            } else if let Some(told) = told {
                let Moment { began, ended, .. } = moment;
                tally.judged_running(&told.what, &[TimedAnswer { began, ended, answer }], say);
            } else {
                tally.unjudged += 1;
            }
        }
        tally.recorded_pauses += seen.iter().filter(|seen| **seen).count() as u64;
        tally.unrecorded_pauses += seen.iter().filter(|seen| !**seen).count() as u64;
        self.told.clear();
        self.pauses.clear();
        Ok(())
    }

    /// The samples that are new.
    fn moments(&mut self) -> anyhow::Result<Vec<Moment>> {
        // The recorder may not have made the file yet.
        if !Path::new(FILE).exists() {
            return Ok(Vec::new());
        }
        let db = Connection::open(FILE).context("opening the recording")?;
        let sql = "SELECT id, taken_at, boottime, strftime('%Y-%m-%dT%H:%M:%S', taken_at / 1000000, 'unixepoch') \
                   || printf('.%06dZ', taken_at % 1000000) FROM sample WHERE id > ?1 ORDER BY id";
        let mut statement = db.prepare(sql).context("asking the recording")?;
        let rows = statement.query_map([self.judged], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get(3)?))
        });
        // No guest is suspended and nobody sets its clock, so both clocks go like the journal's.
        let ahead = nanos(ClockId::Realtime) - nanos(ClockId::Monotonic);
        let mut moments = Vec::new();
        for row in rows.context("asking the recording")? {
            let (id, taken_at, boottime, at) = row.context("reading the recording")?;
            ensure!(id == self.judged + 1, "sample {id} came after {}", self.judged);
            self.judged = id;
            let began = i128::from(taken_at) * 1000 - ahead - SLACK;
            let ended = i128::from(boottime) * 1000 + SLACK;
            moments.push(Moment { began: u64::try_from(began)?, ended: u64::try_from(ended)?, at });
        }
        Ok(moments)
    }

    /// Ends the recorder.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.recorder), Signal::INT).context("ending the recorder")?;
        let status = self.recorder.wait().context("waiting for the recorder")?;
        ensure!(status.success(), "the recorder failed: {status}");
        for end in ["", "-wal", "-shm"] {
            // Those of SQLite's log go with the last process that has the file open.
            let _ = std::fs::remove_file(format!("{FILE}{end}"));
        }
        Ok(())
    }
}

fn nanos(clock: ClockId) -> i128 {
    let time = clock_gettime(clock);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}
