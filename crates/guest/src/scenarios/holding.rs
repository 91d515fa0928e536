//! References by fds: what each way to get an fd adds to the account.

use std::os::unix::net::UnixStream;
use std::thread;

use dmabuf::share;

use crate::actor::{Actor, Held};
use crate::answer::{Answer, Truth};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys::{self, page};
use crate::way::Way;

/// Bytes of most buffers here: several pages, so that a size is never equal to a count by chance.
pub(super) const SIZE: u64 = 256 << 10;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fd_only",
        claim: "One fd is one reference and the whole account",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: fd_only,
    },
    Scenario {
        name: "dup",
        claim: "A duplicated fd is a second reference of one holder",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: dup,
    },
    Scenario {
        name: "many_fds",
        claim: "A process that holds one buffer by many fds shows the shape of an fd leak, and counts its size once",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: Way::BOTH,
        run: many_fds,
    },
    Scenario {
        name: "received",
        claim: "An fd received over a socket is a reference of the receiver; received twice, two",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: received,
    },
    Scenario {
        name: "threads_share_a_table",
        claim: "Threads that share their fd table hold each fd once",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: threads_share_a_table,
    },
    Scenario {
        name: "opath_alone",
        claim: "A buffer kept only by an O_PATH fd is found, with its size, though the kernel does not list it any more",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: opath_alone,
    },
    Scenario {
        name: "opath_after_others",
        claim: "A buffer kept only by an O_PATH fd has its size also when dma-bufs were found before it",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: opath_after_others,
    },
    Scenario {
        name: "process_figures",
        claim: "RSS, PSS and USS of two processes that share one of two buffers",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: process_figures,
    },
    Scenario {
        name: "who_holds",
        claim: "A holder is described by its command name, user, start time and cgroup",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: who_holds,
    },
];

/// Compares one buffer's account, and checks that the answer is complete and has no other buffer.
pub(super) fn compare(ctx: &mut Ctx, truth: &Truth) -> anyhow::Result<Answer> {
    let answer = Answer::ask(&[])?;
    compare_in(ctx, &answer, truth)?;
    ctx.check_eq("buffers", 1, answer.list("buffers").len())?;
    ctx.check_eq("complete", true, &answer.0["scan"]["complete"])?;
    Ok(answer)
}

/// Compares one buffer's account with an answer.
pub(super) fn compare_in(ctx: &mut Ctx, answer: &Answer, truth: &Truth) -> anyhow::Result<()> {
    let (ino, size) = truth.held.first().map_or((0, 0), |held| (held.ino, held.size));
    ctx.check_eq(format!("account of {ino}"), truth.line(size), answer.line(ino)?)
}

/// Starts an actor that holds one buffer by one fd.
pub(super) fn holder_of_one() -> anyhow::Result<Actor> {
    Actor::start(b"holder", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        stage.pause(&[Held::by(&buf)?])
    })
}

/// Starts an actor that holds one buffer by a mapping of the whole buffer, and by no fd.
pub(super) fn mapper_of_one() -> anyhow::Result<Actor> {
    Actor::start(b"mapper", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let region = sys::map(&buf, 0, usize::try_from(SIZE)?)?;
        let held = Held::by(&buf)?.and_map(region, 0).without_fds();
        drop(buf);
        stage.pause(&[held])
    })
}

/// Starts an actor that holds one buffer by an fd and, if a mapping shows the buffer on this
/// kernel, by a mapping of the whole buffer.
pub(super) fn holder_by_fd_and_mapping() -> anyhow::Result<Actor> {
    Actor::start(b"holder", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let mut held = Held::by(&buf)?;
        if Need::MappedIdentity.probe() {
            held = held.and_map(sys::map(&buf, 0, usize::try_from(SIZE)?)?, 0);
        }
        stage.pause(&[held])
    })
}

fn fd_only(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = holder_of_one()?;
    let held = actor.paused_with_one()?;
    compare(ctx, &Truth::held(make::plain_exporter(), vec![held])).map(drop)
}

fn dup(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"dup", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let second = buf.try_clone()?;
        stage.pause(&[Held::by(&buf)?.and_fd(&second)])?;
        drop(buf);
        stage.pause(&[Held::by(&second)?])
    })?;
    let both = actor.paused_with_one()?;
    compare(ctx, &Truth::held(make::plain_exporter(), vec![both]))?;
    actor.go_on()?;
    let one = actor.paused_with_one()?;
    compare(ctx, &Truth::held(make::plain_exporter(), vec![one])).map(drop)
}

fn many_fds(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"leaker", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let duplicates: Vec<_> = (0..100).map(|_| buf.try_clone()).collect::<Result<_, _>>()?;
        stage.pause(&[duplicates.iter().fold(Held::by(&buf)?, Held::and_fd)])
    })?;
    let held = actor.paused_with_one()?;
    let answer = compare(ctx, &Truth::held(make::plain_exporter(), vec![held.clone()]))?;
    ctx.check_eq("leak shape", "fd", answer.buffer(held.ino)?["leak_shape"].as_str().unwrap_or("none"))?;
    ctx.check_eq("rss", held.size, &answer.process(actor.pid)?["rss"])
}

