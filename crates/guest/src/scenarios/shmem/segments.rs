//! System V segments where a process alone does not tell their namespace or holders: sent as files,
//! made by a thread in its own namespace, and with the same id in two namespaces.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, ensure};
use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::kit::page;
use super::sysv::{KEY, NEXT_ID, held, namespace};
use crate::actor::{Actor, Held, Stage};
use crate::answer::Answer;
use crate::scenario::Ctx;
use crate::sys::shm::{self, Segment};
use crate::sys::{self, Region, page_size, task};

/// The file in which a thread writes its namespace.
const THERE: &str = "/tmp/namespace-of-a-thread";

/// Opens the segment that is attached at a region. Detaching does not close this file.
fn open_attached(region: Region) -> anyhow::Result<File> {
    let link = format!("/proc/self/map_files/{:x}-{:x}", region.start, region.start + region.len);
    OpenOptions::new().read(true).write(true).open(&link).with_context(|| format!("opening {link}"))
}

/// The segments of an answer.
fn segments(answer: &Answer) -> impl Iterator<Item = &Value> {
    answer.list("buffers").iter().filter(|buffer| buffer["kind"] == "sysv")
}

/// Whether the answer says that it is partial, and why.
fn is_partial(answer: &Answer) -> bool {
    let scan = &answer.0["scan"];
    scan["complete"] == false && scan["notes"].as_array().is_some_and(|notes| !notes.is_empty())
}

pub(super) fn fd_in_message(ctx: &mut Ctx) -> anyhow::Result<()> {
    let segment = Segment::create(KEY, 8)?;
    let (from, _unread) = UnixStream::pair()?;
    let mut attacher = Actor::start(b"attacher", |stage| {
        let region = segment.attach()?;
        shm::touch(region, 3 * page_size())?;
        let file = open_attached(region)?;
        sys::send_any(&from, &[file.as_fd()])?;
        drop(file);
        stage.pause(&[held(&segment, 8, 3, &[region])])
    })?;
    let attached = attacher.paused_with_one()?;
    let mut actor = Some(attacher);
    for (what, removed) in [("attached", false), ("not attached", false), ("removed", true)] {
        if what == "not attached" {
            // All its references go with the process, except the one in the message.
            actor.take();
        }
        if removed {
            segment.remove()?;
        }
        let answer = Answer::ask(&["--kind", "sysv"])?;
        check_in_message(ctx, &answer, what, &attached)?;
    }
    Ok(())
}

/// Compares what an answer says about a segment with three pages and one fd in a message.
fn check_in_message(ctx: &mut Ctx, answer: &Answer, what: &str, attached: &Held) -> anyhow::Result<()> {
    let totals = &answer.0["totals"];
    let Some(row) = segments(answer).find(|row| row["ino"] == attached.ino) else {
        return ctx
            .check(format!("{what}: without a row the answer is partial and says why"), is_partial(answer));
    };
    ctx.check_eq(format!("{what}: charged"), 3 * page(), &row["charged"])?;
    // procfs tells how many fds are in a socket's messages, and not which files they are.
    let (in_flight, by_bpf) = (&row["refs"]["in_flight"], ctx.way.is_bpf());
    let right = *in_flight == 1 || (!by_bpf && in_flight.is_null());
    ctx.check(format!("{what}: in flight is 1, or unknown by procfs: {in_flight}"), right)?;
    ctx.check_eq(format!("{what}: in flight in total"), 1, &totals["in_flight_fds"])?;
    let (held, alone) = if what == "attached" { (3 * page(), 0) } else { (0, 3 * page()) };
    let printed =
        format!("size {} held {} kernel-only {}", totals["size"], totals["held"], totals["kernel_only"]);
    ctx.check_eq(
        format!("{what}: totals"),
        format!("size {} held {held} kernel-only {alone}", 3 * page()),
        printed,
    )
}

/// Runs `make` in a thread with its own IPC namespace, which the thread keeps, and pauses with what
/// `make` returns.
fn pause_beside_another_namespace(
    stage: &mut Stage,
    make: impl Send + FnOnce() -> anyhow::Result<(Segment, Held)>,
) -> anyhow::Result<()> {
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let ended = in_own_namespace(make).and_then(|(_segment, held)| {
                tell.send(held)?;
                // The namespace, and what is in it, lives as long as this thread.
                loop {
                    thread::park();
                }
            });
            ended.unwrap_or_else(|error: anyhow::Error| {
                eprintln!("a thread in a namespace of its own: {error:#}");
            })
        });
        let held = told.recv().context("a thread has ended")?;
        stage.pause(&[held])
    })
}

