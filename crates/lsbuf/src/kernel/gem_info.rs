//! GEM handles that stand for dma-bufs, from a driver's debugfs file: `dri/*/amdgpu_gem_info`.
//!
//! It shows which client of the GPU driver holds a buffer by a handle, without an fd or a mapping.
//! The file has a line `pid N command COMM:` for each client (`amdgpu_debugfs_gem_info_show`).
//! Below it each object has a line `\t\t0xHANDLE: SIZE byte PLACEMENT …`, which contains ` imported
//! from ino:N` or ` exported as ino:N` if the object is a dma-buf (`amdgpu_bo_print_info`). Before
//! about Linux 6.12 the line has a hashed pointer in place of the number; such lines are skipped.
//!
//! The pid belongs to the process that opened the device. It may have passed its fd on, so it is
//! only a candidate. Reading takes the lock of each client in turn, and accesses buffers that may
//! be freed at that moment, without a reference to them. So it is done only if a user asks for one
//! buffer in full.
//!
//! Limits: written after the kernel's source, and not tried on a machine with such a GPU.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Result;

use super::parse::{Malformed, cut, number, number32};
use super::read;
use crate::model::{GemHandle, Inode, Label, Pid};

/// The folder of DRM devices, below the root of sysfs.
const PATH: &str = "kernel/debug/dri";

/// The handles that the driver lists, for each buffer. Empty if no driver has the file, or it
/// cannot be read.
pub(crate) fn read_all(sys: &Path) -> BTreeMap<Inode, BTreeSet<GemHandle>> {
    let mut handles = BTreeMap::new();
    // Without the folder, or without the right to read it, there are no handles to find.
    let _ = read_folder(&sys.join(PATH), &mut handles);
    handles
}

fn read_folder(dri: &Path, handles: &mut BTreeMap<Inode, BTreeSet<GemHandle>>) -> Result<()> {
    let folder = read::open_dir(CWD, dri)?;
    let mut text = Vec::new();
    read::entries(folder.as_fd(), |device, _| {
        let path = [device.to_bytes(), b"/amdgpu_gem_info"].concat();
        // A device has several names here; what is found twice is kept once.
        if read::record(&folder, path.as_slice(), &mut text).is_ok() {
            for (ino, handle) in parse(&text) {
                handles.entry(ino).or_default().insert(handle);
            }
        }
        Ok(())
    })
}

/// The width of a pid's column. With the words around it, it is longer than `TASK_COMM_LEN`.
const PID_WIDTH: usize = 8;

/// All handles in the text that stand for a dma-buf.
pub(crate) fn parse(text: &[u8]) -> Vec<(Inode, GemHandle)> {
    let mut client = None;
    let mut found = Vec::new();
    for line in text.split(|&b| b == b'\n') {
        if let Some(object) = line.strip_prefix(b"\t\t0x") {
            let Some((pid, comm)) = &client else { continue };
            found.extend(handle(object).map(|(ino, handle, imported)| {
                (ino, GemHandle { pid: *pid, comm: Label::clone(comm), handle, imported })
            }));
        } else if let Ok(named) = head(line) {
            client = Some(named);
        }
    }
    found
}

fn head(line: &[u8]) -> std::result::Result<(Pid, Label), Malformed> {
    let rest = line.strip_prefix(b"pid ").ok_or(Malformed)?;
    let (pid, comm) = cut(rest.trim_ascii_start(), b' ')?;
    // The command name is printed raw and may contain a newline, but is too short to forge a line
    // of this width.
    if rest.len() - comm.len() <= PID_WIDTH {
        return Err(Malformed);
    }
    let comm = comm.strip_prefix(b"command ").ok_or(Malformed)?;
    Ok((Pid(number32(pid, 10)?), comm.strip_suffix(b":").unwrap_or(comm).into()))
}

fn handle(object: &[u8]) -> Option<(Inode, u32, bool)> {
    let (handle, rest) = cut(object, b':').ok()?;
    let (at, imported) = [(&b" imported from ino:"[..], true), (b" exported as ino:", false)]
        .into_iter()
        .find_map(|(key, imported)| Some((memchr::memmem::find(rest, key)? + key.len(), imported)))?;
    let digits = rest[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    let ino = number(&rest[at..at + digits], 10).ok()?;
    Some((Inode(ino), number32(handle, 16).ok()?, imported))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"pid     1479 command Xorg:\n\
        \t\t0x00000001:      4194304 byte VRAM CPU_ACCESS_REQUIRED\n\
        \t\t0x0000001f:      8294400 byte VRAM pin count 1 exported as ino:7 VRAM_CONTIGUOUS\n\
        pid       12 command a b: c:\n\
        \t\t0x00000002:      8294400 byte GTT imported from ino:7\n\
        \t\t0x00000003:      8294400 byte GTT imported from 00000000deadbeef\n";

    /// Check that each handle is assigned to its client and its buffer, and that other objects are
    /// skipped.
    #[test]
    fn handles_of_two_clients() {
        let handle = |pid, comm: &str, handle, imported| {
            (Inode(7), GemHandle { pid: Pid(pid), comm: comm.into(), handle, imported })
        };
        assert_eq!(parse(TEXT), [handle(1479, "Xorg", 0x1f, false), handle(12, "a b: c", 2, true)]);
    }

    /// Check that a device with two names gives each handle once.
    #[test]
    fn one_device_by_two_names() {
        let sys = tempfile::tempdir().unwrap();
        for name in ["0", "128"] {
            let device = sys.path().join(PATH).join(name);
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("amdgpu_gem_info"), TEXT).unwrap();
        }
        let handles = read_all(sys.path());
        assert_eq!(handles.iter().map(|(ino, h)| (ino.0, h.len())).collect::<Vec<_>>(), [(7, 2)]);
    }

    /// Check that a command name with a newline cannot forge a client.
    #[test]
    fn a_forged_client() {
        let text = b"pid     1479 command \npid 1 command :\n\t\t0x00000001:         4096 byte GTT imported from ino:7\n";
        assert_eq!(parse(text).iter().map(|(_, handle)| handle.pid).collect::<Vec<_>>(), [Pid(1479)]);
    }

    proptest! {
        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&text);
            let _ = parse(&[b"pid        1 command x:\n\t\t0x1: imported from ino:".as_slice(), &text].concat());
        }
    }
}
