//! Fds in messages that nobody has received yet. procfs says how many are in a socket; BPF
//! iterators also say which buffers they are.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};

use dmabuf::share;

use crate::actor::{Actor, Held};
use crate::answer::{Answer, ExpectedResidual, Truth};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, compare_in};
use crate::sys;

/// The account of a buffer with one reference in a message, as this way can know it.
fn with_one_waiting(ctx: &Ctx, held: Vec<Held>) -> Truth {
    let truth = Truth::held(make::plain_exporter(), held);
    if ctx.way.is_bpf() { truth.and_in_flight(1) } else { truth.and(ExpectedResidual::Estimate(1)) }
}

/// Compares the account of a buffer with one reference in a message of a socket that a process
/// holds.
fn compare_with_one_waiting(ctx: &mut Ctx, held: Held) -> anyhow::Result<Answer> {
    let answer = Answer::ask(&[])?;
    let ino = held.ino;
    compare_in(ctx, &answer, &with_one_waiting(ctx, vec![held]))?;
    let expected = if ctx.way.is_bpf() { "1" } else { "null" };
    ctx.check_eq(
        "in flight: how many or unknown, not 0",
        expected,
        &answer.buffer(ino)?["refs"]["in_flight"],
    )?;
    ctx.check_eq("complete", true, &answer.0["scan"]["complete"])?;
    Ok(answer)
}

/// Whether the answer says that messages have this many fds that may belong to a residual.
fn says(answer: &Answer, fds: u64) -> bool {
    answer.0["scan"]["notes"].to_string().contains(&format!("messages not yet received carry {fds} fd:"))
}

pub(super) fn message(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, _unread) = UnixStream::pair()?;
    let mut actor = Actor::start(b"sender", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        share::send(&from, &[&buf], b"1")?;
        stage.pause(&[Held::by(&buf)?])?;
        drop(buf);
        stage.pause(&[])
    })?;
    let held = actor.paused_with_one()?;
    let by_bpf = ctx.way.is_bpf();
    let answer = compare_with_one_waiting(ctx, held.clone())?;
    ctx.check_eq("in flight in total", 1, &answer.0["totals"]["in_flight_fds"])?;
    ctx.check_eq("a note says how many", !by_bpf, says(&answer, 1))?;
    ctx.check_eq("freed by the sender's exit", 0, &answer.process(actor.pid)?["uss"])?;
    actor.go_on()?;
    actor.paused()?;
    let answer = Answer::ask(&[])?;
    let truth = with_one_waiting(ctx, vec![]);
    ctx.check_eq("account of the message's buffer", truth.line(held.size), answer.line(held.ino)?)?;
    if by_bpf {
        let shape = answer.buffer(held.ino)?["leak_shape"].as_str().unwrap_or("none");
        ctx.check_eq("leak shape", "in-flight", shape)?;
    }
    ctx.check_eq("kernel-only", held.size, &answer.0["totals"]["kernel_only"])
}

pub(super) fn nested(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (outer, _unread) = UnixStream::pair()?;
    let mut actor = Actor::start(b"sender", |stage| {
        let (from, to) = UnixStream::pair()?;
        let (buf, _) = make::plain(SIZE)?;
        share::send(&from, &[&buf], b"1")?;
        // No fd of the socket is left that has the message in its queue.
        sys::send_any(&outer, &[to.as_fd()])?;
        drop(to);
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    let ino = held.ino;
    compare_in(
        ctx,
        &answer,
        &Truth::held(make::plain_exporter(), vec![held]).and(ExpectedResidual::Estimate(1)),
    )?;
    ctx.check("in flight is unknown, not 0", answer.buffer(ino)?["refs"]["in_flight"].is_null())?;
    // procfs counts the fds in messages of sockets that a process holds. BPF iterators also see
    // which buffers they are, and that one message has a socket.
    let expected = if ctx.way.is_bpf() { "null" } else { "1" };
    ctx.check_eq("in sockets that a process holds", expected, &answer.0["totals"]["in_flight_fds"])?;
    let notes = answer.0["scan"]["notes"].to_string();
    let said = notes.contains("kernel references of 1 buffer may be among them");
    ctx.check(format!("a note says that the reference may be in a message or a ring: {notes}"), said)
}

pub(super) fn unaccepted(ctx: &mut Ctx) -> anyhow::Result<()> {
    const AT: &str = "/tmp/unaccepted";
    let _listener = UnixListener::bind(AT)?;
    let mut actor = Actor::start(b"client", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let connection = UnixStream::connect(AT)?;
        share::send(&connection, &[&buf], b"1")?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    fs::remove_file(AT)?;
    let answer = compare_with_one_waiting(ctx, held)?;
    let (total, by_bpf) = (&answer.0["totals"]["in_flight_fds"], ctx.way.is_bpf());
    let told = total.as_u64().map_or(!by_bpf, |n| n == 1);
    ctx.check(format!("{total} in flight is 1, or unknown by procfs"), told)
}
