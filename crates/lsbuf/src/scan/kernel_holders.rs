//! Gives a name to what holds a buffer inside the kernel: loop devices, io_urings, messages,
//! overlays.
//!
//! Loop devices say which file they have by device and inode number, which is proof. An io_uring
//! says the path of a fixed file, a socket how many fds wait in it, and an overlay the paths of its
//! layers: those are candidates, and they are looked for only on request
//! ([`Sources::kernel_holders`](super::Sources)).
//!
//! Nothing is read if no buffer has a reference that this could explain.

use std::path::Path;

use super::lifetimes::UNREACHABLE;
use super::lists;
use super::options::Options;
use crate::kernel::hidden_holders::{self, HiddenHolders};
use crate::kernel::loops::{self, LoopDevice};
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::mounts::Mounts;
use crate::kernel::shmem::overlays::Overlays;
use crate::model::{Buffer, KernelHolder, KernelHolderKind, Kind, Label, Residual};

/// The folder of device nodes on a running machine.
const DEVICES: &str = "/dev";

/// Names what holds these buffers inside the kernel.
pub(super) fn add(root: &ProcRoot, options: &Options, buffers: &mut [Buffer]) {
    let may_have_loop = |buffer: &Buffer| can_back_loops(buffer.id.kind) && is_unexplained(buffer);
    if root.is_live()
        && let Some(sys) = options.sys_root.as_deref()
        && buffers.iter().any(may_have_loop)
    {
        let devices = loops::read_all(sys, Path::new(DEVICES));
        for buffer in buffers.iter_mut().filter(|buffer| may_have_loop(buffer)) {
            push(buffer, devices.iter().filter_map(|device| by_loop(buffer, device)).collect());
        }
    }
    if options.sources.kernel_holders && buffers.iter().any(is_unexplained) {
        let hidden = hidden_holders::read_all(root, &lists::own_pids(root));
        for buffer in buffers.iter_mut().filter(|buffer| is_unexplained(buffer)) {
            push(buffer, by_hidden(buffer, &hidden));
        }
        add_overlays(root, buffers);
    }
}

/// Names the overlays that may have a file, and the processes that may have it open through one.
fn add_overlays(root: &ProcRoot, buffers: &mut [Buffer]) {
    let may_be_below = |b: &Buffer| matches!(b.id.kind, Kind::Tmpfs | Kind::Hugetlbfs) && is_unexplained(b);
    if !root.is_live() || !buffers.iter().any(may_be_below) {
        return;
    }
    let found = Overlays::read(root, &lists::own_pids(root));
    if found.mounts.is_empty() {
        return;
    }
    let mut text = Vec::new();
    let own = match root.dir().read_file(c"self/mountinfo", &mut text) {
        Ok(()) => Mounts::parse(&text),
        Err(_) => Mounts::default(),
    };
    for buffer in buffers.iter_mut().filter(|buffer| may_be_below(buffer)) {
        push(buffer, by_overlays(buffer, &own, &found));
    }
}

/// The overlays that may have a file, and who may have it open through one. `own` are the mounts
/// that the reader sees.
fn by_overlays(buffer: &Buffer, own: &Mounts, found: &Overlays) -> Vec<KernelHolder> {
    let (Some(name), Some(dev)) = (buffer.name.as_ref().map(Label::as_bytes), buffer.id.dev) else {
        return Vec::new();
    };
    let place = match name.strip_prefix(UNREACHABLE) {
        Some(below) => Some((dev, below.to_vec())),
        None => own.place_of(name).filter(|&(of, _)| of == dev),
    };
    let Some(place) = place else { return Vec::new() };
    let candidate = |name: &Label, pid| {
        let what = KernelHolderKind::Overlay;
        KernelHolder { what, name: name.clone(), pid, is_proven: false }
    };
    let overlays = found.mounts.iter().filter(|overlay| overlay.may_have(&place));
    let overlays = overlays.map(|overlay| candidate(&overlay.point, None));
    let opened = found.opened.iter().filter(|opened| opened.files.contains(&place));
    overlays.chain(opened.map(|opened| candidate(&opened.path, Some(opened.pid)))).collect()
}

fn push(buffer: &mut Buffer, found: Vec<KernelHolder>) {
    let mut all: Vec<KernelHolder> = buffer.kernel_holders.iter().cloned().chain(found).collect();
    all.sort();
    all.dedup();
    buffer.kernel_holders = all.into();
}

/// Whether a buffer has, or may have, a reference that no process shows.
fn is_unexplained(buffer: &Buffer) -> bool {
    let in_flight = buffer.in_flight.is_some_and(|number| number > 0);
    in_flight || !matches!(buffer.residual, Residual::Exact(0)) && buffer.id.kind != Kind::Sysv
}

/// Whether a loop device takes such a file: regular ones alone (`loop_validate_file`).
fn can_back_loops(kind: Kind) -> bool {
    !matches!(kind, Kind::DmaBuf | Kind::Sysv | Kind::Secretmem | Kind::GuestMemfd)
}

