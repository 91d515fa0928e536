//! Refusals that all exporters share: other files, other users, no free descriptors.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::Context;
use dmabuf::{Direction, DmaBuf, DrmDevice, ErrorKind, Heap, SealedMemfd, Udmabuf, VideoDevice};
use rustix::fs::{CWD, FileType, Mode, OFlags, chmod, chown, mknodat, open};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::kit::{count, descriptors, fdinfo, one_of_each, page, refused, shape, vgem, with_room_for};
use crate::make;
use crate::need::{Need, vgem_node, vivid_node};
use crate::scenario::Ctx;

/// Only a dma-buf's descriptor becomes a `DmaBuf`, whatever looks like one.
pub(super) fn not_a_dma_buf(ctx: &mut Ctx) -> anyhow::Result<()> {
    let memfd: OwnedFd = SealedMemfd::create("memfd", page())?.into();
    let lookalike = File::create("/dmabuf:lookalike").context("making a lookalike")?;
    for (what, fd) in [
        ("a memfd", memfd),
        ("a file called /dmabuf:lookalike", lookalike.into()),
        ("a DRM device", File::open(vgem_node("card").context("no vgem")?)?.into()),
        ("a socket", std::os::unix::net::UnixStream::pair()?.0.into()),
    ] {
        let before = descriptors()?;
        refused(ctx, what, ErrorKind::NotDmaBuf, DmaBuf::try_from_fd(fd))?;
        ctx.check_eq(format!("{what} is closed"), before - 1, descriptors()?)?;
    }
    fs::remove_file("/dmabuf:lookalike").context("removing the lookalike")?;
    for (exporter, buf) in one_of_each(1)? {
        let identity = buf.identity()?;
        let path = format!("/proc/self/fd/{}", buf.as_fd().as_raw_fd());
        let path_only = open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).context("O_PATH")?;
        ctx.check(format!("{exporter}: with O_PATH it is one"), DmaBuf::is_dma_buf(&path_only)?)?;
        ctx.check_eq(format!("{exporter}: count of an O_PATH descriptor"), 1, count(&buf)?)?;
        let taken = DmaBuf::try_from_fd(path_only);
        refused(ctx, &format!("{exporter}: with O_PATH"), ErrorKind::PathOnly, taken)?;
        let taken = DmaBuf::try_from_fd(buf.into())?;
        ctx.check(format!("{exporter}: it is one"), taken.identity()? == identity)?;
        ctx.check(format!("{exporter}: fdinfo says so"), fdinfo(&taken, "exp_name")?.is_some())?;
    }
    Ok(())
}

/// The error for an exporter that the kernel lacks has its own kind, and an exporter that the
/// kernel has opens.
pub(super) fn absent(ctx: &mut Ctx) -> anyhow::Result<()> {
    let heap = fs::exists("/sys/class/dma_heap/system").context("looking for the system heap")?;
    let udmabuf = fs::exists("/sys/class/misc/udmabuf").context("looking for udmabuf")?;
    for (what, exists, missed, opened) in [
        ("the system heap", heap, ErrorKind::NoHeap, Heap::open("system").map(drop)),
        ("udmabuf", udmabuf, ErrorKind::NoUdmabuf, Udmabuf::open().map(drop)),
    ] {
        let expected = if exists { Ok(()) } else { Err(missed) };
        let opened = opened.map_err(|error| error.kind());
        ctx.check_eq(format!("opening {what}"), format!("{expected:?}"), format!("{opened:?}"))?;
    }
    ctx.check_eq("the system heap is listed", heap, Heap::list()?.iter().any(|name| name == "system"))
}

