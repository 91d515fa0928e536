//! Memfds: their cost, their holders and their names.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::slice;

use anyhow::ensure;
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate, memfd_create,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;

use super::kit::{Shm, ask, ask_and_compare, by_bpf, compare, figures, hold_on, page};
use crate::actor::{Actor, Held, Stage};
use crate::answer::{Answer, LSBUF};
use crate::hostile::HOSTILE;
use crate::make::{self, HugePages};
use crate::scenario::Ctx;
use crate::sys::{self, shm};

/// Bytes of the longest name that a memfd may have (`MFD_NAME_MAX_LEN` in mm/memfd.c).
const LONGEST: usize = 249;

pub(super) fn alone(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"alone", |stage| {
        let fd = make::memfd(b"alone", 0, 0)?;
        let pause = |stage: &mut Stage| stage.pause(&[Held::by_file(&fd)?]);
        pause(stage)?;
        ftruncate(&fd, 16 * page())?;
        pause(stage)?;
        make::write_pages(&fd, 6)?;
        pause(stage)?;
        fallocate(&fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, page(), 2 * page())?;
        pause(stage)?;
        fallocate(&fd, FallocateFlags::empty(), 8 * page(), 8 * page())?;
        pause(stage)?;
        ftruncate(&fd, 4 * page())?;
        pause(stage)
    })?;
    for (what, size, charged) in [
        ("empty", 0, 0),
        ("grown", 16, 0),
        ("written", 16, 6),
        ("punched", 16, 4),
        ("allocated", 16, 12),
        ("cut", 4, 2),
    ] {
        let held = actor.paused_with_one()?;
        let (size, charged) = (size * page(), charged * page());
        let made = format!("{size} bytes, {charged} taken");
        ctx.check_eq(
            format!("{what}: its inode"),
            made,
            format!("{} bytes, {} taken", held.size, held.charged),
        )?;
        let answer = ask_and_compare(ctx, &Shm::held("memfd", "alone", vec![held]))?;
        ctx.check_eq(format!("{what}: buffers"), 1, answer.list("buffers").len())?;
        ctx.check_eq(format!("{what}: size in total"), charged, &answer.0["totals"]["size"])?;
        actor.go_on()?;
    }
    Ok(())
}

pub(super) fn shared(ctx: &mut Ctx) -> anyhow::Result<()> {
    // A multiple of 6, so that halves and thirds are whole.
    let charged = 6 * page();
    let (from, to) = UnixStream::pair()?;
    let mut owner = Actor::start(b"owner", |stage| {
        let fd = make::memfd(b"shared", 8, 6)?;
        let held = Held::by_file(&fd)?;
        stage.pause(slice::from_ref(&held))?;
        let child = sys::fork(hold_on)?;
        let both = [held.clone(), held.of(child)];
        stage.pause(&both)?;
        sys::send_any(&from, &[fd.as_fd()])?;
        stage.pause(&both)
    })?;
    let mut client = Actor::start(b"client", |stage| {
        let fds = sys::receive_any(&to)?;
        stage.pause(&fds.iter().map(Held::by_file).collect::<anyhow::Result<Vec<_>>>()?)
    })?;
    let check = |ctx: &mut Ctx, held: Vec<Held>, uss: String| -> anyhow::Result<()> {
        let (first, holders) = (held.first().map_or(0, |held| held.pid), held.len() as u64);
        let answer = ask_and_compare(ctx, &Shm::held("memfd", "shared", held))?;
        let expected = format!("rss {charged} pss {} uss {uss} fds 1 maps 0", charged / holders);
        ctx.check_eq(format!("one of {holders}"), expected, figures(&answer, first)?)?;
        let totals = &answer.0["totals"];
        let expected = format!("size {charged} held {charged} rss {} pss {charged}", holders * charged);
        let printed = format!(
            "size {} held {} rss {} pss {}",
            totals["size"], totals["held"], totals["rss"], totals["pss"]
        );
        ctx.check_eq(format!("totals of {holders}"), expected, printed)
    };
    let held = owner.paused()?;
    // Only a count tells whether an exit would free it.
    let uss = by_bpf(ctx, charged);
    check(ctx, held, uss)?;
    owner.go_on()?;
    let held = owner.paused()?;
    check(ctx, held, "0".into())?;
    owner.go_on()?;
    let mut held = owner.paused()?;
    held.push(client.paused_with_one()?);
    check(ctx, held, "0".into())
}

