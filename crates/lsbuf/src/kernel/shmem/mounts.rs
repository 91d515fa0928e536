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

use std::collections::{BTreeMap, HashMap};

use super::name::{Filesystem, without_mark};
use crate::kernel::identity::device_text;
use crate::kernel::parse::{Malformed, cut};
use crate::model::Dev;

/// The mounts of one mount namespace that matter here.
///
/// Any user can make a hundred thousand mounts in a namespace of its own, and hold as many fds of
/// long paths. So no look-up goes through all mounts.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    /// Every mount point, ordered by its bytes, with the last mount there.
    points: Vec<MountPoint>,
    /// Every mount of a shmem filesystem in the kernel's order, including those that another mount
    /// hides.
    shmem: Vec<ShmemMount>,
    /// Each folder of a shmem filesystem that is mounted, once, in order.
    folders: Vec<MountedFolder>,
    /// The shmem filesystems, each once.
    devices: HashMap<Dev, Filesystem>,
}

/// A mount point.
#[derive(Debug)]
struct MountPoint {
    path: Vec<u8>,
    top: TopMount,
    /// The longest other mount point that this path begins with.
    shorter: Option<usize>,
}

/// A folder of a shmem filesystem that is mounted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MountedFolder {
    dev: Dev,
    path: Vec<u8>,
    /// Whether each mount of it is hidden by a later one at the same place.
    is_hidden: bool,
    /// Which of [`Mounts::shmem`] shows its files: the first that is not hidden, or else the first.
    mount: usize,
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
    point: Vec<u8>,
    /// The folder of the filesystem that is mounted.
    root: Vec<u8>,
    dev: Dev,
    filesystem: Filesystem,
    /// Whether no later mount at the same place hides it.
    is_top: bool,
}

impl Mounts {
    /// Parses a mountinfo. Lines that cannot be parsed are skipped.
    pub(crate) fn parse(text: &[u8]) -> Mounts {
        let mut tops = BTreeMap::new();
        let mut shmem = Vec::new();
        for line in text.split(|&b| b == b'\n') {
            let Ok(Mount { root, point, top, .. }) = mount(line) else { continue };
            if let Some(filesystem) = top.filesystem {
                shmem.push(ShmemMount {
                    point: point.clone(),
                    root,
                    dev: top.dev,
                    filesystem,
                    is_top: false,
                });
            }
            tops.insert(point, top);
        }
        let mut mounts = Mounts { points: nested(tops), ..Mounts::default() };
        for (nth, mut mount) in shmem.into_iter().enumerate() {
            mount.is_top = mounts.at(&mount.point).is_some_and(|top| top.dev == mount.dev);
            mounts.devices.entry(mount.dev).or_insert(mount.filesystem);
            let (dev, is_hidden) = (mount.dev, !mount.is_top);
            mounts.folders.push(MountedFolder { dev, path: mount.root.clone(), is_hidden, mount: nth });
            mounts.shmem.push(mount);
        }
        mounts.folders.sort_unstable();
        mounts.folders.dedup_by(|later, first| (later.dev, &later.path) == (first.dev, &first.path));
        mounts
    }

