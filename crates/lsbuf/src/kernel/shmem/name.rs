//! The names of shared memory files, and what they prove.
//!
//! The kernel has one tmpfs that is mounted nowhere (`shm_mnt` in mm/shmem.c), and one such
//! hugetlbfs for each size of huge pages. Only the kernel makes files there, and their names say
//! what for: the name of a memfd begins with `memfd:`, whatever name its program gave it. So on
//! these filesystems a path proves the kind of the file, and nowhere else. Such a file is in no
//! folder, so its path ends in ` (deleted)`.

use crate::model::Kind;

/// The filesystems that shared memory can be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filesystem {
    /// The kernel's own tmpfs.
    Kernel,
    /// One of the kernel's own hugetlbfs.
    KernelHuge,
    /// A tmpfs that is, or was, mounted.
    Tmpfs,
    /// A devtmpfs. It is a tmpfs, but nearly all of its files are device nodes.
    Devtmpfs,
    /// A hugetlbfs that is, or was, mounted.
    Hugetlbfs,
    /// The filesystem of memfd_secret.
    Secret,
    /// The filesystem of guest_memfd.
    Guest,
}

impl Filesystem {
    /// The kind of all files there, if they have the same.
    pub(crate) fn only_kind(self) -> Option<Kind> {
        match self {
            Filesystem::Kernel | Filesystem::KernelHuge => None,
            Filesystem::Tmpfs | Filesystem::Devtmpfs => Some(Kind::Tmpfs),
            Filesystem::Hugetlbfs => Some(Kind::Hugetlbfs),
            Filesystem::Secret => Some(Kind::Secretmem),
            Filesystem::Guest => Some(Kind::GuestMemfd),
        }
    }
}

/// A kind, and the part of the path that a program chose; for a segment its key, eight hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named<'p> {
    pub(crate) kind: Kind,
    pub(crate) name: &'p [u8],
}

const DELETED: &[u8] = b" (deleted)";
const GUEST_MEMFD_LINKS: [&[u8]; 2] = [b"/[kvm-gmem] (deleted)", b"anon_inode:[kvm-gmem]"];

/// Whether a link looks like one of the kernel's own files. It is a filter, not a proof.
pub(crate) fn looks_like_kernel_file(link: &[u8]) -> bool {
    let begins: [&[u8]; 8] = [
        b"/memfd:",
        b"/SYSV",
        b"/dev/ashmem/",
        b"/dev/zero (",
        b"/drm mm object",
        b"/i915",
        b"/anon_hugepage",
        b"/secretmem",
    ];
    begins.iter().any(|begin| link.starts_with(begin)) || looks_like_guest_memfd(link)
}

/// Whether a link looks like a guest_memfd's: its path (from Linux 7 on), or the name of its
/// anonymous inode (from 6.8 on, commit a7800aa80ea4).
pub(crate) fn looks_like_guest_memfd(link: &[u8]) -> bool {
    GUEST_MEMFD_LINKS.contains(&link)
}

/// The kind of a file on that filesystem, by its path in a link. `None`: it cannot be shared.
pub(crate) fn classify(filesystem: Filesystem, path: &[u8]) -> Option<Named<'_>> {
    if let Some(kind) = filesystem.only_kind() {
        let name = if matches!(kind, Kind::Tmpfs | Kind::Hugetlbfs) { path } else { b"" };
        return Some(Named { kind, name });
    }
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    Some(of_kernel_file(filesystem, path.strip_prefix(b"/").unwrap_or(path)))
}

/// The kind of a file that the kernel made for itself on that filesystem, by its name.
pub(crate) fn of_kernel_file(filesystem: Filesystem, name: &[u8]) -> Named<'_> {
    if let Some(name) = name.strip_prefix(b"memfd:") {
        return Named { kind: Kind::Memfd, name };
    }
    if let Some(key) = name.strip_prefix(b"SYSV")
        && key.len() == 8
        && key.iter().all(u8::is_ascii_hexdigit)
    {
        return Named { kind: Kind::Sysv, name: key };
    }
    match (filesystem, name) {
        (Filesystem::Kernel, b"dev/zero") | (Filesystem::KernelHuge, b"anon_hugepage") => {
            Named { kind: Kind::ShmAnon, name: b"" }
        }
        (Filesystem::Kernel, b"drm mm object" | b"i915") => Named { kind: Kind::GemShmem, name },
        _ => match name.strip_prefix(b"dev/ashmem/") {
            Some(name) => Named { kind: Kind::Ashmem, name },
            None => Named { kind: Kind::ShmOther, name },
        },
    }
}

