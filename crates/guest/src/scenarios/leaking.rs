//! Leaks that people have reported, imitated, recorded and asked for: a dma-buf for each frame
//! (Hyprland#6584), a memfd for each window (cosmic-comp#2073), a sync_file for each frame
//! (egl-wayland#196). Beside them a pool whose buffers are replaced.
//!
//! Limit: seconds stand for hours.

use std::collections::VecDeque;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dmabuf::Direction;
use serde_json::Value;

use crate::actor::{Actor, Stage};
use crate::answer::{Answer, LSBUF};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::scenarios::holding::SIZE;
use crate::scenarios::shmem::kit::page;
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "leaks_are_suspects",
    claim: "A recording of a dma-buf leaked for each frame, a memfd for each window and a sync_file for each frame has them as suspects with their evidence, and a pool that is replaced is none",
    needs: &[Need::SyncFile],
    kernels: Kernels::OldestAndNewest,
    ways: Way::BOTH,
    run: suspects,
}];

/// Least time from one leak to the next.
const FRAME: Duration = Duration::from_millis(40);

/// Samples of the recording: with the pauses between them at least 6 seconds.
const SAMPLES: u64 = 60;

const RECORDING: &str = "/tmp/leaks.db";

const KINDS: &str = "dmabuf,memfd";

/// Does something for each frame until the scenario is told.
fn each_frame(
    stage: &mut Stage,
    frame: Duration,
    mut make: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    stage.pause(&[])?;
    while !stage.is_told()? {
        make()?;
        std::thread::sleep(frame);
    }
    stage.wait()
}

/// Runs lsbuf. Returns what it printed.
fn lsbuf(args: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(LSBUF).args(args).output().context("running lsbuf")?;
    ensure!(output.status.success(), "lsbuf: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Time from one leak to the next. The number of samples is fixed, so a slow machine takes longer
/// for them; its leaks are then slower too, and stay below the limit of fds.
fn frame() -> anyhow::Result<Duration> {
    let start = Instant::now();
    lsbuf(&["ls", "--json", "--kind", KINDS])?;
    Ok(FRAME.max(start.elapsed() / 3))
}

fn suspects(ctx: &mut Ctx) -> anyhow::Result<()> {
    let frame = frame()?;
    let mut compositor = Actor::start(b"compositor", move |stage| {
        let mut frames = Vec::new();
        each_frame(stage, frame, || {
            frames.push(make::plain(SIZE)?);
            Ok(())
        })
    })?;
    let mut windows = Actor::start(b"windows", move |stage| {
        let mut decorations = Vec::new();
        each_frame(stage, frame, || {
            let name = format!("decoration-{}", decorations.len());
            decorations.push(make::memfd(name.as_bytes(), 2, 2)?);
            Ok(())
        })
    })?;
    let mut player = Actor::start(b"player", move |stage| {
        let (picture, _) = make::plain(SIZE)?;
        let mut fences = Vec::new();
        each_frame(stage, frame, || {
            fences.push(picture.export_sync_file(Direction::ReadWrite)?);
            Ok(())
        })
    })?;
    let mut decoder = Actor::start(b"decoder", move |stage| {
        let mut pool = VecDeque::new();
        each_frame(stage, frame, || {
            pool.push_back(make::memfd(b"picture", 2, 2)?);
            pool.drain(..pool.len().saturating_sub(6));
            Ok(())
        })
    })?;
    let mut actors = [&mut compositor, &mut windows, &mut player, &mut decoder];
    for actor in &mut actors {
        actor.paused()?;
        actor.go_on()?;
    }
    let count = SAMPLES.to_string();
    let record = ["record", RECORDING, "--quiet", "--every", "100ms", "--count", &count, "--kind", KINDS];
    lsbuf(&record)?;
    for actor in &mut actors {
        actor.go_on()?;
    }
    let answer =
        Answer::from(Command::new(LSBUF).args(["leaks", RECORDING, "--json", "--all", "--kind", KINDS]))?;
    let of = |command: &str, kind: &str| {
        let is = |group: &&Value| group["comm"] == command && group["kind"] == kind;
        answer.list("groups").iter().find(is).cloned().unwrap_or_default()
    };
    ctx.check_eq("samples", SAMPLES, &answer.0["samples"])?;
    let leaks = [("compositor", "dmabuf", "", SIZE), ("windows", "memfd", "decoration-#", 2 * page())];
    for (command, kind, name, size) in leaks {
        let group = of(command, kind);
        let born = group["born"].as_u64().unwrap_or_default();
        ctx.check_eq(format!("{command}: state"), "\"growing\"", &group["state"])?;
        ctx.check_eq(format!("{command}: name"), format!("\"{name}\""), &group["name"])?;
        ctx.check(format!("{command}: {born} were born"), born >= SAMPLES / 2)?;
        ctx.check_eq(
            format!("{command}: died"),
            "0 and 0",
            format!("{} and {}", group["died"], group["older_died"]),
        )?;
        ctx.check_eq(format!("{command}: left"), born, &group["left"])?;
        ctx.check_eq(format!("{command}: bytes"), born * size, &group["bytes"])?;
        let cohorts = group["cohorts"].as_array().cloned().unwrap_or_default();
        let stays = |one: &&Value| one["born"].as_u64() > Some(0) && one["born"] == one["left"];
        ctx.check_eq(format!("{command}: cohorts that stay"), 8, cohorts.iter().filter(stays).count())?;
        let r2 = group["slope"]["r2"].as_f64().unwrap_or_default();
        ctx.check(format!("{command}: r² is {r2}"), r2 > 0.9)?;
    }
    ctx.check_eq("decoder: state", "\"churn\"", &of("decoder", "memfd")["state"])?;
    ctx.check_eq("player: state of its one buffer", "\"plateau\"", &of("player", "dmabuf")["state"])?;
    let rising = |fences: &&Value| fences["rising"] == true;
    let fences: Vec<&Value> = answer.list("sync_files").iter().filter(rising).collect();
    let commands: Vec<&Value> = fences.iter().map(|fences| &fences["comm"]).collect();
    ctx.check_eq("whose sync_files rise", "[String(\"player\")]", format!("{commands:?}"))?;
    let failing = ["leaks", RECORDING, "--fail-on", "growing", "--kind", KINDS];
    let status = Command::new(LSBUF).args(failing).output().context("running lsbuf")?.status;
    ctx.check_eq("--fail-on growing", "Some(4)", format!("{:?}", status.code()))?;
    std::fs::remove_file(RECORDING).context("removing the recording")
}
