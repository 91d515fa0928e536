//! The benchmark: one world, and every way to ask about it side by side.
//!
//! The world is the one of the design's speed table: 50 processes, 300 system-heap buffers, each with one holder by fd
//! and three that hold it by fd and mapping, and 1000 unrelated VMAs per process: first anonymous ones, as a heap and
//! stacks are; then, in a second world, half of them of files, as libraries are. The ways are run in turn, several times
//! over, so that whatever disturbs the machine disturbs all of them; medians are printed.
//!
//! Limits: an emulated machine's times are good for ratios only. A way whose program the initramfs lacks is said to be
//! missing.

use std::cell::RefCell;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use dmabuf::{DmaBuf, Heap, share};

use crate::actor::Actor;
use crate::answer::{Answer, LSBUF};
use crate::sys::{self, Usage};

const PROCESSES: usize = 50;
const BUFFERS: usize = 300;
const SHARERS: usize = 3;
const VMAS: usize = 1000;
const SIZE: u64 = 16 << 10;
/// Odd, so that there is a median.
const ROUNDS: usize = 15;

/// One way to ask.
struct Way {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

const WAYS: &[Way] = &[
    Way { name: "lsbuf --json", program: LSBUF, arguments: &["--json"] },
    Way {
        name: "lsbuf --json, without bufinfo",
        program: LSBUF,
        arguments: &["--json", "--source", "procfs"],
    },
    Way {
        name: "lsbuf --json, map_files",
        program: LSBUF,
        arguments: &["--json", "--source", "map_files,bufinfo"],
    },
    Way { name: "lsof", program: "/bin/lsof", arguments: &["-n", "-P", "-w"] },
    Way { name: "lsbuf --version (process start)", program: LSBUF, arguments: &["--version"] },
];

/// Builds each world, times every way in it, and counts lsbuf's system calls where strace is at hand.
///
/// # Errors
///
/// A world cannot be made, or a way fails.
pub fn run() -> anyhow::Result<ExitCode> {
    for (files, title) in [(0, "all anonymous"), (VMAS / 2, "half of them of files")] {
        let mut actors = world(files)?;
        for actor in &mut actors {
            actor.paused()?;
        }
        println!("world: {PROCESSES} processes with {VMAS} unrelated VMAs each, {title}");
        describe(&actors)?;
        race()?;
        if files == 0 {
            system_calls()?;
        }
        println!();
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what lsbuf sees, and makes sure that it is what was made.
fn describe(actors: &[Actor]) -> anyhow::Result<()> {
    let fds: usize = actors.iter().map(fds_of).sum::<std::io::Result<_>>()?;
    let answer = Answer::ask(&[])?;
    let sum =
        |key: &str| -> u64 { answer.list("buffers").iter().filter_map(|b| b["refs"][key].as_u64()).sum() };
    let (fd, map) = (sum("fd"), sum("map"));
    println!("       {} buffers, {fd} fd and {map} map references, {fds} fds", answer.0["totals"]["buffers"]);
    ensure!(
        (fd, map) == ((BUFFERS * (SHARERS + 1)) as u64, (BUFFERS * SHARERS) as u64),
        "lsbuf does not see the world that was made"
    );
    Ok(())
}

/// Times every way, in turn.
fn race() -> anyhow::Result<()> {
    println!(
        "       {ROUNDS} rounds, medians; peak memory is at most this: it is not below the benchmark's own\n"
    );
    println!("{:<34}{:>10}{:>10}{:>12}{:>12}", "way", "wall ms", "user ms", "kernel ms", "peak KiB");
    let ways: Vec<&Way> = WAYS.iter().filter(|way| at_hand(way.program)).collect();
    let mut runs: Vec<Vec<Usage>> = ways.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (way, runs) in ways.iter().zip(&mut runs) {
            runs.push(measure(way)?);
        }
    }
    for (way, runs) in ways.iter().zip(&runs) {
        let median = |figure: fn(&Usage) -> Duration| {
            let mut figures: Vec<f64> = runs.iter().map(|usage| figure(usage).as_secs_f64() * 1e3).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let (wall, user, kernel) = (median(|u| u.wall), median(|u| u.user), median(|u| u.kernel));
        let peak = runs.iter().map(|u| u.peak_kib).max().unwrap_or(0);
        println!("{:<34}{wall:>10.1}{user:>10.1}{kernel:>12.1}{peak:>12}", way.name);
    }
    for way in WAYS.iter().filter(|way| !at_hand(way.program)) {
        println!("{:<34}{:>10}", way.name, "missing");
    }
    Ok(())
}

fn fds_of(actor: &Actor) -> std::io::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", actor.pid))?.count())
}

fn at_hand(program: &str) -> bool {
    std::fs::exists(program).unwrap_or(false)
}

fn measure(way: &Way) -> anyhow::Result<Usage> {
    let mut command = Command::new(way.program);
    command.args(way.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sys::measure(&mut command).with_context(|| format!("running {}", way.name))
}

/// What lsbuf asks of the kernel in this world, by system call.
fn system_calls() -> anyhow::Result<()> {
    const STRACE: &str = "/bin/strace";
    if !at_hand(STRACE) {
        println!("\nsystem calls: no strace at hand");
        return Ok(());
    }
    let table = "/tmp/strace";
    let status = Command::new(STRACE)
        .args(["-c", "-S", "calls", "-U", "calls,errors,name", "-o", table, LSBUF, "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("running strace")?;
    ensure!(status.success(), "strace: {status}");
    println!("\nsystem calls of lsbuf --json (strace -c)\n{}", std::fs::read_to_string(table)?);
    Ok(())
}

/// Process p makes every buffer b with b % PROCESSES = p, and sends it to the next three.
fn world(files: usize) -> anyhow::Result<Vec<Actor>> {
    let mut sockets = Vec::new();
    for _ in 0..PROCESSES {
        sockets.push(UnixStream::pair()?);
    }
    // Each actor has its own copy of these after the fork, and lets go of it.
    let sockets = RefCell::new(sockets);
    let sockets = &sockets;
    (0..PROCESSES)
        .map(|own| {
            Actor::start(format!("bench{own}").as_bytes(), move |stage| {
                sys::map_unrelated(VMAS, files)?;
                let heap = Heap::open("system")?;
                let mut bufs: Vec<DmaBuf> = Vec::new();
                for _ in (own..BUFFERS).step_by(PROCESSES) {
                    let buf = heap.allocate(SIZE)?;
                    for next in 1..=SHARERS {
                        let (_, to) = &sockets.borrow()[(own + next) % PROCESSES];
                        share::send(to, &[&buf], b"b")?;
                    }
                    bufs.push(buf);
                }
                for _ in 0..BUFFERS / PROCESSES * SHARERS {
                    let buf = share::receive(&sockets.borrow()[own].0, &mut [0])?.bufs.remove(0);
                    sys::map(&buf, 0, usize::try_from(SIZE)?)?;
                    bufs.push(buf);
                }
                sockets.borrow_mut().clear();
                stage.pause(&[])
            })
        })
        .collect()
}
