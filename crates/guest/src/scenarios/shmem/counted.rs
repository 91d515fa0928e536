//! What only the kernel's counts, or dma-bufs beside shared memory, can tell: fds in messages,
//! running programs, udmabufs.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::slice;

use anyhow::{Context, ensure};
use dmabuf::{Direction, SealedMemfd, SyncFile, Udmabuf, share};

use super::kit::{Shm, ask, ask_and_compare, by_bpf, compare, page};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF, Truth};
use crate::make;
use crate::programs::WAIT;
use crate::scenario::Ctx;
use crate::scenarios::holding::{SIZE, compare_in};
use crate::sys::{self, page_size};

pub(super) fn in_flight(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, _unread) = UnixStream::pair()?;
    let mut actor = Actor::start(b"sender", |stage| {
        let fd = make::memfd(b"sent", 4, 2)?;
        let held = Held::by_file(&fd)?;
        sys::send_any(&from, &[fd.as_fd()])?;
        drop(fd);
        stage.pause(&[held])
    })?;
    let once = actor.paused_with_one()?;
    let answer = Answer::ask(&["--kind", "memfd"])?;
    ctx.check_eq("complete", ctx.way.is_bpf(), &answer.0["scan"]["complete"])?;
    if ctx.way.is_bpf() {
        let truth = Shm::unheld("memfd", "sent", &once).and_in_flight(1);
        compare(ctx, &answer, &truth)?;
        let shape = truth.find(&answer)?["leak_shape"].as_str().unwrap_or("none").to_owned();
        ctx.check_eq("leak shape", "in-flight", shape)?;
        ctx.check_eq("kernel-only", 2 * page(), &answer.0["totals"]["kernel_only"])
    } else {
        let notes = answer.0["scan"]["notes"].to_string();
        ctx.check_eq("buffers", 0, answer.list("buffers").len())?;
        let says = notes.contains("messages not yet received carry 1 fd,") && notes.contains("is missing");
        ctx.check(format!("a note says why: {notes}"), says)
    }
}

pub(super) fn many_in_flight(ctx: &mut Ctx) -> anyhow::Result<()> {
    /// The number of messages, and of files in each. One step of an iterator has room for about
    /// 490.
    const MESSAGES: (usize, usize) = (80, 8);
    let (from, _unread) = UnixStream::pair()?;
    let mut actor = Actor::start(b"sender", |stage| {
        for _ in 0..MESSAGES.0 {
            let memfds: anyhow::Result<Vec<_>> =
                (0..MESSAGES.1).map(|_| make::memfd(b"sent", 1, 1)).collect();
            let memfds = memfds?;
            sys::send_any(&from, &memfds.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
        }
        stage.pause(&[Held::by_file(&make::memfd(b"held", 1, 1)?)?])
    })?;
    let held = actor.paused_with_one()?;
    let answer = Answer::ask(&["--kind", "memfd"])?;
    let sent = || answer.list("buffers").iter().filter(|b| b["name"] == "sent");
    ctx.check_eq("memfds in messages", MESSAGES.0 * MESSAGES.1, sent().count())?;
    ctx.check_eq(
        "whether they are in messages is unknown",
        "null",
        &sent().next().context("none")?["refs"]["in_flight"],
    )?;
    ctx.check(
        "what the kernel has is an estimate",
        sent().all(|b| b["refs"]["kernel"] == 1 && b["estimate"] == true),
    )?;
    let notes = answer.0["scan"]["notes"].to_string();
    ctx.check(format!("a note says why: {notes}"), notes.contains("could not be read"))?;
    ctx.check("the held memfd is listed", answer.list("buffers").iter().any(|b| b["ino"] == held.ino))
}

pub(super) fn balances(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (from, to) = UnixStream::pair()?;
    let mut owner = Actor::start(b"owner", |stage| {
        let fd = make::memfd(b"counted", 4, 1)?;
        sys::send_any(&from, &[fd.as_fd()])?;
        let held = Held::by_file(&fd)?.and_map(sys::map(&fd, 0, page_size())?, 0);
        stage.pause(slice::from_ref(&held))?;
        // A second open file on the same inode, with its own count.
        let again = sys::open_again(&fd)?;
        let more = held.and_fd(&again).and_map(sys::map(&again, page(), page_size())?, page());
        stage.pause(slice::from_ref(&more))?;
        let second = again.try_clone()?;
        stage.pause(&[more.and_fd(&second)])
    })?;
    let mut client = Actor::start(b"client", |stage| {
        let fds = sys::receive_any(&to)?;
        let fd = fds.first().context("no fd")?;
        let held = Held::by_file(fd)?.and_map(sys::map(fd, 0, 4 * page_size())?, 0).without_fds();
        drop(fds);
        stage.pause(&[held])
    })?;
    let mapped = client.paused_with_one()?;
    for made in ["one file", "two files", "two files, one of two fds"] {
        let truth = Shm::held("memfd", "counted", vec![owner.paused_with_one()?, mapped.clone()]);
        let answer = ask_and_compare(ctx, &truth)?;
        let buffer = truth.find(&answer)?;
        let kernel = by_bpf(ctx, 0);
        ctx.check_eq(format!("{made}: what is left"), kernel, &buffer["refs"]["kernel"])?;
        ctx.check_eq(format!("{made}: an estimate"), false, &buffer["estimate"])?;
        owner.go_on()?;
    }
    Ok(())
}

/// The mappings of a file in a process's maps: their lines end with its path.
fn mapped(pid: u32, path: &str) -> anyhow::Result<Vec<(usize, usize, u64)>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let lines = maps.lines().filter(|line| line.ends_with(path));
    lines
        .map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (start, end) = words.next().and_then(|range| range.split_once('-')).context("no range")?;
            let offset = words.nth(1).context("no offset")?;
            let address = |text| usize::from_str_radix(text, 16);
            Ok((address(start)?, address(end)?, u64::from_str_radix(offset, 16)?))
        })
        .collect()
}

