//! Makers that are another one when lsbuf asks, or that are not a whole process.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::Context;
use dmabuf::share;
use rustix::thread::{gettid, set_name, set_thread_res_uid};

use super::kit::{Origins, install, line, remove, told};
use crate::actor::{Actor, Held};
use crate::answer::USER;
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::holding::SIZE;
use crate::scenarios::probes::lsbuf;
use crate::sys;

pub(super) fn of_makers_that_change(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    let mut threads = Actor::start(b"process", |stage| {
        let made = std::thread::spawn(|| -> anyhow::Result<(OwnedFd, u32)> {
            set_name(c"worker")?;
            Ok((make::memfd(b"of-a-thread", 1, 1)?, gettid().as_raw_nonzero().get().unsigned_abs()))
        });
        let (fd, tid) = made.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        // The thread's number, in a field that nothing else uses here.
        stage.pause(&[Held { charged: tid.into(), ..Held::by_file(&fd)? }])
    })?;
    let of_thread = threads.paused_with_one()?;
    let tid = u32::try_from(of_thread.charged)?;

    let (ours, theirs) = UnixStream::pair()?;
    let maker = Actor::start(b"maker", move |stage| {
        let (buf, _) = make::plain(SIZE)?;
        share::send(&theirs, &[&buf], b"x")?;
        drop(buf);
        stage.pause(&[])
    })?;
    let maker_pid = maker.pid;
    let mut holder = Actor::start(b"holder", move |stage| {
        let buf = share::receive(&ours, &mut [0])?.bufs.pop().context("nothing came")?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let given = holder.paused_with_one()?;
    drop(maker);

    let mut other = Actor::start(b"user", |stage| {
        // Read before the change, after which /proc/self cannot be on older kernels.
        let _ = sys::page();
        let user = rustix::process::Uid::from_raw(USER);
        set_thread_res_uid(user, user, user)?;
        let fd = make::memfd(b"of-a-user", 1, 1)?;
        stage.pause(&[Held::by_file(&fd)?])
    })?;
    let of_user = other.paused_with_one()?;

    let mut renamed = Actor::start(b"first", |stage| {
        let fd = make::memfd(b"of-a-name", 1, 1)?;
        set_name(c"second")?;
        stage.pause(&[Held::by_file(&fd)?])
    })?;
    let of_name = renamed.paused_with_one()?;

    let origins = Origins::ask(&mut lsbuf(&[]))?;
    let expected = [
        ("a thread", "memfd", of_thread.ino, line(threads.pid, "process", tid, "worker", 0)),
        ("a process that has exited", "dmabuf", given.ino, line(maker_pid, "maker", maker_pid, "maker", 0)),
        ("another user", "memfd", of_user.ino, line(other.pid, "user", other.pid, "user", USER)),
        (
            "a process that was renamed",
            "memfd",
            of_name.ino,
            line(renamed.pid, "first", renamed.pid, "first", 0),
        ),
    ];
    for (what, kind, ino, maker) in expected {
        ctx.check_eq(what, maker, told(origins.of(kind, ino)?))?;
    }
    let table = lsbuf(&["ls", "-o", "INO,ORIGIN", "--kind", "dmabuf"]).output()?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let row = table.lines().find(|row| row.split_whitespace().next() == Some(&given.ino.to_string()));
    let cell = row.and_then(|row| row.split_whitespace().nth(1)).unwrap_or("no row").to_owned();
    ctx.check_eq("column ORIGIN", format!("maker:{maker_pid}"), cell)?;
    let sum = lsbuf(&["sum", "--by", "origin", "--kind", "memfd"]).output()?;
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    for command in ["process", "user", "first"] {
        let has = sum.lines().any(|row| row.split_whitespace().next() == Some(command));
        ctx.check(format!("sum --by origin has {command}"), has)?;
    }
    remove(ctx)
}
