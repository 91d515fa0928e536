//! Case 9: fds of client memory that are duplicated, and children that inherit them.
//!
//! Weston without a screen, with its own keyboard and shell, a terminal and two clients that draw.
//! Weston starts some of them itself. It closes the fd of each pool after it has mapped it, so
//! nothing leaks and nothing is inherited here; the answer must say so of real software. The
//! scenario `case_inherited_fds` has processes that do inherit.

use std::path::Path;

use anyhow::ensure;

use super::place::Place;
use super::plain::{self, Plain, memfds, named};
use super::raw::Rows;
use super::{Answer, Case, Pair};
use crate::cmd;

pub(super) const CASE: Case = Case {
    number: 9,
    software: "Weston",
    packages: &["weston"],
    program: || cmd::find_program("weston"),
    also: &["weston-terminal", "weston-simple-shm"],
    version: "--version",
    command: "ps --kind memfd -o +PPID,INHERITED",
    run,
};

fn run(place: &Place, case: &Case, weston: &Path) -> anyhow::Result<Answer> {
    const SOCKET: &str = "lsbuf-cases";
    let mut compositor = place.command(weston);
    compositor.args(["--backend=headless-backend.so", "--idle-time=0", &format!("--socket={SOCKET}")]);
    let mut compositor = place.start("weston", &mut compositor)?;
    let socket = place.file("run").join(SOCKET);
    compositor.wait_for("socket", |_| socket.exists().then_some(()))?;
    for (number, program) in ["weston-simple-shm", "weston-simple-shm", "weston-terminal"].iter().enumerate()
    {
        let mut client = place.command(program);
        let client = client.env("WAYLAND_DISPLAY", SOCKET).env("SHELL", "/bin/sh");
        let mut client = place.start(&format!("{program}-{number}"), client)?;
        client.wait_for("memfd", |client| Plain::has_memfd(client.pid()).then_some(()))?;
    }

    let ask = || place.lsbuf(&format!("{} --raw", case.command));
    let (plain, text) = plain::undisturbed(memfds, ask)?;
    let rows = Rows::read(&text, "PID")?;
    let parents = plain::parents()?;
    let mut pairs = Vec::new();
    for (pid, figures) in plain.figures() {
        let parent = parents.get(&pid).copied().unwrap_or_default();
        let name = named(pid);
        ensure!(!plain.share_an_fd(pid, parent), "{name} may have inherited fds: it has one of its parent's");
        pairs.push(rows.figures(pid, &figures));
        let answer = format!("parent {} inherited {}", rows.cell(pid, "PPID"), rows.cell(pid, "INHERITED"));
        pairs.push(Pair::new(name, answer, format!("parent {parent} inherited -")));
    }
    Ok(Answer { command: case.command.to_owned(), pairs })
}
