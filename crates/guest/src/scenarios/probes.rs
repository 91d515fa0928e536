//! BPF iterators that root pins for a group: which users can answer from them, what those users
//! then see, and that nothing else in their place is taken for them.
//!
//! A kernel that cannot run the iterators must refuse to install them, in one line. On such a
//! kernel the scenarios check only that.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::Context;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use serde_json::Value;

use super::holding::{SIZE, compare_in, holder_by_fd_and_mapping};
use crate::actor::{Actor, Held};
use crate::answer::{Answer, ExpectedResidual, LSBUF, Truth, USER};
use crate::kernels::Kernels;
use crate::make;
use crate::need::Need;
use crate::pins::PLACE as PINS;
use crate::scenario::{Ctx, Scenario};
use crate::sys::ring;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "probes_for_a_group",
        claim: "With pinned iterators a member of the group gets root's answer; others get procfs's, with the reason",
        needs: &[],
        kernels: Kernels::Every,
        ways: &[],
        run: for_a_group,
    },
    Scenario {
        name: "probes_installed_again",
        claim: "A second install replaces the first, and remove leaves no pin of any version",
        needs: &[],
        kernels: Kernels::OneOfEach(&[Need::Iterators, Need::BufferIterator]),
        ways: &[],
        run: installed_again,
    },
    Scenario {
        name: "probes_impostors",
        claim: "No file in the place of a pin is used for any figure, even if reading it would block",
        needs: &[],
        kernels: Kernels::OneOfEach(&[Need::Iterators, Need::BufferIterator]),
        ways: &[],
        run: impostors,
    },
    Scenario {
        name: "probes_refusals",
        claim: "An install without the rights, or where the group could not read, fails with one line and changes nothing",
        needs: &[],
        kernels: Kernels::OneOfEach(&[Need::Iterators, Need::BufferIterator]),
        ways: &[],
        run: refusals,
    },
    Scenario {
        name: "probes_and_a_ring",
        claim: "A ring that a member may not read makes the residual an estimate, as it does for root",
        needs: &[Need::IoUring],
        kernels: Kernels::Every,
        ways: &[],
        run: and_a_ring,
    },
];

/// The group that may read, a second group, and (as a user) [`USER`], which is in neither.
pub(super) const GROUP: u32 = 4400;
const OTHER_GROUP: u32 = 4401;

/// The folder of pins with the layout that this lsbuf uses.
const SET: &str = "/run/lsbuf/10";

/// The command, without a source from the environment.
pub(super) fn lsbuf(arguments: &[&str]) -> Command {
    let mut command = Command::new(LSBUF);
    command.args(arguments).env_remove("LSBUF_SOURCE");
    command
}

/// The command, run by a user in group `gid` and no other.
pub(super) fn by_user_in(gid: u32, arguments: &[&str]) -> Command {
    let mut command = lsbuf(arguments);
    command.uid(USER).gid(gid);
    command
}

fn status(ctx: &mut Ctx, what: &str, expected: i32, command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output().with_context(|| format!("running lsbuf {what}"))?;
    ctx.check_eq(format!("exit status of {what}"), expected, output.status.code().unwrap_or(-1))?;
    Ok(output)
}

/// Checks that a command fails with one line that contains `says`.
fn refused(ctx: &mut Ctx, what: &str, says: &str, command: &mut Command) -> anyhow::Result<()> {
    let output = status(ctx, what, 1, command)?;
    let line = String::from_utf8_lossy(&output.stderr).into_owned();
    ctx.check_eq(format!("lines of {what}"), 1, line.lines().count())?;
    ctx.check_eq(format!("{what} says {says:?}: {}", line.trim_end()), true, line.contains(says))
}

/// Installs pins for the group. On a kernel that cannot run the iterators, checks that this is
/// refused, and returns `false`.
pub(super) fn install(ctx: &mut Ctx) -> anyhow::Result<bool> {
    let mut command = lsbuf(&["probes", "install", "--group", &GROUP.to_string()]);
    if Need::Iterators.probe() {
        status(ctx, "install", 0, &mut command)?;
        return Ok(true);
    }
    refused(ctx, "install", "cannot be loaded", &mut command)?;
    ctx.check("nothing is left of it", !Path::new(PINS).exists())?;
    Ok(false)
}

