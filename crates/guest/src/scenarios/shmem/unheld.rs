//! Files that nobody holds, one by one.
//!
//! Each scenario runs in a mount namespace of its own, so that its mounts go with it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use rustix::mount::{MountFlags, mount, mount_bind};
use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::kit::{file, mount_tmpfs, page};
use crate::actor::{Actor, Held};
use crate::answer::Answer;
use crate::make::HugePages;
use crate::scenario::Ctx;
use crate::sys::{self, page_size, task};
use crate::way::Way;

/// The files that are listed as unheld below this folder, as any process sees it.
fn unheld(answer: &Answer, folder: &str) -> BTreeSet<String> {
    let of_folder = |row: &&Value| row["path"].as_str().is_some_and(|path| path.contains(folder));
    let line = |row: &Value| format!("{} {} of {}", row["path"], row["charged"], row["owner"]);
    answer.list("unheld").iter().filter(of_folder).map(line).collect()
}

fn ask() -> anyhow::Result<Answer> {
    Answer::ask(&["--unheld", "--kind", "tmpfs,hugetlbfs"])
}

/// A line as [`unheld`] makes it.
fn line(path: &str, pages: u64, owner: u32) -> String {
    format!("{path:?} {} of {owner}", pages * page())
}

/// Whether the way that is tested proves what nobody holds.
fn proves(ctx: &Ctx) -> bool {
    ctx.way == Way::Bpf
}

pub(super) fn held_and_unheld(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/tmp/nobodys")?;
    fs::create_dir_all("/tmp/nobodys/a/b")?;
    let mut holder = Actor::start(b"holder", |stage| {
        let open = file("/tmp/nobodys/open", 1)?;
        let mapped = file("/tmp/nobodys/a/mapped", 1)?;
        let map = sys::map(&mapped, 0, page_size())?;
        let held = [Held::by_file(&open)?, Held::by_file(&mapped)?.and_map(map, 0).without_fds()];
        drop(mapped);
        stage.pause(&held)
    })?;
    holder.paused()?;
    drop(file("/tmp/nobodys/x", 3)?);
    drop(file("/tmp/nobodys/a/b/y", 2)?);
    drop(file("/tmp/nobodys/twice", 1)?);
    fs::hard_link("/tmp/nobodys/twice", "/tmp/nobodys/a/again")?;
    std::os::unix::fs::chown("/tmp/nobodys/x", Some(1000), None)?;
    let hostile = OsStr::from_bytes(b"/tmp/nobodys/new\nline\x1b[2J");
    File::create(hostile).context("a file with a hostile name")?;
    // A folder that shows its own parent again: nothing is found twice.
    fs::create_dir("/tmp/nobodys/a/loop")?;
    mount_bind("/tmp/nobodys", "/tmp/nobodys/a/loop")?;
    let answer = ask()?;
    let mut found = unheld(&answer, "/tmp/nobodys/");
    let names = ["twice", "a/again"].map(|name| line(&format!("/tmp/nobodys/{name}"), 1, 0));
    let of_twice = names.iter().filter(|name| found.remove(*name)).count();
    ctx.check_eq("rows of a file with two names", 1, of_twice)?;
    let expected = BTreeSet::from([
        line("/tmp/nobodys/x", 3, 1000),
        line("/tmp/nobodys/a/b/y", 2, 0),
        "\"/tmp/nobodys/new\\nline\\u001b[2J\" 0 of 0".to_owned(),
    ]);
    ctx.check_eq("files that nobody holds", format!("{expected:?}"), format!("{found:?}"))?;
    let proven = answer.list("unheld").iter().all(|row| row["proven"] == proves(ctx));
    ctx.check("they are proven by BPF alone", proven)?;
    drop(holder);
    let found = unheld(&ask()?, "/tmp/nobodys/");
    let released = ["open", "a/mapped"].map(|name| line(&format!("/tmp/nobodys/{name}"), 1, 0));
    ctx.check("what was released is listed", released.iter().all(|line| found.contains(line)))
}

