//! More than fits in one read of an iterator: files that nobody holds, fds of other files,
//! mappings, memfds.

use std::fs;
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::UnshareFlags;

use super::super::kit::{Shm, ask, compare, create, mount_tmpfs};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF};
use crate::make;
use crate::scenario::Ctx;
use crate::sys::{self, page_size, task};

/// The most fds that a process may have.
const MOST_FDS: &str = "/proc/sys/fs/nr_open";

/// Lets this process have so many fds.
fn allow_fds(number: u64) -> anyhow::Result<()> {
    let limit = Some(number);
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit }).context("raising a limit")
}

pub(super) fn unheld_files(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FILES: usize = 100_000;
    task::enter_new(UnshareFlags::NEWNS)?;
    fs::create_dir("/tmp/many")?;
    mount_tmpfs("/tmp/many")?;
    let rows = |answer: &Answer| answer.list("buffers").len();
    let before = rows(&ask(ctx, "tmpfs")?);
    for nth in 0..FILES {
        let path = format!("/tmp/many/{nth}");
        mknodat(CWD, path, FileType::RegularFile, Mode::RUSR, 0).context("making a file")?;
    }
    let mut actor = Actor::start(b"holder", |stage| {
        let file = create(&format!("/tmp/many/{}", FILES / 2))?;
        make::write_pages(&file, 1)?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    let held = actor.paused_with_one()?;
    let answer = ask(ctx, "tmpfs")?;
    let path = format!("/tmp/many/{}", FILES / 2);
    compare(ctx, &answer, &Shm::held("tmpfs", &path, vec![held]))?;
    ctx.check_eq("rows that came with the files", before + 1, rows(&answer))
}

/// What a process may have fds of, put back when this is dropped.
struct MostFds(String);

impl MostFds {
    fn set(number: u64) -> anyhow::Result<MostFds> {
        let before = fs::read_to_string(MOST_FDS)?;
        fs::write(MOST_FDS, number.to_string()).context("allowing more fds")?;
        Ok(MostFds(before))
    }
}

impl Drop for MostFds {
    fn drop(&mut self) {
        // It could be set before. If setting it back fails, a process may have more fds.
        let _ = fs::write(MOST_FDS, &self.0);
    }
}

pub(super) fn beside_many_fds(ctx: &mut Ctx) -> anyhow::Result<()> {
    /// The kernel ends a read with EAGAIN after a million objects that an iterator wrote nothing
    /// about (`MAX_ITER_OBJECTS` in kernel/bpf/bpf_iter.c).
    const FDS: u64 = 1_100_000;
    let _most = MostFds::set(FDS + 1000)?;
    let mut actor = Actor::start(b"opener", |stage| {
        allow_fds(FDS + 1000)?;
        let null = fs::File::open("/dev/null")?;
        for _ in 0..FDS {
            let fd = rustix::io::fcntl_dupfd_cloexec(&null, 0).context("another fd")?;
            std::mem::forget(fd);
        }
        let memfd = make::memfd(b"beside", 4, 1)?;
        let held = Held::by_file(&memfd)?;
        ensure!(held.fds.iter().all(|&fd| u64::from(fd) >= FDS), "it is not behind the others");
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let answer = ask(ctx, "memfd")?;
    compare(ctx, &answer, &Shm::held("memfd", "beside", vec![held]))?;
    let by_bpf = r#"["bpf:task","bpf:task_file","bpf:shmem_inodes"]"#;
    ctx.check_eq("sources", by_bpf, &answer.0["scan"]["sources"])
}

pub(super) fn many_mappings(ctx: &mut Ctx) -> anyhow::Result<()> {
    const EACH: usize = 1000;
    let memfd = make::memfd(b"mapped", 2, 1)?;
    let mapper = || {
        Actor::start(b"mapper", |stage| {
            let mut held = Held::by_file(&memfd)?.without_fds();
            for _ in 0..EACH {
                // Each maps the same page, so the kernel merges none of them.
                held = held.and_map(sys::map(&memfd, 0, page_size())?, 0);
            }
            stage.pause(&[held.and_fd(&memfd)])
        })
    };
    let mut actors = [mapper()?, mapper()?, mapper()?];
    drop(memfd);
    let held = actors.iter_mut().map(Actor::paused_with_one).collect::<anyhow::Result<Vec<_>>>()?;
    let answer = ask(ctx, "memfd")?;
    // Of three thousand ranges, a report says only whether they are right.
    let truth = Shm::held("memfd", "mapped", held.clone());
    ctx.check("the account, with every range", truth.line(ctx.way) == truth.printed(&answer)?)?;
    let buffer = truth.find(&answer)?;
    ctx.check_eq("mappings", 3 * EACH, &buffer["refs"]["map"])?;
    ctx.check_eq("references", 3 * EACH + 3, &buffer["count"])?;
    ctx.check_eq("residual", 0, &buffer["refs"]["kernel"])?;
    for held in &held {
        ctx.check_eq("mappings of each process", EACH, &answer.process(held.pid)?["maps"])?;
    }
    Ok(())
}

pub(super) fn many_memfds(ctx: &mut Ctx) -> anyhow::Result<()> {
    const NUMBER: u64 = 50_000;
    let mut actor = Actor::start(b"leaker", |stage| {
        allow_fds(NUMBER + 100)?;
        let memfds =
            (0..NUMBER).map(|_| make::memfd(b"one of many", 1, 0)).collect::<anyhow::Result<Vec<_>>>()?;
        let last = memfds.last().map_or(0, AsRawFd::as_raw_fd);
        ensure!(u64::try_from(last)? >= NUMBER, "the last fd is {last}");
        stage.pause(&memfds.iter().map(Held::by_file).collect::<anyhow::Result<Vec<_>>>()?)
    })?;
    let mut made: Vec<String> = actor.paused()?.iter().map(|held| format!("{} 1 0", held.ino)).collect();
    made.sort_unstable();
    // As lines: the JSON of so many takes much memory.
    let arguments = ["--kind", "memfd", "-r", "-n", "--strict", "-o", "INO,FDS,KERNEL"];
    let output = Command::new(LSBUF).args(arguments).output().context("running lsbuf")?;
    let status = output.status.code().unwrap_or(-1);
    ctx.check_eq("status, which is 0 only if the answer is complete", 0, status)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut printed: Vec<&str> = text.lines().collect();
    printed.sort_unstable();
    ctx.check_eq("memfds", made.len(), printed.len())?;
    ctx.check("each of them, with its fd", made == printed)
}
