//! BPF iterators and procfs side by side: both give the same answer; and which users may use BPF
//! iterators.

use std::os::fd::AsFd;

use anyhow::Context;
use rustix::thread::CapabilitySet as Caps;
use serde_json::Value;

use super::holding::{SIZE, compare, compare_in, holder_by_fd_and_mapping};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF, Truth};
use crate::caller::{Caller, MachineView};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::record::world::RecordedWorld;
use crate::scenario::{Ctx, Scenario};
use crate::sys::{self, page_size, ring, task};
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "sources_agree",
        claim: "About a world with every arrangement that is hard to count, BPF iterators and procfs give identical answers",
        needs: &[Need::Iterators],
        kernels: Kernels::Every,
        ways: &[],
        run: sources_agree,
    },
    Scenario {
        name: "balanced_at_once",
        claim: "If every reference is an fd or a mapping, the buffers' own trees of mappings explain every count, and no other VMA is read",
        needs: &[Need::Iterators],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Bpf],
        run: balanced_at_once,
    },
    Scenario {
        name: "many_mappings",
        claim: "A buffer with more mappings than an iterator writes in one step is read in another way, and its account balances",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: many_mappings,
    },
    Scenario {
        name: "who_may_iterate",
        claim: "CAP_BPF and CAP_PERFMON suffice for BPF iterators; without them lsbuf prints one line that says so, and no answer",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: who_may_iterate,
    },
];

fn ask(way: Way) -> anyhow::Result<Answer> {
    Answer::ask(&["--source", way.sources()])
}

/// The parts of an answer that depend on when and how it was made.
const OF_THE_SCAN: [&str; 2] = ["scan", "taken_at"];

/// Where two documents differ.
fn differences(at: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            for (key, value) in a {
                differences(&format!("{at}/{key}"), value, &b[key], found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (nth, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}/{nth}"), a, b, found);
            }
        }
        (a, b) if a == b => {}
        (a, b) => found.push(format!("{at}: {a} by procfs, {b} by bpf")),
    }
}

/// Removes, for buffers that no process shows, what debugfs does not tell and an inode does.
/// Returns it.
fn of_the_unheld(answer: &mut Answer) -> Vec<Value> {
    let buffers = answer.0["buffers"].as_array_mut().into_iter().flatten();
    let unheld = buffers.filter(|b| b["holders"].as_array().is_some_and(Vec::is_empty));
    unheld.flat_map(|b| ["created_at", "creator_uid"].map(|key| b[key].take())).collect()
}

/// Runs lsbuf in both ways and compares everything.
fn compare_sources(ctx: &mut Ctx, what: &str, least: usize) -> anyhow::Result<()> {
    let [mut by_procfs, mut by_bpf] = [ask(Way::Procfs)?, ask(Way::Bpf)?].map(|mut answer| {
        for key in OF_THE_SCAN {
            answer.0.as_object_mut().map(|document| document.remove(key));
        }
        answer
    });
    let (unknown, known) = (of_the_unheld(&mut by_procfs), of_the_unheld(&mut by_bpf));
    ctx.check(format!("{what}: some buffer has no holder"), !known.is_empty())?;
    ctx.check(format!("{what}: debugfs tells no creation"), unknown.iter().all(Value::is_null))?;
    let told = Need::BufferIterator.probe();
    ctx.check_eq(format!("{what}: an iterator tells it"), told, !known.iter().any(Value::is_null))?;
    let mut found = Vec::new();
    differences("", &by_procfs.0, &by_bpf.0, &mut found);
    ctx.check_eq(format!("{what}: where the answers differ"), "", found.join("\n"))?;
    let buffers = by_bpf.list("buffers").len();
    ctx.check(format!("{what}: {buffers} buffers are at least the {least} that were made"), buffers >= least)
}

/// Processes that share an fd table or an address space, and one that shares nothing.
fn siblings() -> anyhow::Result<Actor> {
    Actor::start(b"siblings", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        if Need::MappedIdentity.probe() {
            sys::map(&buf, 0, page_size())?;
        }
        task::fork_sharing_fds()?;
        task::fork_sharing_memory()?;
        sys::fork(|| {
            loop {
                std::thread::park();
            }
        })?;
        stage.pause(&[Held::by(&buf)?])
    })
}