pub(super) fn other_namespaces(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/tmp/nobodys-over")?;
    drop(file("/tmp/nobodys-over/below", 1)?);
    mount_tmpfs("/tmp/nobodys-over")?;
    drop(file("/tmp/nobodys-over/above", 1)?);
    let mut contained = Actor::start(b"contained", |stage| {
        task::enter_new(UnshareFlags::NEWNS)?;
        mount_tmpfs("/tmp/nobodys-inside")?;
        drop(file("/tmp/nobodys-inside/file", 1)?);
        stage.pause(&[])
    })?;
    contained.paused()?;
    let answer = ask()?;
    let inside = format!("/proc/{}/root/tmp/nobodys-inside/file", contained.pid);
    let found = unheld(&answer, "/tmp/nobodys-inside/");
    let expected = BTreeSet::from([line(&inside, 1, 0)]);
    ctx.check_eq("a file of another mount namespace", format!("{expected:?}"), format!("{found:?}"))?;
    ctx.check_eq("its pages by that path", page(), fs::metadata(&inside)?.len())?;
    let above = unheld(&answer, "/tmp/nobodys-over/");
    let expected = BTreeSet::from([line("/tmp/nobodys-over/above", 1, 0)]);
    ctx.check_eq("a file on the visible mount", format!("{expected:?}"), format!("{above:?}"))?;
    let below = unheld(&answer, "(unreachable)/below").len();
    ctx.check_eq("a file on the mount below it, if that is listed", usize::from(proves(ctx)), below)?;
    let notes = answer.0["scan"]["notes"].to_string();
    let missing = notes.contains("1 filesystem that could not be reached");
    ctx.check_eq("a note says that a filesystem was not reached", !proves(ctx), missing)
}

pub(super) fn kept_namespaces(ctx: &mut Ctx) -> anyhow::Result<()> {
    const KEPT: &str = "/tmp/nobodys-namespace";
    // A mount may only keep a namespace that is newer than the one it is in. Linux 6.18 tells their
    // age by numbers of which each CPU has a block of its own.
    task::stay_on_one_cpu()?;
    task::enter_new(UnshareFlags::NEWNS)?;
    fs::write(KEPT, "").with_context(|| format!("making {KEPT}"))?;
    let leave = |folder: &'static str| -> anyhow::Result<Actor> {
        let mut actor = Actor::start(b"leaver", move |stage| {
            task::enter_new(UnshareFlags::NEWNS)?;
            mount_tmpfs(folder)?;
            drop(file(&format!("{folder}/file"), 1)?);
            stage.pause(&[])
        })?;
        actor.paused()?;
        Ok(actor)
    };
    let (mounted, opened) = (leave("/tmp/nobodys-mounted")?, leave("/tmp/nobodys-opened")?);
    mount_bind(format!("/proc/{}/ns/mnt", mounted.pid), KEPT).context("keeping a namespace")?;
    let kept = File::open(format!("/proc/{}/ns/mnt", opened.pid))?;
    drop((mounted, opened));
    let answer = ask()?;
    let found = unheld(&answer, "/tmp/nobodys-mounted/");
    let expected =
        BTreeSet::from([line(&format!("(nsenter --mount={KEPT})/tmp/nobodys-mounted/file"), 1, 0)]);
    ctx.check_eq("a namespace that a mount keeps", format!("{expected:?}"), format!("{found:?}"))?;
    let found = unheld(&answer, "/tmp/nobodys-opened/");
    let path = format!(
        "(nsenter --mount=/proc/{}/fd/{})/tmp/nobodys-opened/file",
        std::process::id(),
        sys::number(&kept)
    );
    let expected = BTreeSet::from([line(&path, 1, 0)]);
    ctx.check_eq("a namespace that an fd keeps", format!("{expected:?}"), format!("{found:?}"))?;
    rustix::mount::unmount(KEPT, rustix::mount::UnmountFlags::DETACH).context("letting a namespace go")?;
    let found = unheld(&ask()?, "/tmp/nobodys-mounted/").len();
    ctx.check_eq("its files go with it", 0, found)
}

pub(super) fn huge_pages(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    fs::create_dir_all("/tmp/nobodys-huge")?;
    mount("none", "/tmp/nobodys-huge", "hugetlbfs", MountFlags::empty(), None)?;
    let _aside = HugePages::set_aside(1)?;
    let left = File::create_new("/tmp/nobodys-huge/left")?;
    let size = 2 << 20;
    left.set_len(size)?;
    rustix::fs::fallocate(&left, rustix::fs::FallocateFlags::empty(), 0, size)?;
    drop(left);
    let answer = ask()?;
    let found: Vec<&Value> =
        answer.list("unheld").iter().filter(|row| row["path"] == "/tmp/nobodys-huge/left").collect();
    let [row] = found[..] else { anyhow::bail!("{} rows", found.len()) };
    let figures = ["kind", "size", "charged", "huge_page"].map(|key| row[key].to_string()).join(" ");
    ctx.check_eq("a huge file that nobody holds", format!("\"hugetlbfs\" {size} {size} {size}"), figures)?;
    fs::remove_file("/tmp/nobodys-huge/left")?;
    Ok(())
}
