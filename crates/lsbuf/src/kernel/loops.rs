//! Loop devices: block devices whose content is a file, which the kernel keeps open.
//!
//! `/sys/block/loopN/loop/backing_file` has the path of the file, for every user. The path proves
//! nothing: it is that of whoever set the device up, at that time or since renamed. The ioctl
//! LOOP_GET_STATUS64 has the file's device and inode number (`loop_get_status` in
//! drivers/block/loop.c asks the file itself), which is proof. It takes the right to open the
//! device for reading.
//!
//! Limits: a device that has no file any more when it is opened is left out. No more than
//! [`MOST`] devices are looked at.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, major, minor, openat};
use rustix::io::Result;
use rustix::ioctl::{Getter, Opcode, ioctl};

use super::read;
use crate::model::{Dev, Inode, Label};

/// As many loop devices are looked at.
const MOST: usize = 4000;

/// A loop device with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LoopDevice {
    /// Its name, such as `loop0`.
    pub(crate) name: Label,
    /// The path of the file, as the kernel prints it, with ` (deleted)` where that is so.
    pub(crate) path: Label,
    /// Which file it is. `None`: the device could not be opened.
    pub(crate) file: Option<(Dev, Inode)>,
}

/// Every loop device that has a file. `sys` is the root of sysfs, and `dev` the folder of devices.
pub(crate) fn read_all(sys: &Path, dev: &Path) -> Vec<LoopDevice> {
    let mut found = Vec::new();
    let block = sys.join("block");
    let Ok(folder) = read::open_dir(CWD, &block) else { return found };
    let mut names = Vec::new();
    // What could be listed before an error is used.
    let _ = read::entries(folder.as_fd(), |name, _| {
        let number = name.to_bytes().strip_prefix(b"loop").filter(|rest| !rest.is_empty());
        if names.len() < MOST && number.is_some_and(|rest| rest.iter().all(u8::is_ascii_digit)) {
            names.extend(name.to_str().map(str::to_owned));
        }
        Ok(())
    });
    let mut text = Vec::new();
    for name in names {
        if read::record(&folder, format!("{name}/loop/backing_file"), &mut text).is_err() {
            continue;
        }
        let path = Label::from(text.strip_suffix(b"\n").unwrap_or(&text));
        let file = status(&dev.join(&name)).ok();
        found.push(LoopDevice { name: name.as_str().into(), path, file });
    }
    found.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    found
}

/// `struct loop_info64` of include/uapi/linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rest: [u64; 27],
}

/// The file of a loop device. Opening it for reading has no effect on the device.
fn status(path: &Path) -> Result<(Dev, Inode)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NOFOLLOW;
    let device = openat(CWD, path, flags, Mode::empty())?;
    let info = get_status(device.as_fd())?;
    // The kernel encodes it as stat(2) does (`huge_encode_dev`).
    Ok((Dev { major: major(info.device), minor: minor(info.device) }, Inode(info.inode)))
}

fn get_status(device: BorrowedFd<'_>) -> Result<LoopInfo> {
    const LOOP_GET_STATUS64: Opcode = 0x4C05;
    // SAFETY: the request writes one `struct loop_info64`, which `LoopInfo` is, and it has no other
    // effect. A node that is no loop device's refuses the number.
    unsafe { ioctl(device, Getter::<LOOP_GET_STATUS64, LoopInfo>::new()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that devices with a file are found by their names alone, with the path that is
    /// printed, and that a device that cannot be opened has no identity.
    #[test]
    fn by_sysfs() {
        let sys = tempfile::tempdir().unwrap();
        for (device, text) in
            [("loop0", Some("/memfd:disk (deleted)\n")), ("loop1", None), ("loopx", Some("/x\n"))]
        {
            let folder = sys.path().join("block").join(device).join("loop");
            std::fs::create_dir_all(&folder).unwrap();
            text.into_iter().for_each(|text| std::fs::write(folder.join("backing_file"), text).unwrap());
        }
        let found = read_all(sys.path(), sys.path());
        let expected = LoopDevice { name: "loop0".into(), path: "/memfd:disk (deleted)".into(), file: None };
        assert_eq!(found, [expected]);
        assert_eq!(read_all(&sys.path().join("none"), sys.path()), []);
    }

    /// Check that the structure has the size that the kernel writes.
    #[test]
    fn size_of_the_structure() {
        assert_eq!(size_of::<LoopInfo>(), 232);
    }
}
