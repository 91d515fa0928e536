//! References of V4L2: buffers that a video device exported, and other buffers in its queue.
//!
//! The expected values follow from the kernel's videobuf2. An exported dma-buf holds the driver's
//! memory, and the driver does not hold the dma-buf. So the device adds no reference, open or
//! closed, and each export is a separate dma-buf. A queue takes one reference to a dma-buf when the
//! dma-buf is queued, and drops it when the queue is freed. vivid copies by the CPU, so it maps
//! such a buffer inside the kernel and attaches no device. Only the count shows that reference.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::Context;
use dmabuf::{DmaBuf, share};

use super::holding::{SIZE, compare, compare_in};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, ExpectedResidual, LSBUF, Truth};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "video_exported",
        claim: "An exported video buffer has its fd and no kernel reference, also after the device is closed",
        needs: &[Need::Vivid],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: exported,
    },
    Scenario {
        name: "video_owner",
        claim: "The memory of exports is their queue's: the exit of who holds them frees nothing, and lsbuf claims nothing else",
        needs: &[Need::Vivid],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: owner,
    },
    Scenario {
        name: "video_exported_twice",
        claim: "Two exports of one video buffer are two dma-bufs, each with its whole size",
        needs: &[Need::Vivid],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: exported_twice,
    },
    Scenario {
        name: "video_mapped",
        claim: "A mapped video buffer is found by its mapping, with and without its fd and its device",
        needs: &[Need::Vivid],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: mapped,
    },
    Scenario {
        name: "video_queued",
        claim: "A buffer in a video queue has 1 kernel reference and no attachment",
        needs: &[Need::Vivid],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: queued,
    },
    Scenario {
        name: "video_queued_only",
        claim: "A buffer that only a video queue holds is kernel-only, and is freed with the queue",
        needs: &[Need::Vivid],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: queued_only,
    },
    Scenario {
        name: "video_to_gem",
        claim: "A video buffer imported into a GPU has that import's 3 kernel references and attachment",
        needs: &[Need::Vivid, Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: to_gem,
    },
];

fn exported(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"camera", |stage| {
        let mut device = make::vivid()?;
        let buffers = device.buffers(2)?;
        let buf = buffers.export(1)?;
        stage.pause(&[Held::by(&buf)?])?;
        drop(buffers);
        drop(device);
        stage.pause(&[Held::by(&buf)?])
    })?;
    for when in ["open", "closed"] {
        let held = actor.paused_with_one()?;
        let answer = compare(ctx, &Truth::held(make::VIVID, vec![held.clone()]))?;
        let freed = &answer.process(actor.pid)?["uss"];
        ctx.check_eq(format!("freed by an exit, device {when}"), "null", freed)?;
        actor.go_on()?;
    }
    Ok(())
}

/// Bytes that the kernel has allocated by vmalloc, which is where vivid's frames are.
fn vmalloced() -> anyhow::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line =
        meminfo.lines().find_map(|line| line.strip_prefix("VmallocUsed:")).context("no VmallocUsed")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>().context("VmallocUsed")? << 10)
}

/// The producer has the device, the consumer all exports.
fn owner(ctx: &mut Ctx) -> anyhow::Result<()> {
    const EXPORTS: u32 = 16;
    let (ours, theirs) = UnixStream::pair().context("making a socket pair")?;
    let mut consumer = Actor::start(b"consumer", |stage| {
        let mut bufs = Vec::new();
        for _ in 0..EXPORTS {
            bufs.append(&mut share::receive(&theirs, &mut [0])?.bufs);
        }
        let held: Vec<Held> = bufs.iter().map(Held::by).collect::<Result<_, _>>()?;
        stage.pause(&held)
    })?;
    let mut producer = Actor::start(b"producer", |stage| {
        let mut device = make::vivid()?;
        let buffers = device.buffers(EXPORTS)?;
        for nth in 0..EXPORTS {
            share::send(&ours, &[&buffers.export(nth)?], b"f")?;
        }
        stage.pause(&[])
    })?;
    let held = consumer.paused()?;
    producer.paused()?;
    let all: u64 = held.iter().map(|held| held.size).sum();
    let answer = Answer::ask(&[])?;
    let figures = answer.process(consumer.pid)?;
    ctx.check_eq("RSS of the consumer", all, &figures["rss"])?;
    ctx.check_eq("USS of the consumer", "null", &figures["uss"])?;
    let first = held.first().context("no export")?.ino.to_string();
    for held in held {
        let ino = held.ino;
        compare_in(ctx, &answer, &Truth::held(make::VIVID, vec![held]))?;
        let buffer = answer.buffer(ino)?;
        ctx.check_eq("owner", "queue", buffer["memory_owner"].as_str().unwrap_or("unknown"))?;
        ctx.check_eq("candidates", format!("[{}]", producer.pid), &buffer["candidates"])?;
    }
    let shown = Command::new(LSBUF).args(["show", "-d", &first]).output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let line =
        "owner     the queue of the video device that exported it: while that lives, no close frees memory";
    ctx.check("show says whose the memory is", shown.contains(line))?;
    let who = format!(
        "candidates for the owner of the memory, by the devices that they have open\n    producer:{}",
        producer.pid
    );
    ctx.check("show names the producer", shown.contains(&who))?;
    let note = answer.0["scan"]["notes"].to_string();
    ctx.check("a note says what is in no list", note.contains("never exported are in no list"))?;
    let before = vmalloced()?;
    drop(consumer);
    ctx.check(
        "the consumer's exit frees less than one frame",
        before.saturating_sub(vmalloced()?) < all / u64::from(EXPORTS),
    )?;
    ctx.check_eq("buffers without the consumer", 0, Answer::ask(&[])?.list("buffers").len())?;
    drop(producer);
    let freed = before.saturating_sub(vmalloced()?);
    ctx.check(
        format!("the producer's exit frees the {all} bytes: {freed}"),
        freed > all - all / u64::from(EXPORTS),
    )
}