/// A process with a thread that has its own fd table.
fn sandbox() -> anyhow::Result<Actor> {
    Actor::start(b"sandbox", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let ended = task::with_own_fds(|| {
                    let more = buf.try_clone()?;
                    let path = sys::open_path(&buf)?;
                    tell.send(())?;
                    loop {
                        std::thread::park();
                        let _kept = (&more, &path);
                    }
                });
                ended.unwrap_or_else(|error: anyhow::Error| eprintln!("a sandbox: {error:#}"))
            });
            told.recv().context("a thread has ended")?;
            stage.pause(&[Held::by(&buf)?])
        })
    })
}

/// A camera that has exported one buffer and queued another.
fn camera() -> anyhow::Result<Actor> {
    Actor::start(b"camera", |stage| {
        let mut device = make::vivid()?;
        let exported = device.buffers(1)?.export(0)?;
        let mut device = make::vivid()?;
        let (queued, _) = make::plain(device.frame_size()?.next_multiple_of(SIZE))?;
        let mut slots = device.slots(2)?;
        slots.queue(0, &queued)?;
        let held = [Held::by(&exported)?, Held::by(&queued)?];
        drop(queued);
        stage.pause(&held)
    })
}

fn sources_agree(ctx: &mut Ctx) -> anyhow::Result<()> {
    let world = RecordedWorld::without_messages()?;
    let mut made = world.told.len();
    let mut actors = vec![siblings()?, sandbox()?];
    if Need::Vivid.probe() {
        actors.push(camera()?);
    }
    for actor in &mut actors {
        made += actor.paused()?.len();
    }
    compare_sources(ctx, "a world", made)?;
    let mut server = Actor::start(b"server", |stage| {
        let ring = ring::open()?;
        let (buf, _) = make::plain(SIZE)?;
        ring::register(&ring, &[None, Some(buf.as_fd())])?;
        let held = Held::by(&buf)?;
        drop(buf);
        stage.pause(&[held])
    })?;
    made += server.paused()?.len();
    compare_sources(ctx, "with fixed files", made)
}

fn balanced_at_once(ctx: &mut Ctx) -> anyhow::Result<()> {
    // Buffers of one DRM device share a tree of mappings, in which each must find its own.
    let make_all = || -> anyhow::Result<Vec<dmabuf::DmaBuf>> {
        let device = make::vgem()?;
        let gem = || anyhow::Ok(device.create_dumb(make::at_least(SIZE)?)?.handle.export()?);
        Ok(vec![make::plain(SIZE)?.0, make::plain(SIZE)?.0, gem()?, gem()?])
    };
    let mut actors: Vec<Actor> = (0..2)
        .map(|_| {
            Actor::start(b"balanced", |stage| {
                let mut held = Vec::new();
                let bufs = make_all()?;
                for buf in &bufs {
                    let again = buf.try_clone()?;
                    let (whole, page) =
                        (sys::map(buf, 0, SIZE as usize)?, sys::map(buf, sys::page(), page_size())?);
                    held.push(Held::by(buf)?.and_fd(&again).and_map(whole, 0).and_map(page, sys::page()));
                    std::mem::forget(again);
                }
                stage.pause(&held)
            })
        })
        .collect::<anyhow::Result<_>>()?;
    let mut held = Vec::new();
    for actor in &mut actors {
        held.extend(actor.paused()?);
    }
    let answer = Answer::ask(&[])?;
    for (nth, held) in held.into_iter().enumerate() {
        let exporter = if nth % 4 < 2 { make::plain_exporter() } else { make::DRM };
        compare_in(ctx, &answer, &Truth::held(exporter, vec![held]))?;
    }
    ctx.check_eq("complete", true, &answer.0["scan"]["complete"])?;
    ctx.check_eq("notes", "[]", &answer.0["scan"]["notes"])?;
    ctx.check_eq("sources", sources(true), &answer.0["scan"]["sources"])
}