pub(super) fn running(ctx: &mut Ctx) -> anyhow::Result<()> {
    const PATH: &str = "/dev/shm/program";
    let own = std::env::current_exe()?;
    fs::copy(own, PATH).context("copying a program")?;
    let mut program = Command::new(PATH)
        .arg(WAIT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting it")?;
    // The file is freed when the program ends, and does not disturb what runs next.
    let file = File::open(PATH)?;
    fs::remove_file(PATH)?;
    let mut said = String::new();
    BufReader::new(program.stdout.take().context("no pipe")?).read_line(&mut said)?;
    ensure!(said == "waiting\n", "the program said {said:?}");
    let inode = file.metadata()?;
    drop(file);
    let held = Held {
        pid: program.id(),
        ino: inode.ino(),
        size: inode.size(),
        charged: inode.blocks() * 512,
        maps: mapped(program.id(), "/dev/shm/program (deleted)")?,
        ..Held::default()
    };
    ctx.check("it has mappings", held.maps.len() > 1)?;
    let mappings = held.maps.len();
    let truth = Shm::held("tmpfs", PATH, vec![held]).and_private(mappings).and_programs(1);
    let answer = ask_and_compare(ctx, &truth)?;
    ctx.check_eq("running from it", 1, &truth.find(&answer)?["refs"]["exe"])?;
    drop(program.stdin.take());
    ensure!(program.wait()?.success(), "the program failed");
    Ok(())
}

/// Whether a note says that memory may be counted twice.
fn says_twice(answer: &Answer) -> bool {
    answer.0["scan"]["notes"].to_string().contains("totals may count it twice")
}

pub(super) fn udmabuf(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"importer", |stage| {
        let memfd = SealedMemfd::create("frames", 8 * page())?;
        // One page that only the memfd has, and three that both have.
        make::write_pages(&memfd, 1)?;
        let buf = Udmabuf::open()?.create(memfd.range(2 * page(), 3 * page())?)?;
        stage.pause(&[Held::by_file(&memfd)?, Held::by(&buf)?])?;
        drop(memfd);
        stage.pause(&[Held::by(&buf)?])
    })?;
    let [memfd, buf] = <[Held; 2]>::try_from(actor.paused()?).map_err(|_| anyhow::anyhow!("two buffers"))?;
    ctx.check_eq("taken by the memfd's inode", 4 * page(), memfd.charged)?;
    let knows = ctx.way.is_bpf();
    let answer = ask(ctx, "dmabuf,memfd")?;
    let below = Shm::held("memfd", "frames", vec![memfd.clone()]);
    let above = Truth::held("udmabuf", vec![buf.clone()]);
    compare(ctx, &answer, &below)?;
    compare_in(ctx, &answer, &above)?;
    let dev = &below.find(&answer)?["dev"];
    let same = format!(r#"[{{"bytes":{},"dev":{dev},"ino":{},"kind":"memfd"}}]"#, 3 * page(), memfd.ino);
    let same = if knows { same } else { "null".into() };
    ctx.check_eq("the same memory", same, &answer.buffer(buf.ino)?["same_memory"])?;
    let totals = |answer: &Answer| {
        let t = &answer.0["totals"];
        format!("size {} same_memory {} held {}", t["size"], t["same_memory"], t["held"])
    };
    let (expected_size, same) = if knows { (4 * page(), 3 * page()) } else { (7 * page(), 0) };
    let expected = format!("size {expected_size} same_memory {same} held {expected_size}");
    ctx.check_eq("totals", expected, totals(&answer))?;
    ctx.check_eq("a note says that memory may be counted twice", !knows, says_twice(&answer))?;
    let figures = |answer: &Answer| -> anyhow::Result<String> {
        let p = answer.process(actor.pid)?;
        Ok(format!("rss {} pss {} uss {}", p["rss"], p["pss"], p["uss"]))
    };
    let bytes = expected_size;
    let uss = if knows { bytes.to_string() } else { "null".to_owned() };
    ctx.check_eq("figures of the holder", format!("rss {bytes} pss {bytes} uss {uss}"), figures(&answer)?)?;
    actor.go_on()?;
    let buf = actor.paused_with_one()?;
    let answer = ask(ctx, "dmabuf,memfd")?;
    compare_in(ctx, &answer, &above)?;
    let uss = if knows { (3 * page()).to_string() } else { "null".to_owned() };
    ctx.check_eq("what it frees then", uss, &answer.process(actor.pid)?["uss"])?;
    ctx.check_eq("buffers once the memfd is gone", 1, answer.list("buffers").len())?;
    let same = if knows { "[]" } else { "null" };
    ctx.check_eq("the same memory then", same, &answer.buffer(buf.ino)?["same_memory"])?;
    ctx.check_eq("totals then", format!("size {0} same_memory 0 held {0}", 3 * page()), totals(&answer))?;
    ctx.check_eq("a note then", false, says_twice(&answer))
}

/// A memfd and three udmabufs of parts of it, by one process; and then one of them by another
/// process, too. What exits free is read from the kernel. The memfd is small enough not to be
/// swapped to the guest's disk in memory, which would not give back its pages.
pub(super) fn udmabuf_figures(ctx: &mut Ctx) -> anyhow::Result<()> {
    const MEMFD: u64 = 16 << 20;
    const PART: u64 = 4 << 20;
    let (ours, theirs) = UnixStream::pair().context("making a socket pair")?;
    let mut machine = Actor::start(b"machine", |stage| {
        let memfd = SealedMemfd::create("ram", MEMFD)?;
        make::write_pages(&memfd, MEMFD / page())?;
        let parts = [0, MEMFD / 2, MEMFD - PART].map(|at| memfd.range(at, PART));
        let device = Udmabuf::open()?;
        let parts: Vec<_> = parts.into_iter().map(|part| device.create(part?)).collect::<Result<_, _>>()?;
        stage.pause(&[])?;
        share::send(&ours, &[&parts[1]], b"p")?;
        stage.pause(&[])
    })?;
    let figures = |answer: &Answer, pid: u32| -> anyhow::Result<String> {
        let p = answer.process(pid)?;
        Ok(format!("rss {} pss {} uss {}", p["rss"], p["pss"], p["uss"]))
    };
    machine.paused()?;
    let answer = ask(ctx, "dmabuf,memfd")?;
    let alone = format!("rss {MEMFD} pss {MEMFD} uss {MEMFD}");
    ctx.check_eq("figures of the only holder", alone, figures(&answer, machine.pid)?)?;
    let mut device = Actor::start(b"device", |stage| {
        let _part = share::receive(&theirs, &mut [0])?;
        stage.pause(&[])
    })?;
    machine.go_on()?;
    machine.paused()?;
    device.paused()?;
    let answer = ask(ctx, "dmabuf,memfd")?;
    let both = format!("rss {MEMFD} pss {} uss {}", MEMFD - PART / 2, MEMFD - PART);
    ctx.check_eq("figures of the memfd's holder", both, figures(&answer, machine.pid)?)?;
    let part = format!("rss {PART} pss {} uss 0", PART / 2);
    ctx.check_eq("figures of who has a part too", part, figures(&answer, device.pid)?)?;
    let totals = &answer.0["totals"];
    ctx.check_eq("PSS adds up to what is held", totals["held"].to_string(), totals["pss"].to_string())?;
    let before = free_memory()?;
    drop(machine);
    let expected = MEMFD - PART;
    let freed = free_memory()?.saturating_sub(before);
    // The rest is the process's own memory.
    let near = (expected - PART / 2..expected + PART / 2).contains(&freed);
    ctx.check(format!("the exit frees {expected} bytes, {freed} by MemFree and the processors' lists"), near)
}

/// `MemFree` of meminfo in bytes, and the free pages that wait in a list of each processor, which
/// it does not count.
fn free_memory() -> anyhow::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemFree:")).context("no MemFree")?;
    let free = line.trim().trim_end_matches("kB").trim().parse::<u64>().context("MemFree")? << 10;
    let zones = fs::read_to_string("/proc/zoneinfo").context("reading /proc/zoneinfo")?;
    let counts = zones.lines().filter_map(|line| line.trim().strip_prefix("count:"));
    let waiting: u64 = counts.filter_map(|count| count.trim().parse::<u64>().ok()).sum();
    Ok(free + waiting * page())
}

