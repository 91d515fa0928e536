//! Makers that are programs: built, started and changed in different ways.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use anyhow::Context;

use super::kit::{Origins, install, line, remove, told};
use super::program::{Maker, command, functions, told_call, told_functions, told_start};
use crate::answer::USER;
use crate::maker::Build;
use crate::programs::WAIT;
use crate::scenario::Ctx;
use crate::scenarios::probes::lsbuf;

/// The most calls of a program that a record has room for.
const ROOM: usize = 48;

/// Forgets the names that lsbuf keeps for the time when their process has exited.
fn forget_names() -> anyhow::Result<()> {
    match fs::remove_dir_all("/run/lsbuf-names") {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("forgetting names"),
        _ => Ok(()),
    }
}

/// Asks who made a memfd, and compares that with the process that did. Returns what lsbuf says.
fn ask(ctx: &mut Ctx, what: &str, maker: &Maker, comm: &str, uid: u32) -> anyhow::Result<serde_json::Value> {
    let origins = Origins::ask(&mut lsbuf(&["--kind", "memfd"]))?;
    let origin = origins.of("memfd", maker.made.ino)?.clone();
    ctx.check_eq(format!("{what}: who"), line(maker.pid, comm, maker.pid, comm, uid), told(&origin))?;
    ctx.check_eq(format!("{what}: started"), maker.made.started, told_start(&origin)?)?;
    Ok(origin)
}

/// A file that is a copy of a program.
fn copy(build: Build, to: &str) -> anyhow::Result<()> {
    fs::copy(build.path(), to).with_context(|| format!("copying to {to:?}"))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).context("its mode")
}

pub(super) fn as_built(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    for build in Build::ALL {
        forget_names()?;
        let name = build.name();
        let maker = Maker::start(&mut command(&build.path(), 2, &[]))?;
        let origin = ask(ctx, name, &maker, name, 0)?;
        ctx.check_eq(format!("{name}: call"), maker.made.call(true), told_call(&origin)?)?;
        let (functions, end) = match build {
            Build::Fixed | Build::Pie => (functions(2), "complete"),
            // Without names nothing tells whether the outermost call is the first one.
            Build::Stripped | Build::WithoutBuildId => (vec!["?".to_owned(); 5], "truncated"),
            // The recorder follows frame pointers, and here is none to follow.
            Build::WithoutFramePointers => (vec!["make".to_owned()], "truncated"),
        };
        ctx.check_eq(format!("{name}: calls"), functions.join(" "), told_functions(&origin))?;
        ctx.check_eq(format!("{name}: end"), end, origin["stack"]["user_end"].as_str().unwrap_or("?"))?;
    }
    remove(ctx)
}

pub(super) fn deep(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    // Besides these calls there are the innermost and the two outermost ones.
    for calls in [32, ROOM - 3, ROOM - 2, 100] {
        let maker = Maker::start(&mut command(&Build::Pie.path(), calls, &[]))?;
        let what = format!("{calls} calls");
        let origin = ask(ctx, &what, &maker, Build::Pie.name(), 0)?;
        ctx.check_eq(format!("{what}: call"), maker.made.call(true), told_call(&origin)?)?;
        let mut expected = functions(calls);
        let end = if expected.len() > ROOM { "truncated" } else { "complete" };
        expected.truncate(ROOM);
        ctx.check_eq(format!("{what}: calls"), expected.join(" "), told_functions(&origin))?;
        ctx.check_eq(format!("{what}: end"), end, origin["stack"]["user_end"].as_str().unwrap_or("?"))?;
    }
    remove(ctx)
}

