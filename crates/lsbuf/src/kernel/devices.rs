//! Which device stands behind a device node, and which node a device has: the links of `/sys/class` and `/sys/dev`.
//!
//! dma-bufs name attached devices by `dev_name`, processes hold nodes such as `/dev/dri/card0`; the node's `device` link in sysfs
//! ends in the former. The node is looked up by its name alone, in the classes whose drivers hold dma-bufs.

use std::path::Path;

use rustix::fs::{CWD, readlinkat};

use super::read;
use crate::model::{Dev, Label};

/// Classes with nodes that hold dma-bufs.
const CLASSES: &[&str] = &["drm", "video4linux", "accel", "infiniband_verbs", "nvidia"];

/// The name of the device behind a node, by the sysfs at `sys`.
pub(crate) fn name(sys: &Path, node: &Label) -> Option<Label> {
    let text = std::str::from_utf8(node.as_bytes()).ok()?;
    let last = text.rsplit('/').next().filter(|last| !last.is_empty() && *last != "..")?;
    CLASSES.iter().find_map(|class| {
        let link = sys.join("class").join(class).join(last).join("device");
        let target = readlinkat(CWD, &link, Vec::new()).ok()?;
        target.as_bytes().rsplit(|&b| b == b'/').next().filter(|name| !name.is_empty()).map(Label::from)
    })
}

/// The node of a character device as udev and devtmpfs name it (`dev_uevent` in drivers/base/core.c); `None`: the device does
/// not tell sysfs.
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

    /// Check that a device leads to its node, and that what sysfs does not know leads nowhere.
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

    /// Check that a node leads to the last part of its device's link, and that what has none leads nowhere.
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
