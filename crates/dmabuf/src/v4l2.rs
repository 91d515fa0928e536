//! V4L2 capture devices: export their buffers as dma-bufs, or let them capture into other dma-bufs.
//!
//! Camera pipelines use both. Each export makes a new dma-buf, so the same memory can have several
//! identities. From the moment when a dma-buf is queued until the queue is freed, the kernel holds
//! a reference to it that is in no fd table. If the driver uses DMA, its device is attached to the
//! dma-buf. If the CPU copies the frames, nothing is attached. The `vivid` module of the kernel
//! offers both, on any machine. Limits: capture devices with one plane only (no `_MPLANE`, no
//! output). The format is not changed, and nothing is streamed.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fstat, major};
use rustix::io::{Errno, retry_on_intr};

use crate::kernel::v4l2::{self, Memory};
use crate::node::{find_device, open_device};
use crate::{DmaBuf, Error, ErrorKind, Result};

const NODES: &str = "/dev";

/// `VIDEO_MAJOR`: the fixed major number of all V4L2 nodes.
const VIDEO_MAJOR: u32 = 81;

/// An open video capture device.
///
/// ```no_run
/// use dmabuf::{Heap, VideoDevice};
///
/// let mut device = VideoDevice::find("vivid")?;
/// let buffers = device.buffers(4)?;
/// let frame = buffers.export(0)?; // a dma-buf of the device's own memory
/// drop(buffers);
///
/// // Or give the device dma-bufs of yours to capture into.
/// let buf = Heap::open("system")?.allocate(device.frame_size()?)?;
/// let mut slots = device.slots(4)?;
/// slots.queue(0, &buf)?;
/// # Ok::<(), dmabuf::Error>(())
/// ```
#[derive(Debug)]
pub struct VideoDevice {
    fd: OwnedFd,
    path: PathBuf,
    driver: String,
}

