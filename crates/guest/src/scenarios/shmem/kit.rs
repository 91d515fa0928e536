//! What the scenarios of shared memory share: how they run lsbuf, what they compare, and
//! the files that they make.

use std::fs::{self, File, OpenOptions};

use anyhow::Context;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

pub(in crate::scenarios) use super::line::Shm;
use crate::answer::Answer;
use crate::make;
use crate::scenario::Ctx;
use crate::sys::Region;
pub(in crate::scenarios) use crate::sys::page;

/// Mounts a new tmpfs on a folder that is made for it.
pub(in crate::scenarios) fn mount_tmpfs(place: &str) -> anyhow::Result<()> {
    fs::create_dir_all(place).with_context(|| format!("making {place}"))?;
    mount("none", place, "tmpfs", MountFlags::empty(), None).with_context(|| format!("mounting {place}"))
}

/// Takes a mount out of sight. What is in use of it stays.
pub(in crate::scenarios) fn unmount_lazily(place: &str) -> anyhow::Result<()> {
    unmount(place, UnmountFlags::DETACH).with_context(|| format!("unmounting {place}"))
}

/// Makes a file that can also be read, as mapping requires.
pub(in crate::scenarios) fn create(path: &str) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).open(path).context("creating a file")
}

/// A new file with so many pages.
pub(in crate::scenarios) fn file(path: &str, pages: u64) -> anyhow::Result<File> {
    let file = create(path)?;
    make::write_pages(&file, pages)?;
    Ok(file)
}

/// How much of a mapping of this process is swapped, by the kernel's smaps.
pub(in crate::scenarios) fn swapped_of(region: Region) -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps")?;
    let start = format!("{:x}-", region.start);
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&start));
    let line = lines.find_map(|line| line.strip_prefix("Swap:")).context("smaps does not tell")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Runs lsbuf for these kinds. The answer must be complete.
pub(in crate::scenarios) fn ask(ctx: &mut Ctx, kinds: &str) -> anyhow::Result<Answer> {
    let answer = Answer::ask(&["--kind", kinds])?;
    ctx.check_eq("complete", true, &answer.0["scan"]["complete"])?;
    Ok(answer)
}

/// Compares one buffer's account with an answer.
pub(in crate::scenarios) fn compare(ctx: &mut Ctx, answer: &Answer, truth: &Shm) -> anyhow::Result<()> {
    let what = format!("account of {}:{}", truth.kind, truth.ino);
    ctx.check_eq(what, truth.line(ctx.way), truth.printed(answer)?)
}

/// Runs lsbuf for the buffer's kind alone, and compares its account.
pub(in crate::scenarios) fn ask_and_compare(ctx: &mut Ctx, truth: &Shm) -> anyhow::Result<Answer> {
    let answer = ask(ctx, truth.kind)?;
    compare(ctx, &answer, truth)?;
    Ok(answer)
}

/// The figures of a process, in a line.
pub(in crate::scenarios) fn figures(answer: &Answer, pid: u32) -> anyhow::Result<String> {
    let p = answer.process(pid)?;
    Ok(format!("rss {} pss {} uss {} fds {} maps {}", p["rss"], p["pss"], p["uss"], p["fds"], p["maps"]))
}

/// A figure that only BPF iterators can tell.
pub(in crate::scenarios) fn by_bpf(ctx: &Ctx, figure: u64) -> String {
    if ctx.way.is_bpf() { figure.to_string() } else { "null".into() }
}

/// What a child runs that only holds what it inherited.
pub(in crate::scenarios) fn hold_on() -> i32 {
    loop {
        std::thread::park();
    }
}
