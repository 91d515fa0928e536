//! `lsbuf reconcile`: huge pages compared with the kernel's pool of them. On an idle machine
//! nothing is left over, whoever has the pages.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::Context;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use crate::actor::Actor;
use crate::answer::{Answer, LSBUF};
use crate::kernels::Kernels;
use crate::make::HugePages;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys::shm::{self, Segment};
use crate::sys::{self, Region};
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "reconcile_huge_pages",
    claim: "Every huge page is free, in a held or an unheld file, in a segment, or a process's own; none is left over",
    needs: &[Need::HugePages],
    kernels: Kernels::EveryByBpf,
    ways: Way::BOTH,
    run: every_page,
}];

/// The pages of each part: 60 in all, of which 35 stay free.
const ALL: u64 = 60;
const MEMFD: u64 = 6;
const ANONYMOUS: u64 = 5;
const HELD: u64 = 3;
const LEFT_BEHIND: u64 = 3;
const OWN: u64 = 4;
const COPIES: u64 = 2;
const SEGMENT: u64 = 2;
const FREE: u64 = ALL - MEMFD - ANONYMOUS - HELD - LEFT_BEHIND - OWN - COPIES - SEGMENT;

fn bytes(pages: u64) -> u64 {
    pages * HugePages::SIZE
}

pub(super) fn len(pages: u64) -> anyhow::Result<usize> {
    Ok(usize::try_from(bytes(pages))?)
}

/// A file of so many pages, all of them written.
pub(super) fn file(path: &str, pages: u64) -> anyhow::Result<OwnedFd> {
    let file = File::options().read(true).write(true).create_new(true).open(path);
    let file = OwnedFd::from(file.with_context(|| format!("making {path}"))?);
    fill(&file, pages)?;
    Ok(file)
}

pub(super) fn fill(file: &OwnedFd, pages: u64) -> anyhow::Result<()> {
    ftruncate(file, bytes(pages))?;
    let region = sys::map(file, 0, len(pages)?)?;
    shm::touch(region, region.len)?;
    sys::unmap(region)
}

/// The account of the pages of 2 MiB.
pub(super) fn account(answer: &Value) -> anyhow::Result<&Value> {
    let accounts = answer["huge_pages"].as_array().context("no huge pages")?;
    accounts.iter().find(|account| account["page_size"] == HugePages::SIZE).context("no account")
}

fn every_page(ctx: &mut Ctx) -> anyhow::Result<()> {
    let Answer(before) = Answer::ask_for("reconcile")?;
    let _aside = HugePages::set_aside(ALL)?;
    fs::create_dir_all("/mnt")?;
    mount("none", "/mnt", "hugetlbfs", MountFlags::empty(), Some(c"pagesize=2M"))?;

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let memfd = memfd_create(c"huge", flags).context("a huge memfd")?;
    fill(&memfd, MEMFD)?;
    let anonymous = shm::map_huge(len(ANONYMOUS)?, true)?;
    shm::touch(anonymous, anonymous.len)?;
    let held = file("/mnt/held", HELD)?;
    drop(file("/mnt/left", LEFT_BEHIND)?);
    let own = shm::map_huge(len(OWN)?, false)?;
    shm::touch(own, own.len)?;
    let backing = File::options().read(true).write(true).create_new(true).open("/mnt/backing")?;
    ftruncate(&backing, bytes(COPIES))?;
    let copies = sys::map_private(&backing, 0, len(COPIES)?)?;
    shm::touch(copies, copies.len)?;
    let segment = Segment::huge(len(SEGMENT)?)?;
    let attached = segment.attach()?;
    shm::touch(attached, attached.len)?;
    shm::detach(attached)?;
    // After fork the child has the same pages, which count once.
    let mut child = Actor::start(b"heir", |stage| stage.pause(&[]))?;
    child.paused()?;

    let Answer(answer) = Answer::ask_for("reconcile")?;
    let found = account(&answer)?;
    ctx.check_eq(format!("left over, of {answer}"), 0, &found["left_over"])?;
    let kind = |kind: &str| {
        let rows = found["held"].as_array().into_iter().flatten();
        rows.filter(|row| row["kind"] == kind).filter_map(|row| row["charged"].as_u64()).sum::<u64>()
    };
    for (what, pages, found) in [
        ("pages in all", ALL, found["total"].as_u64()),
        ("free pages", FREE, found["free"].as_u64()),
        ("the memfd", MEMFD, Some(kind("memfd"))),
        ("shared anonymous memory", ANONYMOUS, Some(kind("shm-anon"))),
        ("held files", HELD, Some(kind("hugetlbfs"))),
        ("files that nobody holds", LEFT_BEHIND, found["unheld"][0]["charged"].as_u64()),
        ("own pages", OWN + COPIES, found["private"].as_u64()),
        ("the segment", SEGMENT, found["unattached"]["charged"].as_u64()),
    ] {
        ctx.check_eq(format!("bytes of {what}"), bytes(pages), found.unwrap_or(u64::MAX))?;
    }
    let rows = found["held"].as_array().into_iter().flatten();
    let buffers = rows.filter(|row| row["kind"] == "shm-anon").find_map(|row| row["buffers"].as_u64());
    ctx.check_eq("buffers of shared anonymous memory, without private mappings", 1, buffers.unwrap_or(0))?;
    ctx.check_eq("the mount of the unheld file", "\"/mnt\"", &found["unheld"][0]["mount_point"])?;
    ctx.check_eq("doubts", "[]", &answer["huge_doubts"])?;
    let mut owners: Vec<u64> = Vec::new();
    let of_each = found["private_of"].as_array().into_iter().flatten();
    owners.extend(of_each.filter_map(|owner| owner["pid"].as_u64()));
    owners.sort_unstable();
    let mut expected = vec![u64::from(std::process::id()), u64::from(child.pid)];
    expected.sort_unstable();
    ctx.check_eq("whose the own pages are", format!("{expected:?}"), format!("{owners:?}"))?;
    // Neither is any of it left over of, or missing in, the account of ordinary pages.
    ctx.check_eq("left over of Shmem", &before["left_over"], &answer["left_over"])?;
    ctx.check_eq("doubts of Shmem", "[]", &answer["doubts"])?;
    let human = Command::new(LSBUF).args(["reconcile", "--human"]).output()?;
    let text = String::from_utf8_lossy(&human.stdout).into_owned();
    ctx.check(format!("the text says that they add up: {text}"), text.contains("the huge pages add up\n"))?;

    drop(child);
    promised(ctx)?;
    [anonymous, own, copies].into_iter().try_for_each(sys::unmap)?;
    drop((memfd, held, backing, segment));
    unmount("/mnt", UnmountFlags::empty())?;
    Ok(())
}

/// Checks that pages which a mapping was promised and has not touched are free.
fn promised(ctx: &mut Ctx) -> anyhow::Result<()> {
    let untouched: Region = shm::map_huge(len(3)?, false)?;
    let Answer(answer) = Answer::ask_for("reconcile")?;
    let found = account(&answer)?;
    let figures = (found["free"].as_u64(), found["reserved"].as_u64(), found["left_over"].as_i64());
    let expected = (Some(bytes(FREE)), Some(bytes(3)), Some(0));
    ctx.check_eq("free, promised, left over", format!("{expected:?}"), format!("{figures:?}"))?;
    sys::unmap(untouched)
}
