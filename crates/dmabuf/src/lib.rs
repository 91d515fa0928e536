//! Make, name, map, sync and share your own dma-bufs.
//!
//! A dma-buf is memory that the Linux kernel lets devices and processes share through a file descriptor. This
//! crate is the user's side of that interface, as safe functions over `OwnedFd`:
//!
//! | to … | use |
//! |---|---|
//! | allocate from a heap under `/dev/dma_heap` | [`Heap`] |
//! | turn memfd pages into a dma-buf | [`Udmabuf`], [`SealedMemfd`] |
//! | allocate, export or import through a DRM device | [`DrmDevice`], [`GemHandle`] |
//! | export a camera's buffers, or let it write to other ones (V4L2) | [`VideoDevice`], [`VideoBuffers`], [`VideoSlots`] |
//! | name it, measure it, identify it | [`DmaBuf`] |
//! | touch its bytes from the CPU, coherently | [`DmaBuf::map`], [`Mapping::begin`], [`CpuAccess`] |
//! | wait for, or add, device work | [`SyncFile`], [`DmaBuf::export_sync_file`] |
//! | hand it to another process | [`share`] |
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
//! # References are counted, and this crate takes none in secret
//!
//! Every descriptor and (but for an exception that [`DmaBuf::map`] names) every mapping raises the reference
//! count that the kernel reports for a buffer. No function here duplicates a descriptor behind the caller's
//! back: only [`DmaBuf::try_clone`], [`GemHandle::export`] and [`share`] make another one, and [`Mapping`] holds
//! the one reference of its VMA and no descriptor. DRM and V4L2 take further references inside the kernel;
//! [`DrmDevice::import`], [`GemHandle::export`] and [`VideoSlots::queue`] say which.
//!
//! # What this does not do
//!
//! * It does not find other processes' buffers, nor read names, counts or attachments: that is the work of
//!   lsbuf.
//! * It does not make a kernel-side exporter, nor attach devices except by importing into a DRM or a video device.
//! * It does not wait for fences: poll the descriptor of a [`DmaBuf`] or [`SyncFile`] with the poller you
//!   already have.
//! * It does not stream video nor choose formats: it makes and lends the buffers of a queue.
//! * It has no GPU driver's own allocation calls and no mode setting: only dumb buffers and PRIME.
//! * It never gives out `&[u8]` over shared memory; [`CpuAccess`] says why.
//! * It is for Linux only, and was written against 5.10 and later. It never asks for the kernel's version:
//!   what a kernel lacks is reported as [`ErrorKind::Unsupported`].
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
