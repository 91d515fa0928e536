//! The device numbers of the kernel's own shmem filesystems, which are mounted nowhere.
//!
//! To learn a device number, lsbuf makes a file on the filesystem and calls `fstat` on it. The file
//! has no pages and no name in any folder, and is closed at once.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::Errno;

use super::name::Filesystem;
use crate::kernel::identity::device_of;
use crate::model::Dev;

/// Makes a file on each filesystem, and returns the device numbers.
pub(crate) fn filesystems() -> HashMap<Dev, Filesystem> {
    let huge_sizes = (16..=34).map(|log| MemfdFlags::HUGETLB | MemfdFlags::from_bits_retain(log << 26));
    let memfds = std::iter::once(MemfdFlags::empty()).chain(huge_sizes).map(|flags| {
        let filesystem = if flags.is_empty() { Filesystem::Kernel } else { Filesystem::KernelHuge };
        (memfd(flags), filesystem)
    });
    // Where the kernel does not have one of the filesystems, making the file fails.
    let device = |(file, filesystem): (Result<OwnedFd, Errno>, Filesystem)| {
        let stat = file.and_then(fstat).ok()?;
        Some((device_of(&stat), filesystem))
    };
    memfds.chain([(memfd_secret(), Filesystem::Secret)]).filter_map(device).collect()
}

/// Makes a memfd that cannot be executed. From Linux 6.3 on (commit 105ff5339f49) a program should
/// say so; older kernels do not know the flag.
fn memfd(flags: MemfdFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | MemfdFlags::CLOEXEC;
    memfd_create(c"lsbuf", flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| memfd_create(c"lsbuf", flags))
}

/// Makes a file of secret memory. The error: the kernel has none.
pub(super) fn memfd_secret() -> Result<OwnedFd, Errno> {
    // SAFETY: memfd_secret takes flags alone.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    match libc::c_int::try_from(fd) {
        // SAFETY: the call has just made this fd, and nothing else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Errno::NOSYS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a memfd's device is known as the kernel's own tmpfs, and that procfs's device is
    /// not listed.
    #[test]
    fn of_this_kernel() {
        let own = filesystems();
        let memfd = memfd(MemfdFlags::empty()).unwrap();
        assert_eq!(own.get(&device_of(&fstat(&memfd).unwrap())), Some(&Filesystem::Kernel));
        assert_eq!(own.get(&device_of(&rustix::fs::stat("/proc").unwrap())), None);
    }
}