/// A file's path without the ` (deleted)` that the kernel adds. Only a file without a name (no
/// link) has it from the kernel; the name of another file may end in the same way.
pub(crate) fn without_mark(path: &[u8], links: Option<u32>) -> &[u8] {
    if links == Some(0) { path.strip_suffix(DELETED).unwrap_or(path) } else { path }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(filesystem: Filesystem, path: &str) -> (Kind, String) {
        let Named { kind, name } = classify(filesystem, path.as_bytes()).unwrap();
        (kind, String::from_utf8_lossy(name).into_owned())
    }

    /// Check that each name that the kernel gives means its kind, and that the part that a program
    /// chose is kept.
    #[test]
    fn kernel_files() {
        let own = |path| of(Filesystem::Kernel, path);
        assert_eq!(own("/memfd:a b (deleted)"), (Kind::Memfd, "a b".into()));
        assert_eq!(own("/SYSV0000162e (deleted)"), (Kind::Sysv, "0000162e".into()));
        assert_eq!(own("/dev/zero (deleted)"), (Kind::ShmAnon, String::new()));
        assert_eq!(own("/drm mm object (deleted)"), (Kind::GemShmem, "drm mm object".into()));
        assert_eq!(own("/dev/ashmem/x/y (deleted)"), (Kind::Ashmem, "x/y".into()));
        assert_eq!(own("/xfs rtbitmap (deleted)"), (Kind::ShmOther, "xfs rtbitmap".into()));
        assert_eq!(of(Filesystem::KernelHuge, "/anon_hugepage (deleted)"), (Kind::ShmAnon, String::new()));
        assert_eq!(of(Filesystem::KernelHuge, "/memfd:h (deleted)"), (Kind::Memfd, "h".into()));
    }

    /// Check that on a mounted tmpfs no name means another kind.
    #[test]
    fn names_on_a_mounted_tmpfs() {
        for path in ["/memfd:x (deleted)", "/SYSV00000000", "/dev/zero (deleted)", "/dmabuf:x"] {
            assert_eq!(of(Filesystem::Tmpfs, path).0, Kind::Tmpfs);
        }
        let path = b"/dev/shm/x (deleted)";
        assert_eq!(without_mark(path, Some(0)), b"/dev/shm/x");
        assert_eq!((without_mark(path, Some(1)), without_mark(path, None)), (&path[..], &path[..]));
    }

    /// Check that no name of a memfd makes it a segment, and that a name may end as a deleted
    /// file's path does.
    #[test]
    fn names_stay_names() {
        assert_eq!(of(Filesystem::Kernel, "/memfd:SYSV00000000 (deleted)").0, Kind::Memfd);
        assert_eq!(
            of(Filesystem::Kernel, "/memfd:x (deleted) (deleted)"),
            (Kind::Memfd, "x (deleted)".into())
        );
    }

    proptest! {
        /// Check that a memfd with any name is a memfd with that name.
        #[test]
        fn any_memfd(name in proptest::collection::vec(1u8.., 0..60)) {
            let path = [b"/memfd:", &name[..], DELETED].concat();
            prop_assert_eq!(classify(Filesystem::Kernel, &path), Some(Named { kind: Kind::Memfd, name: &name[..] }));
            prop_assert!(looks_like_kernel_file(&path));
        }

        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(path in proptest::collection::vec(any::<u8>(), 0..60)) {
            for filesystem in [Filesystem::Kernel, Filesystem::KernelHuge, Filesystem::Tmpfs, Filesystem::Hugetlbfs, Filesystem::Secret, Filesystem::Guest] {
                let _ = classify(filesystem, &path);
            }
        }
    }
}
