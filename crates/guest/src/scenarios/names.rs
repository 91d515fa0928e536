//! Names of buffers and processes: set, changed, hostile.

use std::fs;

use anyhow::Context;
use dmabuf::DmaBuf;

use super::formats;
use super::holding::{SIZE, compare, compare_in};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, Truth};
use crate::hostile::{HOSTILE, HOSTILE_COMMS};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "named_and_renamed",
        claim: "A buffer has no name, then its name, then its new name",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: named_and_renamed,
    },
    Scenario {
        name: "hostile_names",
        claim: "No name changes a figure, adds a row or is lost",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: hostile_names,
    },
    Scenario {
        name: "hostile_names_mapped",
        claim: "No name of a buffer that is only mapped changes a figure, adds a row or is lost",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: hostile_names_mapped,
    },
    Scenario {
        name: "hostile_comms",
        claim: "No command name changes the holder of a reference, or the user or start time of the process",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: hostile_comms,
    },
];

fn named_and_renamed(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"namer", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        for name in ["", "first", "second", ""] {
            buf.set_name(name)?;
            stage.pause(&[Held::by(&buf)?])?;
        }
        Ok(())
    })?;
    for name in ["", "first", "second", ""] {
        let held = actor.paused_with_one()?;
        compare(ctx, &Truth::held(make::plain_exporter(), vec![held]).named(name))?;
        actor.go_on()?;
    }
    Ok(())
}

fn hostile_names(ctx: &mut Ctx) -> anyhow::Result<()> {
    all_named(ctx, Held::by)
}

fn hostile_names_mapped(ctx: &mut Ctx) -> anyhow::Result<()> {
    all_named(ctx, |buf| {
        let region = sys::map(buf, 0, SIZE as usize)?;
        Ok(Held::by(buf)?.and_map(region, 0).without_fds())
    })
}

/// Compares a buffer of each hostile name, held as `hold` says. If `hold` lists no fd, the fd is
/// closed.
fn all_named(ctx: &mut Ctx, hold: fn(&DmaBuf) -> anyhow::Result<Held>) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"hostile", |stage| {
        let (mut held, mut kept) = (Vec::new(), Vec::new());
        for name in HOSTILE {
            let (buf, _) = make::plain(SIZE)?;
            buf.set_name(name)?;
            let how = hold(&buf)?;
            kept.extend((!how.fds.is_empty()).then_some(buf));
            held.push(how);
        }
        stage.pause(&held)
    })?;
    let held = actor.paused()?;
    let answer = Answer::ask(&[])?;
    let mut names = Vec::new();
    for (held, name) in held.into_iter().zip(HOSTILE) {
        names.push((held.ino, *name));
        let text = String::from_utf8_lossy(name);
        compare_in(ctx, &answer, &Truth::held(make::plain_exporter(), vec![held]).named(&text))?;
    }
    ctx.check_eq("buffers", HOSTILE.len(), answer.list("buffers").len())?;
    ctx.check_eq("complete", true, &answer.0["scan"]["complete"])?;
    ctx.check_eq("size in total", SIZE * HOSTILE.len() as u64, &answer.0["totals"]["size"])?;
    formats::parse_back(ctx, &[], ["INO", "NAME"], &names)
}

fn hostile_comms(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actors = Vec::new();
    for comm in HOSTILE_COMMS {
        actors.push(Actor::start(comm, |stage| {
            let (buf, _) = make::plain(SIZE)?;
            sys::become_user(1000)?;
            stage.pause(&[Held::by(&buf)?])
        })?);
    }
    let mut held = Vec::new();
    for actor in &mut actors {
        held.push(actor.paused_with_one()?);
    }
    let answer = Answer::ask(&[])?;
    let mut names = Vec::new();
    for ((actor, held), comm) in actors.iter().zip(held).zip(HOSTILE_COMMS) {
        compare_in(ctx, &answer, &Truth::held(make::plain_exporter(), vec![held]))?;
        let process = answer.process(actor.pid)?;
        ctx.check_eq("comm", String::from_utf8_lossy(comm), process["comm"].as_str().unwrap_or("?"))?;
        ctx.check_eq("uid", 1000, &process["uid"])?;
        ctx.check_eq("start", start_time(actor.pid)?, &process["start_time"])?;
        names.push((u64::from(actor.pid), *comm));
    }
    ctx.check_eq("buffers", HOSTILE_COMMS.len(), answer.list("buffers").len())?;
    ctx.check_eq("processes", HOSTILE_COMMS.len(), answer.list("processes").len())?;
    ctx.check_eq("complete", true, &answer.0["scan"]["complete"])?;
    formats::parse_back(ctx, &["ps"], ["PID", "COMMAND"], &names)
}

/// The start time of a process, parsed by code that shares nothing with lsbuf: the 20th field after
/// the last bracket of its `stat`.
fn start_time(pid: u32) -> anyhow::Result<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).context("reading stat")?;
    let stat = String::from_utf8_lossy(&stat);
    let field = stat.rsplit(')').next().and_then(|after| after.split_ascii_whitespace().nth(19));
    Ok(field.context("a short stat")?.to_owned())
}
