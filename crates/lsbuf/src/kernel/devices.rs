//! The device behind a device node, and the node of a device number: links and files below
//! `/sys/class` and `/sys/dev`.
//!
//! A dma-buf lists the devices attached to it by their `dev_name`; processes hold nodes such as
//! `/dev/dri/card0`. The node's `device` link in sysfs ends in the same `dev_name`, so the two can
//! be matched. A node is looked up by its file name alone, in the classes whose drivers can hold
//! dma-bufs.
//!
//! Limits: a node that was given another name is not matched, or is matched with another device.
//! That is enough here, because a process with an open device is only a candidate.

use std::path::Path;

use rustix::fs::{CWD, readlinkat};

use super::read;
use crate::model::{Dev, Label};

/// The classes whose drivers can hold dma-bufs.
const CLASSES: &[&str] = &["drm", "video4linux", "accel", "infiniband_verbs", "nvidia"];

/// The name of the device behind a node. `sys` is the root of sysfs.
pub(crate) fn name(sys: &Path, node: &Label) -> Option<Label> {
    let text = std::str::from_utf8(node.as_bytes()).ok()?;
    let last = text.rsplit('/').next().filter(|last| !last.is_empty() && *last != "..")?;
    CLASSES.iter().find_map(|class| {
        let link = sys.join("class").join(class).join(last).join("device");
        let target = readlinkat(CWD, &link, Vec::new()).ok()?;
        target.as_bytes().rsplit(|&b| b == b'/').next().filter(|name| !name.is_empty()).map(Label::from)
    })
}

/// The path of a character device's node, as udev and devtmpfs name it (`dev_uevent` in
/// drivers/base/core.c). `None`: sysfs has no node name for the device.
pub(crate) fn node(sys: &Path, dev: Dev) -> Option<Label> {
    let mut text = Vec::new();
    read::record(CWD, sys.join(format!("dev/char/{dev}/uevent")), &mut text).ok()?;
    let name = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"DEVNAME="))?;
    Some(Label::from([b"/dev/", name].concat().as_slice()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Check that the node of a device number is found, and none for a number that sysfs does not
    /// have.
    #[test]
    fn by_the_number() {
        let sys = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sys.path().join("dev/char/226:0")).unwrap();
        std::fs::write(
            sys.path().join("dev/char/226:0/uevent"),
            "MAJOR=226\nMINOR=0\nDEVNAME=dri/card0\nDEVTYPE=drm_minor\n",
        )
        .unwrap();
        assert_eq!(node(sys.path(), Dev { major: 226, minor: 0 }), Some("/dev/dri/card0".into()));
        assert_eq!(node(sys.path(), Dev { major: 226, minor: 1 }), None);
    }

    /// Check that a node's device is the last part of its `device` link, and that a node without
    /// one has none.
    #[test]
    fn by_the_device_link() {
        let sys = tempfile::tempdir().unwrap();
        let card = sys.path().join("class/drm/card0");
        std::fs::create_dir_all(&card).unwrap();
        symlink("../../../devices/faux/vgem", card.join("device")).unwrap();
        assert_eq!(name(sys.path(), &"/dev/dri/card0".into()), Some("vgem".into()));
        assert_eq!(name(sys.path(), &"/dev/dri/card1".into()), None);
        assert_eq!(name(sys.path(), &"/dev/dri/..".into()), None);
    }
}
