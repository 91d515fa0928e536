//! Who owns the memory of a buffer: who must let go of it before the kernel frees it.
//!
//! The reference count of a dma-buf says how long the *dma-buf* lives. Many drivers export memory
//! that something else keeps as well, and then a balanced account says nothing about the memory.
//! [`Owner::of`] looks the exporter up in one table, which names the kernel code that proves each
//! row. Figures, candidates and `lsbuf show` all use it.
//!
//! Limits: an exporter is known by its name alone. A name that is not in the table is
//! [`Owner::Unknown`]: it may be a DMA heap of a vendor, or a driver that exports its own objects.

use super::{Buffer, Device, DeviceClass, Kind, Pid};

/// Who must let go of a buffer's memory before the kernel frees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Owner {
    /// The references: the last one frees the memory.
    References,
    /// The queue of the device that exported it, and each export of it. The queue lives until its
    /// owner frees it or closes the device. No reference of the dma-buf is the queue's.
    Queue,
    /// An object of the driver. GEM handles of it are among the references. Framebuffers, mappings
    /// through the device and bindings in a GPU's address space need not be.
    Object(DeviceClass),
    /// The references, and the memfds whose pages these are ([`Buffer::overlaps`]).
    Pages,
    /// A device: the memory is on it, and nothing is freed.
    Device,
    /// The exporter is not in the table, or its name was not read.
    Unknown,
}

/// What is known of exporters. The first row whose name fits counts.
const EXPORTERS: &[(Name, Owner)] = &[
    // system_heap_dma_buf_release frees the pages (drivers/dma-buf/heaps/system_heap.c). A heap
    // hands out its memory as one dma-buf and keeps nothing (dma_heap_ioctl_allocate).
    (Name::Is(b"system"), Owner::References),
    (Name::Is(b"system-uncached"), Owner::References),
    // cma_heap_dma_buf_release does the same (drivers/dma-buf/heaps/cma_heap.c). The heap of the
    // default area has had these names.
    (Name::Is(b"reserved"), Owner::References),
    (Name::Is(b"linux,cma"), Owner::References),
    (Name::Is(b"default_cma_region"), Owner::References),
    // release_udmabuf drops one reference of each page or folio, and the memfd has its own
    // (drivers/dma-buf/udmabuf.c).
    (Name::Is(b"udmabuf"), Owner::Pages),
    // The memory has a reference count. vb2_*_alloc takes the queue's reference, vb2_*_get_dmabuf
    // one for each export, and each mapping of the device has one
    // (drivers/media/common/videobuf2/videobuf2-{vmalloc,dma-contig,dma-sg}.c).
    (Name::Begins(b"videobuf2"), Owner::Queue),
    // The memory is a range of a PCI device's registers or memory
    // (drivers/vfio/pci/vfio_pci_dmabuf.c, Linux 6.19).
    (Name::Begins(b"vfio_pci"), Owner::Device),
    // drm_gem_dmabuf_release drops one reference of the GEM object (drivers/gpu/drm/drm_prime.c). A
    // handle keeps the dma-buf (drm_gem_object_handle_put_unlocked in drm_gem.c). A framebuffer did
    // not until commit 5307dce878d4 (Linux 6.16); a mapping of the device (drm_gem_vm_open) and a
    // binding of Xe's VM_BIND still do not.
    (Name::Is(b"drm"), Owner::Object(DeviceClass::Drm)),
    (Name::Is(b"i915"), Owner::Object(DeviceClass::Drm)),
    (Name::Is(b"amdgpu"), Owner::Object(DeviceClass::Drm)),
    (Name::Is(b"xe"), Owner::Object(DeviceClass::Drm)),
    (Name::Is(b"virtio_gpu"), Owner::Object(DeviceClass::Drm)),
    // The dma-buf keeps the memory after cuMemFree and after the exit of who allocated it, as was
    // measured on an H100 with the open modules 580. The allocation keeps it as well.
    (Name::Is(b"nv_dmabuf"), Owner::Object(DeviceClass::Other)),
];

