//! Names of buffers and processes: given, changed, hostile.

use std::fs;

use anyhow::Context;
use dmabuf::DmaBuf;

use super::holding::{SIZE, compare, compare_in};
use super::{Scenario, formats};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, Truth};
use crate::make;
use crate::need::Need;
use crate::runner::Ctx;
use crate::sys;
use crate::way::Way;

/// What strangers call their buffers: forged fdinfo lines, forged rows and closing lines of the kernel's list, escape
/// sequences, the marks that other tools use, bytes that are no text. At most 31 bytes each.
pub(crate) const HOSTILE: &[&[u8]] = &[
    b"",
    b"a\nsize:\t1\ncount:\t99\nino:\t1",
    b"a\nexp_name:\tevil\nname:\tb",
    b"size:\t0",
    b"\nsize:\t0\ncount:\t0\n",
    b"\n00000001\t00000000\t00000000\t00",
    b"\n9\t0\t0\t9\tevil\t99\tz",
    b"\n\tAttached Devices:\n\tevil",
    b"\nTotal 9 objects, 9 bytes",
    b"\nTotal 0 devices attached\n\n",
    b"cam (deleted)",
    b" (deleted)",
    b"<none>",
    b"\x1b[2J\x1b]0;x\x07",
    "\u{9b}31mC1\u{85}\u{9d}0;x\u{9c}".as_bytes(),
    b"back\\slash \\012 \\x41 tab\there",
    b" leading and trailing ",
    b"\r\x08\x7f\x0b\x0c",
    b"\",\"a\",'",
    b"-",
    b"?",
    "\u{202e}gnp.exe".as_bytes(),
    "\u{2028}\u{200b}\u{feff}".as_bytes(),
    b"0123456789012345678901234567890",
    b"\xff\xfe\x80\xc3( \xed\xa0\x80",
    &[0xff; 31],
    &[b'\n'; 31],
];

/// What strangers call their processes: the fields that follow a name in `stat`, the lines that follow it in `status`, other
/// holders. At most 15 bytes each.
pub(super) const HOSTILE_COMMS: &[&[u8]] = &[
    b"",
    b") R 1 2 (",
    b"a\nUid:\t7\t7",
    b"\n\n\n",
    b"\x1b]0;x\x07\x1b[2J",
    b"\xff\xfe\x80\xc3(",
    b"x:1(9f) sshd:2",
    b"\t\r\x7f",
    "\u{202e}\u{9b}2J".as_bytes(),
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "named_and_renamed",
        claim: "A buffer has no name, then its name, then its new name",
        needs: &[],
        ways: Way::BOTH,
        run: named_and_renamed,
    },
    Scenario {
        name: "hostile_names",
        claim: "No name changes a figure, forges a row or is lost",
        needs: &[],
        ways: Way::BOTH,
        run: hostile_names,
    },
    Scenario {
        name: "hostile_names_mapped",
        claim: "The same for buffers that are only mapped",
        needs: &[Need::MappedIdentity],
        ways: Way::BOTH,
        run: hostile_names_mapped,
    },
    Scenario {
        name: "hostile_comms",
        claim: "No command name changes whose a reference is, or which user's and of which age the process",
        needs: &[],
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

/// Compares a buffer of each hostile name, held as `hold` says; the fds of what it leaves out are closed.
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

/// When a process started, by this test's own eyes: the 20th field after the last bracket of its `stat`.
fn start_time(pid: u32) -> anyhow::Result<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).context("reading stat")?;
    let stat = String::from_utf8_lossy(&stat);
    let field = stat.rsplit(')').next().and_then(|after| after.split_ascii_whitespace().nth(19));
    Ok(field.context("a short stat")?.to_owned())
}
