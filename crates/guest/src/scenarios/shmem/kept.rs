//! Files and segments with a name that only their holder keeps: an exit frees them with their
//! filesystem or IPC namespace.
//!
//! The scenarios run in a mount namespace of their own, so that their mounts go with it.

use std::fs::{self, File};

use anyhow::Context;
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::UnshareFlags;

use super::kit::{by_bpf, file, mount_tmpfs, page};
use super::sysv::{KEY, held};
use crate::actor::{Actor, Held};
use crate::answer::Answer;
use crate::scenario::Ctx;
use crate::sys::shm::{self, Segment};
use crate::sys::{page_size, task};

/// What the exit of a process frees, as it was printed.
fn uss(answer: &Answer, actor: &Actor) -> anyhow::Result<String> {
    Ok(answer.process(actor.pid)?["uss"].to_string())
}

/// Starts a process that has a file of two pages open below a mounted folder.
fn opener(folder: &'static str) -> anyhow::Result<(Actor, Held)> {
    let mut actor = Actor::start(b"opener", move |stage| {
        let file = file(&format!("{folder}/held"), 2)?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    let held = actor.paused_with_one()?;
    Ok((actor, held))
}

/// Mounts a tmpfs, starts a process that has a file there open, calls `beside`, and unmounts it.
/// Returns the process, what it holds, and what `beside` returned.
fn unmounted<B>(
    folder: &'static str,
    beside: impl FnOnce() -> anyhow::Result<B>,
) -> anyhow::Result<(Actor, Held, B)> {
    mount_tmpfs(folder)?;
    // A folder in it must not be taken for a user of it.
    fs::create_dir(format!("{folder}/folder"))?;
    let (actor, held) = opener(folder)?;
    let beside = beside()?;
    unmount(folder, UnmountFlags::DETACH).with_context(|| format!("unmounting {folder}"))?;
    Ok((actor, held, beside))
}

pub(super) fn lazily_unmounted(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    let (alone, held, ()) = unmounted("/tmp/kept-alone", || Ok(()))?;
    let (beside_folder, _, worker) = unmounted("/tmp/kept-cwd", || {
        let mut worker = Actor::start(b"worker", |stage| {
            std::env::set_current_dir("/tmp/kept-cwd/folder")?;
            stage.pause(&[])
        })?;
        worker.paused()?;
        Ok(worker)
    })?;
    let (beside_file, _, other) = unmounted("/tmp/kept-other", || {
        let mut other = Actor::start(b"other", |stage| {
            let file = file("/tmp/kept-other/another", 1)?;
            stage.pause(&[Held::by_file(&file)?])
        })?;
        other.paused()?;
        Ok(other)
    })?;
    let answer = Answer::ask(&["--kind", "tmpfs"])?;
    let whole = by_bpf(ctx, 2 * page());
    ctx.check_eq("its exit frees a file that nothing else keeps", whole, uss(&answer, &alone)?)?;
    let unknown = uss(&answer, &beside_folder)?;
    ctx.check_eq("where somebody works in a folder, that is unknown", "null", unknown)?;
    let nothing = uss(&answer, &beside_file)?;
    ctx.check_eq("where another process has a file open, it frees nothing", "0", nothing)?;
    let is_it = |row: &&serde_json::Value| {
        row["ino"] == held.ino && row["holders"][0]["pid"] == alone.pid && row["deleted"] == false
    };
    let row = answer.list("buffers").iter().find(is_it).context("no row of an unmounted file")?;
    ctx.check_eq(
        "its path shows that nobody reaches it",
        "(unreachable)/held",
        row["name"].as_str().unwrap_or("?"),
    )?;
    drop((worker, other));
    let answer = Answer::ask(&["--kind", "tmpfs"])?;
    let whole = by_bpf(ctx, 2 * page());
    for actor in [&beside_folder, &beside_file] {
        ctx.check_eq("after the other one has gone it frees the file", &whole, &uss(&answer, actor)?)?;
    }
    Ok(())
}

pub(super) fn private_mounts(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    let mut alone = Actor::start(b"alone", |stage| {
        task::enter_new(UnshareFlags::NEWNS)?;
        mount_tmpfs("/tmp/kept-inside")?;
        let file = file("/tmp/kept-inside/held", 2)?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    alone.paused_with_one()?;
    let answer = Answer::ask(&["--kind", "tmpfs"])?;
    let whole = by_bpf(ctx, 2 * page());
    ctx.check_eq("its exit frees a file that only its namespace shows", whole, uss(&answer, &alone)?)?;
    let kept = File::open(format!("/proc/{}/ns/mnt", alone.pid))?;
    let answer = Answer::ask(&["--kind", "tmpfs"])?;
    ctx.check_eq("with an fd on the namespace that is unknown", "null", uss(&answer, &alone)?)?;
    drop(kept);
    mount_tmpfs("/tmp/kept-seen")?;
    let (seen, _) = opener("/tmp/kept-seen")?;
    let answer = Answer::ask(&["--kind", "tmpfs"])?;
    ctx.check_eq("where others see the filesystem, the file stays", "0", uss(&answer, &seen)?)
}

pub(super) fn private_ipc(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut alone = Actor::start(b"alone", |stage| {
        task::enter_new(UnshareFlags::NEWIPC)?;
        let segment = Segment::create(KEY, 4)?;
        let region = segment.attach()?;
        shm::touch(region, 3 * page_size())?;
        stage.pause(&[held(&segment, 4, 3, &[region])])
    })?;
    alone.paused_with_one()?;
    let answer = Answer::ask(&["--kind", "sysv"])?;
    let whole = by_bpf(ctx, 3 * page());
    ctx.check_eq("its exit frees a segment of its own IPC namespace", whole, uss(&answer, &alone)?)?;
    let kept = File::open(format!("/proc/{}/ns/ipc", alone.pid))?;
    let answer = Answer::ask(&["--kind", "sysv"])?;
    ctx.check_eq("with an fd on the namespace that is unknown", "null", uss(&answer, &alone)?)?;
    drop(kept);
    let segment = Segment::create(KEY, 4)?;
    let mut among = Actor::start(b"among", |stage| {
        let region = segment.attach()?;
        shm::touch(region, 3 * page_size())?;
        stage.pause(&[held(&segment, 4, 3, &[region])])
    })?;
    among.paused_with_one()?;
    let answer = Answer::ask(&["--kind", "sysv"])?;
    ctx.check_eq("in a namespace with other processes it stays", "0", uss(&answer, &among)?)?;
    segment.remove()
}
