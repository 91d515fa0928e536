//! Which cgroups pay for shared memory, beside what the kernel itself says of each cgroup.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::mount::UnmountFlags;
use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::kit::{file, mount_tmpfs, page};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF};
use crate::scenario::Ctx;
use crate::sys::{page_size, task};

/// The file that this test makes, and a cgroup for each of its two writers.
const FILE: &str = "/tmp/paid/file";
const FIRST: &str = "/sys/fs/cgroup/first";
const SECOND: &str = "/sys/fs/cgroup/second";

/// Lets cgroups be charged for memory.
pub(in crate::scenarios) fn enable_memory_controller() -> anyhow::Result<()> {
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory").context("no memory controller")
}

/// Moves the calling process into a cgroup that is made for it.
pub(in crate::scenarios) fn enter(cgroup: &str) -> anyhow::Result<()> {
    fs::create_dir_all(cgroup).with_context(|| format!("making {cgroup}"))?;
    fs::write(format!("{cgroup}/cgroup.procs"), "0").context("entering a cgroup")
}

/// Bytes of shared memory that the kernel says a cgroup is charged for.
fn shmem_of(cgroup: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("{cgroup}/memory.stat"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("shmem "));
    Ok(line.context("no shmem in memory.stat")?.parse()?)
}

/// The same, once the kernel has added up its counters, which it does every two seconds.
pub(in crate::scenarios) fn settled_shmem_of(cgroup: &str, expected: u64) -> anyhow::Result<u64> {
    let begun = Instant::now();
    loop {
        let shmem = shmem_of(cgroup)?;
        if shmem == expected || begun.elapsed() > Duration::from_secs(20) {
            return Ok(shmem);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Who pays for a buffer, in a line.
fn payers(row: &Value) -> String {
    let one = |payer: &Value| {
        let removed = if payer["removed"] == true { " removed" } else { "" };
        format!("{}{removed} {}", payer["cgroup"], payer["bytes"])
    };
    let cgroups: Vec<String> = row["payers"]["cgroups"].as_array().into_iter().flatten().map(one).collect();
    cgroups.join(", ")
}

/// What `lsbuf sum` says of all shared memory.
pub(super) fn sum_by_payer() -> anyhow::Result<Value> {
    let kinds = "memfd,sysv,shm-anon,tmpfs,gem-shmem,ashmem,shm-other";
    Ok(Answer::from(Command::new(LSBUF).args(["sum", "--by", "payer", "--json", "--kind", kinds]))?.0)
}

/// What a cgroup pays, by such a sum.
pub(super) fn paid_by(sum: &Value, cgroup: &str) -> u64 {
    let groups = sum["groups"].as_array().into_iter().flatten();
    groups.filter(|group| group["key"] == cgroup).filter_map(|group| group["cost"].as_u64()).sum()
}

/// The row of the file.
fn row(answer: &Answer, list: &str, key: &str) -> anyhow::Result<Value> {
    let row = answer.list(list).iter().find(|row| row[key] == FILE);
    row.cloned().with_context(|| format!("no row of {FILE} in {list}: {}", answer.0))
}

/// Two writers as before, of a file with holes, asked without BPF.
pub(super) fn by_page_frames(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FIRST: &str = "/sys/fs/cgroup/frames1";
    const SECOND: &str = "/sys/fs/cgroup/frames2";
    const HOLES: usize = 16;
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/tmp/paid")?;
    enable_memory_controller()?;
    let mut first = Actor::start(b"first", |stage| {
        enter(FIRST)?;
        let file = file(FILE, 40)?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    first.paused()?;
    drop(first);
    let mut second = Actor::start(b"second", |stage| {
        enter(SECOND)?;
        let mut file = fs::OpenOptions::new().append(true).read(true).open(FILE)?;
        file.write_all(&vec![1; 8 * page_size()])?;
        file.set_len(((48 + HOLES) * page_size()) as u64)?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    second.paused()?;
    let before = fs::metadata(FILE)?;
    let ask = || row(&Answer::ask(&["--kind", "tmpfs", "--payers"])?, "buffers", "name");
    let (first_pays, second_pays) = (40 * page(), 8 * page());
    let answer = Answer::ask(&["--kind", "tmpfs", "--payers"])?;
    let expected = format!("\"/frames1\" {first_pays}, \"/frames2\" {second_pays}");
    let found = row(&answer, "buffers", "name")?;
    ctx.check_eq("payers of the file", expected, payers(&found))?;
    ctx.check_eq("unknown bytes", 0, found["payers"]["unknown"].as_u64().unwrap_or(u64::MAX))?;
    ctx.check_eq("bytes in swap", 0, found["payers"]["swapped"].as_u64().unwrap_or(u64::MAX))?;
    let sources = answer.0["scan"]["sources"].to_string();
    ctx.check(format!("the sources are {sources}"), sources.contains("kpagecgroup"))?;
    let after = fs::metadata(FILE)?;
    ctx.check_eq("blocks after it was asked", before.blocks(), after.blocks())?;
    ctx.check_eq("when it was last read", before.atime_nsec(), after.atime_nsec())?;
    fs::remove_dir(FIRST).context("removing a cgroup")?;
    let found = ask()?;
    let dying = fs::read_to_string("/sys/fs/cgroup/cgroup.stat")?;
    let unknown = found["payers"]["unknown"].as_u64().unwrap_or(u64::MAX);
    // Up to Linux 6.18 the removed cgroup still pays, and the table of frames names its parent.
    let (expected, left) = match dying.lines().any(|line| line == "nr_dying_descendants 0") {
        true => (format!("\"/\" {first_pays}, \"/frames2\" {second_pays}"), 0),
        false => (format!("\"/frames2\" {second_pays}"), first_pays),
    };
    ctx.check_eq("payers after the first cgroup has been removed", expected, payers(&found))?;
    ctx.check_eq("bytes of which nobody is named", left, unknown)?;
    drop(second);
    rustix::mount::unmount("/tmp/paid", UnmountFlags::DETACH)?;
    Ok(())
}

pub(super) fn two_writers(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/tmp/paid")?;
    enable_memory_controller()?;
    let mut first = Actor::start(b"first", |stage| {
        enter(FIRST)?;
        let file = file(FILE, 40)?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    first.paused()?;
    drop(first);
    let mut second = Actor::start(b"second", |stage| {
        enter(SECOND)?;
        let mut file = fs::OpenOptions::new().append(true).read(true).open(FILE)?;
        file.write_all(&vec![1; 8 * page_size()])?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    second.paused()?;
    let ask = || Answer::ask(&["--kind", "tmpfs,hugetlbfs", "--payers", "--unheld"]);
    let held = Answer::ask(&["--kind", "tmpfs", "--payers"])?;
    let (first_pays, second_pays) = (40 * page(), 8 * page());
    let expected = format!("\"/first\" {first_pays}, \"/second\" {second_pays}");
    ctx.check_eq("payers of the file", expected, payers(&row(&held, "buffers", "name")?))?;
    ctx.check_eq(
        "shmem of the first cgroup, as the kernel says",
        first_pays,
        settled_shmem_of(FIRST, first_pays)?,
    )?;
    ctx.check_eq("shmem of the second cgroup", second_pays, settled_shmem_of(SECOND, second_pays)?)?;
    let sum = sum_by_payer()?;
    ctx.check_eq("sum of what the first cgroup pays", first_pays, paid_by(&sum, "/first"))?;
    ctx.check_eq("sum of what the second cgroup pays", second_pays, paid_by(&sum, "/second"))?;
    let all: u64 = sum["groups"].as_array().into_iter().flatten().filter_map(|g| g["cost"].as_u64()).sum();
    ctx.check_eq("the groups add up", sum["sum"]["cost"].as_u64().unwrap_or(0), all)?;
    let root = settled_shmem_of("/sys/fs/cgroup", all)?;
    ctx.check_eq("all payers together, and shmem of the root cgroup and all below it", root, all)?;
    drop(second);
    let unheld = row(&ask()?, "unheld", "path")?;
    let expected = format!("\"/first\" {first_pays}, \"/second\" {second_pays}");
    ctx.check_eq("payers of the file that nobody holds any more", expected, payers(&unheld))?;
    fs::remove_dir(FIRST).context("removing a cgroup")?;
    // Up to Linux 6.18 the removed cgroup still pays; from 7 on its parent does.
    let moved = format!("\"/\" {first_pays}, \"/second\" {second_pays}");
    let stayed = format!("\"/first\" removed {first_pays}, \"/second\" {second_pays}");
    let found = payers(&row(&ask()?, "unheld", "path")?);
    let expected = if found.contains("/first") { stayed } else { moved };
    ctx.check_eq("payers after the first cgroup has been removed", expected, found)?;
    rustix::mount::unmount("/tmp/paid", UnmountFlags::DETACH)?;
    Ok(())
}
