//! Files in memory that nobody holds: they have a name in a tmpfs or hugetlbfs, no process has them
//! open or mapped, and they stay until somebody removes them.
//!
//! There may be a million, so a list keeps each as some thirty bytes ([`UnheldList`]) and unpacks
//! one when it is asked for ([`UnheldFile`]).
//!
//! Limits: a list has at most 4 GiB of packed files. What does not fit is left out, and the list
//! says so.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Buffer, BufferId, Bytes, Dev, Inode, Kind, Kinds, Label, Payers, Residual};

/// A file that nobody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnheldFile {
    /// Which file it is.
    pub id: BufferId,
    /// Its path. Root can use it: if only other mount namespaces show the filesystem, it begins
    /// with `/proc/PID/root` of a process that sees it. If only a mount namespace without a process
    /// shows it, it begins with the command that enters that, `(nsenter --mount=PATH)`. If no mount
    /// shows it, it begins with `(unreachable)`.
    pub path: Label,
    /// Its length.
    pub size: Bytes,
    /// Bytes charged for it.
    pub charged: Bytes,
    /// The part of `charged` that is in swap. `None`: unknown.
    pub swapped: Option<Bytes>,
    /// The size of its pages, if they are huge.
    pub huge_page: Option<Bytes>,
    /// User id of its owner.
    pub owner: u32,
    /// When it was made, to the second. `None`: the filesystem does not keep that.
    pub created_at: Option<SystemTime>,
    /// Whether it has lost its name. Then only something in the kernel keeps it: a fanotify or
    /// inotify mark, or a Landlock rule.
    pub deleted: bool,
    /// Whether no process can hold it. Otherwise a process that was not seen may.
    pub proven: bool,
    /// As [`Buffer::payers`].
    pub payers: Option<Box<Payers>>,
}

impl UnheldFile {
    /// The same as a buffer without holders.
    #[must_use]
    pub fn to_buffer(&self) -> Buffer {
        let mut buffer = Buffer::new(self.id);
        buffer.size = Some(self.size);
        buffer.charged = Some(self.charged);
        buffer.swapped = self.swapped;
        buffer.huge_page = self.huge_page;
        buffer.deleted = Some(self.deleted);
        buffer.name = Some(self.path.clone());
        buffer.created_at = self.created_at;
        buffer.creator_uid = Some(self.owner);
        buffer.payers.clone_from(&self.payers);
        if self.proven {
            buffer.count = Some(0);
            buffer.residual = Residual::Exact(0);
            (buffer.exe, buffer.in_flight, buffer.io_uring) = (Some(0), Some(0), Some(0));
        }
        buffer
    }
}

/// A folder that has such files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UnheldFolder {
    pub(crate) kind: Kind,
    pub(crate) dev: Dev,
    pub(crate) huge_page: Option<Bytes>,
    /// Its path, without a slash at the end.
    pub(crate) path: Box<[u8]>,
}

/// What is packed of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackedFile<'n> {
    pub(crate) name: &'n [u8],
    pub(crate) ino: Inode,
    pub(crate) size: Bytes,
    pub(crate) charged: Bytes,
    /// In pages.
    pub(crate) swapped: Option<u64>,
    pub(crate) owner: u32,
    pub(crate) created_at: Option<SystemTime>,
    pub(crate) deleted: bool,
}

/// The files that nobody holds, those with the highest cost first.
#[derive(Clone, Debug, Default)]
pub struct UnheldList {
    folders: Vec<UnheldFolder>,
    files: Vec<u8>,
    /// Where each file begins in `files`.
    starts: Vec<u32>,
    proven: bool,
    gaps: UnheldGaps,
    /// Who pays for them, if that was asked.
    payers: HashMap<BufferId, Box<Payers>>,
}

