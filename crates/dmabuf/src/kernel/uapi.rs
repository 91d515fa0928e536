//! Structures and ioctl numbers of the kernel's user interface.
//!
//! They are written by hand from the uapi headers, because they are few and the kernel never
//! changes the layout of a published ioctl. Like the C macros, the numbers here are computed from
//! the size of the structure, so a wrong size gives a wrong number. The tests compare the numbers
//! with the known values.

use std::ffi::{c_char, c_int, c_long};

use rustix::ioctl::{Opcode, opcode};

// include/uapi/linux/dma-buf.h

pub(super) const DMA_BUF_SYNC_READ: u8 = 1 << 0;
pub(super) const DMA_BUF_SYNC_WRITE: u8 = 1 << 1;
pub(super) const DMA_BUF_SYNC_END: u8 = 1 << 2;

#[repr(C)]
pub(super) struct DmaBufSync {
    pub(super) flags: u64,
}

#[repr(C)]
pub(super) struct DmaBufSyncFile {
    pub(super) flags: u32,
    pub(super) fd: i32,
}

pub(super) const DMA_BUF_IOCTL_SYNC: Opcode = opcode::write::<DmaBufSync>(b'b', 0);
// The size in this number has no effect. The argument is the address of the string itself, on
// 32-bit kernels too.
pub(super) const DMA_BUF_SET_NAME_B: Opcode = opcode::write::<u64>(b'b', 1);
pub(super) const DMA_BUF_IOCTL_EXPORT_SYNC_FILE: Opcode = opcode::read_write::<DmaBufSyncFile>(b'b', 2);
pub(super) const DMA_BUF_IOCTL_IMPORT_SYNC_FILE: Opcode = opcode::write::<DmaBufSyncFile>(b'b', 3);

// include/uapi/linux/dma-heap.h

#[repr(C)]
pub(super) struct DmaHeapAllocationData {
    pub(super) len: u64,
    pub(super) fd: u32,
    pub(super) fd_flags: u32,
    pub(super) heap_flags: u64,
}

pub(super) const DMA_HEAP_IOCTL_ALLOC: Opcode = opcode::read_write::<DmaHeapAllocationData>(b'H', 0);

// include/uapi/linux/udmabuf.h

pub(super) const UDMABUF_FLAGS_CLOEXEC: u32 = 1;

#[repr(C)]
pub(super) struct UdmabufCreate {
    pub(super) memfd: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// The fixed part. `count` items follow it in memory, and the request number encodes the size of
/// this part only.
#[repr(C)]
pub(super) struct UdmabufCreateList {
    pub(super) flags: u32,
    pub(super) count: u32,
}

pub(super) const UDMABUF_CREATE: Opcode = opcode::write::<UdmabufCreate>(b'u', 0x42);
pub(super) const UDMABUF_CREATE_LIST: Opcode = opcode::write::<UdmabufCreateList>(b'u', 0x43);

// include/uapi/drm/drm.h and drm_mode.h

#[repr(C)]
pub(super) struct DrmVersion {
    pub(super) version_major: c_int,
    pub(super) version_minor: c_int,
    pub(super) version_patchlevel: c_int,
    pub(super) name_len: usize,
    pub(super) name: *mut c_char,
    pub(super) date_len: usize,
    pub(super) date: *mut c_char,
    pub(super) desc_len: usize,
    pub(super) desc: *mut c_char,
}

#[repr(C)]
pub(super) struct DrmGemClose {
    pub(super) handle: u32,
    pub(super) pad: u32,
}

#[repr(C)]
pub(super) struct DrmPrimeHandle {
    pub(super) handle: u32,
    pub(super) flags: u32,
    pub(super) fd: i32,
}

#[repr(C)]
pub(super) struct DrmModeCreateDumb {
    pub(super) height: u32,
    pub(super) width: u32,
    pub(super) bpp: u32,
    pub(super) flags: u32,
    pub(super) handle: u32,
    pub(super) pitch: u32,
    pub(super) size: u64,
}

pub(super) const DRM_IOCTL_VERSION: Opcode = opcode::read_write::<DrmVersion>(b'd', 0x00);
pub(super) const DRM_IOCTL_GEM_CLOSE: Opcode = opcode::write::<DrmGemClose>(b'd', 0x09);
pub(super) const DRM_IOCTL_DROP_MASTER: Opcode = opcode::none(b'd', 0x1f);
pub(super) const DRM_IOCTL_PRIME_HANDLE_TO_FD: Opcode = opcode::read_write::<DrmPrimeHandle>(b'd', 0x2d);
pub(super) const DRM_IOCTL_PRIME_FD_TO_HANDLE: Opcode = opcode::read_write::<DrmPrimeHandle>(b'd', 0x2e);
pub(super) const DRM_IOCTL_MODE_CREATE_DUMB: Opcode = opcode::read_write::<DrmModeCreateDumb>(b'd', 0xb2);

// include/uapi/linux/videodev2.h

pub(super) const V4L2_CAP_VIDEO_CAPTURE: u32 = 0x0000_0001;
pub(super) const V4L2_CAP_STREAMING: u32 = 0x0400_0000;
pub(super) const V4L2_CAP_DEVICE_CAPS: u32 = 0x8000_0000;
pub(super) const V4L2_BUF_TYPE_VIDEO_CAPTURE: u32 = 1;
pub(super) const V4L2_MEMORY_MMAP: u32 = 1;
pub(super) const V4L2_MEMORY_DMABUF: u32 = 4;

#[repr(C)]
#[derive(Default)]
pub(super) struct V4l2Capability {
    pub(super) driver: [u8; 16],
    pub(super) card: [u8; 32],
    pub(super) bus_info: [u8; 32],
    pub(super) version: u32,
    pub(super) capabilities: u32,
    pub(super) device_caps: u32,
    pub(super) reserved: [u32; 3],
}

/// For buffer types whose format is a `struct v4l2_pix_format`, which is at the start of a union of
/// 200 bytes. Another format in the union has pointers, so the union has the alignment of a
/// pointer.
#[repr(C)]
pub(super) struct V4l2Format {
    pub(super) kind: u32,
    pub(super) aligned: [usize; 0],
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixelformat: u32,
    pub(super) field: u32,
    pub(super) bytesperline: u32,
    pub(super) sizeimage: u32,
    pub(super) rest: [u32; 44],
}

#[repr(C)]
#[derive(Default)]
pub(super) struct V4l2RequestBuffers {
    pub(super) count: u32,
    pub(super) kind: u32,
    pub(super) memory: u32,
    pub(super) capabilities: u32,
    pub(super) flags: u8,
    pub(super) reserved: [u8; 3],
}

/// `m` is a union; for dma-bufs it begins with the descriptor.
#[repr(C)]
#[derive(Default)]
pub(super) struct V4l2Buffer {
    pub(super) index: u32,
    pub(super) kind: u32,
    pub(super) bytesused: u32,
    pub(super) flags: u32,
    pub(super) field: u32,
    pub(super) timestamp: [c_long; 2],
    pub(super) timecode: [u32; 4],
    pub(super) sequence: u32,
    pub(super) memory: u32,
    pub(super) aligned: [usize; 0],
    pub(super) fd: i32,
    #[cfg(target_pointer_width = "64")]
    pub(super) rest_of_m: u32,
    pub(super) length: u32,
    pub(super) reserved: [u32; 2],
}

#[repr(C)]
#[derive(Default)]
pub(super) struct V4l2ExportBuffer {
    pub(super) kind: u32,
    pub(super) index: u32,
    pub(super) plane: u32,
    pub(super) flags: u32,
    pub(super) fd: i32,
    pub(super) reserved: [u32; 11],
}

pub(super) const VIDIOC_QUERYCAP: Opcode = opcode::read::<V4l2Capability>(b'V', 0);
pub(super) const VIDIOC_G_FMT: Opcode = opcode::read_write::<V4l2Format>(b'V', 4);
pub(super) const VIDIOC_REQBUFS: Opcode = opcode::read_write::<V4l2RequestBuffers>(b'V', 8);
pub(super) const VIDIOC_QBUF: Opcode = opcode::read_write::<V4l2Buffer>(b'V', 15);
pub(super) const VIDIOC_EXPBUF: Opcode = opcode::read_write::<V4l2ExportBuffer>(b'V', 16);

// PowerPC, MIPS and SPARC encode request numbers differently, and the size of one structure depends
// on the size of a pointer.
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
mod tests {
    use super::*;

