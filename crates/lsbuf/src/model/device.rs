//! Open device nodes whose drivers can hold dma-bufs: where residual references may come from.
//!
//! The kernel does not say to which process a GEM handle, a queued frame or an import belongs, only
//! that it counts a reference. A process that has such a device open *could* be behind it. That
//! makes it a candidate, which is never a fact.

use super::{Buffer, Fd, Kind, Label, Owner, Pid};

/// One device node that at least one process has open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its path as the holders' fds name it, such as `/dev/dri/card0`.
    pub path: Label,
    /// The device behind the node, as attachments name it (`dev_name`), such as `vgem` or
    /// `0000:00:02.0`. `None`: sysfs does not say.
    pub name: Option<Label>,
    /// What sort of device.
    pub class: DeviceClass,
    /// One entry per process, ordered by pid.
    pub holders: Vec<DeviceHolder>,
}

/// A process that has a device open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceHolder {
    /// The process.
    pub pid: Pid,
    /// Its command name. `None`: it exited before that could be read.
    pub comm: Option<Label>,
    /// Its fds of the device, ascending.
    pub fds: Vec<Fd>,
}

/// What sort of device, by the name of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DeviceClass {
    /// GPUs and displays: `/dev/dri/*`.
    Drm,
    /// Cameras, codecs and what else has a queue of V4L2: `/dev/video*`, `/dev/vbi*`,
    /// `/dev/swradio*`, `/dev/v4l-touch*`.
    Video,
    /// Accelerators, GPUs with nodes of their own, RDMA, VFIO, IOMMUFD.
    Other,
}

impl DeviceClass {
    /// The class of a node by its path. Folders before `/dev` are skipped, because a container's or
    /// a chroot's `/dev` is somewhere below the root. A path is no proof, but candidates need none.
    #[must_use]
    pub fn of(path: &[u8]) -> Option<DeviceClass> {
        const NUMBERED: &[(&[u8], DeviceClass)] = &[
            (b"dri/card", DeviceClass::Drm),
            (b"dri/renderD", DeviceClass::Drm),
            (b"video", DeviceClass::Video),
            (b"vbi", DeviceClass::Video),
            (b"swradio", DeviceClass::Video),
            (b"v4l-touch", DeviceClass::Video),
            (b"accel/accel", DeviceClass::Other),
            (b"nvidia", DeviceClass::Other),
            (b"mali", DeviceClass::Other),
            (b"kgsl-3d", DeviceClass::Other),
            (b"infiniband/uverbs", DeviceClass::Other),
            (b"vfio/", DeviceClass::Other),
        ];
        const SINGLE: &[&[u8]] = &[b"kfd", b"iommu"];
        let at = memchr::memmem::rfind(path, b"/dev/")?;
        let node = &path[at + b"/dev/".len()..];
        let numbered = |prefix: &[u8]| {
            let number = node.strip_prefix(prefix).unwrap_or_default();
            !number.is_empty() && number.iter().all(u8::is_ascii_digit)
        };
        let single = SINGLE.contains(&node).then_some(DeviceClass::Other);
        NUMBERED.iter().find(|(prefix, _)| numbered(prefix)).map(|&(_, class)| class).or(single)
    }

    /// The class of devices whose driver may have exported that buffer and keeps references of its
    /// own. `None`: heaps and udmabuf, which keep none.
    /// Memory of a GPU driver belongs to a GEM object, exported or not.
    fn exporting(buffer: &Buffer) -> Option<DeviceClass> {
        if buffer.id.kind == Kind::GemShmem {
            return Some(DeviceClass::Drm);
        }
        match Owner::of(buffer) {
            Owner::References | Owner::Pages => None,
            Owner::Queue => Some(DeviceClass::Video),
            Owner::Object(class) => Some(class),
            Owner::Device => Some(DeviceClass::Other),
            // Many GPUs' drivers export under their own name.
            Owner::Unknown => buffer.exporter.as_ref().map(|_| DeviceClass::Drm),
        }
    }
}

/// The processes that could be behind a buffer's residual. If a driver lists the buffer's handles:
/// their owners. Else: processes that have open a device that is attached to the buffer, or that
/// could have exported it. If there is no such device: processes that have open any device whose
/// driver need not attach itself.
#[must_use]
pub fn candidates(buffer: &Buffer, devices: &[Device]) -> Vec<Pid> {
    if !buffer.handles.is_empty() {
        return distinct(buffer.handles.iter().map(|handle| handle.pid));
    }
    let exporting = DeviceClass::exporting(buffer);
    let attached = |device: &Device| match (&device.name, &buffer.attachments) {
        (Some(name), Some(attached)) => attached.contains(name),
        _ => false,
    };
    let fits = |device: &&Device| attached(device) || exporting == Some(device.class);
    let mut fitting: Vec<&Device> = devices.iter().filter(fits).collect();
    if fitting.is_empty() {
        // A GPU that imports attaches itself. Other drivers may only take a reference: a video
        // queue that copies does.
        let attaches = |device: &Device| device.class == DeviceClass::Drm && buffer.attachments.is_some();
        fitting = devices.iter().filter(|device| !attaches(device)).collect();
    }
    distinct(fitting.iter().flat_map(|d| &d.holders).map(|h| h.pid))
}

