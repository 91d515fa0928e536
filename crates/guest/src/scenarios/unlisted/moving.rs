//! A mapping or an fd that moves between two places while lsbuf reads, so that lsbuf may see it in
//! neither place.

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

/// How often lsbuf runs.
const TIMES: usize = 8;

/// How long a mapping or an fd stays in one place.
const STAY: Duration = Duration::from_micros(200);

/// How many mappings are between the two places of a mapping.
const VMAS: usize = 1500;

/// How many fds are between the two slots of an fd.
const FDS: usize = 500;

/// The slots that an fd moves to: the first free one from each of these on.
const SLOTS: [i32; 2] = [3, 1010];

/// The reference that moves.
#[derive(Clone, Copy, Debug)]
enum Moving {
    Mapping,
    Fd,
}

/// Pauses, moves the mapping or fd until the scenario tells it to stop, and pauses again.
fn play(stage: &mut Stage, what: Moving, fd: OwnedFd, held: Held) -> anyhow::Result<()> {
    match what {
        Moving::Mapping => {
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
        Moving::Fd => {
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

/// Runs lsbuf while one process holds a buffer by an fd and another one moves its reference: to the
/// same open file, or to a second one.
fn ask_beside_a_holder(ctx: &mut Ctx, sort: Sort, what: Moving, reopened: bool) -> anyhow::Result<()> {
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
    ask_beside_a_holder(ctx, Sort::Memfd, Moving::Mapping, false)
}

pub(super) fn mapping_reopened(ctx: &mut Ctx) -> anyhow::Result<()> {
    ask_beside_a_holder(ctx, Sort::Memfd, Moving::Mapping, true)
}

pub(super) fn mapping_of_dmabuf(ctx: &mut Ctx) -> anyhow::Result<()> {
    ask_beside_a_holder(ctx, Sort::DmaBuf, Moving::Mapping, false)
}

pub(super) fn fd(ctx: &mut Ctx) -> anyhow::Result<()> {
    for sort in Sort::BOTH {
        ask_beside_a_holder(ctx, sort, Moving::Fd, false)?;
    }
    Ok(())
}

pub(super) fn fd_reopened(ctx: &mut Ctx) -> anyhow::Result<()> {
    ask_beside_a_holder(ctx, Sort::Memfd, Moving::Fd, true)
}

pub(super) fn mapping_alone(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut mover = Actor::start(b"mover", |stage| {
        let (fd, held) = Sort::Memfd.make(NAME)?;
        play(stage, Moving::Mapping, fd, held)
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
