//! `lsbuf record` where the disk is full, and where the wall clock jumps.
//!
//! What a recording has is read by SQLite, not by lsbuf.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rusqlite::Connection;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::UnshareFlags;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::answer::{Answer, LSBUF};
use crate::kernels::Kernels;
use crate::make;
use crate::scenario::{Ctx, Scenario};
use crate::sys::task;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "recording_full_disk",
        claim: "On a full disk the oldest samples go first, then new ones are lost and counted, and with room again it goes on",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: full_disk,
    },
    Scenario {
        name: "recording_clock_jumps",
        claim: "A wall clock that jumps by days loses and reorders no sample, and a time up to the last one finds the newest sample of it",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: clock_jumps,
    },
];

/// A recorder that runs.
struct Recorder(Child);

impl Recorder {
    fn start(file: &str, arguments: &[&str]) -> anyhow::Result<Recorder> {
        let mut record = Command::new(LSBUF);
        record.args(["record", file, "--every", "20ms", "--kind", "memfd"]).args(arguments);
        record.stderr(Stdio::piped()).spawn().context("starting the recorder").map(Recorder)
    }

    /// Ends it. Returns what it said.
    fn end(self) -> anyhow::Result<String> {
        kill_process(Pid::from_child(&self.0), Signal::INT).context("ending the recorder")?;
        let ended = self.0.wait_with_output().context("waiting for the recorder")?;
        ensure!(ended.status.success(), "the recorder failed: {}", ended.status);
        Ok(String::from_utf8_lossy(&ended.stderr).into_owned())
    }
}

/// A number that the recording has.
fn ask(file: &str, sql: &str) -> anyhow::Result<i64> {
    let db = Connection::open(file).context("opening the recording")?;
    db.query_row(sql, [], |row| row.get(0)).with_context(|| format!("asking the recording: {sql}"))
}

const OLDEST: &str = "SELECT min(id) FROM sample";
const NEWEST: &str = "SELECT coalesce(max(id), 0) FROM sample";

/// How long to wait for what is to happen. An emulated machine that shares its processor with
/// others may need more than a minute.
const PATIENCE: Duration = Duration::from_secs(200);

