//! Decides what becomes of the name of a file or segment when its only holder exits.
//!
//! A file of a tmpfs or hugetlbfs has a name, and a segment an id, which keep it after its last
//! holder has gone. But a filesystem goes with its last mount and the last file that is open on it,
//! and an IPC namespace with its last process. If only the holder keeps these, its exit frees the
//! buffer.
//!
//! That nobody else keeps them is proven by counts of the kernel, which BPF iterators read:
//!
//! - A filesystem has one reference from each of its mounts (`s_active`). All of them are in one
//!   mount namespace, or were unmounted while in use. No folder of it has another user than these
//!   mounts. So only open regular files keep it besides, and these are the buffers of the snapshot.
//! - A namespace is referred to by the holder's set of namespaces alone (`struct nsproxy`), and the
//!   set by the holder's threads alone. Each attachment of a segment has one more reference to its
//!   IPC namespace. A bind mount of the namespace's file, or an fd on it, would be one more.
//!
//! Otherwise a name stays if another process sees the filesystem mounted, or is in the IPC
//! namespace. If that is not found either, it is unknown.
//!
//! Limits: of a recorded tree it is taken for granted that names stay.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::lists;
use crate::kernel::bpf::record::{AloneRecord, MountedIn};
use crate::kernel::root::ProcRoot;
use crate::kernel::shmem::members::Members;
use crate::model::{Buffer, Dev, Holder, IpcNamespace, Kind, Label, NameLives, Pid, Residual, SegmentReach};

/// What a reading found of filesystems and namespaces that few keep.
#[derive(Debug, Default)]
pub(super) struct FewKeep {
    /// Where each filesystem is mounted that only its mounts and its open regular files keep.
    pub(super) mounted: HashMap<Dev, MountedIn>,
    /// The processes that share their set of namespaces with no other one.
    pub(super) alone: HashMap<Pid, AloneRecord>,
    /// How many files segments are attached by, in each IPC namespace.
    pub(super) attached: HashMap<IpcNamespace, u64>,
}

/// What keeps several buffers: a filesystem, or an IPC namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Filesystem(Dev),
    Namespace(IpcNamespace),
}

impl Place {
    fn of(buffer: &Buffer) -> Option<Place> {
        match buffer.id.kind {
            Kind::Tmpfs | Kind::Hugetlbfs => buffer.id.dev.map(Place::Filesystem),
            Kind::Sysv => buffer.id.ipc.map(Place::Namespace),
            _ => None,
        }
    }
}

/// Who holds the buffers of one place.
#[derive(Debug, Default)]
struct HeldBy {
    pids: HashSet<Pid>,
    /// Something else has, or may have, a reference to one of them.
    others: bool,
}

/// Says of each buffer with one holder what becomes of its name, and marks the paths that lead
/// nowhere.
pub(super) fn add(root: &ProcRoot, few: &FewKeep, buffers: &mut [Buffer]) {
    let has_name = |b: &Buffer| !b.id.kind.goes_unheld() && !b.holders.is_empty();
    if !root.is_live() || !buffers.iter().any(has_name) {
        return;
    }
    let mut places: BTreeMap<Place, HeldBy> = BTreeMap::new();
    for buffer in buffers.iter() {
        let Some(place) = Place::of(buffer) else { continue };
        let held_by = places.entry(place).or_default();
        // An fd of a segment, as map_files gives one, keeps the segment and not its namespace.
        let keeps = |holder: &&Holder| buffer.id.kind != Kind::Sysv || !holder.maps.is_empty();
        held_by.pids.extend(buffer.holders.iter().filter(keeps).map(|holder| holder.pid));
        held_by.others |= !buffer.holders.iter().all(|holder| keeps(&holder));
        let hidden = [buffer.in_flight, buffer.io_uring];
        held_by.others |= buffer.residual != Residual::Exact(0) || hidden != [Some(0); 2];
    }
    let own = lists::own_pids(root);
    let mut members = Members::of(root, &own);
    for buffer in buffers.iter_mut().filter(|buffer| has_name(buffer)) {
        mark_unreachable(buffer, &mut members);
        let [holder] = &buffer.holders[..] else { continue };
        let pid = holder.pid;
        let place = Place::of(buffer).map(|place| (place, &places[&place]));
        match buffer.deleted {
            Some(false) => buffer.name_lives = name_lives(buffer, pid, place, few, &mut members, &own),
            // It may have no name any more.
            None => buffer.name_lives = NameLives::Unknown,
            Some(true) => {}
        }
    }
}

