//! A buffer that is held all the time, but never long by the same process or program.
//!
//! Each process of a chain inherits the buffer, forks its successor and exits. A reader of the list
//! of processes can look at a process that has just passed the buffer on, and look for its
//! successor before it exists.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::io::{FdFlags, fcntl_setfd};

use super::claims::Fact;
use super::sort::Sort;
use crate::actor::{Actor, Held, Stage};
use crate::answer::Answer;
use crate::programs;
use crate::scenario::Ctx;
use crate::sys::{self, page_size, task};

const NAME: &str = "relay";

/// How often lsbuf runs.
const TIMES: usize = 10;

/// How long each process holds the buffer before it forks.
const STAY: Duration = Duration::from_micros(50);

/// Pauses, and then passes what this process has inherited to a child, again and again, until the
/// scenario tells it to stop.
fn hand_on(stage: &mut Stage, ino: u64, size: u64) -> anyhow::Result<()> {
    stage.pause(&[Held { ino, size, ..Held::default() }])?;
    while !stage.is_told()? {
        task::hand_over()?;
        sleep(STAY);
    }
    Ok(())
}

/// Starts a chain, runs lsbuf, and ends the chain.
fn ask_along(ctx: &mut Ctx, chain: &mut Actor, references: u64, holders: Vec<u32>) -> anyhow::Result<()> {
    let ino = chain.paused_with_one()?.ino;
    chain.go_on()?;
    Fact { kind: "memfd", ino, references, holders }.ask(ctx, "along the chain", TIMES)?;
    let first = fs::read_to_string(format!("/proc/{}/stat", chain.pid))?;
    ctx.check("the first process has ended", first.contains(") Z "))?;
    chain.go_on()?;
    // The last process of the chain closes the socket.
    ensure!(chain.paused().is_err(), "the chain goes on");
    Ok(())
}

/// Checks that the buffer is freed.
fn check_gone(ctx: &mut Ctx) -> anyhow::Result<()> {
    let answer = Answer::ask(&["--kind", "memfd"])?;
    ctx.check_eq("memfds when the chain has ended", 0, answer.list("buffers").len())
}

pub(super) fn of_an_fd(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut chain = Actor::start(b"relay", |stage| {
        let (_fd, held) = Sort::Memfd.make(NAME)?;
        hand_on(stage, held.ino, held.size)
    })?;
    ask_along(ctx, &mut chain, 1, vec![])?;
    check_gone(ctx)
}

pub(super) fn of_a_mapping(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut chain = Actor::start(b"relay", |stage| {
        let (fd, held) = Sort::Memfd.make(NAME)?;
        sys::map(&fd, 0, page_size())?;
        drop(fd);
        hand_on(stage, held.ino, held.size)
    })?;
    ask_along(ctx, &mut chain, 1, vec![])?;
    check_gone(ctx)
}

pub(super) fn reopened(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, to) = UnixStream::pair()?;
    let mut stable = Actor::start(b"stable", |stage| {
        let (fd, held) = Sort::Memfd.make(NAME)?;
        sys::send_any(&from, &[fd.as_fd()])?;
        stage.pause(&[held])
    })?;
    let held = stable.paused_with_one()?;
    let mut chain = Actor::start(b"relay", |stage| {
        let fd = sys::receive_any(&to)?.pop().context("no fd")?;
        let again = sys::open_again(&fd)?;
        drop(fd);
        sys::map(&again, 0, page_size())?;
        drop(again);
        hand_on(stage, held.ino, held.size)
    })?;
    ask_along(ctx, &mut chain, 2, vec![stable.pid])?;
    Sort::Memfd.compare(ctx, NAME, vec![held])
}

pub(super) fn runs_itself_again(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"first", |stage| {
        let (fd, held) = Sort::Memfd.make(NAME)?;
        fcntl_setfd(&fd, FdFlags::empty())?;
        stage.pause(&[held])?;
        Err(programs::run_again())
    })?;
    let held = actor.paused_with_one()?;
    Sort::Memfd.compare(ctx, NAME, vec![held.clone()])?;
    actor.go_on()?;
    let fact = Fact { kind: "memfd", ino: held.ino, references: 1, holders: vec![actor.pid] };
    fact.ask(ctx, "while it runs itself again", TIMES)?;
    let comm = fs::read_to_string(format!("/proc/{}/comm", actor.pid))?;
    ctx.check_eq("what it runs by then", "exe", comm.trim_end())
}
