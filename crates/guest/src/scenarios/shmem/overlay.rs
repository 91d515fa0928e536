//! Files of a tmpfs that a process has open through an overlay.
//!
//! The scenario runs in a mount namespace of its own, so that its mounts go with it.

use std::fs::{self, File};
use std::process::Command;

use anyhow::Context;
use rustix::mount::{MountFlags, mount};
use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::kit::{file, mount_tmpfs};
use crate::actor::Actor;
use crate::answer::{Answer, LSBUF};
use crate::scenario::Ctx;
use crate::sys::task;

const MEMORY: &str = "/tmp/overlay-memory";
const MERGED: &str = "/tmp/overlay-merged";

/// What holds a file inside the kernel, and who may, as `lsbuf show` lists it: `WHAT NAME PID`.
fn holders(path: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new(LSBUF).args(["show", "--json", "--kind", "tmpfs", path]).output()?;
    let shown = Answer::of(&output)?;
    let [row] = shown.list("buffers") else {
        anyhow::bail!("{} rows of {path}", shown.list("buffers").len())
    };
    let line =
        |holder: &Value| format!("{} {} {}", holder["what"], holder["name"], holder["pid"]).replace('"', "");
    Ok(row["kernel_holders"].as_array().into_iter().flatten().map(line).collect())
}

/// The files below [`MEMORY`] that an answer lists as held by nobody, by their last names.
fn unheld() -> anyhow::Result<Vec<String>> {
    let answer = Answer::ask(&["--unheld", "--kind", "tmpfs"])?;
    let paths = answer.list("unheld").iter().filter_map(|row| row["path"].as_str());
    let names = paths.filter_map(|path| Some(path.strip_prefix(MEMORY)?.rsplit('/').next()?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}

pub(super) fn opened_through(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs(MEMORY)?;
    for folder in ["up", "low", "work"] {
        fs::create_dir(format!("{MEMORY}/{folder}"))?;
    }
    drop(file(&format!("{MEMORY}/low/lower"), 2)?);
    drop(file(&format!("{MEMORY}/low/nobodys"), 1)?);
    fs::create_dir_all(MERGED)?;
    let options = format!("lowerdir={MEMORY}/low,upperdir={MEMORY}/up,workdir={MEMORY}/work");
    let options = std::ffi::CString::new(options)?;
    mount("none", MERGED, "overlay", MountFlags::empty(), Some(options.as_c_str()))
        .context("mounting an overlay")?;
    let mut opener = Actor::start(b"opener", |stage| {
        let upper = file(&format!("{MERGED}/upper"), 3)?;
        let lower = File::open(format!("{MERGED}/lower"))?;
        stage.pause(&[])?;
        drop((upper, lower));
        stage.pause(&[])
    })?;
    opener.paused()?;
    ctx.check_eq("of the files only the one that is not open is nobody's", "nobodys", unheld()?.join(" "))?;
    if ctx.way.is_bpf() {
        for (layer, name) in [("up", "upper"), ("low", "lower")] {
            let expected =
                [format!("overlay {MERGED} null"), format!("overlay {MERGED}/{name} {}", opener.pid)];
            let found = holders(&format!("{MEMORY}/{layer}/{name}"))?;
            ctx.check_eq(format!("who has {name}"), expected.join(", "), found.join(", "))?;
        }
    }
    fs::remove_file(format!("{MERGED}/upper"))?;
    if ctx.way.is_bpf() {
        let answer = Answer::ask(&["--kind", "tmpfs", "--deleted"])?;
        let path = format!("{MEMORY}/up/upper");
        let row = answer.list("buffers").iter().find(|row| row["name"] == *path);
        let row = row.context("no row of a deleted file that an overlay has open")?;
        ctx.check_eq("its processes", "[]", &row["holders"])?;
        let found = holders(&path)?;
        let deleted = format!("overlay {MERGED}/upper (deleted) {}", opener.pid);
        ctx.check(format!("who has the deleted file: {found:?}"), found.contains(&deleted))?;
    }
    opener.go_on()?;
    opener.paused()?;
    let names = unheld()?;
    let has_lower = names.iter().any(|name| name == "lower");
    // The overlay keeps the dentry of a file that was looked up.
    ctx.check_eq("what was closed is nobody's, which only procfs tells at once", !ctx.way.is_bpf(), has_lower)
}
