//! System calls that sleep while they hold files: fork, exec and sendmsg.
//!
//! A thread of an actor makes each call, and lsbuf runs only after the thread has been seen asleep
//! in it. The actor's first thread keeps its fd, or closes it meanwhile. After that nothing that a
//! list shows holds the buffer.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::claims::Fact;
use super::sort::Sort;
use crate::actor::{Actor, Held, Stage};
use crate::answer::Answer;
use crate::make;
use crate::processes;
use crate::programs::WAIT;
use crate::scenario::Ctx;
use crate::sys;
use crate::sys::fault::MissingPage;

/// How often lsbuf runs while a call sleeps.
const TIMES: usize = 5;

/// How long to wait for a call to sleep.
const LIMIT: Duration = Duration::from_secs(10);

/// The name of the buffer, if its kind can have one.
const NAME: &str = "asleep";

/// Runs `call` in a thread, and pauses when the thread sleeps in the system call `number`. `beside`
/// runs before the pause, `wake` after it.
fn pause_beside<T: Send>(
    stage: &mut Stage,
    number: libc::c_long,
    call: impl Send + FnOnce() -> T,
    beside: impl FnOnce() -> Vec<Held>,
    wake: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let caller = scope.spawn(move || {
            let told = tell.send(rustix::thread::gettid().as_raw_nonzero().get());
            told.context("the receiver is gone").map(|()| call())
        });
        let paused = told
            .recv()
            .context("a thread has ended")
            .and_then(|tid| wait_asleep(tid, number))
            .and_then(|()| stage.pause(&beside()));
        // In any case, the thread must end before this function can.
        let woken = wake();
        let done = caller.join().map_err(|_| anyhow::anyhow!("a thread died"))?;
        paused.and(woken).and(done)
    })
}

/// Waits until a thread of this process sleeps in the system call `number`.
fn wait_asleep(tid: i32, number: libc::c_long) -> anyhow::Result<()> {
    let task = format!("/proc/self/task/{tid}");
    let (end, mut seen) = (Instant::now() + LIMIT, String::new());
    while Instant::now() < end {
        let stat = fs::read_to_string(format!("{task}/stat"))?;
        let call = fs::read_to_string(format!("{task}/syscall"))?;
        let asleep =
            stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S ") || rest.starts_with(" D "));
        if asleep && call.split(' ').next() == Some(&number.to_string()) {
            return Ok(());
        }
        seen = format!("{stat}, system call {call}");
        thread::sleep(Duration::from_millis(1));
    }
    bail!("a thread does not sleep in system call {number}: {seen}")
}

/// Forks into a page that is missing, pauses while the fork sleeps, fills the page, and pauses with
/// the child. If `closes` is set, the parent closes its fd while the fork sleeps.
fn play_fork(stage: &mut Stage, sort: Sort, closes: bool) -> anyhow::Result<()> {
    let (fd, held) = sort.make(NAME)?;
    let mut fd = Some(fd);
    let page = MissingPage::new()?;
    let beside = || {
        if closes {
            fd = None;
        }
        vec![held.clone()]
    };
    let child = pause_beside(stage, libc::SYS_clone3, || page.fork(), beside, || page.fill())??;
    let copy = held.clone().of(child);
    stage.pause(&if closes { vec![copy] } else { vec![held, copy] })?;
    drop(fd);
    processes::end_child(child)
}

pub(super) fn fork(ctx: &mut Ctx) -> anyhow::Result<()> {
    for sort in Sort::BOTH {
        let mut actor = Actor::start(b"forker", |stage| play_fork(stage, sort, false))?;
        let held = actor.paused_with_one()?;
        let fact = Fact { kind: sort.kind(), ino: held.ino, references: 2, holders: vec![actor.pid] };
        fact.ask(ctx, sort.kind(), TIMES)?;
        actor.go_on()?;
        let held = actor.paused()?;
        ctx.check_eq(format!("{}: holders when the fork is done", sort.kind()), 2, held.len())?;
        sort.compare(ctx, NAME, held)?;
        actor.go_on()?;
    }
    Ok(())
}

pub(super) fn fork_alone(ctx: &mut Ctx) -> anyhow::Result<()> {
    for sort in Sort::BOTH {
        let mut actor = Actor::start(b"forker", |stage| play_fork(stage, sort, true))?;
        let held = actor.paused_with_one()?;
        let fact = Fact { kind: sort.kind(), ino: held.ino, references: 1, holders: vec![] };
        fact.ask(ctx, sort.kind(), TIMES)?;
        actor.go_on()?;
        let held = actor.paused()?;
        sort.compare(ctx, NAME, held)?;
        actor.go_on()?;
    }
    Ok(())
}

/// Executes the program at `path` with an argument in a page that is missing, and pauses with what
/// `beside` returns.
fn play_exec(stage: &mut Stage, path: &CStr, beside: impl FnOnce() -> Held) -> anyhow::Result<()> {
    let (page, argument) = (MissingPage::new()?, CString::new(WAIT)?);
    let call = || page.exec(path, &argument);
    Err(pause_beside(stage, libc::SYS_execve, call, || vec![beside()], || page.fill())?)
}

