//! Containers, by their parts: other roots and other namespaces, seen from outside and from inside.

use std::ffi::CStr;
use std::fs;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{chdir, chroot};
use rustix::thread::UnshareFlags;

use crate::actor::{Actor, Held, Stage};
use crate::answer::{Answer, ExpectedResidual, Truth};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, compare, compare_in, holder_of_one};
use crate::sys::task;

pub(super) fn chrooted(ctx: &mut Ctx) -> anyhow::Result<()> {
    fs::create_dir_all("/tmp/empty-root")?;
    let mut actor = Actor::start(b"jailed", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        chroot("/tmp/empty-root")?;
        chdir("/")?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    compare(ctx, &Truth::held(make::plain_exporter(), vec![held])).map(drop)
}

pub(super) fn seen_from_outside(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (what, namespace) in [
        ("pid", UnshareFlags::NEWPID),
        ("mount", UnshareFlags::NEWNS),
        ("user", UnshareFlags::NEWUSER),
        ("network", UnshareFlags::NEWNET),
    ] {
        let mut actor = Actor::start(b"runtime", |stage| {
            task::enter_new(namespace)?;
            // Only a child is in the new pid namespace. There it has another pid than the one that
            // this process sees.
            let mut inner = Actor::start(b"contained", hold_one)?;
            let held = inner.paused_with_one()?.of(inner.pid);
            stage.pause(&[held])?;
            drop(inner);
            stage.pause(&[])
        })?;
        let held = actor.paused_with_one()?;
        let pid = held.pid;
        let answer = compare(ctx, &Truth::held(make::plain_exporter(), vec![held]))?;
        let comm = answer.process(pid)?["comm"].as_str().unwrap_or("?").to_owned();
        ctx.check_eq(format!("comm in another {what} namespace"), "contained", comm)?;
        actor.go_on()?;
        actor.paused()?;
    }
    Ok(())
}

fn hold_one(stage: &mut Stage) -> anyhow::Result<()> {
    let (buf, _) = make::plain(SIZE)?;
    stage.pause(&[Held::by(&buf)?])
}

pub(super) fn seen_from_inside(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut outside = holder_of_one()?;
    let unseen = outside.paused_with_one()?;
    task::enter_new(UnshareFlags::NEWPID | UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // The first child is process 1 of the namespace. It mounts the procfs, which this process and
    // lsbuf then see too.
    let mut inner = Actor::start(b"contained", |stage| {
        mount("proc", "/proc", "proc", MountFlags::empty(), None::<&CStr>)?;
        hold_one(stage)
    })?;
    let held = inner.paused_with_one()?;
    ctx.check_eq("pid inside", 1, held.pid)?;
    let answer = Answer::ask(&[])?;
    compare_in(ctx, &answer, &Truth::held(make::plain_exporter(), vec![held]))?;
    ctx.check_eq("complete", false, &answer.0["scan"]["complete"])?;
    let notes = answer.0["scan"]["notes"].to_string();
    ctx.check("the note says why", notes.contains("pid namespace"))?;
    // Root sees the kernel's list from here. A residual may belong to processes outside the
    // namespace.
    let truth = Truth::held(make::plain_exporter(), vec![]).and(ExpectedResidual::Estimate(1));
    ctx.check_eq(
        "the buffer held outside",
        truth.line(unseen.size),
        answer.line(unseen.ino)?.replace("named \"?\"", "named \"\""),
    )
}
