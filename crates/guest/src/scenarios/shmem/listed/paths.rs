//! The names of held files: of filesystems that are mounted nowhere or out of sight, and of files
//! whose name has changed since they were opened.
//!
//! Each scenario runs in a mount namespace of its own, so that its mounts go with it.

use std::fs::{self, File};
use std::os::fd::AsFd;

use anyhow::Context;
use rustix::fs::{Mode, OFlags};
use rustix::mount::mount_bind;
use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::super::kit::{Shm, ask, compare, file, mount_tmpfs, page, unmount_lazily};
use crate::actor::{Actor, Held};
use crate::answer::Answer;
use crate::make;
use crate::scenario::Ctx;
use crate::sys::{self, page_size, task};

/// What this process holds of files, by an fd of each.
fn by_files(files: &[impl AsFd]) -> anyhow::Result<Vec<Held>> {
    files.iter().map(Held::by_file).collect()
}

/// One file, and whether it should count as deleted.
fn check_file(ctx: &mut Ctx, answer: &Answer, truth: &Shm, deleted: bool) -> anyhow::Result<()> {
    compare(ctx, answer, truth)?;
    let found = &truth.find(answer)?["deleted"];
    ctx.check_eq(format!("deleted, tmpfs:{}", truth.ino), deleted, found)
}

pub(super) fn hidden_mounts(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    let mut holder = Actor::start(b"holder", |stage| {
        mount_tmpfs("/tmp/over")?;
        let over = file("/tmp/over/file", 1)?;
        mount_tmpfs("/tmp/over")?;
        let above = file("/tmp/over/above", 2)?;
        mount_tmpfs("/tmp/lazy")?;
        let lazy = file("/tmp/lazy/file", 4)?;
        unmount_lazily("/tmp/lazy")?;
        let held = by_files(&[&over, &above, &lazy])?;
        stage.pause(&held)
    })?;
    // Before that, the namespace of the next one could get a copy of a mount that is to go.
    let held = holder.paused()?;
    let mut contained = Actor::start(b"contained", |stage| {
        task::enter_new(UnshareFlags::NEWNS)?;
        mount_tmpfs("/tmp/inside")?;
        let inside = file("/tmp/inside/file", 8)?;
        let map = sys::map(&inside, 0, page_size())?;
        let held = Held::by_file(&inside)?.and_map(map, 0).without_fds();
        drop(inside);
        stage.pause(&[held])
    })?;
    let inside = contained.paused_with_one()?;
    ctx.check("it is not mounted outside", !fs::exists("/tmp/inside/file")?)?;
    let answer = ask(ctx, "tmpfs")?;
    for (held, path) in held.into_iter().zip(["/tmp/over/file", "/tmp/over/above", "(unreachable)/file"]) {
        check_file(ctx, &answer, &Shm::held("tmpfs", path, vec![held]), false)?;
    }
    check_file(ctx, &answer, &Shm::held("tmpfs", "/tmp/inside/file", vec![inside]), false)?;
    // Of what the first one holds, only the unmounted filesystem goes with it.
    for (actor, pages) in [(&holder, 4), (&contained, 8)] {
        ctx.check_eq("what an exit would free", pages * page(), &answer.process(actor.pid)?["uss"])?;
    }
    Ok(())
}