pub(super) fn exec(ctx: &mut Ctx) -> anyhow::Result<()> {
    for sort in Sort::BOTH {
        let mut actor = Actor::start(b"runner", |stage| {
            let (_fd, held) = sort.make(NAME)?;
            play_exec(stage, c"/proc/self/exe", || held)
        })?;
        let held = actor.paused_with_one()?;
        let fact = Fact { kind: sort.kind(), ino: held.ino, references: 1, holders: vec![actor.pid] };
        fact.ask(ctx, sort.kind(), TIMES)?;
        // For memfds the answer is partial: the file that the program will run from may be missing.
        if sort == Sort::DmaBuf {
            sort.compare(ctx, NAME, vec![held])?;
        }
    }
    Ok(())
}

/// The line `Shmem` of meminfo in KiB, with all that processors have counted.
fn shmem_kib() -> anyhow::Result<u64> {
    fs::write("/proc/sys/vm/stat_refresh", "1").context("adding up counters")?;
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Shmem:")).context("no Shmem")?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}

pub(super) fn exec_alone(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (before, program) = (shmem_kib()?, fs::metadata("/proc/self/exe")?.len() / 1024);
    let mut actor = Actor::start(b"runner", |stage| {
        let mut memfd = File::from(make::memfd(NAME.as_bytes(), 0, 0)?);
        io::copy(&mut File::open("/proc/self/exe")?, &mut memfd).context("copying a program")?;
        let held = Held::by_file(&memfd)?.without_fds();
        let path = CString::new(format!("/proc/self/fd/{}", sys::number(&memfd)))?;
        play_exec(stage, &path, || {
            drop(memfd);
            held
        })
    })?;
    let held = actor.paused_with_one()?;
    let open = fs::read_dir(format!("/proc/{}/fd", actor.pid))?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().contains(NAME))
        .count();
    ctx.check_eq("fds of the program", 0, open)?;
    // Some kernels open the program before they read the arguments (seen on 7.2), others after
    // (seen on 6.1). In the latter case the memfd is gone already.
    if shmem_kib()? < before + program / 2 {
        for _ in 0..TIMES {
            let answer = Answer::ask(&["--kind", "memfd"])?;
            let listed = answer.list("buffers").iter().any(|b| b["ino"] == held.ino);
            ctx.check("a memfd that is gone is not listed", !listed)?;
        }
        return Ok(());
    }
    let fact = Fact { kind: "memfd", ino: held.ino, references: 1, holders: vec![] };
    fact.ask(ctx, "memfd", TIMES)
}

/// Sends an fd over a socket that has no room. Pauses while the sender waits for room, and again
/// when the message was received. If `closes` is set, the fd is closed while the sender waits.
fn play_sender(stage: &mut Stage, sort: Sort, closes: bool) -> anyhow::Result<()> {
    let (fd, held) = sort.make(NAME)?;
    let (from, to) = UnixStream::pair()?;
    let filled = fill_up(&from)?;
    let number = sys::number(&fd);
    let mut fd = Some(fd);
    let beside = || {
        if closes {
            fd = None;
        }
        vec![held.clone()]
    };
    let make_room = || {
        let mut bytes = vec![0; filled];
        (&to).read_exact(&mut bytes).context("emptying a socket")
    };
    pause_beside(stage, libc::SYS_sendmsg, || sys::send_number(&from, number), beside, make_room)??;
    let received = sys::receive_any(&to)?;
    let first = if closes { held.without_fds() } else { held };
    stage.pause(&[received.iter().fold(first, Held::and_fd)])?;
    drop(fd);
    Ok(())
}

/// Writes to a socket until it has no room. Returns the number of bytes.
fn fill_up(mut socket: &UnixStream) -> anyhow::Result<usize> {
    socket.set_nonblocking(true)?;
    let mut filled = 0;
    loop {
        match socket.write(&[0; 2048]) {
            Ok(written) => filled += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("filling a socket"),
        }
    }
    socket.set_nonblocking(false)?;
    Ok(filled)
}

fn ask_beside_a_sender(ctx: &mut Ctx, closes: bool) -> anyhow::Result<()> {
    for sort in Sort::BOTH {
        let mut actor = Actor::start(b"sender", |stage| play_sender(stage, sort, closes))?;
        let held = actor.paused_with_one()?;
        let holders = if closes { vec![] } else { vec![actor.pid] };
        let references = 1 + holders.len() as u64;
        let fact = Fact { kind: sort.kind(), ino: held.ino, references, holders };
        fact.ask(ctx, sort.kind(), TIMES)?;
        actor.go_on()?;
        let held = actor.paused()?;
        sort.compare(ctx, NAME, held)?;
    }
    Ok(())
}

pub(super) fn sender(ctx: &mut Ctx) -> anyhow::Result<()> {
    ask_beside_a_sender(ctx, false)
}

pub(super) fn sender_alone(ctx: &mut Ctx) -> anyhow::Result<()> {
    ask_beside_a_sender(ctx, true)
}
