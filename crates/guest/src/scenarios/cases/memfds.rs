//! Memfds: a browser's, a heap that is mapped several times, window decorations, an object store.

use std::fs::{self, File};

use anyhow::Context;

use super::kit::{Program, borrowed, fork_heir, lines, row};
use crate::actor::{Actor, Held};
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::shmem::kit::page;
use crate::sys::{self, page_size, shm};

/// A figure that only BPF iterators can tell, as a table shows it.
fn by_bpf(ctx: &Ctx, figure: u64) -> String {
    if ctx.way.is_bpf() { figure.to_string() } else { "?".into() }
}

/// Case 3. Three processes of a browser with one command name share three memfds.
pub(super) fn browser(ctx: &mut Ctx) -> anyhow::Result<()> {
    let frames = [4, 8, 16].map(|pages| make::memfd(b"shared_memory", pages, pages));
    let frames = frames.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let mut processes = Vec::new();
    for (kind, part, pages) in [
        ("--type=browser", &frames[..], 28),
        ("--type=gpu", &frames[1..], 24),
        ("--type=renderer", &frames[2..], 16),
    ] {
        processes.push((Program::start("chromium", kind, &borrowed(part))?, kind, part.len(), pages));
    }
    drop(frames);
    let listed = lines("ps -n --kind memfd -o PID,COMMAND,BUFS,RSS,ARGS")?;
    ctx.check_eq("processes with a memfd", processes.len(), listed.len())?;
    for (process, kind, memfds, pages) in &processes {
        let (pid, rss) = (process.pid(), pages * page());
        let expected = format!("{pid} chromium {memfds} {rss} chromium wait {kind}");
        ctx.check_eq(*kind, expected, row(&listed, pid))?;
    }
    Ok(())
}

/// Case 7. A heap of 16 pages that one process has mapped three times.
pub(super) fn heap_mapped_thrice(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut java = Actor::start(b"java", |stage| {
        let heap = make::memfd(b"java_heap", 64, 16)?;
        let mut held = Held::by_file(&heap)?;
        for _ in 0..3 {
            held = held.and_map(sys::map(&heap, 0, 64 * page_size())?, 0);
        }
        stage.pause(&[held])
    })?;
    java.paused()?;
    let (heap, freed) = (16 * page(), by_bpf(ctx, 16 * page()));
    let expected = format!("[\"{} java {heap} {freed} 1 3\"]", java.pid);
    let listed = lines("ps -n --kind memfd -o PID,COMMAND,RSS,USS,FDS,MAPS")?;
    ctx.check_eq("the heap counts once", expected, format!("{listed:?}"))
}

/// Case 8. Memfds of one name that are mapped and have no fd.
pub(super) fn many_of_one_name(ctx: &mut Ctx) -> anyhow::Result<()> {
    const NUMBER: u64 = 20;
    let mut editor = Actor::start(b"editor", |stage| {
        for _ in 0..NUMBER {
            sys::map(make::memfd(b"libdecor", 100, 1)?, 0, 100 * page_size())?;
        }
        let _other = make::memfd(b"other", 1, 1)?;
        stage.pause(&[])
    })?;
    editor.paused()?;
    let listed = lines("sum -n --by name --kind memfd -o KEY,BUFS,SIZE,COST,FDS,MAPS,PROCS")?;
    let expected = [
        format!("libdecor {NUMBER} {} {} 0 {NUMBER} 1", NUMBER * 100 * page(), NUMBER * page()),
        format!("other 1 {0} {0} 1 0 1", page()),
    ];
    ctx.check_eq("memfds by name", format!("{expected:?}"), format!("{listed:?}"))?;
    let listed = lines("ps -n --kind memfd -o PID,COMMAND,BUFS,MAPS,RSS")?;
    let expected = format!("[\"{} editor {} {NUMBER} {}\"]", editor.pid, NUMBER + 1, (NUMBER + 1) * page());
    ctx.check_eq("who holds them", expected, format!("{listed:?}"))
}

/// `RssShmem` of a process, as the kernel prints it.
fn rss_shmem(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).context("no RssShmem")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
}

