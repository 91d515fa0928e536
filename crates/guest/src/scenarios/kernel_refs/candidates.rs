//! Candidates for the kernel's references: processes that have a device open.

use std::fs;
use std::process::Command;

use crate::actor::{Actor, Held};
use crate::answer::{Answer, ExpectedResidual, LSBUF, Truth};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, compare};
use crate::sys;

use super::gem::{EXPORTED, IMPORTED};

/// The fds by which a process has a device open, read by code that shares nothing with lsbuf.
fn fds_of(pid: u32, device: &str) -> anyhow::Result<Vec<u32>> {
    let mut fds = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        if fs::read_link(entry.path())?.to_str() == Some(device) {
            fds.push(entry.file_name().to_string_lossy().parse()?);
        }
    }
    fds.sort_unstable();
    Ok(fds)
}

/// The path of the vgem device. No process has the device open afterwards.
fn device() -> anyhow::Result<String> {
    Ok(make::vgem()?.path().display().to_string())
}

pub(super) fn gem(ctx: &mut Ctx) -> anyhow::Result<()> {
    let device = device()?;
    let mut owner = Actor::start(b"owner", |stage| {
        let device = make::vgem()?;
        let dumb = device.create_dumb(make::at_least(SIZE)?)?;
        let buf = dumb.handle.export()?;
        let held = Held::by(&buf)?.without_fds();
        drop(buf);
        stage.pause(&[held])
    })?;
    let held = owner.paused_with_one()?;
    let mut opener = Actor::start(b"opener", |stage| {
        let _device = make::vgem()?;
        stage.pause(&[])
    })?;
    opener.paused()?;
    let mut neither = Actor::start(b"neither", |stage| stage.pause(&[]))?;
    neither.paused()?;
    let answer = Answer::ask(&[])?;
    let truth = Truth::held(make::DRM, vec![]).and(ExpectedResidual::Exact(EXPORTED));
    ctx.check_eq("account", truth.line(held.size), answer.line(held.ino)?)?;
    let candidates = format!("[{},{}]", owner.pid, opener.pid);
    ctx.check_eq("candidates", candidates, &answer.buffer(held.ino)?["candidates"])?;
    let holders = [owner.pid, opener.pid]
        .map(|pid| fds_of(pid, &device).map(|fds| format!("{pid} by {fds:?}")))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let printed: Vec<String> = answer
        .list("devices")
        .iter()
        .filter(|d| d["path"] == *device && d["name"] == "vgem")
        .flat_map(|d| d["holders"].as_array().into_iter().flatten())
        .map(|h| format!("{} by {}", h["pid"], h["fds"]))
        .collect();
    ctx.check_eq("processes that have the device open", format!("{holders:?}"), format!("{printed:?}"))
}

pub(super) fn show(ctx: &mut Ctx) -> anyhow::Result<()> {
    let device = device()?;
    let mut actor = Actor::start(b"importer", |stage| {
        let device = make::vgem()?;
        let (buf, _) = make::plain(SIZE)?;
        let second = buf.try_clone()?;
        let _handle = device.import(&buf)?;
        let region = sys::map(&buf, 0, sys::page_size())?;
        stage.pause(&[Held::by(&buf)?.and_fd(&second).and_map(region, 0)])
    })?;
    let held = actor.paused_with_one()?;
    let truth = Truth::held(make::HEAP, vec![held.clone()]).and(ExpectedResidual::Exact(IMPORTED));
    compare(ctx, &truth)?;
    let shown = Command::new(LSBUF).args(["show", &held.ino.to_string()]).output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let line = |start: &str| shown.lines().map(str::trim).find(|l| l.starts_with(start)).unwrap_or("no line");
    let account = format!("account   count {} = 2 fd + 1 map + {IMPORTED} kernel (vgem)", truth.count);
    ctx.check_eq("account", account, line("account"))?;
    let fds = fds_of(actor.pid, &device)?;
    ctx.check_eq("fds of the device", 1, fds.len())?;
    let candidate = format!("importer:{}  fd {} {device} (vgem)", actor.pid, fds.first().unwrap_or(&0));
    let printed = shown.lines().skip_while(|l| !l.contains("candidates")).nth(1).unwrap_or("no line").trim();
    ctx.check_eq("candidate", candidate, printed)
}
