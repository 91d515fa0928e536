//! The account as data and arithmetic. It does not know how the parts were read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::SystemTime;

use super::huge::{HugeAccount, HugeUncertainty};
use super::uncertainty::Uncertainty;
use crate::model::{Buffer, Bytes, Coverage, Dev, Host, Kind, Label, Pid, TmpfsMount, TmpfsUsage, UnheldSum};

/// The part of one kind in `Shmem`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KindRow {
    /// The kind.
    pub kind: Kind,
    /// Buffers of it that were found.
    pub buffers: u64,
    /// Bytes charged for those of which that is known.
    pub charged: Bytes,
    /// How many of them have an unknown charge.
    pub unknown: u64,
}

/// The part of one mounted tmpfs in `Shmem`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountRow {
    /// The tmpfs, and how much of it is used.
    pub mount: TmpfsMount,
    /// Bytes charged for its files that processes hold. They are in the row of [`Kind::Tmpfs`].
    pub held: Bytes,
    /// Bytes charged for its other files; `None`: it is unknown how much of the tmpfs is used.
    pub unheld: Option<Bytes>,
    /// How many regular files these are; `None`: the kernel's lists of inodes were not read.
    pub unheld_files: Option<u64>,
}

impl MountRow {
    /// How much of the tmpfs is used: what statfs(2) says, or else what the kernel's lists of
    /// inodes add up to. `None`: unknown.
    #[must_use]
    pub fn used(&self) -> Option<Bytes> {
        match self.mount.usage {
            TmpfsUsage::Used(used) => Some(used),
            TmpfsUsage::Ramfs => None,
            _ => self.unheld.map(|unheld| self.held + unheld),
        }
    }
}

/// The sorts of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReconcileRow<'a> {
    /// Buffers of a kind that processes hold, and segments.
    Held(&'a KindRow),
    /// Files of a tmpfs that no process holds.
    Unheld(&'a MountRow),
    /// Charged, but known to be in swap: subtracted.
    Swapped,
    /// What none of the other rows explains.
    LeftOver,
}

/// The account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// `Shmem` of `/proc/meminfo`, bytes.
    pub shmem: Bytes,
    /// Kind by kind, those of which buffers were found.
    pub held: Vec<KindRow>,
    /// Every mounted tmpfs, ordered by device.
    pub mounts: Vec<MountRow>,
    /// Bytes of all these that are known to be in swap.
    pub swapped: Bytes,
    /// The part of `swapped` that follows from the sums: so much more is charged than `Shmem` has,
    /// and at least that much more swap is in use. The only other pages that are charged and not in
    /// `Shmem` are clean ones of holes that the kernel has dropped a moment ago.
    pub inferred_swapped: Bytes,
    /// How much more of them may be in swap: what is left over may be up to that much larger. 0
    /// without swap in use.
    pub maybe_swapped: Bytes,
    /// Segments that no process has attached and that may have huge pages, which are not in
    /// `Shmem`; the kernel does not say. How many, and bytes charged for them.
    pub maybe_huge: (u64, Bytes),
    /// Bytes of `Shmem` that none of these explains; below 0 if together they are more than
    /// `Shmem`.
    pub left_over: i128,
    /// Buffers that are not in `Shmem`, by kind: huge pages, memfd_secret, guest_memfd, files of a
    /// ramfs.
    pub outside: Vec<KindRow>,
}

