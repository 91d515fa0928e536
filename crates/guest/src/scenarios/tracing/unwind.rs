//! Stacks that are copied, and unwound by the tables of the program.

use anyhow::Context;
use rustix::process::{Signal, kill_process};

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

/// The causes of what was lost.
fn causes(told: &Told) -> Vec<String> {
    let lost = told.lines.last().and_then(|line| line["lost"].as_array().cloned()).unwrap_or_default();
    lost.iter().filter_map(|one| one["cause"].as_str().map(str::to_owned)).collect()
}

pub(super) fn without_frame_pointers(ctx: &mut Ctx) -> anyhow::Result<()> {
    let start = |calls: usize| Maker::start(&mut command(&PROGRAM.path(), calls, &[]));
    let by_pointers = trace(&["--strict"])?;
    let one = start(8)?;
    let by_pointers = by_pointers.end()?;
    ctx.check_eq("by frame pointers", "truncated -: make", told(&by_pointers, 0)?)?;
    drop(one);

    let by_tables = trace(&["--unwind", "dwarf"])?;
    let calls = [0, 1, 8, 20];
    let makers = calls.iter().map(|&calls| start(calls)).collect::<anyhow::Result<Vec<Maker>>>()?;
    let deep = start(2 * FIT)?;
    let by_tables = by_tables.end()?;
    ctx.check_eq("status", 0, by_tables.status)?;
    // Of processes that are just executing a program, the registers are those of another one.
    let other = causes(&by_tables).into_iter().filter(|cause| cause != "unwind").count();
    ctx.check_eq(format!("other causes of losses: {}", by_tables.errors), 0, other)?;
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
    let says_so = causes(&late).iter().any(|cause| cause == "unwind");
    ctx.check(format!("it says that stacks were not unwound: {}", late.errors), says_so)?;
    ctx.check_eq("status", 3, late.status)?;
    // Whether the call has its name depends on what is known of the file already.
    let stack = told(&late, 0)?;
    ctx.check(format!("of a process that has gone: {stack}"), stack.starts_with("truncated -: "))
}
