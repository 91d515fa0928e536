//! The DRM ioctls that make, export, import and close buffers, and the one that returns the
//! driver's name.
//!
//! Only ioctls that all drivers with GEM share (`include/uapi/drm/drm.h`, `drm_mode.h`); none of a
//! particular driver.

use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::fs::OFlags;
use rustix::io::{Errno, Result};
use rustix::ioctl::{NoArg, Setter, Updater, ioctl};

use super::uapi;

/// A dumb buffer as the driver made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dumb {
    pub(crate) handle: NonZeroU32,
    pub(crate) pitch: u32,
    pub(crate) size: u64,
}

/// The driver's name, cut at 64 bytes. The longest name in the kernel has about 20.
pub(crate) fn driver_name(device: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut name = vec![0u8; 64];
    let mut arg = uapi::DrmVersion {
        version_major: 0,
        version_minor: 0,
        version_patchlevel: 0,
        name_len: name.len(),
        name: name.as_mut_ptr().cast(),
        date_len: 0,
        date: ptr::null_mut(),
        desc_len: 0,
        desc: ptr::null_mut(),
    };
    // SAFETY: the request updates one `struct drm_version`, which `DrmVersion` is.
    let updater = unsafe { Updater::<{ uapi::DRM_IOCTL_VERSION }, _>::new(&mut arg) };
    // SAFETY: the request writes to `arg`, and at most `name_len` bytes to `name`, which outlives
    // the call. It does not write the other two strings, as their length is 0.
    unsafe { ioctl(device, updater) }?;
    // The kernel stores the length of the whole name, even if it copied less.
    name.truncate(arg.name_len);
    Ok(name)
}

pub(crate) fn drop_master(device: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the number is an `_IO` one: the request takes no argument.
    let request = unsafe { NoArg::<{ uapi::DRM_IOCTL_DROP_MASTER }>::new() };
    // SAFETY: the request touches no memory of this process.
    unsafe { ioctl(device, request) }
}

pub(crate) fn create_dumb(device: BorrowedFd<'_>, width: u32, height: u32, bpp: u32) -> Result<Dumb> {
    let mut arg = uapi::DrmModeCreateDumb { height, width, bpp, flags: 0, handle: 0, pitch: 0, size: 0 };
    // SAFETY: the request updates one `struct drm_mode_create_dumb`, which `DrmModeCreateDumb` is.
    let updater = unsafe { Updater::<{ uapi::DRM_IOCTL_MODE_CREATE_DUMB }, _>::new(&mut arg) };
    // SAFETY: the request writes only to `arg`, which is borrowed until the call has returned.
    unsafe { ioctl(device, updater) }?;
    let handle = NonZeroU32::new(arg.handle).ok_or(Errno::INVAL)?;
    Ok(Dumb { handle, pitch: arg.pitch, size: arg.size })
}

/// Exports a handle. The descriptor is read-write and close-on-exec.
pub(crate) fn handle_to_fd(device: BorrowedFd<'_>, handle: NonZeroU32) -> Result<OwnedFd> {
    // DRM defines DRM_RDWR and DRM_CLOEXEC as O_RDWR and O_CLOEXEC.
    let flags = (OFlags::RDWR | OFlags::CLOEXEC).bits();
    let mut arg = uapi::DrmPrimeHandle { handle: handle.get(), flags, fd: -1 };
    // SAFETY: the request updates one `struct drm_prime_handle`, which `DrmPrimeHandle` is.
    let updater = unsafe { Updater::<{ uapi::DRM_IOCTL_PRIME_HANDLE_TO_FD }, _>::new(&mut arg) };
    // SAFETY: the request writes only to `arg`, which is borrowed until the call has returned.
    unsafe { ioctl(device, updater) }?;
    // SAFETY: on success the kernel has stored a new descriptor in `fd`, and nobody else has seen
    // it.
    unsafe { super::adopt(arg.fd) }
}

pub(crate) fn fd_to_handle(device: BorrowedFd<'_>, buf: BorrowedFd<'_>) -> Result<NonZeroU32> {
    let mut arg = uapi::DrmPrimeHandle { handle: 0, flags: 0, fd: buf.as_raw_fd() };
    // SAFETY: the request updates one `struct drm_prime_handle`, which `DrmPrimeHandle` is.
    let updater = unsafe { Updater::<{ uapi::DRM_IOCTL_PRIME_FD_TO_HANDLE }, _>::new(&mut arg) };
    // SAFETY: the request writes only to `arg`. `buf` is borrowed, so its number stays valid until
    // the call has returned.
    unsafe { ioctl(device, updater) }?;
    NonZeroU32::new(arg.handle).ok_or(Errno::INVAL)
}

pub(crate) fn gem_close(device: BorrowedFd<'_>, handle: NonZeroU32) -> Result<()> {
    let arg = uapi::DrmGemClose { handle: handle.get(), pad: 0 };
    // SAFETY: the request reads one `struct drm_gem_close`, which `DrmGemClose` is.
    let setter = unsafe { Setter::<{ uapi::DRM_IOCTL_GEM_CLOSE }, _>::new(arg) };
    // SAFETY: a handle is a number inside the DRM file and no memory of this process, so closing it
    // unmaps nothing.
    unsafe { ioctl(device, setter) }
}