pub(super) fn udmabuf_in_pieces(ctx: &mut Ctx) -> anyhow::Result<()> {
    /// As many as the module takes by default. Their records would fill a step of an iterator.
    const PIECES: u64 = 1024;
    let mut actor = Actor::start(b"patchwork", |stage| {
        let memfds = [
            SealedMemfd::create("even", PIECES / 2 * page())?,
            SealedMemfd::create("odd", PIECES / 2 * page())?,
        ];
        let piece = |nth: u64| memfds[(nth % 2) as usize].range(nth / 2 * page(), page());
        let pieces: Vec<_> = (0..PIECES).map(piece).collect::<Result<_, _>>()?;
        let buf = Udmabuf::open()?.create_list(&pieces)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let buf = actor.paused_with_one()?;
    let answer = ask(ctx, "dmabuf,memfd")?;
    compare_in(ctx, &answer, &Truth::held("udmabuf", vec![buf.clone()]))?;
    ctx.check_eq("buffers", 3, answer.list("buffers").len())?;
    ctx.check_eq("the same memory", "null", &answer.buffer(buf.ino)?["same_memory"])?;
    ctx.check_eq("a note says that memory may be counted twice", true, says_twice(&answer))
}

pub(super) fn in_disguise(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"mapper", |stage| {
        let device = make::vgem()?;
        let buf = device.create_dumb(make::at_least(SIZE)?)?.handle.export()?;
        let region = sys::map(&buf, 0, SIZE as usize)?;
        stage.pause(&[Held::by(&buf)?.and_map(region, 0)])
    })?;
    let mut held = actor.paused_with_one()?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", actor.pid))?;
    let start = held.maps.first().map(|(start, ..)| format!("{start:x}-")).context("no mapping")?;
    let line = maps.lines().find(|line| line.starts_with(&start)).context("the mapping does not show")?;
    let masked = line.ends_with("/drm mm object (deleted)");
    ctx.check("it shows as itself or as the driver's", masked != line.ends_with("/dmabuf:"))?;
    let ino = line.split_ascii_whitespace().nth(4).context("no inode")?.to_owned();
    if masked {
        held.maps.clear();
    }
    let truth = Truth::held(make::DRM, vec![held.clone()]);
    let arguments = ["--kind", "dmabuf,gem-shmem"];
    let listed = Answer::ask(&arguments)?;
    compare_in(ctx, &listed, &truth)?;
    let masks = |answer: &Answer| -> String {
        let all = answer.list("buffers").iter().filter(|b| b["kind"] == "gem-shmem");
        all.map(|b| format!("{} of {} bytes held by {}", b["ino"], b["size"], b["holders"][0]["pid"]))
            .collect::<Vec<_>>()
            .join(", ")
    };
    // By BPF the file that the driver has for the buffer is listed in any case.
    let by_list = listed.0["scan"]["sources"].to_string().contains("shmem_inodes");
    let driver = listed.list("buffers").iter().find(|b| b["kind"] == "gem-shmem");
    let ino = if by_list { driver.context("no file of the driver")?["ino"].to_string() } else { ino };
    let holder = if masked { actor.pid.to_string() } else { "null".to_owned() };
    let expected = format!("{ino} of {} bytes held by {holder}", held.size);
    let shows = masked || by_list;
    ctx.check_eq(
        "what the driver's shmem shows as",
        if shows { expected } else { String::new() },
        masks(&listed),
    )?;
    ctx.check_eq("a list says that it may count twice", masked && !by_list, says_twice(&listed))?;
    // lsbuf show examines the buffer in full.
    let shown = Answer::of(
        &Command::new(LSBUF).args(["show", "--json"]).args(arguments).arg(held.ino.to_string()).output()?,
    )?;
    compare_in(ctx, &shown, &truth)?;
    let same = shown.buffer(held.ino)?["same_memory"].clone();
    let expected = if shows { ino } else { "null".into() };
    ctx.check_eq("the other buffer with the same memory", expected, same[0]["ino"].to_string())?;
    ctx.check_eq("a note then", false, says_twice(&shown))?;
    // Both have what the driver has allocated so far.
    let cost = |answer: &Answer, kind: &str| -> u64 {
        let kinds = answer.list("kinds").iter().filter(|k| k["kind"] == kind);
        kinds.filter_map(|k| k["charged"].as_u64().or(k["size"].as_u64())).sum()
    };
    let (whole, mask) = (cost(&shown, "dmabuf"), cost(&shown, "gem-shmem"));
    ctx.check_eq("counted once", whole.max(mask), &shown.0["totals"]["size"])?;
    ctx.check_eq("what both have", whole.min(mask), &shown.0["totals"]["same_memory"])
}

pub(super) fn sync_files(ctx: &mut Ctx) -> anyhow::Result<()> {
    const NUMBER: usize = 3;
    let mut actor = Actor::start(b"fences", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let held = Held::by(&buf)?;
        stage.pause(slice::from_ref(&held))?;
        let files = (0..NUMBER)
            .map(|_| buf.export_sync_file(Direction::ReadWrite))
            .collect::<Result<Vec<SyncFile>, _>>()?;
        stage.pause(slice::from_ref(&held))?;
        drop(files);
        stage.pause(&[held])
    })?;
    for (what, files) in [("a buffer", 0), ("with its fences", NUMBER), ("without them", 0)] {
        let held = actor.paused()?;
        let answer = ask(ctx, "dmabuf")?;
        compare_in(ctx, &answer, &Truth::held(make::plain_exporter(), held))?;
        ctx.check_eq(what, files, &answer.process(actor.pid)?["sync_files"])?;
        actor.go_on()?;
    }
    Ok(())
}
