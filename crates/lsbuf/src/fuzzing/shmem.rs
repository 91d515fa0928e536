//! Promises about the parsers for shared memory: segments, mounts, inodes, names, records of BPF
//! iterators, and meminfo.

use crate::kernel::bpf::origins::{self, OriginRow};
use crate::kernel::bpf::record;
use crate::kernel::meminfo::{self, Meminfo};
use crate::kernel::shmem::inode::{self, BLOCK, ShmInode};
use crate::kernel::shmem::mounts::Mounts;
use crate::kernel::shmem::sysvipc::{self, SegmentRow};
use crate::kernel::shmem::{Filesystem, classify};
use crate::model::{Bytes, Kind, Pid};

use super::halves;

/// The table of segments is read back as it was printed.
pub fn segments(data: &[u8]) {
    let Ok(rows) = sysvipc::parse(data) else { return };
    let pid = |pid: Option<Pid>| pid.map_or(0, |pid| pid.0);
    let print = |SegmentRow { ino, size, creator_uid, segment: s }: &SegmentRow| {
        let mode = 0o600 | if s.removed { 0o1000 } else { 0 };
        let (key, creator, last) = (s.key.cast_signed(), pid(s.creator), pid(s.last));
        let (attached, owner, rss, swap) = (s.attached, s.owner, s.rss.0, s.swap.0);
        format!(
            "{key:10} {ino:10}  {mode:4o} {:21} {creator:5} {last:5}  {attached:5} {owner:5} 0 {creator_uid:5} 0 0 0 0 {rss:21} {swap:21}\n",
            size.0
        )
    };
    let printed: String = std::iter::once("heading\n".to_owned()).chain(rows.iter().map(print)).collect();
    assert_eq!(sysvipc::parse(printed.as_bytes()), Ok(rows));
}

/// A table of mounts. A line for another filesystem changes nothing for paths that are not below
/// it.
pub fn mounts(data: &[u8]) {
    let (table, path) = halves(data);
    let before = Mounts::parse(table).may_have(path);
    let more = [table, b"\n9 1 8:1 / /no/such/place rw - ext4 /dev/sda rw\n"].concat();
    if !path.starts_with(b"/no/such/place") {
        assert_eq!(Mounts::parse(&more).may_have(path), before);
    }
}

/// A recorded inode is read back as it was printed.
pub fn shm_inode(data: &[u8]) {
    let Ok(fact) = inode::parse(data) else { return };
    let ShmInode { dev, ino, size, charged, links, huge_page, owner, .. } = fact;
    let page = huge_page.map_or(4096, |page| page.0);
    // A number of bytes that does not fit was reduced to the largest that does.
    if charged.0 % BLOCK == 0 {
        let printed = format!("shmem {dev} {ino} {} {} {links} {page} {owner}", size.0, charged.0 / BLOCK);
        assert_eq!(inode::parse(printed.as_bytes()), Ok(fact));
    }
}

/// A name that a program chose stays a name: of a memfd in any case, and of a file on a mounted
/// tmpfs.
pub fn shm_names(data: &[u8]) {
    let path = [b"/memfd:", data, b" (deleted)"].concat();
    for filesystem in [Filesystem::Kernel, Filesystem::KernelHuge] {
        assert!(
            classify(filesystem, &path).is_some_and(|named| named.kind == Kind::Memfd && named.name == data)
        );
    }
    for (filesystem, kind) in [(Filesystem::Tmpfs, Kind::Tmpfs), (Filesystem::Hugetlbfs, Kind::Hugetlbfs)] {
        assert!(classify(filesystem, data).is_some_and(|named| named.kind == kind));
    }
    let _ = classify(Filesystem::Kernel, data);
}

/// Records of BPF iterators, and those of the flight recorder. What is read from a text is read
/// again, whatever follows it.
pub fn records(data: &[u8]) {
    let origins = |bytes: &[u8]| {
        let mut frames = 0;
        let count = |row: OriginRow<'_>| {
            if let OriginRow::User(stack) = row {
                frames += stack.frames().count();
            }
        };
        origins::rows(bytes, count).map(|taken| (taken, frames))
    };
    if let Ok((taken, frames)) = origins(data) {
        assert_eq!(origins(&data[..taken]), Ok((taken, frames)));
    }
    let count = |bytes: &[u8]| {
        let mut records = 0;
        record::each(bytes, |_| records += 1).map(|taken| (taken, records))
    };
    if let Ok((taken, records)) = count(data) {
        assert_eq!(count(&data[..taken]), Ok((taken, records)));
    }
}

/// The lines of meminfo are read back as they were printed, with other lines between.
pub fn meminfo(data: &[u8]) {
    let Ok(Meminfo { shmem, swap_used, hugetlb }) = meminfo::parse(data) else { return };
    let kilobytes = |bytes: Bytes| bytes.0 / 1024;
    let printed = format!(
        "SwapTotal: {} kB\nMapped: x\nSwapFree: 0 kB\nShmem: {} kB\nHugetlb: {} kB\n",
        kilobytes(swap_used),
        kilobytes(shmem),
        kilobytes(hugetlb)
    );
    assert_eq!(meminfo::parse(printed.as_bytes()), Ok(Meminfo { shmem, swap_used, hugetlb }));
}
