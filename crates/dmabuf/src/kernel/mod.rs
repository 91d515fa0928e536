//! All the `unsafe` code of the crate: requests to the kernel and access to mapped memory.
//!
//! Kept in one place so that a reviewer can read it whole. What leaves this module is safe to call with any
//! argument: descriptors are borrowed or owned types, lengths are checked here again, and errnos are passed
//! on untranslated. Limit: it decides nothing about policy or wording; its callers do.

#![allow(unsafe_code)]

pub(crate) mod drm;
pub(crate) mod ioctl;
pub(crate) mod memory;
mod returns_fd;
mod uapi;
pub(crate) mod v4l2;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

/// Takes ownership of a descriptor that the kernel stored in a request's result field.
///
/// The field is -1 before the request, so a driver that reports success without storing anything is caught.
///
/// # Safety
///
/// `fd` must be what the kernel has just returned for a new descriptor of this process, not yet given to
/// anyone.
unsafe fn adopt(fd: RawFd) -> rustix::io::Result<OwnedFd> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the caller promises that the descriptor is new and unowned, and -1 was ruled out above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