/// The processes that have a device of that class open, in order.
pub(super) fn openers(devices: &[Device], class: DeviceClass) -> Vec<Pid> {
    let fitting = devices.iter().filter(|device| device.class == class);
    distinct(fitting.flat_map(|device| &device.holders).map(|holder| holder.pid))
}

fn distinct(pids: impl Iterator<Item = Pid>) -> Vec<Pid> {
    let mut pids: Vec<Pid> = pids.collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BufferId, GemHandle, Inode};

    /// Check that nodes are recognized by their place below `/dev`, also in a container.
    #[test]
    fn classes() {
        assert_eq!(DeviceClass::of(b"/dev/dri/card0"), Some(DeviceClass::Drm));
        assert_eq!(DeviceClass::of(b"/srv/box/dev/dri/renderD128"), Some(DeviceClass::Drm));
        assert_eq!(DeviceClass::of(b"/dev/video3"), Some(DeviceClass::Video));
        assert_eq!(DeviceClass::of(b"/dev/null"), None);
        assert_eq!(DeviceClass::of(b"/dev/kfd"), Some(DeviceClass::Other));
        assert_eq!(DeviceClass::of(b"/home/video0"), None);
        assert_eq!(DeviceClass::of(b"/home/me/dev/video-notes.txt"), None);
    }

    fn device(path: &str, name: &str, pids: &[u32]) -> Device {
        let holders = pids.iter().map(|&pid| DeviceHolder { pid: Pid(pid), comm: None, fds: vec![Fd(3)] });
        Device {
            path: path.into(),
            name: Some(name.into()),
            class: DeviceClass::of(path.as_bytes()).unwrap(),
            holders: holders.collect(),
        }
    }

    fn buffer(exporter: &str, attached: &[&str]) -> Buffer {
        let mut buffer = Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(1)));
        buffer.exporter = Some(exporter.into());
        buffer.attachments = Some(attached.iter().map(|&name| name.into()).collect());
        buffer
    }

    fn of(exporter: &str, attached: &[&str]) -> Vec<u32> {
        let devices = [
            device("/dev/dri/card0", "gpu", &[1, 2]),
            device("/dev/dri/renderD128", "gpu", &[2, 3]),
            device("/dev/dri/card1", "vgem", &[4]),
            device("/dev/video0", "camera", &[5]),
        ];
        candidates(&buffer(exporter, attached), &devices).iter().map(|pid| pid.0).collect()
    }

    /// Check that the candidates for a heap's buffer are the processes that have an attached device
    /// open, by whichever node, each once.
    #[test]
    fn by_attachment() {
        assert_eq!(of("system", &["gpu"]), [1, 2, 3]);
    }

    /// Check that the candidates for a driver's own buffer are the processes that have a device of
    /// its class open.
    #[test]
    fn by_exporter() {
        assert_eq!(of("drm", &[]), [1, 2, 3, 4]);
        assert_eq!(of("videobuf2_vmalloc", &[]), [5]);
    }

    /// Check that only the owners of handles are candidates where a driver lists the handles.
    #[test]
    fn by_handle() {
        let mut imported = buffer("system", &["gpu"]);
        let handle = |pid, handle| GemHandle { pid: Pid(pid), comm: "x".into(), handle, imported: true };
        imported.handles = vec![handle(3, 1), handle(3, 2)].into();
        assert_eq!(candidates(&imported, &[device("/dev/dri/card0", "gpu", &[1])]), [Pid(3)]);
    }

    /// Check that the candidates for memory of a GPU driver are the processes that have a GPU open.
    #[test]
    fn memory_of_a_driver() {
        let memory = Buffer::new(BufferId::new(Kind::GemShmem, None, Inode(1)));
        let devices = [device("/dev/dri/card0", "gpu", &[1]), device("/dev/video0", "cam", &[2])];
        assert_eq!(candidates(&memory, &devices), [Pid(1)]);
    }

    /// Check that without attachments only drivers that need not attach make candidates, and that
    /// without devices there are none.
    #[test]
    fn by_nothing() {
        assert_eq!(of("udmabuf", &[]), [5]);
        assert_eq!(candidates(&buffer("udmabuf", &[]), &[]), []);
    }
}