impl VideoDevice {
    /// Opens a node such as `/dev/video0`.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NoVideoDevice`]: there is no such node, it belongs to another kind of device,
    ///   or it cannot capture frames of one plane into buffers.
    /// * [`ErrorKind::PermissionDenied`]: the message names the node's owner and group.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let what = || format!("cannot use {} as a video capture device", path.display());
        let none = |why: &str| Error::new(ErrorKind::NoVideoDevice, format!("{}: {why}", what()));
        // O_NONBLOCK, because opening could otherwise wait for a device that another process is
        // initializing.
        let fd = open_device(path, OFlags::RDWR | OFlags::NONBLOCK, ErrorKind::NoVideoDevice, |errno| {
            Error::with_errno(
                ErrorKind::NoVideoDevice,
                format!("{}: there is no such node; plug the device in or load its module", what()),
                errno,
            )
        })?;
        let stat = fstat(&fd).map_err(|errno| Error::from_errno(what(), errno))?;
        if major(stat.st_rdev) != VIDEO_MAJOR {
            return Err(none("it is another kind of device; give a node like /dev/video0"));
        }
        let found = v4l2::capability(fd.as_fd()).map_err(|errno| Error::from_errno(what(), errno))?;
        if !found.captures {
            return Err(none(
                "it captures no frames of one plane into buffers; give another node of this device",
            ));
        }
        let name = found.driver.split(|&byte| byte == 0).next().unwrap_or_default();
        let driver = String::from_utf8_lossy(name).into_owned();
        Ok(Self { fd, path: path.to_owned(), driver })
    }

    /// Opens the first capture node (`/dev/video*`) that belongs to a driver, such as `vivid`.
    ///
    /// It opens one node after another to read the driver's name (`VIDIOC_QUERYCAP`), and closes
    /// those of other drivers again. Opening can wake a sleeping camera.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NoVideoDevice`]: no device has that driver; the message lists those that were
    ///   found.
    /// * [`ErrorKind::PermissionDenied`]: no device that could be opened has it, and some nodes
    ///   could not be opened.
    pub fn find(driver: &str) -> Result<Self> {
        find_in(Path::new(NODES), driver)
    }

    /// The driver's name, as the kernel reports it.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of one frame in the current format, in bytes (`VIDIOC_G_FMT`). The device's own
    /// buffers have this size rounded up to whole pages. Other dma-bufs must be at least this
    /// large.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`].
    pub fn frame_size(&self) -> Result<u64> {
        v4l2::frame_size(self.fd.as_fd())
            .map(u64::from)
            .map_err(|errno| Error::from_errno(format_args!("cannot read the format of {self}"), errno))
    }

    /// Makes `count` buffers in the device's own memory (`VIDIOC_REQBUFS` with `V4L2_MEMORY_MMAP`).
    /// The driver may make more or fewer. A buffer becomes a dma-buf when it is
    /// [exported](VideoBuffers::export).
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidSize`]: `count` is zero.
    /// * [`ErrorKind::Busy`]: another open file uses the device's queue.
    /// * [`ErrorKind::Unsupported`]: the driver has no buffers of its own.
    /// * [`ErrorKind::OutOfMemory`].
    pub fn buffers(&mut self, count: u32) -> Result<VideoBuffers<'_>> {
        self.request(Memory::Driver, count).map(VideoBuffers)
    }

    /// Makes `count` slots, into which [`VideoSlots::queue`] puts dma-bufs (`VIDIOC_REQBUFS` with
    /// `V4L2_MEMORY_DMABUF`). The driver may make more or fewer.
    ///
    /// # Errors
    ///
    /// As for [`buffers`](Self::buffers). [`ErrorKind::Unsupported`] means that the driver does not
    /// import dma-bufs.
    pub fn slots(&mut self, count: u32) -> Result<VideoSlots<'_>> {
        let queue = self.request(Memory::DmaBuf, count)?;
        Ok(VideoSlots { queue, taken: HashSet::new() })
    }

    fn request(&mut self, memory: Memory, count: u32) -> Result<Queue<'_>> {
        let what = || format!("cannot make {count} buffers on {self}");
        if count == 0 {
            return Err(Error::new(ErrorKind::InvalidSize, format!("{}: ask for at least one", what())));
        }
        let len =
            retry_on_intr(|| v4l2::request_buffers(self.fd.as_fd(), memory, count)).map_err(|errno| {
                let (kind, why) = match errno {
                    Errno::BUSY => {
                        (ErrorKind::Busy, "another open file uses its queue; close that one or wait for it")
                    }
                    Errno::INVAL if memory == Memory::DmaBuf => {
                        (ErrorKind::Unsupported, "the driver does not import dma-bufs")
                    }
                    Errno::INVAL => {
                        (ErrorKind::Unsupported, "the driver has no buffers of its own to export")
                    }
                    errno => return Error::from_errno(what(), errno),
                };
                Error::with_errno(kind, format!("{}: {why}", what()), errno)
            })?;
        Ok(Queue { device: self, memory, len })
    }
}

impl AsFd for VideoDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Display for VideoDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.driver)
    }
}

/// The device's queue, as long as it has buffers. A device has one queue, so this borrows the
/// device exclusively.
#[derive(Debug)]
struct Queue<'dev> {
    device: &'dev VideoDevice,
    memory: Memory,
    len: u32,
}

impl Queue<'_> {
    /// Refuses an index that no buffer has.
    fn check(&self, index: u32) -> Result<()> {
        if index < self.len {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::InvalidRange,
            format!("{} has no buffer {index}: it has {}, counted from 0", self.device, self.len),
        ))
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // If this fails, closing the device does the same.
        let _ = v4l2::request_buffers(self.device.as_fd(), self.memory, 0);
    }
}

/// Buffers in the device's own memory. Dropping it frees the queue; exported dma-bufs stay valid.
#[derive(Debug)]
pub struct VideoBuffers<'dev>(Queue<'dev>);

impl VideoBuffers<'_> {
    /// The number of buffers.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> u32 {
        self.0.len
    }

    /// Exports the buffer with this index, counted from 0 (`VIDIOC_EXPBUF`). Each call makes a new
    /// dma-buf of the same memory.
    ///
    /// The descriptor is read-write and close-on-exec. The dma-buf keeps the memory alive, also
    /// after the device's descriptor is closed. The kernel holds no reference to the dma-buf.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidRange`]: no buffer has this index.
    /// * [`ErrorKind::Unsupported`]: the driver does not export.
    /// * [`ErrorKind::OutOfDescriptors`], [`ErrorKind::OutOfMemory`].
    pub fn export(&self, index: u32) -> Result<DmaBuf> {
        self.0.check(index)?;
        let what = || format!("cannot export buffer {index} of {}", self.0.device);
        retry_on_intr(|| v4l2::export_buffer(self.0.device.as_fd(), index))
            .map(DmaBuf::from_exporter)
            .map_err(|errno| match errno {
                // Index, memory type and flags are right, so the driver cannot export its memory.
                Errno::INVAL => {
                    let message = format!("{}: the driver does not export its memory", what());
                    Error::with_errno(ErrorKind::Unsupported, message, errno)
                }
                errno => Error::from_errno(what(), errno),
            })
    }
}