fn name_lives(
    buffer: &Buffer,
    pid: Pid,
    place: Option<(Place, &HeldBy)>,
    few: &FewKeep,
    members: &mut Members<'_>,
    own: &[Pid],
) -> NameLives {
    let Some((place, held_by)) = place else { return NameLives::Unknown };
    // A file that another process has open keeps the filesystem, and an attached segment its
    // namespace.
    if held_by.pids.iter().any(|&other| other != pid) {
        return NameLives::Stays;
    }
    if !held_by.others && few.go_with(place, pid) {
        return NameLives::GoesWithHolder;
    }
    let stays = match place {
        Place::Filesystem(dev) => members.shows(dev, pid),
        Place::Namespace(ipc) => {
            let reached = buffer.segment.as_ref().and_then(|segment| segment.reached.as_ref());
            match reached {
                Some(SegmentReach::Process(other)) if *other != pid && !own.contains(other) => true,
                Some(SegmentReach::Path(_)) => true,
                _ => members.has_other(ipc, pid),
            }
        }
    };
    if stays { NameLives::Stays } else { NameLives::Unknown }
}

impl FewKeep {
    /// Whether it is proven that a place goes with a process, if that holds all of its buffers.
    fn go_with(&self, place: Place, pid: Pid) -> bool {
        let alone = self.alone.get(&pid);
        match place {
            Place::Filesystem(dev) => match self.mounted.get(&dev) {
                Some(MountedIn::Nowhere) => true,
                Some(&MountedIn::Namespace(namespace)) => {
                    alone.is_some_and(|alone| alone.mounts == namespace && alone.mounts_count == 1)
                }
                None => false,
            },
            Place::Namespace(ipc) => {
                let attached = self.attached.get(&ipc).copied().unwrap_or(0);
                alone.is_some_and(|alone| {
                    alone.ipc == Some(ipc) && u64::from(alone.ipc_count) == attached.saturating_add(1)
                })
            }
        }
    }
}

/// Begins a path of a file as the kernel begins one that cannot be reached, if none of its holders
/// sees the filesystem mounted. procfs shows such a path below the root of the filesystem
/// (`d_path`), as if it were a file of `/`.
fn mark_unreachable(buffer: &mut Buffer, members: &mut Members<'_>) {
    let (Some(Place::Filesystem(dev)), Some(name)) = (Place::of(buffer), &buffer.name) else { return };
    let unseen = |pid| members.sees(pid, dev) == Some(false);
    if name.as_bytes().starts_with(b"/") && buffer.holders.iter().map(|holder| holder.pid).all(unseen) {
        buffer.name = Some(Label::from(&[UNREACHABLE, name.as_bytes()].concat()[..]));
    }
}

/// Begins the path of a file that no mount shows, as the kernel writes such a path.
pub(super) const UNREACHABLE: &[u8] = b"(unreachable)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Inode;

    const DEV: Dev = Dev { major: 0, minor: 9 };
    const HOLDER: Pid = Pid(7);
    const IPC: IpcNamespace = IpcNamespace(Inode(5));

    fn few(mounted: Option<MountedIn>, alone: AloneRecord, attached: u64) -> FewKeep {
        FewKeep {
            mounted: mounted.map(|mounted| (DEV, mounted)).into_iter().collect(),
            alone: HashMap::from([(HOLDER, alone)]),
            attached: HashMap::from([(IPC, attached)]),
        }
    }

    fn alone(mounts_count: u32, ipc_count: u32) -> AloneRecord {
        AloneRecord { mounts: 4, mounts_count, ipc: Some(IPC), ipc_count }
    }

    /// Check that a filesystem goes with its holder if no namespace shows it any more, or only that
    /// of the holder, to which nothing else refers.
    #[test]
    fn a_filesystem() {
        let goes = |mounted, count| few(mounted, alone(count, 1), 0).go_with(Place::Filesystem(DEV), HOLDER);
        assert!(goes(Some(MountedIn::Nowhere), 2));
        assert!(goes(Some(MountedIn::Namespace(4)), 1));
        assert!(!goes(Some(MountedIn::Namespace(4)), 2), "an fd on the namespace");
        assert!(!goes(Some(MountedIn::Namespace(6)), 1), "another namespace");
        assert!(!goes(None, 1), "not known");
        let others = few(Some(MountedIn::Namespace(4)), alone(1, 1), 0);
        assert!(!others.go_with(Place::Filesystem(DEV), Pid(8)), "another process");
    }

    /// Check that an IPC namespace goes with its only process if all other references to it are
    /// those of attachments.
    #[test]
    fn an_ipc_namespace() {
        let goes =
            |count, attached| few(None, alone(1, count), attached).go_with(Place::Namespace(IPC), HOLDER);
        assert!(goes(3, 2));
        assert!(!goes(4, 2), "something else refers to it");
        assert!(!goes(2, 2), "the counts contradict each other");
    }
}