/// Case 12. A store of 2048 pages, and two workers that have touched different parts of it.
pub(super) fn part_of_a_store(ctx: &mut Ctx) -> anyhow::Result<()> {
    const PAGES: u64 = 2048;
    const FIRST: u64 = 128;
    let store = make::memfd(b"plasma", 2 * PAGES, PAGES)?;
    let worker = |touched: usize| {
        Actor::start(b"ray::worker", |stage| {
            let region = sys::map(&store, 0, 2 * PAGES as usize * page_size())?;
            // The code is a file of a tmpfs, too. Afterwards it is in the page tables and counted.
            stage.pause(&[])?;
            shm::touch(region, FIRST as usize * page_size())?;
            stage.pause(&[])?;
            shm::touch(region, touched * page_size())?;
            stage.pause(&[])
        })
    };
    let mut workers = [(worker(1024)?, 1024), (worker(256)?, 256)];
    drop(store);
    let mut before = Vec::new();
    for (worker, _) in &mut workers {
        worker.paused()?;
        worker.go_on()?;
        worker.paused()?;
        before.push(rss_shmem(worker.pid)?);
        worker.go_on()?;
        worker.paused()?;
    }
    let listed = lines("ps -n --kind memfd -o PID,COMMAND,RSS,PSS,SHMRSS")?;
    for ((worker, touched), before) in workers.iter().zip(before) {
        let mapped = rss_shmem(worker.pid)?;
        let expected =
            format!("{} ray::worker {} {} {mapped}", worker.pid, PAGES * page(), PAGES / 2 * page());
        ctx.check_eq("the store, and the worker's part", expected, row(&listed, worker.pid))?;
        // Kernels before 6.2 add up the pages of a task in batches of 64.
        let grown = (mapped - before) / page();
        let near = grown.abs_diff(touched - FIRST) <= 64;
        ctx.check(
            format!("the worker's part grew by {grown} pages, and it touched {}", touched - FIRST),
            near,
        )?;
    }
    Ok(())
}

/// Case 9. A compositor keeps 20 fds of a client's memory, and three shells have inherited them. A
/// fourth child has opened the memory itself.
pub(super) fn inherited_fds(ctx: &mut Ctx) -> anyhow::Result<()> {
    const FDS: usize = 20;
    let mut compositor = Actor::start(b"Hyprland", |stage| {
        let pool = make::memfd(b"wl_shm-pool", 8, 8)?;
        let _copies = (1..FDS).map(|_| pool.try_clone()).collect::<Result<Vec<_>, _>>()?;
        let held = Held::by_file(&pool)?;
        let shells = (0..3).map(|_| fork_heir("bash")).collect::<anyhow::Result<Vec<_>>>()?;
        let inherited: Vec<Held> = shells.into_iter().map(|shell| held.clone().of(shell)).collect();
        stage.pause(&inherited)
    })?;
    let inherited = compositor.paused()?;
    let leaks = compositor.pid;
    let again = File::options().read(true).open(format!("/proc/{leaks}/fd/{}", inherited[0].fds[0]))?;
    let other = Program::start("eww", "again", &borrowed(&[again.try_clone()?]))?;
    drop(again);
    let listed = lines("ps -n --kind memfd -o PID,COMMAND,FDS,PPID,INHERITED")?;
    ctx.check_eq("processes", 2 + inherited.len(), listed.len())?;
    let parent = std::process::id();
    let expected = format!("{leaks} Hyprland {FDS} {parent} -");
    ctx.check_eq("who leaks", expected, row(&listed, leaks))?;
    let expected = format!("{} eww 1 {parent} -", other.pid());
    ctx.check_eq("who opened it again", expected, row(&listed, other.pid()))?;
    for shell in &inherited {
        let expected = format!("{} bash {FDS} {leaks} Hyprland:{leaks}({FDS})", shell.pid);
        ctx.check_eq("who inherited", expected, row(&listed, shell.pid))?;
    }
    let shown = lines("show --kind memfd wl_shm-pool")?;
    let says = format!("inherited from {leaks} (shared open file)");
    let heirs = shown.iter().filter(|line| line.ends_with(&says)).count();
    ctx.check_eq("heirs that show names", inherited.len(), heirs)?;
    let files = shown.iter().filter(|line| line.starts_with("one open file in ")).count();
    ctx.check_eq("open files that several have", 1, files)
}
