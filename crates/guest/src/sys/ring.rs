//! An io_uring that keeps files: it is made and gets files, and no request is ever submitted.
//!
//! The numbers are those of include/uapi/linux/io_uring.h.

use std::io::Error;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::Context;

use super::Region;

/// `IORING_REGISTER_BUFFERS`.
const REGISTER_BUFFERS: libc::c_uint = 0;
/// `IORING_REGISTER_FILES`.
const REGISTER_FILES: libc::c_uint = 2;

/// Bytes of `struct io_uring_params`.
const PARAMETERS: usize = 120;

/// Makes a ring with room for four requests.
///
/// # Errors
///
/// The kernel has no io_uring, or does not let this process have one.
pub fn open() -> anyhow::Result<OwnedFd> {
    let mut parameters = [0_u64; PARAMETERS / 8];
    // SAFETY: a structure of zeros asks for nothing special, and the kernel writes no more than the
    // structure.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0);
    let fd = fd.ok_or_else(Error::last_os_error).context("making an io_uring")?;
    // SAFETY: the kernel has just opened it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Registers fixed files; `None` leaves a slot empty. The ring keeps the files until it is freed.
///
/// # Errors
///
/// The kernel refuses.
pub fn register(ring: impl AsFd, files: &[Option<BorrowedFd<'_>>]) -> anyhow::Result<()> {
    let fds: Vec<i32> = files.iter().map(|file| file.as_ref().map_or(-1, AsRawFd::as_raw_fd)).collect();
    let (ring, len) = (ring.as_fd().as_raw_fd(), fds.len());
    // SAFETY: the kernel reads `len` numbers.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_FILES, fds.as_ptr(), len) };
    if done < 0 {
        return Err(Error::last_os_error()).context("registering files");
    }
    Ok(())
}

/// Registers mapped memory. The ring keeps the pages until it is freed.
///
/// # Errors
///
/// The kernel refuses.
pub fn register_memory(ring: impl AsFd, memory: Region) -> anyhow::Result<()> {
    let iov_base = std::ptr::with_exposed_provenance_mut(memory.start);
    let buffer = libc::iovec { iov_base, iov_len: memory.len };
    let ring = ring.as_fd().as_raw_fd();
    // SAFETY: the kernel reads one `struct iovec`, and pins what is mapped there, if it is mapped.
    let done =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring, REGISTER_BUFFERS, &raw const buffer, 1) };
    if done < 0 {
        return Err(Error::last_os_error()).context("registering memory");
    }
    Ok(())
}
