//! Which processes may have mapped memory of memfd_secret. It is in no list of the kernel, so they
//! have to be looked at.
//!
//! While any such memory exists the kernel does not hibernate (`hibernation_available` in
//! kernel/power/hibernate.c, `secretmem_active` in mm/secretmem.c). So if it would, there is none.
//!
//! Many kernels count its mappings as locked (seen on 6.18), and others do not (seen on 7.2). Which
//! it is shows in a mapping of one page, which is never touched: the kernel refuses
//! `MADV_DONTNEED` for locked memory.
//!
//! A mapping that a child inherits by fork(2) never counts as locked: the kernel clears the flag in
//! the copy (`dup_mmap`). So any process that was forked and has not started a program since may
//! have such memory, too.
//!
//! Limits: where the kernel cannot hibernate for another reason, and does not count such memory as
//! locked, any process may have some. Where it does, memory that only a forked process has, by an
//! inherited mapping, is not looked for while no process has locked memory.

#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr;

use rustix::fs::{CWD, ftruncate};
use rustix::io::{Errno, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use rustix::param::page_size;

use super::unmounted::memfd_secret;
use crate::kernel::read;

/// Which processes may have mapped memory of memfd_secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SecretMemory {
    /// None: there is no such memory.
    Nowhere,
    /// Those with locked memory, and those that may have inherited a mapping.
    Locked,
    /// Any.
    Anywhere,
}

impl SecretMemory {
    /// Asks the kernel whose sysfs is at `sys`.
    pub(crate) fn of(sys: &Path) -> SecretMemory {
        let mut text = Vec::new();
        let modes = read::file(CWD, sys.join("power/disk"), &mut text).map(|()| &text[..]);
        if modes.is_ok_and(|modes| !modes.starts_with(b"[disabled]")) {
            return SecretMemory::Nowhere;
        }
        match memfd_secret().map(is_locked) {
            Err(_) => SecretMemory::Nowhere,
            Ok(Ok(true)) => SecretMemory::Locked,
            Ok(_) => SecretMemory::Anywhere,
        }
    }
}

/// Whether a mapping of this file counts as locked.
fn is_locked(secret: OwnedFd) -> Result<bool> {
    let page = page_size();
    ftruncate(&secret, page as u64)?;
    // SAFETY: the kernel chooses the place, and nothing is read or written there.
    let at = unsafe { mmap(ptr::null_mut(), page, ProtFlags::READ, MapFlags::SHARED, &secret, 0) }?;
    // SAFETY: the mapping is the one from above, and no page of it has any content.
    let advised = unsafe { madvise(at, page, Advice::LinuxDontNeed) };
    // SAFETY: the mapping is the one from above, and nothing refers to it.
    unsafe { munmap(at, page) }?;
    match advised {
        Ok(()) => Ok(false),
        Err(Errno::INVAL) => Ok(true),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(modes: Option<&str>) -> SecretMemory {
        let sys = tempfile::tempdir().unwrap();
        std::fs::create_dir(sys.path().join("power")).unwrap();
        if let Some(modes) = modes {
            std::fs::write(sys.path().join("power/disk"), modes).unwrap();
        }
        SecretMemory::of(sys.path())
    }

    /// Check that a kernel that would hibernate has no such memory, and that of another one this is
    /// not concluded.
    #[test]
    fn hibernation() {
        assert_eq!(with(Some("[platform] shutdown reboot suspend test_resume \n")), SecretMemory::Nowhere);
        let has_none = memfd_secret().is_err();
        for unknown in [with(Some("[disabled]\n")), with(None)] {
            assert_eq!(unknown == SecretMemory::Nowhere, has_none);
        }
    }
}
