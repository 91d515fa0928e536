//! References that no process shows: GEM handles, messages not yet received.

use std::os::unix::net::UnixStream;

use dmabuf::share;

use super::Scenario;
use super::holding::{SIZE, compare, compare_in};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, Rest, Truth};
use crate::make;
use crate::need::Need;
use crate::runner::Ctx;

/// References of a GEM object that was exported, beyond fds: the object's own and the device file's PRIME cache.
const EXPORTED: u64 = 2;
/// References of a GEM object that was imported: those of an exported one, and the attachment's.
const IMPORTED: u64 = 3;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "gem_export_counts",
        claim: "An exported GEM object with an open handle is 2 kernel references beside the fd",
        needs: &[Need::Vgem],
        run: gem_export,
    },
    Scenario {
        name: "gem_import_counts",
        claim: "A buffer imported into a device is 3 kernel references and an attachment of that device",
        needs: &[Need::Heap, Need::Vgem],
        run: gem_import,
    },
    Scenario {
        name: "gem_self_import_counts",
        claim: "A buffer imported back into its own device by another open of it is 1 kernel reference more",
        needs: &[Need::Vgem],
        run: gem_self_import,
    },
    Scenario {
        name: "gem_only",
        claim: "A buffer that only a GEM handle holds is kernel-only, found through the kernel's list",
        needs: &[Need::Vgem],
        run: gem_only,
    },
    Scenario {
        name: "in_flight",
        claim: "While a message not yet received carries an fd, what is left over is called an estimate, and why is said",
        needs: &[],
        run: in_flight,
    },
];

fn gem_export(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"exporter", |stage| {
        let device = make::vgem()?;
        let dumb = device.create_dumb(make::at_least(SIZE)?)?;
        let buf = dumb.handle.export()?;
        stage.pause(&[Held::by(&buf)?])?;
        drop(dumb);
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    compare(ctx, &Truth::held(make::DRM, vec![held]).and(Rest::Exact(EXPORTED)))?;
    actor.go_on()?;
    let held = actor.paused_with_one()?;
    compare(ctx, &Truth::held(make::DRM, vec![held])).map(drop)
}

fn gem_import(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"importer", |stage| {
        let device = make::vgem()?;
        let (buf, _) = make::plain(SIZE)?;
        let handle = device.import(&buf)?;
        stage.pause(&[Held::by(&buf)?])?;
        drop(handle);
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &Truth::held(make::HEAP, vec![held.clone()]).and(Rest::Exact(IMPORTED)))?;
    ctx.check_eq("attached", r#"["vgem"]"#, &answer.buffer(held.ino)?["attachments"])?;
    ctx.check_eq("freed by an exit", 0, &answer.process(actor.pid)?["uss"])?;
    actor.go_on()?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &Truth::held(make::HEAP, vec![held.clone()]))?;
    ctx.check_eq("attached", "[]", &answer.buffer(held.ino)?["attachments"])
}

fn gem_self_import(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"importer", |stage| {
        let (device, other) = (make::vgem()?, make::vgem()?);
        let dumb = device.create_dumb(make::at_least(SIZE)?)?;
        let buf = dumb.handle.export()?;
        let _imported = other.import(&buf)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    compare(ctx, &Truth::held(make::DRM, vec![held]).and(Rest::Exact(EXPORTED + 1))).map(drop)
}

fn gem_only(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"importer", |stage| {
        let device = make::vgem()?;
        let dumb = device.create_dumb(make::at_least(SIZE)?)?;
        let buf = dumb.handle.export()?;
        buf.set_name("framebuffer")?;
        let held = Held::by(&buf)?.without_fds();
        drop(buf);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    let truth = Truth::held(make::DRM, vec![]).named("framebuffer").and(Rest::Exact(EXPORTED));
    ctx.check_eq("ledger", truth.line(held.size), answer.line(held.ino)?)?;
    ctx.check_eq("leak shape", "handle", answer.buffer(held.ino)?["leak_shape"].as_str().unwrap_or("none"))?;
    ctx.check_eq("kernel-only", held.size, &answer.0["totals"]["kernel_only"])?;
    let only = Answer::ask(&["--kernel-only"])?;
    ctx.check_eq("rows of --kernel-only", 1, only.list("buffers").len())
}

fn in_flight(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, _unread) = UnixStream::pair()?;
    let mut actor = Actor::start(b"sender", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        share::send(&from, &[&buf], b"1")?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    compare_in(
        ctx,
        &answer,
        &Truth::held(make::plain_exporter(), vec![held.clone()]).and(Rest::Estimate(1)),
    )?;
    ctx.check("in flight is unknown, not 0", answer.buffer(held.ino)?["refs"]["in_flight"].is_null())?;
    let notes = answer.0["scan"]["notes"].to_string();
    ctx.check("the note says how many", notes.contains("messages not yet received carry 1 fd,"))
}
