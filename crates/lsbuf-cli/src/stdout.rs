//! Whether the command was started with a stdout that can be written to.
//!
//! Rust opens `/dev/null` in place of a closed stdout before `main`, and takes a stdout that is
//! only open for reading for a closed one. Either way all writes succeed and the answer is lost
//! with status 0. So the question is asked before Rust's own start, by a function that the C
//! library calls as it calls constructors.

// The attribute that lists such a function is unsafe, as what it lists runs before everything else.
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
    // SAFETY: the call takes two numbers and returns one; a number that is no open file is an
    // error.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFL) };
    let writable = flags != -1 && flags & libc::O_ACCMODE != libc::O_RDONLY;
    WRITABLE.store(writable, Ordering::Relaxed);
}

/// To be asked before anything is written.
pub(crate) fn check() -> io::Result<()> {
    match WRITABLE.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err(io::Error::other("nothing can be written: stdout is closed, or only open for reading")),
    }
}
