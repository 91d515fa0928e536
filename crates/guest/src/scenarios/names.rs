//! Names: given, changed, hostile; and files that only look like dma-bufs.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use dmabuf::DmaBuf;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::Scenario;
use super::holding::{SIZE, compare, compare_in, holder_of_one};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF, Truth};
use crate::make;
use crate::need::Need;
use crate::runner::Ctx;
use crate::sys;

/// What strangers call their buffers: forged fdinfo lines, forged rows and closing lines of the kernel's list, escape
/// sequences, the marks that other tools use. At most 31 bytes each.
const HOSTILE: &[&str] = &[
    "a\nsize:\t1\ncount:\t99\nino:\t1",
    "a\nexp_name:\tevil\nname:\tb",
    "\n00000001\t00000000\t00000000\t00",
    "\n\tAttached Devices:\n\tevil",
    "\nTotal 9 objects, 9 bytes",
    "\nTotal 0 devices attached\n\n",
    "cam (deleted)",
    "<none>",
    "\u{1b}[2J\u{1b}]0;x\u{7}",
    "back\\slash \\012 tab\there",
    " leading and trailing ",
    "\u{202e}gnp.exe",
    "0123456789012345678901234567890",
];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "named_and_renamed",
        claim: "A buffer has no name, then its name, then its new name",
        needs: &[],
        run: named_and_renamed,
    },
    Scenario {
        name: "hostile_names",
        claim: "No name changes a figure, forges a row or is lost",
        needs: &[],
        run: hostile_names,
    },
    Scenario {
        name: "hostile_names_mapped",
        claim: "The same for buffers that are only mapped",
        needs: &[Need::MappedIdentity],
        run: hostile_names_mapped,
    },
    Scenario {
        name: "impostors",
        claim: "Ordinary files called like dma-bufs are not taken for any, by fd, O_PATH fd or mapping",
        needs: &[],
        run: impostors,
    },
];

fn named_and_renamed(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"namer", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        for name in ["", "first", "second", ""] {
            buf.set_name(name)?;
            stage.pause(&[Held::by(&buf)?])?;
        }
        Ok(())
    })?;
    for name in ["", "first", "second", ""] {
        let held = actor.paused_with_one()?;
        compare(ctx, &Truth::held(make::plain_exporter(), vec![held]).named(name))?;
        actor.go_on()?;
    }
    Ok(())
}

fn hostile_names(ctx: &mut Ctx) -> anyhow::Result<()> {
    all_named(ctx, Held::by)
}

fn hostile_names_mapped(ctx: &mut Ctx) -> anyhow::Result<()> {
    all_named(ctx, |buf| {
        let region = sys::map(buf, 0, SIZE as usize)?;
        Ok(Held::by(buf)?.and_map(region, 0).without_fds())
    })
}

/// Compares a buffer of each hostile name, held as `hold` says; the fds of what it leaves out are closed.
fn all_named(ctx: &mut Ctx, hold: fn(&DmaBuf) -> anyhow::Result<Held>) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"hostile", |stage| {
        let (mut held, mut kept) = (Vec::new(), Vec::new());
        for name in HOSTILE {
            let (buf, _) = make::plain(SIZE)?;
            buf.set_name(name)?;
            let how = hold(&buf)?;
            kept.extend((!how.fds.is_empty()).then_some(buf));
            held.push(how);
        }
        stage.pause(&held)
    })?;
    let held = actor.paused()?;
    let answer = Answer::ask(&[])?;
    for (held, name) in held.into_iter().zip(HOSTILE) {
        compare_in(ctx, &answer, &Truth::held(make::plain_exporter(), vec![held]).named(name))?;
    }
    unforged(ctx, &answer)
}

/// What holds of the answer as a whole, and of the other formats.
fn unforged(ctx: &mut Ctx, answer: &Answer) -> anyhow::Result<()> {
    ctx.check_eq("buffers", HOSTILE.len(), answer.list("buffers").len())?;
    ctx.check_eq("complete", true, &answer.0["scan"]["complete"])?;
    ctx.check_eq("size in total", SIZE * HOSTILE.len() as u64, &answer.0["totals"]["size"])?;
    for format in ["-n", "-nr", "-n --csv"] {
        let output = Command::new(LSBUF).args(format.split(' ')).output()?.stdout;
        ctx.check_eq(format!("lines of {format}"), HOSTILE.len(), output.split(|&b| b == b'\n').count() - 1)?;
        let raw = output.iter().filter(|&&b| b < b' ' && b != b'\n' || b == 0x7f).count();
        ctx.check_eq(format!("raw control characters in {format}"), 0, raw)?;
    }
    Ok(())
}

fn impostors(ctx: &mut Ctx) -> anyhow::Result<()> {
    // Started first, so that its pid comes first and nothing is proven yet when it is read.
    let mut actor = Actor::start(b"impostor", |stage| {
        // At the root of the reader's filesystem, with the very link text of a dma-buf.
        let files = [impostor(Path::new("/dmabuf:"))?, impostor(Path::new("/dmabuf:cam"))?];
        fs::remove_file("/dmabuf:cam")?;
        // At the root of a filesystem that is nowhere mounted any more, as a container's is to its host: the link text
        // is the same, and no mount table tells that it is an ordinary file.
        mount("none", "/tmp", "tmpfs", MountFlags::empty(), None)?;
        let detached = impostor(Path::new("/tmp/dmabuf:x"))?;
        let path_only = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/tmp/dmabuf:x")?;
        unmount("/tmp", UnmountFlags::DETACH)?;
        for file in files.iter().chain([&detached]) {
            sys::map(file, 0, 4096)?;
        }
        stage.pause(&[])?;
        drop(path_only);
        Ok(())
    })?;
    actor.paused()?;
    let mut real = holder_of_one()?;
    let held = real.paused_with_one()?;
    let links: Vec<_> = fs::read_dir(format!("/proc/{}/fd", actor.pid))?
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("/dmabuf:"))
        .collect();
    ctx.check_eq("links that look like dma-bufs", 4, links.len())?;
    compare(ctx, &Truth::held(make::plain_exporter(), vec![held])).map(drop)?;
    let links = Answer::ask(&["--source", "map_files,bufinfo"])?;
    ctx.check_eq("buffers by map_files", 1, links.list("buffers").len())?;
    ctx.check_eq("complete by map_files", true, &links.0["scan"]["complete"])
}

fn impostor(path: &Path) -> anyhow::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.set_len(4096)?;
    Ok(file)
}