fn received(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, to) = UnixStream::pair()?;
    let mut sender = Actor::start(b"sender", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        share::send(&from, &[&buf], b"1")?;
        stage.pause(&[Held::by(&buf)?])?;
        share::send(&from, &[&buf], b"2")?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let mut receiver = Actor::start(b"receiver", |stage| {
        let first = share::receive(&to, &mut [0])?.bufs.remove(0);
        stage.pause(&[Held::by(&first)?])?;
        let second = share::receive(&to, &mut [0])?.bufs.remove(0);
        stage.pause(&[Held::by(&first)?.and_fd(&second)])
    })?;
    let once = vec![sender.paused_with_one()?, receiver.paused_with_one()?];
    compare(ctx, &Truth::held(make::plain_exporter(), once))?;
    sender.go_on()?;
    receiver.go_on()?;
    let twice = vec![sender.paused_with_one()?, receiver.paused_with_one()?];
    compare(ctx, &Truth::held(make::plain_exporter(), twice)).map(drop)
}

fn threads_share_a_table(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"threads", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        for _ in 0..2 {
            thread::spawn(|| {
                loop {
                    thread::park();
                }
            });
        }
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let threads = std::fs::read_dir(format!("/proc/{}/task", actor.pid))?.count();
    ctx.check_eq("threads", 3, threads)?;
    compare(ctx, &Truth::held(make::plain_exporter(), vec![held])).map(drop)
}

fn opath_alone(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"path", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let path = sys::open_path(&buf)?;
        let held = Held::by(&buf)?.without_fds().and_opath(&path);
        drop(buf);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    // Nothing tells the exporter after the last counted reference.
    let truth = Truth::held("?", vec![held.clone()]);
    compare_in(ctx, &answer, &truth)?;
    ctx.check_eq("leak shape", "opath", answer.buffer(held.ino)?["leak_shape"].as_str().unwrap_or("none"))?;
    ctx.check_eq("opath in total", held.size, &answer.0["totals"]["opath"])?;
    ctx.check_eq("held in total", held.size, &answer.0["totals"]["held"])
}

fn opath_after_others(ctx: &mut Ctx) -> anyhow::Result<()> {
    // This actor is first, so that its pid is lower and its fd shows lsbuf the mount of dma-bufs
    // first.
    let mut other = holder_of_one()?;
    other.paused()?;
    let mut actor = Actor::start(b"path", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let path = sys::open_path(&buf)?;
        let held = Held::by(&buf)?.without_fds().and_opath(&path);
        drop(buf);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&[])?;
    compare_in(ctx, &answer, &Truth::held("?", vec![held.clone()]))?;
    ctx.check_eq("rss", held.size, &answer.process(actor.pid)?["rss"])
}

fn process_figures(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, to) = UnixStream::pair()?;
    let mut owner = Actor::start(b"owner", |stage| {
        let (shared, _) = make::plain(SIZE)?;
        let (own, _) = make::plain(page())?;
        share::send(&from, &[&shared], b"1")?;
        stage.pause(&[Held::by(&shared)?, Held::by(&own)?])
    })?;
    let mut client = Actor::start(b"client", |stage| {
        let shared = share::receive(&to, &mut [0])?.bufs.remove(0);
        stage.pause(&[Held::by(&shared)?])
    })?;
    let [shared, own] = <[Held; 2]>::try_from(owner.paused()?).map_err(|_| anyhow::anyhow!("two buffers"))?;
    client.paused()?;
    let answer = Answer::ask(&[])?;
    let figures = |pid| -> anyhow::Result<String> {
        let p = answer.process(pid)?;
        Ok(format!(
            "rss {} pss {} uss {} buffers {} fds {}",
            p["rss"], p["pss"], p["uss"], p["buffers"], p["fds"]
        ))
    };
    let (s, o) = (shared.size, own.size);
    let expected = format!("rss {} pss {} uss {o} buffers 2 fds 2", s + o, s / 2 + o);
    ctx.check_eq("owner", expected, figures(owner.pid)?)?;
    let expected = format!("rss {s} pss {} uss 0 buffers 1 fds 1", s / 2);
    ctx.check_eq("client", expected, figures(client.pid)?)?;
    let totals = &answer.0["totals"];
    let expected = format!("size {} held {} kernel_only 0 rss {} pss {}", s + o, s + o, 2 * s + o, s + o);
    let printed = format!(
        "size {} held {} kernel_only {} rss {} pss {}",
        totals["size"], totals["held"], totals["kernel_only"], totals["rss"], totals["pss"]
    );
    ctx.check_eq("totals", expected, printed)
}

fn who_holds(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"cam (x) 1", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        sys::become_user(1000)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    std::fs::create_dir_all("/sys/fs/cgroup/camera")?;
    std::fs::write("/sys/fs/cgroup/camera/cgroup.procs", actor.pid.to_string())?;
    let answer = Answer::ask(&[])?;
    let process = answer.process(actor.pid)?;
    ctx.check_eq("comm", "cam (x) 1", process["comm"].as_str().unwrap_or("?"))?;
    ctx.check_eq("uid", 1000, &process["uid"])?;
    ctx.check_eq("creator's uid", 0, &answer.buffer(held.ino)?["creator_uid"])?;
    ctx.check_eq("cgroup", "/camera", process["cgroup"].as_str().unwrap_or("?"))?;
    let created = answer.buffer(held.ino)?["created_at"].as_str().unwrap_or("?").to_owned();
    let now = answer.0["taken_at"].as_str().unwrap_or("?").to_owned();
    ctx.check("created before the snapshot", created.len() == now.len() && created <= now)?;
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let ticks = uptime.split('.').next().and_then(|s| s.parse::<u64>().ok()).unwrap_or(0) * 100 + 100;
    ctx.check("started since boot", process["start_time"].as_u64().is_some_and(|t| t > 0 && t <= ticks))
}
