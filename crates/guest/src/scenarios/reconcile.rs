//! `lsbuf reconcile`: shared memory compared with the kernel's own total. On an idle machine
//! nothing is left over.

use std::fs::{self, File};
use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::UnshareFlags;
use serde_json::Value;

use crate::actor::Actor;
use crate::answer::Answer;
use crate::kernels::Kernels;
use crate::make::{self, HugePages};
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::scenarios::shmem::kit::{file, mount_tmpfs};
use crate::sys::shm::{self, Segment};
use crate::sys::{self, page_size, task};
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "reconcile",
        claim: "Shmem equals the sum of held memory of each kind and unheld files and segments, to the page",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: to_the_page,
    },
    Scenario {
        name: "reconcile_left_over",
        claim: "Memory that procfs does not show is left over, to the page: a memfd in flight, an unlimited tmpfs, a tmpfs that is mounted over",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        // BPF iterators do show fds in messages.
        ways: &[Way::Procfs],
        run: left_over,
    },
    Scenario {
        name: "reconcile_elsewhere",
        claim: "A tmpfs of another mount namespace is in the account; a GEM object is left over, or held if its mapping shows it",
        needs: &[Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: elsewhere,
    },
    Scenario {
        name: "reconcile_outside",
        claim: "Huge and secret pages are in no sum, also those of a segment that nobody has attached",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: outside,
    },
];

/// The pages of each part. They are powers of two, so no two sums are the same.
const MEMFD: usize = 1;
const SEGMENT: usize = 2;
const UNATTACHED: usize = 4;
const ANONYMOUS: usize = 8;
const HELD: usize = 16;
const UNHELD: usize = 32;
const DELETED: usize = 64;

fn bytes(pages: usize) -> u64 {
    (pages * page_size()) as u64
}

/// The machine's shared memory, or its increase.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts {
    pub(super) shmem: i64,
    pub(super) left_over: i64,
    pub(super) memfd: i64,
    pub(super) sysv: i64,
    pub(super) anonymous: i64,
    pub(super) tmpfs: i64,
    pub(super) unheld: i64,
}

impl Parts {
    pub(super) fn ask(ctx: &mut Ctx, what: &str) -> anyhow::Result<(Parts, Value)> {
        let Answer(answer) = Answer::ask_for("reconcile")?;
        ctx.check(format!("{what}: counters are added up"), answer["folded"] == true)?;
        let kind = |kind: &str| {
            let rows = answer["held"].as_array().into_iter().flatten();
            rows.filter(|row| row["kind"] == kind).filter_map(|row| row["charged"].as_i64()).sum()
        };
        let unheld = answer["tmpfs"].as_array().into_iter().flatten();
        let parts = Parts {
            shmem: answer["shmem"].as_i64().context("no shmem")?,
            left_over: answer["left_over"].as_i64().context("no left_over")?,
            memfd: kind("memfd"),
            sysv: kind("sysv"),
            anonymous: kind("shm-anon"),
            tmpfs: kind("tmpfs"),
            unheld: unheld.filter_map(|row| row["unheld"].as_i64()).sum(),
        };
        Ok((parts, answer))
    }

    pub(super) fn since(self, before: Parts) -> Parts {
        Parts {
            shmem: self.shmem - before.shmem,
            left_over: self.left_over - before.left_over,
            memfd: self.memfd - before.memfd,
            sysv: self.sysv - before.sysv,
            anonymous: self.anonymous - before.anonymous,
            tmpfs: self.tmpfs - before.tmpfs,
            unheld: self.unheld - before.unheld,
        }
    }
}

fn memfd(pages: usize) -> anyhow::Result<OwnedFd> {
    let memfd = memfd_create(c"reconcile", MemfdFlags::CLOEXEC).context("making a memfd")?;
    // Larger than the part that is written.
    ftruncate(&memfd, bytes(pages + 100))?;
    rustix::io::pwrite(&memfd, &vec![1; pages * page_size()], 0).context("filling a memfd")?;
    Ok(memfd)
}

