//! `lsbuf name`: names that another process gives, undoes, or is refused.

use std::fs;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use anyhow::Context;
use dmabuf::ErrorKind;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::CapabilitySet;

use super::holding::SIZE;
use crate::actor::{Actor, Held};
use crate::answer::{Answer, LSBUF};
use crate::caller::Caller;
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys::{self, task};
use crate::way::Way;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "named_by_another",
        claim: "lsbuf name sets, extends and takes away the name of another process's dma-buf, and its undo line sets the old one",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: named,
    },
    Scenario {
        name: "naming_refused",
        claim: "lsbuf name says in one line why it cannot name a buffer, and changes nothing",
        needs: &[],
        kernels: Kernels::EveryByBpf,
        ways: Way::BOTH,
        run: refused,
    },
    Scenario {
        name: "naming_while_attached",
        claim: "lsbuf name is refused while a device is attached where the kernel refuses that to a holder, and only there",
        needs: &[Need::Vgem, Need::Vivid],
        kernels: Kernels::Every,
        ways: Way::BOTH,
        run: attached,
    },
    Scenario {
        name: "naming_without_rights",
        claim: "Where Yama forbids to take an fd, lsbuf name says so",
        needs: &[Need::MappedIdentity],
        kernels: Kernels::Every,
        ways: &[Way::Procfs],
        run: without_rights,
    },
];

const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

fn name(arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(LSBUF).arg("name").args(arguments).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

/// The name in the fdinfo of a holder's fd.
fn present(held: &Held) -> anyhow::Result<String> {
    let fd = held.fds.first().context("no fd")?;
    let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", held.pid)).context("reading fdinfo")?;
    Ok(info.split_once("\nname:\t").map_or("", |(_, name)| name).trim_end_matches('\n').to_owned())
}

/// Checks that lsbuf refuses with these words in its one line.
fn refuses(ctx: &mut Ctx, what: &str, output: &Output, words: &str) -> anyhow::Result<()> {
    let said = text(&output.stderr);
    ctx.check(format!("{what}: {said:?} says {words:?}"), said.contains(words) && said.lines().count() == 1)?;
    ctx.check_eq(format!("{what}: status"), "Some(1)", format!("{:?}", output.status.code()))
}

fn named(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"holder", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let buffer = format!("dmabuf:{}", held.ino);
    let through = format!("(through fd {} of process {})", held.fds[0], held.pid);
    let steps: &[(&[&str], &str, &str)] = &[
        (&["first"], "first", "unnamed -> first"),
        (&["--prefix", "? "], "? first", "first -> ? first"),
        (&["--force", "it's\\x0ab"], "it's\\x0ab", "? first -> it's\\x0ab"),
        (&["--force", "plain"], "plain", "it's\\x0ab -> plain"),
    ];
    let mut undo = String::new();
    for (arguments, expected, line) in steps {
        let mut all = vec![buffer.as_str()];
        all.extend(*arguments);
        let output = name(&all)?;
        let said = text(&output.stdout);
        let (done, undone) = said.split_once('\n').unwrap_or_default();
        ctx.check_eq("what lsbuf prints", format!("{buffer}: {line} {through}"), done)?;
        ctx.check_eq("complaints", "", text(&output.stderr))?;
        undone.strip_prefix("undo: ").unwrap_or_default().clone_into(&mut undo);
        let shown = present(&held)?.replace('\n', "\\x0a");
        ctx.check_eq("the kernel's name", *expected, shown)?;
    }
    // The undo line is for a shell; the guest has none.
    let expected = format!(r"lsbuf name --force {buffer} -- 'it'\''s\x0ab'");
    ctx.check_eq("undo line", expected, &undo)?;
    name(&["--force", &buffer, "--", "it's\\x0ab"])?;
    ctx.check_eq("the name after that", "it's\nb", present(&held)?)?;
    let output = name(&[&buffer, "--clear", "--force"])?;
    ctx.check("it can be taken away", output.status.success())?;
    ctx.check_eq("the name then", "", present(&held)?)?;
    let count = Answer::ask(&[])?.buffer(held.ino)?["count"].to_string();
    ctx.check_eq("references afterwards", "1", count)
}

fn refused(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"holder", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        buf.set_name("mine")?;
        let (opath, _) = make::plain(SIZE)?;
        let path = sys::open_path(&opath)?;
        let opath_only = Held::by(&opath)?.without_fds().and_opath(&path);
        drop(opath);
        let memfd = make::memfd(b"a-memfd", 1, 1)?;
        stage.pause(&[Held::by(&buf)?, opath_only, Held::by_file(&memfd)?])
    })?;
    let held = actor.paused()?;
    let [buf, opath, memfd] = &held[..] else { anyhow::bail!("three buffers") };
    let number = |held: &Held| format!("dmabuf:{}", held.ino);
    let output = name(&[&number(buf), "other"])?;
    refuses(ctx, "named", &output, "its name is mine already: --force replaces it, --prefix keeps it")?;
    let output = name(&[&number(buf), "--clear"])?;
    refuses(ctx, "named, to be cleared", &output, "its name is mine already")?;
    let output = name(&[&number(buf), "--prefix", &"x".repeat(28)])?;
    refuses(
        ctx,
        "too long with its old name",
        &output,
        "the name would have 32 bytes, and the kernel takes 31",
    )?;
    let output = name(&[&number(buf), "a\\x1b"])?;
    refuses(ctx, "a control character", &output, "--force sets it")?;
    ctx.check_eq("the name after all that", "mine", present(buf)?)?;
    let output = name(&[&number(opath), "other"])?;
    refuses(ctx, "O_PATH alone", &output, "no process has an fd of it but O_PATH ones")?;
    let output = name(&[&format!("memfd:{}", memfd.ino), "other"])?;
    refuses(ctx, "a memfd", &output, "it is of kind memfd, and only dma-bufs have a name to set")?;
    let output = name(&["no-such-buffer", "other"])?;
    refuses(ctx, "no buffer", &output, "no dma-buf no-such-buffer among the")?;
    drop(actor);
    mapped_only(ctx)?;
    of_a_thread(ctx)
}

