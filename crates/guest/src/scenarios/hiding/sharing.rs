//! Processes that share an fd table or an address space. No file of procfs tells that.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::actor::{Actor, Held};
use crate::answer::{Answer, Truth};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, compare};
use crate::sys::{self, task};

/// The child has the higher pid, and lsbuf counts what is shared under the lowest.
pub(super) fn fd_table(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"twin", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let held = Held::by(&buf)?;
        let child = held.clone().of(task::fork_sharing_fds()?).in_table_of(held.pid);
        stage.pause(&[held, child])
    })?;
    let held = actor.paused()?;
    let answer = compare(ctx, &Truth::held(make::plain_exporter(), held.clone()))?;
    let sharers: Vec<u32> = held.iter().map(|held| held.pid).collect();
    ctx.check_eq("holders", format!("{sharers:?}"), format!("{:?}", holders(&answer, &held)?))
}

/// The pids of the holders of the first of these buffers.
fn holders(answer: &Answer, held: &[Held]) -> anyhow::Result<Vec<u64>> {
    let ino = held.first().context("nothing is held")?.ino;
    let holders = answer.buffer(ino)?["holders"].as_array().cloned().unwrap_or_default();
    Ok(holders.iter().filter_map(|holder| holder["pid"].as_u64()).collect())
}

pub(super) fn table_of_a_thread(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"twin", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let ended = task::with_own_fds(|| {
                    task::fork_sharing_fds()?;
                    tell.send(())?;
                    loop {
                        thread::park();
                    }
                });
                ended.unwrap_or_else(|error: anyhow::Error| {
                    eprintln!("a thread with its own table: {error:#}")
                })
            });
            told.recv().context("a thread has ended")?;
            stage.pause(&[Held::by(&buf)?])
        })
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    let buffer = answer.buffer(held.ino)?;
    // The process's own table has one fd, the thread's table has a copy of it, and the child shares
    // the thread's.
    let figures = |count: &Value, fd: &Value, kernel: &Value| format!("{count} = {fd} fd + {kernel} kernel");
    let refs = &buffer["refs"];
    let printed = figures(&buffer["count"], &refs["fd"], &refs["kernel"]);
    ctx.check_eq("account", figures(&2.into(), &2.into(), &0.into()), printed)?;
    ctx.check_eq("holders", 2, holders(&answer, &[held])?.len())
}

pub(super) fn memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"twin", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let region = sys::map(&buf, 0, sys::page_size())?;
        let held = Held::by(&buf)?.and_map(region, 0);
        // The child has a copy of the fd table, and so an fd of its own.
        let child = held.clone().of(task::fork_sharing_memory()?).in_space_of(held.pid);
        stage.pause(&[held, child])
    })?;
    let held = actor.paused()?;
    compare(ctx, &Truth::held(make::plain_exporter(), held)).map(drop)
}

pub(super) fn vfork(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"shell", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let region = sys::map(&buf, 0, sys::page_size())?;
        let child = AtomicI32::new(0);
        thread::scope(|scope| {
            let (child, buf) = (&child, &buf);
            scope.spawn(move || {
                let played = wait_for(child)
                    .and_then(|pid| {
                        let held = Held::by(buf)?.and_map(region, 0);
                        Ok([held.clone(), held.clone().of(pid).in_space_of(held.pid)])
                    })
                    .and_then(|held| stage.pause(&held));
                eprintln!("a thread beside a vfork: {played:?}");
                std::process::exit(1);
            });
            task::vfork_forever(child)
        })
    })?;
    let held = actor.paused()?;
    compare(ctx, &Truth::held(make::plain_exporter(), held)).map(drop)
}

fn wait_for(child: &AtomicI32) -> anyhow::Result<u32> {
    loop {
        match child.load(Ordering::SeqCst) {
            0 => thread::sleep(Duration::from_millis(1)),
            pid => return Ok(u32::try_from(pid)?),
        }
    }
}

pub(super) fn fork_shares_nothing(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"family", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let region = sys::map(&buf, 0, sys::page_size())?;
        let held = Held::by(&buf)?.and_map(region, 0);
        let copy = held.clone().of(sys::fork(|| {
            loop {
                thread::park();
            }
        })?);
        // Shares the fd table, and has copies of the mappings.
        let fds = held.clone().of(task::fork_sharing_fds()?).in_table_of(held.pid);
        // Shares the mappings, and has copies of the fds.
        let maps = held.clone().of(task::fork_sharing_memory()?).in_space_of(held.pid);
        stage.pause(&[held, copy, fds, maps])
    })?;
    let held = actor.paused()?;
    let truth = Truth::held(make::plain_exporter(), held);
    ctx.check_eq("references that the test made", 6, truth.count)?;
    compare(ctx, &truth).map(drop)
}
