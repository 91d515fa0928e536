//! Make, name, map, sync and share your own dma-bufs.
//!
//! A dma-buf is memory that devices and processes share through a file descriptor. This crate wraps
//! what the Linux kernel offers a program for that, as safe functions over `OwnedFd`.
//!
//! | how do I … | start with |
//! |---|---|
//! | allocate a dma-buf from a heap under `/dev/dma_heap`? | [`Heap`] |
//! | make a dma-buf from the pages of a memfd? | [`Udmabuf`], [`SealedMemfd`] |
//! | allocate, export or import with a DRM device? | [`DrmDevice`], [`GemHandle`] |
//! | export the buffers of a camera (V4L2)? | [`VideoDevice`], [`VideoBuffers`] |
//! | let a camera write into a dma-buf (V4L2)? | [`VideoDevice`], [`VideoSlots`] |
//! | prove that an fd is a dma-buf, name it, get its size? | [`DmaBuf`] |
//! | read and write its bytes with the CPU? | [`DmaBuf::map`], [`CpuAccess`] |
//! | wait for a device's work on it, or add some? | [`SyncFile`] |
//! | pass it to another process? | [`share`] |
//! | learn why a call failed? | [`Error`], [`ErrorKind`] |
//!
//! # Example
//!
//! ```
//! use dmabuf::{Direction, DmaBuf, Heap, MapMode, Udmabuf};
//!
//! fn allocate(size: u64) -> dmabuf::Result<DmaBuf> {
//!     match Heap::open("system") {
//!         Ok(heap) => heap.allocate(size),
//!         Err(_) => Udmabuf::open()?.allocate(size),
//!     }
//! }
//!
//! match allocate(64 * 1024) {
//!     Ok(buf) => {
//!         buf.set_name("frame 1")?;
//!         let mut mapping = buf.map(MapMode::ReadWrite)?;
//!         let mut access = mapping.begin(&buf, Direction::Write)?;
//!         access.write_at(0, b"hello")?;
//!         access.end()?;
//!     }
//!     // Every message says what is missing and what to do about it.
//!     Err(error) => eprintln!("{error}"),
//! }
//! # Ok::<(), dmabuf::Error>(())
//! ```
//!
//! # Which calls add a reference
//!
//! Each descriptor raises the reference count that the kernel reports for a buffer. So does each
//! mapping, with one exception that [`DmaBuf::map`] describes. This crate never duplicates a
//! descriptor on its own: only [`DmaBuf::try_clone`], [`GemHandle::export`] and [`share`] make
//! another descriptor for the same buffer. A [`Mapping`] holds the one reference of its VMA and no
//! descriptor. DRM and V4L2 drivers take further references inside the kernel;
//! [`DrmDevice::import`], [`GemHandle::export`] and [`VideoSlots::queue`] say which.
//!
//! # What this does not do
//!
//! * It does not find the buffers of other processes. It does not read names, counts or
//!   attachments. lsbuf does both.
//! * It does not implement an exporter in the kernel. It attaches a device to a buffer only by
//!   importing the buffer into a DRM or video device.
//! * It does not wait for fences. Poll the descriptor of a [`DmaBuf`] or [`SyncFile`] with the
//!   poller that you already use.
//! * It does not stream video and does not choose formats. It only makes the buffers of a queue, or
//!   queues yours.
//! * It has no mode setting, and no allocation calls of particular GPU drivers: only dumb buffers
//!   and PRIME.
//! * It never gives out `&[u8]` over shared memory; [`CpuAccess`] says why.
//! * It runs on Linux only, and was written for 5.10 and later. It never compares kernel versions:
//!   what the running kernel does not offer is reported as [`ErrorKind::Unsupported`].
//!
//! # Unsafe code
//!
//! All of it is in the private `kernel` module: the ioctls, the memory map and the copy loops.

mod buf;
mod drm;
mod error;
mod heap;
mod kernel;
mod map;
mod memfd;
mod node;
pub mod share;
mod sync;
mod udmabuf;
mod v4l2;

pub use buf::{DeviceNumber, DmaBuf, Identity, MAX_NAME_LEN};
pub use drm::{DrmDevice, DumbBuffer, DumbSize, GemHandle};
pub use error::{Error, ErrorKind, Result};
pub use heap::Heap;
pub use map::{CpuAccess, MapMode, Mapping};
pub use memfd::{MemfdRange, SealedMemfd};
pub use sync::{Direction, SyncFile};
pub use udmabuf::Udmabuf;
pub use v4l2::{VideoBuffers, VideoDevice, VideoSlots};

/// The example of the README, which is compiled as this crate's documentation is.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
