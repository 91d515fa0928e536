//! References by mappings: what mapping, splitting, moving and inheriting VMAs does to the account.

use super::holding::{SIZE, compare, compare_in, mapper_of_one};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, Truth};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys::{self, Region, page, page_size};
use crate::way::Way;

const LEN: usize = SIZE as usize;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fd_and_map",
        claim: "An fd and a mapping are two references of one holder",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: fd_and_map,
    },
    Scenario {
        name: "map_in_disguise",
        claim: "A mapping that shows another inode is not taken for the buffer, and the account balances without it",
        needs: &[Need::Vgem],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: map_in_disguise,
    },
    Scenario {
        name: "fd_closed_but_mapped",
        claim: "A buffer that is only mapped is found with its name, size, exporter and the leak shape of a mapping",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: fd_closed_but_mapped,
    },
    Scenario {
        name: "fork",
        claim: "A forked child's copies of fds and mappings count as references",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: fork,
    },
    Scenario {
        name: "map_twice",
        claim: "Two mappings of one process are two references and one holder",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: map_twice,
    },
    Scenario {
        name: "partial_unmap",
        claim: "Unmapping the middle splits a VMA into two references; RSS stays the whole size",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: partial_unmap,
    },
    Scenario {
        name: "mremap",
        claim: "A VMA that is shrunk and moved stays one reference, at its new address",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: mremap,
    },
    Scenario {
        name: "map_files_agrees",
        claim: "map_files shows the same holders as maps",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::EveryByBpf,
        ways: &[Way::Procfs],
        run: map_files_agrees,
    },
];

fn truth(held: Held) -> Truth {
    Truth::held(make::plain_exporter(), vec![held])
}

fn fd_and_map(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"mapper", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let region = sys::map(&buf, page(), LEN - page_size())?;
        stage.pause(&[Held::by(&buf)?.and_map(region, page())])
    })?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &truth(held.clone()))?;
    let map = &answer.buffer(held.ino)?["holders"][0]["maps"][0];
    ctx.check_eq("perms", "rw-s", map["perms"].as_str().unwrap_or("?"))
}

fn map_in_disguise(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"mapper", |stage| {
        let device = make::vgem()?;
        let buf = device.create_dumb(make::at_least(SIZE)?)?.handle.export()?;
        let region = sys::map(&buf, 0, LEN)?;
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let start = format!("{:x}-", region.start);
        let as_itself = maps.lines().any(|line| line.starts_with(&start) && line.ends_with("/dmabuf:"));
        let held = Held::by(&buf)?;
        stage.pause(&[if as_itself { held.and_map(region, 0) } else { held }])
    })?;
    let held = actor.paused_with_one()?;
    compare(ctx, &Truth::held(make::DRM, vec![held])).map(drop)
}

fn fd_closed_but_mapped(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"mapper", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        buf.set_name("left mapped")?;
        let region = sys::map(&buf, 0, LEN)?;
        let held = Held::by(&buf)?.and_map(region, 0).without_fds();
        drop(buf);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &truth(held.clone()).named("left mapped"))?;
    ctx.check_eq("leak shape", "map", answer.buffer(held.ino)?["leak_shape"].as_str().unwrap_or("none"))?;
    ctx.check_eq("rss", held.size, &answer.process(actor.pid)?["rss"])
}

fn fork(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"parent", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let region = sys::map(&buf, 0, LEN)?;
        let child = sys::fork(|| {
            loop {
                std::thread::park();
            }
        })?;
        let held = Held::by(&buf)?.and_map(region, 0);
        stage.pause(&[held.clone(), held.of(child)])
    })?;
    let held = actor.paused()?;
    let size = held.first().map_or(0, |held| held.size);
    let answer = compare(ctx, &Truth::held(make::plain_exporter(), held))?;
    ctx.check_eq("mapped PSS of the parent", size / 2, &answer.process(actor.pid)?["mapped_pss"])
}

fn map_twice(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"mapper", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let whole = sys::map(&buf, 0, LEN)?;
        let part = sys::map(&buf, 2 * page(), page_size())?;
        stage.pause(&[Held::by(&buf)?.and_map(whole, 0).and_map(part, 2 * page())])
    })?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &truth(held.clone()))?;
    ctx.check_eq("rss counts it once", held.size, &answer.process(actor.pid)?["rss"])
}

fn partial_unmap(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"mapper", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let whole = sys::map(&buf, 0, LEN)?;
        sys::unmap(Region { start: whole.start + page_size(), len: page_size() })?;
        let first = Region { start: whole.start, len: page_size() };
        let rest = Region { start: whole.start + 2 * page_size(), len: LEN - 2 * page_size() };
        stage.pause(&[Held::by(&buf)?.and_map(first, 0).and_map(rest, 2 * page())])
    })?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &truth(held.clone()))?;
    ctx.check_eq("rss", held.size, &answer.process(actor.pid)?["rss"])
}

fn mremap(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"mapper", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let whole = sys::map(&buf, 0, LEN)?;
        let small = sys::shrink(whole, 2 * page_size())?;
        stage.pause(&[Held::by(&buf)?.and_map(small, 0)])?;
        let moved = sys::relocate(small)?;
        stage.pause(&[Held::by(&buf)?.and_map(moved, 0)])
    })?;
    let shrunk = actor.paused_with_one()?;
    compare(ctx, &truth(shrunk.clone()))?;
    actor.go_on()?;
    let moved = actor.paused_with_one()?;
    ctx.check("it moved", moved.maps != shrunk.maps)?;
    compare(ctx, &truth(moved)).map(drop)
}

fn map_files_agrees(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = mapper_of_one()?;
    let held = actor.paused_with_one()?;
    let maps = Answer::ask(&["--source", "procfs,bufinfo"])?;
    compare_in(ctx, &maps, &truth(held.clone()))?;
    // map_files does not tell the offset of a mapping in the buffer. Everything else is equal.
    let links = Answer::ask(&["--source", "map_files,bufinfo"])?;
    ctx.check_eq("account by map_files", maps.line(held.ino)?.replace("@0", "@?"), links.line(held.ino)?)?;
    ctx.check_eq("sources", r#"["fd","fdinfo","map_files","bufinfo"]"#, &links.0["scan"]["sources"])
}
