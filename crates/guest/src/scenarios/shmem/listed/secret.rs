//! Secret memory that no fd leads to. It is in no list of the kernel. Many kernels count it as
//! locked memory of the process that has mapped it, as what mlock(2) locks. A mapping that a child
//! inherits is never counted as locked.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;

use anyhow::Context;
use rustix::fs::ftruncate;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::Value;

use super::super::kit::{Shm, ask_and_compare, hold_on, page};
use crate::actor::{Actor, Held, Stage};
use crate::answer::Answer;
use crate::hanging::Hanging;
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::probes::{GROUP, by_user_in, install, lsbuf, parts, remove};
use crate::sys::{self, Region, page_size, shm, task};

/// A process that has locked memory, and mappings of shared memory that the kernel lists.
fn locked() -> anyhow::Result<Actor> {
    let mut actor = Actor::start(b"locked", |stage| {
        shm::lock(shm::map_anonymous(4)?)?;
        for _ in 0..100 {
            shm::map_anonymous(1)?;
        }
        stage.pause(&[])
    })?;
    actor.paused()?;
    Ok(actor)
}

/// Maps secret memory, and closes its fd.
fn map_secret() -> anyhow::Result<(Region, Held)> {
    let fd = shm::secret()?;
    ftruncate(&fd, 4 * page())?;
    let map = sys::map(&fd, 0, 4 * page_size())?;
    shm::touch(map, 2 * page_size())?;
    Ok((map, Held::by_file(&fd)?.and_map(map, 0).without_fds()))
}

/// A process that has mapped secret memory.
fn keeper() -> anyhow::Result<(Actor, Held)> {
    let mut actor = Actor::start(b"keeper", |stage| {
        let (_, held) = map_secret()?;
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    Ok((actor, held))
}

/// What a process that did not map secret memory itself holds of it.
fn inherited(held: &Held) -> Held {
    Held { pid: std::process::id(), ..held.clone() }
}

/// Runs lsbuf, and compares the account of the only secret memory.
fn ask_for_one(ctx: &mut Ctx, held: Vec<Held>) -> anyhow::Result<Answer> {
    let answer = ask_and_compare(ctx, &Shm::held("secretmem", "", held).uncharged())?;
    ctx.check_eq("buffers", 1, answer.list("buffers").len())?;
    Ok(answer)
}

/// Whether lsbuf says that it looked at VMAs.
fn looked_at_vmas(answer: &Answer) -> bool {
    answer.0["scan"]["sources"].as_array().into_iter().flatten().any(|source| source == "bpf:task_vma")
}

pub(super) fn mapped(ctx: &mut Ctx) -> anyhow::Result<()> {
    let _locked = (0..3).map(|_| locked()).collect::<anyhow::Result<Vec<_>>>()?;
    let (_keeper, held) = keeper()?;
    let answer = ask_for_one(ctx, vec![held])?;
    ctx.check_eq("processes", 1, answer.list("processes").len())?;
    ctx.check("the sources say that VMAs were looked at", looked_at_vmas(&answer))
}

pub(super) fn beside_locked_address_space(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (_keeper, held) = keeper()?;
    let status = fs::read_to_string(format!("/proc/{}/status", held.pid))?;
    let counted = status.lines().find(|line| line.starts_with("VmLck:")).context("no VmLck")?;
    if counted.split_ascii_whitespace().nth(1) == Some("0") {
        // It does not count as locked. So any process may have some, and every one is looked at.
        return ask_for_one(ctx, vec![held]).map(drop);
    }
    let _hanging = Hanging::start_program(|| {
        let memfd = make::memfd(b"held", 1, 0)?;
        let held = Held::by_file(&memfd)?;
        Ok((memfd, held))
    })?;
    let answer = ask_for_one(ctx, vec![held])?;
    ctx.check("the answer is from VMAs by BPF", looked_at_vmas(&answer))
}

/// A process with secret memory that it has inherited. Whoever mapped it has ended.
fn heir() -> anyhow::Result<(Actor, Held)> {
    let mut actor = Actor::start(b"heir", |stage: &mut Stage| {
        let (_, held) = map_secret()?;
        task::hand_over()?;
        stage.pause(&[inherited(&held)])
    })?;
    let held = actor.paused_with_one()?;
    Ok((actor, held))
}

pub(super) fn inherited_beside_locked(ctx: &mut Ctx) -> anyhow::Result<()> {
    let _locked = locked()?;
    let (_heir, held) = heir()?;
    ask_for_one(ctx, vec![held]).map(drop)
}

pub(super) fn inherited_from_a_holder(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut opener = Actor::start(b"opener", |stage| {
        let fd = shm::secret()?;
        ftruncate(&fd, page())?;
        let map = sys::map(&fd, 0, page_size())?;
        let held = Held::by_file(&fd)?;
        let mapped = held.clone().and_map(map, 0).without_fds();
        let mut own = Some(fd);
        let (mut ready, mut tell) = std::io::pipe()?;
        let child = sys::fork(|| {
            own = None;
            let begun = set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into);
            match begun.and_then(|()| tell.write_all(b"x")) {
                Ok(()) => hold_on(),
                Err(_) => 1,
            }
        })?;
        ready.read_exact(&mut [0]).context("waiting for the child")?;
        sys::unmap(map)?;
        stage.pause(&[held, mapped.of(child)])
    })?;
    let held = opener.paused()?;
    ask_for_one(ctx, held).map(drop)
}

pub(super) fn of_a_group(ctx: &mut Ctx) -> anyhow::Result<()> {
    let _locked = locked()?;
    let (_keeper, held) = keeper()?;
    if !install(ctx)? {
        return Ok(());
    }
    let arguments = ["--source", "bpf", "--kind", "secretmem"];
    let mut ask = |whose: &str, command: &mut Command| -> anyhow::Result<Value> {
        let (document, sources, complete) = parts(command)?;
        ctx.check(format!("{whose} answer is complete"), complete)?;
        ctx.check(format!("{whose} sources: {sources}"), sources.contains("bpf:task_vma"))?;
        Ok(document)
    };
    let (roots, members) =
        (ask("root's", &mut lsbuf(&arguments))?, ask("a member's", &mut by_user_in(GROUP, &arguments))?);
    ctx.check_eq("its inode", held.ino, roots["buffers"][0]["ino"].as_u64().unwrap_or(0))?;
    ctx.check_eq("a member's buffers", &roots["buffers"], &members["buffers"])?;
    remove(ctx)
}
