//! Loop devices: block devices whose content is a file. The kernel keeps the file open, and no
//! process has to.
//!
//! The numbers are those of include/uapi/linux/loop.h.

use std::fs::{File, OpenOptions};
use std::io::Error;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, ensure};

use crate::need::LOOP_CONTROL;

const SET_FD: libc::Ioctl = 0x4c00;
const CLR_FD: libc::Ioctl = 0x4c01;
const CTL_GET_FREE: libc::Ioctl = 0x4c82;

/// A loop device with a file. Dropping this takes the file from it.
#[derive(Debug)]
pub struct LoopDevice {
    /// Its name, such as `loop0`.
    pub name: String,
    device: File,
}

impl LoopDevice {
    /// Gives a free loop device this file. The caller may close the fd afterwards.
    ///
    /// # Errors
    ///
    /// The kernel has no loop devices, or refuses.
    pub fn of(file: impl AsFd) -> anyhow::Result<LoopDevice> {
        let control = File::open(LOOP_CONTROL).context("opening the loop devices")?;
        // SAFETY: this request takes no argument.
        let free = unsafe { libc::ioctl(control.as_raw_fd(), CTL_GET_FREE) };
        ensure!(free >= 0, "asking for a free loop device: {}", Error::last_os_error());
        let path = format!("/dev/loop{free}");
        let device = OpenOptions::new().read(true).write(true).open(&path);
        let device = device.with_context(|| format!("opening {path}"))?;
        // SAFETY: only numbers are passed.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), SET_FD, file.as_fd().as_raw_fd()) };
        ensure!(done == 0, "giving a file to {path}: {}", Error::last_os_error());
        Ok(LoopDevice { name: format!("loop{free}"), device })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // SAFETY: this request takes no argument.
        let done = unsafe { libc::ioctl(self.device.as_raw_fd(), CLR_FD) };
        if done != 0 {
            eprintln!("a loop device keeps its file: {}", Error::last_os_error());
        }
    }
}