/// A loop device that has this file, or could have it by the path where the device cannot be asked.
fn by_loop(buffer: &Buffer, device: &LoopDevice) -> Option<KernelHolder> {
    let is_proven = device.file.is_some();
    let fits = match device.file {
        Some((dev, ino)) => buffer.id.dev == Some(dev) && buffer.id.ino == ino,
        None => is_called(buffer, &device.path),
    };
    let what = KernelHolderKind::Loop;
    fits.then(|| KernelHolder { what, name: device.name.clone(), pid: None, is_proven })
}

/// The rings with a fixed file of this name, and the sockets that may have it in a message.
fn by_hidden(buffer: &Buffer, hidden: &HiddenHolders) -> Vec<KernelHolder> {
    let candidate = |what, name, pid| KernelHolder { what, name, pid: Some(pid), is_proven: false };
    let rings = hidden.fixed.iter().filter(|(_, path)| buffer.io_uring != Some(0) && is_called(buffer, path));
    let rings = rings.map(|(pid, path)| candidate(KernelHolderKind::IoUring, path.clone(), *pid));
    let queues = hidden.queues.iter().filter(|_| buffer.in_flight != Some(0));
    let queues = queues.map(|&(pid, ino, _)| {
        candidate(KernelHolderKind::Message, format!("socket:[{ino}]").as_str().into(), pid)
    });
    rings.chain(queues).collect()
}

/// Whether the kernel would print that path, or its last name alone, for this buffer's file.
fn is_called(buffer: &Buffer, path: &Label) -> bool {
    let path = path.as_bytes();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let Some(name) = buffer.name.as_ref().map(Label::as_bytes) else { return false };
    let last = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    match buffer.id.kind {
        // Older kernels print the last name alone, which is the same for every dma-buf.
        Kind::DmaBuf => path == b"dmabuf" || path.strip_prefix(b"/dmabuf:") == Some(name),
        Kind::Memfd => path.strip_prefix(b"/").unwrap_or(path).strip_prefix(b"memfd:") == Some(name),
        _ if name.starts_with(b"/") && path.starts_with(b"/") => path == name,
        _ => !name.is_empty() && name.rsplit(|&b| b == b'/').next() == Some(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BufferId, Dev, Inode, Pid, Why};

    fn buffer(kind: Kind, name: &str) -> Buffer {
        let mut buffer = Buffer::new(BufferId::new(kind, Some(Dev { major: 0, minor: 1 }), Inode(7)));
        buffer.name = Some(name.into());
        buffer.residual = Residual::Exact(1);
        buffer
    }

    /// Check that a path names a buffer as the kernel prints it for its kind, and no other.
    #[test]
    fn paths() {
        let called = |kind, name: &str, path: &str| is_called(&buffer(kind, name), &path.into());
        assert!(called(Kind::Memfd, "disk", "/memfd:disk (deleted)"));
        assert!(called(Kind::Memfd, "disk", "memfd:disk"));
        assert!(!called(Kind::Memfd, "disk", "/memfd:disk2 (deleted)"));
        assert!(called(Kind::DmaBuf, "frame", "/dmabuf:frame"));
        assert!(called(Kind::DmaBuf, "frame", "dmabuf"));
        assert!(!called(Kind::DmaBuf, "frame", "/dmabuf:other"));
        assert!(called(Kind::Tmpfs, "/dev/shm/x", "/dev/shm/x (deleted)"));
        assert!(called(Kind::Tmpfs, "/dev/shm/x", "x"));
        assert!(!called(Kind::Tmpfs, "/dev/shm/x", "/tmp/x"));
    }

    /// Check that a loop device is proven by device and inode number, whatever its path says, and
    /// is a candidate where only the path is known.
    #[test]
    fn loop_devices() {
        let disk = buffer(Kind::Memfd, "disk");
        let device = |path: &str, file| LoopDevice { name: "loop3".into(), path: path.into(), file };
        let proven = |device| by_loop(&disk, &device).map(|holder| holder.is_proven);
        let own = Some((Dev { major: 0, minor: 1 }, Inode(7)));
        assert_eq!(proven(device("/elsewhere", own)), Some(true));
        assert_eq!(proven(device("/memfd:disk", Some((Dev { major: 0, minor: 1 }, Inode(8))))), None);
        assert_eq!(proven(device("/memfd:disk (deleted)", None)), Some(false));
        assert_eq!(proven(device("/x", None)), None);
    }

    /// Check that rings are candidates by name and sockets by their queues, unless the buffer is
    /// known to be in no ring or no message.
    #[test]
    fn rings_and_sockets() {
        let hidden =
            HiddenHolders { fixed: vec![(Pid(3), "/memfd:disk".into())], queues: vec![(Pid(4), 9, 1)] };
        let mut disk = buffer(Kind::Memfd, "disk");
        disk.residual = Residual::Estimate(1, Why::MaybeInFlight);
        let found = |buffer: &Buffer| -> Vec<_> {
            by_hidden(buffer, &hidden).into_iter().map(|holder| (holder.what, holder.pid)).collect()
        };
        let both = [(KernelHolderKind::IoUring, Some(Pid(3))), (KernelHolderKind::Message, Some(Pid(4)))];
        assert_eq!(found(&disk), both);
        (disk.io_uring, disk.in_flight) = (Some(0), Some(0));
        assert_eq!(found(&disk), []);
    }
}
