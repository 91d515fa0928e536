//! Buffers of each kind from their birth to their end.

use rustix::fs::{MemfdFlags, memfd_create};

use super::kit::Running;
use crate::actor::{Actor, Held, Stage};
use crate::make::{self, HugePages};
use crate::need::Need;
use crate::scenario::Ctx;
use crate::scenarios::holding::SIZE;
use crate::sys::{self, shm};

/// What a process does with a buffer, and the events that it should cause: `@` is who did it.
struct Life {
    comm: &'static str,
    kind: &'static str,
    live: fn(&mut Stage) -> anyhow::Result<()>,
    events: String,
}

pub(super) fn of_each_kind(ctx: &mut Ctx) -> anyhow::Result<()> {
    let huge = HugePages::set_aside(2);
    let page = sys::page();
    let two = 2 * page;
    let mut lives = vec![
        Life {
            comm: "memfd",
            kind: "memfd",
            live: |stage| {
                let fd = make::memfd(b"traced", 2, 1)?;
                let region = sys::map(&fd, 0, usize::try_from(2 * sys::page())?)?;
                let again = fd.try_clone()?;
                stage.pause(&[Held::by_file(&fd)?])?;
                drop((fd, again));
                sys::unmap(region)?;
                stage.pause(&[])
            },
            events: format!("made by @; fd by @; mapped rw-s {two} by @; fd by @; freed by @"),
        },
        Life {
            comm: "file",
            kind: "tmpfs",
            live: |stage| {
                let file = std::fs::File::create("/dev/shm/traced")?;
                stage.pause(&[Held::by_file(&file)?])?;
                std::fs::remove_file("/dev/shm/traced")?;
                drop(file);
                stage.pause(&[])
            },
            events: "made by @; fd by @; freed by @".to_owned(),
        },
        Life {
            comm: "segment",
            kind: "sysv",
            live: |stage| {
                let segment = shm::Segment::create(0, 2)?;
                let region = segment.attach()?;
                stage.pause(&[Held::of_number(segment.id())])?;
                segment.remove()?;
                shm::detach(region)?;
                stage.pause(&[])
            },
            events: format!("made by @; mapped rw-s {two} by @; freed by @"),
        },
        Life {
            comm: "anonymous",
            kind: "shm-anon",
            live: |stage| {
                let region = shm::map_anonymous(2)?;
                stage.pause(&[Held::of_number(region.inode()?)])?;
                sys::unmap(region)?;
                stage.pause(&[])
            },
            events: "made by @; freed by @".to_owned(),
        },
    ];
    if huge.is_ok() {
        lives.push(Life {
            comm: "huge",
            kind: "memfd",
            live: |stage| {
                let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
                let fd = memfd_create(c"huge", flags)?;
                stage.pause(&[Held::by_file(&fd)?])?;
                drop(fd);
                stage.pause(&[])
            },
            events: "made by @; fd by @; freed by @".to_owned(),
        });
    }
    let trace = Running::start(&["--strict"])?;
    let mut lived = Vec::new();
    for life in &lives {
        let mut actor = Actor::start(life.comm.as_bytes(), life.live)?;
        let held = actor.paused_with_one()?;
        actor.go_on()?;
        actor.paused()?;
        lived.push((life, held.ino, actor.pid));
    }
    let told = trace.end()?;
    ctx.check_eq(format!("status of the trace: {}", told.errors), 0, told.status)?;
    for (Life { comm, kind, events, .. }, ino, pid) in lived {
        let expected = events.replace('@', &format!("{comm}:{pid}"));
        ctx.check_eq(format!("{comm}: events"), expected, told.of(kind, ino))?;
    }
    Ok(())
}

pub(super) fn of_a_dmabuf(ctx: &mut Ctx) -> anyhow::Result<()> {
    let (has_heap, has_vgem) = (make::has_heap(), Need::Vgem.probe());
    let trace = Running::start(&["--strict", "--dmabuf"])?;
    let mut actor = Actor::start(b"owner", move |stage| {
        let (buf, _) = make::plain(SIZE)?;
        let held = Held::by(&buf)?;
        buf.set_name("front")?;
        if has_heap && has_vgem {
            let device = make::vgem()?;
            drop(device.import(&buf)?);
        }
        drop(buf);
        stage.pause(&[held])
    })?;
    let held = actor.paused_with_one()?;
    let told = trace.end()?;
    ctx.check_eq(format!("status of the trace: {}", told.errors), 0, told.status)?;
    let by = format!("by owner:{}", actor.pid);
    let import = if has_heap && has_vgem {
        format!("attached vgem {by}; detached vgem {by}; ")
    } else {
        String::new()
    };
    let expected = format!("made {by}; fd {by}; renamed front {by}; {import}freed {by}");
    ctx.check_eq("events", expected, told.of("dmabuf", held.ino))?;
    let made = told.by("made", "owner").next();
    let size = made.map(|line| line["buffer"]["size"].to_string()).unwrap_or_default();
    ctx.check_eq("size", SIZE.to_string(), size)?;
    let exporter = made.map(|line| line["buffer"]["exporter"].to_string()).unwrap_or_default();
    ctx.check_eq("exporter", format!("{:?}", make::plain_exporter()), exporter)
}
