//! Where tmpfs and hugetlbfs are mounted, by a mount table (`/proc/P/mountinfo`, `show_mountinfo`
//! in fs/proc_namespace.c).
//!
//! It is used to decide by a path alone whether a file may be on such a filesystem.
//!
//! A line is `ID PARENT MAJ:MIN ROOT POINT OPTIONS… - TYPE SOURCE OPTIONS`. Blanks, newlines and
//! backslashes in paths are escaped in octal. The type comes from the kernel, and no path can forge
//! it.
//!
//! Limits: mount points are printed as the process sees them, and links as the reader sees them.
//! Where the two differ, as for a process that has changed its root within the reader's own mount
//! namespace, the reader's table must be used.

use std::collections::HashMap;

use super::name::{Filesystem, without_mark};
use crate::kernel::identity::device_text;
use crate::kernel::parse::{Malformed, cut};
use crate::model::Dev;

/// The mounts of one mount namespace that matter here.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// Every mount point, with the last mount there.
    points: HashMap<Vec<u8>, TopMount>,
    /// Every mount of a shmem filesystem in the kernel's order, including those that another mount
    /// hides.
    shmem: Vec<ShmemMount>,
}

/// The last mount at a mount point. It hides all earlier ones there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopMount {
    /// The filesystem's device.
    pub(crate) dev: Dev,
    /// Set if it is a shmem filesystem.
    filesystem: Option<Filesystem>,
    /// Whether it is a sysfs.
    pub(crate) is_sysfs: bool,
}

/// A mount of a shmem filesystem.
#[derive(Debug)]
struct ShmemMount {
    /// The folder of the filesystem that is mounted.
    root: Vec<u8>,
    point: Vec<u8>,
    dev: Dev,
    filesystem: Filesystem,
}

impl Mounts {
    /// Parses a mountinfo. Lines that cannot be parsed are skipped.
    pub(crate) fn parse(text: &[u8]) -> Mounts {
        let mut mounts = Mounts::default();
        for line in text.split(|&b| b == b'\n') {
            let Ok(Mount { root, point, top }) = mount(line) else { continue };
            if let Some(filesystem) = top.filesystem {
                mounts.shmem.push(ShmemMount { root, point: point.clone(), dev: top.dev, filesystem });
            }
            mounts.points.insert(point, top);
        }
        mounts
    }

    /// The devices of the shmem filesystems, including hidden ones.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (Dev, Filesystem)> {
        self.shmem.iter().map(|shmem| (shmem.dev, shmem.filesystem))
    }

    /// Every mount of a tmpfs: its mount point, its device, and whether it is the last one mounted
    /// there.
    pub(crate) fn tmpfs(&self) -> impl Iterator<Item = (&[u8], Dev, bool)> {
        self.shmem.iter().filter(|shmem| shmem.filesystem == Filesystem::Tmpfs).map(|shmem| {
            let top = self.points.get(&shmem.point);
            (&shmem.point[..], shmem.dev, top.is_some_and(|top| top.dev == shmem.dev))
        })
    }

    /// The path of a file on that device, from its path below the root of the filesystem. If it
    /// shows at several places, the first that is not hidden, or else the first. `None`: no mount
    /// shows it.
    pub(crate) fn path_of(&self, dev: Dev, below: &[u8]) -> Option<Vec<u8>> {
        let shown = |mount: &ShmemMount| {
            let rest = if mount.root == b"/" { below } else { below.strip_prefix(&mount.root[..])? };
            let point = if mount.point == b"/" && !rest.is_empty() { b"" } else { &mount.point[..] };
            (rest.is_empty() || rest.starts_with(b"/")).then(|| [point, rest].concat())
        };
        let is_top = |mount: &&ShmemMount| self.points.get(&mount.point).is_some_and(|top| top.dev == dev);
        let of_it = || self.shmem.iter().filter(|mount| mount.dev == dev);
        of_it().filter(is_top).find_map(shown).or_else(|| of_it().find_map(shown))
    }

    /// Whether the path is below a shmem filesystem. The innermost mount decides.
    pub(crate) fn may_have(&self, path: &[u8]) -> bool {
        // A file that is a mount point itself has ` (deleted)` after its path once it has lost its
        // name.
        let is_below = |path| self.innermost(path).is_some_and(|(_, top)| top.filesystem.is_some());
        self.shmem.iter().any(|shmem| path.starts_with(&shmem.point))
            && (is_below(path) || is_below(without_mark(path, Some(0))))
    }

    /// The mount that contains a mount point, and where it is mounted; `None`: the mount point is
    /// the root, or the mount cannot be seen.
    pub(crate) fn around<'p>(&self, point: &'p [u8]) -> Option<(&'p [u8], TopMount)> {
        let parent = point.iter().rposition(|&b| b == b'/')?;
        if point == b"/" { None } else { self.innermost(&point[..parent.max(1)]) }
    }

    fn innermost<'p>(&self, path: &'p [u8]) -> Option<(&'p [u8], TopMount)> {
        let mut end = path.len();
        loop {
            let point = &path[..end];
            if let Some(top) = self.points.get(point) {
                return Some((point, *top));
            }
            match path[..end].iter().rposition(|&b| b == b'/')? {
                0 if end == 1 => return None,
                0 => end = 1,
                at => end = at,
            }
        }
    }
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    root: Vec<u8>,
    point: Vec<u8>,
    top: TopMount,
}

