//! One change of a place of pins at a time.
//!
//! What is locked is a folder in the place that nobody else can open: on a folder that everybody
//! may open, as the place itself is, any user could hold a lock for ever. It is there only while
//! somebody has or wants it, so a place has nothing in it but sets. (A bpf filesystem has no
//! ordinary files.)
//!
//! Nobody waits without a bound: a change takes a second, and who is stopped in one may hold the
//! lock for ever.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, Stat, flock, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;

use super::facts::{Failure, is_on_bpf_fs, is_same, is_trusted, others_may};
use crate::kernel::identity::device_of;
use crate::kernel::read;

/// The folder's name.
const NAME: &str = "lock";

/// How long one waits, and between two tries.
const LONGEST: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// How long somebody has waited.
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
    /// Locked as long as it is open.
    _dir: OwnedFd,
}

impl Lock {
    /// Takes the lock of an open place; `None`: what was waited for has gone, which asks for
    /// another look at the place.
    pub(super) fn take(place: &OwnedFd, path: &Path, deadline: &Deadline) -> Result<Option<Lock>, Failure> {
        let shown = path.join(NAME);
        let fail = |errno| (format!("cannot lock {}", path.display()), Some(errno));
        match mkdirat(place, NAME, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            // The place itself has been removed.
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
        // Whoever had it before has removed the name.
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
        // If it stays, whoever comes next takes it.
        let _ = unlinkat(&self.place, NAME, AtFlags::REMOVEDIR);
    }
}

/// Who holds the lock of a file, as far as `/proc/locks` tells.
fn holder(facts: &Stat) -> Option<u32> {
    let mut text = Vec::new();
    read::file(CWD, "/proc/locks", &mut text).ok()?;
    let device = device_of(facts);
    in_locks(&text, &format!("{:02x}:{:02x}:{}", device.major, device.minor, facts.st_ino))
}

/// Lines as the kernel's `lock_get_status` prints them; those who wait have an arrow.
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

    /// Check that of all locks the file's own is taken, and nobody who only waits for it.
    #[test]
    fn locks_of_the_kernel() {
        let text = b"1: POSIX  ADVISORY  WRITE 11 00:2a:7 0 EOF\n2: FLOCK  ADVISORY  WRITE 12 00:2a:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 00:2a:7 0 EOF\n4: FLOCK  ADVISORY  WRITE 13 00:2a:7 0 EOF\n";
        assert_eq!(in_locks(text, "00:2a:7"), Some(13));
        assert_eq!(in_locks(text, "00:2b:7"), None);
    }
}