/// The sources of an answer by BPF iterators. `from_trees` says that the buffers' own trees told
/// all mappings, on kernels that have an iterator over buffers.
fn sources(from_trees: bool) -> &'static str {
    match (Need::BufferIterator.probe(), from_trees) {
        (true, true) => r#"["bpf:task","bpf:task_file","bpf:dmabuf"]"#,
        (true, false) => r#"["bpf:task","bpf:task_file","bpf:dmabuf","bpf:task_vma"]"#,
        (false, _) => r#"["bpf:task","bpf:task_file","bpf:task_vma","bufinfo"]"#,
    }
}

fn many_mappings(ctx: &mut Ctx) -> anyhow::Result<()> {
    for (number, fits) in [(300, true), (450, false)] {
        let mut actor = Actor::start(b"mapper", |stage| {
            let (buf, _) = make::plain(SIZE)?;
            let mut held = Held::by(&buf)?;
            for _ in 0..number {
                // All at the same offset, so that the kernel merges no two of them.
                held = held.and_map(sys::map(&buf, 0, page_size())?, 0);
            }
            stage.pause(&[held])
        })?;
        let held = actor.paused_with_one()?;
        ctx.check_eq("mappings that the test made", number, held.own_maps())?;
        let answer = compare(ctx, &Truth::held(make::plain_exporter(), vec![held]))?;
        if ctx.way.is_bpf() {
            ctx.check_eq(format!("sources, {number} mappings"), sources(fits), &answer.0["scan"]["sources"])?;
        }
    }
    Ok(())
}

fn who_may_iterate(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = holder_by_fd_and_mapping()?;
    let truth = Truth::held(make::plain_exporter(), vec![actor.paused_with_one()?]);
    let there = Need::Iterators.probe();
    // Without the iterator over buffers, the list is debugfs's, which only root can read.
    let own_list = Need::BufferIterator.probe();
    let both = Caps::BPF.union(Caps::PERFMON);
    for (caller, may, complete) in [
        (Caller::ROOT, true, true),
        (Caller::ROOT.seeing(MachineView::NoDebugfs), true, own_list),
        (Caller::USER.with(both), true, own_list),
        (Caller::USER.with(both.union(Caps::DAC_READ_SEARCH)), true, true),
        (Caller::USER, false, false),
        (Caller::USER.with(Caps::BPF), false, false),
        (Caller::USER.with(Caps::PERFMON), false, false),
        (Caller::ROOT.with(Caps::empty()), false, false),
        (Caller::ROOT.seeing(MachineView::Container), false, false),
        (Caller::ROOT.seeing(MachineView::Rootless), false, false),
        (Caller::ROOT.seeing(MachineView::UserNamespace), false, false),
    ] {
        let output = caller.command(LSBUF)?.args(["--json", "--source", "bpf"]).output()?;
        let status = if may && there { 0 } else { 1 };
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ctx.check_eq(
            format!("{caller}: exit status ({errors})"),
            status,
            output.status.code().unwrap_or(-1),
        )?;
        if output.status.success() {
            let answer = Answer::of(&output)?;
            compare_in(ctx, &answer, &truth)?;
            ctx.check_eq(format!("{caller}: complete"), complete, &answer.0["scan"]["complete"])?;
        } else {
            ctx.check_eq(format!("{caller}: lines on standard error"), 1, errors.lines().count())?;
            ctx.check(
                format!("{caller}: it says why"),
                errors.starts_with("lsbuf: BPF iterators cannot be used: "),
            )?;
            ctx.check_eq(format!("{caller}: bytes on standard output"), 0, output.stdout.len())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Check that every difference between two documents is found at its place, and that equal
    /// documents have none.
    #[test]
    fn finds_differences() {
        let document = json!({"a": [1, {"b": null}], "c": "x"});
        let found = |other: Value| {
            let mut found = Vec::new();
            differences("", &document, &other, &mut found);
            found
        };
        assert!(found(document.clone()).is_empty());
        assert_eq!(found(json!({"a": [1, {"b": 0}], "c": "x"})), ["/a/1/b: null by procfs, 0 by bpf"]);
        assert_eq!(found(json!({"a": [2, {"b": 0}], "c": "y"})).len(), 3);
        for lacks in [json!({"a": [1], "c": "x"}), json!({"a": [1, {"b": null}]}), json!({})] {
            assert_eq!(found(lacks).len(), 1);
        }
    }
}
