//! System V segments: attached, removed, unattached, and with an id that another buffer has too.

use std::fs;

use anyhow::{Context, ensure};
use rustix::thread::UnshareFlags;

use super::kit::{Shm, ask, ask_and_compare, compare, hold_on, page};
use crate::actor::{Actor, Held};
use crate::answer::Answer;
use crate::make;
use crate::processes;
use crate::scenario::Ctx;
use crate::sys::shm::{self, Segment};
use crate::sys::{self, Region, page_size, task};

/// The sign bit is set, so the kernel's table shows a negative number.
pub(super) const KEY: u32 = 0xdead_beef;

/// The id that the next segment of the caller's namespace gets. The file needs
/// CONFIG_CHECKPOINT_RESTORE.
pub(super) const NEXT_ID: &str = "/proc/sys/kernel/shm_next_id";

/// A segment, as this process holds it.
pub(super) fn held(segment: &Segment, pages: u64, touched: u64, attached: &[Region]) -> Held {
    let all = Held {
        pid: std::process::id(),
        ino: segment.id(),
        size: pages * page(),
        charged: touched * page(),
        ..Held::default()
    };
    attached.iter().fold(all, |held, &region| held.and_map(region, 0))
}

/// The kernel's row of a segment in the caller's namespace.
pub(super) fn row(id: u64) -> anyhow::Result<Vec<String>> {
    let table = fs::read_to_string("/proc/sysvipc/shm")?;
    let rows = table.lines().map(|line| line.split_ascii_whitespace().map(str::to_owned).collect());
    let mut rows = rows.filter(|row: &Vec<String>| row.get(1) == Some(&id.to_string()));
    rows.next().with_context(|| format!("the kernel has no segment {id}"))
}

/// The inode number of a process's IPC namespace.
pub(super) fn namespace(pid: u32) -> anyhow::Result<u64> {
    let link = fs::read_link(format!("/proc/{pid}/ns/ipc"))?;
    let number = link.to_str().and_then(|link| link.strip_prefix("ipc:[")?.strip_suffix("]"));
    Ok(number.context("a malformed link")?.parse()?)
}

pub(super) fn attached(ctx: &mut Ctx) -> anyhow::Result<()> {
    let segment = Segment::create(KEY, 8)?;
    let mut actor = Actor::start(b"attacher", |stage| {
        let (first, second) = (segment.attach()?, segment.attach()?);
        shm::touch(first, page_size())?;
        shm::touch(second, 3 * page_size())?;
        let twice = held(&segment, 8, 3, &[first, second]);
        let child = sys::fork(hold_on)?;
        stage.pause(&[twice.clone(), twice.clone().of(child)])?;
        stage.pause(&[twice.clone(), twice.clone().of(child)])?;
        processes::end_child(child)?;
        stage.pause(&[twice])?;
        shm::detach(first)?;
        stage.pause(&[held(&segment, 8, 3, &[second])])?;
        shm::detach(second)?;
        stage.pause(&[])
    })?;
    let namespace = namespace(std::process::id())?;
    // The kernel's table forgets the key of a removed segment; the path of its mappings keeps it.
    for (removed, key, attached) in [(false, KEY, 4), (true, 0, 4), (true, 0, 2), (true, 0, 1)] {
        let truth = Shm::held("sysv", "0xdeadbeef", actor.paused()?).in_namespace(namespace);
        let answer = ask_and_compare(ctx, &truth)?;
        let buffer = truth.find(&answer)?;
        let s = &buffer["segment"];
        let printed = format!(
            "key {} owner {} creator {} attached {} removed {} deleted {} rss {} swap {}",
            s["key"],
            s["owner"],
            s["creator_pid"],
            s["attached"],
            s["removed"],
            buffer["deleted"],
            s["rss"],
            s["swap"],
        );
        let expected = format!(
            "key {key} owner 0 creator {} attached {attached} removed {removed} deleted {removed} rss {} swap 0",
            std::process::id(),
            3 * page(),
        );
        ctx.check_eq(format!("the kernel's account, {attached} attached"), expected, printed)?;
        if !removed {
            segment.remove()?;
        }
        actor.go_on()?;
    }
    actor.paused()?;
    let answer = ask(ctx, "sysv")?;
    ctx.check_eq("segments once it is detached", 0, answer.list("buffers").len())
}

pub(super) fn unattached(ctx: &mut Ctx) -> anyhow::Result<()> {
    let segment = Segment::create(KEY, 8)?;
    let region = segment.attach()?;
    shm::touch(region, 2 * page_size())?;
    shm::detach(region)?;
    let namespace = namespace(std::process::id())?;
    let truth = Shm::unheld("sysv", "0xdeadbeef", &held(&segment, 8, 2, &[])).in_namespace(namespace);
    let answer = ask_and_compare(ctx, &truth)?;
    let totals = &answer.0["totals"];
    let printed = format!(
        "buffers {} size {} held {} kernel_only {}",
        totals["buffers"], totals["size"], totals["held"], totals["kernel_only"]
    );
    ctx.check_eq("totals", format!("buffers 1 size {0} held 0 kernel_only {0}", 2 * page()), printed)?;
    ctx.check_eq("removed", false, &truth.find(&answer)?["segment"]["removed"])?;
    let alone = Answer::ask(&["--kind", "sysv", "--unheld"])?;
    compare(ctx, &alone, &truth)?;
    segment.remove()?;
    let answer = ask(ctx, "sysv")?;
    ctx.check_eq("segments once it is removed", 0, answer.list("buffers").len())
}