/// How a row of the table names its exporters.
#[derive(Clone, Copy, Debug)]
enum Name {
    Is(&'static [u8]),
    Begins(&'static [u8]),
}

impl Owner {
    /// Who owns the memory of that buffer. Of shared memory the references do; a name in a mounted
    /// filesystem is one more ([`Buffer::deleted`]).
    #[must_use]
    pub fn of(buffer: &Buffer) -> Owner {
        if buffer.id.kind != Kind::DmaBuf {
            return Owner::References;
        }
        let Some(exporter) = &buffer.exporter else { return Owner::Unknown };
        let fits = |name: Name| match name {
            Name::Is(name) => exporter.as_bytes() == name,
            Name::Begins(start) => exporter.as_bytes().starts_with(start),
        };
        EXPORTERS.iter().find(|(name, _)| fits(*name)).map_or(Owner::Unknown, |&(_, owner)| owner)
    }

    /// The word for it in JSON. `None`: unknown.
    #[must_use]
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Owner::References => Some("references"),
            Owner::Queue => Some("queue"),
            Owner::Object(_) => Some("object"),
            Owner::Pages => Some("pages"),
            Owner::Device => Some("device"),
            Owner::Unknown => None,
        }
    }

    /// What it means for the memory, in a sentence.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Owner::References => "its references: the last one frees the memory",
            Owner::Queue => {
                "the queue of the video device that exported it: while that lives, no close frees memory"
            }
            Owner::Object(_) => "an object of the driver: a process with the device open may keep it unseen",
            Owner::Pages => "its references, and the memfds that have the same pages",
            Owner::Device => "the device that it is on: nothing frees it",
            Owner::Unknown => {
                "unknown: the exporter may keep the memory after the last reference, or may not"
            }
        }
    }

    /// Whether the last reference frees the memory, as far as is known of the processes that have
    /// all references.
    pub(super) fn lets_go(self, is_holder: impl Fn(Pid) -> bool, devices: &[Device]) -> LetsGo {
        let nobody_else = |class: Option<DeviceClass>| {
            let mut fitting = devices.iter().filter(|device| class.is_none_or(|class| device.class == class));
            fitting.all(|device| device.holders.iter().all(|holder| is_holder(holder.pid)))
        };
        match self {
            Owner::References | Owner::Pages => LetsGo::Yes,
            Owner::Device => LetsGo::Never,
            Owner::Queue => LetsGo::Unknown,
            Owner::Object(class) if nobody_else(Some(class)) => LetsGo::Yes,
            Owner::Unknown if nobody_else(None) => LetsGo::Yes,
            Owner::Object(_) | Owner::Unknown => LetsGo::Unknown,
        }
    }
}

/// Whether the end of all references frees the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LetsGo {
    Yes,
    Never,
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BufferId, DeviceHolder, Fd, Inode};

    fn owner(exporter: &str) -> Owner {
        let buffer = Buffer {
            exporter: Some(exporter.into()),
            ..Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(1)))
        };
        Owner::of(&buffer)
    }

    fn video(pid: u32) -> Device {
        let holders = vec![DeviceHolder { pid: Pid(pid), comm: None, fds: vec![Fd(3)] }];
        Device { path: "/dev/video0".into(), name: None, class: DeviceClass::Video, holders }
    }

    /// Check that each sort of exporter has its owner, that all of videobuf2's allocators are one
    /// sort, and that a name of no row is unknown.
    #[test]
    fn exporters() {
        assert_eq!(owner("system"), Owner::References);
        assert_eq!(owner("udmabuf"), Owner::Pages);
        for allocator in ["vmalloc", "dma_contig", "dma_sg"] {
            assert_eq!(owner(&format!("videobuf2_{allocator}")), Owner::Queue);
        }
        assert_eq!(owner("drm"), Owner::Object(DeviceClass::Drm));
        assert_eq!(owner("vfio_pci_core"), Owner::Device);
        assert_eq!(owner("system-of-a-vendor"), Owner::Unknown);
        assert_eq!(Owner::of(&Buffer::new(BufferId::new(Kind::DmaBuf, None, Inode(1)))), Owner::Unknown);
    }

    /// Check that only another process with a device of the driver's class open makes it unknown
    /// whether a driver's object goes, and that nothing tells it of a queue.
    #[test]
    fn who_may_keep_it() {
        let object = Owner::Object(DeviceClass::Drm);
        assert_eq!(object.lets_go(|pid| pid == Pid(1), &[video(2)]), LetsGo::Yes);
        let mut card = video(1);
        card.class = DeviceClass::Drm;
        assert_eq!(object.lets_go(|pid| pid == Pid(1), &[card.clone()]), LetsGo::Yes);
        assert_eq!(object.lets_go(|pid| pid == Pid(2), &[card]), LetsGo::Unknown);
        assert_eq!(Owner::Unknown.lets_go(|pid| pid == Pid(1), &[video(2)]), LetsGo::Unknown);
        assert_eq!(Owner::Queue.lets_go(|pid| pid == Pid(1), &[]), LetsGo::Unknown);
    }
}