/// Slots for dma-bufs in a device's queue. Dropping it frees the queue and releases every dma-buf
/// in it.
#[derive(Debug)]
pub struct VideoSlots<'dev> {
    queue: Queue<'dev>,
    /// The indexes of the slots in use.
    taken: HashSet<u32>,
}

impl VideoSlots<'_> {
    /// The number of slots.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one")]
    pub fn len(&self) -> u32 {
        self.queue.len
    }

    /// Puts a dma-buf into the slot with this index, counted from 0 (`VIDIOC_QBUF`).
    ///
    /// The kernel holds one reference to the dma-buf for each slot that it is in, until the queue
    /// is freed. A driver that uses DMA also attaches its device; one that lets the CPU copy the
    /// frames attaches nothing.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidRange`]: no slot has this index.
    /// * [`ErrorKind::InvalidSize`]: the dma-buf is smaller than a
    ///   [frame](VideoDevice::frame_size).
    /// * [`ErrorKind::Busy`]: the slot is in use.
    /// * [`ErrorKind::Unsupported`]: the device cannot use this memory.
    pub fn queue(&mut self, index: u32, buf: &DmaBuf) -> Result<()> {
        self.queue.check(index)?;
        let device = self.queue.device;
        let what = || format!("cannot queue the dma-buf as buffer {index} of {device}");
        let (frame, size) = (device.frame_size()?, buf.size()?);
        if size < frame {
            let message = format!("{}: it has {size} bytes, but a frame needs {frame}", what());
            return Err(Error::new(ErrorKind::InvalidSize, message));
        }
        if self.taken.contains(&index) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{}: a dma-buf is queued at this index already; use a free index", what()),
            ));
        }
        retry_on_intr(|| v4l2::queue_dma_buf(device.as_fd(), index, buf.as_fd())).map_err(
            |errno| match errno {
                // Index and size are right and the slot is free, so the device cannot use the
                // memory.
                Errno::INVAL => Error::with_errno(
                    ErrorKind::Unsupported,
                    format!("{}: the device cannot use this memory", what()),
                    errno,
                ),
                errno => Error::from_errno(what(), errno),
            },
        )?;
        self.taken.insert(index);
        Ok(())
    }
}

fn find_in(dir: &Path, driver: &str) -> Result<VideoDevice> {
    find_device(
        dir,
        "video",
        |node| VideoDevice::open(node),
        |device| device.driver == driver,
        |seen| {
            let text = format!(
                "no video capture device has the driver {driver}: {seen}; load its module (modprobe {driver})"
            );
            Error::new(ErrorKind::NoVideoDevice, text)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in place of the device: it refuses every request, as these tests need.
    fn stand_in() -> VideoDevice {
        VideoDevice {
            fd: tempfile::tempfile().unwrap().into(),
            path: "/dev/video0".into(),
            driver: "none".into(),
        }
    }

    /// Check that a missing driver's message says how to load it.
    #[test]
    fn missing_driver_says_modprobe() {
        let error = find_in(Path::new("/nonexistent"), "vivid").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoVideoDevice);
        assert!(error.to_string().contains("modprobe vivid"), "{error}");
    }

    /// Check that a missing node and a node of another kind give the same kind of error.
    #[test]
    fn refuses_what_is_no_video_device() {
        assert_eq!(VideoDevice::open("/dev/video999").unwrap_err().kind(), ErrorKind::NoVideoDevice);
        assert_eq!(VideoDevice::open("/dev/null").unwrap_err().kind(), ErrorKind::NoVideoDevice);
    }

    /// Check that a count of zero is refused before any call.
    #[test]
    fn refuses_zero() {
        let error = stand_in().buffers(0).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::InvalidSize, None));
    }

    /// Check that an index past the last one is refused before any call, and that the message says
    /// how many buffers there are.
    #[test]
    fn refuses_a_number_past_the_last() {
        let mut device = stand_in();
        let queue = Queue { device: &mut device, memory: Memory::Driver, len: 2 };
        let error = VideoBuffers(queue).export(2).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::InvalidRange, None));
        assert!(error.to_string().contains("it has 2"), "{error}");
    }
}
