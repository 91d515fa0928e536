//! All the `unsafe` code of the crate: ioctls, and access to mapped memory.
//!
//! It is in one place so that a reviewer can read all of it. Everything that other modules may use
//! here is safe to call with any argument: descriptors are borrowed or owned types, lengths are
//! checked again, and errnos are returned unchanged. Limit: this module has no policy and no
//! messages; its callers have both.

#![allow(unsafe_code)]

pub(crate) mod drm;
pub(crate) mod ioctl;
pub(crate) mod memory;
mod returns_fd;
mod uapi;
pub(crate) mod v4l2;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// Takes ownership of a descriptor that the kernel stored in a field of a request.
///
/// The field is -1 before the request. So a driver that reports success and stores nothing is
/// noticed.
///
/// # Safety
///
/// `fd` must be a new descriptor that the kernel has just returned to this process, and that
/// nothing else owns.
unsafe fn adopt(fd: RawFd) -> rustix::io::Result<OwnedFd> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the caller promises that the descriptor is new and unowned, and -1 was ruled out
    // above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
