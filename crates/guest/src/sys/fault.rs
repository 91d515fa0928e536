//! A page that is missing: a thread that touches it sleeps until it is filled, also inside a system
//! call.
//!
//! With it a test can hold a fork or an exec at a point that usually lasts microseconds: the kernel
//! has copied the fd table or opened the program, but no list shows it yet. The numbers are those
//! of include/uapi/linux/userfaultfd.h.

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
    /// Makes a missing page. It stays mapped until the process ends.
    ///
    /// # Errors
    ///
    /// The kernel has no userfaultfd, or lets this process have none for faults in the kernel.
    pub fn new() -> anyhow::Result<MissingPage> {
        // SAFETY: only the page below is ever registered with it, and no reference points into that
        // page.
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

    /// Fills the page with zeros, and wakes the threads that wait for it.
    ///
    /// # Errors
    ///
    /// The page is filled already.
    pub fn fill(&self) -> anyhow::Result<()> {
        let page = self.page;
        self.control(ZERO_PAGE, &mut [page.start as u64, page.len as u64, 0, 0]).context("filling a page")
    }

    /// Forks a child that does nothing. The kernel writes a pidfd of the child into the page. So it
    /// sleeps after it has copied the fd table and before any list has the child. The pidfd is
    /// never closed.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn fork(&self) -> anyhow::Result<u32> {
        // SAFETY: a structure of zeros asks for nothing.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.flags = libc::CLONE_PIDFD.unsigned_abs().into();
        arguments.pidfd = self.page.start as u64;
        arguments.exit_signal = libc::SIGCHLD.unsigned_abs().into();
        // SAFETY: without shared memory and without a stack it is a fork, and the child only
        // pauses. The kernel writes a number into the page, which only this structure uses.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) } {
            0 => pause_forever(),
            pid => started(pid),
        }
    }

    /// Executes the program at `path` with `argument` and with an argument that begins in the page.
    /// So the kernel sleeps after it has opened the program. Returns only if that fails.
    pub fn exec(&self, path: &CStr, argument: &CStr) -> anyhow::Error {
        let in_the_page: *const c_char = ptr::with_exposed_provenance(self.page.start);
        let arguments = [path.as_ptr(), argument.as_ptr(), in_the_page, ptr::null()];
        let environment = [ptr::null::<c_char>()];
        // SAFETY: both lists end with a null, and their strings end with a NUL. The page is a
        // string once it is filled.
        unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        anyhow::Error::new(Error::last_os_error()).context("running a program")
    }

    fn control<const N: usize>(&self, request: libc::Ioctl, argument: &mut [u64; N]) -> anyhow::Result<()> {
        // SAFETY: each request above takes as many numbers as it gets here. A request with a range
        // has the range of the page, which only this structure uses.
        let done = unsafe { libc::ioctl(self.fault.as_raw_fd(), request, argument.as_mut_ptr()) };
        ensure!(done == 0, Error::last_os_error());
        Ok(())
    }
}