pub(super) fn remove(ctx: &mut Ctx) -> anyhow::Result<()> {
    status(ctx, "remove", 0, &mut lsbuf(&["probes", "remove"]))?;
    ctx.check("the folder has gone", !Path::new(PINS).exists())
}

/// An answer without what differs from scan to scan, its sources, and whether it is complete.
pub(super) fn parts(command: &mut Command) -> anyhow::Result<(Value, String, bool)> {
    let Answer(mut document) = Answer::from(command.arg("--json"))?;
    let fields = document.as_object_mut().context("no object")?;
    fields.remove("taken_at");
    let scan = fields.remove("scan").context("no scan")?;
    let sources: Vec<&str> =
        scan["sources"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    Ok((document, sources.join(" "), scan["complete"] == true))
}

/// Checks that an answer comes from procfs, in whatever way mappings were read.
fn by_procfs(ctx: &mut Ctx, what: &str, sources: &str) -> anyhow::Result<()> {
    ctx.check(
        format!("{what} are procfs's: {sources}"),
        sources.starts_with("fd fdinfo ") && !sources.contains("bpf"),
    )
}

fn for_a_group(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = holder_by_fd_and_mapping()?;
    let truth = Truth::held(make::plain_exporter(), vec![actor.paused_with_one()?]);
    status(ctx, "status before", 1, &mut lsbuf(&["probes", "status"]))?;
    if !install(ctx)? {
        return Ok(());
    }
    // If no iterator lists the buffers, they come from debugfs's list, which only root can read.
    let listed = Need::BufferIterator.probe();
    let (roots, _, complete) = parts(&mut lsbuf(&["--source", "bpf"]))?;
    ctx.check("root's answer is complete", complete)?;
    let (members, sources, complete) = parts(&mut by_user_in(GROUP, &[]))?;
    ctx.check_eq("a member's answer is complete", listed, complete)?;
    let all =
        if listed { "bpf:task bpf:task_file bpf:dmabuf" } else { "bpf:task bpf:task_file bpf:task_vma" };
    ctx.check_eq("a member's sources", all, sources)?;
    compare_in(ctx, &Answer(members.clone()), &truth)?;
    if listed {
        ctx.check_eq("a member's answer", &roots, &members)?;
    } else {
        ctx.check_eq("a member's processes", &roots["processes"], &members["processes"])?;
        let mut totals = roots["totals"].clone();
        totals["kernel_only"] = Value::Null;
        ctx.check_eq("a member's totals, without what the list alone tells", totals, &members["totals"])?;
    }
    status(ctx, "a member's status", 0, &mut by_user_in(GROUP, &["probes", "status"]))?;
    let doctor = status(ctx, "a member's doctor", 0, &mut by_user_in(GROUP, &["doctor"]))?;
    let works = format!("works   BPF iterators     used, as pinned in {SET}\n");
    ctx.check("doctor says what is used", String::from_utf8_lossy(&doctor.stdout).starts_with(&works))?;

    status(ctx, "an outsider's status", 1, &mut by_user_in(USER, &["probes", "status"]))?;
    refused(
        ctx,
        "an outsider's --source bpf",
        "pinned: Permission denied",
        &mut by_user_in(USER, &["--source", "bpf"]),
    )?;
    let (_, sources, complete) = parts(&mut by_user_in(USER, &[]))?;
    by_procfs(ctx, "an outsider's sources", &sources)?;
    ctx.check("an outsider's answer is partial", !complete)?;
    let doctor = status(ctx, "an outsider's doctor", 0, &mut by_user_in(USER, &["doctor"]))?;
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    for says in [
        "missing BPF iterators     pinned: Permission denied",
        "optional: run as root, or with CAP_BPF and CAP_PERFMON; or become a member of group 4400",
    ] {
        ctx.check(format!("doctor says {says:?}"), doctor.contains(says))?;
    }
    remove(ctx)?;
    status(ctx, "a member's status after", 1, &mut by_user_in(GROUP, &["probes", "status"]))?;
    let (_, sources, _) = parts(&mut by_user_in(GROUP, &[]))?;
    by_procfs(ctx, "a member's sources after", &sources)
}

fn installed_again(ctx: &mut Ctx) -> anyhow::Result<()> {
    if !install(ctx)? {
        return Ok(());
    }
    let group = OTHER_GROUP.to_string();
    status(ctx, "install for another group", 0, &mut lsbuf(&["probes", "install", "-g", &group]))?;
    status(ctx, "status of the first group", 1, &mut by_user_in(GROUP, &["probes", "status"]))?;
    status(ctx, "status of the second", 0, &mut by_user_in(OTHER_GROUP, &["probes", "status"]))?;
    let sets = |found: fs::ReadDir| {
        let mut names: Vec<String> =
            found.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        // Some kernels pin iterators of their own in every bpf filesystem.
        names.retain(|name| !name.ends_with(".debug"));
        names.join(" ")
    };
    let set = SET.rsplit('/').next().unwrap_or_default();
    ctx.check_eq("what is in the folder", set, sets(fs::read_dir(PINS)?))?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    ctx.check_eq("mounts", 1, mounts.matches(" /run/lsbuf bpf ").count())?;

    // A folder as a later or an earlier version would have left it.
    fs::rename(SET, format!("{PINS}/999"))?;
    let missing = status(ctx, "status of another layout", 1, &mut lsbuf(&["probes", "status"]))?;
    ctx.check(
        "another layout counts as not pinned",
        String::from_utf8_lossy(&missing.stdout).contains("not pinned"),
    )?;
    let (_, sources, _) = parts(&mut by_user_in(OTHER_GROUP, &[]))?;
    by_procfs(ctx, "sources with another layout", &sources)?;
    remove(ctx)?;
    status(ctx, "remove where nothing is", 0, &mut lsbuf(&["probes", "remove"])).map(drop)
}

/// Checks that the pins in folder `pins` are refused, and that answers are made without them.
fn is_refused(ctx: &mut Ctx, what: &str, pins: &str, truth: &Truth) -> anyhow::Result<()> {
    status(ctx, &format!("status with {what}"), 1, &mut lsbuf(&["probes", "status", "--pins", pins]))?;
    let line = "--source bpf";
    refused(
        ctx,
        &format!("{line} with {what}"),
        "BPF iterators cannot be",
        &mut by_user_in(GROUP, &["--source", "bpf", "--pins", pins]),
    )?;
    let (_, sources, _) = parts(&mut by_user_in(GROUP, &["--pins", pins]))?;
    by_procfs(ctx, &format!("a member's sources with {what}"), &sources)?;
    // Root loads the iterators itself.
    let answer = Answer::from(&mut lsbuf(&["--json", "--source", "bpf", "--pins", pins]))?;
    compare_in(ctx, &answer, truth)
}

fn impostors(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = holder_by_fd_and_mapping()?;
    let truth = Truth::held(make::plain_exporter(), vec![actor.paused_with_one()?]);
    if !install(ctx)? {
        return Ok(());
    }
    let pin = |name: &str| Path::new(SET).join(name);

    // A folder of files that is not on a bpf filesystem.
    let folder = PathBuf::from("/tmp/pins/2");
    fs::create_dir_all(&folder)?;
    for name in ["task", "task_file", "task_vma", "dmabuf"] {
        fs::write(folder.join(name), noise())?;
    }
    is_refused(ctx, "files of noise", "/tmp/pins", &truth)?;
    fs::remove_file(folder.join("task"))?;
    mknodat(CWD, folder.join("task"), FileType::Fifo, Mode::from_raw_mode(0o666), 0)?;
    is_refused(ctx, "a FIFO", "/tmp/pins", &truth)?;

    // The same files, mounted over a pin.
    for (what, source) in [("a FIFO over a pin", "task"), ("noise over a pin", "dmabuf")] {
        fs::set_permissions(folder.join(source), fs::Permissions::from_mode(0o666))?;
        mount_bind(folder.join(source), pin("task_file"))?;
        is_refused(ctx, what, PINS, &truth)?;
        unmount(pin("task_file"), UnmountFlags::empty())?;
    }

    // One of our own iterators in the place of another: it writes well-formed records.
    let aside = pin("aside");
    fs::rename(pin("task_file"), &aside)?;
    fs::rename(pin("task"), pin("task_file"))?;
    is_refused(ctx, "a missing pin", PINS, &truth)?;
    fs::rename(&aside, pin("task"))?;
    is_refused(ctx, "two pins exchanged", PINS, &truth)?;
    fs::rename(pin("task"), &aside)?;
    fs::rename(pin("task_file"), pin("task"))?;
    fs::rename(&aside, pin("task_file"))?;
    status(ctx, "status with all in place again", 0, &mut by_user_in(GROUP, &["probes", "status"]))?;

    // A folder that an ordinary user could have made.
    chown(SET, Some(USER + 1), Some(GROUP))?;
    is_refused(ctx, "another user's folder", PINS, &truth)?;
    chown(SET, Some(0), Some(GROUP))?;
    fs::set_permissions(SET, fs::Permissions::from_mode(0o770))?;
    is_refused(ctx, "a folder that others may change", PINS, &truth)?;
    fs::set_permissions(SET, fs::Permissions::from_mode(0o750))?;

    // The other iterators were loaded for use with the list of buffers. Without it they do not tell
    // enough.
    if Need::BufferIterator.probe() {
        fs::remove_file(pin("dmabuf"))?;
        refused(
            ctx,
            "--source bpf without the list",
            "BPF iterators cannot be",
            &mut by_user_in(GROUP, &["--source", "bpf"]),
        )?;
    }
    remove(ctx)
}

/// Bytes that are not records.
fn noise() -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..10_000).map(next).collect()
}

