//! The V4L2 requests about buffers: capabilities, the size of a frame, making, exporting and queueing buffers.
//!
//! Only what every capture device with one plane shares (`include/uapi/linux/videodev2.h`). Nothing here starts a stream.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Result;
use rustix::ioctl::{Getter, Opcode, Updater, ioctl};

use super::uapi;

/// What a device says about itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capability {
    /// The driver's name, filled up with NULs.
    pub(crate) driver: [u8; 16],
    /// Whether it captures frames of one plane into buffers that user space asks for.
    pub(crate) captures: bool,
}

/// Whose memory a queue works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// The driver's own.
    Driver,
    /// Dma-bufs that are queued.
    DmaBuf,
}

pub(crate) fn capability(device: BorrowedFd<'_>) -> Result<Capability> {
    // SAFETY: the request fills one `struct v4l2_capability`, which `V4l2Capability` is: integers alone, so that any bytes
    // are a valid one.
    let getter = unsafe { Getter::<{ uapi::VIDIOC_QUERYCAP }, uapi::V4l2Capability>::new() };
    // SAFETY: the request writes only to the getter's structure.
    let found = unsafe { ioctl(device, getter) }?;
    // `capabilities` speaks of all nodes of the hardware, the other field of this one.
    let own = match found.capabilities & uapi::V4L2_CAP_DEVICE_CAPS {
        0 => found.capabilities,
        _ => found.device_caps,
    };
    let wanted = uapi::V4L2_CAP_VIDEO_CAPTURE | uapi::V4L2_CAP_STREAMING;
    Ok(Capability { driver: found.driver, captures: own & wanted == wanted })
}

/// Bytes of a frame in the format that is set now.
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

/// Gives the queue `count` buffers, or as many as the driver wants, and returns how many. 0 frees them all and gives the
/// queue up.
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

/// Exports a buffer; the descriptor is read-write and close-on-exec.
pub(crate) fn export_buffer(device: BorrowedFd<'_>, index: u32) -> Result<OwnedFd> {
    let kind = uapi::V4L2_BUF_TYPE_VIDEO_CAPTURE;
    let flags = (OFlags::RDWR | OFlags::CLOEXEC).bits();
    let mut arg = uapi::V4l2ExportBuffer { kind, index, flags, fd: -1, ..uapi::V4l2ExportBuffer::default() };
    update::<{ uapi::VIDIOC_EXPBUF }, _>(device, &mut arg)?;
    // SAFETY: on success the kernel has stored a new descriptor in `fd`, and nobody else has seen it.
    unsafe { super::adopt(arg.fd) }
}

/// Puts a dma-buf into the buffer of that number.
pub(crate) fn queue_dma_buf(device: BorrowedFd<'_>, index: u32, buf: BorrowedFd<'_>) -> Result<()> {
    // A length of 0 stands for the dma-buf's own.
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

/// Sends one of the requests above, with the structure whose size its number encodes.
fn update<const REQUEST: Opcode, T>(device: BorrowedFd<'_>, arg: &mut T) -> Result<()> {
    // SAFETY: each caller pairs the request with its structure, which holds no pointer; descriptors in it are borrowed by
    // the caller until the call has returned.
    let updater = unsafe { Updater::<REQUEST, T>::new(arg) };
    // SAFETY: the request reads and writes only `arg`, which is borrowed until the call has returned. Buffers that the
    // device may write to are its own or dma-bufs, never memory that Rust knows of.
    unsafe { ioctl(device, updater) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::io::Errno;

    use super::*;

    /// Check that a descriptor of another kind answers ENOTTY, not something that looks like success.
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
