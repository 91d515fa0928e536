//! The V4L2 ioctls for buffers: capabilities, the size of a frame, making, exporting and queueing
//! buffers.
//!
//! Only what every capture device with one plane has (`include/uapi/linux/videodev2.h`). Nothing
//! here starts a stream.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Result;
use rustix::ioctl::{Getter, Opcode, Updater, ioctl};

use super::uapi;

/// What a device reports about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capability {
    /// The driver's name, padded with NULs.
    pub(crate) driver: [u8; 16],
    /// Whether it captures frames of one plane into buffers that a program has requested.
    pub(crate) captures: bool,
}

/// The memory that a queue works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// The driver's own memory.
    Driver,
    /// Dma-bufs that a program queues.
    DmaBuf,
}

pub(crate) fn capability(device: BorrowedFd<'_>) -> Result<Capability> {
    // SAFETY: the request fills one `struct v4l2_capability`, which `V4l2Capability` is. It has
    // only integers, so any bytes are a valid value.
    let getter = unsafe { Getter::<{ uapi::VIDIOC_QUERYCAP }, uapi::V4l2Capability>::new() };
    // SAFETY: the request writes only to the getter's structure.
    let found = unsafe { ioctl(device, getter) }?;
    // `capabilities` describes all nodes of the hardware, `device_caps` this node.
    let own = match found.capabilities & uapi::V4L2_CAP_DEVICE_CAPS {
        0 => found.capabilities,
        _ => found.device_caps,
    };
    let wanted = uapi::V4L2_CAP_VIDEO_CAPTURE | uapi::V4L2_CAP_STREAMING;
    Ok(Capability { driver: found.driver, captures: own & wanted == wanted })
}

/// The size of a frame in the current format, in bytes.
pub(crate) fn frame_size(device: BorrowedFd<'_>) -> Result<u32> {
    let mut arg = uapi::V4l2Format {
        kind: uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE,
        aligned: [],
        width: 0,
        height: 0,
        pixelformat: 0,
        field: 0,
        bytesperline: 0,
        sizeimage: 0,
        rest: [0; 44],
    };
    update::<{ uapi::VIDIOC_G_FMT }, _>(device, &mut arg)?;
    Ok(arg.sizeimage)
}

/// Makes `count` buffers in the queue, or as many as the driver wants, and returns the number. 0
/// frees all of them and the queue.
pub(crate) fn request_buffers(device: BorrowedFd<'_>, memory: Memory, count: u32) -> Result<u32> {
    let kind = uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE;
    let mut arg = uapi::V4l2RequestBuffers {
        count,
        kind,
        memory: number(memory),
        ..uapi::V4l2RequestBuffers::default()
    };
    update::<{ uapi::VIDIOC_REQBUFS }, _>(device, &mut arg)?;
    Ok(arg.count)
}

/// Exports a buffer. The descriptor is read-write and close-on-exec.
pub(crate) fn export_buffer(device: BorrowedFd<'_>, index: u32) -> Result<OwnedFd> {
    let kind = uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE;
    let flags = (OFlags::RDWR | OFlags::CLOEXEC).bits();
    let mut arg = uapi::V4l2ExportBuffer { kind, index, flags, fd: -1, ..uapi::V4l2ExportBuffer::default() };
    update::<{ uapi::VIDIOC_EXPBUF }, _>(device, &mut arg)?;
    // SAFETY: on success the kernel has stored a new descriptor in `fd`, and nobody else has seen
    // it.
    unsafe { super::adopt(arg.fd) }
}

/// Puts a dma-buf into the queue at this index.
pub(crate) fn queue_dma_buf(device: BorrowedFd<'_>, index: u32, buf: BorrowedFd<'_>) -> Result<()> {
    // A length of 0 means the length of the dma-buf.
    let mut arg = uapi::V4l2Buffer {
        index,
        kind: uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE,
        memory: number(Memory::DmaBuf),
        fd: buf.as_raw_fd(),
        ..uapi::V4l2Buffer::default()
    };
    update::<{ uapi::VIDIOC_QBUF }, _>(device, &mut arg)
}

fn number(memory: Memory) -> u32 {
    match memory {
        Memory::Driver => uapi::V4L2_MEMORY_MMAP,
        Memory::DmaBuf => uapi::V4L2_MEMORY_DMABUF,
    }
}

/// Sends one of the requests above. The request number encodes the size of the structure.
fn update<const REQUEST: Opcode, T>(device: BorrowedFd<'_>, arg: &mut T) -> Result<()> {
    // SAFETY: each caller passes the structure that belongs to the request. It has no pointers, and
    // the caller borrows every descriptor in it until the call has returned.
    let updater = unsafe { Updater::<REQUEST, T>::new(arg) };
    // SAFETY: the request reads and writes only `arg`, which is borrowed until the call has
    // returned. The device may write to its own buffers or to dma-bufs, never to memory that Rust
    // knows of.
    unsafe { ioctl(device, updater) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::io::Errno;

    use super::*;

    /// Check that a descriptor of another kind gives ENOTTY, and nothing that looks like success.
    #[test]
    fn foreign_descriptor_is_enotty() {
        let file = tempfile::tempfile().unwrap();
        let file = file.as_fd();
        assert_eq!(capability(file).unwrap_err(), Errno::NOTTY);
        assert_eq!(frame_size(file), Err(Errno::NOTTY));
        assert_eq!(request_buffers(file, Memory::Driver, 1), Err(Errno::NOTTY));
        assert_eq!(export_buffer(file, 0).unwrap_err(), Errno::NOTTY);
        assert_eq!(queue_dma_buf(file, 0, file), Err(Errno::NOTTY));
    }
}
