//! Files registered with an io_uring. The kernel shows them by path or by name, never by inode.

use std::fs::File;
use std::os::fd::AsFd;

use crate::actor::{Actor, Held};
use crate::answer::{Answer, ExpectedResidual, Truth};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, compare_in};
use crate::sys::{self, ring};

use super::gem::EXPORTED;

pub(super) fn fixed(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"server", |stage| {
        let ring = ring::open()?;
        let (buf, _) = make::plain(SIZE)?;
        ring::register(&ring, &[None, Some(buf.as_fd())])?;
        let held = Held::by(&buf)?;
        stage.pause(std::slice::from_ref(&held))?;
        drop(buf);
        stage.pause(&[held.without_fds()])
    })?;
    for fds in [1, 0] {
        let held = actor.paused_with_one()?;
        let (ino, size) = (held.ino, held.size);
        ctx.check_eq("fds that the test made", fds, held.own_fds())?;
        let holders = if fds > 0 { vec![held] } else { vec![] };
        let truth = Truth::held(make::plain_exporter(), holders).and(ExpectedResidual::Estimate(1));
        let answer = Answer::ask(&[])?;
        ctx.check_eq("account", truth.line(size), answer.line(ino)?)?;
        let buffer = answer.buffer(ino)?;
        ctx.check("how many the ring keeps is unknown, not 0", buffer["refs"]["io_uring"].is_null())?;
        ctx.check_eq("registered in total", 1, &answer.0["totals"]["io_uring_files"])?;
        ctx.check_eq("candidates, if no process has a device open", "[]", &buffer["candidates"])?;
        actor.go_on()?;
    }
    Ok(())
}

/// A buffer that a GEM handle holds, and a ring that keeps files.
fn beside_a_ring(
    ctx: &mut Ctx,
    keep: impl FnOnce(&std::os::fd::OwnedFd) -> anyhow::Result<()>,
    rest: ExpectedResidual,
    registered: u64,
) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"server", |stage| {
        let ring = ring::open()?;
        keep(&ring)?;
        let device = make::vgem()?;
        let dumb = device.create_dumb(make::at_least(SIZE)?)?;
        let buf = dumb.handle.export()?;
        buf.set_name("framebuffer")?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    compare_in(ctx, &answer, &Truth::held(make::DRM, vec![held]).named("framebuffer").and(rest))?;
    ctx.check_eq("registered in total", registered, &answer.0["totals"]["io_uring_files"])
}

pub(super) fn other_files(ctx: &mut Ctx) -> anyhow::Result<()> {
    let keep = |ring: &std::os::fd::OwnedFd| {
        let (null, program) = (File::open("/dev/null")?, File::open("/proc/self/exe")?);
        ring::register(ring, &[Some(null.as_fd()), None, Some(program.as_fd())])
    };
    beside_a_ring(ctx, keep, ExpectedResidual::Exact(EXPORTED), 0)
}

pub(super) fn another_buffer(ctx: &mut Ctx) -> anyhow::Result<()> {
    let keep = |ring: &std::os::fd::OwnedFd| {
        let (buf, _) = make::plain(SIZE)?;
        buf.set_name("camera:1")?;
        ring::register(ring, &[Some(buf.as_fd())])
    };
    // A name may change while it is read, so a different name rules nothing out.
    beside_a_ring(ctx, keep, ExpectedResidual::Estimate(EXPORTED), 1)
}

pub(super) fn mapped_only(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"server", |stage| {
        let ring = ring::open()?;
        let (buf, _) = make::plain(SIZE)?;
        ring::register(&ring, &[Some(buf.as_fd())])?;
        sys::map(&ring, 0, sys::page_size())?;
        drop(ring);
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    compare_in(
        ctx,
        &answer,
        &Truth::held(make::plain_exporter(), vec![held]).and(ExpectedResidual::Estimate(1)),
    )
}
