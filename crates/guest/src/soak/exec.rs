//! A player that calls exec: what it passes to the new program, and how that one continues.
//!
//! Mappings and GEM handles do not survive exec. Each fd survives or not by chance. What the player
//! must still know is passed as an argument.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, bail};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use serde::{Deserialize, Serialize};

use super::journal::{Entry, now};
use super::names::PLAYER_MODE;
use super::player::{BatchEnd, BufFd, Exporters, Inbox, Orders, Player, PlayerBuf};
use super::random::Random;
use crate::sys;

/// What survives exec.
#[derive(Debug, Deserialize, Serialize)]
struct Baton {
    seat: usize,
    exporters: Exporters,
    control: u32,
    inboxes: Vec<(u32, u32)>,
    bufs: Vec<BatonBuf>,
    random: Random,
    orders: Orders,
    began: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct BatonBuf {
    ino: u64,
    size: u64,
    exporter: String,
    maker: bool,
    fds: Vec<u32>,
    opaths: Vec<u32>,
}

impl Player {
    /// Continues after exec.
    pub(super) fn resume(baton: &str) -> anyhow::Result<()> {
        let baton: Baton = serde_json::from_str(baton).context("understanding the baton")?;
        let take = |&number: &u32| -> anyhow::Result<OwnedFd> {
            let fd = sys::inherited(number)?;
            keep_over_exec(&fd, false)?;
            Ok(fd)
        };
        let control = UnixStream::from(take(&baton.control)?);
        let inboxes = baton
            .inboxes
            .iter()
            .map(|(to, from)| Ok(Inbox { to: take(to)?, from: take(from)? }))
            .collect::<anyhow::Result<_>>()?;
        let mut player = Player::new(baton.seat, baton.exporters, control, inboxes)?;
        player.random = baton.random;
        for buf in baton.bufs {
            let fds = buf.fds.iter().map(|fd| BufFd::of(&buf.exporter, take(fd)?));
            let fds = fds.collect::<anyhow::Result<_>>()?;
            let kept = PlayerBuf {
                size: buf.size,
                exporter: buf.exporter,
                maker: buf.maker,
                fds,
                opaths: buf.opaths.iter().map(take).collect::<anyhow::Result<_>>()?,
                maps: Vec::new(),
                handle: None,
            };
            player.bufs.insert(buf.ino, kept);
        }
        let is = Entry::Is { pid: std::process::id(), holds: player.holds() };
        player.note(baton.began, vec![is])?;
        match player.follow(baton.orders)? {
            BatchEnd::Done => player.play(),
            BatchEnd::Left => Ok(()),
        }
    }

    /// Executes this program again in this process. Some fds survive; mappings, GEM handles and the
    /// other fds do not.
    pub(super) fn exec(&mut self, orders: Orders) -> anyhow::Result<()> {
        self.end_children()?;
        let began = now();
        let mut bufs = Vec::new();
        for (&ino, kept) in &self.bufs {
            let (mut fds, mut opaths) = (Vec::new(), Vec::new());
            for fd in &kept.fds {
                if !self.random.one_in(3) {
                    keep_over_exec(fd, true)?;
                    fds.push(sys::number(fd));
                }
            }
            for fd in &kept.opaths {
                if !self.random.one_in(3) {
                    keep_over_exec(fd, true)?;
                    opaths.push(sys::number(fd));
                }
            }
            let (size, exporter, maker) = (kept.size, kept.exporter.clone(), kept.maker);
            if !fds.is_empty() || !opaths.is_empty() {
                bufs.push(BatonBuf { ino, size, exporter, maker, fds, opaths });
            }
        }
        keep_over_exec(self.control.get_ref(), true)?;
        for inbox in &self.inboxes {
            keep_over_exec(&inbox.to, true)?;
            keep_over_exec(&inbox.from, true)?;
        }
        let baton = Baton {
            seat: self.seat,
            exporters: self.exporters,
            control: sys::number(self.control.get_ref()),
            inboxes: self.inboxes.iter().map(|i| (sys::number(&i.to), sys::number(&i.from))).collect(),
            bufs,
            random: self.random.clone(),
            orders,
            began,
        };
        let error =
            Command::new("/proc/self/exe").arg(PLAYER_MODE).arg(serde_json::to_string(&baton)?).exec();
        bail!("exec: {error}")
    }
}

fn keep_over_exec(fd: impl AsFd, keep: bool) -> anyhow::Result<()> {
    let flags = fcntl_getfd(&fd).context("reading an fd's flags")?;
    let wanted = if keep { flags - FdFlags::CLOEXEC } else { flags | FdFlags::CLOEXEC };
    fcntl_setfd(&fd, wanted).context("setting an fd's flags")
}
