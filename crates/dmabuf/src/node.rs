//! Opens device nodes, and tells a user who may not open one what would help.
//!
//! The distribution chooses the owner and mode of the nodes of exporters: `/dev/udmabuf` is often
//! `root:kvm` 0660, and heaps are open to root only. So "permission denied" is the error that users
//! meet first. The message names the node's owner and, if membership would help, the group. Limit:
//! names come from `/etc/passwd` and `/etc/group` only; for an id that is in neither, the message
//! has the number.

use std::fmt::Display;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::Errno;

use crate::{Error, ErrorKind, Result};

/// Opens a character device. `absent` makes the error if there is no node at `path`. `not_device`
/// is the kind of the error if something else is there.
pub(crate) fn open_device(
    path: &Path,
    access: OFlags,
    not_device: ErrorKind,
    absent: impl FnOnce(Errno) -> Error,
) -> Result<OwnedFd> {
    let message = || format!("{} is not a character device; give the path of a device node", path.display());
    let what = || format!("cannot open {}", path.display());
    let fd = match open(path, access | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()) {
        Ok(fd) => fd,
        Err(errno @ (Errno::NOENT | Errno::NOTDIR)) => return Err(absent(errno)),
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => return Err(denied(path, errno)),
        Err(errno @ Errno::ISDIR) => return Err(Error::with_errno(not_device, message(), errno)),
        Err(errno) => return Err(Error::from_errno(what(), errno)),
    };
    let stat = fstat(&fd).map_err(|errno| Error::from_errno(what(), errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice {
        return Err(Error::new(not_device, message()));
    }
    Ok(fd)
}

/// Opens the nodes in `dir` whose names start with `prefix`, in the order of their names, and
/// returns the first device that `fits`. If none fits, the error is the one for a node that this
/// user may not open, as that node could have been the right one. If there was no such node,
/// `not_found` makes the error from a text that lists what was found.
pub(crate) fn find_device<D: Display>(
    dir: &Path,
    prefix: &str,
    open: impl Fn(&Path) -> Result<D>,
    fits: impl Fn(&D) -> bool,
    not_found: impl FnOnce(String) -> Error,
) -> Result<D> {
    let mut nodes: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(prefix.as_bytes())))
        .collect();
    nodes.sort_unstable();
    let mut seen = Vec::new();
    let mut denied = None;
    for node in &nodes {
        match open(node) {
            Ok(device) if fits(&device) => return Ok(device),
            Ok(device) => seen.push(device.to_string()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => denied = Some(error),
            Err(error) => seen.push(error.to_string()),
        }
    }
    Err(denied.unwrap_or_else(|| {
        not_found(if seen.is_empty() { "no node was found".to_owned() } else { seen.join("; ") })
    }))
}

/// The error for a node that this user may not open.
fn denied(path: &Path, errno: Errno) -> Error {
    let advice = match fs::metadata(path) {
        Ok(node) => advice(node.uid(), node.gid(), node.mode()),
        Err(_) => "run as root".to_owned(),
    };
    Error::with_errno(
        ErrorKind::PermissionDenied,
        format!("permission denied opening {}: {advice}", path.display()),
        errno,
    )
}

fn advice(uid: u32, gid: u32, mode: u32) -> String {
    let user = name_of("/etc/passwd", uid);
    let group = name_of("/etc/group", gid);
    let owner = format!("it belongs to {user}:{group} with mode {:04o}", mode & 0o7777);
    // Never advise to join root's group, even where the mode would make that work.
    if mode & 0o060 == 0o060 && gid != 0 {
        format!(
            "{owner}; run as {user}, or join the group {group} (usermod -aG {group} USER, then log in again)"
        )
    } else {
        format!("{owner}; run as {user}, or add a udev rule that gives the node to a group of yours")
    }
}

/// The name for `id` in a file of colon-separated lines whose third field is the id. If there is
/// none, the number as text.
fn name_of(database: &str, id: u32) -> String {
    fs::read(database).ok().and_then(|bytes| lookup(&bytes, id)).unwrap_or_else(|| id.to_string())
}

fn lookup(database: &[u8], id: u32) -> Option<String> {
    String::from_utf8_lossy(database).lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse::<u32>().ok()? == id).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the advice names the group if the mode opens the node to it.
    #[test]
    fn advises_the_group() {
        let advice = advice(0, 4_000_000_001, 0o20660);
        assert!(advice.contains("mode 0660"), "{advice}");
        assert!(advice.contains("join the group 4000000001"), "{advice}");
    }

    /// Check that the advice is not to join a group that has no access, or root's group.
    #[test]
    fn no_group_without_access() {
        assert!(!advice(0, 4_000_000_001, 0o20600).contains("join"));
        assert!(!advice(0, 0, 0o20660).contains("join"));
    }

    /// Check that a lookup matches the id field and skips malformed lines.
    #[test]
    fn looks_up_names() {
        let database = b"root:x:0:\nbroken\nkvm:x:104:alice\n";
        assert_eq!(lookup(database, 104).as_deref(), Some("kvm"));
        assert_eq!(lookup(database, 105), None);
    }

    /// Check that a regular file and a folder are refused with the kind that the caller chose.
    #[test]
    fn refuses_what_is_no_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        for path in [file.path(), dir.path()] {
            let absent = |errno| Error::from_errno("absent", errno);
            let error = open_device(path, OFlags::RDWR, ErrorKind::NoDrmDevice, absent).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoDrmDevice);
            assert!(error.to_string().contains("not a character device"), "{error}");
        }
    }

    /// Check that the denial names the path and keeps the errno.
    #[test]
    fn denial_names_the_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = denied(file.path(), Errno::ACCESS);
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains(&*file.path().to_string_lossy()));
        assert_eq!(error.raw_os_error(), Some(Errno::ACCESS.raw_os_error()));
    }
}
