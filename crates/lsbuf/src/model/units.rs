//! The bare numbers of the field, each with a type of its own so that a pid cannot be taken for an
//! inode nor a count for a size.
//!
//! Limits: these carry no checks beyond their width; whoever parses text makes them.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

/// A size in bytes.
///
/// Sums saturate: no real machine exports 16 EiB, and a forged recorded tree must not panic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

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

/// A device number: which filesystem an inode number belongs to. Prints as `MAJOR:MINOR` in decimal.
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