impl Balance {
    /// Makes the account from `Shmem`, the swap in use, buffers of all kinds but dma-bufs, the
    /// mounted tmpfs, and what the kernel's lists say of each tmpfs, if these were read. `is_huge`
    /// says whether a buffer has huge pages, `any_huge` whether the machine has any huge pages at
    /// all.
    #[must_use]
    pub fn of(
        shmem: Bytes,
        swap_used: Bytes,
        buffers: &[Buffer],
        mut mounts: Vec<TmpfsMount>,
        listed: &[UnheldSum],
        is_huge: impl Fn(&Buffer) -> bool,
        any_huge: bool,
    ) -> Balance {
        let listed: HashMap<Dev, &UnheldSum> = listed.iter().map(|files| (files.dev, files)).collect();
        let seen: BTreeSet<Dev> = mounts.iter().map(|mount| mount.dev).collect();
        let is_new =
            |files: &&&UnheldSum| files.resident + files.swapped > Bytes(0) && !seen.contains(&files.dev);
        mounts.extend(listed.values().filter(is_new).map(|files| TmpfsMount {
            dev: files.dev,
            point: Label::default(),
            seen_by: None,
            usage: TmpfsUsage::Unmounted,
            limit: None,
        }));
        mounts.sort_by_key(|mount| mount.dev);
        let ramfs = mounts.iter().filter(|mount| mount.usage == TmpfsUsage::Ramfs);
        let ramfs: BTreeSet<Dev> = ramfs.map(|mount| mount.dev).collect();
        let is_outside = |b: &&Buffer| match b.id.kind {
            Kind::Hugetlbfs | Kind::Secretmem | Kind::GuestMemfd => true,
            Kind::Tmpfs => b.id.dev.is_some_and(|dev| ramfs.contains(&dev)),
            _ => is_huge(b),
        };
        let known = buffers.iter().filter(|b| b.id.kind != Kind::DmaBuf);
        let (outside, inside): (Vec<&Buffer>, Vec<&Buffer>) = known.partition(is_outside);
        let held_on = held_on_mounts(&inside);
        let held = |mount: &TmpfsMount| held_on.get(&mount.dev).copied().unwrap_or_default();
        let row = |mount: TmpfsMount| row(listed.get(&mount.dev).copied(), held(&mount), mount);
        let mounts: Vec<MountRow> = mounts.into_iter().map(row).collect();
        let held = by_kind(&inside);
        let unheld = listed.values().map(|files| files.swapped);
        let swapped: Bytes = inside.iter().filter_map(|b| b.swapped).chain(unheld).sum();
        let in_swap = |unheld: Option<Bytes>| unheld.unwrap_or(Bytes(u64::MAX));
        let unasked = inside.iter().filter(|b| b.swapped.is_none()).map(|b| in_swap(b.cost()));
        let unlisted = mounts.iter().filter(|row| !listed.contains_key(&row.mount.dev));
        let unasked: Bytes = unasked.chain(unlisted.map(|m| in_swap(m.unheld))).sum();
        let may_be_huge = |b: &&&Buffer| any_huge && b.id.kind == Kind::Sysv && b.id.dev.is_none();
        let maybe_huge = || inside.iter().filter(may_be_huge).filter(|b| b.cost() != Some(Bytes(0)));
        let mut balance = Balance {
            shmem,
            swapped,
            inferred_swapped: Bytes(0),
            maybe_swapped: Bytes(swap_used.0.saturating_sub(swapped.0)).min(unasked),
            maybe_huge: (maybe_huge().count() as u64, maybe_huge().filter_map(|b| b.cost()).sum()),
            left_over: 0,
            outside: by_kind(&outside),
            held,
            mounts,
        };
        balance.left_over = i128::from(shmem.0) - balance.rows().iter().map(|(_, bytes)| bytes).sum::<i128>();
        balance.infer_swapped();
        balance
    }

    /// If more is charged than `Shmem` has, the rest is in swap, as far as so much swap is in use.
    /// Not if segments may have huge pages, which are not in `Shmem` either.
    fn infer_swapped(&mut self) {
        if self.left_over >= 0 || self.maybe_huge.0 > 0 {
            return;
        }
        let missing = u64::try_from(self.left_over.unsigned_abs()).unwrap_or(u64::MAX);
        let inferred = Bytes(missing).min(self.maybe_swapped);
        self.inferred_swapped = inferred;
        self.swapped = self.swapped + inferred;
        self.maybe_swapped = Bytes(self.maybe_swapped.0 - inferred.0);
        self.left_over += i128::from(inferred.0);
    }

    /// The rows, in bytes with their signs; a mount whose use is unknown is 0. They sum up to
    /// [`Balance::shmem`].
    #[must_use]
    pub fn rows(&self) -> Vec<(ReconcileRow<'_>, i128)> {
        let held = self.held.iter().map(|kind| (ReconcileRow::Held(kind), i128::from(kind.charged.0)));
        let unheld = self.mounts.iter().map(|mount| {
            let bytes = mount.unheld.unwrap_or_default();
            (ReconcileRow::Unheld(mount), i128::from(bytes.0))
        });
        let swapped = (ReconcileRow::Swapped, -i128::from(self.swapped.0));
        held.chain(unheld).chain([swapped, (ReconcileRow::LeftOver, self.left_over)]).collect()
    }
}

