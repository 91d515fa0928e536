//! Shared memory without an fd, files of mounted filesystems, and secret memory.

use std::fs;

use anyhow::Context;
use rustix::fs::ftruncate;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::thread::UnshareFlags;

use super::kit::{Shm, ask_and_compare, by_bpf, create, figures, hold_on, mount_tmpfs, page};
use crate::actor::{Actor, Held};
use crate::answer::Answer;
use crate::make::{self, HugePages};
use crate::scenario::Ctx;
use crate::sys::{self, Region, page_size, shm, task};

/// The inode number that this process's maps show for a mapping.
fn shown(region: Region) -> anyhow::Result<u64> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let start = format!("{:x}-", region.start);
    let line = maps.lines().find(|line| line.starts_with(&start)).context("an unmapped region")?;
    Ok(line.split_ascii_whitespace().nth(4).context("a short line of maps")?.parse()?)
}

pub(super) fn anonymous(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"parent", |stage| {
        let region = shm::map_anonymous(8)?;
        shm::touch(region, 3 * page_size())?;
        let held = Held {
            pid: std::process::id(),
            ino: shown(region)?,
            size: 8 * page(),
            charged: 3 * page(),
            ..Held::default()
        };
        let held = held.and_map(region, 0);
        let child = sys::fork(hold_on)?;
        stage.pause(&[held.clone(), held.of(child)])
    })?;
    let answer = ask_and_compare(ctx, &Shm::held("shm-anon", "", actor.paused()?))?;
    ctx.check_eq("buffers", 1, answer.list("buffers").len())?;
    let expected = format!("rss {} pss {} uss 0 fds 0 maps 1", 3 * page(), 3 * page() / 2);
    ctx.check_eq("one of two", expected, figures(&answer, actor.pid)?)
}

pub(super) fn unlinked(ctx: &mut Ctx) -> anyhow::Result<()> {
    const PATH: &str = "/dev/shm/lsbuf unlinked";
    let mut actor = Actor::start(b"owner", |stage| {
        let file = create(PATH)?;
        make::write_pages(&file, 3)?;
        ftruncate(&file, 8 * page())?;
        stage.pause(&[Held::by_file(&file)?])?;
        fs::remove_file(PATH)?;
        stage.pause(&[Held::by_file(&file)?])
    })?;
    for deleted in [false, true] {
        let held = actor.paused_with_one()?;
        ctx.check_eq("taken by its inode", 3 * page(), held.charged)?;
        let truth = Shm::held("tmpfs", PATH, vec![held]);
        let answer = ask_and_compare(ctx, &truth)?;
        ctx.check_eq("deleted", deleted, &truth.find(&answer)?["deleted"])?;
        // A file with a name would outlive its holder. Without a name, only a count tells whether
        // another holder keeps it.
        let uss = if deleted { by_bpf(ctx, 3 * page()) } else { "0".into() };
        ctx.check_eq("what an exit would free", uss, &answer.process(actor.pid)?["uss"])?;
        let named = Answer::ask(&["--kind", "tmpfs", "--name", PATH])?;
        ctx.check_eq("buffers of that name", 1, named.list("buffers").len())?;
        actor.go_on()?;
    }
    Ok(())
}

pub(super) fn elsewhere(ctx: &mut Ctx) -> anyhow::Result<()> {
    const PATH: &str = "/tmp/inside";
    let mut actor = Actor::start(b"contained", |stage| {
        task::enter_new(UnshareFlags::NEWNS)?;
        mount_tmpfs("/tmp")?;
        let file = create(PATH)?;
        make::write_pages(&file, 2)?;
        let map = sys::map_private(&file, 0, page_size())?;
        stage.pause(&[Held::by_file(&file)?.and_map(map, 0)])
    })?;
    let held = actor.paused_with_one()?;
    ctx.check("it does not exist outside of the namespace", !fs::exists(PATH)?)?;
    ask_and_compare(ctx, &Shm::held("tmpfs", PATH, vec![held]).and_private(1)).map(drop)
}

pub(super) fn secret(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"secret", |stage| {
        let fd = shm::secret()?;
        ftruncate(&fd, 4 * page())?;
        let map = sys::map(&fd, 0, 4 * page_size())?;
        shm::touch(map, 2 * page_size())?;
        stage.pause(&[Held::by_file(&fd)?.and_map(map, 0)])
    })?;
    let held = actor.paused_with_one()?;
    let answer = ask_and_compare(ctx, &Shm::held("secretmem", "", vec![held]).uncharged())?;
    // Its cost is then its size.
    ctx.check_eq("size in total", 4 * page(), &answer.0["totals"]["size"])
}

pub(super) fn ashmem(ctx: &mut Ctx) -> anyhow::Result<()> {
    const NAME: &str = "heap/of \"mine\"";
    let mut actor = Actor::start(b"android", |stage| {
        let file = shm::ashmem(NAME, 4 * page_size())?;
        let map = sys::map(&file, 0, 4 * page_size())?;
        shm::touch(map, 2 * page_size())?;
        drop(file);
        let held = Held {
            pid: std::process::id(),
            ino: shown(map)?,
            size: 4 * page(),
            charged: 2 * page(),
            ..Held::default()
        };
        stage.pause(&[held.and_map(map, 0)])
    })?;
    let answer = ask_and_compare(ctx, &Shm::held("ashmem", NAME, vec![actor.paused_with_one()?]))?;
    ctx.check_eq("buffers", 1, answer.list("buffers").len())
}

pub(super) fn of_huge_pages(ctx: &mut Ctx) -> anyhow::Result<()> {
    const PATH: &str = "/tmp/huge/file";
    let _aside = HugePages::set_aside(2)?;
    let size = HugePages::SIZE;
    fs::create_dir_all("/tmp/huge")?;
    mount("none", "/tmp/huge", "hugetlbfs", MountFlags::empty(), Some(c"pagesize=2M"))?;
    let mut actor = Actor::start(b"dpdk", |stage| {
        let file = create(PATH)?;
        ftruncate(&file, 2 * size)?;
        let map = sys::map(&file, 0, usize::try_from(2 * size)?)?;
        shm::touch(map, page_size())?;
        stage.pause(&[Held::by_file(&file)?.and_map(map, 0)])
    })?;
    let held = actor.paused_with_one()?;
    ctx.check_eq("taken by its inode", size, held.charged)?;
    let truth = Shm::held("hugetlbfs", PATH, vec![held]);
    let answer = ask_and_compare(ctx, &truth)?;
    ctx.check_eq("pages", size, &truth.find(&answer)?["huge_page"])?;
    drop(actor);
    unmount("/tmp/huge", UnmountFlags::DETACH).context("unmounting")
}
