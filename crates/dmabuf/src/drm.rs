//! DRM devices: dumb buffers, PRIME export and import, GEM handles.
//!
//! A GEM handle is a number inside one open DRM file. It holds a buffer without a file descriptor,
//! so `/proc` does not list this kind of reference; this module exists to make and keep such
//! references. The `vgem` module of the kernel offers everything that is used here, on any machine.
//! Limits: no allocation calls of particular drivers, no mode setting, no allocation through render
//! nodes.
//!
//! The kernel returns the same handle each time that the same buffer is imported, and does not
//! count how often: closing the handle once closes it for all. So a [`DrmDevice`] counts the
//! [`GemHandle`]s that it has given out for a handle, and closes the handle with the last one.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{OFlags, fstat, major};
use rustix::io::{Errno, retry_on_intr};

use crate::kernel::drm;
use crate::node::{find_device, open_device};
use crate::{DmaBuf, Error, ErrorKind, Result};

const NODES: &str = "/dev/dri";

/// `DRM_MAJOR`: the fixed major number of all DRM nodes.
const DRM_MAJOR: u32 = 226;

/// An open DRM device.
///
/// ```no_run
/// use dmabuf::{DrmDevice, DumbSize};
///
/// let device = DrmDevice::find("vgem")?;
/// let dumb = device.create_dumb(DumbSize { width: 640, height: 480, bits_per_pixel: 32 })?;
/// let buf = dumb.handle.export()?; // to map it, or send it to another process
///
/// // The import of another exporter's buffer holds it without a descriptor.
/// let other = dmabuf::Heap::open("system")?.allocate(4096)?;
/// let handle = device.import(&other)?;
/// drop(other);
/// handle.close()?;
/// # Ok::<(), dmabuf::Error>(())
/// ```
#[derive(Debug)]
pub struct DrmDevice {
    fd: OwnedFd,
    path: PathBuf,
    driver: String,
    /// How many `GemHandle`s exist for each handle. Locked during every create, import and close,
    /// because a close could otherwise close a handle that an import is just returning.
    uses: Mutex<HashMap<NonZeroU32, usize>>,
}

/// The dimensions of a dumb buffer. The driver rounds the row length up, and the total size to
/// whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumbSize {
    /// Pixels in each row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// Bits in each pixel. Every driver supports 32.
    pub bits_per_pixel: u32,
}

impl DumbSize {
    /// A size of at least `bytes` bytes, in rows of 4096 bytes. It is exact if `bytes` is a
    /// multiple of 4096 and of the page size, and the driver does not pad rows (vgem does not).
    /// `None` for zero, and for more than the 4 GiB to which dumb buffers are limited.
    ///
    /// ```
    /// let size = dmabuf::DumbSize::at_least(10_000).unwrap();
    /// assert_eq!((size.width, size.height, size.bits_per_pixel), (1024, 3, 32));
    /// ```
    pub fn at_least(bytes: u64) -> Option<Self> {
        // 1024 pixels of 32 bits, which is no page size: rows and pages are unrelated.
        const ROW: u64 = 4096;
        let rows = bytes.div_ceil(ROW);
        // The kernel computes the size in 32 bits and refuses one that overflows.
        let fits = rows > 0 && rows * ROW <= u64::from(u32::MAX);
        let height = u32::try_from(rows).ok()?;
        fits.then_some(Self { width: 1024, height, bits_per_pixel: 32 })
    }
}

/// A dumb buffer, as the driver made it. [`DrmDevice::create_dumb`] makes one.
#[derive(Debug)]
pub struct DumbBuffer<'dev> {
    /// The handle that holds it.
    pub handle: GemHandle<'dev>,
    /// Bytes from the start of one row to the start of the next.
    pub pitch: u32,
    /// The total size in bytes.
    pub size: u64,
}

/// A GEM handle: a number by which one open DRM file holds a buffer.
///
/// Dropping the last `GemHandle` with this number closes the handle. [`into_raw`](Self::into_raw)
/// keeps the handle open until the device's descriptor is closed.
#[derive(Debug)]
pub struct GemHandle<'dev> {
    device: &'dev DrmDevice,
    handle: NonZeroU32,
    /// Whether this `GemHandle` is still to be subtracted from the device's count.
    counted: bool,
}

