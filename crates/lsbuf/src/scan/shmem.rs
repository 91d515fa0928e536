//! The shmem family of one walk, made into one [`Buffer`] each, with the kernel's own tables of System V segments.
//!
//! procfs counts no references of a shmem file, so `count` stays unknown but for segments, of which the kernel counts the
//! attachments. What nobody holds procfs does not show, again but for segments.

use std::collections::BTreeMap;

use super::join::{count_once, sorted};
use super::shared::Shared;
use super::walk::Walk;
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::inode::ShmInode;
use crate::kernel::shmem::sysvipc::{self, Namespaces, Row};
use crate::kernel::shmem::{Family, Object, without_mark};
use crate::model::{
    Buffer, BufferId, Bytes, Coverage, Holder, IpcNamespace, Kind, Kinds, Label, Note, Pid, Segment, Source,
};

/// The buffers that a walk found, ordered by identity.
pub(super) fn join(walk: &Walk, family: &Family, shared: &Shared) -> Vec<Buffer> {
    let mut holders: BTreeMap<BufferId, BTreeMap<Pid, Holder>> = BTreeMap::new();
    fn holder(of_one: &mut BTreeMap<Pid, Holder>, pid: Pid) -> &mut Holder {
        of_one.entry(pid).or_insert_with(|| Holder::new(pid))
    }
    for held in &walk.shm_fds {
        let of_one = holders.entry(held.fact.id).or_default();
        holder(of_one, held.pid).add(held.thread, held.fact.fd, held.fact.path_only);
    }
    for held in &walk.shm_maps {
        holder(holders.entry(held.fact.id).or_default(), held.pid).maps.push(held.fact.vma);
    }
    let nothing = Object::default();
    let buffer = |(id, holders): (BufferId, BTreeMap<Pid, Holder>)| {
        let mut buffer = described(id, family.objects.get(&id).unwrap_or(&nothing));
        buffer.holders = holders.into_values().map(sorted).collect();
        buffer.uncompared = buffer.holders.iter().any(|h| shared.uncompared.contains(&h.pid));
        count_once(&mut buffer.holders, shared);
        buffer
    };
    holders.into_iter().map(buffer).collect()
}

/// A buffer without its holders.
fn described(id: BufferId, object: &Object) -> Buffer {
    let mut buffer = Buffer::new(id);
    let links = object.inode.as_ref().map(|inode| inode.links);
    buffer.name = object.name.as_ref().map(|name| name_of(id.kind, name.as_bytes(), links));
    if let Some(inode) = &object.inode {
        add_inode(&mut buffer, inode);
    }
    buffer
}

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

/// Adds what the kernel's tables tell of these namespaces, each with one of its processes: of segments that were found, and
/// those that nobody has attached. For how many namespaces there is no table is noted.
///
/// A process may have left the namespace of a segment that it has attached; then the table of the one that it is in has
/// another segment under that number, or none. Key and size tell them apart, and the namespace of what is attached is then
/// unknown; of two that are alike in both procfs takes one for the other, where BPF iterators see each attachment's own
/// namespace. A namespace that only a thread is in, or only an fd keeps, is not asked.
pub(super) fn add_segments(
    buffers: &mut Vec<Buffer>,
    namespaces: &Namespaces,
    root: &ProcRoot,
    coverage: &mut Coverage,
) {
    let live = namespaces.tables(root).into_iter().map(|(namespace, table)| (Some(namespace), table));
    let mut tables: Vec<_> = live.collect();
    if !root.is_live() {
        tables.push((None, sysvipc::rows(root.dir())));
    }
    let mut unread = 0;
    for (namespace, table) in tables {
        match table {
            Ok(rows) => rows.into_iter().for_each(|row| add_segment(buffers, namespace, row)),
            Err(_) => unread += 1,
        }
    }
    buffers.sort_by_key(|buffer| buffer.id);
    coverage.sources.push(Source::Sysvipc);
    coverage.notes.extend((unread > 0).then_some(Note::NoSegments { namespaces: unread }));
}

