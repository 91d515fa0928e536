//! A player, a process of the random world: it takes the steps that its seed decides, records each,
//! and reports what it holds.
//!
//! It knows what it holds because it took every step itself. Nothing here is read from `/proc`.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Context;
use dmabuf::{DmaBuf, DrmDevice, GemHandle};
use rustix::process::Pid;
use rustix::thread::set_name;
use serde::{Deserialize, Serialize};

use super::journal::{Entry, Hold, Holds, Journal};
use super::names::{MEMFD, memfd_key};
use super::random::Random;
use crate::sys::{self, Region};

/// What a player is to do until it reports.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Orders {
    /// The seed, which decides every step.
    pub(super) seed: u64,
    /// The number of steps.
    pub(super) steps: u32,
    /// The longest sleep between two steps, in microseconds.
    pub(super) sleep: u64,
    /// Whether it may send buffers.
    pub(super) mail: bool,
    /// Whether it first receives everything that was sent to it.
    pub(super) drain: bool,
}

/// What the kernel has, probed once.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Exporters {
    pub(super) heap: bool,
    pub(super) udmabuf: bool,
    pub(super) vgem: bool,
    /// A mapping of a vgem buffer shows the buffer in `/proc`, so it counts as a reference.
    pub(super) vgem_shows: bool,
}

/// A socket pair: every player can send to it, and one player receives from it.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) to: OwnedFd,
    pub(super) from: OwnedFd,
}

/// A child.
#[derive(Debug)]
pub(super) struct PlayerChild {
    pub(super) pid: u32,
    /// Whether it ends by itself.
    pub(super) ends: bool,
    pub(super) holds: Holds,
}

/// An fd of a buffer.
#[derive(Debug)]
pub(super) enum BufFd {
    /// Of a dma-buf.
    Buf(DmaBuf),
    /// Of a memfd.
    File(OwnedFd),
}

impl BufFd {
    /// The fd of a buffer with this exporter.
    pub(super) fn of(exporter: &str, fd: OwnedFd) -> anyhow::Result<BufFd> {
        Ok(if exporter == MEMFD { BufFd::File(fd) } else { BufFd::Buf(DmaBuf::try_from_fd(fd)?) })
    }

    /// The dma-buf, if it is one.
    pub(super) fn buf(&self) -> Option<&DmaBuf> {
        match self {
            BufFd::Buf(buf) => Some(buf),
            BufFd::File(_) => None,
        }
    }

    /// A duplicate of the fd.
    pub(super) fn try_clone(&self) -> anyhow::Result<BufFd> {
        Ok(match self {
            BufFd::Buf(buf) => BufFd::Buf(buf.try_clone()?),
            BufFd::File(file) => BufFd::File(file.try_clone()?),
        })
    }

    /// The buffer's key in the journal, and its size.
    pub(super) fn identity(&self) -> anyhow::Result<(u64, u64)> {
        Ok(match self {
            BufFd::Buf(buf) => buf.identity().map(|identity| (identity.ino, identity.size))?,
            BufFd::File(file) => {
                let stat = rustix::fs::fstat(file).context("asking for an inode")?;
                (memfd_key(stat.st_ino), stat.st_size.unsigned_abs())
            }
        })
    }
}

impl AsFd for BufFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            BufFd::Buf(buf) => buf.as_fd(),
            BufFd::File(file) => file.as_fd(),
        }
    }
}

/// What a player holds of one buffer.
#[derive(Debug)]
pub(super) struct PlayerBuf {
    pub(super) size: u64,
    pub(super) exporter: String,
    /// The player made the buffer. Only the maker renames a buffer, so the order of its names is
    /// the order of the maker's steps.
    pub(super) maker: bool,
    pub(super) fds: Vec<BufFd>,
    pub(super) opaths: Vec<OwnedFd>,
    /// Each mapping, with its offset in the buffer.
    pub(super) maps: Vec<(Region, u64)>,
    pub(super) handle: Option<GemHandle<'static>>,
}

impl PlayerBuf {
    pub(super) fn is_nothing(&self) -> bool {
        self.fds.is_empty() && self.opaths.is_empty() && self.maps.is_empty() && self.handle.is_none()
    }
}

/// A player.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) seat: usize,
    pub(super) exporters: Exporters,
    pub(super) inboxes: Vec<Inbox>,
    pub(super) bufs: BTreeMap<u64, PlayerBuf>,
    pub(super) random: Random,
    /// Whether it may send.
    pub(super) mail: bool,
    /// Opened once and never closed, so that GEM handles of it may be kept.
    pub(super) device: Option<&'static DrmDevice>,
    pub(super) control: BufReader<UnixStream>,
    journal: Journal,
    pub(super) children: Vec<PlayerChild>,
}

/// How a batch ended for a player.
#[derive(Clone, Copy, Debug)]
pub(super) enum BatchEnd {
    Done,
    /// The process must end.
    Left,
}

impl Player {
    /// A player that holds nothing.
    pub(super) fn new(
        seat: usize,
        exporters: Exporters,
        control: UnixStream,
        inboxes: Vec<Inbox>,
    ) -> anyhow::Result<Player> {
        set_name(&std::ffi::CString::new(format!("player{seat}"))?).context("naming")?;
        Ok(Player {
            seat,
            exporters,
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

    pub(super) fn sleep(&mut self, longest: u64) {
        if longest > 0 {
            std::thread::sleep(Duration::from_micros(self.random.below(longest)));
        }
    }

    /// Records what a step did.
    pub(super) fn note(&self, began: u64, entries: Vec<Entry>) -> anyhow::Result<()> {
        self.journal.note(began, entries)
    }

    /// Records what the process holds of one buffer after a step, and forgets the buffer if that is
    /// nothing.
    pub(super) fn note_hold(&mut self, began: u64, ino: u64) -> anyhow::Result<()> {
        self.note_with_hold(began, ino, None)
    }

    /// As [`Player::note_hold`], after a step in which the process moved a reference within itself.
    /// `on_the_way` has every place that it had in between.
    pub(super) fn note_moved(&mut self, began: u64, ino: u64, on_the_way: Hold) -> anyhow::Result<()> {
        let pid = std::process::id();
        self.note_with_hold(began, ino, Entry::Moved { pid, ino, way: on_the_way })
    }

    /// As [`Player::note_hold`], with another entry in the same write, so that no judged moment is
    /// between the two.
    pub(super) fn note_with_hold(
        &mut self,
        began: u64,
        ino: u64,
        what: impl Into<Option<Entry>>,
    ) -> anyhow::Result<()> {
        let holds = self.final_hold(ino);
        self.note(began, what.into().into_iter().chain([holds]).collect())
    }

    /// What the process holds of one buffer now. The buffer is forgotten if that is nothing.
    fn final_hold(&mut self, ino: u64) -> Entry {
        let hold = self.bufs.get(&ino).map(|kept| self.hold(kept)).unwrap_or_default();
        if self.bufs.get(&ino).is_some_and(PlayerBuf::is_nothing) {
            self.bufs.remove(&ino);
        }
        Entry::Holds { pid: std::process::id(), ino, hold }
    }

    fn hold(&self, kept: &PlayerBuf) -> Hold {
        // On kernels where a mapping shows another file, it is no reference to the buffer.
        let shows = kept.exporter != crate::make::DRM || self.exporters.vgem_shows;
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
}

pub(super) fn raw(pid: u32) -> anyhow::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no process id"))
}
