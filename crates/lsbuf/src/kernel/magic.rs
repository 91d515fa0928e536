//! Magic numbers of filesystems, as `statfs` and the BPF iterators return them
//! (include/uapi/linux/magic.h).
//!
//! The number is fixed in the filesystem's code. No file name, path or mount option can imitate it.

/// Anonymous inodes: eventfds, io_urings, and guest_memfd before Linux 7.
pub(crate) const ANON_INODES: i64 = 0x0904_1934;
pub(crate) const BPF: i64 = 0xcafe_4a11;
pub(crate) const DEBUGFS: i64 = 0x6462_6720;
pub(crate) const DMA_BUF: i64 = 0x444d_4142;
#[cfg(feature = "symbols")]
pub(crate) const FUSE: i64 = 0x6573_5546;
/// `guest_memfd`, from Linux 7 on.
pub(crate) const GUEST_MEMFD: i64 = 0x474d_454d;
pub(crate) const HUGETLBFS: i64 = 0x9584_58f6;
pub(crate) const PROC: i64 = 0x9fa0;
pub(crate) const RAMFS: i64 = 0x8584_58f6;
pub(crate) const SECRETMEM: i64 = 0x5345_434d;
#[cfg(any(feature = "bpf", feature = "check"))]
pub(crate) const SYSFS: i64 = 0x6265_6572;
pub(crate) const TMPFS: i64 = 0x0102_1994;
