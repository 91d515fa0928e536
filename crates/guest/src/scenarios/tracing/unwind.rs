//! Stacks that are copied, and unwound by the tables of the program.

use anyhow::Context;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::kit::{Running, Told};
use crate::maker::Build;
use crate::scenario::Ctx;
use crate::scenarios::origins::program::{Maker, command, functions, told_functions};

/// How many calls of the program fit into what is copied, about: each takes 1000 bytes of 32 KiB.
const FIT: usize = 31;

const PROGRAM: Build = Build::WithoutFramePointers;

/// A trace of the program's memfds.
fn trace(more: &[&str]) -> anyhow::Result<Running> {
    Running::start(&[&["--stacks", "--event", "made", "--comm", PROGRAM.name()], more].concat())
}

/// How its calls end, how they were found, and the calls.
fn told(told: &Told, nth: usize) -> anyhow::Result<String> {
    let made = told.by("made", PROGRAM.name()).nth(nth).context("no such birth")?;
    let word = |key: &str| made["stack"][key].as_str().unwrap_or("-").to_owned();
    Ok(format!("{} {}: {}", word("user_end"), word("unwind"), told_functions(made)))
}

pub(super) fn without_frame_pointers(ctx: &mut Ctx) -> anyhow::Result<()> {
    let start = |calls: usize| Maker::start(&mut command(&PROGRAM.path(), calls, &[]));
    let by_pointers = trace(&["--strict"])?;
    let one = start(8)?;
    let by_pointers = by_pointers.end()?;
    ctx.check_eq("by frame pointers", "truncated -: make", told(&by_pointers, 0)?)?;
    drop(one);

    let by_tables = trace(&["--unwind", "dwarf", "--strict"])?;
    let calls = [0, 1, 8, 20];
    let makers = calls.iter().map(|&calls| start(calls)).collect::<anyhow::Result<Vec<Maker>>>()?;
    let deep = start(2 * FIT)?;
    let by_tables = by_tables.end()?;
    ctx.check_eq(format!("status: {}", by_tables.errors), 0, by_tables.status)?;
    for (nth, calls) in calls.into_iter().enumerate() {
        let expected = format!("complete dwarf: {}", functions(calls).join(" "));
        ctx.check_eq(format!("{calls} calls"), expected, told(&by_tables, nth)?)?;
    }
    let many = told(&by_tables, makers.len())?;
    let (end, names) = many.split_once(": ").context("no calls")?;
    ctx.check_eq("the end of many calls", "truncated dwarf", end)?;
    let count = names.split(' ').count();
    let innermost: Vec<String> = functions(2 * FIT).into_iter().take(count).collect();
    ctx.check_eq("the innermost of many calls", innermost.join(" "), names)?;
    ctx.check(format!("as many as fit: {count}"), (FIT - 3..=FIT + 3).contains(&count))?;
    drop((makers, deep));

    // Nothing is read before the program has exited.
    let late = trace(&["--unwind", "dwarf", "--strict"])?;
    kill_process(late.pid()?, Signal::STOP)?;
    drop(start(8)?);
    kill_process(late.pid()?, Signal::CONT)?;
    let late = late.end()?;
    let lost = late.lines.last().map(|line| line["lost"].clone()).unwrap_or_default();
    let unwind = lost.as_array().into_iter().flatten().find(|one| one["cause"] == "unwind");
    let count = unwind.map_or(Value::Null, |one| one["count"].clone());
    ctx.check_eq("stacks that were not unwound", 1, count)?;
    ctx.check_eq("status", 3, late.status)?;
    ctx.check_eq("of a process that has gone", "truncated -: make", told(&late, 0)?)
}
