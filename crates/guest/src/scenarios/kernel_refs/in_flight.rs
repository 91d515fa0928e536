//! Fds in messages that nobody has received yet. The kernel says how many wait in a socket, not which.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};

use dmabuf::share;

use crate::actor::{Actor, Held};
use crate::answer::{Answer, Rest, Truth};
use crate::make;
use crate::runner::Ctx;
use crate::scenarios::holding::{SIZE, compare_in};
use crate::sys;

/// Compares the account of a buffer of which one reference is in flight.
fn compare_with_one_more(ctx: &mut Ctx, held: Held) -> anyhow::Result<Answer> {
    let answer = Answer::ask(&[])?;
    let ino = held.ino;
    compare_in(ctx, &answer, &Truth::held(make::plain_exporter(), vec![held]).and(Rest::Estimate(1)))?;
    ctx.check("in flight is unknown, not 0", answer.buffer(ino)?["refs"]["in_flight"].is_null())?;
    Ok(answer)
}

pub(super) fn message(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, _unread) = UnixStream::pair()?;
    let mut actor = Actor::start(b"sender", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        share::send(&from, &[&buf], b"1")?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let answer = compare_with_one_more(ctx, actor.paused_with_one()?)?;
    ctx.check_eq("in flight in total", 1, &answer.0["totals"]["in_flight_fds"])?;
    let notes = answer.0["scan"]["notes"].to_string();
    ctx.check("the note says how many", notes.contains("messages not yet received carry 1 fd:"))
}

pub(super) fn nested(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (outer, _unread) = UnixStream::pair()?;
    let mut actor = Actor::start(b"sender", |stage| {
        let (from, to) = UnixStream::pair()?;
        let (buf, _) = make::plain(SIZE)?;
        share::send(&from, &[&buf], b"1")?;
        // No fd is left of the socket in whose queue the buffer waits.
        sys::send_any(&outer, &[to.as_fd()])?;
        drop(to);
        stage.pause(&[Held::by(&buf)?])
    })?;
    let answer = compare_with_one_more(ctx, actor.paused_with_one()?)?;
    ctx.check_eq("in sockets that a process holds", 1, &answer.0["totals"]["in_flight_fds"])
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
    let answer = compare_with_one_more(ctx, held)?;
    let total = &answer.0["totals"]["in_flight_fds"];
    ctx.check(format!("{total} in flight is 1, if it is told"), total.as_u64().is_none_or(|n| n == 1))
}
