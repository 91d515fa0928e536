//! What a member of the recorder's group reads, and that it can change nothing; and a kernel that
//! cannot run the recorder.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

use super::kit::{Origins, SET, install, line, remove, told};
use crate::actor::{Actor, Held};
use crate::answer::USER;
use crate::make;
use crate::need::Need;
use crate::scenario::Ctx;
use crate::scenarios::holding::SIZE;
use crate::scenarios::probes::{GROUP, by_user_in, lsbuf};
use crate::sys;

pub(super) fn for_a_group(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &["--group", &GROUP.to_string()])?;
    let mut actor = Actor::start(b"maker", |stage| {
        let (buf, _) = make::plain(SIZE)?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let made = actor.paused_with_one()?;
    let maker = line(actor.pid, "maker", actor.pid, "maker", 0);
    let origins = Origins::ask(&mut by_user_in(GROUP, &["--kind", "dmabuf"]))?;
    ctx.check_eq("a member is told", maker, told(origins.of("dmabuf", made.ino)?))?;
    let outsiders = by_user_in(USER, &["ls", "-o", "INO,ORIGIN", "--kind", "dmabuf"]).output()?;
    let said = String::from_utf8_lossy(&outsiders.stderr).into_owned();
    ctx.check(format!("an outsider is not: {said}"), said.contains("the flight recorder cannot be read"))?;
    let set = Path::new(SET);
    for entry in std::fs::read_dir(set)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let readable = name.starts_with("origins");
        let mode = std::os::unix::fs::MetadataExt::mode(&entry.metadata()?) & 0o777;
        ctx.check_eq(format!("mode of {name}"), if readable { "440" } else { "400" }, format!("{mode:o}"))?;
        let path = entry.path();
        let mut member = Actor::start(b"member", move |stage| {
            let _ = sys::page();
            let (user, group) = (rustix::process::Uid::from_raw(USER), rustix::process::Gid::from_raw(GROUP));
            rustix::thread::set_thread_groups(&[])?;
            set_thread_res_gid(group, group, group)?;
            set_thread_res_uid(user, user, user)?;
            let writable = std::fs::File::options().write(true).open(&path).is_ok();
            let mode = std::fs::Permissions::from_mode(0o666);
            let changed = std::fs::set_permissions(&path, mode).is_ok();
            let removed = std::fs::remove_file(&path).is_ok();
            stage.pause(&[Held::of_number(u64::from(writable || changed || removed))])
        })?;
        ctx.check_eq(format!("a member can change {name}"), 0, member.paused_with_one()?.ino)?;
    }
    // Numbers in these records are at multiples of 8. Those of the kernel's memory have 17 set bits
    // at their beginning.
    let records = std::fs::read(set.join("origins"))?;
    let words = records.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()));
    let pointers = words.filter(|word| (0xffff_8000_0000_0000..0xffff_ffff_ffff_0000).contains(word));
    ctx.check_eq("words like pointers of the kernel", 0, pointers.count())?;
    // Between the stacks are texts, so numbers may be anywhere. The kernel's code is in a known
    // range.
    let symbols = std::fs::read_to_string("/proc/kallsyms")?;
    let address = |name: &str| {
        let line = symbols.lines().find(|line| line.split_whitespace().nth(2) == Some(name));
        u64::from_str_radix(line.context("no such symbol")?.split_whitespace().next().unwrap_or_default(), 16)
            .context("no address")
    };
    let code = address("_stext")?..address("_etext")?;
    ctx.check("the range of the kernel's code is known", code.start > 0 && code.start < code.end)?;
    let records = std::fs::read(set.join("origins_stacks"))?;
    let addresses = records
        .windows(8)
        .filter(|bytes| code.contains(&u64::from_ne_bytes((*bytes).try_into().unwrap_or_default())));
    ctx.check_eq("addresses of the kernel's code", 0, addresses.count())?;
    remove(ctx)
}

pub(super) fn refused(ctx: &mut Ctx) -> anyhow::Result<()> {
    if Need::Fentry.probe() {
        install(ctx, &[])?;
        return remove(ctx);
    }
    let output = lsbuf(&["probes", "install", "--origins"]).output()?;
    ctx.check_eq("exit status", 1, output.status.code().unwrap_or(-1))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("lsbuf: ")).collect();
    ctx.check_eq("lines of the error", 1, errors.len())?;
    let says_why = said.contains("this kernel runs no BPF programs at its functions");
    ctx.check(format!("it says why: {said}"), says_why)?;
    ctx.check("nothing is left of it", !Path::new(SET).exists())?;
    remove(ctx)
}
