//! One pid, many holders after each other: processes that get the same pid, and programs that one process runs.
//!
//! Incarnation `n` is called `inc-n` and holds one buffer, of `n` pages, for some milliseconds. It has its name before
//! it has the buffer and loses the buffer before or with the name, so an answer with two numbers is a wrong one.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::set_name;

use crate::actor::Actor;
use crate::answer::Answer;
use crate::make;
use crate::scenario::Ctx;
use crate::sys::{page, task};

/// How long a process holds its buffer. Scanning takes longer.
const LIFE: Duration = Duration::from_millis(8);

/// How long a program holds its buffer: starting one takes so long that less would rarely be seen.
const LONG_LIFE: Duration = Duration::from_millis(100);

/// Every so many-th lives so many times as long, and once more for each so many that there were: on a busy machine, where many
/// come and go before enough have been seen, the others would hardly ever be.
const OLD: (u64, u32, u64) = (3, 5, 20);

/// How many sightings make a scenario.
const SIGHTINGS: usize = 10;

/// How long to wait for them at most; the scenario fails then.
const WATCH: Duration = Duration::from_secs(100);

/// A pid that no process of a young machine has come to.
const REUSED: u32 = 30_000;

/// The mode that [`become_next`] starts.
pub(crate) const MODE: &str = "incarnation";

fn live(number: u64, life: Duration) -> anyhow::Result<()> {
    set_name(&std::ffi::CString::new(format!("inc-{number}"))?)?;
    let (_buf, _) = make::plain(number * page())?;
    let (nth, times, more) = OLD;
    let times = times.saturating_add(u32::try_from(number / more)?);
    sleep(if number.is_multiple_of(nth) { life * times } else { life });
    Ok(())
}

/// The mode: lives as the incarnation whose number is the argument and runs the program of the next, for ever.
pub(crate) fn become_next(arguments: &[String]) -> anyhow::Result<()> {
    let number = arguments.first().and_then(|n| n.parse().ok()).context("usage: incarnation NUMBER")?;
    live(number, LONG_LIFE)?;
    Err(run(number + 1))
}

/// Becomes an incarnation; returns only if that fails.
fn run(number: u64) -> anyhow::Error {
    let error = Command::new("/proc/self/exe").args([MODE, &number.to_string()]).exec();
    anyhow::Error::new(error).context("becoming the next incarnation")
}

pub(super) fn pid(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"recycler", |stage| {
        stage.pause(&[])?;
        for number in 1.. {
            if !task::fork_as(REUSED, || i32::from(live(number, LIFE).is_err()))? {
                bail!("somebody has process id {REUSED}");
            }
            waitpid(i32::try_from(REUSED).ok().and_then(Pid::from_raw), WaitOptions::empty())?;
        }
        Ok(())
    })?;
    actor.paused()?;
    actor.go_on()?;
    watch(ctx, REUSED)
}

pub(super) fn exec(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"shell", |stage| {
        stage.pause(&[])?;
        Err(run(1))
    })?;
    actor.paused()?;
    actor.go_on()?;
    watch(ctx, actor.pid)
}

/// Takes answers and looks at what that pid holds under which name.
fn watch(ctx: &mut Ctx, pid: u32) -> anyhow::Result<()> {
    let (mut answers, mut right, mut mixed, mut unbalanced) = (0, 0, Vec::new(), Vec::new());
    let end = Instant::now() + WATCH;
    while right + mixed.len() < SIGHTINGS && Instant::now() < end {
        let answer = Answer::ask(&[])?;
        answers += 1;
        unbalanced.extend(answer.unbalanced());
        for buffer in answer.list("buffers") {
            let holds = |h: &serde_json::Value| h["pid"].as_u64() == Some(pid.into());
            if !buffer["holders"].as_array().is_some_and(|holders| holders.iter().any(holds)) {
                continue;
            }
            let Some(comm) = answer.process(pid)?["comm"].as_str() else { continue };
            let expected = format!("inc-{}", buffer["size"].as_u64().context("a size")? / page());
            if comm == expected {
                right += 1;
            } else {
                mixed.push(format!("{comm} instead of {expected}"));
            }
        }
    }
    let sightings = right + mixed.len();
    ctx.check(format!("{sightings} sightings in {answers} answers"), sightings >= SIGHTINGS)?;
    ctx.check_eq("pairs of different incarnations", "[]", format!("{mixed:?}"))?;
    ctx.check_eq("exact accounts that do not balance", "[]", format!("{unbalanced:?}"))
}
