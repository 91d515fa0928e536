//! System V segments: a graphics client that forgot to detach, a database that was killed.

use anyhow::Context;
use rustix::thread::UnshareFlags;

use super::kit::{beginning, fork_heir, lines, row};
use crate::actor::{Actor, Held};
use crate::scenario::Ctx;
use crate::sys::shm::{self, Segment};
use crate::sys::{page_size, task};

/// A segment, and that process `pid` keeps it.
fn kept(segment: &Segment, pid: u32) -> Held {
    Held { pid, ino: segment.id(), ..Held::default() }
}

/// Case 2. A client makes three segments, which its server still has attached. The client has
/// marked them for removal and detached them.
pub(super) fn makers(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWIPC)?;
    let mut client = Actor::start(b"client", |stage| {
        let segments = (0..3).map(|_| Segment::create(0, 4)).collect::<anyhow::Result<Vec<_>>>()?;
        let attached = segments.iter().map(Segment::attach).collect::<anyhow::Result<Vec<_>>>()?;
        let server = fork_heir("Xvnc")?;
        segments.iter().try_for_each(Segment::remove)?;
        attached.into_iter().try_for_each(shm::detach)?;
        let kept: Vec<Held> = segments.iter().map(|segment| kept(segment, server)).collect();
        stage.pause(&kept)
    })?;
    let kept = client.paused()?;
    let pid = client.pid;
    let command = "ls -n --kind sysv -o INO,DELETED,HOLDERS,CPID,LPID";
    let mut compare = |when: &str, maker: &str| -> anyhow::Result<()> {
        let listed = lines(command)?;
        ctx.check_eq(format!("segments, {when}"), kept.len(), listed.len())?;
        for Held { ino, pid: server, .. } in &kept {
            let expected = format!("{ino} yes Xvnc:{server}(1m) {maker} {maker}");
            ctx.check_eq(format!("segment {ino}, {when}"), expected, row(&listed, ino))?;
        }
        Ok(())
    };
    compare("while its maker lives", &format!("client:{pid}"))?;
    drop(client);
    compare("after its maker has exited", &pid.to_string())
}

/// Case 10. A database's first process was killed, and one of its children still has the segment
/// attached. The error message of the next start prints the key as a decimal number.
pub(super) fn old_backend(ctx: &mut Ctx) -> anyhow::Result<()> {
    const KEY: u32 = 382_114;
    task::enter_new(UnshareFlags::NEWIPC)?;
    let mut postmaster = Actor::start(b"postmaster", |stage| {
        let segment = Segment::create(KEY, 14)?;
        let attached = segment.attach()?;
        shm::touch(attached, 2 * page_size())?;
        let backend = fork_heir("postgres")?;
        stage.pause(&[kept(&segment, backend)])
    })?;
    let kept = postmaster.paused_with_one()?;
    let pid = postmaster.pid;
    drop(postmaster);
    let shown = lines(&format!("show --kind sysv {KEY}"))?;
    let heading = format!("sysv {}: {KEY:#010x}", kept.ino);
    ctx.check_eq("the segment", heading, shown.first().context("nothing was shown")?)?;
    ctx.check_eq("who made it", format!("creator pid {pid}"), beginning(&shown, "creator"))?;
    let backend = kept.pid;
    let words = std::fs::read_to_string(format!("/proc/{backend}/cmdline"))?;
    let words = words.trim_end_matches('\0').replace('\0', " ");
    let args = format!("postgres:{backend} args {words}");
    ctx.check_eq("its command line", args, beginning(&shown, &format!("postgres:{backend} args")))?;
    let maps = beginning(&shown, &format!("postgres:{backend} map "));
    ctx.check(format!("one process has it attached, once: {maps}"), maps.matches("postgres:").count() == 1)?;
    ctx.check_eq("the account", "account count 1 = 0 fd + 1 map + 0 kernel", beginning(&shown, "account"))
}
