//! Many births at once, and more of them than the recorder has room for.

use std::os::fd::OwnedFd;

use anyhow::{Context, ensure};
use rustix::fs::{MemfdFlags, memfd_create};

use super::kit::{Origins, SET, install, line, remove, told};
use crate::actor::{Actor, Held};
use crate::scenario::Ctx;
use crate::scenarios::probes::lsbuf;

/// What `probes status` says of the recorder.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    births: u64,
    living: u64,
    full: u64,
    skipped: u64,
}

impl Counts {
    fn ask() -> anyhow::Result<Counts> {
        let output = lsbuf(&["probes", "status"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number_before = |word: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let place = words.iter().position(|found| found.trim_end_matches([',', ';']) == word)?;
            words.get(place.checked_sub(1)?)?.parse::<u64>().ok()
        };
        let living = text.split_once("deaths; ").and_then(|(_, rest)| rest.split_once(" of "));
        Ok(Counts {
            births: number_before("births").with_context(|| format!("no births in {text:?}"))?,
            living: living.context("no number of the living")?.0.parse()?,
            skipped: text
                .lines()
                .find_map(|line| line.strip_prefix("At most ")?.split_once(" births and ")?.0.parse().ok())
                .unwrap_or(0),
            full: text
                .lines()
                .find_map(|line| line.split_once(" births were lost")?.0.parse().ok())
                .unwrap_or(0),
        })
    }
}

/// How many records of births by `storm` the recorder shows. Each has the name twice: of the
/// process and of the thread.
fn of_the_storm() -> anyhow::Result<usize> {
    let records = std::fs::read(format!("{SET}/origins"))?;
    // Older kernels leave the end of an earlier name behind the NUL.
    Ok(records.windows(6).filter(|bytes| *bytes == b"storm\0").count() / 2)
}

pub(super) fn in_a_storm(ctx: &mut Ctx) -> anyhow::Result<()> {
    const MAKERS: u64 = 8;
    const EACH: u64 = 1500;
    install(ctx, &[])?;
    let before = Counts::ask()?;
    let mut makers = Vec::new();
    for _ in 0..MAKERS {
        makers.push(Actor::start(b"storm", |stage| {
            stage.pause(&[])?;
            let mut kept = None;
            for _ in 0..EACH {
                // The one before is closed when the next has been made.
                kept = Some(memfd_create(c"storm", MemfdFlags::CLOEXEC)?);
            }
            let kept = kept.context("none was made")?;
            stage.pause(&[Held::by_file(&kept)?])
        })?);
    }
    for maker in &mut makers {
        maker.paused()?;
        maker.go_on()?;
    }
    let mut living = Vec::new();
    for maker in &mut makers {
        living.push((maker.pid, maker.paused_with_one()?.ino));
    }
    let after = Counts::ask()?;
    let made = MAKERS * EACH;
    let born = after.births - before.births;
    // Others may make files of tmpfs meanwhile, such as this test's own report.
    let lost = after.full + after.skipped;
    ctx.check(format!("{born} births of {made} were recorded, {lost} lost: {after:?}"), born + lost >= made)?;
    ctx.check_eq("lost for want of room", 0, after.full)?;
    let origins = Origins::ask(&mut lsbuf(&["--kind", "memfd"]))?;
    let mut known = 0;
    for (pid, ino) in living {
        let origin = origins.of("memfd", ino)?;
        if origin["state"] == "unknown" && lost > 0 {
            continue;
        }
        known += 1;
        ctx.check_eq(format!("maker of {ino}"), line(pid, "storm", pid, "storm", 0), told(origin))?;
    }
    let shown =
        origins.0.iter().filter(|((kind, _), origin)| kind == "memfd" && origin["command"] == "storm");
    ctx.check_eq("buffers of the storm in the answer", known, shown.count())?;
    ctx.check_eq("records of the storm", known, of_the_storm()?)?;
    drop(makers);
    ctx.check_eq("records of the storm, after all have gone", 0, of_the_storm()?)?;
    remove(ctx)
}

pub(super) fn with_too_little_room(ctx: &mut Ctx) -> anyhow::Result<()> {
    const ROOM: usize = 64;
    install(ctx, &["--most", &ROOM.to_string()])?;
    let mut actor = Actor::start(b"many", |stage| {
        let files: Vec<OwnedFd> = (0..2 * ROOM)
            .map(|_| memfd_create(c"many", MemfdFlags::CLOEXEC).map_err(Into::into))
            .collect::<anyhow::Result<_>>()?;
        let held: Vec<Held> = files.iter().map(Held::by_file).collect::<anyhow::Result<_>>()?;
        stage.pause(&held)
    })?;
    let held = actor.paused()?;
    let counts = Counts::ask()?;
    ctx.check(format!("births were lost: {counts:?}"), counts.full > 0)?;
    ctx.check(
        format!("no more are recorded than there is room for: {counts:?}"),
        counts.living <= ROOM as u64,
    )?;
    let origins = Origins::ask(&mut lsbuf(&["--kind", "memfd"]))?;
    let expected = line(actor.pid, "many", actor.pid, "many", 0);
    let (mut known, mut unknown) = (0_u64, 0_u64);
    for held in &held {
        let origin = origins.of("memfd", held.ino)?;
        match origin["state"].as_str() {
            Some("made") => {
                known += 1;
                ensure!(told(origin) == expected, "{} and not {expected}", told(origin));
            }
            Some("unknown") => unknown += 1,
            _ => ctx.check(format!("neither known nor unknown: {origin}"), false)?,
        }
    }
    ctx.check(format!("{known} are known, {unknown} are not"), known > 0 && unknown > 0)?;
    ctx.check_eq("all of them", held.len(), known + unknown)?;
    remove(ctx)
}