/// The error for another user says who owns the node.
pub(super) fn another_user(ctx: &mut Ctx) -> anyhow::Result<()> {
    let card = vgem_node("card").context("no vgem")?;
    // The same device with a group, as distributions set it up.
    let for_group = "/tmp/making-card";
    let device = fs::metadata(&card).context("looking at the node")?.rdev();
    mknodat(CWD, for_group, FileType::CharacterDevice, Mode::empty(), device).context("making a node")?;
    chown(for_group, None, Some(Gid::from_raw(1234))).context("giving it to a group")?;
    chmod(for_group, Mode::from_raw_mode(0o660)).context("opening it to the group")?;

    let (user, group) = (Uid::from_raw(1000), Gid::from_raw(1000));
    set_thread_groups(&[]).context("leaving all groups")?;
    set_thread_res_gid(group, group, group).context("becoming another group")?;
    set_thread_res_uid(user, user, user).context("becoming another user")?;
    let mut tries = vec![(card.display().to_string(), DrmDevice::open(&card).map(drop))];
    if Need::Heap.probe() {
        tries.push(("/dev/dma_heap/system".into(), Heap::open("system").map(drop)));
    }
    if Need::Udmabuf.probe() {
        tries.push(("/dev/udmabuf".into(), Udmabuf::open().map(drop)));
    }
    if let Some(node) = vivid_node("vid-cap") {
        tries.push((node.display().to_string(), VideoDevice::open(&node).map(drop)));
    }
    for (node, result) in tries {
        let message = refused(ctx, &node, ErrorKind::PermissionDenied, result)?;
        let mode = fs::metadata(&node).with_context(|| format!("looking at {node}"))?.mode() & 0o7777;
        let whose = format!("{node}: it belongs to root:root with mode {mode:04o}");
        ctx.check(format!("{message:?} says {whose:?}"), message.contains(&whose))?;
        ctx.check(format!("{message:?} proposes no group"), !message.contains("join"))?;
    }
    refused(ctx, "finding the driver", ErrorKind::PermissionDenied, DrmDevice::find("vgem"))?;
    let message = refused(ctx, for_group, ErrorKind::PermissionDenied, DrmDevice::open(for_group))?;
    ctx.check(format!("{message:?} proposes the group"), message.contains("join the group 1234"))
}

/// Every call that makes a descriptor says if none is free.
pub(super) fn no_descriptors(ctx: &mut Ctx) -> anyhow::Result<()> {
    let device = vgem()?;
    let dumb = device.create_dumb(shape(1)?)?;
    let buf = dumb.handle.export()?;
    let card = vgem_node("card").context("no vgem")?;
    let mut check = |what: &str, result: dmabuf::Result<()>| {
        refused(ctx, what, ErrorKind::OutOfDescriptors, result).map(drop)
    };
    check("duplicating", with_room_for(0, || buf.try_clone().map(drop))?)?;
    check("exporting", with_room_for(0, || dumb.handle.export().map(drop))?)?;
    check("opening a device", with_room_for(0, || DrmDevice::open(&card).map(drop))?)?;
    check("making a memfd", with_room_for(0, || SealedMemfd::create("memfd", page()).map(drop))?)?;
    if Need::SyncFile.probe() {
        check("a sync file", with_room_for(0, || buf.export_sync_file(Direction::Read).map(drop))?)?;
    }
    if Need::Heap.probe() {
        let heap = Heap::open("system")?;
        check("a heap's buffer", with_room_for(0, || heap.allocate(page()).map(drop))?)?;
    }
    if Need::Udmabuf.probe() {
        let udmabuf = Udmabuf::open()?;
        let memfd = SealedMemfd::create("memfd", page())?;
        let range = memfd.whole()?;
        check("a udmabuf", with_room_for(0, || udmabuf.create(range).map(drop))?)?;
        check("a udmabuf of a list", with_room_for(0, || udmabuf.create_list(&[range]).map(drop))?)?;
    }
    if Need::Vivid.probe() {
        let mut device = make::vivid()?;
        let buffers = device.buffers(1)?;
        check("a video buffer", with_room_for(0, || buffers.export(0).map(drop))?)?;
    }
    Ok(())
}
