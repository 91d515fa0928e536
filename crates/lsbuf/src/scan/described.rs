//! What an inode of the shmem family and the name that the kernel gave it say of a buffer, by either source.

use crate::kernel::shmem::inode::ShmInode;
use crate::kernel::shmem::without_mark;
use crate::model::{Buffer, Kind, Label};

use super::segments::key_name;

/// Adds what its inode tells of a buffer.
pub(super) fn add_inode(buffer: &mut Buffer, inode: &ShmInode) {
    let kind = buffer.id.kind;
    buffer.size = Some(inode.size);
    buffer.charged = Some(inode.charged).filter(|_| kind.is_charged());
    buffer.huge_page = inode.huge_page;
    buffer.deleted = matches!(kind, Kind::Tmpfs | Kind::Hugetlbfs).then_some(inode.links == 0);
    buffer.created_at = inode.created_at;
    buffer.creator_uid = Some(inode.owner);
}

/// How a buffer is called of which [`classify`](crate::kernel::shmem::classify) has made this name, and whose inode has so
/// many links.
pub(super) fn name_of(kind: Kind, name: &[u8], links: Option<u32>) -> Label {
    match kind {
        Kind::Sysv => key_name(name),
        Kind::Tmpfs | Kind::Hugetlbfs => without_mark(name, links).into(),
        _ => name.into(),
    }
}