fn to_the_page(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (before, answer) = Parts::ask(ctx, "before")?;
    ctx.check_eq(format!("left over before, of {answer}"), 0, before.left_over)?;

    let memfd = memfd(MEMFD)?;
    let segment = Segment::create(0, SEGMENT + 50)?;
    let attached = segment.attach()?;
    shm::touch(attached, SEGMENT * page_size())?;
    let unattached = Segment::create(0, UNATTACHED)?;
    let region = unattached.attach()?;
    shm::touch(region, UNATTACHED * page_size())?;
    shm::detach(region)?;
    let anonymous = shm::map_anonymous(ANONYMOUS + 50)?;
    shm::touch(anonymous, ANONYMOUS * page_size())?;
    let held = file("/dev/shm/held", HELD as u64)?;
    drop(file("/tmp/unheld", UNHELD as u64)?);
    let deleted = file("/tmp/deleted", DELETED as u64)?;
    fs::remove_file("/tmp/deleted")?;

    let (after, answer) = Parts::ask(ctx, "after")?;
    let came = after.since(before);
    ctx.check_eq(format!("left over after, of {answer}"), 0, after.left_over)?;
    let all = MEMFD + SEGMENT + UNATTACHED + ANONYMOUS + HELD + UNHELD + DELETED;
    for (what, pages, found) in [
        ("memfds", MEMFD, came.memfd),
        ("segments", SEGMENT + UNATTACHED, came.sysv),
        ("shared anonymous memory", ANONYMOUS, came.anonymous),
        ("held files", HELD + DELETED, came.tmpfs),
        ("unheld files", UNHELD, came.unheld),
        ("Shmem", all, came.shmem),
    ] {
        ctx.check_eq(format!("bytes of {what} that came"), bytes(pages), found)?;
    }
    ctx.check_eq("the answer is complete", true, &answer["complete"])?;
    ctx.check_eq("doubts", "[]", &answer["doubts"])?;
    shm::detach(attached)?;
    sys::unmap(anonymous)?;
    drop((memfd, segment, unattached, held, deleted));
    fs::remove_file("/tmp/unheld")?;
    fs::remove_file("/dev/shm/held")?;
    let (end, _) = Parts::ask(ctx, "at the end")?;
    ctx.check_eq("left over at the end", 0, end.left_over)?;
    ctx.check_eq("Shmem at the end", before.shmem, end.shmem)
}

fn left_over(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (before, _) = Parts::ask(ctx, "before")?;
    let (one, other) = std::os::unix::net::UnixStream::pair()?;
    let sent = memfd(MEMFD)?;
    sys::send_any(&one, &[std::os::fd::AsFd::as_fd(&sent)])?;
    drop(sent);
    let (after, answer) = Parts::ask(ctx, "in flight")?;
    ctx.check_eq("left over with a memfd in flight", bytes(MEMFD), after.left_over - before.left_over)?;
    ctx.check_eq("a memfd in flight makes it partial", false, &answer["complete"])?;
    drop((one, other));

    fs::create_dir_all("/mnt")?;
    mount("tmpfs", "/mnt", "tmpfs", MountFlags::empty(), c"size=0").context("mounting without a limit")?;
    drop(file("/mnt/file", UNHELD as u64)?);
    told(ctx, "an unlimited tmpfs", before, UNHELD, "uncounted")?;
    let held = File::open("/mnt/file")?;
    let (after, _) = Parts::ask(ctx, "held in it")?;
    ctx.check_eq("left over with its file held", before.left_over, after.left_over)?;
    drop(held);
    unmount("/mnt", UnmountFlags::empty())?;

    mount_tmpfs("/mnt")?;
    drop(file("/mnt/file", HELD as u64)?);
    let (after, _) = Parts::ask(ctx, "shown")?;
    ctx.check_eq("left over with a tmpfs that shows", before.left_over, after.left_over)?;
    mount("proc", "/mnt", "proc", MountFlags::empty(), c"").context("mounting over it")?;
    told(ctx, "a tmpfs that is mounted over", before, HELD, "hidden")?;
    unmount("/mnt", UnmountFlags::empty())?;
    unmount("/mnt", UnmountFlags::empty())?;
    let (end, _) = Parts::ask(ctx, "at the end")?;
    ctx.check_eq("left over at the end", before.left_over, end.left_over)
}

