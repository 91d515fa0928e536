//! A maker in a container, seen from outside and from inside of one.

use std::fs;

use anyhow::Context;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Gid, Uid};
use rustix::thread::{UnshareFlags, set_thread_res_gid, set_thread_res_uid};

use super::kit::{Origins, install, line, remove, told};
use super::program::{Made, Said, command, functions, start, told_call, told_functions, told_start};
use crate::actor::{Actor, Held};
use crate::answer::Answer;
use crate::make;
use crate::maker::Build;
use crate::scenario::Ctx;
use crate::scenarios::probes::lsbuf;
use crate::sys::task;

/// What root of the container is outside.
const ROOT: u32 = 100_000;

const CGROUP: &str = "/sys/fs/cgroup/box";
const FOLDER: &str = "/tmp/box";

/// A process in user, mount, pid and cgroup namespaces of its own. It starts a program that only
/// its mount namespace has. `fds` of what it holds is the memfd's in that program, and `maps` the
/// address that the program says.
fn contained() -> anyhow::Result<Actor> {
    let mut actor = Actor::start(b"runtime", |stage| {
        fs::write(format!("{CGROUP}/cgroup.procs"), "0").context("entering a cgroup")?;
        let new =
            UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWCGROUP;
        task::enter_new(new)?;
        stage.pause(&[])?;
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).context("its group")?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).context("its user")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        mount("none", FOLDER, "tmpfs", MountFlags::empty(), None).context("mounting")?;
        let program = format!("{FOLDER}/inner-maker");
        fs::copy(Build::Pie.path(), &program).context("copying")?;
        let (child, _input, _output, Said { fd, address }) = start(&mut command(&program, 3, &[]))?;
        let maps = vec![(usize::try_from(address)?, 0, 0)];
        stage.pause(&[Held { pid: child.id(), fds: vec![fd], maps, ..Held::default() }])
    })?;
    actor.paused()?;
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{}/{file}", actor.pid);
        fs::write(&path, format!("0 {ROOT} 1000")).with_context(|| format!("writing {path}"))?;
    }
    actor.go_on()?;
    Ok(actor)
}

pub(super) fn in_a_container(ctx: &mut Ctx) -> anyhow::Result<()> {
    fs::create_dir_all(CGROUP).context("making a cgroup")?;
    fs::create_dir_all(FOLDER)?;
    install(ctx, &[])?;
    let mut actor = contained()?;
    let held = actor.paused_with_one()?;
    let said = Said {
        fd: *held.fds.first().context("no memfd")?,
        address: u64::try_from(held.maps.first().context("no address")?.0)?,
    };
    let made = Made::by(held.pid, said)?;
    let status = fs::read_to_string(format!("/proc/{}/status", held.pid))?;
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    ctx.check_eq("its pid outside and inside", format!("{} 1", held.pid), words(inner))?;
    ctx.check("only its mount namespace has the file", !fs::exists(format!("{FOLDER}/inner-maker"))?)?;

    let origins = Origins::ask(&mut lsbuf(&["--kind", "memfd"]))?;
    let origin = origins.of("memfd", made.ino)?;
    ctx.check_eq("who", line(held.pid, "inner-maker", held.pid, "inner-maker", ROOT), told(origin))?;
    ctx.check_eq("started", made.started, told_start(origin)?)?;
    let cgroup = std::os::unix::fs::MetadataExt::ino(&fs::metadata(CGROUP)?);
    ctx.check_eq("cgroup", cgroup, &origin["cgroup_id"])?;
    ctx.check_eq("call", made.call(true), told_call(origin)?)?;
    ctx.check_eq("calls", functions(3).join(" "), told_functions(origin))?;
    drop(actor);
    remove(ctx)
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(super) fn asked_in_a_container(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    task::enter_new(UnshareFlags::NEWPID | UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // The first child is process 1 of the namespace. It mounts the procfs that lsbuf then reads.
    let mut inner = Actor::start(b"contained", |stage| {
        mount("proc", "/proc", "proc", MountFlags::empty(), None)?;
        let memfd = make::memfd(b"inside", 1, 1)?;
        stage.pause(&[Held::by_file(&memfd)?])
    })?;
    let Held { pid, ino, .. } = inner.paused_with_one()?;
    ctx.check_eq("pid inside", 1, pid)?;
    let answer = Answer::from(lsbuf(&["--kind", "memfd", "--json", "--details"]).env_remove("LSBUF_KIND"))?;
    let found = answer.list("buffers").iter().find(|buffer| buffer["ino"] == ino).context("not seen")?;
    ctx.check_eq("origin", "null", &found["origin"])?;
    let notes = answer.0["scan"]["notes"].to_string();
    ctx.check(
        format!("it is said why: {notes}"),
        notes.contains("it tells pids of the first pid namespace"),
    )?;
    remove(ctx)
}
