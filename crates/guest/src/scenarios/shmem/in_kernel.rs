//! What holds a buffer inside the kernel has a name: loop devices, io_urings, sockets. And what of
//! a private mapping is a process's own.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use super::kit::{ask, page};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF};
use crate::make;
use crate::scenario::Ctx;
use crate::sys::loops::LoopDevice;
use crate::sys::{self, ring, shm};

/// The memory with that inode number in an answer without dma-bufs, on the filesystem of memfds or
/// another one.
fn buffer<'a>(answer: &'a Answer, held: &Held, kind: &str) -> anyhow::Result<&'a Value> {
    let mut all = answer.list("buffers").iter();
    all.find(|b| b["ino"] == held.ino && b["kind"] == kind).with_context(|| format!("no {kind} {}", held.ino))
}

/// `lsbuf show` of one memfd.
fn show(ino: u64) -> anyhow::Result<Answer> {
    let arguments = ["show", "--json", "--kind", "memfd,tmpfs"];
    Answer::of(&Command::new(LSBUF).args(arguments).arg(ino.to_string()).output()?)
}

fn names(buffer: &Value) -> String {
    let all = buffer["kernel_holders"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |h: &Value| format!("{} {} {} {}", h["what"], h["name"], h["pid"], h["proven"]).replace('"', "");
    all.iter().map(of).collect::<Vec<_>>().join(", ")
}

pub(super) fn loop_device(ctx: &mut Ctx) -> anyhow::Result<()> {
    /// On a tmpfs of the guest.
    const PATH: &str = "/dev/shm/named-disk";
    // An earlier run that failed may have left it.
    let _ = fs::remove_file(PATH);
    let memfd = make::memfd(b"disk", 64, 3)?;
    let same_name = make::memfd(b"disk", 64, 3)?;
    let file = File::create_new(PATH).context("making a file")?;
    make::write_pages(&file, 4)?;
    let devices = [LoopDevice::of(&memfd)?, LoopDevice::of(&file)?];
    let held = [Held::by_file(&memfd)?, Held::by_file(&same_name)?, Held::by_file(&file)?];
    let found = |answer: &Answer| -> anyhow::Result<[String; 3]> {
        let [first, second, third] = &held;
        Ok([
            names(buffer(answer, first, "memfd")?),
            names(buffer(answer, second, "memfd")?),
            names(buffer(answer, third, "tmpfs")?),
        ])
    };
    let named = |device: &LoopDevice| format!("loop {} null true", device.name);
    let answer = ask(ctx, "memfd,tmpfs")?;
    let [of_memfd, of_same_name, of_file] = found(&answer)?;
    ctx.check_eq("a memfd", named(&devices[0]), of_memfd)?;
    ctx.check_eq("a memfd of the same name", "", of_same_name)?;
    ctx.check_eq("a file of a tmpfs", named(&devices[1]), of_file)?;
    let raw = ["--raw", "-n", "--kind", "memfd", "-o", "INO,HOLDERS"];
    let listed = String::from_utf8_lossy(&Command::new(LSBUF).args(raw).output()?.stdout).into_owned();
    let row = listed.lines().find(|line| line.starts_with(&format!("{} ", held[0].ino))).unwrap_or("no row");
    let ends = row.ends_with(&format!("\\x20{}", devices[0].name));
    ctx.check(format!("HOLDERS ends with the device: {row}"), ends)?;
    drop(devices);
    let answer = ask(ctx, "memfd,tmpfs")?;
    ctx.check_eq("without the devices", "", found(&answer)?.concat())?;
    fs::remove_file(PATH).context("removing the file")
}

pub(super) fn ring_and_socket(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, _unread) = UnixStream::pair()?;
    let mut keeper = Actor::start(b"keeper", |stage| {
        let memfd = make::memfd(b"kept", 8, 2)?;
        let ring = ring::open()?;
        ring::register(&ring, &[None, Some(memfd.as_fd())])?;
        stage.pause(&[Held::by_file(&memfd)?])
    })?;
    let held = keeper.paused_with_one()?;
    let shown = show(held.ino)?;
    let found = names(buffer(&shown, &held, "memfd")?);
    ctx.check(
        format!("the ring of {} is a candidate: {found}", keeper.pid),
        found.contains("io_uring")
            && found.contains("memfd:kept")
            && found.contains(&format!(" {} false", keeper.pid)),
    )?;
    let listed = ask(ctx, "memfd")?;
    ctx.check_eq("a list does not look for it", "", names(buffer(&listed, &held, "memfd")?))?;
    let mut sender = Actor::start(b"sender", |stage| {
        let fd = make::memfd(b"sent", 4, 2)?;
        sys::send_any(&from, &[fd.as_fd()])?;
        stage.pause(&[Held::by_file(&fd)?])
    })?;
    let held = sender.paused_with_one()?;
    let shown = show(held.ino)?;
    let found = names(buffer(&shown, &held, "memfd")?);
    // This process has the socket that the message waits in, and so have all that were forked.
    let own = format!("{} false", std::process::id());
    ctx.check(
        format!("who has the socket is a candidate: {found}"),
        found.contains("message socket:[") && found.contains(&own),
    )
}

pub(super) fn registered_memory(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"registrar", |stage| {
        let ring = ring::open()?;
        let memfd = make::memfd(b"registered", 16, 16)?;
        let region = sys::map(&memfd, 0, 16 * sys::page_size())?;
        ring::register_memory(&ring, region)?;
        sys::unmap(region)?;
        let held = Held::by_file(&memfd)?.without_fds();
        drop(memfd);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let answer = ask(ctx, "memfd")?;
    ctx.check("its memfd is in no list", buffer(&answer, &held, "memfd").is_err())?;
    let answer = Answer::of(&Command::new(LSBUF).args(["reconcile", "--json"]).output()?)?;
    let expected = format!(r#"[{{"bytes":{},"pid":{}}}]"#, 16 * page(), actor.pid);
    ctx.check_eq("who has pinned memory, and how much", expected, &answer.0["pinned"])
}

pub(super) fn private_copies(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"writer", |stage| {
        let memfd = make::memfd(b"image", 16, 16)?;
        let region = sys::map_private(&memfd, 0, 16 * sys::page_size())?;
        shm::touch(region, 5 * sys::page_size())?;
        stage.pause(&[Held::by_file(&memfd)?.and_map(region, 0)])
    })?;
    let held = actor.paused_with_one()?;
    let shown = show(held.ino)?;
    let image = buffer(&shown, &held, "memfd")?;
    let expected = format!(r#"[{{"bytes":{},"huge_at_most":0,"pid":{}}}]"#, 5 * page(), actor.pid);
    ctx.check_eq("copies", expected, &image["private_copies"])?;
    ctx.check_eq("what the memfd has", 16 * page(), &image["charged"])?;
    let listed = ask(ctx, "memfd")?;
    ctx.check_eq("a list does not look", "[]", &buffer(&listed, &held, "memfd")?["private_copies"])
}