fn elsewhere(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (before, _) = Parts::ask(ctx, "before")?;
    let mut actor = Actor::start(b"elsewhere", |stage| {
        task::enter_new(UnshareFlags::NEWNS)?;
        mount_tmpfs("/mnt")?;
        drop(file("/mnt/file", UNHELD as u64)?);
        stage.pause(&[])
    })?;
    actor.paused()?;
    let (after, answer) = Parts::ask(ctx, "in another namespace")?;
    ctx.check_eq("unheld there", bytes(UNHELD), after.unheld - before.unheld)?;
    ctx.check_eq("left over with it", before.left_over, after.left_over)?;
    let mut rows = answer["tmpfs"].as_array().into_iter().flatten();
    let row = rows.find(|row| row["mount_point"] == "/mnt").context("its mount is not listed")?;
    ctx.check_eq("who sees it", actor.pid, &row["seen_by"])?;
    drop(actor);

    let device = make::vgem()?;
    let dumb = device.create_dumb(make::at_least(bytes(HELD))?)?;
    let object = dumb.handle.export()?;
    // The driver allocates a page when it is first touched.
    let region = sys::map(&object, 0, usize::try_from(bytes(HELD))?)?;
    shm::touch(region, region.len)?;
    let (after, answer) = Parts::ask(ctx, "a GEM object")?;
    let rows = answer["held"].as_array().into_iter().flatten();
    let shown = rows.filter(|row| row["kind"] == "gem-shmem").filter_map(|row| row["charged"].as_i64());
    let came = after.left_over - before.left_over + shown.sum::<i64>();
    ctx.check_eq("left over with a GEM object, or held", bytes(HELD), came)?;
    sys::unmap(region)
}

fn outside(ctx: &mut Ctx) -> anyhow::Result<()> {
    const HUGE: u64 = HugePages::SIZE;
    let (before, _) = Parts::ask(ctx, "before")?;
    let _aside = HugePages::set_aside(4)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let huge = memfd_create(c"huge", flags).context("a huge memfd")?;
    ftruncate(&huge, HUGE)?;
    let region = sys::map(&huge, 0, usize::try_from(HUGE)?)?;
    shm::touch(region, region.len)?;
    let segment = Segment::huge(usize::try_from(HUGE)?)?;
    let attached = segment.attach()?;
    shm::touch(attached, page_size())?;
    let secret = if Need::Secretmem.probe() { Some(secret_page()?) } else { None };
    let (after, answer) = Parts::ask(ctx, "huge and secret")?;
    ctx.check_eq("left over with them", before.left_over, after.left_over)?;
    ctx.check_eq("Shmem with them", before.shmem, after.shmem)?;
    let outside = |kind: &str| charged_outside(&answer, kind);
    ctx.check_eq("the memfd is listed outside of Shmem", HUGE, outside("memfd"))?;
    ctx.check_eq("the segment is listed outside of Shmem", HUGE, outside("sysv"))?;
    let expected = if secret.is_some() { bytes(1) } else { 0 };
    ctx.check_eq(
        "a secret page is listed outside of Shmem, where there are any",
        expected,
        outside("secretmem"),
    )?;
    ctx.check_eq("Hugetlb", 4 * HUGE, &answer["hugetlb"])?;
    ctx.check_eq("doubts", "[]", &answer["doubts"])?;
    shm::detach(attached)?;
    // By procfs only the table shows it. Where that counts too many bytes, they can be corrected;
    // elsewhere the segment must be what is left over of the huge pages and missing in Shmem.
    let (after, answer) = Parts::ask(ctx, "nobody has attached it")?;
    ctx.check_eq(format!("left over, of {answer}"), before.left_over, after.left_over)?;
    ctx.check_eq("the segment is still listed outside of Shmem", HUGE, charged_outside(&answer, "sysv"))?;
    ctx.check_eq("doubts of it", "[]", &answer["doubts"])?;
    sys::unmap(region)?;
    Ok(())
}

/// What is charged for buffers of a kind that are not in `Shmem`.
fn charged_outside(answer: &Value, kind: &str) -> u64 {
    let rows = answer["outside"].as_array().into_iter().flatten();
    rows.filter(|row| row["kind"] == kind).filter_map(|row| row["charged"].as_u64()).sum()
}

/// A file of secret memory with one page.
fn secret_page() -> anyhow::Result<OwnedFd> {
    let secret = shm::secret()?;
    ftruncate(&secret, bytes(1))?;
    let region = sys::map(&secret, 0, page_size())?;
    shm::touch(region, page_size())?;
    sys::unmap(region)?;
    Ok(secret)
}

/// Checks that so many pages are left over, and that the mount has this `usage`.
fn told(ctx: &mut Ctx, what: &str, before: Parts, pages: usize, usage: &str) -> anyhow::Result<()> {
    let (after, answer) = Parts::ask(ctx, what)?;
    ctx.check_eq(format!("left over with {what}"), bytes(pages), after.left_over - before.left_over)?;
    let rows = answer["tmpfs"].as_array().into_iter().flatten();
    let usages: Vec<&str> =
        rows.filter(|row| row["mount_point"] == "/mnt").filter_map(|row| row["usage"].as_str()).collect();
    ctx.check_eq(format!("{what} is"), usage, usages.join(" "))?;
    ctx.check_eq(format!("{what} makes it partial"), false, &answer["complete"])
}
