//! A player's children, which hold copies of what the player holds.
//!
//! A brief child ends within milliseconds. A busy child takes steps with what it inherited. A
//! sleeper only keeps it until it is killed. A relay is a chain of processes: each forks its
//! successor and ends, and passes one buffer on. An exec chain is a child that executes its program
//! again and again, with an fd of one buffer.
//!
//! All children end before their parent does. So the owner of a DRM device's GEM handles is always
//! known: it is the process that opened the device.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait, waitpid};

use super::journal::{Entry, Hold, Holds, Journal, now};
use super::names::CHAIN_MODE;
use super::player::{Player, PlayerBuf, PlayerChild, raw};
use super::random::Random;
use super::steps;
use crate::sys::{self, task};

impl Player {
    /// What a forked child holds: everything but the GEM handles. They belong to the device, and
    /// are counted once.
    fn inherited(&self) -> Holds {
        let without = |(ino, hold)| (ino, Hold { handle: false, ..hold });
        self.holds().into_iter().map(without).filter(|(_, hold)| !hold.is_nothing()).collect()
    }

    /// Forks a child that ends within milliseconds.
    pub(super) fn brief_child(&mut self) -> anyhow::Result<()> {
        let (began, life) = (now(), Duration::from_micros(self.random.below(8000)));
        let pid = sys::fork(|| {
            std::thread::sleep(life);
            0
        })?;
        let holds = self.inherited();
        self.note(began, vec![Entry::Is { pid, holds: holds.clone() }, Entry::Leaving { pid }])?;
        self.children.push(PlayerChild { pid, ends: true, holds });
        Ok(())
    }

