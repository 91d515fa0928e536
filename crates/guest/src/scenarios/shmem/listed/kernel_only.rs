//! Memory that no process holds, and that something in the kernel keeps: a loop device, an
//! io_uring, a handle of a graphics driver.

use std::os::fd::AsFd;

use anyhow::Context;
use serde_json::Value;

use super::super::kit::{Shm, ask, ask_and_compare, compare, page};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, ExpectedResidual, Truth};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, compare_in};
use crate::scenarios::kernel_refs::gem::EXPORTED;
use crate::sys::dumb::map_dumb;
use crate::sys::loops::LoopDevice;
use crate::sys::{self, ring, shm};

/// The totals of an answer: what processes hold, and what only the kernel does.
pub(super) fn totals(answer: &Answer) -> String {
    let totals = &answer.0["totals"];
    format!("size {} held {} kernel_only {}", totals["size"], totals["held"], totals["kernel_only"])
}

/// Checks that nobody holds what an answer is about, which costs so many bytes.
fn held_by_nobody(ctx: &mut Ctx, answer: &Answer, bytes: u64) -> anyhow::Result<()> {
    ctx.check_eq("buffers", 1, answer.list("buffers").len())?;
    ctx.check_eq("processes", 0, answer.list("processes").len())?;
    ctx.check_eq("totals", format!("size {bytes} held 0 kernel_only {bytes}"), totals(answer))
}

pub(super) fn loop_device(ctx: &mut Ctx) -> anyhow::Result<()> {
    let memfd = make::memfd(b"disk", 64, 3)?;
    let held = Held::by_file(&memfd)?;
    let device = LoopDevice::of(&memfd)?;
    let truth = Shm::held("memfd", "disk", vec![held.clone()]).and_kernel(ExpectedResidual::Exact(1));
    let answer = ask_and_compare(ctx, &truth)?;
    ctx.check_eq("what an exit would free", 0, &answer.process(held.pid)?["uss"])?;
    drop(memfd);
    let truth = Shm::unheld("memfd", "disk", &held).and_kernel(ExpectedResidual::Exact(1));
    let answer = ask_and_compare(ctx, &truth)?;
    ctx.check_eq("leak shape", "\"handle\"", &truth.find(&answer)?["leak_shape"])?;
    held_by_nobody(ctx, &answer, 3 * page())?;
    drop(device);
    let answer = ask(ctx, "memfd")?;
    ctx.check_eq("memfds once the device has lost it", 0, answer.list("buffers").len())
}

pub(super) fn io_uring(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"server", |stage| {
        let ring = ring::open()?;
        let memfd = make::memfd(b"fixed", 8, 2)?;
        ring::register(&ring, &[None, Some(memfd.as_fd())])?;
        let held = Held::by_file(&memfd)?;
        drop(memfd);
        stage.pause(&[held])
    })?;
    let once = actor.paused_with_one()?;
    let truth = Shm::unheld("memfd", "fixed", &once).and_kernel(ExpectedResidual::Estimate(1));
    let answer = ask_and_compare(ctx, &truth)?;
    let buffer = truth.find(&answer)?;
    ctx.check_eq("why it is an estimate", "\"maybe-in-flight\"", &buffer["estimate_reason"])?;
    ctx.check("how many the ring keeps is unknown, not 0", buffer["refs"]["io_uring"].is_null())?;
    held_by_nobody(ctx, &answer, 2 * page())
}

/// The only memory of a driver in an answer.
fn driver_memory(answer: &Answer) -> anyhow::Result<&Value> {
    let mut all = answer.list("buffers").iter().filter(|buffer| buffer["kind"] == "gem-shmem");
    all.next().with_context(|| format!("lsbuf lists no memory of a driver: {}", answer.0))
}

pub(super) fn gem(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"renderer", |stage| {
        let device = make::vgem()?;
        let dumb = device.create_dumb(make::at_least(SIZE)?)?;
        // The driver allocates pages when they are first touched, and keeps them.
        let region = map_dumb(&device, &dumb)?;
        shm::touch(region, region.len)?;
        sys::unmap(region)?;
        stage.pause(&[])?;
        let buf = dumb.handle.export()?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    actor.paused()?;
    let answer = ask(ctx, "dmabuf,gem-shmem")?;
    held_by_nobody(ctx, &answer, SIZE)?;
    // The handle does not tell the inode number of the driver's file.
    let ino = driver_memory(&answer)?["ino"].as_u64().context("no inode number")?;
    let file = Held { ino, size: SIZE, charged: SIZE, ..Held::default() };
    let memory = Shm::unheld("gem-shmem", "drm mm object", &file).and_kernel(ExpectedResidual::Exact(1));
    compare(ctx, &answer, &memory)?;
    actor.go_on()?;
    let buf = actor.paused_with_one()?;
    let answer = ask(ctx, "dmabuf,gem-shmem")?;
    compare(ctx, &answer, &memory)?;
    let exported = Truth::held(make::DRM, vec![buf.clone()]).and(ExpectedResidual::Exact(EXPORTED));
    compare_in(ctx, &answer, &exported)?;
    let same = &answer.buffer(buf.ino)?["same_memory"];
    ctx.check_eq("the memory of the dma-buf", format!("{ino} {SIZE}"), {
        format!("{} {}", same[0]["ino"], same[0]["bytes"])
    })?;
    ctx.check_eq("what both have", SIZE, &answer.0["totals"]["same_memory"])?;
    ctx.check_eq("counted once", format!("size {SIZE} held {SIZE} kernel_only 0"), totals(&answer))
}
