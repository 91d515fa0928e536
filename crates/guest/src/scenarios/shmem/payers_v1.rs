//! Who pays, and where holders run, with the memory controller in a hierarchy of cgroups of version
//! 1.
//!
//! The guest has version 2 mounted. A controller can be taken from there as long as no cgroup of
//! version 2 uses it. Afterwards all processes of this test are in the root of version 2, so
//! nothing but version 1 tells them apart.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::kit::{file, mount_tmpfs, page, unmount_lazily};
use super::payers::{enter, paid_by, settled_shmem_of, sum_by_payer};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF};
use crate::scenario::Ctx;
use crate::sys::task;

/// The hierarchy, and a cgroup for each of the two processes.
const HIERARCHY: &str = "/tmp/memory";
const WRITER: &str = "/tmp/memory/writer";
const READER: &str = "/tmp/memory/reader";
const FILE: &str = "/tmp/paid/file";
/// The pages of the file.
const PAGES: u64 = 40;
/// How long the kernel may take to move the controller between the versions.
const LIMIT: Duration = Duration::from_secs(20);

/// The controller in a hierarchy of version 1. Dropping this gives it back.
struct VersionOne;

impl VersionOne {
    fn mount() -> anyhow::Result<VersionOne> {
        fs::create_dir_all(HIERARCHY)?;
        mount("none", HIERARCHY, "cgroup", MountFlags::empty(), Some(c"memory"))
            .context("mounting the memory controller")?;
        Ok(VersionOne)
    }

    /// Gives the controller back and waits until version 2 has it again. The kernel frees cgroups
    /// in the background, and a hierarchy stays as long as it has any.
    fn give_back(self) -> anyhow::Result<()> {
        fs::remove_dir(WRITER)?;
        fs::remove_dir(READER)?;
        let of_memory = |line: &str| line.starts_with("memory") && line.split('\t').nth(2) == Some("1");
        wait_for("freed cgroups", || Ok(fs::read_to_string("/proc/cgroups")?.lines().any(of_memory)))?;
        drop(self);
        wait_for("the controller in version 2", || {
            Ok(fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?.contains("memory"))
        })
    }
}

/// Waits until something is there.
fn wait_for(what: &str, is_there: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_there()? {
        ensure!(begun.elapsed() < LIMIT, "there is no sign of {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

impl Drop for VersionOne {
    fn drop(&mut self) {
        // A failure shows in `give_back`.
        let _ = unmount(HIERARCHY, UnmountFlags::empty());
    }
}

/// What lsbuf prints, each line with single blanks.
fn lines(arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = Command::new(LSBUF).args(arguments).output().context("running lsbuf")?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")).collect())
}

pub(super) fn version_one(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/tmp/paid")?;
    let hierarchy = VersionOne::mount()?;
    let mut writer = Actor::start(b"writer", |stage| {
        enter(WRITER)?;
        let file = file(FILE, PAGES)?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    writer.paused()?;
    let mut reader = Actor::start(b"reader", |stage| {
        enter(READER)?;
        let read = fs::File::open(FILE)?;
        fs::read(FILE)?;
        stage.pause(&[Held::by_file(&read)?])
    })?;
    reader.paused()?;
    let all = PAGES * page();
    let of_file = ["--kind", "tmpfs", "--name", FILE];
    let mut listed = lines(&[&["ps", "-n", "--sort", "PID", "-o", "PID,CGROUP"], &of_file[..]].concat())?;
    let mut expected = [format!("{} /writer", writer.pid), format!("{} /reader", reader.pid)];
    expected.sort();
    listed.sort();
    ctx.check_eq("where the holders run", format!("{expected:?}"), format!("{listed:?}"))?;
    let sum = Command::new(LSBUF).args(["sum", "--by", "cgroup", "--json"]).args(of_file).output()?;
    let Answer(sum) = Answer::of(&sum)?;
    let mut groups: Vec<String> = sum["groups"].as_array().into_iter().flatten().map(group).collect();
    groups.sort();
    let expected = ["reader", "writer"].map(|name| format!("\"/{name}\" {all}"));
    ctx.check_eq("sums by the holders' cgroup", format!("{expected:?}"), format!("{groups:?}"))?;
    // Only BPF iterators tell the payer. Linux 5.10 has none, and adds to memory.stat of version 1
    // only when a processor has counted more than 32 pages.
    if ctx.way.is_bpf() {
        ctx.check_eq(
            "shmem of the writer's cgroup, as the kernel says",
            all,
            settled_shmem_of(WRITER, all)?,
        )?;
        ctx.check_eq("shmem of the reader's cgroup", 0, settled_shmem_of(READER, 0)?)?;
        let listed = lines(&[&["ls", "-n", "-o", "CHARGED,PAYER"], &of_file[..]].concat())?;
        ctx.check_eq("who pays for the file", format!("[\"{all} /writer\"]"), format!("{listed:?}"))?;
        let sum = sum_by_payer()?;
        ctx.check_eq("sum of what the writer's cgroup pays", all, paid_by(&sum, "/writer"))?;
        ctx.check_eq("sum of what the reader's cgroup pays", 0, paid_by(&sum, "/reader"))?;
    }
    drop((writer, reader));
    unmount_lazily("/tmp/paid")?;
    hierarchy.give_back()
}

/// A group's key and cost.
fn group(group: &Value) -> String {
    format!("{} {}", group["key"], group["cost"])
}
