//! The devices of the kernel's own shmem filesystems, which are mounted nowhere.
//!
//! They are found by a file that is made there for the moment: it has neither pages nor a name in any folder, and goes at once.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, fstat, memfd_create};
use rustix::io::Errno;

use super::name::Filesystem;
use crate::kernel::identity::device_of;
use crate::model::Dev;

/// Makes a file on each and asks it for its device.
pub(crate) fn filesystems() -> HashMap<Dev, Filesystem> {
    let huge_sizes = (16..=34).map(|log| MemfdFlags::HUGETLB | MemfdFlags::from_bits_retain(log << 26));
    let memfds = std::iter::once(MemfdFlags::empty()).chain(huge_sizes).map(|flags| {
        let filesystem = if flags.is_empty() { Filesystem::Kernel } else { Filesystem::KernelHuge };
        (memfd(flags), filesystem)
    });
    // The kernel may have no such filesystem, and then there is no such file.
    let device = |(file, filesystem): (Result<OwnedFd, Errno>, Filesystem)| {
        let stat = file.and_then(fstat).ok()?;
        Some((device_of(&stat), filesystem))
    };
    memfds.chain([(memfd_secret(), Filesystem::Secret)]).filter_map(device).collect()
}

/// One that cannot be executed, as newer kernels want it to be said; older ones do not know the flag.
fn memfd(flags: MemfdFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | MemfdFlags::CLOEXEC;
    memfd_create(c"lsbuf", flags | MemfdFlags::NOEXEC_SEAL).or_else(|_| memfd_create(c"lsbuf", flags))
}

fn memfd_secret() -> Result<OwnedFd, Errno> {
    // SAFETY: memfd_secret takes flags alone.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    match libc::c_int::try_from(fd) {
        // SAFETY: the call has just made this fd, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Errno::NOSYS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that this kernel's own tmpfs is the one that a memfd is on, and that procfs is none of the family's.
    #[test]
    fn of_this_kernel() {
        let own = filesystems();
        let memfd = memfd(MemfdFlags::empty()).unwrap();
        assert_eq!(own.get(&device_of(&fstat(&memfd).unwrap())), Some(&Filesystem::Kernel));
        assert_eq!(own.get(&device_of(&rustix::fs::stat("/proc").unwrap())), None);
    }
}
