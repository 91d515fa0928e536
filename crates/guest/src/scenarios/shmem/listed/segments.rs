//! System V segments whose IPC namespace no process is in.

use std::fs::{self, File};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::UnshareFlags;
use serde_json::Value;

use super::super::kit::{ask, page};
use super::super::sysv::{KEY, NEXT_ID, namespace};
use super::kernel_only::totals;
use crate::actor::{Actor, Held, Stage};
use crate::answer::Answer;
use crate::scenario::Ctx;
use crate::sys::shm::{self, Segment};
use crate::sys::{Region, page_size, task};

/// The number of the segments that have the same one.
const ID: u64 = 4321;
/// The pages of each segment, and the key of each is [`KEY`]. What is touched tells them apart.
const PAGES: usize = 16;
/// How long to wait until the kernel has freed a namespace. It does so in the background.
const LIMIT: Duration = Duration::from_secs(20);

/// Bind mounts of namespaces, which keep them. Dropping this unmounts them.
pub(in crate::scenarios::shmem) struct KeptNamespaces(Vec<&'static str>);

impl KeptNamespaces {
    /// Keeps none.
    pub(in crate::scenarios::shmem) fn new() -> KeptNamespaces {
        KeptNamespaces(Vec::new())
    }

    /// Keeps the namespace of a process, and ends the process. Returns the namespace's number.
    pub(in crate::scenarios::shmem) fn keep(
        &mut self,
        actor: Actor,
        place: &'static str,
    ) -> anyhow::Result<u64> {
        let number = namespace(actor.pid)?;
        File::create(place).with_context(|| format!("making {place}"))?;
        mount_bind(format!("/proc/{}/ns/ipc", actor.pid), place).context("keeping a namespace")?;
        self.0.push(place);
        drop(actor);
        Ok(number)
    }
}

impl Drop for KeptNamespaces {
    fn drop(&mut self) {
        for place in &self.0 {
            // A failure shows in the next look at segments.
            let _ = unmount(*place, UnmountFlags::DETACH);
            let _ = fs::remove_file(place);
        }
    }
}

/// A segment with number [`ID`] in a new IPC namespace of this process, and where it is attached.
fn same_in_new_namespace(touched: usize) -> anyhow::Result<(Segment, Region)> {
    task::enter_new(UnshareFlags::NEWIPC)?;
    fs::write(NEXT_ID, ID.to_string()).context("choosing the next id")?;
    let segment = Segment::create(KEY, PAGES)?;
    ensure!(segment.id() == ID, "the id is {}", segment.id());
    let region = segment.attach()?;
    shm::touch(region, touched * page_size())?;
    Ok((segment, region))
}

/// A process that has made such a segment, in its own namespace, and has it not attached.
pub(in crate::scenarios::shmem) fn maker(touched: usize) -> anyhow::Result<Actor> {
    started(b"maker", move |stage| {
        // The process is killed while it waits, so the segment stays.
        let (_segment, region) = same_in_new_namespace(touched)?;
        shm::detach(region)?;
        stage.pause(&[])
    })
}

/// A process that has made such a segment, in its own namespace, and has it attached.
pub(super) fn attacher(touched: usize) -> anyhow::Result<Actor> {
    started(b"attacher", move |stage| {
        let (_segment, _region) = same_in_new_namespace(touched)?;
        stage.pause(&[])
    })
}

/// A process that has reached its first pause.
fn started(comm: &[u8], script: impl FnOnce(&mut Stage) -> anyhow::Result<()>) -> anyhow::Result<Actor> {
    let mut actor = Actor::start(comm, script)?;
    actor.paused()?;
    Ok(actor)
}

/// A segment as it should be printed.
fn expected(ino: u64, namespace: Option<u64>, touched: usize, holder: Option<u32>) -> String {
    let namespace = namespace.map_or("null".to_owned(), |number| number.to_string());
    let holder = holder.map_or("null".to_owned(), |pid| pid.to_string());
    let charged = touched as u64 * page();
    let size = PAGES as u64 * page();
    let attached = u64::from(holder != "null");
    format!("{ino} of {namespace} {size}/{charged} {attached} of {attached} attached, 0 kernel, by {holder}")
}

/// A segment as it was printed.
fn printed(b: &Value) -> String {
    format!(
        "{} of {} {}/{} {} of {} attached, {} kernel, by {}",
        b["ino"],
        b["ipc_namespace"],
        b["size"],
        b["charged"],
        b["refs"]["map"],
        b["count"],
        b["refs"]["kernel"],
        b["holders"][0]["pid"],
    )
}

fn lines(mut all: Vec<String>) -> String {
    all.sort();
    all.join("\n")
}

pub(super) fn namespaces(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut kept = KeptNamespaces::new();
    let first = kept.keep(maker(3)?, "/tmp/first-ipc")?;
    let second = kept.keep(maker(1)?, "/tmp/second-ipc")?;
    let idle = maker(5)?;
    let mut user = Actor::start(b"user", |stage| {
        let (_same, _region) = same_in_new_namespace(2)?;
        let more = Segment::create(0, PAGES)?;
        let region = more.attach()?;
        shm::touch(region, 4 * page_size())?;
        shm::detach(region)?;
        stage.pause(&[Held { ino: more.id(), ..Held::default() }])
    })?;
    let more = user.paused_with_one()?.ino;
    let (idle_in, user_in) = (namespace(idle.pid)?, namespace(user.pid)?);

    let answer = ask(ctx, "sysv")?;
    let right = vec![
        expected(ID, Some(first), 3, None),
        expected(ID, Some(second), 1, None),
        expected(ID, Some(idle_in), 5, None),
        expected(ID, Some(user_in), 2, Some(user.pid)),
        expected(more, Some(user_in), 4, None),
    ];
    let found = answer.list("buffers").iter().map(printed).collect();
    ctx.check_eq("segments", lines(right), lines(found))?;
    let right = format!("size {} held {} kernel_only {}", 15 * page(), 2 * page(), 13 * page());
    ctx.check_eq("totals", right, totals(&answer))?;

    drop((idle, user));
    drop(kept);
    let started = Instant::now();
    let is_gone = || Ok::<_, anyhow::Error>(Answer::ask(&["--kind", "sysv"])?.list("buffers").is_empty());
    while !is_gone()? {
        ensure!(started.elapsed() < LIMIT, "segments of namespaces that are gone are still there");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
