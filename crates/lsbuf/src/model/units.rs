//! Types for plain numbers: sizes, pids, fds, inode and device numbers. Each has a type of its own,
//! so that a pid cannot be taken for an inode number.
//!
//! Limits: the types do not check their values; the parsers do.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use bytesize::ByteSize;

/// A size in bytes.
///
/// `+` and `sum` stop at the largest size instead of panicking. That is no total: any user can make
/// three memfds of 2^63 - 1 bytes each. Totals are made by [`Bytes::total`], which says when it
/// cannot tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// What sizes come to together; `None` if one is unknown, or if the total does not fit into 64
    /// bits.
    ///
    /// ```
    /// use lsbuf::model::Bytes;
    /// assert_eq!(Bytes::total([Some(Bytes(4096)), Some(Bytes(1))]), Some(Bytes(4097)));
    /// assert_eq!(Bytes::total([Some(Bytes(4096)), None]), None);
    /// assert_eq!(Bytes::total([Some(Bytes(u64::MAX)), Some(Bytes(1))]), None);
    /// ```
    #[must_use]
    pub fn total(sizes: impl IntoIterator<Item = Option<Bytes>>) -> Option<Bytes> {
        sizes.into_iter().try_fold(Bytes(0), |sum, size| sum.checked_add(size?))
    }

    /// What the known ones among sizes come to together, or the largest size if that is more.
    #[must_use]
    pub fn at_least(sizes: impl IntoIterator<Item = Option<Bytes>>) -> Bytes {
        sizes.into_iter().flatten().sum()
    }

    /// The sum; `None` if it does not fit into 64 bits.
    #[must_use]
    pub fn checked_add(self, other: Bytes) -> Option<Bytes> {
        self.0.checked_add(other.0).map(Bytes)
    }
}

/// As people read it, in powers of 1024: `8.0M`. The number itself is in the field.
///
/// ```
/// use lsbuf::model::Bytes;
/// assert_eq!(Bytes(8 << 20).to_string(), "8.0M");
/// assert_eq!(format!("{:>6}", Bytes(512)), "  512B");
/// ```
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&ByteSize::b(self.0).display().iec_short().to_string())
    }
}

impl Add for Bytes {
    type Output = Bytes;

    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(sizes: I) -> Bytes {
        sizes.fold(Bytes(0), Add::add)
    }
}

/// A process id (the kernel's tgid) as the procfs that was read numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(pub u32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A thread's id as the procfs that was read numbers it; the leader's equals the [`Pid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub u32);

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A slot in an fd table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub u32);

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An inode number. 64 bits wide since Linux 7.1; before, an unsigned long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode(pub u64);

impl fmt::Display for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A device number: which filesystem an inode number belongs to. Prints as `MAJOR:MINOR` in
/// decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dev {
    /// 0 for every filesystem without a block device, dma-bufs among them.
    pub major: u32,
    /// Chosen by the kernel at boot; differs from boot to boot.
    pub minor: u32,
}

impl fmt::Display for Dev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// How many of something, in words.
///
/// ```
/// assert_eq!(lsbuf::model::counted(1, "process", "processes"), "1 process");
/// assert_eq!(lsbuf::model::counted(0, "process", "processes"), "0 processes");
/// ```
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a sum past 64 bits stops at the largest size instead of wrapping to a small one.
    #[test]
    fn sums_saturate() {
        let sum: Bytes = [Bytes(u64::MAX), Bytes(2)].into_iter().sum();
        assert_eq!(sum, Bytes(u64::MAX));
    }
}
