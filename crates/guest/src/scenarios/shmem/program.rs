//! A program that runs from a memfd and has unmapped it. The kernel keeps the file while the
//! process lives, and neither an fd nor a mapping shows it.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::kit::{Shm, ask, figures};
use crate::actor::{Actor, Held};
use crate::make;
use crate::programs::LEAVE;
use crate::scenario::Ctx;
use crate::sys;

const NAME: &str = "program";

/// How long to wait until a program has unmapped its file.
const LIMIT: Duration = Duration::from_secs(20);

/// A running program. Dropping this kills it.
struct RunningProgram(Child);

impl Drop for RunningProgram {
    fn drop(&mut self) {
        // It may have ended already. Afterwards it is gone in any case.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl RunningProgram {
    /// Runs this binary from the memfd, and waits until it has unmapped the memfd.
    fn run(memfd: &impl AsFd) -> anyhow::Result<RunningProgram> {
        let child = Command::new(format!("/proc/self/fd/{}", sys::number(memfd)))
            .arg(LEAVE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut program = RunningProgram(child.context("running from a memfd")?);
        let mut said = String::new();
        BufReader::new(program.0.stdout.take().context("no pipe")?).read_line(&mut said)?;
        ensure!(said == "leaving\n", "the program said {said:?}");
        let end = Instant::now() + LIMIT;
        while fs::read_to_string(format!("/proc/{}/maps", program.0.id()))?.contains(NAME) {
            ensure!(Instant::now() < end, "the program still has its file mapped");
            sleep(Duration::from_millis(2));
        }
        let exe = fs::read_link(format!("/proc/{}/exe", program.0.id()))?;
        if !exe.to_string_lossy().contains(NAME) {
            bail!("the program runs from {}", exe.display());
        }
        Ok(program)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

/// A memfd with a copy of this binary.
fn copy_of_this() -> anyhow::Result<File> {
    let mut memfd = File::from(make::memfd(NAME.as_bytes(), 0, 0)?);
    io::copy(&mut File::open("/proc/self/exe")?, &mut memfd).context("copying a program")?;
    Ok(memfd)
}

fn pids(row: &Value) -> String {
    let pids: Vec<u64> =
        row["holders"].as_array().into_iter().flatten().filter_map(|holder| holder["pid"].as_u64()).collect();
    format!("{pids:?}")
}

pub(super) fn alone(ctx: &mut Ctx) -> anyhow::Result<()> {
    let memfd = copy_of_this()?;
    let program = RunningProgram::run(&memfd)?;
    let once = Held::by_file(&memfd)?;
    drop(memfd);
    let answer = ask(ctx, "memfd")?;
    let row = Shm::unheld("memfd", NAME, &once).find(&answer)?;
    let found = format!("size {} charged {} exe {}", row["size"], row["charged"], row["refs"]["exe"]);
    ctx.check_eq("the memfd", format!("size {} charged {} exe 1", once.size, once.charged), found)?;
    ctx.check_eq("holders", format!("[{}]", program.pid()), pids(row))?;
    ctx.check_eq("held in total", once.charged, &answer.0["totals"]["held"])?;
    let freed = if ctx.way.is_bpf() { once.charged.to_string() } else { "null".into() };
    let expected = format!("rss {0} pss {0} uss {freed} fds 0 maps 0", once.charged);
    ctx.check_eq("the process", expected, figures(&answer, program.pid())?)
}

pub(super) fn reopened(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, to) = UnixStream::pair()?;
    // Started first, so that it inherits no fd of the memfd.
    let mut reader = Actor::start(b"reader", |stage| {
        let fd = sys::receive_any(&to)?.pop().context("no fd")?;
        // A file that runs cannot be opened for writing.
        let again = File::open(format!("/proc/self/fd/{}", sys::number(&fd))).context("opening again")?;
        drop(fd);
        stage.pause(&[Held::by_file(&again)?])
    })?;
    let memfd = copy_of_this()?;
    let program = RunningProgram::run(&memfd)?;
    sys::send_any(&from, &[memfd.as_fd()])?;
    drop(memfd);
    let held = reader.paused_with_one()?;
    let (answer, by_bpf) = (ask(ctx, "memfd")?, ctx.way.is_bpf());
    let row = Shm::unheld("memfd", NAME, &held).find(&answer)?;
    let found = format!(
        "count {} = {} fd + {} map + {} running + {} kernel, estimate {}",
        row["count"],
        row["refs"]["fd"],
        row["refs"]["map"],
        row["refs"]["exe"],
        row["refs"]["kernel"],
        row["estimate"],
    );
    let (count, kernel) = if by_bpf { ("2", "0") } else { ("null", "null") };
    let expected = format!("count {count} = 1 fd + 0 map + 1 running + {kernel} kernel, estimate false");
    ctx.check_eq("the account", expected, found)?;
    let mut both = [program.pid(), reader.pid];
    both.sort_unstable();
    ctx.check_eq("holders", format!("{both:?}"), pids(row))?;
    for (what, pid) in [("the program", program.pid()), ("the reader", reader.pid)] {
        let fds = usize::from(pid == reader.pid);
        let expected = format!("rss {0} pss {1} uss 0 fds {fds} maps 0", held.charged, held.charged / 2);
        ctx.check_eq(what, expected, figures(&answer, pid)?)?;
    }
    Ok(())
}