/// Waits until the recording has a sample after that one.
fn wait_for(file: &str, sample: i64) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while !Path::new(file).exists() || ask(file, NEWEST).unwrap_or(0) <= sample {
        ensure!(Instant::now() < end, "no sample after {sample} in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Replaces memfds by others with other numbers, so that every sample is a large one.
fn replace(memfds: &mut Vec<OwnedFd>) -> anyhow::Result<()> {
    memfds.clear();
    for _ in 0..150 {
        memfds.push(make::memfd(b"replaced in every sample", 1, 0)?);
    }
    Ok(())
}

fn full_disk(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FILE: &str = "/tmp/full/r.db";
    task::enter_new(UnshareFlags::NEWNS)?;
    fs::create_dir_all("/tmp/full")?;
    mount("none", "/tmp/full", "tmpfs", MountFlags::empty(), Some(c"size=8m")).context("mounting")?;
    let recorder = Recorder::start(FILE, &[])?;
    let mut memfds = Vec::new();
    wait_for(FILE, 0)?;
    let end = Instant::now() + PATIENCE;
    while ask(FILE, OLDEST)? == 1 {
        ensure!(Instant::now() < end, "nothing was deleted in {PATIENCE:?}");
        replace(&mut memfds)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    ctx.check("the oldest samples went while there was no other way", ask(FILE, OLDEST)? > 1)?;
    let samples = "SELECT count(*) = max(id) - min(id) + 1 FROM sample";
    ctx.check_eq("all after them are there", 1, ask(FILE, samples)?)?;

    // Whatever it frees is taken at once.
    let mut filler = File::create("/tmp/full/filler")?;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        // This is no page size: the filler is written in small pieces, so that little room is left.
        while filler.write_all(&[b'x'; 4096]).is_ok() {}
        replace(&mut memfds)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    let newest = ask(FILE, NEWEST)?;
    let complete = Answer::ask(&["--from", FILE, "--at", "end", "--kind", "memfd"]);
    ctx.check("the newest sample is read on a full disk", complete.is_ok())?;
    drop(filler);
    fs::remove_file("/tmp/full/filler")?;
    wait_for(FILE, newest + 1)?;
    replace(&mut memfds)?;
    wait_for(FILE, ask(FILE, NEWEST)? + 1)?;
    let said = recorder.end()?;
    let last = said.lines().last().unwrap_or_default();
    ctx.check(format!("lost samples are counted: {last}"), last.contains(" lost for lack of space; "))?;
    let lines = said.lines().filter(|line| line.contains("no space is left")).count();
    ctx.check("a full disk is told", lines > 0)?;
    let answer = Answer::ask(&["--from", FILE, "--kind", "memfd", "--name", "replaced in*"])?;
    ctx.check_eq("buffers of the last sample", memfds.len(), answer.list("buffers").len())
}

/// Sets the wall clock forward, or back.
fn jump(seconds: i64) -> anyhow::Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    clock_settime(ClockId::Realtime, Timespec { tv_sec: now.tv_sec + seconds, ..now })
        .context("setting the clock")
}

fn clock_jumps(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FILE: &str = "/tmp/jumps.db";
    const DAY: i64 = 86_400;
    // What is older than an hour is deleted.
    let recorder = Recorder::start(FILE, &["--keep", "1h"])?;
    wait_for(FILE, 40)?;
    let mut made = Vec::new();
    let jumps = [DAY, -2 * DAY, 3600, -1, 400 * DAY, -399 * DAY];
    for (nth, seconds) in jumps.into_iter().enumerate() {
        jump(seconds)?;
        made.push(make::memfd(format!("jump {nth}").as_bytes(), 1, 0)?);
        wait_for(FILE, ask(FILE, NEWEST)? + 20)?;
    }
    recorder.end()?;
    jump(-jumps.iter().sum::<i64>())?;

    let all = "SELECT count(*) = max(id) AND min(id) = 1 FROM sample";
    ctx.check_eq("no sample is lost", 1, ask(FILE, all)?)?;
    let reordered = "SELECT count(*) FROM (SELECT boottime - lag(boottime) OVER (ORDER BY id) AS passed FROM sample) \
                     WHERE passed <= 0";
    ctx.check_eq("samples out of order", 0, ask(FILE, reordered)?)?;
    let jumped = "SELECT count(*) FROM (SELECT taken_at - lag(taken_at) OVER (ORDER BY id) AS passed FROM sample) \
                  WHERE passed NOT BETWEEN 0 AND 60000000";
    // The jump by a second is none of a minute, but goes back.
    ctx.check_eq("jumps", jumps.len(), ask(FILE, jumped)?)?;
    for nth in 0..jumps.len() {
        let born = format!("SELECT min(first) FROM buffer_state WHERE name = 'jump {nth}'");
        let time = format!("SELECT taken_at / 1000000 + 1 FROM sample WHERE id = ({born})");
        let seconds = ask(FILE, &time)?;
        let newest = format!("SELECT max(id) FROM sample WHERE taken_at <= {seconds} * 1000000");
        let buffers =
            format!("SELECT count(*) FROM buffer_at WHERE sample = ({newest}) AND name GLOB 'jump *'");
        let db = Connection::open(FILE).context("opening the recording")?;
        let sql = format!("SELECT strftime('%Y-%m-%dT%H:%M:%SZ', {seconds}, 'unixepoch')");
        let at: String = db.query_row(&sql, [], |row| row.get(0)).context("asking the recording")?;
        let answer = Answer::ask(&["--from", FILE, "--at", &at, "--kind", "memfd", "--name", "jump *"]);
        // The clock was set back: what it showed before is after the end.
        if seconds > ask(FILE, "SELECT taken_at / 1000000 FROM sample ORDER BY id DESC LIMIT 1")? {
            ctx.check(format!("the second after jump {nth} is refused"), answer.is_err())?;
            continue;
        }
        let answer = answer?;
        let found = answer.list("buffers").len() as i64;
        ctx.check_eq(format!("buffers at the second after jump {nth}"), ask(FILE, &buffers)?, found)?;
    }
    fs::remove_file(FILE).context("removing the recording")
}