/// Moves this thread into a new IPC namespace, writes which one to [`THERE`], and calls `make`.
fn in_own_namespace<T>(make: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    task::enter_new(UnshareFlags::NEWIPC)?;
    let link = fs::read_link("/proc/thread-self/ns/ipc")?;
    let number = link.to_str().and_then(|link| link.strip_prefix("ipc:[")?.strip_suffix("]"));
    fs::write(THERE, number.context("a malformed link")?)?;
    make()
}

/// Runs lsbuf and checks its row of the segment that a thread has made in its own namespace, if
/// there is one. Otherwise the answer must be partial.
fn ask_about_thread(ctx: &mut Ctx, actor: &mut Actor) -> anyhow::Result<()> {
    let made = actor.paused_with_one()?;
    let (leaders, there) = (namespace(actor.pid)?.to_string(), fs::read_to_string(THERE)?);
    ctx.check("the thread has another namespace than its process", there != leaders)?;
    let answer = Answer::ask(&["--kind", "sysv"])?;
    let Some(row) = segments(&answer).find(|row| row["ino"] == made.ino) else {
        return ctx.check("without a row the answer is partial and says why", is_partial(&answer));
    };
    ctx.check_eq("size", made.size, &row["size"])?;
    let shown = row["ipc_namespace"].as_u64().map_or("unknown".to_owned(), |number| number.to_string());
    let right = shown == there || shown == "unknown";
    ctx.check(format!("the row's namespace is the thread's {there} or unknown: {shown}"), right)?;
    let holders: Vec<u64> =
        row["holders"].as_array().into_iter().flatten().filter_map(|h| h["pid"].as_u64()).collect();
    let expected = if made.maps.is_empty() { vec![] } else { vec![u64::from(actor.pid)] };
    ctx.check_eq("holders", format!("{expected:?}"), format!("{holders:?}"))
}

pub(super) fn thread_unattached(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"threads", |stage| {
        pause_beside_another_namespace(stage, || {
            let segment = Segment::create(KEY, 8)?;
            let region = segment.attach()?;
            shm::touch(region, 3 * page_size())?;
            shm::detach(region)?;
            let made = held(&segment, 8, 3, &[]);
            Ok((segment, made))
        })
    })?;
    ask_about_thread(ctx, &mut actor)
}

pub(super) fn thread_attached(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"threads", |stage| {
        pause_beside_another_namespace(stage, || {
            let segment = Segment::create(KEY, 8)?;
            let region = segment.attach()?;
            shm::touch(region, 3 * page_size())?;
            let made = held(&segment, 8, 3, &[region]);
            Ok((segment, made))
        })
    })?;
    ask_about_thread(ctx, &mut actor)
}

pub(super) fn same_in_both(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"leaver", |stage| {
        task::enter_new(UnshareFlags::NEWIPC)?;
        let attached = Segment::create(KEY, 8)?;
        let region = attached.attach()?;
        shm::touch(region, 3 * page_size())?;
        task::enter_new(UnshareFlags::NEWIPC)?;
        fs::write(NEXT_ID, attached.id().to_string()).context("choosing the next id")?;
        let other = Segment::create(KEY, 8)?;
        ensure!(other.id() == attached.id(), "ids {} and {} differ", other.id(), attached.id());
        stage.pause(&[held(&attached, 8, 3, &[region]), held(&other, 8, 0, &[])])
    })?;
    let [attached, _other] =
        <[Held; 2]>::try_from(actor.paused()?).map_err(|_| anyhow::anyhow!("two segments"))?;
    let answer = Answer::ask(&["--kind", "sysv"])?;
    let pids = |row: &Value| -> Vec<u64> {
        row["holders"].as_array().into_iter().flatten().filter_map(|h| h["pid"].as_u64()).collect()
    };
    let unattached = |row: &&Value| {
        row["leak_shape"] == "unattached" || row["segment"]["attached"] == 0 || row["count"] == 0
    };
    let both: Vec<&Value> =
        segments(&answer).filter(unattached).filter(|row| !pids(row).is_empty()).collect();
    ctx.check_eq("unattached segments with a holder", "[]", format!("{both:?}"))?;
    let holds = |row: &&Value| row["ino"] == attached.ino && pids(row).contains(&actor.pid.into());
    ctx.check_eq("segments that the process holds", 1, segments(&answer).filter(holds).count())?;
    let all = segments(&answer).count();
    ctx.check(format!("{all} segments are both, or the answer is partial"), all == 2 || is_partial(&answer))
}
