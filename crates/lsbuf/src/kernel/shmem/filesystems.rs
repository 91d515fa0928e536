//! Which devices are the family's filesystems.
//!
//! The kernel's own are found by a file that is made there for the moment: it has neither pages nor a name in any folder, and
//! goes at once. Mounted ones are added as mount tables are read. A recorded tree keeps the kernel's own in
//! `.lsbuf/shmem`: a line `kernel`, `huge` or `secret`, and `MAJOR:MINOR`.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, fstat, fstatfs, memfd_create, openat};
use rustix::io::Errno;

use super::name::Home;
use crate::kernel::identity::{device_of, device_text};
use crate::kernel::magic;
use crate::kernel::root::ProcRoot;
use crate::model::Dev;

/// What is known of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filesystems {
    live: bool,
    homes: HashMap<Dev, Home>,
}

impl Filesystems {
    /// The kernel's own.
    pub(crate) fn of(root: &ProcRoot) -> Filesystems {
        let mut own = Filesystems { live: root.is_live(), ..Filesystems::default() };
        if !own.live {
            let text = root.recorded_shmem().unwrap_or_default();
            own.homes.extend(text.lines().filter_map(recorded));
            return own;
        }
        let huge_sizes = (16..=34).map(|log| MemfdFlags::HUGETLB | MemfdFlags::from_bits_retain(log << 26));
        for flags in std::iter::once(MemfdFlags::empty()).chain(huge_sizes) {
            let home = if flags.is_empty() { Home::Kernel } else { Home::KernelHuge };
            own.learn(memfd(flags), home);
        }
        own.learn(memfd_secret(), Home::Secret);
        own
    }

    fn learn(&mut self, file: Result<OwnedFd, Errno>, home: Home) {
        // The kernel may have no such filesystem, and then there is no such file.
        if let Ok(stat) = file.and_then(fstat) {
            self.homes.insert(device_of(&stat), home);
        }
    }

    /// Whether inodes are asked; else what a recorded tree keeps of them.
    pub(crate) fn are_live(&self) -> bool {
        self.live
    }

    /// Which one a device is.
    pub(crate) fn home(&self, dev: Dev) -> Option<Home> {
        self.homes.get(&dev).copied()
    }

    /// A filesystem of the family was found mounted.
    pub(crate) fn mounted(&mut self, dev: Dev, home: Home) {
        self.homes.entry(dev).or_insert(home);
    }

    /// Asks the filesystem behind a link that looks like a guest_memfd's for its magic number.
    pub(crate) fn prove_guest(&mut self, folder: BorrowedFd<'_>, entry: &CStr, dev: Dev) -> Option<Home> {
        let pinned = openat(folder, entry, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let stat = fstat(&pinned).ok()?;
        if device_of(&stat) != dev || fstatfs(pinned.as_fd()).ok()?.f_type != magic::GUEST_MEMFD {
            return None;
        }
        self.homes.insert(dev, Home::Guest);
        Some(Home::Guest)
    }
}

fn recorded(line: &str) -> Option<(Dev, Home)> {
    let (word, dev) = line.split_once(' ')?;
    let home = match word {
        "kernel" => Home::Kernel,
        "huge" => Home::KernelHuge,
        "secret" => Home::Secret,
        _ => return None,
    };
    Some((device_text(dev.as_bytes()).ok()?, home))
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
    use std::path::Path;

    use super::*;

    /// Check that this kernel's own tmpfs is the one that a memfd is on, and that the disk is none of the family's.
    #[test]
    fn live() {
        let own = Filesystems::of(&ProcRoot::open(Path::new("/proc")).unwrap());
        let memfd = memfd(MemfdFlags::empty()).unwrap();
        assert_eq!(own.home(device_of(&fstat(&memfd).unwrap())), Some(Home::Kernel));
        assert_eq!(own.home(device_of(&rustix::fs::stat("/proc").unwrap())), None);
    }

    /// Check that a recorded line is read, and another one passed over.
    #[test]
    fn a_line() {
        assert_eq!(recorded("huge 0:17"), Some((Dev { major: 0, minor: 17 }, Home::KernelHuge)));
        assert_eq!(recorded("tmpfs 0:17"), None);
        assert_eq!(recorded("kernel"), None);
    }
}
