//! Fills in a buffer of shared memory from its inode and from the name that the kernel gave it.
//!
//! Both sources, procfs and the BPF iterators, read inode and name. Both use this code, so that
//! their answers agree.
//!
//! Limits: what an inode does not tell, such as seals, is not filled in here.

use crate::kernel::shmem::inode::ShmInode;
use crate::kernel::shmem::without_mark;
use crate::model::{Buffer, Kind, Label};

use super::segments::key_name;

/// Adds what the inode tells.
pub(super) fn add_inode(buffer: &mut Buffer, inode: &ShmInode) {
    let kind = buffer.id.kind;
    buffer.size = Some(inode.size);
    buffer.charged = Some(inode.charged).filter(|_| kind.is_charged());
    buffer.huge_page = inode.huge_page;
    buffer.deleted = matches!(kind, Kind::Tmpfs | Kind::Hugetlbfs).then_some(inode.links == 0);
    buffer.created_at = inode.created_at;
    buffer.creator_uid = Some(inode.owner);
}

/// The buffer's own name. `name` is what [`classify`](crate::kernel::shmem::classify) took from the
/// path, and `links` is the inode's number of names.
pub(super) fn name_of(kind: Kind, name: &[u8], links: Option<u32>) -> Label {
    match kind {
        Kind::Sysv => key_name(name),
        Kind::Tmpfs | Kind::Hugetlbfs => without_mark(name, links).into(),
        _ => name.into(),
    }
}
