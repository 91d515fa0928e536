//! One pid with several holders, one after another: processes that get the same pid, and programs
//! that one process executes.
//!
//! Incarnation `n` has the command name `inc-n` and holds one buffer of `n` pages for some
//! milliseconds. It has the name before the buffer, and loses the buffer before the name or with
//! it. So an answer with two different numbers is wrong.

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

/// How long a process holds its buffer. A scan takes longer.
const LIFE: Duration = Duration::from_millis(8);

/// How long a program holds its buffer. Starting a program takes long, so with less time it would
/// rarely be seen.
const LONG_LIFE: Duration = Duration::from_millis(100);

/// `(nth, times, more)`: every `nth` incarnation lives `times` as long, and one time longer for
/// each `more` incarnations before it. On a busy machine many start and end before enough have been
/// seen, and short ones would hardly ever be seen.
const OLD: (u64, u32, u64) = (3, 5, 20);

/// How many sightings a scenario needs.
const SIGHTINGS: usize = 10;

/// How long a scenario waits for them before it fails.
const WATCH: Duration = Duration::from_secs(100);

/// A pid that no process has reached so soon after boot.
const REUSED: u32 = 30_000;

/// The mode that runs [`become_next`].
pub(crate) const MODE: &str = "incarnation";

fn live(number: u64, life: Duration) -> anyhow::Result<()> {
    set_name(&std::ffi::CString::new(format!("inc-{number}"))?)?;
    let (_buf, _) = make::plain(number * page())?;
    let (nth, times, more) = OLD;
    let times = times.saturating_add(u32::try_from(number / more)?);
    sleep(if number.is_multiple_of(nth) { life * times } else { life });
    Ok(())
}

/// The mode: lives as the incarnation whose number is the argument, and executes the program of the
/// next, forever.
pub(crate) fn become_next(arguments: &[String]) -> anyhow::Result<()> {
    let number = arguments.first().and_then(|n| n.parse().ok()).context("usage: incarnation NUMBER")?;
    live(number, LONG_LIFE)?;
    Err(run(number + 1))
}

/// Executes the next incarnation. Returns only if that fails.
fn run(number: u64) -> anyhow::Error {
    let error = Command::new("/proc/self/exe").args([MODE, &number.to_string()]).exec();
    anyhow::Error::new(error).context("becoming the next incarnation")
}

pub(super) fn pid(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"recycler", |stage| {
        stage.pause(&[])?;
        for number in 1.. {
            if !task::fork_as(REUSED, || i32::from(live(number, LIFE).is_err()))? {
                bail!("process id {REUSED} is taken");
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

/// Takes answers and compares the name of that pid with the buffer that it holds.
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