    /// The shmem filesystems, including hidden ones, each once.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (Dev, Filesystem)> {
        self.devices.iter().map(|(&dev, &filesystem)| (dev, filesystem))
    }

    /// Every mount of a tmpfs or devtmpfs: its mount point, its device, and whether it is the last
    /// one mounted there.
    pub(crate) fn tmpfs(&self) -> impl Iterator<Item = (&[u8], Dev, bool)> {
        let is_tmpfs = |of: Filesystem| matches!(of, Filesystem::Tmpfs | Filesystem::Devtmpfs);
        let tmpfs = self.shmem.iter().filter(move |shmem| is_tmpfs(shmem.filesystem));
        tmpfs.map(|shmem| (&shmem.point[..], shmem.dev, shmem.is_top))
    }

    /// The path of a file on that device, from its path below the root of the filesystem. If it
    /// shows at several places, the first that is not hidden, or else the first. `None`: no mount
    /// shows it.
    pub(crate) fn path_of(&self, dev: Dev, below: &[u8]) -> Option<Vec<u8>> {
        let (mount, rest) = self.shown(dev, below)?;
        Some(joined(&self.shmem[mount].point, rest))
    }

    /// As [`Mounts::path_of`], if the mount that shows the file is not hidden by a later one at the
    /// same place; with its mount point.
    pub(crate) fn open_path_of(&self, dev: Dev, below: &[u8]) -> Option<(Vec<u8>, &[u8])> {
        let (mount, rest) = self.shown(dev, below)?;
        let ShmemMount { point, is_top, .. } = &self.shmem[mount];
        is_top.then(|| (joined(point, rest), &point[..]))
    }

    /// Where all of a filesystem shows: mounts of its root that are not hidden by a later one at
    /// the same place.
    pub(crate) fn of_root(&self, dev: Dev) -> Option<&[u8]> {
        self.open_path_of(dev, b"").map(|(_, point)| point)
    }

    /// Which mount shows a file, and what of its path is below the mount point.
    fn shown<'p>(&self, dev: Dev, below: &'p [u8]) -> Option<(usize, &'p [u8])> {
        if !below.is_empty() && !below.starts_with(b"/") {
            return None;
        }
        // What the mount shows is the folder that ends there in the path, or one that the path
        // begins with.
        let mounted = |path: &[u8]| {
            let at = self.folders.binary_search_by(|known| (known.dev, &known.path[..]).cmp(&(dev, path)));
            at.ok().map(|at| &self.folders[at])
        };
        let root = mounted(b"/").map(|root| (root, 0));
        let folders = ends(below).filter(|&end| below[..end] != *b"/");
        let folders = folders.filter_map(|end| Some((mounted(&below[..end])?, end)));
        let shown = root.into_iter().chain(folders);
        let (&MountedFolder { mount, .. }, end) =
            shown.min_by_key(|(folder, _)| (folder.is_hidden, folder.mount))?;
        Some((mount, &below[end..]))
    }

    /// Whether the path is below a shmem filesystem. The innermost mount decides.
    pub(crate) fn may_have(&self, path: &[u8]) -> bool {
        // A file that is a mount point itself has ` (deleted)` after its path once it has lost its
        // name.
        let is_below = |path| self.innermost(path).is_some_and(|(_, top)| top.filesystem.is_some());
        let unmarked = without_mark(path, Some(0));
        is_below(path) || unmarked.len() < path.len() && is_below(unmarked)
    }

    /// The mount point of the mount that contains a path.
    pub(super) fn mount_point<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        self.innermost(path).map(|(point, _)| point)
    }

    /// The device of the shmem filesystem that contains a path, and the path below the root of that
    /// filesystem. `None`: the path leads to another filesystem.
    ///
    /// This goes through all mounts.
    pub(crate) fn place_of(&self, path: &[u8]) -> Option<(Dev, Vec<u8>)> {
        let (point, TopMount { dev, .. }) = self.innermost(path)?;
        let mount = self.shmem.iter().rfind(|mount| mount.point == point && mount.dev == dev)?;
        let root = if mount.root == b"/" { &[][..] } else { &mount.root[..] };
        let point = if point == b"/" { &[][..] } else { point };
        Some((dev, [root, path.strip_prefix(point)?].concat()))
    }

    /// The mount that contains a mount point, and where it is mounted; `None`: the mount point is
    /// the root, or the mount cannot be seen.
    pub(crate) fn around<'p>(&self, point: &'p [u8]) -> Option<(&'p [u8], TopMount)> {
        let parent = point.iter().rposition(|&b| b == b'/')?;
        if point == b"/" { None } else { self.innermost(&point[..parent.max(1)]) }
    }

    /// The last mount at a mount point.
    fn at(&self, point: &[u8]) -> Option<TopMount> {
        let at = self.points.binary_search_by(|known| known.path[..].cmp(point)).ok()?;
        Some(self.points[at].top)
    }

    /// The longest mount point that contains a path.
    ///
    /// Each mount point that the path begins with is not after the path in the order, and the last
    /// one before the path begins with it too.
    fn innermost<'p>(&self, path: &'p [u8]) -> Option<(&'p [u8], TopMount)> {
        let mut at = self.points.partition_point(|known| known.path[..] <= *path).checked_sub(1)?;
        let common = self.points[at].path.iter().zip(path).take_while(|(a, b)| a == b).count();
        loop {
            let MountPoint { path: point, top, shorter } = &self.points[at];
            let is_whole_name = point.ends_with(b"/") || path.get(point.len()).is_none_or(|&b| b == b'/');
            if point.len() <= common && is_whole_name {
                return Some((&path[..point.len()], *top));
            }
            at = (*shorter)?;
        }
    }
}

/// A path below a mount point.
fn joined(point: &[u8], rest: &[u8]) -> Vec<u8> {
    let point = if point == b"/" && !rest.is_empty() { b"" } else { point };
    [point, rest].concat()
}

/// Adds to each mount point the longest other one that it begins with.
fn nested(tops: BTreeMap<Vec<u8>, TopMount>) -> Vec<MountPoint> {
    let mut points: Vec<MountPoint> = Vec::with_capacity(tops.len());
    for (path, top) in tops {
        let mut shorter = points.len().checked_sub(1);
        while let Some(at) = shorter.filter(|&at| !path.starts_with(&points[at].path)) {
            shorter = points[at].shorter;
        }
        points.push(MountPoint { path, top, shorter });
    }
    points
}

