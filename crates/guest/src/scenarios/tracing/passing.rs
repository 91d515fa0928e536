//! From whom an fd comes.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::kit::Running;
use crate::actor::{Actor, Held};
use crate::make;
use crate::scenario::Ctx;
use crate::sys;

pub(super) fn of_fds(ctx: &mut Ctx) -> anyhow::Result<()> {
    let trace = Running::start(&["--strict", "--kind", "memfd", "--event", "received"])?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut giver = Actor::start(b"giver", move |stage| {
        let fd = make::memfd(b"given", 1, 1)?;
        sys::send_any(&theirs, &[fd.as_fd()])?;
        let kept: OwnedFd = fd;
        stage.pause(&[Held::by_file(&kept)?])
    })?;
    let given = giver.paused_with_one()?;
    let mut receiver = Actor::start(b"receiver", move |stage| {
        drop(sys::receive_peeking(&ours)?);
        let fd = sys::receive_any(&ours)?.pop().context("nothing came")?;
        stage.pause(&[Held::by_file(&fd)?])
    })?;
    receiver.paused()?;
    let number = *given.fds.first().context("the giver has no fd")?;
    let from = giver.pid;
    let mut taker = Actor::start(b"taker", move |stage| {
        let pid = Pid::from_raw(i32::try_from(from)?).context("no pid")?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let fd = pidfd_getfd(process, i32::try_from(number)?, PidfdGetfdFlags::empty())?;
        stage.pause(&[Held::by_file(&fd)?])
    })?;
    taker.paused()?;
    let told = trace.end()?;
    ctx.check_eq(format!("status of the trace: {}", told.errors), 0, told.status)?;
    let (giver, receiver, taker) = (giver.pid, receiver.pid, taker.pid);
    let looked = format!("received message from giver:{giver} by receiver:{receiver}");
    let expected = format!("{looked}; {looked}; received taken from giver:{giver} by taker:{taker}");
    ctx.check_eq("receipts", expected, told.of("memfd", given.ino))?;
    Ok(())
}