impl DrmDevice {
    /// Opens a node such as `/dev/dri/card0`.
    ///
    /// If nobody is the DRM master of a primary node, the kernel makes the opener its master. This
    /// function gives that role up at once, so that a display server can still take it. A render
    /// node (`renderD128`) can be opened too, but makes no dumb buffers.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NoDrmDevice`]: there is no such node, or it belongs to another kind of
    ///   device.
    /// * [`ErrorKind::PermissionDenied`]: the message names the node's owner and group.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let what = || format!("cannot use {} as a DRM device", path.display());
        let fd = open_device(path, OFlags::RDWR, ErrorKind::NoDrmDevice, |errno| {
            Error::with_errno(ErrorKind::NoDrmDevice, format!("{}: there is no such node", what()), errno)
        })?;
        let stat = fstat(&fd).map_err(|errno| Error::from_errno(what(), errno))?;
        if major(stat.st_rdev) != DRM_MAJOR {
            return Err(Error::new(
                ErrorKind::NoDrmDevice,
                format!("{}: it is another kind of device; give a node under {NODES}", what()),
            ));
        }
        // It fails if this process is not the master, and then there is nothing to give up.
        let _ = drm::drop_master(fd.as_fd());
        let name = drm::driver_name(fd.as_fd()).map_err(|errno| Error::from_errno(what(), errno))?;
        let driver = String::from_utf8_lossy(&name).into_owned();
        Ok(Self { fd, path: path.to_owned(), driver, uses: Mutex::default() })
    }

    /// Opens the first primary node (`/dev/dri/card*`) that belongs to a driver, such as `vgem`.
    ///
    /// It opens one node after another to read the driver's name (`DRM_IOCTL_VERSION`), and closes
    /// those of other drivers again. Opening can wake a sleeping GPU.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::NoDrmDevice`]: no device has that driver; the message lists those that were
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

    /// Makes a dumb buffer (`DRM_IOCTL_MODE_CREATE_DUMB`): plain memory that the CPU can use. It
    /// becomes a dma-buf when it is [exported](GemHandle::export).
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::InvalidSize`]: a field of `size` is zero, or the driver refuses the size.
    /// * [`ErrorKind::Unsupported`]: the driver has no dumb buffers, or the node is a render node.
    /// * [`ErrorKind::OutOfMemory`].
    pub fn create_dumb(&self, size: DumbSize) -> Result<DumbBuffer<'_>> {
        let DumbSize { width, height, bits_per_pixel } = size;
        let what =
            || format!("cannot make a dumb buffer of {width}x{height}, {bits_per_pixel} bits, on {self}");
        if width == 0 || height == 0 || bits_per_pixel == 0 {
            return Err(Error::new(
                ErrorKind::InvalidSize,
                format!("{}: none of the three may be zero", what()),
            ));
        }
        let mut uses = self.lock_uses();
        let dumb = retry_on_intr(|| drm::create_dumb(self.fd.as_fd(), width, height, bits_per_pixel))
            .map_err(|errno| match errno {
                Errno::INVAL => Error::with_errno(
                    ErrorKind::InvalidSize,
                    format!("{}: the driver does not take that shape; it must stay below 4 GiB", what()),
                    errno,
                ),
                // Missing write access is ruled out, as the node was opened for writing. So this is
                // a render node, which refuses every request that is not for rendering.
                Errno::ACCESS => Error::with_errno(
                    ErrorKind::Unsupported,
                    format!("{}: use the primary node ({NODES}/card*), not a render node", what()),
                    errno,
                ),
                errno => Error::from_errno(what(), errno),
            })?;
        Ok(DumbBuffer { handle: self.count(&mut uses, dumb.handle), pitch: dumb.pitch, size: dumb.size })
    }

    /// Imports a dma-buf (`DRM_IOCTL_PRIME_FD_TO_HANDLE`).
    ///
    /// If another exporter made the buffer, the device attaches to it, and the handle alone keeps
    /// the buffer alive. The first import into an open device raises the buffer's reference count
    /// by 3. If the buffer was exported from this same open device, the result is the handle from
    /// which it was exported. A second import returns the same handle.
    ///
    /// # Errors
    ///
    /// * [`ErrorKind::Unsupported`]: the driver does not import, or cannot use this memory.
    /// * [`ErrorKind::OutOfMemory`].
    pub fn import(&self, buf: &DmaBuf) -> Result<GemHandle<'_>> {
        let mut uses = self.lock_uses();
        let handle = retry_on_intr(|| drm::fd_to_handle(self.fd.as_fd(), buf.as_fd())).map_err(|errno| match errno {
            Errno::INVAL => Error::with_errno(
                ErrorKind::Unsupported,
                format!(
                    "cannot import the dma-buf into {self}: the driver does not import dma-bufs, or cannot use this memory"
                ),
                errno,
            ),
            errno => Error::from_errno(format_args!("cannot import the dma-buf into {self}"), errno),
        })?;
        Ok(self.count(&mut uses, handle))
    }

    fn lock_uses(&self) -> MutexGuard<'_, HashMap<NonZeroU32, usize>> {
        // A poisoned lock can be used: no code panics while it holds the lock, and the table is
        // valid after every statement.
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, uses: &mut HashMap<NonZeroU32, usize>, handle: NonZeroU32) -> GemHandle<'_> {
        *uses.entry(handle).or_default() += 1;
        GemHandle { device: self, handle, counted: true }
    }

    /// Subtracts one `GemHandle`, and closes the handle with the last one.
    fn release(&self, handle: NonZeroU32) -> rustix::io::Result<()> {
        let mut uses = self.lock_uses();
        if let Some(count) = uses.get_mut(&handle).filter(|count| **count > 1) {
            *count -= 1;
            return Ok(());
        }
        uses.remove(&handle);
        drm::gem_close(self.fd.as_fd(), handle)
    }
}

impl AsFd for DrmDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::fmt::Display for DrmDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.path.display(), self.driver)
    }
}

impl GemHandle<'_> {
    /// Exports the buffer (`DRM_IOCTL_PRIME_HANDLE_TO_FD`): each call returns a new descriptor of
    /// the same dma-buf.
    ///
    /// The descriptor is read-write and close-on-exec. As long as the handle is open, the kernel
    /// itself holds two references to the dma-buf.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`], [`ErrorKind::OutOfDescriptors`], [`ErrorKind::OutOfMemory`].
    pub fn export(&self) -> Result<DmaBuf> {
        retry_on_intr(|| drm::handle_to_fd(self.device.as_fd(), self.handle))
            .map(DmaBuf::from_exporter)
            .map_err(|errno| {
                Error::from_errno(
                    format_args!("cannot export handle {} of {}", self.handle, self.device),
                    errno,
                )
            })
    }

    /// The handle's number, which is valid only together with the device's descriptor.
    pub fn id(&self) -> NonZeroU32 {
        self.handle
    }

    /// Closes the handle (`DRM_IOCTL_GEM_CLOSE`) unless another `GemHandle` with this number
    /// exists. Unlike dropping, it returns the error.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Other`].
    pub fn close(mut self) -> Result<()> {
        self.counted = false;
        self.device.release(self.handle).map_err(|errno| {
            Error::from_errno(format_args!("cannot close handle {} of {}", self.handle, self.device), errno)
        })
    }

    /// Consumes this `GemHandle` without closing the handle. The handle stays open until the
    /// device's descriptor is closed, even if other `GemHandle`s with its number are dropped.
    pub fn into_raw(mut self) -> NonZeroU32 {
        // The count keeps this one for ever, so no other `GemHandle` is ever the last.
        self.counted = false;
        self.handle
    }
}

