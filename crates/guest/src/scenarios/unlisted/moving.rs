//! A mapping or an fd that moves between two places while lsbuf reads, so that neither place may show it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::io::fcntl_dupfd_cloexec;

use super::claims::Fact;
use super::sort::Sort;
use crate::actor::{Actor, Held, Stage};
use crate::scenario::Ctx;
use crate::sys::shuttle::Shuttle;
use crate::sys::{self, page_size};

const NAME: &str = "moving";

/// How often lsbuf is asked.
const TIMES: usize = 8;

/// How long a mapping or an fd stays where it is.
const STAY: Duration = Duration::from_micros(200);

/// So many mappings lie between the two places of one.
const VMAS: usize = 1500;

/// So many fds lie between the two slots of one.
const FDS: usize = 500;

/// The slots that an fd moves to: the first that is free, from there on.
const SLOTS: [i32; 2] = [3, 1010];

/// What moves.
#[derive(Clone, Copy, Debug)]
enum What {
    Mapping,
    Fd,
}

/// Pauses, moves until told that it is enough, and pauses again.
fn play(stage: &mut Stage, what: What, fd: OwnedFd, held: Held) -> anyhow::Result<()> {
    match what {
        What::Mapping => {
            let mut shuttle = Shuttle::map(&fd, 4 * page_size(), VMAS)?;
            drop(fd);
            let held = held.without_fds();
            stage.pause(&[held.clone().and_map(shuttle.region(), 0)])?;
            while !stage.is_told()? {
                shuttle.cross()?;
                sleep(STAY);
            }
            stage.wait()?;
            stage.pause(&[held.and_map(shuttle.region(), 0)])
        }
        What::Fd => {
            let null = File::open("/dev/null")?;
            let others: Result<Vec<OwnedFd>, _> =
                (0..FDS).map(|_| null.try_clone().map(Into::into)).collect();
            let others = others.context("opening more files")?;
            let held = held.without_fds();
            let mut fd = fd;
            stage.pause(&[held.clone().and_fd(&fd)])?;
            while !stage.is_told()? {
                for slot in SLOTS.into_iter().rev() {
                    fd = fcntl_dupfd_cloexec(&fd, slot).context("moving an fd")?;
                    sleep(STAY);
                }
            }
            stage.wait()?;
            stage.pause(&[held.and_fd(&fd)])?;
            drop(others);
            Ok(())
        }
    }
}

/// Asks while something moves that one process has beside another's fd: of the same file, or of one of its own.
fn ask_beside_a_holder(ctx: &mut Ctx, sort: Sort, what: What, reopened: bool) -> anyhow::Result<()> {
    let (from, to) = UnixStream::pair()?;
    let mut stable = Actor::start(b"stable", |stage| {
        let (fd, held) = sort.make(NAME)?;
        sys::send_any(&from, &[fd.as_fd()])?;
        stage.pause(&[held])
    })?;
    let stays = stable.paused_with_one()?;
    let (ino, size, charged) = (stays.ino, stays.size, stays.charged);
    let mut mover = Actor::start(b"mover", |stage| {
        let mut fd = sys::receive_any(&to)?.pop().context("no fd")?;
        if reopened {
            fd = sys::open_again(&fd)?;
        }
        let held = Held { pid: std::process::id(), ino, size, charged, ..Held::default() };
        play(stage, what, fd, held)
    })?;
    let moves = mover.paused_with_one()?;
    sort.compare(ctx, NAME, vec![stays.clone(), moves])?;
    mover.go_on()?;
    let holders = vec![stable.pid, mover.pid];
    Fact { kind: sort.kind(), ino, references: 2, holders }.ask(ctx, "while it moves", TIMES)?;
    mover.go_on()?;
    let moves = mover.paused_with_one()?;
    sort.compare(ctx, NAME, vec![stays, moves])
}

pub(super) fn mapping(ctx: &mut Ctx) -> anyhow::Result<()> {
    ask_beside_a_holder(ctx, Sort::Memfd, What::Mapping, false)
}

pub(super) fn mapping_reopened(ctx: &mut Ctx) -> anyhow::Result<()> {
    ask_beside_a_holder(ctx, Sort::Memfd, What::Mapping, true)
}

pub(super) fn mapping_of_dmabuf(ctx: &mut Ctx) -> anyhow::Result<()> {
    ask_beside_a_holder(ctx, Sort::DmaBuf, What::Mapping, false)
}

pub(super) fn fd(ctx: &mut Ctx) -> anyhow::Result<()> {
    for sort in Sort::BOTH {
        ask_beside_a_holder(ctx, sort, What::Fd, false)?;
    }
    Ok(())
}

pub(super) fn fd_reopened(ctx: &mut Ctx) -> anyhow::Result<()> {
    ask_beside_a_holder(ctx, Sort::Memfd, What::Fd, true)
}

pub(super) fn mapping_alone(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut mover = Actor::start(b"mover", |stage| {
        let (fd, held) = Sort::Memfd.make(NAME)?;
        play(stage, What::Mapping, fd, held)
    })?;
    let held = mover.paused_with_one()?;
    ensure!(held.maps.len() == 1, "one mapping, not {:?}", held.maps);
    let ino = held.ino;
    Sort::Memfd.compare(ctx, NAME, vec![held])?;
    mover.go_on()?;
    let fact = Fact { kind: "memfd", ino, references: 1, holders: vec![mover.pid] };
    fact.ask(ctx, "while it moves", TIMES)?;
    mover.go_on()?;
    let held = mover.paused()?;
    Sort::Memfd.compare(ctx, NAME, held)
}