fn refusals(ctx: &mut Ctx) -> anyhow::Result<()> {
    let rights = "run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN";
    let group = GROUP.to_string();
    let can_install = install(ctx)?;
    if !can_install {
        return Ok(());
    }
    refused(ctx, "a user's install", rights, &mut by_user_in(USER, &["probes", "install"]))?;
    refused(ctx, "a member's install", rights, &mut by_user_in(GROUP, &["probes", "install"]))?;
    refused(ctx, "a member's remove", "run as root", &mut by_user_in(GROUP, &["probes", "remove"]))?;
    status(ctx, "status after that", 0, &mut by_user_in(GROUP, &["probes", "status"]))?;

    fs::create_dir_all("/tmp/full/file")?;
    let full = &["probes", "install", "--pins", "/tmp/full"];
    refused(ctx, "install over something", "Directory not empty", &mut lsbuf(full))?;
    refused(
        ctx,
        "remove from another filesystem",
        "is not in a bpf filesystem",
        &mut lsbuf(&["probes", "remove", "--pins", "/tmp/full"]),
    )?;

    // As systemd mounts it.
    fs::create_dir_all("/tmp/closed")?;
    mount("bpf", "/tmp/closed", "bpf", MountFlags::empty(), Some(c"mode=0700"))?;
    let closed = ["probes", "install", "--pins", "/tmp/closed/lsbuf", "-g", &group];
    refused(
        ctx,
        "install where the group cannot enter",
        "cannot enter /tmp/closed (mode 0700)",
        &mut lsbuf(&closed),
    )?;
    ctx.check("nothing is made there", !Path::new("/tmp/closed/lsbuf").exists())?;
    let roots = ["probes", "install", "--pins", "/tmp/closed/lsbuf"];
    status(ctx, "install there for root alone", 0, &mut lsbuf(&roots))?;
    status(
        ctx,
        "remove from a filesystem that lsbuf did not mount",
        0,
        &mut lsbuf(&["probes", "remove", "--pins", "/tmp/closed/lsbuf"]),
    )?;
    ctx.check("the folder has gone", !Path::new("/tmp/closed/lsbuf").exists())?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    ctx.check("and the filesystem stays", mounts.contains(" /tmp/closed bpf "))?;
    unmount("/tmp/closed", UnmountFlags::empty())?;
    remove(ctx)
}

fn and_a_ring(ctx: &mut Ctx) -> anyhow::Result<()> {
    let mut actor = Actor::start(b"server", |stage| {
        let ring = ring::open()?;
        let (buf, _) = make::plain(SIZE)?;
        ring::register(&ring, &[Some(std::os::fd::AsFd::as_fd(&buf))])?;
        stage.pause(&[Held::by(&buf)?])
    })?;
    let truth = Truth::held(make::plain_exporter(), vec![actor.paused_with_one()?])
        .and(ExpectedResidual::Estimate(1));
    if !install(ctx)? {
        return Ok(());
    }
    for command in [&mut by_user_in(GROUP, &["--json"]), &mut lsbuf(&["--json"])] {
        compare_in(ctx, &Answer::from(command)?, &truth)?;
    }
    remove(ctx)
}