fn add_segment(buffers: &mut Vec<Buffer>, ipc: Option<IpcNamespace>, row: Row) {
    let Row { ino, size, creator_uid, segment } = row;
    let name = key_name(format!("{:08x}", segment.key).as_bytes());
    let is_it = |b: &Buffer| b.id.kind == Kind::Sysv && b.id.ino == ino && b.id.ipc == ipc;
    let stranger = |path_key: &Label| *path_key != name && !segment.removed;
    let is_another = |b: &Buffer| {
        b.size.is_some_and(|known| known != size) && b.huge_page.is_none()
            || b.name.as_ref().is_some_and(stranger)
    };
    let at = match buffers.iter().position(is_it) {
        Some(at) if !is_another(&buffers[at]) => at,
        Some(_) if ipc.is_none() => return,
        found => {
            // What is attached is of a namespace that its holder has left, nobody knows which.
            if let Some(another) = found {
                buffers[another].id.ipc = None;
            }
            buffers.push(Buffer::new(BufferId { ipc, ..BufferId::new(Kind::Sysv, None, ino) }));
            buffers.len() - 1
        }
    };
    let buffer = &mut buffers[at];
    // The table forgets the key of one that is marked for removal; its path does not.
    if !segment.removed || buffer.name.is_none() {
        buffer.name = Some(name);
    }
    buffer.size = Some(size);
    buffer.creator_uid = Some(creator_uid);
    buffer.charged = buffer.charged.or(Some(segment.rss + segment.swap)
        .filter(|_| !is_overcounted(size, &segment) && !may_be_overcounted(&segment)));
    buffer.swapped = Some(segment.swap);
    buffer.deleted = Some(segment.removed);
    buffer.count = Some(segment.attached);
    (buffer.in_flight, buffer.io_uring, buffer.exe) = (Some(0), Some(0), Some(0));
    // Read once, after the mappings: what is left over may have come since.
    buffer.steady = buffer.found() == segment.attached;
    buffer.segment = Some(segment);
}

/// Whether the table says that more of a segment is in memory than it has room for. It does so of huge pages: it multiplies by
/// their size what some kernels (seen on 6.18 and 7.2, not on 6.12 nor 7.3) count in small pages already (`shm_add_rss_swap`
/// in ipc/shm.c). So it is of huge pages, and what it takes is unknown.
pub(super) fn is_overcounted(size: Bytes, segment: &Segment) -> bool {
    /// The largest that pages are which are not huge.
    const PAGE: u64 = 64 << 10;
    (segment.rss + segment.swap).0 > size.0.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

/// Whether it may say too much although there would be room: so many bytes are one huge page of 2 MiB there, or several. A
/// segment of small pages can have as many.
fn may_be_overcounted(segment: &Segment) -> bool {
    const ONE_HUGE_PAGE: u64 = (2 << 20) * 512;
    segment.rss.0 > 0 && segment.rss.0.is_multiple_of(ONE_HUGE_PAGE)
}

/// How a segment is called: by its key, or not at all if that is private.
fn key_name(digits: &[u8]) -> Label {
    if digits == b"00000000" { Label::default() } else { [b"0x", digits].concat()[..].into() }
}

/// What a reader of an answer about shmem by procfs must know.
pub(super) fn notes(walk: &Walk, family: &Family, kinds: Kinds) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Some(kept) = walk.elsewhere.as_ref().map(|elsewhere| elsewhere.kept()).filter(|_| kinds.has_fds())
        && (kept.in_flight > 0 || kept.unknown)
    {
        notes.push(Note::HiddenInFlight { fds: kept.in_flight });
    }
    if family.unfollowed > 0 {
        notes.push(Note::OnlyFdinfo { processes: family.unfollowed });
    }
    if family.refusing > 0 {
        notes.push(Note::Refusing { files: family.refusing });
    }
    notes
}
