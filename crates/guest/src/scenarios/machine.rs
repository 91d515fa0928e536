//! The machine as a whole: several exporters, many buffers, processes that start and end, users
//! without privileges.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use dmabuf::{DmaBuf, Udmabuf};

use super::holding::{SIZE, compare_in, holder_of_one};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF, Truth, USER, as_user};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys::{self, page};
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "several_exporters",
        claim: "Buffers of three exporters are told apart, and their sum is the kernel's own total",
        needs: &[Need::Heap, Need::Udmabuf, Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: several_exporters,
    },
    Scenario {
        name: "thousand_buffers",
        claim: "A thousand buffers are all found, once each, and their sum is the kernel's own total",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: thousand_buffers,
    },
    Scenario {
        name: "processes_exit_during_the_scan",
        claim: "While holders fork and exit, no scan invents or loses a reference of a process that stays",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: processes_exit_during_the_scan,
    },
    Scenario {
        name: "plain_user",
        claim: "A user without privileges sees the buffers of that user's processes, is told that others are unseen, and gets a failure only with --strict",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[Way::Auto, Way::Procfs],
        run: plain_user,
    },
    Scenario {
        name: "no_debugfs",
        claim: "Without debugfs the answer says that it is partial, and its figures are the same",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[Way::Procfs],
        run: no_debugfs,
    },
    Scenario {
        name: "no_dmabuf",
        claim: "On a machine without dma-bufs the answer is empty and complete",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: no_dmabuf,
    },
];

/// The number of buffers and bytes in the last line of the kernel's list, parsed by code that
/// shares nothing with lsbuf.
pub(super) fn closing_line() -> anyhow::Result<(u64, u64)> {
    let list = fs::read_to_string("/sys/kernel/debug/dma_buf/bufinfo").context("reading bufinfo")?;
    let line = list.lines().rfind(|line| !line.is_empty()).context("an empty list")?;
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [objects, bytes] => Ok((objects, bytes)),
        _ => anyhow::bail!("no closing line: {line:?}"),
    }
}

fn sums_up(ctx: &mut Ctx, answer: &Answer) -> anyhow::Result<()> {
    let (objects, bytes) = closing_line()?;
    ctx.check_eq("buffers by the list's last line", objects, &answer.0["totals"]["buffers"])?;
    ctx.check_eq("bytes by the list's last line", bytes, &answer.0["totals"]["size"])
}

fn several_exporters(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"several", |stage| {
        let heap = make::plain(SIZE)?.0;
        let memory = Udmabuf::open()?.allocate(2 * SIZE)?;
        let device = make::vgem()?;
        let dumb = device.create_dumb(make::at_least(4 * SIZE)?)?;
        let gem = dumb.handle.export()?;
        drop(dumb);
        stage.pause(&[Held::by(&heap)?, Held::by(&memory)?, Held::by(&gem)?])
    })?;
    let held = actor.paused()?;
    let answer = Answer::ask(&[])?;
    for (held, exporter) in held.into_iter().zip([make::HEAP, "udmabuf", make::DRM]) {
        compare_in(ctx, &answer, &Truth::held(exporter, vec![held]))?;
    }
    let exporters: Vec<String> = answer
        .list("exporters")
        .iter()
        .map(|e| format!("{} {} in {}", e["exporter"].as_str().unwrap_or("?"), e["size"], e["buffers"]))
        .collect();
    let expected = format!("drm {} in 1, udmabuf {} in 1, system {} in 1", 4 * SIZE, 2 * SIZE, SIZE);
    ctx.check_eq("by exporter", expected, exporters.join(", "))?;
    let only = Answer::ask(&["--exporter", "udmabuf"])?;
    ctx.check_eq("rows of --exporter udmabuf", 1, only.list("buffers").len())?;
    sums_up(ctx, &answer)
}

fn thousand_buffers(ctx: &mut Ctx) -> anyhow::Result<()> {
    const MANY: usize = 1000;
    let mut actor = Actor::start(b"thousand", |stage| {
        let bufs: Vec<DmaBuf> =
            (0..MANY).map(|_| Ok(make::plain(page())?.0)).collect::<anyhow::Result<_>>()?;
        let held: Vec<Held> = bufs.iter().map(Held::by).collect::<Result<_, _>>()?;
        stage.pause(&held)
    })?;
    let held = actor.paused()?;
    let answer = Answer::ask(&[])?;
    ctx.check_eq("buffers", MANY, answer.list("buffers").len())?;
    let mut same = 0;
    for held in held {
        let (ino, size) = (held.ino, held.size);
        same += u64::from(Truth::held(make::plain_exporter(), vec![held]).line(size) == answer.line(ino)?);
    }
    ctx.check_eq("accounts that equal the truth", MANY, same)?;
    ctx.check_eq("rss", page() * MANY as u64, &answer.process(actor.pid)?["rss"])?;
    sums_up(ctx, &answer)
}

