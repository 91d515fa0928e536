//! Lists that take little memory where they are short.
//!
//! A machine may have a million references, and almost every holder has one fd or one mapping of a
//! buffer. A `Vec` would take 24 bytes for each list and an allocation for each that is not empty.
//!
//! The lists are read as slices. They are made from a `Vec` or by `collect`, and do not grow.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use super::Fd;

/// Slots of an fd table. It takes two words, and for one slot no allocation.
///
/// ```
/// use lsbuf::model::{Fd, FdList};
/// let fds = FdList::from(vec![Fd(3), Fd(7)]);
/// assert!(fds.contains(&Fd(7)));
/// ```
#[derive(Clone)]
pub struct FdList(Slots);

#[derive(Clone)]
enum Slots {
    One(Fd),
    Many(Box<[Fd]>),
}

/// A list that is empty most of the time, or has one entry. It takes one word, and for entries an
/// allocation.
///
/// ```
/// use lsbuf::model::ShortList;
/// let list: ShortList<u64> = [4, 7].into_iter().collect();
/// assert_eq!((list.len(), list.first()), (2, Some(&4)));
/// ```
#[derive(Clone)]
pub struct ShortList<T>(Option<Box<Entries<T>>>);

#[derive(Clone)]
enum Entries<T> {
    One(T),
    Many(Box<[T]>),
}

impl FdList {
    /// The slots.
    #[must_use]
    pub fn as_slice(&self) -> &[Fd] {
        match &self.0 {
            Slots::One(fd) => std::slice::from_ref(fd),
            Slots::Many(fds) => fds,
        }
    }
}

impl FromIterator<Fd> for FdList {
    fn from_iter<I: IntoIterator<Item = Fd>>(fds: I) -> FdList {
        let mut fds = fds.into_iter();
        FdList(match (fds.next(), fds.next()) {
            (Some(first), Some(second)) => Slots::Many([first, second].into_iter().chain(fds).collect()),
            (Some(one), None) => Slots::One(one),
            (None, _) => Slots::Many(Box::default()),
        })
    }
}

impl<T> ShortList<T> {
    /// The entries.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match self.0.as_deref() {
            None => &[],
            Some(Entries::One(one)) => std::slice::from_ref(one),
            Some(Entries::Many(entries)) => entries,
        }
    }
}

impl<T> FromIterator<T> for ShortList<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> ShortList<T> {
        let mut entries = entries.into_iter();
        ShortList(match (entries.next(), entries.next()) {
            (Some(first), Some(second)) => {
                Some(Box::new(Entries::Many([first, second].into_iter().chain(entries).collect())))
            }
            (Some(one), None) => Some(Box::new(Entries::One(one))),
            (None, _) => None,
        })
    }
}

/// Lets a list be read, compared and made as a `Vec` is.
macro_rules! as_a_slice {
    ($list:ty, $item:ty $(, $any:ident: $equal:path, $hashed:path, $shown:path)?) => {
        impl$(<$any>)? Deref for $list {
            type Target = [$item];

            fn deref(&self) -> &[$item] {
                self.as_slice()
            }
        }

        impl$(<$any>)? Default for $list {
            fn default() -> Self {
                std::iter::empty().collect()
            }
        }

        impl$(<$any>)? From<Vec<$item>> for $list {
            fn from(items: Vec<$item>) -> Self {
                items.into_iter().collect()
            }
        }

        impl<'a $(, $any)?> IntoIterator for &'a $list {
            type Item = &'a $item;
            type IntoIter = std::slice::Iter<'a, $item>;

            fn into_iter(self) -> Self::IntoIter {
                self.iter()
            }
        }

        impl$(<$any: $equal>)? PartialEq for $list {
            fn eq(&self, other: &Self) -> bool {
                self.as_slice() == other.as_slice()
            }
        }

        impl$(<$any: Eq + $equal>)? Eq for $list {}

        impl$(<$any: $equal>)? PartialEq<Vec<$item>> for $list {
            fn eq(&self, other: &Vec<$item>) -> bool {
                self.as_slice() == other.as_slice()
            }
        }

        impl<$($any: $equal,)? const N: usize> PartialEq<[$item; N]> for $list {
            fn eq(&self, other: &[$item; N]) -> bool {
                self.as_slice() == other
            }
        }

        impl$(<$any: $hashed>)? Hash for $list {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_slice().hash(state);
            }
        }

        impl$(<$any: $shown>)? fmt::Debug for $list {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.as_slice().fmt(f)
            }
        }
    };
}

as_a_slice!(FdList, Fd);
as_a_slice!(ShortList<T>, T, T: PartialEq, Hash, fmt::Debug);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that a list of fds takes two words, and any other list one.
    #[test]
    fn sizes() {
        assert_eq!(size_of::<FdList>(), 2 * size_of::<usize>());
        assert_eq!(size_of::<ShortList<[u64; 5]>>(), size_of::<usize>());
    }

    proptest! {
        /// Check that both lists have what they were made from, in its order, and are equal if that
        /// is.
        #[test]
        fn items_in_items_out(a in prop::collection::vec(0..4u32, 0..5), b in prop::collection::vec(0..4u32, 0..5)) {
            let numbered = |numbers: &[u32]| numbers.iter().copied().map(Fd).collect::<FdList>();
            let (fds, others) = (numbered(&a), numbered(&b));
            prop_assert_eq!(fds.iter().map(|fd| fd.0).collect::<Vec<_>>(), a.as_slice());
            prop_assert_eq!(fds == others, a == b);
            let (list, other) = (ShortList::from(a.clone()), ShortList::from(b.clone()));
            prop_assert_eq!(list.as_slice(), a.as_slice());
            prop_assert_eq!(list == other, a == b);
        }
    }
}
