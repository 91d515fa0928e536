//! Mappings by queries and by text: both give the same answer.

use std::process::Command;

use dmabuf::DmaBuf;
use serde_json::Value;

use crate::actor::{Actor, Held, Stage};
use crate::answer::{Answer, LSBUF};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::record::world::RecordedWorld;
use crate::scenario::{Ctx, Scenario};
use crate::sys::{self, page, page_size, ring};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "private_map",
        claim: "A private mapping is counted as its process's reference, though no other mapping or fd shows the buffer",
        needs: &[Need::Heap],
        kernels: Kernels::Every,
        ways: &[],
        run: private_map,
    },
    Scenario {
        name: "private_map_beside_a_rest",
        claim: "A private mapping is not confused with references of the kernel, and both numbers are exact",
        needs: &[Need::Heap, Need::Vgem],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: private_map_beside_a_rest,
    },
    Scenario {
        name: "procmap_agrees_with_maps",
        claim: "Queries and text give the same answer about a world with every arrangement that is hard to count",
        needs: &[Need::Procmap],
        kernels: Kernels::Every,
        ways: &[],
        run: procmap_agrees_with_maps,
    },
    Scenario {
        name: "procmap_is_the_default",
        claim: "Mappings are queried if the kernel can do that, else read as text, and the answer says which; where it cannot, asking for queries fails with one line",
        needs: &[],
        kernels: Kernels::OneOfEach(&[Need::Procmap]),
        ways: &[],
        run: procmap_is_the_default,
    },
];

/// The residual, the count, and the holders with their mappings.
fn account(answer: &Answer, ino: u64) -> anyhow::Result<String> {
    let b = answer.buffer(ino)?;
    let holders = b["holders"].as_array().into_iter().flatten().map(|h| {
        let maps = h["maps"].as_array().into_iter().flatten();
        let maps: Vec<String> = maps.map(|m| format!("{}-{} {}", m["start"], m["end"], m["perms"])).collect();
        format!("{}:{}{maps:?}", h["pid"], h["fds"])
    });
    let holders: Vec<String> = holders.collect();
    Ok(format!("{} of {}, ~{}, {}", b["refs"]["kernel"], b["count"], b["estimate"], holders.join(" ")))
}

/// The same, by what was made.
fn expected(held: &Held, kernel: u64, count: u64) -> String {
    let maps = held.maps.iter().map(|&(start, end, _)| format!("\"{start:#x}\"-\"{end:#x}\" \"rw-p\""));
    let maps: Vec<String> = maps.collect();
    format!("{kernel} of {count}, ~false, {}:{:?}{maps:?}", held.pid, held.fds)
}

/// Every value of `--source` that shows protection and includes the kernel's list.
fn listed_ways() -> Vec<&'static str> {
    let procmap = Need::Procmap.probe().then_some("procmap,bufinfo");
    ["procfs,bufinfo", "maps,bufinfo"].into_iter().chain(procmap).collect()
}

/// Compares the account by each of these sources.
fn check_account(ctx: &mut Ctx, held: &Held, kernel: u64, count: u64) -> anyhow::Result<()> {
    for way in listed_ways() {
        let answer = Answer::ask(&["--source", way])?;
        let expected = expected(held, kernel, count);
        ctx.check_eq(format!("account by {way}"), expected, account(&answer, held.ino)?)?;
    }
    Ok(())
}

/// Pauses with a private mapping of a buffer and nothing else.
fn pause_mapped_privately(stage: &mut Stage, buf: DmaBuf) -> anyhow::Result<()> {
    let region = sys::map_private(&buf, 0, page_size())?;
    let held = Held::by(&buf)?.without_fds().and_map(region, 0);
    drop(buf);
    stage.pause(&[held])
}

fn private_map(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"private", |stage| {
        let (buf, _) = make::plain(page())?;
        pause_mapped_privately(stage, buf)
    })?;
    let held = actor.paused_with_one()?;
    check_account(ctx, &held, 0, 1)?;
    // Without a count nothing tells that a reference is missing.
    let answer = Answer::ask(&["--source", "procfs"])?;
    ctx.check_eq("mappings without the kernel's list", 1, &answer.buffer(held.ino)?["refs"]["map"])
}

fn private_map_beside_a_rest(ctx: &mut Ctx) -> anyhow::Result<()> {
    /// The references of one import: those of the attachment, the object and the cache.
    const IMPORTED: u64 = 3;
    let mut actor = Actor::start(b"private", |stage| {
        let (buf, _) = make::plain(page())?;
        let device = make::vgem()?;
        let _handle = device.import(&buf)?;
        pause_mapped_privately(stage, buf)
    })?;
    let held = actor.paused_with_one()?;
    check_account(ctx, &held, IMPORTED, 1 + IMPORTED)
}

fn procmap_agrees_with_maps(ctx: &mut Ctx) -> anyhow::Result<()> {
    let world = RecordedWorld::play()?;
    let mut more = Actor::start(b"more", |stage| {
        let (private, _) = make::plain(page())?;
        let (fixed, _) = make::plain(page())?;
        let (ring, other) = (ring::open()?, ring::open()?);
        ring::register(&ring, &[Some(std::os::fd::AsFd::as_fd(&fixed))])?;
        sys::map(&ring, 0, page_size())?;
        sys::map(&other, 0, page_size())?;
        // A page of the heap can be mapped privately; GEM objects cannot.
        let held = match sys::map_private(&private, 0, page_size()) {
            Ok(region) => Held::by(&private)?.and_map(region, 0),
            Err(_) => Held::by(&private)?,
        };
        drop(ring);
        stage.pause(&[held])
    })?;
    more.paused()?;
    for list in ["", ",bufinfo"] {
        let by = |mappings: &str| -> anyhow::Result<Value> {
            let mut answer = Answer::ask(&["--source", &format!("{mappings}{list}")])?.0;
            answer["taken_at"].take();
            for own in ["duration_us", "sources", "processes"] {
                answer["scan"][own].take();
            }
            Ok(answer)
        };
        let (text, queries) = (by("maps")?, by("procmap")?);
        let buffers = text["buffers"].as_array().map_or(0, Vec::len);
        ctx.check(format!("all {buffers} buffers are in the text's answer"), buffers > world.told.len())?;
        ctx.check_eq(format!("answer by queries{list}"), text, queries)?;
    }
    Ok(())
}

fn procmap_is_the_default(ctx: &mut Ctx) -> anyhow::Result<()> {
    let there = Need::Procmap.probe();
    let source = if there { "procmap" } else { "maps" };
    let expected = format!(r#"["fd","fdinfo","{source}","bufinfo"]"#);
    ctx.check_eq("sources", expected, &Answer::ask(&["--source", "procfs,bufinfo"])?.0["scan"]["sources"])?;
    let text = Answer::ask(&["--source", "maps"])?;
    ctx.check_eq("sources, text", r#"["fd","fdinfo","maps"]"#, &text.0["scan"]["sources"])?;
    let forced = Command::new(LSBUF).args(["--source", "procmap"]).output()?;
    ctx.check_eq("forced: it answers", there, forced.status.success())?;
    let lines =
        String::from_utf8_lossy(&forced.stderr).lines().filter(|l| l.contains("PROCMAP_QUERY")).count();
    ctx.check_eq("forced: lines that say that it is not there", usize::from(!there), lines)
}
