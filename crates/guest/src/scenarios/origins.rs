//! The flight recorder: what it says of who made a buffer is what the test did.
//!
//! The recorder is installed by each scenario and removed at its end. It sees the whole machine, so
//! the scenarios look only for the buffers that they have made.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use anyhow::{Context, ensure};
use dmabuf::{Udmabuf, share};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::thread::{gettid, set_name, set_thread_res_gid, set_thread_res_uid};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::holding::SIZE;
use super::probes::{GROUP, by_user_in, lsbuf};
use crate::actor::{Actor, Held, Stage};
use crate::answer::{Answer, USER};
use crate::kernels::Kernels;
use crate::make::{self, HugePages};
use crate::need::Need;
use crate::scenario::{Ctx, Scenario};
use crate::sys;
use crate::sys::shm::{self, Segment};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "origins_of_every_kind",
        claim: "Of each buffer that is made after the recorder was installed lsbuf tells its maker and when, and of those before that they are older",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: of_every_kind,
    },
    Scenario {
        name: "origins_of_makers_that_change",
        claim: "The maker is told as it was then: a thread, a process that has exited, another user, a process that has given the buffer away",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: of_makers_that_change,
    },
    Scenario {
        name: "origins_in_a_storm",
        claim: "Of many births and deaths at once every one is recorded or counted as lost, and what is recorded afterwards is what lives",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: in_a_storm,
    },
    Scenario {
        name: "origins_with_too_little_room",
        claim: "A full map loses births and says how many; what is recorded stays right, and what is not is unknown",
        needs: &[],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: with_too_little_room,
    },
    Scenario {
        name: "origins_for_a_group",
        claim: "A member of the group reads the records and no address of the kernel, others read nothing, and neither can change them",
        needs: &[Need::Iterators],
        kernels: Kernels::OldestAndNewest,
        ways: &[],
        run: for_a_group,
    },
];

/// Where the recorder is pinned.
const SET: &str = "/run/lsbuf/origins-1";

/// Installs the recorder. Where BPF iterators cannot be, it stands alone.
fn install(ctx: &mut Ctx, more: &[&str]) -> anyhow::Result<()> {
    let output = lsbuf(&[&["probes", "install", "--origins"], more].concat()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ctx.check(format!("the recorder is installed: {told}{said}"), output.status.success())?;
    ctx.check_eq(
        "programs that do not run",
        "",
        told.lines()
            .skip_while(|line| !line.starts_with("installed"))
            .filter(|line| line.starts_with("without "))
            .collect::<String>(),
    )
}

fn remove(ctx: &mut Ctx) -> anyhow::Result<()> {
    ctx.check("it is removed", lsbuf(&["probes", "remove"]).status()?.success())
}

/// Nanoseconds after boot.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}

/// Every buffer of the answer, by kind and inode number.
struct Origins(BTreeMap<(String, u64), Value>);

impl Origins {
    fn ask(command: &mut Command) -> anyhow::Result<Origins> {
        let answer = Answer::from(command.args(["--json", "--details"]).env_remove("LSBUF_KIND"))?;
        let buffers = answer.list("buffers").iter().map(|buffer| {
            let kind = buffer["kind"].as_str().unwrap_or_default().to_owned();
            ((kind, buffer["ino"].as_u64().unwrap_or_default()), buffer["origin"].clone())
        });
        Ok(Origins(buffers.collect()))
    }

    fn of(&self, kind: &str, ino: u64) -> anyhow::Result<&Value> {
        self.0.get(&(kind.to_owned(), ino)).with_context(|| format!("no {kind} {ino} in the answer"))
    }
}

/// A maker in one line, as the test knows it.
fn line(pid: u32, command: &str, tid: u32, thread: &str, uid: u32) -> String {
    format!("{command}:{pid}, thread {thread}:{tid}, uid {uid}")
}

/// The same as lsbuf tells it.
fn told(origin: &Value) -> String {
    let text = |key: &str| origin[key].as_str().unwrap_or("?").to_owned();
    let number = |key: &str| origin[key].as_u64().map_or("?".to_owned(), |number| number.to_string());
    format!(
        "{}:{}, thread {}:{}, uid {}",
        text("command"),
        number("pid"),
        text("thread"),
        number("tid"),
        number("uid")
    )
}

/// Names of the calls in the kernel.
fn kernel_calls(origin: &Value) -> Vec<String> {
    let frames = origin["stack"]["kernel"].as_array().cloned().unwrap_or_default();
    frames.iter().filter_map(|frame| Some(frame["function"].as_str()?.to_owned())).collect()
}

/// A way to make a buffer.
struct Making {
    /// The maker's command name.
    comm: &'static str,
    kind: &'static str,
    /// Part of the name of a function of the kernel that it goes through.
    through: &'static str,
    make: fn(&mut Stage) -> anyhow::Result<()>,
}

/// A file that this process holds by a mapping alone: its inode number is in `map_files`.
fn mapped(region: &sys::Region) -> anyhow::Result<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let start = format!("{:x}-", region.start);
    let found = maps.lines().find(|line| line.starts_with(&start)).context("the mapping is gone")?;
    Ok(found.split_ascii_whitespace().nth(4).context("no inode")?.parse()?)
}

