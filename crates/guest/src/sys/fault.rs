//! A page that the kernel waits for: who touches it sleeps, in a system call too, until it is filled.
//!
//! So a fork or an exec can be held up where it usually is for some microseconds only, when it has copied or opened files and
//! shows in no list yet. Numbers are those of include/uapi/linux/userfaultfd.h.

use std::ffi::{CStr, c_char};
use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use anyhow::{Context, ensure};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags, mmap_anonymous, userfaultfd};

use super::task::{pause_forever, started};
use super::{Region, page, page_size};

/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MODE_MISSING: u64 = 1;
/// `UFFDIO_API`, `UFFDIO_REGISTER` and `UFFDIO_ZEROPAGE`.
const SET_API: libc::Ioctl = 0xc018_aa3f;
const REGISTER: libc::Ioctl = 0xc020_aa00;
const ZERO_PAGE: libc::Ioctl = 0xc020_aa04;

/// A page that is missing until it is filled.
#[derive(Debug)]
pub struct MissingPage {
    fault: OwnedFd,
    page: Region,
}

impl MissingPage {
    /// Makes one. It stays mapped as long as the process lives.
    ///
    /// # Errors
    ///
    /// The kernel has no userfaultfd, or lets this process have none that the kernel itself waits for.
    pub fn new() -> anyhow::Result<MissingPage> {
        // SAFETY: nothing but the page below is ever registered with it, and no reference points into that one.
        let fault = unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.context("making a userfaultfd")?;
        let (readable, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: the kernel chooses a free range, so nothing that Rust knows of is replaced.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), page_size(), readable, flags) };
        let start = start.context("mapping a page")?.expose_provenance();
        let missing = MissingPage { fault, page: Region { start, len: page_size() } };
        missing.control(SET_API, &mut [API, 0, 0]).context("choosing an interface")?;
        missing
            .control(REGISTER, &mut [start as u64, page(), MODE_MISSING, 0])
            .context("registering a page")?;
        Ok(missing)
    }

    /// Fills it with zeros, and wakes who waits for it.
    ///
    /// # Errors
    ///
    /// It is filled already.
    pub fn fill(&self) -> anyhow::Result<()> {
        let page = self.page;
        self.control(ZERO_PAGE, &mut [page.start as u64, page.len as u64, 0, 0]).context("filling a page")
    }

    /// Forks a child which does nothing. The kernel is to write an fd of it into the page, so that it sleeps after it has
    /// copied the fd table and before the child is in any list. The fd is never closed.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn fork(&self) -> anyhow::Result<u32> {
        // SAFETY: all zero asks for nothing.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = libc::CLONE_PIDFD.unsigned_abs().into();
        arguments.pidfd = self.page.start as u64;
        arguments.exit_signal = libc::SIGCHLD.unsigned_abs().into();
        // SAFETY: with neither memory nor stack given it is a fork, of which the child only pauses. The kernel writes a number
        // into the page, which is ours.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) } {
            0 => pause_forever(),
            pid => started(pid),
        }
    }

    /// Runs the program at `path` in place of this one, with `argument` and one that begins in the page, so that the kernel
    /// sleeps after it has opened the program. Returns only if that fails.
    pub fn exec(&self, path: &CStr, argument: &CStr) -> anyhow::Error {
        let in_the_page: *const c_char = ptr::with_exposed_provenance(self.page.start);
        let arguments = [path.as_ptr(), argument.as_ptr(), in_the_page, ptr::null()];
        let environment = [ptr::null::<c_char>()];
        // SAFETY: both lists end with a null and hold strings that do; the page is one once it is filled.
        unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        anyhow::Error::new(Error::last_os_error()).context("running a program")
    }

    fn control<const N: usize>(&self, request: libc::Ioctl, argument: &mut [u64; N]) -> anyhow::Result<()> {
        // SAFETY: each request above has a structure of as many numbers as it is given here, and those that name a range name
        // the page, which is ours.
        let done = unsafe { libc::ioctl(self.fault.as_raw_fd(), request, argument.as_mut_ptr()) };
        ensure!(done == 0, Error::last_os_error());
        Ok(())
    }
}
