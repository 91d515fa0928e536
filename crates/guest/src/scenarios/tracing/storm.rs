//! More events than can be read.

use std::collections::HashSet;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, kill_process};

use super::kit::{Running, Told};
use crate::actor::Actor;
use crate::scenario::Ctx;

const MAKERS: u64 = 8;
const EACH: u64 = 500;

/// Eight processes make memfds and close them, as fast as they can.
fn storm() -> anyhow::Result<()> {
    let mut makers = Vec::new();
    for _ in 0..MAKERS {
        makers.push(Actor::start(b"storm", |stage| {
            stage.pause(&[])?;
            for _ in 0..EACH {
                drop(memfd_create(c"storm", MemfdFlags::CLOEXEC)?);
            }
            stage.pause(&[])
        })?);
    }
    for maker in &mut makers {
        maker.paused()?;
        maker.go_on()?;
    }
    makers.iter_mut().try_for_each(|maker| maker.paused().map(drop))
}

/// How many were made and freed; and how many events say again what was said already.
fn counted(told: &Told) -> (u64, u64, u64) {
    let (mut living, mut made, mut freed, mut again) = (HashSet::new(), 0, 0, 0);
    for line in told.lines.iter().filter(|line| line["by"]["command"] == "storm") {
        let id = line["buffer"]["id"].to_string();
        match line["event"].as_str() {
            Some("made") => {
                made += 1;
                again += u64::from(!living.insert(id));
            }
            Some("freed") => {
                freed += 1;
                again += u64::from(!living.remove(&id));
            }
            _ => {}
        }
    }
    (made, freed, again)
}

pub(super) fn in_a_storm(ctx: &mut Ctx) -> anyhow::Result<()> {
    let trace = Running::start(&["--kind", "memfd", "--event", "made,freed", "--room", "64M"])?;
    storm()?;
    let told = trace.end()?;
    let (made, freed, again) = counted(&told);
    let (all, lost) = (MAKERS * EACH, told.lost());
    ctx.check(format!("made {made} of {all}, lost {lost}"), made <= all && made + lost >= all)?;
    ctx.check(format!("freed {freed} of {all}, lost {lost}"), freed <= all && freed + lost >= all)?;
    // Where an event is lost, the next one of the same address seems to come twice.
    ctx.check(format!("{again} told again, lost {lost}"), again <= lost)
}

pub(super) fn not_read(ctx: &mut Ctx) -> anyhow::Result<()> {
    let trace = Running::start(&["--strict", "--kind", "memfd", "--event", "made,freed", "--room", "64K"])?;
    let pid = trace.pid()?;
    kill_process(pid, Signal::STOP)?;
    storm()?;
    kill_process(pid, Signal::CONT)?;
    let told = trace.end()?;
    ctx.check_eq("status", 3, told.status)?;
    ctx.check(format!("stderr: {}", told.errors), told.errors.contains("faster than they were read"))?;
    let (made, _, _) = counted(&told);
    let (all, lost) = (MAKERS * EACH, told.lost());
    ctx.check(format!("made {made} of {all}, lost {lost}"), made < all && made + lost >= all)?;
    let room = told.lines.iter().filter(|line| line["event"] == "lost" && line["cause"] == "room");
    let said: u64 = room.filter_map(|line| line["count"].as_u64()).sum();
    let end = told.lines.last().map(|line| line["lost"].clone()).unwrap_or_default();
    let in_all = end.as_array().into_iter().flatten().find(|one| one["cause"] == "room");
    let in_all = in_all.map(|one| one["count"].to_string()).unwrap_or_default();
    ctx.check_eq("lost where it was lost, and in all", in_all, said.to_string())
}
