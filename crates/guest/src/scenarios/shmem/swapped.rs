//! Swapped memory: the kernel's table tells it for segments, BPF iterators for other shared memory.

use super::kit::{Shm, ask, by_bpf, compare, page, swapped_of};
use super::sysv;
use crate::actor::{Actor, Held};
use crate::make;
use crate::scenario::Ctx;
use crate::sys::shm::{self, Segment};
use crate::sys::{self, Region, page_size};

/// Pages of each buffer that is swapped.
const PAGES: usize = 64;

pub(super) fn swapped(ctx: &mut Ctx) -> anyhow::Result<()> {
    let _swap = make::swap()?;
    let segment = Segment::create(0, PAGES)?;
    let charged = PAGES as u64 * page();
    let mut actor = Actor::start(b"swapped", |stage| {
        let memfd = make::memfd(b"swapped", PAGES as u64, 0)?;
        let (file, attached) = (sys::map(&memfd, 0, PAGES * page_size())?, segment.attach()?);
        for region in [file, attached] {
            shm::touch(region, region.len)?;
        }
        let by_segment =
            Held { pid: std::process::id(), ino: segment.id(), size: charged, charged, ..Held::default() };
        let mut held = [Held::by_file(&memfd)?.and_map(file, 0), by_segment.and_map(attached, 0)];
        stage.pause(&held)?;
        // A half of each is swapped.
        for region in [file, attached] {
            shm::page_out(Region { len: region.len / 2, ..region })?;
        }
        if let Some(memfd_now) = held.first_mut() {
            memfd_now.charged = Held::by_file(&memfd)?.charged;
        }
        // The swapped bytes are reported in the field for sizes. The sizes stay the same.
        let told = [file, attached]
            .map(|region| swapped_of(region).map(|swapped| Held { size: swapped, ..Held::default() }));
        stage.pause(&told.into_iter().collect::<anyhow::Result<Vec<_>>>()?)?;
        stage.pause(&held)
    })?;
    let held = actor.paused()?;
    check(ctx, held, [0, 0])?;
    actor.go_on()?;
    let told: Vec<u64> = actor.paused()?.iter().map(|told| told.size).collect();
    actor.go_on()?;
    let held = actor.paused()?;
    let [of_memfd, of_segment] = <[u64; 2]>::try_from(told).map_err(|_| anyhow::anyhow!("two figures"))?;
    for (what, swapped) in [("the memfd", of_memfd), ("the segment", of_segment)] {
        ctx.check(format!("{what}: {swapped} bytes are swapped"), swapped > 0 && swapped <= charged / 2)?;
    }
    let row = sysv::row(segment.id())?;
    let column = |nth: usize| row.get(nth).cloned().unwrap_or_default();
    ctx.check_eq(
        "the kernel's table",
        format!("{} {of_segment}", charged - of_segment),
        [column(14), column(15)].join(" "),
    )?;
    check(ctx, held, [of_memfd, of_segment])
}

fn check(ctx: &mut Ctx, held: Vec<Held>, [of_memfd, of_segment]: [u64; 2]) -> anyhow::Result<()> {
    let [memfd, segment] = <[Held; 2]>::try_from(held).map_err(|_| anyhow::anyhow!("two buffers"))?;
    let answer = ask(ctx, "memfd,sysv")?;
    let (memfd, segment) = (Shm::held("memfd", "swapped", vec![memfd]), Shm::held("sysv", "", vec![segment]));
    compare(ctx, &answer, &memfd)?;
    compare(ctx, &answer, &segment)?;
    let expected = by_bpf(ctx, of_memfd);
    ctx.check_eq("swapped of the memfd", expected, &memfd.find(&answer)?["swapped"])?;
    let buffer = segment.find(&answer)?;
    ctx.check_eq("swapped of the segment", of_segment, &buffer["swapped"])?;
    ctx.check_eq("in its table", of_segment, &buffer["segment"]["swap"])
}