pub(super) fn names(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/tmp/names")?;
    let mut holder = Actor::start(b"holder", |stage| {
        let unlinked = file("/tmp/names/unlinked", 1)?;
        fs::remove_file("/tmp/names/unlinked")?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let unnamed = rustix::fs::open("/tmp/names", flags, Mode::RUSR)?;
        make::write_pages(&unnamed, 2)?;
        let held = by_files(&[unlinked.as_fd(), unnamed.as_fd()])?;
        stage.pause(&held)
    })?;
    let mut linker = Actor::start(b"linker", |stage| {
        let linked = file("/tmp/names/a", 4)?;
        fs::hard_link("/tmp/names/a", "/tmp/names/b")?;
        fs::remove_file("/tmp/names/a")?;
        let moved = file("/tmp/names/old", 8)?;
        fs::create_dir("/tmp/names/folder")?;
        fs::rename("/tmp/names/old", "/tmp/names/folder/new")?;
        let held = by_files(&[&linked, &moved])?;
        stage.pause(&held)
    })?;
    let held = holder.paused()?;
    let unnamed = format!("/tmp/names/#{}", held.get(1).context("no second file")?.ino);
    let answer = ask(ctx, "tmpfs")?;
    for (held, path) in held.into_iter().zip(["/tmp/names/unlinked", &unnamed]) {
        check_file(ctx, &answer, &Shm::held("tmpfs", path, vec![held]), true)?;
    }
    for (held, path) in linker.paused()?.into_iter().zip(["/tmp/names/b", "/tmp/names/folder/new"]) {
        check_file(ctx, &answer, &Shm::held("tmpfs", path, vec![held]), false)?;
    }
    ctx.check_eq("what an exit frees of files without a name", 3 * page(), {
        &answer.process(holder.pid)?["uss"]
    })?;
    ctx.check_eq("what it frees of files with a name", 0, &answer.process(linker.pid)?["uss"])
}

/// The row of a file, without its residual.
fn name_and_holders(row: &Value) -> String {
    let holders = row["holders"].as_array().into_iter().flatten();
    let holders: Vec<String> = holders.map(|holder| format!("{}{}", holder["pid"], holder["fds"])).collect();
    format!("{} deleted {} charged {} by {holders:?}", row["name"], row["deleted"], row["charged"])
}

pub(super) fn bind_mounts(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/tmp/points")?;
    fs::create_dir("/tmp/points/folder")?;
    let point = Held::by_file(&File::create("/tmp/points/file")?)?.ino;
    mount_tmpfs("/tmp/base")?;
    fs::create_dir_all("/tmp/base/sub/deep")?;
    let mut holder = Actor::start(b"holder", |stage| {
        let below = file("/tmp/base/sub/deep/file", 1)?;
        let itself = file("/tmp/base/one", 2)?;
        stage.pause(&by_files(&[&below, &itself])?)
    })?;
    let [below, itself] =
        <[Held; 2]>::try_from(holder.paused()?).map_err(|_| anyhow::anyhow!("two files"))?;
    mount_bind("/tmp/base/sub", "/tmp/points/folder")?;
    mount_bind("/tmp/base/one", "/tmp/points/file")?;
    for (what, folder, path) in [
        ("with the whole filesystem", "/tmp/base/sub", "/tmp/base/one"),
        ("with the bind mounts alone", "/tmp/points/folder", "/tmp/points/file"),
    ] {
        let answer = ask(ctx, "tmpfs")?;
        let name = format!("{folder}/deep/file");
        check_file(ctx, &answer, &Shm::held("tmpfs", &name, vec![below.clone()]), false)?;
        let numbered = |ino: u64, charged: u64| {
            let of_it = move |row: &&Value| row["ino"] == ino && row["charged"] == charged;
            answer.list("buffers").iter().find(of_it).with_context(|| format!("no row of {ino}, {what}"))
        };
        // A mount refers to the file that it shows, and to the file that it is mounted on. No
        // process has to hold these.
        let (row, fds) = (numbered(itself.ino, itself.charged)?, &itself.fds);
        let right =
            format!("{path:?} deleted false charged {} by [\"{}{fds:?}\"]", itself.charged, holder.pid);
        ctx.check_eq(format!("the mounted file, {what}"), right, name_and_holders(row))?;
        ctx.check_eq(format!("references of its mount, {what}"), 1, &row["refs"]["kernel"])?;
        ctx.check_eq(format!("that figure, {what}, is an estimate"), false, &row["estimate"])?;
        let row = numbered(point, 0)?;
        let right = "\"/tmp/points/file\" deleted false charged 0 by []";
        ctx.check_eq(format!("the file that it is mounted on, {what}"), right, name_and_holders(row))?;
        ctx.check(format!("its mount refers to it, {what}"), row["refs"]["kernel"].as_u64() >= Some(1))?;
        ctx.check_eq(format!("what an exit frees, {what}"), 0, &answer.process(holder.pid)?["uss"])?;
        if path == "/tmp/base/one" {
            unmount_lazily("/tmp/base")?;
        }
    }
    Ok(())
}
