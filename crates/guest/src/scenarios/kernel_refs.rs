//! References that no process shows: GEM handles, messages in flight, registered files; and the
//! candidates for them.

mod candidates;
pub(super) mod gem;
mod in_flight;
mod io_uring;

use gem::{EXPORTED, IMPORTED};

use super::holding::{SIZE, compare};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, ExpectedResidual, Truth};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "gem_export_counts",
        claim: "An exported GEM object with an open handle has 2 kernel references besides the fd",
        needs: &[Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: gem_export,
    },
    Scenario {
        name: "gem_import_counts",
        claim: "A buffer imported into a device has 3 kernel references and an attachment of that device",
        needs: &[Need::Heap, Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: gem_import,
    },
    Scenario {
        name: "gem_self_import_counts",
        claim: "A buffer imported back into its own device through another open file has 1 more kernel reference",
        needs: &[Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: gem_self_import,
    },
    Scenario {
        name: "gem_only",
        claim: "A buffer that only a GEM handle holds is kernel-only, found through the kernel's list",
        needs: &[Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: gem_only,
    },
    Scenario {
        name: "in_flight",
        claim: "An fd in a message not yet received is matched with its buffer, or makes the residual an estimate, with the reason",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: in_flight::message,
    },
    Scenario {
        name: "in_flight_nested",
        claim: "An fd in a message of a socket that is itself in a message makes the residual an estimate",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: in_flight::nested,
    },
    Scenario {
        name: "in_flight_unaccepted",
        claim: "An fd in a message of a connection that is not accepted is matched with its buffer, or makes the residual an estimate",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: in_flight::unaccepted,
    },
    Scenario {
        name: "io_uring_fixed",
        claim: "A buffer that only an io_uring keeps is found, and its reference is not shown as a driver's",
        needs: &[Need::IoUring],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: io_uring::fixed,
    },
    Scenario {
        name: "io_uring_other_files",
        claim: "An io_uring that keeps only files that are not dma-bufs leaves every account exact",
        needs: &[Need::IoUring, Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: io_uring::other_files,
    },
    Scenario {
        name: "io_uring_another_buffer",
        claim: "An io_uring that keeps one dma-buf makes the residual of every other one an estimate",
        needs: &[Need::IoUring, Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: io_uring::another_buffer,
    },
    Scenario {
        name: "io_uring_mapped_only",
        claim: "The reference of an io_uring that is mapped and has no fd is not shown as a driver's",
        needs: &[Need::IoUring],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: io_uring::mapped_only,
    },
    Scenario {
        name: "gem_candidates",
        claim: "Processes that have the device open, and no others, are candidates for a GEM handle",
        needs: &[Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: candidates::gem,
    },
    Scenario {
        name: "show_account",
        claim: "lsbuf show prints the account, names the attached device, and lists the processes that have it open as candidates",
        needs: &[Need::Heap, Need::Vgem, Need::MappedIdentity],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: candidates::show,
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
    compare(ctx, &Truth::held(make::DRM, vec![held]).and(ExpectedResidual::Exact(EXPORTED)))?;
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
    let answer =
        compare(ctx, &Truth::held(make::HEAP, vec![held.clone()]).and(ExpectedResidual::Exact(IMPORTED)))?;
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
    compare(ctx, &Truth::held(make::DRM, vec![held]).and(ExpectedResidual::Exact(EXPORTED + 1))).map(drop)
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
    let truth = Truth::held(make::DRM, vec![]).named("framebuffer").and(ExpectedResidual::Exact(EXPORTED));
    ctx.check_eq("account", truth.line(held.size), answer.line(held.ino)?)?;
    ctx.check_eq("leak shape", "handle", answer.buffer(held.ino)?["leak_shape"].as_str().unwrap_or("none"))?;
    ctx.check_eq("kernel-only", held.size, &answer.0["totals"]["kernel_only"])?;
    let only = Answer::ask(&["--unheld"])?;
    ctx.check_eq("rows of --unheld", 1, only.list("buffers").len())
}
