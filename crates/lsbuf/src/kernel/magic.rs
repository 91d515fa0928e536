//! The numbers by which `statfs` and the iterators tell what a filesystem is (include/uapi/linux/magic.h).
//!
//! A filesystem has its number from its code, so no name, path or mount option can claim one.

/// Anonymous inodes: of eventfds, rings, and guests' memory before Linux 7.
pub(crate) const ANON_INODES: i64 = 0x0904_1934;
pub(crate) const BPF: i64 = 0xcafe_4a11;
pub(crate) const DEBUGFS: i64 = 0x6462_6720;
pub(crate) const DMA_BUF: i64 = 0x444d_4142;
/// Of `guest_memfd`, from Linux 7 on.
pub(crate) const GUEST_MEMFD: i64 = 0x474d_454d;
pub(crate) const HUGETLBFS: i64 = 0x9584_58f6;
pub(crate) const PROC: i64 = 0x9fa0;
pub(crate) const RAMFS: i64 = 0x8584_58f6;
pub(crate) const SECRETMEM: i64 = 0x5345_434d;
pub(crate) const TMPFS: i64 = 0x0102_1994;
