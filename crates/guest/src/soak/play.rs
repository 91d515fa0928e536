//! A player's loop: it carries out orders step by step, reports, and ends.

use std::io::{BufRead, Write};

use anyhow::Context;
use rustix::process::{Signal, kill_process};

use super::journal::{Entry, PlayerReport, now};
use super::player::{BatchEnd, Orders, Player};
use super::random::Random;
use super::steps;

impl Player {
    /// Carries out orders until there are no more, or a step ends the process.
    pub(super) fn play(&mut self) -> anyhow::Result<()> {
        loop {
            let mut line = String::new();
            if self.control.read_line(&mut line).context("listening to the conductor")? == 0 {
                return Ok(());
            }
            let orders: Orders = serde_json::from_str(&line).context("understanding the conductor")?;
            self.random = Random::new(orders.seed);
            if let BatchEnd::Left = self.follow(orders)? {
                return Ok(());
            }
        }
    }

    pub(super) fn follow(&mut self, mut orders: Orders) -> anyhow::Result<BatchEnd> {
        self.mail = orders.mail;
        if orders.drain {
            while steps::receive(self)? {}
        }
        while orders.steps > 0 {
            orders.steps -= 1;
            if self.random.one_in(250) {
                return self.exec(orders).map(|()| BatchEnd::Left);
            }
            if self.random.one_in(500) {
                return self.leave().map(|()| BatchEnd::Left);
            }
            steps::any(self)?;
            self.sleep(orders.sleep);
        }
        self.reap(true)?;
        self.report()?;
        Ok(BatchEnd::Done)
    }

    fn report(&mut self) -> anyhow::Result<()> {
        let own = [(std::process::id(), self.holds())];
        let report: PlayerReport =
            own.into_iter().chain(self.children.iter().map(|c| (c.pid, c.holds.clone()))).collect();
        let mut line = serde_json::to_string(&report)?;
        line.push('\n');
        self.control.get_mut().write_all(line.as_bytes()).context("reporting to the conductor")
    }

    /// Ends, or kills itself.
    fn leave(&mut self) -> anyhow::Result<()> {
        self.end_children()?;
        self.note(now(), vec![Entry::Leaving { pid: std::process::id() }])?;
        if self.random.one_in(2) {
            kill_process(rustix::process::getpid(), Signal::KILL).context("killing myself")?;
        }
        Ok(())
    }
}