fn exported_twice(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"camera", |stage| {
        let mut device = make::vivid()?;
        let buffers = device.buffers(1)?;
        let (first, second) = (buffers.export(0)?, buffers.export(0)?);
        stage.pause(&[Held::by(&first)?, Held::by(&second)?])
    })?;
    let held = actor.paused()?;
    ctx.check_eq("dma-bufs that the test holds", 2, held.len())?;
    let size: u64 = held.iter().map(|held| held.size).sum();
    let answer = Answer::ask(&[])?;
    for held in held {
        compare_in(ctx, &answer, &Truth::held(make::VIVID, vec![held]))?;
    }
    ctx.check_eq("buffers", 2, answer.list("buffers").len())?;
    ctx.check_eq("exported in total", size, &answer.0["totals"]["size"])
}

fn mapped(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"camera", |stage| {
        let mut device = make::vivid()?;
        let buf = device.buffers(1)?.export(0)?;
        let region = sys::map(&buf, 0, usize::try_from(buf.size()?)?)?;
        let held = Held::by(&buf)?.and_map(region, 0);
        stage.pause(std::slice::from_ref(&held))?;
        drop((buf, device));
        stage.pause(&[held.without_fds()])
    })?;
    for _ in 0..2 {
        let held = actor.paused_with_one()?;
        compare(ctx, &Truth::held(make::VIVID, vec![held]))?;
        actor.go_on()?;
    }
    Ok(())
}

/// A buffer that is large enough for a frame.
fn frame() -> anyhow::Result<DmaBuf> {
    Ok(make::plain(make::vivid()?.frame_size()?.next_multiple_of(SIZE))?.0)
}

fn queued(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"camera", |stage| {
        let mut device = make::vivid()?;
        let buf = frame()?;
        let mut slots = device.slots(2)?;
        slots.queue(0, &buf)?;
        stage.pause(&[Held::by(&buf)?])?;
        drop(slots);
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let truth = Truth::held(make::plain_exporter(), vec![held.clone()]);
    let answer = compare(ctx, &truth.clone().and(ExpectedResidual::Exact(1)))?;
    ctx.check_eq("attached", "[]", &answer.buffer(held.ino)?["attachments"])?;
    ctx.check_eq("freed by an exit", 0, &answer.process(actor.pid)?["uss"])?;
    actor.go_on()?;
    actor.paused()?;
    compare(ctx, &truth).map(drop)
}

fn queued_only(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"camera", |stage| {
        let mut device = make::vivid()?;
        let buf = frame()?;
        buf.set_name("queued")?;
        let held = Held::by(&buf)?.without_fds();
        let mut slots = device.slots(2)?;
        slots.queue(0, &buf)?;
        drop(buf);
        stage.pause(&[held])?;
        drop(slots);
        stage.pause(&[])
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    let truth = Truth::held(make::plain_exporter(), vec![]).named("queued").and(ExpectedResidual::Exact(1));
    ctx.check_eq("account", truth.line(held.size), answer.line(held.ino)?)?;
    ctx.check_eq("leak shape", "handle", answer.buffer(held.ino)?["leak_shape"].as_str().unwrap_or("none"))?;
    ctx.check_eq("kernel-only", held.size, &answer.0["totals"]["kernel_only"])?;
    actor.go_on()?;
    actor.paused()?;
    ctx.check_eq("buffers without the queue", 0, Answer::ask(&[])?.list("buffers").len())
}

fn to_gem(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"camera", |stage| {
        let mut device = make::vivid()?;
        let buf = device.buffers(1)?.export(0)?;
        let screen = make::vgem()?;
        let _on_screen = screen.import(&buf)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &Truth::held(make::VIVID, vec![held.clone()]).and(ExpectedResidual::Exact(3)))?;
    ctx.check_eq("attached", r#"["vgem"]"#, &answer.buffer(held.ino)?["attachments"])
}
