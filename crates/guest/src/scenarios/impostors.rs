//! Files that only look like dma-bufs.
//!
//! The text of a link or a mapping is the path as seen from the reader's root. The owner of a file
//! can choose that path if the file is at the root of a filesystem: the reader's own, a mount that
//! is not attached anywhere, or one of another mount namespace, as in a container. All of them show
//! as `/dmabuf:NAME` to lsbuf, and no mount table tells the difference.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ftruncate, memfd_create, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount_move,
    unmount,
};
use rustix::process::{chdir, chroot};
use rustix::thread::UnshareFlags;

use super::holding::{compare, holder_of_one};
use super::shmem::kit::mount_tmpfs;
use crate::actor::Actor;
use crate::answer::{Answer, Truth};
use crate::kernels::Kernels;
use crate::make;
use crate::scenario::{Ctx, Scenario};
use crate::sys::{self, page, page_size};
use crate::way::Way;

/// How many of the files of [`all`] have a link that begins like a dma-buf's, and how many have
/// such a mapping.
const LOOKALIKES: (usize, usize) = (8, 5);

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "impostors",
    claim: "Files, memfds and files of other namespaces with names like dma-bufs are not taken for dma-bufs, by fd, O_PATH fd or mapping",
    needs: &[],
    kernels: Kernels::OldestAndNewest,
    ways: Way::BOTH,
    run: impostors,
}];

fn impostors(ctx: &mut Ctx) -> anyhow::Result<()> {
    // This actor is first, so that its pid is lower and lsbuf reads it before it has proven any
    // dma-buf.
    let mut actor = Actor::start(b"impostor", |stage| {
        let files = all()?;
        stage.pause(&[])?;
        drop(files);
        Ok(())
    })?;
    actor.paused()?;
    let mut real = holder_of_one()?;
    let held = real.paused_with_one()?;
    let links = fs::read_dir(format!("/proc/{}/fd", actor.pid))?
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("/dmabuf:"))
        .count();
    let maps = fs::read(format!("/proc/{}/maps", actor.pid))?;
    let maps = String::from_utf8_lossy(&maps).lines().filter(|line| line.contains(" /dmabuf:")).count();
    ctx.check_eq(
        "links and mappings that look like dma-bufs",
        format!("{LOOKALIKES:?}"),
        format!("{:?}", (links, maps)),
    )?;
    compare(ctx, &Truth::held(make::plain_exporter(), vec![held])).map(drop)?;
    for source in ["map_files,bufinfo", "procfs"] {
        let answer = Answer::ask(&["--source", source])?;
        ctx.check_eq(format!("buffers by {source}"), 1, answer.list("buffers").len())?;
        ctx.check_eq(format!("processes by {source}"), 1, answer.list("processes").len())?;
    }
    let links = Answer::ask(&["--source", "map_files,bufinfo"])?;
    ctx.check_eq("complete by map_files", true, &links.0["scan"]["complete"])
}

/// Makes files of every kind and place that look like dma-bufs, and maps them and opens them with
/// `O_PATH`. The caller holds them, and afterwards it is in a new mount namespace.
pub(super) fn all() -> anyhow::Result<Vec<OwnedFd>> {
    let mut files = Vec::new();
    // At the root of the reader's filesystem, with exactly the link text of a dma-buf.
    files.push(file(CWD, "/dmabuf:")?);
    files.push(file(CWD, "/dmabuf:cam")?);
    fs::remove_file("/dmabuf:cam")?;
    // The link's text has the name of a memfd after another prefix.
    for name in ["dmabuf:x", "/dmabuf:x"] {
        let memfd = memfd_create(name, MemfdFlags::CLOEXEC).context("making a memfd")?;
        ftruncate(&memfd, page())?;
        sys::map(&memfd, 0, page_size())?;
        files.push(memfd);
    }
    // At the root of a filesystem that is not mounted any more.
    mount_tmpfs("/tmp")?;
    files.push(file(CWD, "/tmp/dmabuf:x")?);
    files.push(path_only("/tmp/dmabuf:x")?);
    unmount("/tmp", UnmountFlags::DETACH)?;
    // At the root of a filesystem that was never attached.
    let unborn = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).context("opening a filesystem")?;
    fsconfig_create(&unborn).context("making a filesystem")?;
    let nowhere = fsmount(&unborn, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .context("mounting it nowhere")?;
    let unborn = file(&nowhere, "dmabuf:unborn")?;
    files.push(path_only(format!("/proc/self/fd/{}", unborn.as_raw_fd()))?);
    files.push(unborn);
    // At the root of another mount namespace, as a container's files appear on its host.
    sys::task::enter_new(UnshareFlags::NEWNS)?;
    mount_tmpfs("/tmp")?;
    chdir("/tmp")?;
    mount_move("/tmp", "/").context("moving a filesystem to the root")?;
    chroot(".").context("going there")?;
    files.push(file(CWD, "/dmabuf:\u{1b}[2J\nsize:\t1")?);
    files.push(path_only("/dmabuf:\u{1b}[2J\nsize:\t1")?);
    Ok(files)
}

/// Makes a file of one page and maps it.
fn file(dir: impl AsFd, path: &str) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file =
        openat(dir, path, flags, Mode::RUSR | Mode::WUSR).with_context(|| format!("making {path:?}"))?;
    ftruncate(&file, page())?;
    sys::map(&file, 0, page_size())?;
    Ok(file)
}

fn path_only(path: impl AsRef<Path>) -> anyhow::Result<OwnedFd> {
    Ok(OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?.into())
}