/// What may be missing from a list of files that nobody holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnheldGaps {
    /// Filesystems that could not be reached.
    pub filesystems: u64,
    /// Folders that could not be read.
    pub folders: u64,
    /// Files and folders of such a filesystem that something else is mounted over, so that what is
    /// below was not seen.
    pub hidden: u64,
    /// Processes that did not let their mounts be read. A filesystem that only they see is missing.
    pub processes: u64,
    /// Mount namespaces without a process that could not be entered.
    pub namespaces: u64,
    /// Files were left out, because the kernel's lists changed too often, or because there are too
    /// many.
    pub cut: bool,
}

impl UnheldList {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Whether no process can hold one of them. Otherwise a process that was not seen may.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// What may be missing.
    #[must_use]
    pub fn gaps(&self) -> UnheldGaps {
        self.gaps
    }

    /// One of them. `None`: there are not so many.
    #[must_use]
    pub fn get(&self, nth: usize) -> Option<UnheldFile> {
        let (folder, file) = self.packed(nth)?;
        let page = rustix::param::page_size() as u64;
        let path = [&folder.path[..], file.name].join(&b'/');
        Some(UnheldFile {
            id: BufferId::new(folder.kind, Some(folder.dev), file.ino),
            path: Label::from(&path[..]),
            size: file.size,
            charged: file.charged,
            swapped: file.swapped.map(|pages| Bytes(pages.saturating_mul(page))),
            huge_page: folder.huge_page,
            owner: file.owner,
            created_at: file.created_at,
            deleted: file.deleted,
            proven: self.proven,
            payers: self.payers.get(&BufferId::new(folder.kind, Some(folder.dev), file.ino)).cloned(),
        })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = UnheldFile> {
        (0..self.len()).filter_map(|nth| self.get(nth))
    }

    /// What they cost together, at most 2^64 - 1.
    #[must_use]
    pub fn charged(&self) -> Bytes {
        let charged = (0..self.len()).filter_map(|nth| self.packed(nth)).map(|(_, file)| file.charged);
        Bytes::at_least(charged.map(Some))
    }

    /// Adds who pays for each file, by its identity, the size of its huge pages, and its charge.
    pub(crate) fn set_payers(&mut self, of: impl Fn(BufferId, Option<Bytes>, Bytes) -> Option<Payers>) {
        let files = (0..self.len()).filter_map(|nth| self.packed(nth));
        let payers = files.filter_map(|(folder, file)| {
            let id = BufferId::new(folder.kind, Some(folder.dev), file.ino);
            Some((id, Box::new(of(id, folder.huge_page, file.charged)?)))
        });
        self.payers = payers.collect();
    }

    /// Leaves out the files of other kinds, and those that are among these buffers.
    pub(crate) fn leave_out(&mut self, kinds: Kinds, held: &[Buffer]) {
        let held: HashSet<BufferId> = held.iter().map(|buffer| buffer.id).collect();
        let mut starts = std::mem::take(&mut self.starts);
        starts.retain(|&start| {
            let id = |(folder, file): (&UnheldFolder, PackedFile<'_>)| {
                BufferId::new(folder.kind, Some(folder.dev), file.ino)
            };
            self.at(start).map(id).is_some_and(|id| kinds.has(id.kind) && !held.contains(&id))
        });
        self.starts = starts;
    }

    fn packed(&self, nth: usize) -> Option<(&UnheldFolder, PackedFile<'_>)> {
        self.at(*self.starts.get(nth)?)
    }

    fn at(&self, start: u32) -> Option<(&UnheldFolder, PackedFile<'_>)> {
        let mut rest = Unpacked(self.files.get(start as usize..)?);
        let folder = self.folders.get(usize::try_from(rest.number()?).ok()?)?;
        Some((folder, rest.file()?))
    }
}

/// A list that is being made.
#[derive(Debug, Default)]
pub(crate) struct UnheldBuilder {
    list: UnheldList,
    numbers: HashMap<UnheldFolder, u32>,
    /// What may be missing from the list.
    pub(crate) gaps: UnheldGaps,
    /// Whether the same file may have been added twice.
    repeated: bool,
}

impl UnheldBuilder {
    /// The number of a folder.
    pub(crate) fn folder(&mut self, folder: UnheldFolder) -> u32 {
        let next = u32::try_from(self.list.folders.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(folder).or_insert_with_key(|folder| {
            self.list.folders.push(folder.clone());
            next
        })
    }

    /// Adds a file of a folder.
    pub(crate) fn add(&mut self, folder: u32, file: &PackedFile<'_>) {
        match u32::try_from(self.list.files.len()) {
            Ok(start) => {
                self.list.starts.push(start);
                pack(&mut self.list.files, folder, file);
            }
            Err(_) => self.gaps.cut = true,
        }
    }

    /// Says that the same file may have been added twice.
    pub(crate) fn repeated(&mut self) {
        self.repeated = true;
    }

    /// The list. The path of each folder is replaced by what `path` makes of it. `proven`: no
    /// process can hold one of the files.
    pub(crate) fn finish(self, proven: bool, mut path: impl FnMut(&UnheldFolder) -> Box<[u8]>) -> UnheldList {
        let UnheldBuilder { mut list, numbers, gaps, repeated } = self;
        drop(numbers);
        list.files.shrink_to_fit();
        let mut once = HashSet::new();
        // Of a file that was added twice, the newer description stays.
        let mut wanted = |list: &UnheldList, nth: usize| {
            list.packed(nth).is_some_and(|(folder, file)| !repeated || once.insert((folder.dev, file.ino)))
        };
        let mut order: Vec<(Reverse<u64>, u32)> = Vec::with_capacity(list.len());
        for nth in (0..list.len()).rev() {
            if wanted(&list, nth) {
                let charged = list.packed(nth).map_or(0, |(_, file)| file.charged.0);
                order.push((Reverse(charged), list.starts[nth]));
            }
        }
        order.reverse();
        order.sort_by_key(|&(charged, _)| charged);
        list.starts.clear();
        list.starts.extend(order.iter().map(|&(_, start)| start));
        for folder in &mut list.folders {
            folder.path = path(folder);
        }
        (list.proven, list.gaps) = (proven, gaps);
        list
    }
}

fn pack(to: &mut Vec<u8>, folder: u32, file: &PackedFile<'_>) {
    let created = file.created_at.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let numbers = [
        folder.into(),
        file.ino.0,
        file.size.0,
        file.charged.0,
        file.swapped.map_or(0, |pages| pages.saturating_add(1)),
        file.owner.into(),
        created.map_or(0, |since| since.as_secs().saturating_add(1)),
        file.deleted.into(),
        file.name.len() as u64,
    ];
    for mut number in numbers {
        while number >= 0x80 {
            to.push(number as u8 | 0x80);
            number >>= 7;
        }
        to.push(number as u8);
    }
    to.extend_from_slice(file.name);
}

/// Packed files that have not been read yet.
struct Unpacked<'p>(&'p [u8]);

impl<'p> Unpacked<'p> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn file(&mut self) -> Option<PackedFile<'p>> {
        let (ino, size, charged) = (self.number()?, self.number()?, self.number()?);
        let (swapped, owner, created, deleted) =
            (self.number()?, self.number()?, self.number()?, self.number()?);
        let length = usize::try_from(self.number()?).ok()?;
        Some(PackedFile {
            name: self.0.get(..length)?,
            ino: Inode(ino),
            size: Bytes(size),
            charged: Bytes(charged),
            swapped: swapped.checked_sub(1),
            owner: u32::try_from(owner).ok()?,
            created_at: created
                .checked_sub(1)
                .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))),
            deleted: deleted != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dev(minor: u32) -> Dev {
        Dev { major: 0, minor }
    }

    fn folder(path: &str) -> UnheldFolder {
        UnheldFolder { kind: Kind::Tmpfs, dev: dev(27), huge_page: None, path: path.as_bytes().into() }
    }

    fn file(name: &[u8], ino: u64, charged: u64) -> PackedFile<'_> {
        PackedFile {
            name,
            ino: Inode(ino),
            size: Bytes(charged),
            charged: Bytes(charged),
            swapped: None,
            owner: 1000,
            created_at: None,
            deleted: false,
        }
    }

    fn finish(builder: UnheldBuilder) -> UnheldList {
        builder.finish(true, |folder| folder.path.clone())
    }

    fn paths(list: &UnheldList) -> Vec<String> {
        list.iter().map(|file| file.path.to_string()).collect()
    }

    /// Check that the files with the highest cost come first, others in the order in which they
    /// were added, each with the path of its folder.
    #[test]
    fn highest_cost_first() {
        let mut builder = UnheldBuilder::default();
        let [a, b] = ["/a", "/b"].map(|path| builder.folder(folder(path)));
        assert_eq!(builder.folder(folder("/a")), a);
        for (folder, name, charged) in [(a, "x", 1), (b, "y", 9), (a, "z", 1)] {
            builder.add(folder, &file(name.as_bytes(), charged, charged));
        }
        let list = finish(builder);
        assert_eq!(paths(&list), ["/b/y", "/a/x", "/a/z"]);
        assert_eq!(list.charged(), Bytes(11));
    }

    /// Check that of a file that was added twice only the newer description stays.
    #[test]
    fn added_twice() {
        let mut builder = UnheldBuilder::default();
        let a = builder.folder(folder("/a"));
        builder.add(a, &file(b"old", 5, 1));
        builder.add(a, &file(b"new", 5, 2));
        builder.add(a, &file(b"other", 6, 1));
        builder.repeated();
        assert_eq!(paths(&finish(builder)), ["/a/new", "/a/other"]);
    }

    /// Check that a file that is held is left out, and that the folder's path is replaced.
    #[test]
    fn held_files_are_left_out() {
        let mut builder = UnheldBuilder::default();
        let a = builder.folder(folder("/a"));
        builder.add(a, &file(b"x", 5, 1));
        builder.add(a, &file(b"y", 6, 1));
        let mut list = builder.finish(false, |_| b"/mnt/a".as_slice().into());
        list.leave_out(Kinds::ALL, &[Buffer::new(BufferId::new(Kind::Tmpfs, Some(dev(27)), Inode(5)))]);
        assert_eq!(paths(&list), ["/mnt/a/y"]);
        assert!(!list.is_proven() && list.iter().all(|file| !file.proven));
    }

    proptest! {
        /// Check that what was packed comes back.
        #[test]
        fn round_trip(
            name in proptest::collection::vec(1u8.., 0..300),
            (ino, size, charged) in (any::<u64>(), any::<u64>(), any::<u64>()),
            swapped in proptest::option::of(0u64..u64::MAX),
            owner: u32,
            created in proptest::option::of(0u64..1 << 40),
            deleted: bool,
        ) {
            let created_at = created.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            let packed = PackedFile {
                name: &name,
                ino: Inode(ino),
                size: Bytes(size),
                charged: Bytes(charged),
                swapped,
                owner,
                created_at,
                deleted,
            };
            let mut builder = UnheldBuilder::default();
            let at = builder.folder(folder("/a"));
            builder.add(at, &file(b"first", 1, u64::MAX));
            builder.add(at, &packed);
            let list = finish(builder);
            let found = (0..2).filter_map(|nth| list.packed(nth)).any(|(_, file)| file == packed);
            prop_assert!(found);
        }

        /// Check that no bytes make unpacking panic.
        #[test]
        fn any_bytes(files in proptest::collection::vec(any::<u8>(), 0..60), start in 0u32..70) {
            let list = UnheldList {
                folders: vec![folder("/a")],
                files,
                starts: vec![start],
                ..UnheldList::default()
            };
            let _ = list.get(0);
        }
    }
}