/// What is held on each tmpfs, by its device.
fn held_on_mounts(inside: &[&Buffer]) -> BTreeMap<Dev, Bytes> {
    let mut held: BTreeMap<Dev, Bytes> = BTreeMap::new();
    for buffer in inside.iter().filter(|b| b.id.kind == Kind::Tmpfs) {
        let Some((dev, charged)) = buffer.id.dev.zip(buffer.charged) else { continue };
        let sum = held.entry(dev).or_default();
        *sum = *sum + charged;
    }
    held
}

/// The row of a mount, of which this much is held.
fn row(listed: Option<&UnheldSum>, held: Bytes, mount: TmpfsMount) -> MountRow {
    let unheld = match (listed, mount.usage) {
        (Some(files), _) => Some(files.resident + files.swapped),
        (None, TmpfsUsage::Used(used)) => Some(Bytes(used.0.saturating_sub(held.0))),
        // Its pages are not in `Shmem`.
        (None, TmpfsUsage::Ramfs) => Some(Bytes(0)),
        (None, _) => None,
    };
    MountRow { mount, held, unheld, unheld_files: listed.map(|files| files.files) }
}

pub(super) fn by_kind(buffers: &[&Buffer]) -> Vec<KindRow> {
    let mut rows: BTreeMap<Kind, KindRow> = BTreeMap::new();
    for buffer in buffers {
        let kind = buffer.id.kind;
        let empty = KindRow { kind, buffers: 0, charged: Bytes(0), unknown: 0 };
        let row = rows.entry(kind).or_insert(empty);
        row.buffers += 1;
        match buffer.cost() {
            Some(cost) => row.charged = row.charged + cost,
            None => row.unknown += 1,
        }
    }
    rows.into_values().collect()
}

/// The account, and what is known of how it was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reconciliation {
    /// Wall clock when the scan began.
    pub taken_at: SystemTime,
    /// Where it was taken.
    pub host: Host,
    /// How much of the machine the scan read.
    pub coverage: Coverage,
    /// `Shmem` before the scan, bytes. The account explains the value after it.
    pub shmem_before: Bytes,
    /// Why the kernel could not be made to add up its counters first; `None`: it did.
    pub not_folded: Option<String>,
    /// How many processes did not let their mounts be read, if that matters.
    pub unseen: u64,
    /// Whether the kernel's lists of inodes were read. Then nothing of `Shmem` can be hidden.
    pub listed: bool,
    /// `Hugetlb` of `/proc/meminfo`: bytes of huge pages, used or not. None of them is in `Shmem`.
    pub hugetlb: Bytes,
    /// The account.
    pub balance: Balance,
    /// The account of huge pages, for each size of which the machine has any. Empty also if the
    /// pools cannot be read.
    pub huge: Vec<HugeAccount>,
    /// Why the account of huge pages may be off.
    pub huge_uncertainties: Vec<HugeUncertainty>,
    /// The processes with an io_uring that has registered memory, and how many bytes. A ring keeps
    /// that memory after its file is closed and unmapped. It is then in no list and not in `Shmem`.
    /// How much of this is such memory is unknown.
    pub pinned: Vec<(Pid, Bytes)>,
}

impl Reconciliation {
    /// Why the row `left over` may be too large or too small.
    #[must_use]
    pub fn uncertainties(&self) -> Vec<Uncertainty> {
        let balance = &self.balance;
        let (before, after) = (self.shmem_before, balance.shmem);
        let uncharged = balance.held.iter().map(|row| row.unknown).sum();
        let (segments, huge) = balance.maybe_huge;
        let single = [
            (!self.coverage.is_complete()).then_some(Uncertainty::Partial),
            (uncharged > 0).then_some(Uncertainty::Uncharged { buffers: uncharged }),
            (self.unseen > 0).then_some(Uncertainty::UnseenMounts { processes: self.unseen }),
            (before != after).then_some(Uncertainty::Moved { before, after }),
            self.not_folded.clone().map(|why| Uncertainty::NotFolded { why }),
            (balance.maybe_swapped > Bytes(0))
                .then_some(Uncertainty::MaybeSwapped { bytes: balance.maybe_swapped }),
            (segments > 0).then_some(Uncertainty::MaybeHuge { segments, bytes: huge }),
        ];
        let unknown = balance.mounts.iter().filter(|row| row.unheld.is_none());
        let unknown = unknown
            .map(|row| Uncertainty::UnknownUsage { point: row.mount.point.clone(), usage: row.mount.usage });
        single.into_iter().flatten().chain(unknown).collect()
    }

