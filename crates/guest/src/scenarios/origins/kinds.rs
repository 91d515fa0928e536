//! The same kinds of buffers twice: made before the recorder was installed, and after.

use dmabuf::Udmabuf;
use rustix::fs::{MemfdFlags, memfd_create};

use super::kit::{Origins, install, kernel_calls, line, now, remove, told};
use crate::actor::{Actor, Held, Stage};
use crate::make::{self, HugePages};
use crate::need::Need;
use crate::scenario::Ctx;
use crate::scenarios::holding::SIZE;
use crate::scenarios::probes::lsbuf;
use crate::sys::shm::{self, Segment};

/// A way to make a buffer.
struct Making {
    /// The maker's command name.
    comm: &'static str,
    kind: &'static str,
    /// Part of the name of a function of the kernel that it goes through.
    through: &'static str,
    make: fn(&mut Stage) -> anyhow::Result<()>,
}

const MAKINGS: &[Making] = &[
    Making {
        comm: "plain",
        kind: "dmabuf",
        through: "ioctl",
        make: |stage| {
            let (buf, _) = make::plain(SIZE)?;
            stage.pause(&[Held::by(&buf)?])
        },
    },
    Making {
        comm: "memfd",
        kind: "memfd",
        through: "memfd_create",
        make: |stage| {
            let fd = make::memfd(b"one", 2, 1)?;
            stage.pause(&[Held::by_file(&fd)?])
        },
    },
    Making {
        comm: "shm_open",
        kind: "tmpfs",
        through: "openat",
        make: |stage| {
            let file = std::fs::File::create("/dev/shm/origin")?;
            std::fs::remove_file("/dev/shm/origin")?;
            stage.pause(&[Held::by_file(&file)?])
        },
    },
    Making {
        comm: "segment",
        kind: "sysv",
        through: "shmget",
        make: |stage| {
            let segment = Segment::create(0, 2)?;
            stage.pause(&[Held::of_number(segment.id())])
        },
    },
    Making {
        comm: "anonymous",
        kind: "shm-anon",
        through: "mmap",
        make: |stage| {
            let region = shm::map_anonymous(2)?;
            stage.pause(&[Held::of_number(region.inode()?)])
        },
    },
];

/// Ways that need something of the kernel or the machine.
const MORE: &[(Need, Making)] = &[
    (
        Need::Udmabuf,
        Making {
            comm: "udmabuf",
            kind: "dmabuf",
            through: "udmabuf",
            make: |stage| {
                let buf = Udmabuf::open()?.allocate(SIZE)?;
                stage.pause(&[Held::by(&buf)?])
            },
        },
    ),
    (
        Need::Vgem,
        Making {
            comm: "prime",
            kind: "dmabuf",
            through: "drm",
            make: |stage| {
                let device = make::vgem()?;
                let buf = device.create_dumb(make::at_least(SIZE)?)?.handle.export()?;
                stage.pause(&[Held::by(&buf)?])
            },
        },
    ),
    (
        Need::Vivid,
        Making {
            comm: "expbuf",
            kind: "dmabuf",
            through: "expbuf",
            make: |stage| {
                let mut device = make::vivid()?;
                let buf = device.buffers(1)?.export(0)?;
                stage.pause(&[Held::by(&buf)?])
            },
        },
    ),
];

pub(super) fn of_every_kind(ctx: &mut Ctx) -> anyhow::Result<()> {
    let huge = HugePages::set_aside(4);
    let huge_making = Making {
        comm: "huge",
        kind: "memfd",
        through: "memfd_create",
        make: |stage| {
            let fd = memfd_create(c"huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)?;
            stage.pause(&[Held::by_file(&fd)?])
        },
    };
    let huge_segment = Making {
        comm: "huge_segment",
        kind: "sysv",
        through: "shmget",
        make: |stage| {
            let segment = Segment::huge(2 << 20)?;
            stage.pause(&[Held::of_number(segment.id())])
        },
    };
    let mut makings: Vec<&Making> = MAKINGS.iter().collect();
    makings.extend(MORE.iter().filter(|(need, _)| need.probe()).map(|(_, making)| making));
    if huge.is_ok() {
        makings.extend([&huge_making, &huge_segment]);
    }
    // The same buffers twice: one of each before the recorder, one after.
    let mut older = Vec::new();
    for making in &makings {
        let mut actor = Actor::start(b"older", making.make)?;
        older.push((making, actor.paused_with_one()?, actor));
    }
    install(ctx, &[])?;
    let mut younger = Vec::new();
    for making in &makings {
        let before = now();
        let mut actor = Actor::start(making.comm.as_bytes(), making.make)?;
        let held = actor.paused_with_one()?;
        younger.push((making, held, before..now(), actor));
    }
    let mut origins = Origins::ask(&mut lsbuf(&[]))?;
    // lsbuf waits for names no longer than a second, which is too short on a busy emulator. What it
    // has found it keeps.
    for _ in 0..5 {
        let nameless = younger.iter().any(|(making, held, ..)| {
            let origin = origins.of(making.kind, held.ino);
            making.comm != "anonymous"
                && origin.is_ok_and(|origin| origin["stack"]["user"][0]["functions"][0].is_null())
        });
        if !nameless {
            break;
        }
        origins = Origins::ask(&mut lsbuf(&[]))?;
    }
    for (making, held, _) in &older {
        let Making { comm, kind, .. } = making;
        let origin = origins.of(kind, held.ino)?;
        ctx.check_eq(format!("{comm}, before the recorder"), "\"before\"", &origin["state"])?;
    }
    for (making, held, time, actor) in &younger {
        let Making { comm, kind, through, .. } = making;
        let origin = origins.of(kind, held.ino)?;
        let expected = line(actor.pid, comm, actor.pid, comm, 0);
        ctx.check_eq(format!("{comm}: who"), expected, told(origin))?;
        let at = origin["after_boot_ns"].as_u64().unwrap_or_default();
        ctx.check(format!("{comm}: made at {at}, within {time:?}"), time.contains(&at))?;
        let calls = kernel_calls(origin);
        let passes = calls.iter().any(|call| call.contains(through));
        ctx.check(format!("{comm}: by way of {through}: {}", calls.join(" ")), passes)?;
        let own = calls.iter().find(|call| call.starts_with("bpf_"));
        ctx.check_eq(format!("{comm}: calls of the recorder itself"), "None", format!("{own:?}"))?;
        // The innermost call is the one that enters the kernel, in this program or a crate of it.
        let call = &origin["stack"]["user"][0];
        if *comm == "anonymous" {
            // mmap holds the lock of the address space, so the kernel could not look for the file.
            ctx.check(format!("{comm}: address of the call: {call}"), call["address"].is_string())?;
            continue;
        }
        ctx.check_eq(format!("{comm}: file of the call"), "\"lsbuf-guest\"", &call["module"])?;
        let function = call["functions"][0]["name"].as_str().unwrap_or_default();
        // Which of its functions that is, is up to what the compiler inlines.
        let is_ours = ["lsbuf_guest::", "dmabuf::", "rustix::", "std::", "core::", "shm", "mmap", "open"];
        let known = is_ours.iter().any(|part| function.contains(part));
        ctx.check(format!("{comm}: function of the call: {function}"), known)?;
    }
    // Each ends by itself, so that it removes its segment.
    let actors =
        older.into_iter().map(|(.., actor)| actor).chain(younger.into_iter().map(|(.., actor)| actor));
    for mut actor in actors {
        actor.go_on()?;
        ctx.check(format!("{} ends", actor.pid), actor.paused().is_err())?;
    }
    remove(ctx)
}
