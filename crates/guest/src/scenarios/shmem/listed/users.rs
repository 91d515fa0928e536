//! What a user sees who may read pinned iterators and has no other right.

use std::fs;

use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::super::kit::{file, mount_tmpfs};
use super::segments::{KeptNamespaces, attacher, maker};
use crate::actor::{Actor, Held};
use crate::answer::LSBUF;
use crate::make;
use crate::scenario::Ctx;
use crate::scenarios::probes::{GROUP, by_user_in, install, lsbuf, parts, remove};
use crate::sys::loops::LoopDevice;
use crate::sys::task;

/// The rows of one kind, without these keys. Those of lsbuf itself are left out: it runs from the
/// root, which is a tmpfs.
fn rows(document: &Value, kind: &str, without: &[&str]) -> Vec<String> {
    let wanted = |row: &&Value| row["kind"] == kind && row["name"] != LSBUF;
    let of_kind = document["buffers"].as_array().into_iter().flatten().filter(wanted);
    let mut rows: Vec<String> = of_kind
        .map(|row| {
            let mut row = row.clone();
            for key in without {
                row[*key] = Value::Null;
            }
            row.to_string()
        })
        .collect();
    rows.sort_unstable();
    rows
}

pub(super) fn of_a_group(ctx: &mut Ctx) -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS)?;
    let memfd = make::memfd(b"disk", 64, 3)?;
    let _device = LoopDevice::of(&memfd)?;
    drop(memfd);
    let mut kept = KeptNamespaces::new();
    kept.keep(maker(3)?, "/tmp/first-ipc")?;
    kept.keep(maker(1)?, "/tmp/second-ipc")?;
    let _attacher = attacher(2)?;
    let mut holder = Actor::start(b"holder", |stage| {
        mount_tmpfs("/tmp/over")?;
        let over = file("/tmp/over/file", 1)?;
        mount_tmpfs("/tmp/over")?;
        let unlinked = file("/tmp/over/unlinked", 2)?;
        fs::remove_file("/tmp/over/unlinked")?;
        stage.pause(&[Held::by_file(&over)?, Held::by_file(&unlinked)?])
    })?;
    holder.paused()?;
    if !install(ctx)? {
        return Ok(());
    }
    let arguments = ["--source", "bpf", "--kind", "memfd,sysv,tmpfs"];
    let (roots, _, _) = parts(&mut lsbuf(&arguments))?;
    let (members, _, _) = parts(&mut by_user_in(GROUP, &arguments))?;
    for (kind, least) in [("memfd", 1), ("tmpfs", 2), ("sysv", 3)] {
        // The table of another IPC namespace is read by root alone.
        // What a loop device has open is asked of the device, which root alone may open. Whether a
        // name stays is seen in the mount tables of other users' processes.
        let without: &[&str] = match kind {
            "sysv" => &["deleted", "ipc_namespace", "leak_shape", "name_stays", "segment"],
            _ => &["kernel_holders", "name_stays"],
        };
        let (roots, members) = (rows(&roots, kind, without), rows(&members, kind, without));
        ctx.check(format!("{} {kind} are at least {least}", roots.len()), roots.len() >= least)?;
        ctx.check_eq(format!("a member's {kind}"), roots.join("\n"), members.join("\n"))?;
    }
    ctx.check_eq("a member's totals", &roots["totals"], &members["totals"])?;
    remove(ctx)
}