fn held(ino: u64) -> Held {
    Held { pid: std::process::id(), ino, ..Held::default() }
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
            stage.pause(&[held(segment.id())])
        },
    },
    Making {
        comm: "anonymous",
        kind: "shm-anon",
        through: "mmap",
        make: |stage| {
            let region = shm::map_anonymous(2)?;
            stage.pause(&[held(mapped(&region)?)])
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
];

fn of_every_kind(ctx: &mut Ctx) -> anyhow::Result<()> {
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
            stage.pause(&[held(segment.id())])
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
    let origins = Origins::ask(&mut lsbuf(&[]))?;
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

fn of_makers_that_change(ctx: &mut Ctx) -> anyhow::Result<()> {
    install(ctx, &[])?;
    let mut threads = Actor::start(b"process", |stage| {
        let made = std::thread::spawn(|| -> anyhow::Result<(OwnedFd, u32)> {
            set_name(c"worker")?;
            Ok((make::memfd(b"of-a-thread", 1, 1)?, gettid().as_raw_nonzero().get().unsigned_abs()))
        });
        let (fd, tid) = made.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
        // The thread's number, in a field that nothing else uses here.
        stage.pause(&[Held { charged: tid.into(), ..Held::by_file(&fd)? }])
    })?;
    let of_thread = threads.paused_with_one()?;
    let tid = u32::try_from(of_thread.charged)?;

    let (ours, theirs) = UnixStream::pair()?;
    let maker = Actor::start(b"maker", move |stage| {
        let (buf, _) = make::plain(SIZE)?;
        share::send(&theirs, &[&buf], b"x")?;
        drop(buf);
        stage.pause(&[])
    })?;
    let maker_pid = maker.pid;
    let mut holder = Actor::start(b"holder", move |stage| {
        let buf = share::receive(&ours, &mut [0])?.bufs.pop().context("nothing came")?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let given = holder.paused_with_one()?;
    drop(maker);

    let mut other = Actor::start(b"user", |stage| {
        // Read before the change, after which /proc/self cannot be on older kernels.
        let _ = sys::page();
        let user = rustix::process::Uid::from_raw(USER);
        set_thread_res_uid(user, user, user)?;
        let fd = make::memfd(b"of-a-user", 1, 1)?;
        stage.pause(&[Held::by_file(&fd)?])
    })?;
    let of_user = other.paused_with_one()?;

    let mut renamed = Actor::start(b"first", |stage| {
        let fd = make::memfd(b"of-a-name", 1, 1)?;
        set_name(c"second")?;
        stage.pause(&[Held::by_file(&fd)?])
    })?;
    let of_name = renamed.paused_with_one()?;

    let origins = Origins::ask(&mut lsbuf(&[]))?;
    let expected = [
        ("a thread", "memfd", of_thread.ino, line(threads.pid, "process", tid, "worker", 0)),
        ("a process that has exited", "dmabuf", given.ino, line(maker_pid, "maker", maker_pid, "maker", 0)),
        ("another user", "memfd", of_user.ino, line(other.pid, "user", other.pid, "user", USER)),
        (
            "a process that was renamed",
            "memfd",
            of_name.ino,
            line(renamed.pid, "first", renamed.pid, "first", 0),
        ),
    ];
    for (what, kind, ino, maker) in expected {
        ctx.check_eq(what, maker, told(origins.of(kind, ino)?))?;
    }
    let table = lsbuf(&["ls", "-o", "INO,ORIGIN", "--kind", "dmabuf"]).output()?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    let row = table.lines().find(|row| row.split_whitespace().next() == Some(&given.ino.to_string()));
    let cell = row.and_then(|row| row.split_whitespace().nth(1)).unwrap_or("no row").to_owned();
    ctx.check_eq("column ORIGIN", format!("maker:{maker_pid}"), cell)?;
    let sum = lsbuf(&["sum", "--by", "origin", "--kind", "memfd"]).output()?;
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    for command in ["process", "user", "first"] {
        let has = sum.lines().any(|row| row.split_whitespace().next() == Some(command));
        ctx.check(format!("sum --by origin has {command}"), has)?;
    }
    remove(ctx)
}

/// What `probes status` says of the recorder.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    births: u64,
    living: u64,
    full: u64,
    skipped: u64,
}

impl Counts {
    fn ask() -> anyhow::Result<Counts> {
        let output = lsbuf(&["probes", "status"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number_before = |word: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let place = words.iter().position(|found| found.trim_end_matches([',', ';']) == word)?;
            words.get(place.checked_sub(1)?)?.parse::<u64>().ok()
        };
        let living = text.split_once("deaths; ").and_then(|(_, rest)| rest.split_once(" of "));
        Ok(Counts {
            births: number_before("births").with_context(|| format!("no births in {text:?}"))?,
            living: living.context("no number of the living")?.0.parse()?,
            skipped: text
                .lines()
                .find_map(|line| line.strip_prefix("At most ")?.split_once(" births and ")?.0.parse().ok())
                .unwrap_or(0),
            full: text
                .lines()
                .find_map(|line| line.split_once(" births were lost")?.0.parse().ok())
                .unwrap_or(0),
        })
    }
}

/// How many records of births by `storm` the recorder shows. Each has the name twice: of the
/// process and of the thread.
fn of_the_storm() -> anyhow::Result<usize> {
    let records = std::fs::read(format!("{SET}/origins"))?;
    // Older kernels leave the end of an earlier name behind the NUL.
    Ok(records.windows(6).filter(|bytes| *bytes == b"storm\0").count() / 2)
}

fn in_a_storm(ctx: &mut Ctx) -> anyhow::Result<()> {
    const MAKERS: u64 = 8;
    const EACH: u64 = 1500;
    install(ctx, &[])?;
    let before = Counts::ask()?;
    let mut makers = Vec::new();
    for _ in 0..MAKERS {
        makers.push(Actor::start(b"storm", |stage| {
            stage.pause(&[])?;
            let mut kept = None;
            for _ in 0..EACH {
                // The one before is closed when the next has been made.
                kept = Some(memfd_create(c"storm", MemfdFlags::CLOEXEC)?);
            }
            let kept = kept.context("none was made")?;
            stage.pause(&[Held::by_file(&kept)?])
        })?);
    }
    for maker in &mut makers {
        maker.paused()?;
        maker.go_on()?;
    }
    let mut living = Vec::new();
    for maker in &mut makers {
        living.push((maker.pid, maker.paused_with_one()?.ino));
    }
    let after = Counts::ask()?;
    let made = MAKERS * EACH;
    let born = after.births - before.births;
    // Others may make files of tmpfs meanwhile, such as this test's own report.
    let lost = after.full + after.skipped;
    ctx.check(format!("{born} births of {made} were recorded, {lost} lost: {after:?}"), born + lost >= made)?;
    ctx.check_eq("lost for want of room", 0, after.full)?;
    let origins = Origins::ask(&mut lsbuf(&["--kind", "memfd"]))?;
    let mut known = 0;
    for (pid, ino) in living {
        let origin = origins.of("memfd", ino)?;
        if origin["state"] == "unknown" && lost > 0 {
            continue;
        }
        known += 1;
        ctx.check_eq(format!("maker of {ino}"), line(pid, "storm", pid, "storm", 0), told(origin))?;
    }
    let shown =
        origins.0.iter().filter(|((kind, _), origin)| kind == "memfd" && origin["command"] == "storm");
    ctx.check_eq("buffers of the storm in the answer", known, shown.count())?;
    ctx.check_eq("records of the storm", known, of_the_storm()?)?;
    drop(makers);
    ctx.check_eq("records of the storm, after all have gone", 0, of_the_storm()?)?;
    remove(ctx)
}

fn with_too_little_room(ctx: &mut Ctx) -> anyhow::Result<()> {
    const ROOM: usize = 64;
    install(ctx, &["--most", &ROOM.to_string()])?;
    let mut actor = Actor::start(b"many", |stage| {
        let files: Vec<OwnedFd> = (0..2 * ROOM)
            .map(|_| memfd_create(c"many", MemfdFlags::CLOEXEC).map_err(Into::into))
            .collect::<anyhow::Result<_>>()?;
        let held: Vec<Held> = files.iter().map(Held::by_file).collect::<anyhow::Result<_>>()?;
        stage.pause(&held)
    })?;
    let held = actor.paused()?;
    let counts = Counts::ask()?;
    ctx.check(format!("births were lost: {counts:?}"), counts.full > 0)?;
    ctx.check(
        format!("no more are recorded than there is room for: {counts:?}"),
        counts.living <= ROOM as u64,
    )?;
    let origins = Origins::ask(&mut lsbuf(&["--kind", "memfd"]))?;
    let expected = line(actor.pid, "many", actor.pid, "many", 0);
    let (mut known, mut unknown) = (0_u64, 0_u64);
    for held in &held {
        let origin = origins.of("memfd", held.ino)?;
        match origin["state"].as_str() {
            Some("made") => {
                known += 1;
                ensure!(told(origin) == expected, "{} and not {expected}", told(origin));
            }
            Some("unknown") => unknown += 1,
            _ => ctx.check(format!("neither known nor unknown: {origin}"), false)?,
        }
    }
    ctx.check(format!("{known} are known, {unknown} are not"), known > 0 && unknown > 0)?;
    ctx.check_eq("all of them", held.len(), known + unknown)?;
    remove(ctx)
}

fn for_a_group(ctx: &mut Ctx) -> anyhow::Result<()> {
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
    let set = std::path::Path::new(SET);
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
            stage.pause(&[held(u64::from(writable || changed || removed))])
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