impl Drop for GemHandle<'_> {
    fn drop(&mut self) {
        if self.counted {
            // A caller who wants the error calls `close`.
            let _ = self.device.release(self.handle);
        }
    }
}

fn find_in(dir: &Path, driver: &str) -> Result<DrmDevice> {
    find_device(
        dir,
        "card",
        |node| DrmDevice::open(node),
        |device| device.driver == driver,
        |seen| {
            let text =
                format!("no DRM device has the driver {driver}: {seen}; load its module (modprobe {driver})");
            Error::new(ErrorKind::NoDrmDevice, text)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in place of the device: it refuses every request, as these tests need.
    fn stand_in() -> DrmDevice {
        DrmDevice {
            fd: tempfile::tempfile().unwrap().into(),
            path: "/dev/dri/card0".into(),
            driver: "none".into(),
            uses: Mutex::default(),
        }
    }

    fn handle() -> NonZeroU32 {
        NonZeroU32::new(7).unwrap()
    }

    /// Check that a missing driver's message says how to load it.
    #[test]
    fn missing_driver_says_modprobe() {
        let error = find_in(Path::new("/nonexistent/dri"), "vgem").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoDrmDevice);
        assert!(error.to_string().contains("modprobe vgem"), "{error}");
    }

    /// Check that a missing node and a node of another kind give the same kind of error.
    #[test]
    fn refuses_what_is_not_drm() {
        assert_eq!(DrmDevice::open("/dev/dri/card999").unwrap_err().kind(), ErrorKind::NoDrmDevice);
        assert_eq!(DrmDevice::open("/dev/null").unwrap_err().kind(), ErrorKind::NoDrmDevice);
    }

    /// Check that a dimension of zero is refused before any call.
    #[test]
    fn refuses_zero() {
        let size = DumbSize { width: 0, height: 1, bits_per_pixel: 32 };
        let error = stand_in().create_dumb(size).unwrap_err();
        assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::InvalidSize, None));
    }

    /// Check that only the last `GemHandle` of a handle sends the close request.
    #[test]
    fn closes_with_the_last_use() {
        let device = stand_in();
        let first = device.count(&mut device.lock_uses(), handle());
        let second = device.count(&mut device.lock_uses(), handle());
        assert!(first.close().is_ok());
        // The file refuses the request, so this error shows that the request was sent.
        assert_eq!(second.close().unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(device.lock_uses().is_empty());
    }

    /// Check that a handle from `into_raw` stays open when a later `GemHandle` of it is closed.
    #[test]
    fn into_raw_is_never_closed() {
        let device = stand_in();
        assert_eq!(device.count(&mut device.lock_uses(), handle()).into_raw(), handle());
        let later = device.count(&mut device.lock_uses(), handle());
        assert!(later.close().is_ok());
        assert_eq!(device.lock_uses().get(&handle()), Some(&1));
    }

    /// Check the smallest and largest sizes that `at_least` accepts, and its rounding.
    #[test]
    fn shapes_by_bytes() {
        assert_eq!(DumbSize::at_least(0), None);
        assert_eq!(DumbSize::at_least(1).unwrap().height, 1);
        assert_eq!(DumbSize::at_least(4096).unwrap().height, 1);
        assert_eq!(DumbSize::at_least(4097).unwrap().height, 2);
        assert_eq!(DumbSize::at_least(1 << 32), None);
    }
}
