//! A process of the random world: it does what its seed says, writes down each step, and reports what it holds.
//!
//! It knows what it holds because it did every step itself; nothing here is read from /proc.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use dmabuf::{DmaBuf, DrmDevice, GemHandle};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::set_name;
use serde::{Deserialize, Serialize};

use super::children::Child;
use super::journal::{Entry, Hold, Holds, Journal, now};
use super::random::Random;
use super::steps;
use crate::sys::{self, Region};

/// What a player is to do until it reports.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Orders {
    /// Decides every step.
    pub(super) seed: u64,
    /// How many steps.
    pub(super) steps: u32,
    /// The longest rest between two steps, in microseconds.
    pub(super) rest: u64,
    /// Send buffers too.
    pub(super) mail: bool,
    /// First receive everything that was sent here.
    pub(super) drain: bool,
}

/// What it and its children hold.
pub(super) type Report = BTreeMap<u32, Holds>;

/// What the world has, looked up once.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Kinds {
    pub(super) heap: bool,
    pub(super) udmabuf: bool,
    pub(super) vgem: bool,
    /// A mapping of a vgem buffer is a reference that shows.
    pub(super) vgem_shows: bool,
}

/// Everybody's way to send to one player, and that player's to receive.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) to: OwnedFd,
    pub(super) from: OwnedFd,
}

/// A player's part in one buffer.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) size: u64,
    pub(super) exporter: String,
    /// It made the buffer, so it alone may rename it: the order of names is that of its steps.
    pub(super) maker: bool,
    pub(super) fds: Vec<DmaBuf>,
    pub(super) opaths: Vec<OwnedFd>,
    /// Each with where in the buffer it begins.
    pub(super) maps: Vec<(Region, u64)>,
    pub(super) handle: Option<GemHandle<'static>>,
}

impl Kept {
    pub(super) fn is_nothing(&self) -> bool {
        self.fds.is_empty() && self.opaths.is_empty() && self.maps.is_empty() && self.handle.is_none()
    }
}

/// A player.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) seat: usize,
    pub(super) kinds: Kinds,
    pub(super) inboxes: Vec<Inbox>,
    pub(super) bufs: BTreeMap<u64, Kept>,
    pub(super) random: Random,
    /// Whether it may send.
    pub(super) mail: bool,
    /// Opened once and then kept, so that its handles may be kept too.
    pub(super) device: Option<&'static DrmDevice>,
    pub(super) control: BufReader<UnixStream>,
    journal: Journal,
    pub(super) children: Vec<Child>,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Batch {
    Done,
    /// The process is to end.
    Left,
}

impl Player {
    /// A player that holds nothing.
    pub(super) fn new(
        seat: usize,
        kinds: Kinds,
        control: UnixStream,
        inboxes: Vec<Inbox>,
    ) -> anyhow::Result<Player> {
        set_name(&std::ffi::CString::new(format!("player{seat}"))?).context("naming")?;
        Ok(Player {
            seat,
            kinds,
            inboxes,
            bufs: BTreeMap::new(),
            random: Random::new(0),
            mail: false,
            device: None,
            control: BufReader::new(control),
            journal: Journal::open()?,
            children: Vec::new(),
        })
    }

    /// Follows orders until there are no more, or one of its steps is to end.
    pub(super) fn play(&mut self) -> anyhow::Result<()> {
        loop {
            let mut line = String::new();
            if self.control.read_line(&mut line).context("listening to the conductor")? == 0 {
                return Ok(());
            }
            let orders: Orders = serde_json::from_str(&line).context("understanding the conductor")?;
            self.random = Random::new(orders.seed);
            if let Batch::Left = self.follow(orders)? {
                return Ok(());
            }
        }
    }

    pub(super) fn follow(&mut self, mut orders: Orders) -> anyhow::Result<Batch> {
        self.mail = orders.mail;
        if orders.drain {
            while steps::receive(self)? {}
        }
        while orders.steps > 0 {
            orders.steps -= 1;
            if self.random.one_in(250) {
                return self.exec(orders).map(|()| Batch::Left);
            }
            if self.random.one_in(500) {
                return self.leave().map(|()| Batch::Left);
            }
            steps::any(self)?;
            self.rest(orders.rest);
        }
        self.reap(true)?;
        self.report()?;
        Ok(Batch::Done)
    }

    pub(super) fn rest(&mut self, longest: u64) {
        if longest > 0 {
            std::thread::sleep(Duration::from_micros(self.random.below(longest)));
        }
    }

    fn report(&mut self) -> anyhow::Result<()> {
        let own = [(std::process::id(), self.holds())];
        let report: Report =
            own.into_iter().chain(self.children.iter().map(|c| (c.pid, c.holds.clone()))).collect();
        let mut line = serde_json::to_string(&report)?;
        line.push('\n');
        self.control.get_mut().write_all(line.as_bytes()).context("reporting to the conductor")
    }

    /// Writes down what a step has come to.
    pub(super) fn note(&self, began: u64, entries: Vec<Entry>) -> anyhow::Result<()> {
        self.journal.note(began, entries)
    }

    /// Writes down what is held of one buffer after a step, and forgets it if that is nothing.
    pub(super) fn note_hold(&mut self, began: u64, ino: u64) -> anyhow::Result<()> {
        self.note_with_hold(began, ino, None)
    }

    /// And what else the step came to, as one: nothing that is judged may fall between the two.
    pub(super) fn note_with_hold(
        &mut self,
        began: u64,
        ino: u64,
        what: impl Into<Option<Entry>>,
    ) -> anyhow::Result<()> {
        let hold = self.bufs.get(&ino).map(|kept| self.hold(kept)).unwrap_or_default();
        if self.bufs.get(&ino).is_some_and(Kept::is_nothing) {
            self.bufs.remove(&ino);
        }
        let holds = Entry::Holds { pid: std::process::id(), ino, hold };
        self.note(began, what.into().into_iter().chain([holds]).collect())
    }

    fn hold(&self, kept: &Kept) -> Hold {
        // On kernels where a mapping shows under another file, it is no reference to the buffer.
        let shows = kept.exporter != crate::make::DRM || self.kinds.vgem_shows;
        let maps = kept.maps.iter().filter(|_| shows);
        Hold {
            fds: kept.fds.iter().map(sys::number).collect(),
            opaths: kept.opaths.iter().map(sys::number).collect(),
            maps: maps.map(|(region, offset)| (region.start, region.start + region.len, *offset)).collect(),
            handle: kept.handle.is_some(),
        }
    }

    pub(super) fn holds(&self) -> Holds {
        let holds = self.bufs.iter().map(|(&ino, kept)| (ino, self.hold(kept)));
        holds.filter(|(_, hold)| !hold.is_nothing()).collect()
    }

    /// Ends, or is killed in the middle of a step.
    fn leave(&mut self) -> anyhow::Result<()> {
        self.end_children()?;
        self.note(now(), vec![Entry::Leaving { pid: std::process::id() }])?;
        if self.random.one_in(2) {
            kill_process(rustix::process::getpid(), Signal::KILL).context("killing myself")?;
        }
        Ok(())
    }
}

pub(super) fn raw(pid: u32) -> anyhow::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no process id"))
}