    /// What the row `left over` may consist of where it is not off.
    #[must_use]
    pub fn causes(&self) -> &'static str {
        if self.listed {
            "pages that were taken or freed while lsbuf read"
        } else {
            "objects of GPU drivers that no process has mapped, memfds that only a message or the kernel holds, and \
             files of a tmpfs that is mounted nowhere any more"
        }
    }

    /// Whether everything was seen that can be. What is left over then consists of
    /// [`Reconciliation::causes`].
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.uncertainties().iter().any(Uncertainty::is_partial)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{BufferId, Inode, Kinds, Label};

    fn dev(minor: u32) -> Option<Dev> {
        Some(Dev { major: 0, minor })
    }

    fn buffer(kind: Kind, minor: u32, charged: Option<u64>) -> Buffer {
        let mut buffer = Buffer::new(BufferId::new(kind, dev(minor), Inode(1)));
        buffer.charged = charged.map(Bytes);
        buffer.size = Some(Bytes(1 << 40));
        buffer
    }

    fn mount(minor: u32, usage: TmpfsUsage) -> TmpfsMount {
        let point = Label::from(&b"/x"[..]);
        TmpfsMount { dev: Dev { major: 0, minor }, point, seen_by: None, usage, limit: None }
    }

    fn huge(buffer: &Buffer) -> bool {
        buffer.huge_page.is_some()
    }

    fn balance_of(shmem: u64, swap: u64, buffers: &[Buffer], mounts: Vec<TmpfsMount>) -> Balance {
        Balance::of(Bytes(shmem), Bytes(swap), buffers, mounts, &[], huge, true)
    }

    /// Check that each part lands in its row, held files of a mount once, and nothing is left over.
    #[test]
    fn adds_up() {
        let mut segment = buffer(Kind::Sysv, 1, Some(300));
        segment.swapped = Some(Bytes(100));
        let buffers = [
            buffer(Kind::Memfd, 1, Some(1000)),
            segment,
            buffer(Kind::Tmpfs, 27, Some(40)),
            buffer(Kind::Tmpfs, 28, Some(5)),
        ];
        let mounts = vec![mount(27, TmpfsUsage::Used(Bytes(100))), mount(30, TmpfsUsage::Used(Bytes(0)))];
        let balance = balance_of(1000 + 200 + 100 + 5, 100, &buffers, mounts);
        assert_eq!((balance.left_over, balance.swapped, balance.maybe_swapped), (0, Bytes(100), Bytes(0)));
        let unheld: Vec<_> = balance.mounts.iter().map(|m| (m.held, m.unheld)).collect();
        assert_eq!(unheld, [(Bytes(40), Some(Bytes(60))), (Bytes(0), Some(Bytes(0)))]);
    }

    /// Check that huge pages, secret pages, a guest's pages and files of a ramfs are in no sum.
    #[test]
    fn outside() {
        let mut memfd = buffer(Kind::Memfd, 17, Some(2 << 20));
        memfd.huge_page = Some(Bytes(2 << 20));
        let buffers = [
            memfd,
            buffer(Kind::Hugetlbfs, 40, Some(4 << 20)),
            buffer(Kind::Secretmem, 18, None),
            buffer(Kind::Tmpfs, 2, Some(4096)),
            buffer(Kind::DmaBuf, 12, None),
        ];
        let balance = balance_of(0, 0, &buffers, vec![mount(2, TmpfsUsage::Ramfs)]);
        assert_eq!((balance.left_over, balance.held.len()), (0, 0));
        let outside: Vec<_> = balance.outside.iter().map(|row| (row.kind, row.charged)).collect();
        let expected = [
            (Kind::Memfd, Bytes(2 << 20)),
            (Kind::Tmpfs, Bytes(4096)),
            (Kind::Hugetlbfs, Bytes(4 << 20)),
            (Kind::Secretmem, Bytes(1 << 40)),
        ];
        assert_eq!(outside, expected);
    }

    /// Check that the kernel's lists decide what of a tmpfs nobody holds, also where no mount shows
    /// it, and that what they say of swap is known.
    #[test]
    fn listed() {
        let files = |minor, resident, swapped| UnheldSum {
            dev: Dev { major: 0, minor },
            files: 1,
            resident: Bytes(resident),
            swapped: Bytes(swapped),
        };
        let mounts = vec![mount(27, TmpfsUsage::Hidden), mount(28, TmpfsUsage::Used(Bytes(900)))];
        let listed = [files(27, 10, 0), files(28, 20, 5), files(29, 40, 0), files(30, 0, 0)];
        let balance = Balance::of(Bytes(70), Bytes(50), &[], mounts, &listed, huge, true);
        let rows: Vec<_> = balance.mounts.iter().map(|row| (row.mount.dev.minor, row.unheld)).collect();
        assert_eq!(rows, [(27, Some(Bytes(10))), (28, Some(Bytes(25))), (29, Some(Bytes(40)))]);
        assert_eq!((balance.left_over, balance.swapped, balance.maybe_swapped), (0, Bytes(5), Bytes(0)));
        assert_eq!(balance.mounts[2].mount.usage, TmpfsUsage::Unmounted);
    }

    /// Check that what is unknown is left over, and that swap in use bounds it.
    #[test]
    fn unknown() {
        let buffers = [buffer(Kind::Memfd, 1, Some(100)), buffer(Kind::ShmAnon, 1, None)];
        let balance = balance_of(500, 70, &buffers, vec![mount(27, TmpfsUsage::Uncounted)]);
        assert_eq!((balance.left_over, balance.maybe_swapped), (400, Bytes(70)));
        let balance = balance_of(100, 70, &buffers[..1], Vec::new());
        assert_eq!(balance.maybe_swapped, Bytes(70));
        let balance = balance_of(100, 1 << 30, &buffers[..1], Vec::new());
        assert_eq!((balance.maybe_swapped, balance.inferred_swapped), (Bytes(100), Bytes(0)));
    }

    /// Check that what is charged beyond Shmem is in swap, as far as swap is in use, and is not
    /// where it may be huge pages.
    #[test]
    fn inferred() {
        let memfd = buffer(Kind::Memfd, 1, Some(100));
        let of = |swap| {
            let balance = balance_of(40, swap, std::slice::from_ref(&memfd), Vec::new());
            (balance.left_over, balance.swapped.0, balance.inferred_swapped.0, balance.maybe_swapped.0)
        };
        assert_eq!([of(0), of(50), of(70)], [(-60, 0, 0, 0), (-10, 50, 50, 0), (0, 60, 60, 10)]);
        let mut segment = buffer(Kind::Sysv, 1, Some(100));
        segment.id.dev = None;
        assert_eq!(balance_of(40, 70, &[segment], Vec::new()).left_over, -60);
    }

    /// Check that a segment known only by its row may have huge pages only where the machine has
    /// such.
    #[test]
    fn maybe_huge() {
        let mut segment = buffer(Kind::Sysv, 1, Some(1 << 21));
        segment.id.dev = None;
        let of =
            |any| Balance::of(Bytes(0), Bytes(0), std::slice::from_ref(&segment), Vec::new(), &[], huge, any);
        assert_eq!(of(true).maybe_huge, (1, Bytes(1 << 21)));
        assert_eq!(of(false).maybe_huge, (0, Bytes(0)));
    }

    /// Check that each uncertainty has its cause, and that only what was not seen makes an answer
    /// partial.
    #[test]
    fn uncertainties() {
        let certain = Reconciliation {
            taken_at: SystemTime::UNIX_EPOCH,
            host: Host::default(),
            coverage: Coverage::default(),
            shmem_before: Bytes(500),
            not_folded: None,
            unseen: 0,
            listed: false,
            hugetlb: Bytes(0),
            balance: balance_of(500, 0, &[], vec![mount(27, TmpfsUsage::Used(Bytes(500)))]),
            huge: Vec::new(),
            huge_uncertainties: Vec::new(),
            pinned: Vec::new(),
        };
        assert_eq!(certain.uncertainties(), []);
        let mut inexact = certain.clone();
        inexact.shmem_before = Bytes(400);
        inexact.not_folded = Some("no".into());
        inexact.balance = balance_of(500, 9, &[], vec![mount(27, TmpfsUsage::Used(Bytes(500)))]);
        assert_eq!((inexact.uncertainties().len(), inexact.is_complete()), (3, true));
        let mut partial = certain;
        partial.unseen = 1;
        partial.balance = balance_of(500, 0, &[], vec![mount(27, TmpfsUsage::Hidden)]);
        assert_eq!((partial.uncertainties().len(), partial.is_complete()), (2, false));
    }

    fn usage() -> impl Strategy<Value = TmpfsUsage> {
        prop_oneof![
            any::<u64>().prop_map(|used| TmpfsUsage::Used(Bytes(used))),
            (0u64..1 << 40).prop_map(|used| TmpfsUsage::Used(Bytes(used))),
            Just(TmpfsUsage::Uncounted),
            Just(TmpfsUsage::Ramfs),
            Just(TmpfsUsage::Hidden),
        ]
    }

    fn any_buffer() -> impl Strategy<Value = Buffer> {
        let kinds: Vec<Kind> = Kinds::SHMEM.iter().collect();
        let fields = (
            proptest::sample::select(kinds),
            0u32..4,
            any::<Option<u64>>(),
            any::<Option<u64>>(),
            any::<bool>(),
        );
        fields.prop_map(|(kind, minor, charged, swapped, huge)| {
            let mut buffer = buffer(kind, minor, charged);
            buffer.swapped = swapped.map(Bytes);
            buffer.huge_page = huge.then_some(Bytes(2 << 20));
            buffer
        })
    }

    proptest! {
        /// Check that the rows sum up to Shmem whatever was found, and that every buffer is in
        /// exactly one of two lists.
        #[test]
        fn rows_sum_up(
            shmem: u64,
            swap: u64,
            buffers in proptest::collection::vec(any_buffer(), 0..12),
            usages in proptest::collection::vec(usage(), 0..4),
        ) {
            let mounts = (0u32..).zip(usages).map(|(minor, usage)| mount(minor, usage)).collect();
            let balance = balance_of(shmem, swap, &buffers, mounts);
            let sum: i128 = balance.rows().iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(sum, i128::from(shmem));
            let listed: u64 = balance.held.iter().chain(&balance.outside).map(|row| row.buffers).sum();
            prop_assert_eq!(listed, buffers.len() as u64);
            prop_assert!(balance.maybe_swapped.0 <= swap);
        }

        /// Check that a machine made of such parts, all of them known, leaves nothing over.
        #[test]
        fn nothing_left_over(
            parts in proptest::collection::vec((0u64..1 << 40, 0u64..1 << 40), 0..8),
            unheld in proptest::collection::vec(0u64..1 << 40, 0..4),
        ) {
            let mut buffers = Vec::new();
            let mut mounts: Vec<TmpfsMount> =
                (0u32..).zip(&unheld).map(|(minor, &used)| mount(minor, TmpfsUsage::Used(Bytes(used)))).collect();
            let mut shmem: u64 = unheld.iter().sum();
            for (nth, &(resident, swapped)) in parts.iter().enumerate() {
                let on = if mounts.is_empty() { None } else { Some(nth % mounts.len()) };
                let kind = if on.is_some() { Kind::Tmpfs } else { Kind::Memfd };
                let mut part = buffer(kind, on.unwrap_or(0) as u32, Some(resident + swapped));
                part.swapped = Some(Bytes(swapped));
                buffers.push(part);
                shmem += resident;
                if let Some(TmpfsUsage::Used(used)) = on.map(|nth| &mut mounts[nth].usage) {
                    *used = *used + Bytes(resident + swapped);
                }
            }
            let balance = balance_of(shmem, 0, &buffers, mounts);
            prop_assert_eq!(balance.left_over, 0);
        }
    }
}