    /// Check that the dma-buf request numbers are those of the kernel header.
    #[test]
    fn dma_buf_numbers() {
        assert_eq!(DMA_BUF_IOCTL_SYNC, 0x4008_6200);
        assert_eq!(DMA_BUF_SET_NAME_B, 0x4008_6201);
        assert_eq!(DMA_BUF_IOCTL_EXPORT_SYNC_FILE, 0xc008_6202);
        assert_eq!(DMA_BUF_IOCTL_IMPORT_SYNC_FILE, 0x4008_6203);
    }

    /// Check that the request numbers of heaps and udmabuf are those of the kernel headers.
    #[test]
    fn exporter_numbers() {
        assert_eq!(DMA_HEAP_IOCTL_ALLOC, 0xc018_4800);
        assert_eq!(UDMABUF_CREATE, 0x4018_7542);
        assert_eq!(UDMABUF_CREATE_LIST, 0x4008_7543);
    }

    /// Check that the DRM request numbers, which include sizes, are those of the kernel headers.
    #[test]
    fn drm_numbers() {
        assert_eq!(DRM_IOCTL_VERSION, 0xc040_6400);
        assert_eq!(DRM_IOCTL_GEM_CLOSE, 0x4008_6409);
        assert_eq!(DRM_IOCTL_DROP_MASTER, 0x641f);
        assert_eq!(DRM_IOCTL_PRIME_HANDLE_TO_FD, 0xc00c_642d);
        assert_eq!(DRM_IOCTL_PRIME_FD_TO_HANDLE, 0xc00c_642e);
        assert_eq!(DRM_IOCTL_MODE_CREATE_DUMB, 0xc020_64b2);
    }

    /// Check that the V4L2 request numbers, which include sizes, are those of the kernel header,
    /// and that the fields in use are at the right offsets.
    #[test]
    fn v4l2_numbers() {
        assert_eq!(VIDIOC_QUERYCAP, 0x8068_5600);
        assert_eq!(VIDIOC_G_FMT, 0xc0d0_5604);
        assert_eq!(VIDIOC_REQBUFS, 0xc014_5608);
        assert_eq!(VIDIOC_QBUF, 0xc058_560f);
        assert_eq!(VIDIOC_EXPBUF, 0xc040_5610);
        assert_eq!(std::mem::offset_of!(V4l2Format, sizeimage), 28);
        assert_eq!(std::mem::offset_of!(V4l2Buffer, memory), 60);
        assert_eq!(std::mem::offset_of!(V4l2Buffer, fd), 64);
        assert_eq!(std::mem::offset_of!(V4l2Buffer, length), 72);
    }
}
