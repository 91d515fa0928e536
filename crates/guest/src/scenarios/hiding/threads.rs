//! Threads with references that their process's own `fd` and `maps` do not show.

use std::fs;
use std::sync::mpsc;
use std::thread::{self, Scope};
use std::time::Duration;

use anyhow::Context;

use crate::actor::{Actor, Held, Stage};
use crate::answer::{Answer, Truth};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, compare, compare_in};
use crate::sys::{self, task};

/// Ends the first thread of this process, and pauses in a second one while a third one does
/// nothing.
fn pause_behind_a_zombie(
    stage: &mut Stage,
    held: impl Send + FnOnce() -> anyhow::Result<Held>,
) -> anyhow::Result<()> {
    thread::scope(|scope| {
        scope.spawn(move || {
            let played = wait_for_zombie().and_then(|()| stage.pause(&[held()?]));
            // The scenario kills this process while it is paused, so the script ends only if it
            // failed.
            eprintln!("a thread behind a zombie: {played:?}");
            std::process::exit(1);
        });
        idle(scope);
        task::end_thread()
    })
}

fn idle<'scope>(scope: &'scope Scope<'scope, '_>) {
    scope.spawn(|| {
        loop {
            thread::park();
        }
    });
}

fn wait_for_zombie() -> anyhow::Result<()> {
    loop {
        let stat = fs::read_to_string("/proc/self/stat").context("reading the first thread's state")?;
        if stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z ")) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn zombie_leader(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"leaderless", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        pause_behind_a_zombie(stage, || Ok(Held::by(&buf)?.by_thread()))
    })?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &Truth::held(make::plain_exporter(), vec![held.clone()]))?;
    let process = answer.process(actor.pid)?;
    ctx.check_eq("comm", "leaderless", process["comm"].as_str().unwrap_or("?"))?;
    ctx.check_eq("rss", held.size, &process["rss"])
}

pub(super) fn zombie_leader_maps(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"leaderless", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let region = sys::map(&buf, sys::page(), sys::page_size())?;
        pause_behind_a_zombie(stage, || {
            let held = Held::by(&buf)?.without_fds().and_map(region, sys::page());
            drop(buf);
            Ok(held)
        })
    })?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &Truth::held(make::plain_exporter(), vec![held.clone()]))?;
    let shape = answer.buffer(held.ino)?["leak_shape"].as_str().unwrap_or("none").to_owned();
    ctx.check_eq("leak shape", "map", shape)?;
    let through_links = Answer::ask(&["--source", "bufinfo,map_files"]);
    ctx.check("map_files is read or refused, not misread", through_links.is_ok())
}

/// Pauses while another thread keeps what `there` returns in an fd table of its own.
fn pause_beside_a_sandbox<T>(
    stage: &mut Stage,
    there: impl Send + for<'scope> FnOnce(&'scope Scope<'scope, '_>) -> anyhow::Result<(Held, T)>,
    here: impl FnOnce(Held) -> anyhow::Result<Held>,
) -> anyhow::Result<()> {
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            let ended = task::with_own_fds(|| {
                let (held, _kept) = there(scope)?;
                tell.send(held.by_thread())?;
                loop {
                    thread::park();
                }
            });
            ended.unwrap_or_else(|error| eprintln!("a thread with its own table: {error:#}"))
        });
        let held = here(told.recv().context("a thread has ended")?)?;
        stage.pause(&[held])
    })
}

pub(super) fn own_table(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"sandbox", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        pause_beside_a_sandbox(
            stage,
            |_| {
                let more = buf.try_clone()?;
                Ok((Held::by(&buf)?.and_fd(&more), more))
            },
            |there| Ok(Held::by(&buf)?.and(there)),
        )
    })?;
    let held = actor.paused_with_one()?;
    ctx.check_eq("fds that the test made", 3, held.own_fds())?;
    compare(ctx, &Truth::held(make::plain_exporter(), vec![held])).map(drop)
}

pub(super) fn shared_own_table(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"sandbox", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        pause_beside_a_sandbox(
            stage,
            |scope| {
                // A thread that is started here shares the table of the thread that starts it.
                idle(scope);
                Ok((Held::by(&buf)?, ()))
            },
            |there| Ok(Held::by(&buf)?.and(there)),
        )
    })?;
    let held = actor.paused_with_one()?;
    let threads = fs::read_dir(format!("/proc/{}/task", actor.pid))?.count();
    ctx.check_eq("threads", 3, threads)?;
    compare(ctx, &Truth::held(make::plain_exporter(), vec![held])).map(drop)
}

pub(super) fn opath(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"sandbox", |stage| {
        pause_beside_a_sandbox(
            stage,
            |_| {
                let (buf, _) = make::plain(SIZE)?;
                let path = sys::open_path(&buf)?;
                Ok((Held::by(&buf)?.without_fds().and_opath(&path), path))
            },
            Ok,
        )
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    compare_in(ctx, &answer, &Truth::held("?", vec![held.clone()]))?;
    ctx.check_eq("opath in total", held.size, &answer.0["totals"]["opath"])
}
