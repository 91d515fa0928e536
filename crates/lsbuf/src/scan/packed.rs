//! The references of a reading, packed: there may be a million of them.
//!
//! An fd takes 16 bytes and a mapping 40. A source adds them in any order. `assemble` sorts them by
//! object, takes them from the end and gives the memory back on the way, so that it never has all
//! references twice.
//!
//! Limits: objects, tables and address spaces are numbered with 32 bits. 2^32 objects would take
//! more than a terabyte of memory. There are no more tables and address spaces than tasks, and
//! Linux has at most 2^22 of these (`PID_MAX_LIMIT`).

use super::reading::{FdRef, Mapping};
use crate::model::{Fd, MapRef, Perms};

/// Entries of fd tables.
#[derive(Debug, Default)]
pub(super) struct FdRefs(Vec<PackedFd>);

/// VMAs.
#[derive(Debug, Default)]
pub(super) struct Mappings(Vec<PackedMapping>);

/// An [`FdRef`].
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedFd {
    object: u32,
    table: u32,
    pub(super) fd: Fd,
    pub(super) path_only: bool,
}

/// A [`Mapping`].
#[derive(Clone, Copy, Debug)]
pub(super) struct PackedMapping {
    start: u64,
    end: u64,
    /// 0 if `has_offset` is false.
    offset: u64,
    object: u32,
    space: u32,
    perms: Option<Perms>,
    has_offset: bool,
}

/// A reference to one of a reading's objects, from one of its tables or address spaces.
pub(super) trait PackedRef: Copy {
    /// The order in which references are joined: by object, by table or address space, and by fd
    /// number or address. Two with the same key are one reference.
    fn key(&self) -> u128;

    /// An index into [`Reading::objects`](super::reading::Reading::objects).
    fn object(&self) -> usize {
        (self.key() >> 96) as usize
    }

    /// An index into [`Reading::tables`](super::reading::Reading::tables) or
    /// [`Reading::spaces`](super::reading::Reading::spaces).
    fn owners(&self) -> usize {
        (self.key() >> 64) as u32 as usize
    }
}

fn key(object: u32, owners: u32, place: u64) -> u128 {
    u128::from(object) << 96 | u128::from(owners) << 64 | u128::from(place)
}

impl PackedRef for PackedFd {
    fn key(&self) -> u128 {
        key(self.object, self.table, self.fd.0.into())
    }
}

impl PackedRef for PackedMapping {
    fn key(&self) -> u128 {
        key(self.object, self.space, self.start)
    }
}

impl PackedMapping {
    pub(super) fn map(&self) -> MapRef {
        let PackedMapping { start, end, perms, .. } = *self;
        MapRef { start, end, offset: self.has_offset.then_some(self.offset), perms }
    }
}

/// A number of an object, table or address space.
fn number(index: usize) -> u32 {
    let number = u32::try_from(index);
    assert!(number.is_ok(), "there are fewer than 2^32 objects, tables and address spaces");
    number.unwrap_or_default()
}

impl PackedFd {
    fn of(entry: FdRef) -> PackedFd {
        let FdRef { object, table, fd, path_only } = entry;
        PackedFd { object: number(object), table: number(table), fd, path_only }
    }
}

impl FdRefs {
    /// Makes entries of a list. If its elements are as large, the entries take their place.
    pub(super) fn of_list<T>(list: Vec<T>, mut entry: impl FnMut(T) -> Option<FdRef>) -> FdRefs {
        FdRefs(list.into_iter().filter_map(|one| entry(one).map(PackedFd::of)).collect())
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, entry: FdRef) {
        self.0.push(PackedFd::of(entry));
    }

    /// The entries in their order, each once. They refer to so many objects.
    pub(super) fn sorted(self, objects: usize) -> Sorted<PackedFd> {
        Sorted::of(self.0, objects)
    }
}

impl Mappings {
    /// Adds a VMA.
    pub(super) fn push(&mut self, mapping: Mapping) {
        let Mapping { object, space, map: MapRef { start, end, offset, perms } } = mapping;
        let (object, space) = (number(object), number(space));
        let (offset, has_offset) = (offset.unwrap_or(0), offset.is_some());
        self.0.push(PackedMapping { start, end, offset, object, space, perms, has_offset });
    }