pub(super) fn deleted(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    forget_names()?;
    let path = "/tmp/deleted-maker";
    copy(Build::Pie, path)?;
    let maker = Maker::start(&mut command(path, 0, &[]))?;
    fs::remove_file(path)?;
    let origin = ask(ctx, "deleted", &maker, "deleted-maker", 0)?;
    ctx.check_eq("call of a file that is deleted", maker.made.call(true), told_call(&origin)?)?;
    // Another file has its path now.
    copy(Build::Fixed, path)?;
    forget_names()?;
    let origin = ask(ctx, "replaced", &maker, "deleted-maker", 0)?;
    ctx.check_eq("call of a file that is replaced", maker.made.call(true), told_call(&origin)?)?;
    fs::remove_file(path)?;
    remove(ctx)
}

pub(super) fn hostile_name(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    forget_names()?;
    const NAME: &str = "a\n\x1b[2Jb:1 c";
    let path = format!("/tmp/{NAME}");
    copy(Build::Pie, &path)?;
    let maker = Maker::start(&mut command(&path, 0, &[]))?;
    let origin = ask(ctx, "hostile", &maker, NAME, 0)?;
    ctx.check_eq("call", maker.made.call(true), told_call(&origin)?)?;
    let ino = maker.made.ino.to_string();
    let table = lsbuf(&["ls", "-o", "INO,ORIGIN", "--kind", "memfd"]).output()?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let row = table.lines().find(|row| row.split_whitespace().next() == Some(&ino)).context("no row")?;
    let expected = format!("{ino} a\\x0a\\x1b[2Jb\\x3a1\\x20c:{}", maker.pid);
    ctx.check_eq("row", expected, row.split_whitespace().collect::<Vec<_>>().join(" "))?;
    let shown = lsbuf(&["show", &ino, "--kind", "memfd"]).output()?;
    for (what, text) in [("ls", table.into_bytes()), ("show", shown.stdout)] {
        let raw = text.iter().filter(|&&byte| byte.is_ascii_control() && byte != b'\n').count();
        ctx.check(format!("{what} prints something"), !text.is_empty())?;
        ctx.check_eq(format!("control characters in {what}"), 0, raw)?;
    }
    fs::remove_file(path)?;
    remove(ctx)
}

pub(super) fn setuid(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    let path = "/tmp/setuid-maker";
    copy(Build::Pie, path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o4755))?;
    let maker = Maker::start(command(path, 0, &[]).uid(USER).gid(USER))?;
    let status = fs::read_to_string(format!("/proc/{}/status", maker.pid))?;
    let ids = status.lines().find(|line| line.starts_with("Uid:")).unwrap_or_default();
    let ids: Vec<&str> = ids.split_whitespace().skip(1).take(2).collect();
    ctx.check_eq("real and effective user", format!("{USER} 0"), ids.join(" "))?;
    let origin = ask(ctx, "setuid", &maker, "setuid-maker", USER)?;
    ctx.check_eq("calls", functions(0).join(" "), told_functions(&origin))?;
    fs::remove_file(path)?;
    remove(ctx)
}

pub(super) fn left(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    let guest = std::env::current_exe()?;
    let then = [guest.to_str().context("a name that is not UTF-8")?, WAIT];
    for (what, letter) in [("executes another program", b'x'), ("exits, and a child has it", b'f')] {
        for is_asked in [true, false] {
            let what = format!("{what}, {}", if is_asked { "after a look" } else { "at once" });
            forget_names()?;
            let mut maker = Maker::start(&mut command(&Build::Fixed.path(), 1, &then))?;
            if is_asked {
                ask(ctx, &format!("{what}: before"), &maker, Build::Fixed.name(), 0)?;
            }
            maker.tell(letter)?;
            ctx.check_eq(format!("{what}: it runs"), "waiting", maker.line()?)?;
            if letter == b'f' {
                maker.ended()?;
            }
            let origin = ask(ctx, &what, &maker, Build::Fixed.name(), 0)?;
            ctx.check_eq(format!("{what}: call"), maker.made.call(is_asked), told_call(&origin)?)?;
            let expected = if is_asked { functions(1) } else { vec!["?".to_owned(); 4] };
            ctx.check_eq(format!("{what}: calls"), expected.join(" "), told_functions(&origin))?;
        }
    }
    remove(ctx)
}
