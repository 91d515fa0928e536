//! Whether the command was started with a stdout that can be written to.
//!
//! Before `main`, Rust opens `/dev/null` in place of a closed stdout, and ignores errors of one
//! that is only open for reading. Either way all writes succeed, and the answer would be lost with
//! status 0. So a function that the C library runs before Rust's own start, like a constructor,
//! looks at stdout.

// The attribute that registers such a function is unsafe, because the function runs before
// everything else.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static WRITABLE: AtomicBool = AtomicBool::new(true);

// SAFETY: the section is a list of functions of this type. This one needs nothing of Rust's start:
// it makes one system call and stores into a static.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: the call takes two numbers and returns one; for a number that is no open file it
    // returns an error.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFL) };
    let writable = flags != -1 && flags & libc::O_ACCMODE != libc::O_RDONLY;
    WRITABLE.store(writable, Ordering::Relaxed);
}

/// Fails if stdout cannot be written to. To be called before anything is written.
pub(crate) fn check() -> io::Result<()> {
    match WRITABLE.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err(io::Error::other("nothing can be written: stdout is closed, or only open for reading")),
    }
}
