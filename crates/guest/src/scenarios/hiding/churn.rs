//! Processes that start and end while they are read. What they inherit or release must not be shown
//! as the kernel's, and the figures of buffers that they do not touch must stay right.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use dmabuf::DmaBuf;
use rustix::process::{WaitOptions, wait};

use crate::actor::{Actor, Stage};
use crate::answer::{Answer, LSBUF, Truth};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, holder_of_one};
use crate::sys::{self, task};

/// The file in which an actor writes how many rounds it did.
const ROUNDS: &str = "/tmp/rounds";

/// What was seen while processes started and ended.
#[derive(Default)]
struct ChurnFindings {
    answers: usize,
    wrong: Vec<String>,
    unbalanced: Vec<String>,
    not_the_kernels: Vec<String>,
}

/// Lets the actor continue, takes `answers` answers, and stops the actor. In each answer it
/// compares the account of a buffer that no process touches with the truth. It also collects exact
/// references of the kernel, because here the kernel has none.
fn watch(actor: &mut Actor, quiet: &Truth, answers: usize) -> anyhow::Result<ChurnFindings> {
    let (ino, size) = quiet.held.first().map_or((0, 0), |held| (held.ino, held.size));
    let mut seen = ChurnFindings { answers, ..ChurnFindings::default() };
    actor.go_on()?;
    for _ in 0..answers {
        let answer = Answer::ask(&[])?;
        let line = answer.line(ino)?;
        if line != quiet.line(size) {
            seen.wrong.push(line);
        }
        seen.unbalanced.extend(answer.unbalanced());
        let kernels =
            |b: &&serde_json::Value| b["estimate"] == false && b["refs"]["kernel"].as_u64() > Some(0);
        seen.not_the_kernels.extend(answer.list("buffers").iter().filter(kernels).map(|b| b.to_string()));
    }
    actor.go_on()?;
    actor.paused()?;
    Ok(seen)
}

/// Pauses, and then runs rounds until the scenario tells the actor to stop. Each round starts a
/// child. Writes the number of rounds.
fn rounds(stage: &mut Stage, mut round: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    /// A machine too slow for this pace would have more and more children, and no time for anything
    /// else.
    const MOST_ALIVE: u64 = 8;
    stage.pause(&[])?;
    let (mut done, mut ended) = (0_u64, 0);
    while !stage.is_told()? {
        round()?;
        done += 1;
        loop {
            let too_many = done - ended > MOST_ALIVE;
            let options = if too_many { WaitOptions::empty() } else { WaitOptions::NOHANG };
            let Ok(Some(_)) = wait(options) else { break };
            ended += 1;
        }
    }
    fs::write(ROUNDS, done.to_string())?;
    stage.pause(&[])
}

fn conclude(ctx: &mut Ctx, seen: &ChurnFindings, what: &str) -> anyhow::Result<()> {
    let rounds: usize = fs::read_to_string(ROUNDS)?.parse()?;
    ctx.check(format!("{rounds} {what} are more than the {} answers", seen.answers), rounds > seen.answers)?;
    ctx.check_eq("wrong accounts of the buffer that no process touches", "[]", format!("{:?}", seen.wrong))?;
    ctx.check_eq("exact accounts that do not balance", "[]", format!("{:?}", seen.unbalanced))?;
    ctx.check_eq("references shown as the kernel's", "[]", format!("{:?}", seen.not_the_kernels))
}

pub(super) fn holders_exit(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FDS: usize = 200;
    let mut quiet = holder_of_one()?;
    let truth = Truth::held(make::plain_exporter(), vec![quiet.paused_with_one()?]);
    let mut actor = Actor::start(b"many", |stage| {
        let (shared, _) = make::plain(SIZE)?;
        rounds(stage, || {
            // Closing so many fds takes a while. In that time the process has no fd table any more.
            sys::fork(|| {
                let fds: Result<Vec<DmaBuf>, _> = (0..FDS).map(|_| shared.try_clone()).collect();
                sleep(Duration::from_millis(2));
                std::mem::forget(fds);
                0
            })?;
            sleep(Duration::from_millis(10));
            Ok(())
        })
    })?;
    actor.paused()?;
    let seen = watch(&mut actor, &truth, 8)?;
    conclude(ctx, &seen, "holders of 200 fds that ended")
}

pub(super) fn slow_forks(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut quiet = holder_of_one()?;
    let truth = Truth::held(make::plain_exporter(), vec![quiet.paused_with_one()?]);
    let mut actor = Actor::start(b"slow", |stage| {
        let (_inherited, _) = make::plain(SIZE)?;
        rounds(stage, || task::fork_slowly().map(drop))
    })?;
    actor.paused()?;
    let seen = watch(&mut actor, &truth, 8)?;
    conclude(ctx, &seen, "forks that took longer than a round")
}

pub(super) fn slow_unshares(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut quiet = holder_of_one()?;
    let truth = Truth::held(make::plain_exporter(), vec![quiet.paused_with_one()?]);
    let mut actor = Actor::start(b"slow", |stage| {
        let (_copied, _) = make::plain(SIZE)?;
        // The copied table is freed with the thread.
        let unshare = || thread::spawn(task::unshare_fds_slowly).join();
        rounds(stage, || unshare().map_err(|_| anyhow::anyhow!("a thread died"))?)
    })?;
    actor.paused()?;
    let seen = watch(&mut actor, &truth, 8)?;
    conclude(ctx, &seen, "fd tables copied")
}

pub(super) fn storm(ctx: &mut Ctx) -> anyhow::Result<()> {
    /// 10,000 programs a minute.
    const PACE: Duration = Duration::from_millis(6);
    let mut quiet = holder_of_one()?;
    let truth = Truth::held(make::plain_exporter(), vec![quiet.paused_with_one()?]);
    let mut actor = Actor::start(b"storm", |stage| {
        let (_inherited, _) = make::plain(SIZE)?;
        let (mut next, mut vforked) = (Instant::now(), false);
        rounds(stage, || {
            next += PACE;
            // In both cases the child holds the buffer by a copied fd until it executes the
            // program.
            let mut program = Command::new(LSBUF);
            program.arg("--version").stdout(Stdio::null());
            vforked = !vforked;
            if vforked {
                drop(program.spawn()?);
            } else {
                sys::fork(|| program.exec().raw_os_error().unwrap_or(1))?;
            }
            sleep(next.saturating_duration_since(Instant::now()));
            Ok(())
        })
    })?;
    actor.paused()?;
    let seen = watch(&mut actor, &truth, 5)?;
    conclude(ctx, &seen, "programs started")
}
