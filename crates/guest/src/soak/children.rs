//! A player's children, which hold copies of what it holds.
//!
//! They are of three kinds: brief ones end within milliseconds, busy ones play on with what they inherited, sleepers only
//! keep it until they are killed. All end before their parent does, so that whose GEM handles a DRM device has is always
//! known: those of the process that opened it.

use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Signal, WaitOptions, kill_process, waitpid};

use super::journal::{Entry, Hold, Holds, now};
use super::player::{Player, raw};
use super::random::Random;
use super::steps;
use crate::sys;

/// A child.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: u32,
    /// It ends by itself.
    ends: bool,
    pub(super) holds: Holds,
}

impl Player {
    /// What a forked child holds: all but the handles, which are the device's and counted once.
    fn inherited(&self) -> Holds {
        let without = |(ino, hold)| (ino, Hold { handle: false, ..hold });
        self.holds().into_iter().map(without).filter(|(_, hold)| !hold.is_nothing()).collect()
    }

    /// Forks a child that ends within milliseconds.
    pub(super) fn brief_child(&mut self) -> anyhow::Result<()> {
        let (began, rest) = (now(), Duration::from_micros(self.random.below(8000)));
        let pid = sys::fork(|| {
            std::thread::sleep(rest);
            0
        })?;
        let holds = self.inherited();
        self.note(began, vec![Entry::Is { pid, holds: holds.clone() }, Entry::Leaving { pid }])?;
        self.children.push(Child { pid, ends: true, holds });
        Ok(())
    }

    /// Forks a child that plays on for a while.
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
        self.children.push(Child { pid, ends: true, holds: Holds::new() });
        Ok(())
    }

    /// In a busy child: plays on with what it inherited.
    fn be_busy(&mut self, began: u64, seed: u64) -> anyhow::Result<()> {
        let pid = std::process::id();
        self.children.clear();
        for kept in self.bufs.values_mut() {
            // Dropping it would close the parent's handle: the device is the same one.
            std::mem::forget(kept.handle.take());
            kept.maker = false;
        }
        self.bufs.retain(|_, kept| !kept.is_nothing());
        self.note(began, vec![Entry::Is { pid, holds: self.holds() }])?;
        self.random = Random::new(seed);
        for _ in 0..self.random.below(30) {
            steps::heirs(self)?;
            self.rest(2000);
        }
        self.note(now(), vec![Entry::Leaving { pid }])
    }

    /// Forks a child that keeps what it inherited, or kills one.
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
        self.children.push(Child { pid, ends: false, holds });
        Ok(())
    }

    fn kill(&mut self, child: &Child) -> anyhow::Result<()> {
        let (began, pid) = (now(), child.pid);
        kill_process(raw(pid)?, Signal::KILL).context("killing a sleeper")?;
        waitpid(Some(raw(pid)?), WaitOptions::empty()).context("reaping a sleeper")?;
        self.note(began, vec![Entry::Leaving { pid }, Entry::Gone { pid }])
    }

    /// Reaps children that ended; waits for those that will, if so told.
    pub(super) fn reap(&mut self, wait: bool) -> anyhow::Result<()> {
        let options = if wait { WaitOptions::empty() } else { WaitOptions::NOHANG };
        let (ending, mut rest): (Vec<Child>, Vec<Child>) =
            self.children.drain(..).partition(|child| child.ends);
        for child in ending {
            let began = now();
            match waitpid(Some(raw(child.pid)?), options).context("reaping a child")? {
                None => rest.push(child),
                Some((_, status)) => {
                    ensure!(status.exit_status() == Some(0), "child {} ended with {status:?}", child.pid);
                    self.note(began, vec![Entry::Gone { pid: child.pid }])?;
                }
            }
        }
        self.children = rest;
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