pub(super) fn two_namespaces(ctx: &mut Ctx) -> anyhow::Result<()> {
    let outside = Segment::create(0, 2)?;
    let mut outer = Actor::start(b"outer", |stage| {
        let region = outside.attach()?;
        shm::touch(region, page_size())?;
        stage.pause(&[held(&outside, 2, 1, &[region])])
    })?;
    let mut inner = Actor::start(b"inner", |stage| {
        task::enter_new(UnshareFlags::NEWIPC)?;
        fs::write(NEXT_ID, outside.id().to_string()).context("choosing the next id")?;
        let inside = Segment::create(KEY, 4)?;
        ensure!(inside.id() == outside.id(), "ids {} and {} differ", inside.id(), outside.id());
        let region = inside.attach()?;
        shm::touch(region, 3 * page_size())?;
        let attached = held(&inside, 4, 3, &[region]);
        let left = Segment::create(0, 16)?;
        stage.pause(&[attached, held(&left, 16, 0, &[])])
    })?;
    let attached = outer.paused_with_one()?;
    let [other, left] =
        <[Held; 2]>::try_from(inner.paused()?).map_err(|_| anyhow::anyhow!("two segments"))?;
    let (here, there) = (namespace(outer.pid)?, namespace(inner.pid)?);
    ctx.check("the namespaces differ", here != there)?;
    let answer = ask(ctx, "sysv")?;
    compare(ctx, &answer, &Shm::held("sysv", "", vec![attached]).in_namespace(here))?;
    compare(ctx, &answer, &Shm::held("sysv", "0xdeadbeef", vec![other]).in_namespace(there))?;
    compare(ctx, &answer, &Shm::unheld("sysv", "", &left).in_namespace(there))?;
    ctx.check_eq("segments", 3, answer.list("buffers").len())
}

pub(super) fn namespace_left(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FIRST: &str = "/tmp/first-namespace";
    const OTHER_KEY: u32 = 0xfeed_beef;
    let mut actor = Actor::start(b"leaver", |stage| {
        task::enter_new(UnshareFlags::NEWIPC)?;
        fs::write(FIRST, namespace(std::process::id())?.to_string())?;
        let attached = Segment::create(KEY, 4)?;
        let region = attached.attach()?;
        shm::touch(region, 3 * page_size())?;
        task::enter_new(UnshareFlags::NEWIPC)?;
        let other = Segment::create(OTHER_KEY, 16)?;
        ensure!(other.id() == attached.id(), "ids {} and {} differ", other.id(), attached.id());
        stage.pause(&[held(&attached, 4, 3, &[region]), held(&other, 16, 0, &[])])
    })?;
    let [attached, other] =
        <[Held; 2]>::try_from(actor.paused()?).map_err(|_| anyhow::anyhow!("two segments"))?;
    let answer = ask(ctx, "sysv")?;
    compare(ctx, &answer, &Shm::unheld("sysv", "0xfeedbeef", &other).in_namespace(namespace(actor.pid)?))?;
    ctx.check_eq("segments", 2, answer.list("buffers").len())?;
    let left =
        answer.list("buffers").iter().find(|b| b["name"] == "0xdeadbeef").context("what is attached")?;
    let first = if ctx.way.is_bpf() { fs::read_to_string(FIRST)? } else { "null".into() };
    ctx.check_eq("its namespace", first, &left["ipc_namespace"])?;
    ctx.check_eq("its size", attached.size, &left["size"])?;
    ctx.check_eq("its holder", actor.pid, &left["holders"][0]["pid"])
}

pub(super) fn collides(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"collider", |stage| {
        let memfd = make::memfd(b"SYSV00000000", 2, 1)?;
        let by_fd = Held::by_file(&memfd)?;
        fs::write(NEXT_ID, by_fd.ino.to_string()).context("choosing the next id")?;
        let segment = Segment::create(0, 4)?;
        // Removed at once, because this process is killed and cannot drop it.
        let region = segment.attach()?;
        segment.remove()?;
        ensure!(segment.id() == by_fd.ino, "{} and {} differ", segment.id(), by_fd.ino);
        shm::touch(region, 3 * page_size())?;
        let map = sys::map(&memfd, 0, 2 * page_size())?;
        stage.pause(&[by_fd.and_map(map, 0), held(&segment, 4, 3, &[region])])
    })?;
    let [memfd, segment] =
        <[Held; 2]>::try_from(actor.paused()?).map_err(|_| anyhow::anyhow!("two buffers"))?;
    let namespace = namespace(actor.pid)?;
    let answer = ask(ctx, "memfd,sysv")?;
    compare(ctx, &answer, &Shm::held("memfd", "SYSV00000000", vec![memfd.clone()]))?;
    compare(ctx, &answer, &Shm::held("sysv", "", vec![segment]).in_namespace(namespace))?;
    ctx.check_eq("buffers", 2, answer.list("buffers").len())?;
    let devices: Vec<&str> = answer.list("buffers").iter().filter_map(|b| b["dev"].as_str()).collect();
    ctx.check("on one device", devices.len() == 2 && devices.first() == devices.last())?;
    ctx.check_eq("rss", 4 * page(), &answer.process(actor.pid)?["rss"])
}