fn mount(line: &[u8]) -> Result<Mount, Malformed> {
    let (_id, rest) = cut(line, b' ')?;
    let (_parent, rest) = cut(rest, b' ')?;
    let (dev, rest) = cut(rest, b' ')?;
    let (root, rest) = cut(rest, b' ')?;
    let (point, rest) = cut(rest, b' ')?;
    let mut words = rest.split(|&b| b == b' ').skip_while(|&word| word != b"-");
    let kind = words.nth(1).ok_or(Malformed)?;
    let filesystem = match kind {
        // The filesystem of the initial RAM disk is called `rootfs` whether it is a tmpfs or a
        // ramfs. A ramfs has no files that matter here.
        b"tmpfs" | b"rootfs" => Some(Filesystem::Tmpfs),
        b"devtmpfs" => Some(Filesystem::Devtmpfs),
        b"hugetlbfs" => Some(Filesystem::Hugetlbfs),
        _ => None,
    };
    let top = TopMount { dev: device_text(dev)?, filesystem, is_sysfs: kind == b"sysfs" };
    Ok(Mount { root: unescaped(root), point: unescaped(point), top })
}

/// Decodes `\040` and the like (`mangle_path` in fs/seq_file.c).
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let digits = match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => Some([a, b, c]),
            _ => None,
        };
        match digits {
            Some(digits) => {
                plain.push(digits.iter().fold(0, |byte, digit| byte << 3 | (**digit - b'0')));
                rest = &after[3..];
            }
            None => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
        24 27 0:6 / /dev rw,relatime shared:2 - devtmpfs devtmpfs rw,mode=755\n\
        25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw\n\
        30 27 0:40 / /mnt/a\\040b rw master:1 propagate_from:2 - tmpfs - rw\n\
        31 25 0:44 / /dev/shm/net rw - nfs server:/tmpfs rw\n";

    /// Check that the innermost mount decides, and that neither a longer name nor a filesystem with
    /// a similar name matches.
    #[test]
    fn innermost_mount_decides() {
        let mounts = Mounts::parse(TEXT);
        for path in ["/dev/shm/x", "/dev/shm/x (deleted)", "/dev/y", "/mnt/a b/z"] {
            assert!(mounts.may_have(path.as_bytes()), "{path}");
        }
        for path in ["/dev/shm/net/x", "/devil", "/home/x", "/mnt/a\\040b/z", "socket:[1]", ""] {
            assert!(!mounts.may_have(path.as_bytes()), "{path}");
        }
    }

    /// Check that a root filesystem that is a tmpfs contains every path that no other mount covers.
    #[test]
    fn a_tmpfs_as_root() {
        let mounts =
            Mounts::parse(b"1 1 0:2 / / rw - rootfs rootfs rw\n2 1 0:21 / /proc rw - proc proc rw\n");
        assert!(mounts.may_have(b"/init") && !mounts.may_have(b"/proc/1/maps"));
        assert_eq!(mounts.devices().count(), 1);
    }

    /// Check that a mount point is in the mount that contains it, and the root in none.
    #[test]
    fn around() {
        let mounts = Mounts::parse(
            b"1 0 0:2 / / rw - overlay - rw\n2 1 0:22 / /sys rw - sysfs - rw\n3 2 0:28 / /sys/fs/cgroup rw - tmpfs - rw\n",
        );
        let of = |point| mounts.around(point).map(|(point, top)| (point, top.is_sysfs));
        assert_eq!(of(b"/sys/fs/cgroup"), Some((&b"/sys"[..], true)));
        assert_eq!(of(b"/sys/fs/cgroup/a/b"), Some((&b"/sys/fs/cgroup"[..], false)));
        assert_eq!(of(b"/sys"), Some((&b"/"[..], false)));
        assert_eq!((of(b"/"), of(b""), of(b"x")), (None, None, None));
        assert_eq!(Mounts::default().around(b"/x"), None);
    }

    /// Check that a tmpfs that another mount hides is listed, and reported as hidden.
    #[test]
    fn hidden() {
        let mounts = Mounts::parse(
            b"25 24 0:23 / /dev/shm rw - tmpfs a rw\n30 25 0:27 / /dev/shm rw - tmpfs b rw\n31 1 0:5 / /x rw - hugetlbfs - rw\n",
        );
        let dev = |minor| Dev { major: 0, minor };
        let all: Vec<_> = mounts.tmpfs().collect();
        assert_eq!(all, [(&b"/dev/shm"[..], dev(23), false), (&b"/dev/shm"[..], dev(27), true)]);
        assert_eq!(mounts.devices().count(), 3);
    }

    proptest! {
        /// Check that any path is read back as the kernel escapes it.
        #[test]
        fn round_trip(path in proptest::collection::vec(1u8.., 0..40)) {
            let escape = |&b: &u8| match b {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{b:03o}").into_bytes(),
                _ => vec![b],
            };
            let escaped: Vec<u8> = path.iter().flat_map(escape).collect();
            prop_assert_eq!(unescaped(&escaped), path);
        }

        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..200), path in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mounts = Mounts::parse(&text);
            let _ = (mounts.may_have(&path), mounts.around(&path));
        }
    }
}
