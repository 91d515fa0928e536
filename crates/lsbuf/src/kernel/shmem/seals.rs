//! The seals of a memfd, read without an effect that its holders could see.
//!
//! `F_GET_SEALS` needs an open file. lsbuf first pins the inode (`O_PATH`), so whatever the holder
//! does meanwhile, no other file can be opened in its place. Then it opens the pinned inode for
//! reading and closes it again. This makes a `struct file` of lsbuf's own, so no count changes, and
//! a memfd has no driver or server that could notice. A holder with a lease (`F_SETLEASE`) would
//! notice, because an open breaks the lease. So nothing is opened if `/proc/locks` lists a lease on
//! the inode, or cannot be read.
//!
//! Limits: `/proc/locks` is read before the open. A lease that is taken in between is broken, and
//! its holder gets a signal. The open does not wait for the holder (`O_NONBLOCK`) but fails.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, fcntl_get_seals, fstat, openat};
use rustix::io::{Errno, Result};

use crate::kernel::identity::device_of;
use crate::kernel::process::ProcessDir;
use crate::kernel::root::ProcRoot;
use crate::model::{Dev, Inode, Seals};

/// Reads the seals of the memfd behind a link of a process. `ESTALE`: the link is another file by
/// now. `EBUSY`: a holder would notice.
pub(crate) fn ask(
    root: &ProcRoot,
    process: &ProcessDir,
    link: &str,
    (dev, ino): (Dev, Inode),
) -> Result<Seals> {
    let opened = open(root, process, link, (dev, ino), OFlags::empty())?;
    Ok(Seals(fcntl_get_seals(&opened)?.bits()))
}

/// Opens the file of shared memory behind a link of a process for reading, with these flags
/// besides. Errors as for [`ask`].
pub(crate) fn open(
    root: &ProcRoot,
    process: &ProcessDir,
    link: &str,
    (dev, ino): (Dev, Inode),
    flags: OFlags,
) -> Result<OwnedFd> {
    let pinned = process.dir().pin(link)?;
    let stat = fstat(&pinned)?;
    if (device_of(&stat), stat.st_ino) != (dev, ino.0) {
        return Err(Errno::STALE);
    }
    let mut text = Vec::new();
    root.dir().read_file(c"locks", &mut text)?;
    if has_lease(&text, dev, ino) {
        return Err(Errno::BUSY);
    }
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let own = format!("/proc/self/fd/{}", pinned.as_fd().as_raw_fd());
    openat(CWD, own, flags, Mode::empty())
}

/// Whether `/proc/locks` lists a lease on that inode: `N: LEASE … PID MAJ:MIN:INO …`, the device in
/// hex (`lock_get_status` in fs/locks.c).
pub(crate) fn has_lease(locks: &[u8], dev: Dev, ino: Inode) -> bool {
    let place = format!("{:02x}:{:02x}:{}", dev.major, dev.minor, ino.0);
    locks.split(|&b| b == b'\n').any(|line| {
        let mut words = line.split(|&b| b == b' ').filter(|word| !word.is_empty());
        let leased = words.any(|word| matches!(word, b"LEASE" | b"DELEG" | b"LAYOUT"));
        leased && words.any(|word| word == place.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;
    use crate::model::Pid;

    /// Check that seals are read as they were set, and that nothing is read if the inode is another
    /// one.
    #[test]
    fn own() {
        let memfd = memfd_create(c"x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        let stat = fstat(&memfd).unwrap();
        let dev = device_of(&stat);
        let root = ProcRoot::open(Path::new("/proc")).unwrap();
        let process = ProcessDir::open(&root, Pid(std::process::id())).unwrap();
        let link = format!("fd/{}", memfd.as_raw_fd());
        let asked = |ino| ask(&root, &process, &link, (dev, Inode(ino)));
        assert_eq!(asked(stat.st_ino), Ok(Seals(2 | 4)));
        assert_eq!(asked(stat.st_ino + 1), Err(Errno::STALE));
    }

    /// Check that a lease on the inode is found, and that a lock or a lease on another inode is not
    /// taken for one.
    #[test]
    fn leases() {
        let locks =
            b"1: FLOCK  ADVISORY  WRITE 71 00:01:7 0 EOF\n2: LEASE  ACTIVE    READ  72 00:01:8 0 EOF\n";
        let dev = Dev { major: 0, minor: 1 };
        assert!(has_lease(locks, dev, Inode(8)));
        assert!(!has_lease(locks, dev, Inode(7)) && !has_lease(locks, dev, Inode(9)));
    }

    proptest! {
        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = has_lease(&text, Dev { major: 0, minor: 1 }, Inode(7));
        }
    }
}
