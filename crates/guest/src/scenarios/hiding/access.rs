//! Processes that a user may not read, and procfs mounts that do not list them.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF, Truth, USER, as_user};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, compare, compare_in, holder_of_one};
use crate::sys;

/// The arguments of the user's scans, whatever root's scans use.
const BY_PROCFS: [&str; 3] = ["--json", "--source", "procfs,bufinfo"];

pub(super) fn changed_user(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"server", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        sys::become_user(USER)?;
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        stage.pause(&[Held::by(&buf)?])?;
        // The kernel does this when a process changes its user.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let truth = Truth::held(make::plain_exporter(), vec![actor.paused_with_one()?]);
    let open = Answer::from(&mut as_user(&BY_PROCFS))?;
    compare_in(ctx, &open, &truth)?;
    actor.go_on()?;
    actor.paused()?;
    compare(ctx, &truth)?;
    let closed = Answer::from(&mut as_user(&BY_PROCFS))?;
    ctx.check_eq("buffers that the user sees", 0, closed.list("buffers").len())?;
    let unreadable = |answer: &Answer| answer.0["scan"]["processes"]["unreadable"].as_u64().unwrap_or(0);
    ctx.check_eq("unreadable processes", unreadable(&open) + 1, unreadable(&closed))?;
    ctx.check_eq("complete", false, &closed.0["scan"]["complete"])?;
    ctx.check("the note says why", closed.0["scan"]["notes"].to_string().contains("permission denied"))
}

pub(super) fn hidepid(ctx: &mut Ctx) -> anyhow::Result<()> {
    const AT: &str = "/tmp/hiding-proc";
    let mut roots = holder_of_one()?;
    let roots_own = Truth::held(make::plain_exporter(), vec![roots.paused_with_one()?]);
    let mut users = Actor::start(b"users", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        sys::become_user(USER)?;
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let users_own = Truth::held(make::plain_exporter(), vec![users.paused_with_one()?]);
    let arguments = ["--proc-root", AT, "--sys-root", "/sys"];
    fs::create_dir_all(AT)?;
    for option in [c"hidepid=1", c"hidepid=2", c"hidepid=invisible", c"hidepid=ptraceable"] {
        mount("proc", AT, "proc", MountFlags::empty(), option)?;
        let which = |what: &str| format!("{}: {what}", option.to_string_lossy());
        let root = Answer::ask(&arguments)?;
        compare_in(ctx, &root, &roots_own)?;
        compare_in(ctx, &root, &users_own)?;
        ctx.check_eq(which("complete for root"), true, &root.0["scan"]["complete"])?;
        let arguments = [&arguments[..], &BY_PROCFS].concat();
        let user = Answer::from(&mut as_user(&arguments))?;
        compare_in(ctx, &user, &users_own)?;
        ctx.check_eq(which("buffers that the user sees"), 1, user.list("buffers").len())?;
        ctx.check_eq(which("complete for the user"), false, &user.0["scan"]["complete"])?;
        ctx.check(which("the note says why"), user.0["scan"]["notes"].to_string().contains("hidepid"))?;
        let strict = Command::new(LSBUF).args(&arguments).arg("--strict").uid(USER).gid(USER).output()?;
        ctx.check_eq(which("exit status with --strict"), 3, strict.status.code().unwrap_or(-1))?;
        unmount(AT, UnmountFlags::empty())?;
    }
    Ok(())
}