    /// The VMAs in their order, each once. They refer to so many objects.
    pub(super) fn sorted(self, objects: usize) -> Sorted<PackedMapping> {
        Sorted::of(self.0, objects)
    }
}

impl FromIterator<FdRef> for FdRefs {
    fn from_iter<I: IntoIterator<Item = FdRef>>(entries: I) -> FdRefs {
        let mut fds = FdRefs::default();
        entries.into_iter().for_each(|entry| fds.push(entry));
        fds
    }
}

/// References in the order of their keys, from which those of the last object are taken.
#[derive(Debug)]
pub(super) struct Sorted<T>(Vec<T>);

impl<T: PackedRef> Sorted<T> {
    /// Sources go from table to table and from mapping to mapping, so the references to one object
    /// usually are in order already. Then it is enough to gather those of each object.
    fn of(refs: Vec<T>, objects: usize) -> Sorted<T> {
        let Some(&first) = refs.first() else { return Sorted(refs) };
        let mut next = vec![0; objects + 1];
        refs.iter().for_each(|one| next[one.object() + 1] += 1);
        for object in 1..next.len() {
            next[object] += next[object - 1];
        }
        let mut gathered = vec![first; refs.len()];
        for one in refs {
            let at = &mut next[one.object()];
            gathered[*at] = one;
            *at += 1;
        }
        let of_each = gathered.chunk_by_mut(|a, b| a.object() == b.object());
        for refs in of_each.filter(|refs| !refs.is_sorted_by_key(T::key)) {
            refs.sort_unstable_by_key(T::key);
        }
        gathered.dedup_by_key(|one| one.key());
        Sorted(gathered)
    }

    /// The references to that object, if those to all later objects were dropped.
    pub(super) fn last(&self, object: usize) -> &[T] {
        let from = self.0.iter().rposition(|one| one.object() < object).map_or(0, |before| before + 1);
        &self.0[from..]
    }

    /// Drops as many from the end.
    pub(super) fn drop_last(&mut self, number: usize) {
        self.0.truncate(self.0.len() - number);
        give_back(&mut self.0);
    }
}

/// Frees the memory of a list of which a quarter has been used up.
pub(super) fn give_back<T>(list: &mut Vec<T>) {
    /// A list of so few entries is not worth it.
    const FEW: usize = 1024;
    if list.capacity() > FEW && list.len() < list.capacity() / 4 * 3 {
        list.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that an fd takes 16 bytes and a mapping 40.
    #[test]
    fn sizes() {
        assert_eq!((size_of::<PackedFd>(), size_of::<PackedMapping>()), (16, 40));
    }

    /// Check that a mapping comes back as it was, with and without an offset.
    #[test]
    fn mappings_come_back() {
        for (offset, perms) in [(None, None), (Some(0), Perms::parse(b"rw-s")), (Some(u64::MAX), None)] {
            let map = MapRef { start: 1 << 63, end: u64::MAX, offset, perms };
            let mut maps = Mappings::default();
            maps.push(Mapping { object: 7, space: 9, map });
            let sorted = maps.sorted(8);
            let found: Vec<_> =
                sorted.last(7).iter().map(|one| (one.object(), one.owners(), one.map())).collect();
            assert_eq!(found, [(7, 9, map)]);
        }
    }

    /// Check that the references of each object are taken from the end, each once, in order.
    #[test]
    fn taken_from_the_end() {
        let fd = |object, fd| FdRef { object, table: 0, fd: Fd(fd), path_only: false };
        let fds: FdRefs = [fd(2, 1), fd(0, 5), fd(2, 0), fd(0, 5)].into_iter().collect();
        let mut sorted = fds.sorted(3);
        let mut taken = Vec::new();
        for object in (0..3).rev() {
            let fds: Vec<u32> = sorted.last(object).iter().map(|one| one.fd.0).collect();
            sorted.drop_last(fds.len());
            taken.push(fds);
        }
        assert_eq!(taken, [vec![0, 1], vec![], vec![5]]);
    }
}