/// A mapping gives no fd.
fn mapped_only(ctx: &mut Ctx) -> anyhow::Result<()> {
    if !Need::MappedIdentity.probe() {
        return Ok(());
    }
    let mut actor = Actor::start(b"mapper", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let region = sys::map(&buf, 0, SIZE as usize)?;
        let held = Held::by(&buf)?.without_fds().and_map(region, 0);
        drop(buf);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let output = name(&[&format!("dmabuf:{}", held.ino), "other"])?;
    refuses(ctx, "mapped alone", &output, "no process has an fd of it, only mappings")
}

/// A thread with an fd table of its own: named where the kernel opens a pidfd of a thread.
fn of_a_thread(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"sandbox", |stage| {
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || {
                let ended = task::with_own_fds(|| {
                    let (buf, _) = make::plain(SIZE)?;
                    tell.send(Held::by(&buf)?.by_thread())?;
                    loop {
                        thread::park();
                    }
                });
                ended.unwrap_or_else(|error: anyhow::Error| {
                    eprintln!("a thread with its own table: {error:#}")
                })
            });
            stage.pause(&[told.recv().context("a thread has ended")?])
        })
    })?;
    let held = actor.paused_with_one()?;
    let output = name(&[&format!("dmabuf:{}", held.ino), "other"])?;
    let thread = i32::try_from(held.threads[0].tid)?;
    let thread = rustix::process::Pid::from_raw(thread).context("no thread")?;
    // PIDFD_THREAD is O_EXCL.
    let flags = rustix::process::PidfdFlags::from_bits_retain(rustix::fs::OFlags::EXCL.bits());
    if rustix::process::pidfd_open(thread, flags).is_ok() {
        ctx.check_eq("complaints about a thread's fd", "", text(&output.stderr))?;
        return ctx.check("a thread's fd is enough", text(&output.stdout).contains("unnamed -> other"));
    }
    refuses(ctx, "a thread's fd", &output, "this kernel cannot take one of a thread")
}

fn attached(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"importer", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        // A device that imports its own export attaches nothing.
        let buf = if make::has_heap() { buf } else { make::vivid()?.buffers(1)?.export(0)? };
        let screen = make::vgem()?;
        let _on_screen = screen.import(&buf)?;
        let busy = match buf.set_name("own") {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::NameBusy => true,
            Err(error) => return Err(error.into()),
        };
        let mut held = Held::by(&buf)?;
        held.charged = u64::from(busy);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let output = name(&[&format!("dmabuf:{}", held.ino), "--force", "other"])?;
    if held.charged == 1 {
        return refuses(ctx, "attached", &output, "a device is attached to it");
    }
    ctx.check_eq("the name", "other", present(&held)?)
}

fn without_rights(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"user", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        sys::become_user(Caller::USER.uid)?;
        set_dumpable_behavior(DumpableBehavior::Dumpable).context("allowing to be read")?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let held = actor.paused_with_one()?;
    let buffer = format!("dmabuf:{}", held.ino);
    let scope = fs::read_to_string(YAMA).ok();
    let as_user = |text: &str| -> anyhow::Result<Output> {
        Ok(Caller::USER
            .with(CapabilitySet::empty())
            .command(LSBUF)?
            .args(["name", &buffer, text])
            .output()?)
    };
    if let Some(before) = scope {
        fs::write(YAMA, "1").context("setting ptrace_scope")?;
        let output = as_user("other");
        fs::write(YAMA, before.trim()).context("restoring ptrace_scope")?;
        let words = "kernel.yama.ptrace_scope is 1, which allows it only to its ancestors";
        refuses(ctx, "Yama", &output?, words)?;
        fs::write(YAMA, "0").context("setting ptrace_scope")?;
        let output = as_user("by-user");
        fs::write(YAMA, before.trim()).context("restoring ptrace_scope")?;
        ctx.check_eq("complaints without Yama", "", text(&output?.stderr))?;
    } else {
        as_user("by-user")?;
    }
    ctx.check_eq("the name", "by-user", present(&held)?)
}