/// Where the names of a path end, from its last one to its first.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let slashes = path.iter().enumerate().rev().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    [path.len()].into_iter().chain(slashes).filter(|&end| end > 0)
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    root: Vec<u8>,
    point: Vec<u8>,
    top: TopMount,
    /// Whether it is a file of a namespace.
    is_nsfs: bool,
    is_overlay: bool,
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
    Ok(Mount {
        root: unescaped(root),
        point: unescaped(point),
        top,
        is_nsfs: kind == b"nsfs",
        is_overlay: kind == b"overlay",
    })
}

/// The mounts of namespaces in a mountinfo: the root of each, such as `ipc:[4026532177]`, and its
/// mount point.
pub(super) fn nsfs(text: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let lines = text.split(|&b| b == b'\n').filter_map(|line| mount(line).ok());
    lines.filter(|mount| mount.is_nsfs).map(|mount| (mount.root, mount.point))
}

/// The mount point of each overlay in a mountinfo, and its options.
pub(crate) fn overlays(text: &[u8]) -> impl Iterator<Item = (Vec<u8>, &[u8])> {
    text.split(|&b| b == b'\n').filter_map(|line| {
        let point = mount(line).ok().filter(|mount| mount.is_overlay)?.point;
        Some((point, line.rsplit(|&b| b == b' ').next()?))
    })
}

/// Decodes `\040` and the like (`mangle_path` in fs/seq_file.c).
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
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

    /// Check that a tmpfs that another mount hides is listed, and reported as hidden, and that a
    /// devtmpfs is listed too.
    #[test]
    fn hidden() {
        let mounts = Mounts::parse(
            b"25 24 0:23 / /dev/shm rw - tmpfs a rw\n30 25 0:27 / /dev/shm rw - tmpfs b rw\n31 1 0:5 / /x rw - hugetlbfs - rw\n32 1 0:6 / /dev rw - devtmpfs udev rw\n",
        );
        let dev = |minor| Dev { major: 0, minor };
        let all: Vec<_> = mounts.tmpfs().collect();
        let shm = &b"/dev/shm"[..];
        assert_eq!(all, [(shm, dev(23), false), (shm, dev(27), true), (&b"/dev"[..], dev(6), true)]);
        assert_eq!(mounts.devices().count(), 4);
    }

    /// The name of a folder. Some begin with others, and a slash is neither the first nor the last
    /// of the characters in their order.
    fn name() -> impl Strategy<Value = String> {
        proptest::sample::select(vec!["a", "a-", "ab", "a (deleted)", "b"]).prop_map(str::to_owned)
    }

    fn folder() -> impl Strategy<Value = String> {
        proptest::collection::vec(name(), 0..4).prop_map(|names| format!("/{}", names.join("/")))
    }

    /// Whether a folder is, or contains, what has this path.
    fn contains(folder: &str, path: &str) -> bool {
        folder == "/"
            || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn is_shmem(device: u32) -> bool {
        device < 3
    }

    proptest! {
        /// Check that of any mounts the innermost one decides, and that a file's path is that of
        /// the first mount which shows it and is not hidden, or else of the first which shows it.
        #[test]
        fn same_as_one_mount_after_the_other(
            mounts in proptest::collection::vec((0u32..5, folder(), folder()), 0..12),
            path in folder(),
        ) {
            let line = |(device, root, point): &(u32, String, String)| {
                let kind = if is_shmem(*device) { "tmpfs" } else { "ext4" };
                format!("1 1 0:{device} {} {} rw - {kind} - rw\n", root.replace(' ', "\\040"), point.replace(' ', "\\040"))
            };
            let parsed = Mounts::parse(mounts.iter().map(line).collect::<String>().as_bytes());
            let last_at = |wanted: &str| mounts.iter().rfind(|(_, _, point)| point == wanted).map(|one| one.0);
            let innermost = |path: &str| {
                let around = mounts.iter().filter(|(_, _, point)| contains(point, path));
                around.max_by_key(|(_, _, point)| point.len()).and_then(|(_, _, point)| last_at(point))
            };
            let unmarked = path.strip_suffix(" (deleted)").unwrap_or(&path);
            let expected = [&path, unmarked].into_iter().any(|path| innermost(path).is_some_and(is_shmem));
            prop_assert_eq!(parsed.may_have(path.as_bytes()), expected);
            for device in (0..5).filter(|&device| is_shmem(device)) {
                let shows = |(dev, root, _): &&(u32, String, String)| *dev == device && contains(root, &path);
                let is_top = |(_, _, point): &&(u32, String, String)| last_at(point) == Some(device);
                let shown = || mounts.iter().filter(shows);
                let expected = shown().find(is_top).or_else(|| shown().next()).map(|(_, root, point)| {
                    let rest = if root == "/" { &path[..] } else { &path[root.len()..] };
                    if point == "/" && !rest.is_empty() { rest.to_owned() } else { format!("{point}{rest}") }
                });
                let found = parsed.path_of(Dev { major: 0, minor: device }, path.as_bytes());
                prop_assert_eq!(found.map(|found| String::from_utf8(found).unwrap()), expected);
            }
        }

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