pub(super) fn mapped_only(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"mapper", |stage| {
        let fd = make::memfd(b"left mapped", 8, 2)?;
        let shared = sys::map(&fd, 0, 8 * sys::page_size())?;
        let private = sys::map_private(&fd, page(), 2 * sys::page_size())?;
        let held = Held::by_file(&fd)?.and_map(shared, 0).and_map(private, page()).without_fds();
        drop(fd);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let truth = Shm::held("memfd", "left mapped", vec![held.clone()]).and_private(1);
    let answer = ask_and_compare(ctx, &truth)?;
    let buffer = truth.find(&answer)?;
    ctx.check_eq("leak shape", "map", buffer["leak_shape"].as_str().unwrap_or("none"))?;
    for ((start, _, _), perms) in held.maps.iter().zip(["rw-s", "rw-p"]) {
        let start = format!("{start:#x}");
        let maps = buffer["holders"][0]["maps"].as_array().into_iter().flatten();
        let map = maps.clone().find(|map| map["start"] == *start);
        let printed = map.and_then(|map| map["perms"].as_str()).unwrap_or("?");
        ctx.check_eq(format!("protection at {start}"), perms, printed)?;
    }
    ctx.check_eq("rss", 2 * page(), &answer.process(actor.pid)?["rss"])
}

/// A buffer's seals, as printed.
fn seals(b: &Value) -> String {
    b["seals"].to_string()
}

pub(super) fn sealed(ctx: &mut Ctx) -> anyhow::Result<()> {
    const SEALS: &str = r#"["shrink","grow","write"]"#;
    let mut actor = Actor::start(b"sealer", |stage| {
        let fd = make::memfd(b"sealed", 4, 1)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
        let held = Held::by_file(&fd)?;
        stage.pause(&[held])?;
        let map = sys::map_private(&fd, 0, 4 * sys::page_size())?;
        let held = Held::by_file(&fd)?.and_map(map, 0).without_fds();
        drop(fd);
        stage.pause(&[held])?;
        sys::unmap(map)?;
        // The kernel does not count the file that memfd_create opened as a writer, and gives leases
        // only on files that it counts.
        let fd = sys::open_again(make::memfd(b"leased", 4, 1)?)?;
        shm::take_lease(&fd)?;
        stage.pause(&[Held::by_file(&fd)?])?;
        ensure!(shm::has_lease(&fd), "the lease is broken");
        stage.pause(&[])
    })?;
    for (name, private, shown) in [("sealed", 0, SEALS), ("sealed", 1, SEALS), ("leased", 0, "null")] {
        let truth = Shm::held("memfd", name, vec![actor.paused_with_one()?]).and_private(private);
        let before = ask_and_compare(ctx, &truth)?;
        let wanted = format!("memfd:{}", truth.ino);
        let show =
            Answer::from(Command::new(LSBUF).args(["show", "--json", "--kind", "memfd", wanted.as_str()]))?;
        ctx.check_eq("buffers that are shown", 1, show.list("buffers").len())?;
        compare(ctx, &show, &truth)?;
        let after = ask_and_compare(ctx, &truth)?;
        if ctx.way.is_bpf() {
            // BPF iterators read them from the kernel's own structure.
            let set = if name == "leased" { "[]" } else { SEALS };
            ctx.check_eq("seals in the listing", set, seals(truth.find(&before)?))?;
            ctx.check_eq("seals by lsbuf show", set, seals(truth.find(&show)?))?;
        } else {
            ctx.check_eq("seals in the listing", "null", seals(truth.find(&before)?))?;
            ctx.check_eq("seals by lsbuf show", shown, seals(truth.find(&show)?))?;
        }
        ctx.check_eq("the same afterwards", truth.printed(&before)?, truth.printed(&after)?)?;
        actor.go_on()?;
    }
    // A broken lease would have killed it.
    actor.paused().map(drop)
}

pub(super) fn opath(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"path", |stage| {
        let fd = make::memfd(b"pinned", 4, 3)?;
        let path = sys::open_path(&fd)?;
        let held = Held::by_file(&fd)?.without_fds().and_opath(&path);
        drop(fd);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let truth = Shm::held("memfd", "pinned", vec![held]);
    let answer = ask_and_compare(ctx, &truth)?;
    let buffer = truth.find(&answer)?;
    ctx.check_eq("leak shape", "opath", buffer["leak_shape"].as_str().unwrap_or("none"))?;
    ctx.check_eq("rss", 3 * page(), &answer.process(actor.pid)?["rss"])
}

/// The kinds of buffer on the kernel's internal tmpfs.
const KERNELS: &str = "memfd,sysv,shm-anon,gem-shmem,ashmem,shm-other";

/// Files with names like those that the kernel gives to its own.
const IMPOSTORS: [&str; 4] = ["/memfd:x", "/memfd:x (deleted)", "/SYSV00000000", "/secretmem (deleted)"];

pub(super) fn hostile_names(ctx: &mut Ctx) -> anyhow::Result<()> {
    let more: [&[u8]; 6] = [
        b"SYSV00000000",
        b"/SYSV00000000",
        b"dev/zero",
        b"/dev/zero (deleted)",
        b"dmabuf:x",
        &[0xff; LONGEST],
    ];
    let names: Vec<&[u8]> = HOSTILE.iter().copied().chain(more).collect();
    for mapped in [false, true] {
        let mut actor = Actor::start(b"hostile", |stage| {
            let (mut held, mut kept) = (Vec::new(), Vec::new());
            for name in &names {
                let fd = make::memfd(name, 2, 1)?;
                let by_fd = Held::by_file(&fd)?;
                if mapped {
                    held.push(by_fd.and_map(sys::map(&fd, 0, 2 * sys::page_size())?, 0).without_fds());
                } else {
                    held.push(by_fd);
                    kept.push(fd);
                }
            }
            stage.pause(&held)
        })?;
        let held = actor.paused()?;
        let answer = ask(ctx, KERNELS)?;
        ctx.check_eq("buffers", names.len(), answer.list("buffers").len())?;
        for (held, name) in held.into_iter().zip(&names) {
            compare(ctx, &answer, &Shm::held("memfd", &String::from_utf8_lossy(name), vec![held]))?;
        }
    }
    let mut actor = Actor::start(b"impostor", |stage| {
        let held = IMPOSTORS.map(|path| {
            let file = File::create(path)?;
            make::write_pages(&file, 1)?;
            let held = Held::by_file(&file)?;
            std::mem::forget(file);
            anyhow::Ok(held)
        });
        stage.pause(&held.into_iter().collect::<anyhow::Result<Vec<_>>>()?)
    })?;
    let held = actor.paused()?;
    let answer = ask(ctx, KERNELS)?;
    ctx.check_eq("buffers on the kernel's internal tmpfs", 0, answer.list("buffers").len())?;
    let answer = ask(ctx, "all")?;
    // All of these files have their names, so a text like the kernel's mark of deleted files is a
    // part of the name.
    for (held, name) in held.into_iter().zip(IMPOSTORS) {
        compare(ctx, &answer, &Shm::held("tmpfs", name, vec![held]))?;
    }
    for path in ["/memfd:x", "/memfd:x (deleted)", "/SYSV00000000", "/secretmem (deleted)"] {
        fs::remove_file(path)?;
    }
    Ok(())
}

pub(super) fn huge(ctx: &mut Ctx) -> anyhow::Result<()> {
    let _aside = HugePages::set_aside(2)?;
    let page = HugePages::SIZE;
    let len = usize::try_from(2 * page)?;
    let mut actor = Actor::start(b"huge", |stage| {
        let fd = memfd_create(c"huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)?;
        ftruncate(&fd, 2 * page)?;
        let map = sys::map(&fd, 0, len)?;
        shm::touch(map, 1)?;
        stage.pause(&[Held::by_file(&fd)?.and_map(map, 0)])
    })?;
    let held = actor.paused_with_one()?;
    ctx.check_eq("taken by its inode", page, held.charged)?;
    let truth = Shm::held("memfd", "huge", vec![held]);
    let answer = ask_and_compare(ctx, &truth)?;
    ctx.check_eq("page", page, &truth.find(&answer)?["huge_page"])?;
    ctx.check_eq("rss", page, &answer.process(actor.pid)?["rss"])
}

pub(super) fn leak(ctx: &mut Ctx) -> anyhow::Result<()> {
    const NUMBER: u64 = 10_000;
    let mut actor = Actor::start(b"leaker", |stage| {
        let limit = Some(NUMBER + 100);
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
        let fds = (0..NUMBER)
            .map(|nth| make::memfd(format!("leak-{nth}").as_bytes(), 1, u64::from(nth == 0)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let last = fds.last().map_or(0, AsRawFd::as_raw_fd);
        ensure!(u64::try_from(last)? >= NUMBER, "the last fd is {last}");
        let ends = [fds.first(), fds.last()];
        stage.pause(&ends.into_iter().flatten().map(Held::by_file).collect::<anyhow::Result<Vec<_>>>()?)?;
        ensure!(fds.iter().all(|fd| fstat(fd).is_ok()), "an fd is closed");
        Ok(())
    })?;
    let ends = actor.paused()?;
    let answer = ask(ctx, "memfd")?;
    for (held, name) in ends.into_iter().zip(["leak-0", "leak-9999"]) {
        compare(ctx, &answer, &Shm::held("memfd", name, vec![held]))?;
    }
    ctx.check_eq("buffers", NUMBER, answer.list("buffers").len())?;
    ctx.check_eq("buffers in total", NUMBER, &answer.0["totals"]["buffers"])?;
    ctx.check_eq("size in total", page(), &answer.0["totals"]["size"])?;
    ctx.check_eq("buffers of the process", NUMBER, &answer.process(actor.pid)?["buffers"])?;
    let ps = Command::new(LSBUF).args(["ps", "-r", "-n", "-o", "PID,BUFS", "--kind", "memfd"]).output()?;
    let printed = String::from_utf8_lossy(&ps.stdout).into_owned();
    ctx.check_eq("lsbuf ps", format!("{} {NUMBER}\n", actor.pid), printed)
}
