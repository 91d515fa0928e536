//! A lock, so that only one process at a time changes the pins in a folder.
//!
//! The lock is a flock(2) on a subfolder that only the owner can open. A lock on the folder itself
//! could be held for ever by any user, because everybody may open it. The subfolder exists only
//! while a process has or wants the lock, so otherwise the folder contains only sets of pins. (A
//! bpf filesystem cannot have ordinary files.)
//!
//! A wait has a limit: a change takes a second, but a process that is stopped during one may hold
//! the lock for ever.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, Stat, flock, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;

use super::trust::{Failure, is_on_bpf_fs, is_same, is_trusted, others_may};
use crate::kernel::identity::device_of;
use crate::kernel::read;

/// The name of the subfolder.
const NAME: &str = "lock";

/// How long to wait for the lock, and the pause between two attempts.
const LONGEST: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The end of a wait.
#[derive(Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn begin() -> Deadline {
        Deadline(Instant::now())
    }

    pub(super) fn has_passed(&self) -> bool {
        self.0.elapsed() >= LONGEST
    }
}

/// The lock, until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    place: OwnedFd,
    /// Holds the lock as long as it is open.
    _dir: OwnedFd,
}

impl Lock {
    /// Takes the lock of an open folder. `None`: the subfolder has disappeared during the wait, so
    /// the folder has to be opened again.
    pub(super) fn take(place: &OwnedFd, path: &Path, deadline: &Deadline) -> Result<Option<Lock>, Failure> {
        let shown = path.join(NAME);
        let fail = |errno| (format!("cannot lock {}", path.display()), Some(errno));
        match mkdirat(place, NAME, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            // The folder itself has been removed.
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match openat(place, NAME, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        };
        let facts = is_on_bpf_fs(&dir).map_err(fail)?;
        let facts = facts.filter(|facts| is_trusted(facts) && !others_may(facts, Mode::RWXG | Mode::RWXO));
        let Some(facts) = facts else {
            return Err((format!("{} can be opened by others: remove it", shown.display()), None));
        };
        loop {
            match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) if !deadline.has_passed() => std::thread::sleep(PAUSE),
                Err(Errno::WOULDBLOCK) => {
                    let who = holder(&facts).map_or("another process of root's".to_owned(), |pid| {
                        format!("process {pid}, perhaps another lsbuf probes,")
                    });
                    let seconds = LONGEST.as_secs();
                    return Err((
                        format!("{who} has held the lock {} for {seconds} s", shown.display()),
                        None,
                    ));
                }
                Err(errno) => return Err(fail(errno)),
            }
        }
        // The process that had the lock before has removed the subfolder.
        let there = statat(place, NAME, AtFlags::SYMLINK_NOFOLLOW);
        if !there.is_ok_and(|there| is_same(&there, &facts)) {
            return Ok(None);
        }
        let place =
            place.try_clone().map_err(|error| fail(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        Ok(Some(Lock { place, _dir: dir }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // If this fails, the next process uses the subfolder that is left.
        let _ = unlinkat(&self.place, NAME, AtFlags::REMOVEDIR);
    }
}

/// The pid that holds the lock of a file, according to `/proc/locks`.
fn holder(facts: &Stat) -> Option<u32> {
    let mut text = Vec::new();
    read::file(CWD, "/proc/locks", &mut text).ok()?;
    let device = device_of(facts);
    in_locks(&text, &format!("{:02x}:{:02x}:{}", device.major, device.minor, facts.st_ino))
}

/// Finds it in the lines as `lock_get_status` in fs/locks.c prints them. Lines of processes that
/// wait have an arrow.
fn in_locks(text: &[u8], file: &str) -> Option<u32> {
    let text = String::from_utf8_lossy(text);
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, _, pid, at, ..] if at == file => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the holder of the file's own lock is found, and not a process that waits for it.
    #[test]
    fn locks_of_the_kernel() {
        let text = b"1: POSIX  ADVISORY  WRITE 11 00:2a:7 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 00:2a:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 00:2a:7 0 EOF\n4: FLOCK  ADVISORY  WRITE 13 00:2a:7 0 EOF\n";
        assert_eq!(in_locks(text, "00:2a:7"), Some(13));
        assert_eq!(in_locks(text, "00:2b:7"), None);
    }
}
