//! What refers to a file without opening it: a fanotify mark with an unread event, and a rule of
//! Landlock.
//!
//! The numbers are those of include/uapi/linux/landlock.h.

use std::ffi::CString;
use std::io::Error;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::Context;

/// `LANDLOCK_ACCESS_FS_READ_FILE`.
const READ_FILE: u64 = 1 << 2;

/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: libc::c_int = 1;

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// An fd that a call has returned.
fn opened(fd: libc::c_long, what: &'static str) -> anyhow::Result<OwnedFd> {
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0);
    let fd = fd.ok_or_else(Error::last_os_error).context(what)?;
    // SAFETY: the kernel has just opened it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Marks a file, so that each opening queues an event with the path of the file. The events stay
/// until somebody reads them.
///
/// # Errors
///
/// The kernel has no fanotify, or refuses.
pub fn mark(path: &str) -> anyhow::Result<OwnedFd> {
    let path = CString::new(path)?;
    // SAFETY: the call takes numbers.
    let group = unsafe { libc::fanotify_init(libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC, 0) };
    let group = opened(group.into(), "making a fanotify group")?;
    let number = group.as_raw_fd();
    // SAFETY: the path ends with a NUL and outlives the call.
    let done = unsafe {
        libc::fanotify_mark(number, libc::FAN_MARK_ADD, libc::FAN_OPEN, libc::AT_FDCWD, path.as_ptr())
    };
    if done < 0 {
        return Err(Error::last_os_error()).context("marking a file");
    }
    Ok(group)
}

/// Makes a set of rules that lets programs read one file. It keeps the file's inode.
///
/// # Errors
///
/// The kernel has no Landlock, or refuses.
pub fn rule(file: impl AsFd) -> anyhow::Result<OwnedFd> {
    let handled = READ_FILE;
    // SAFETY: the kernel reads the number, whose size is given.
    let rules =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0) };
    let rules = opened(rules, "making a set of Landlock rules")?;
    let rule = PathBeneath { allowed: READ_FILE, parent: file.as_fd().as_raw_fd() };
    // SAFETY: the kernel reads the structure.
    let done = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
    };
    if done < 0 {
        return Err(Error::last_os_error()).context("adding a Landlock rule");
    }
    Ok(rules)
}