    /// Forks a child that takes steps for a while.
    pub(super) fn busy_child(&mut self) -> anyhow::Result<()> {
        if self.children.len() >= 4 {
            return self.reap(false);
        }
        let (began, seed) = (now(), self.random.next());
        let pid = sys::fork(|| match self.be_busy(began, seed) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("child of player {}: {error:#}", self.seat);
                1
            }
        })?;
        self.children.push(PlayerChild { pid, ends: true, holds: Holds::new() });
        Ok(())
    }

    /// Takes steps with what was inherited, in a busy child.
    fn be_busy(&mut self, began: u64, seed: u64) -> anyhow::Result<()> {
        let pid = std::process::id();
        self.be_child(began)?;
        self.random = Random::new(seed);
        for _ in 0..self.random.below(30) {
            steps::heirs(self)?;
            self.sleep(2000);
        }
        self.note(now(), vec![Entry::Leaving { pid }])
    }

    /// Takes over what was inherited, in a child.
    fn be_child(&mut self, began: u64) -> anyhow::Result<()> {
        self.children.clear();
        for kept in self.bufs.values_mut() {
            // Forgotten, because dropping it would close the parent's handle of the same device.
            std::mem::forget(kept.handle.take());
            kept.maker = false;
        }
        self.bufs.retain(|_, kept| !kept.is_nothing());
        self.note(began, vec![Entry::Is { pid: std::process::id(), holds: self.holds() }])
    }

    /// Drops all other buffers, in a child, and this buffer's fds or mappings unless `fds` or
    /// `maps` says to keep them.
    fn keep_only(&mut self, ino: u64, fds: bool, maps: bool) -> anyhow::Result<()> {
        let began = now();
        for (&of, kept) in &mut self.bufs {
            if of != ino || !fds {
                kept.fds.clear();
                kept.opaths.clear();
            }
            if of != ino || !maps {
                for (region, _) in kept.maps.drain(..) {
                    sys::unmap(region)?;
                }
            }
        }
        self.bufs.retain(|_, kept| !kept.is_nothing());
        self.note(began, vec![Entry::Is { pid: std::process::id(), holds: self.holds() }])
    }

    /// Passes a buffer to a chain of processes and waits until the last one ends.
    pub(super) fn relay(&mut self) -> anyhow::Result<()> {
        let Some((ino, kept, roll)) = steps::choose(self, is_given) else { return Ok(()) };
        let has_maps = !kept.maps.is_empty();
        let mut left = 2 + roll % 16;
        // Orphans of the chain become this process's children.
        set_child_subreaper(Some(getpid())).context("adopting")?;
        let began = now();
        sys::fork(|| match self.be_relay(began, ino, has_maps, left) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("relay of player {}: {error:#}", self.seat);
                1
            }
        })?;
        steps::let_go(self, ino)?;
        while left > 0 {
            let began = now();
            let (pid, status) =
                wait(WaitOptions::empty()).context("waiting")?.context("no child to wait for")?;
            let pid = pid.as_raw_nonzero().get().unsigned_abs();
            ensure!(status.exit_status() == Some(0), "child {pid} ended with {status:?}");
            self.note(began, vec![Entry::Gone { pid }])?;
            match self.children.iter().position(|child| child.pid == pid) {
                Some(at) => drop(self.children.swap_remove(at)),
                None => left -= 1,
            }
        }
        Ok(())
    }

    /// Runs the first process of a relay, and all that follow it.
    fn be_relay(&mut self, began: u64, ino: u64, has_maps: bool, members: usize) -> anyhow::Result<()> {
        self.be_child(began)?;
        let (fds, maps) = match self.random.below(3) {
            _ if !has_maps => (true, false),
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        self.keep_only(ino, fds, maps)?;
        // Some chains also move references meanwhile.
        let stirs = self.random.one_in(4);
        for _ in 1..members {
            self.sleep(3000);
            if stirs {
                steps::stir(self)?;
            }
            let began = now();
            self.note(began, vec![Entry::Leaving { pid: std::process::id() }])?;
            task::hand_over()?;
            self.note(began, vec![Entry::Is { pid: std::process::id(), holds: self.holds() }])?;
        }
        self.sleep(3000);
        self.note(now(), vec![Entry::Leaving { pid: std::process::id() }])
    }

    /// Forks a child that executes its program again and again with one fd of a buffer. Usually the
    /// player then drops the buffer.
    pub(super) fn exec_chain(&mut self) -> anyhow::Result<()> {
        if self.children.len() >= 4 {
            return self.reap(false);
        }
        let Some((ino, _, roll)) = steps::choose(self, is_given) else { return Ok(()) };
        let began = now();
        let pid = sys::fork(|| {
            let Err(error) = self.be_exec_chain(began, ino, 1 + roll % 12);
            eprintln!("child of player {}: {error:#}", self.seat);
            1
        })?;
        self.children.push(PlayerChild { pid, ends: true, holds: Holds::new() });
        if roll & 0x3_0000 > 0 { steps::let_go(self, ino) } else { Ok(()) }
    }

    fn be_exec_chain(&mut self, began: u64, ino: u64, times: usize) -> anyhow::Result<Infallible> {
        self.be_child(began)?;
        if let Some(kept) = self.bufs.get_mut(&ino) {
            kept.fds.truncate(1);
            kept.opaths.clear();
            for fd in &kept.fds {
                fcntl_setfd(fd, FdFlags::empty()).context("setting an fd's flags")?;
            }
        }
        self.keep_only(ino, true, false)?;
        Err(run_again(times))
    }

    /// Forks a child that keeps what it inherited, or kills such a child.
    pub(super) fn sleeper(&mut self) -> anyhow::Result<()> {
        let sleeper = self.children.iter().position(|child| !child.ends);
        if let Some(at) = sleeper.filter(|_| self.random.one_in(2)) {
            let child = self.children.swap_remove(at);
            return self.kill(&child);
        }
        if self.children.len() >= 4 {
            return Ok(());
        }
        let began = now();
        let pid = sys::fork(|| {
            loop {
                std::thread::park();
            }
        })?;
        let holds = self.inherited();
        self.note(began, vec![Entry::Is { pid, holds: holds.clone() }])?;
        self.children.push(PlayerChild { pid, ends: false, holds });
        Ok(())
    }

    fn kill(&mut self, child: &PlayerChild) -> anyhow::Result<()> {
        let (began, pid) = (now(), child.pid);
        kill_process(raw(pid)?, Signal::KILL).context("killing a sleeper")?;
        waitpid(Some(raw(pid)?), WaitOptions::empty()).context("reaping a sleeper")?;
        self.note(began, vec![Entry::Leaving { pid }, Entry::Gone { pid }])
    }

    /// Reaps children that have ended. If `wait` is set, it also waits for those that end by
    /// themselves.
    pub(super) fn reap(&mut self, wait: bool) -> anyhow::Result<()> {
        let options = if wait { WaitOptions::empty() } else { WaitOptions::NOHANG };
        let (ending, mut running): (Vec<PlayerChild>, Vec<PlayerChild>) =
            self.children.drain(..).partition(|child| child.ends);
        for child in ending {
            let began = now();
            match waitpid(Some(raw(child.pid)?), options).context("reaping a child")? {
                None => running.push(child),
                Some((_, status)) => {
                    ensure!(status.exit_status() == Some(0), "child {} ended with {status:?}", child.pid);
                    self.note(began, vec![Entry::Gone { pid: child.pid }])?;
                }
            }
        }
        self.children = running;
        Ok(())
    }

    /// Ends every child.
    pub(super) fn end_children(&mut self) -> anyhow::Result<()> {
        self.reap(true)?;
        for child in std::mem::take(&mut self.children) {
            self.kill(&child)?;
        }
        Ok(())
    }
}

/// Whether a buffer can be passed on: not if this process has a GEM handle of it.
fn is_given(kept: &PlayerBuf) -> bool {
    !kept.fds.is_empty() && kept.handle.is_none()
}

/// Executes this program in place of the calling one, in the mode below. Returns only if that
/// fails.
fn run_again(times: usize) -> anyhow::Error {
    let mut command = Command::new("/proc/self/exe");
    anyhow::Error::new(command.args([CHAIN_MODE, &times.to_string(), &now().to_string()]).exec())
        .context("running the program again")
}

/// Records that the program was executed at that time, executes itself `times` more times, and then
/// ends.
pub(super) fn chain(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [times, began] = arguments else { bail!("usage: {CHAIN_MODE} TIMES BEGAN") };
    let (journal, pid) = (Journal::open()?, std::process::id());
    journal.note(began.parse()?, vec![Entry::Runs { pid }])?;
    match times.parse::<usize>()?.checked_sub(1) {
        Some(left) => Err(run_again(left)),
        None => {
            journal.note(now(), vec![Entry::Leaving { pid }])?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