/// How many scans are made while processes start and end. It is a number, because a busy host would
/// cut a time short.
const SCANS: usize = 8;

fn processes_exit_during_the_scan(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"churn", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        stage.pause(&[Held::by(&buf)?])?;
        loop {
            // Each child holds the buffer by its copy of the fd table as long as it lives.
            sys::fork(|| {
                std::thread::sleep(Duration::from_millis(5));
                0
            })?;
            std::thread::sleep(Duration::from_millis(2));
            while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        }
    })?;
    let held = actor.paused_with_one()?;
    let mut still = holder_of_one()?;
    let truth = Truth::held(make::plain_exporter(), vec![still.paused_with_one()?]);
    let still_ino = truth.held.first().map_or(0, |held| held.ino);
    actor.go_on()?;
    let (mut wrong, mut unbalanced, mut invented) = (Vec::new(), Vec::new(), 0);
    for _ in 0..SCANS {
        let answer = Answer::ask(&[])?;
        if answer.line(still_ino)? != truth.line(SIZE) {
            wrong.push(answer.line(still_ino)?);
        }
        invented +=
            answer.list("buffers").iter().filter(|b| b["ino"] != held.ino && b["ino"] != still_ino).count();
        unbalanced.extend(answer.unbalanced());
    }
    ctx.check_eq("wrong accounts of the buffer that no process touches", "[]", format!("{wrong:?}"))?;
    ctx.check_eq("buffers that never existed", 0, invented)?;
    ctx.check_eq("exact accounts that do not balance", "[]", format!("{unbalanced:?}"))
}

fn plain_user(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut roots = holder_of_one()?;
    roots.paused()?;
    let mut own = Actor::start(b"own", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        sys::become_user(USER)?;
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = own.paused_with_one()?;
    let answer = Answer::from(&mut as_user(&["--json"]))?;
    compare_in(ctx, &answer, &Truth::held(make::plain_exporter(), vec![held]))?;
    ctx.check_eq("buffers seen", 1, answer.list("buffers").len())?;
    let scan = &answer.0["scan"];
    ctx.check_eq("complete", false, &scan["complete"])?;
    ctx.check("some processes are unreadable", scan["processes"]["unreadable"].as_u64() > Some(0))?;
    let said = as_user(&[]).output()?;
    ctx.check_eq("exit status", 0, said.status.code().unwrap_or(-1))?;
    let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
    ctx.check(
        "stderr says partial and why",
        stderr.starts_with("lsbuf: partial: ") && stderr.contains("permission denied"),
    )?;
    ctx.check_eq("exit status with --strict", 3, as_user(&["--strict"]).status()?.code().unwrap_or(-1))?;
    let doctor = as_user(&["doctor"]).output()?;
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    ctx.check(
        "doctor says what to do",
        doctor.contains("run as root") && doctor.contains("Answers are partial"),
    )
}

fn no_debugfs(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = holder_of_one()?;
    let truth = Truth::held(make::plain_exporter(), vec![actor.paused_with_one()?]);
    let answer = Answer::ask(&["--sys-root", "/nowhere"])?;
    compare_in(ctx, &answer, &truth)?;
    ctx.check_eq("complete", false, &answer.0["scan"]["complete"])?;
    let notes = answer.0["scan"]["notes"].to_string();
    ctx.check("the note names the file", notes.contains("/nowhere/kernel/debug/dma_buf/bufinfo"))?;
    let procfs = Answer::ask(&["--source", "procfs"])?;
    compare_in(ctx, &procfs, &truth)
}

fn no_dmabuf(ctx: &mut Ctx) -> anyhow::Result<()> {
    let output = Command::new(LSBUF).arg("--strict").output()?;
    ctx.check_eq("exit status", 0, output.status.code().unwrap_or(-1))?;
    ctx.check_eq("standard output", "", String::from_utf8_lossy(&output.stdout))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ctx.check_eq("lines on standard error", 1, said.lines().count())?;
    ctx.check(
        "it says what it looked at",
        said.contains("no dma-buf found; looked at") && said.contains(ctx.way.list()),
    )?;
    let doctor = Command::new(LSBUF).args(["doctor", "--strict"]).status()?;
    ctx.check_eq("doctor's exit status with --strict", 0, doctor.code().unwrap_or(-1))
}
