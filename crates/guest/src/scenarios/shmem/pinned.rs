//! Unlinked files that something refers to which no process has open: what an exit frees of them.
//!
//! The scenario runs in a mount namespace of its own, so that its mounts go with it.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::mount::mount_bind;
use rustix::thread::UnshareFlags;

use super::kit::{Shm, ask, compare, file, mount_tmpfs, page};
use crate::actor::{Actor, Held};
use crate::make;
use crate::scenario::Ctx;
use crate::sys::{self, pins, task};

/// Starts a process that holds an unlinked file by one fd, after `pin` has pinned the file. Returns
/// the process, what it holds, and what pins the file.
fn holder<P>(
    name: &'static str,
    pin: impl FnOnce(&str) -> anyhow::Result<P>,
) -> anyhow::Result<(Actor, Held, P)> {
    let path = format!("/tmp/pinned/{name}");
    drop(file(&path, 2)?);
    let opened = path.clone();
    let mut actor = Actor::start(name.as_bytes(), move |stage| {
        let file = File::open(&opened)?;
        stage.pause(&[])?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    actor.paused()?;
    let pinned = pin(&path)?;
    fs::remove_file(&path).with_context(|| format!("removing {path}"))?;
    actor.go_on()?;
    let held = actor.paused_with_one()?;
    Ok((actor, held, pinned))
}

pub(super) fn unlinked(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/tmp/pinned")?;
    let alone = holder("alone", |_| Ok(()))?;
    let event = holder("event", |path| {
        let group = pins::mark(path)?;
        drop(File::open(path)?);
        Ok(group)
    })?;
    let rule = holder("rule", |path| pins::rule(File::open(path)?))?;
    let answer = ask(ctx, "tmpfs")?;
    let row = |held: &Held| {
        let is_it = |row: &&serde_json::Value| row["ino"] == held.ino && row["deleted"] == true;
        answer.list("buffers").iter().find(is_it).context("no row of a pinned file")
    };
    let uss = |actor: &Actor| anyhow::Ok(answer.process(actor.pid)?["uss"].to_string());
    ctx.check_eq(
        "an exit frees a file that nothing else refers to",
        (2 * page()).to_string(),
        uss(&alone.0)?,
    )?;
    ctx.check_eq("none of a file in an unread event", "0".to_owned(), uss(&event.0)?)?;
    ctx.check_eq("its residual", "1", row(&event.1)?["refs"]["kernel"].to_string())?;
    ctx.check_eq("what of a file with a Landlock rule is unknown", "null".to_owned(), uss(&rule.0)?)?;
    ctx.check_eq("and why", "\"inode-pinned\"", row(&rule.1)?["estimate_reason"].to_string())?;
    // A bind mount of a file must be made while the file has a name.
    fs::write("/tmp/place", "")?;
    let (actor, held, ()) = holder("mounted", |path| Ok(mount_bind(path, "/tmp/place")?))?;
    let answer = ask(ctx, "tmpfs")?;
    let found = answer.process(actor.pid)?["uss"].to_string();
    ctx.check_eq("none of a file that is mounted", "0".to_owned(), found)?;
    let row = answer.list("buffers").iter().find(|row| row["ino"] == held.ino && row["deleted"] == true);
    ctx.check_eq("the mount's reference", "1", row.context("no row")?["refs"]["kernel"].to_string())
}

pub(super) fn path_in_message(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, _unread) = UnixStream::pair()?;
    let mut sender = Actor::start(b"sender", |stage| {
        let memfd = make::memfd(b"by path", 2, 2)?;
        let link = format!("/proc/self/fd/{}", memfd.as_raw_fd());
        let path = rustix::fs::open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        sys::send_any(&from, &[path.as_fd()])?;
        drop(path);
        stage.pause(&[Held::by_file(&memfd)?])
    })?;
    let held = sender.paused_with_one()?;
    let answer = ask(ctx, "memfd")?;
    let truth = Shm::held("memfd", "by path", vec![held.clone()]).and_in_flight(1);
    compare(ctx, &answer, &truth)?;
    ctx.check_eq("what an exit frees", 0, &answer.process(sender.pid)?["uss"])?;
    drop(sender);
    let answer = ask(ctx, "memfd")?;
    compare(ctx, &answer, &Shm::unheld("memfd", "by path", &held).and_in_flight(1))
}
