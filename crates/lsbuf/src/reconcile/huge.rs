//! The account of huge pages as data and arithmetic: for each size of page, who has those that are
//! not free. It does not know how the parts were read.
//!
//! All pages of a pool are either free, or
//!
//! - in a file: of a buffer that processes hold, of a segment, or of a hugetlbfs where nobody holds
//!   it;
//! - or a process's own: of a private mapping, anonymous or of a file.
//!
//! What is left over is the last row, with its sign.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::account::{KindRow, by_kind};
use crate::model::{Buffer, Bytes, Dev, HugePool, Kind, Label, Pid, UnheldFile, counted};

/// Files of one hugetlbfs that no process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugeMount {
    /// The device number of the hugetlbfs.
    pub dev: Dev,
    /// Where it is mounted. `None`: no mount that could be read shows it.
    pub point: Option<Label>,
    /// How many files.
    pub files: u64,
    /// Bytes charged for them.
    pub charged: Bytes,
}

/// A process that has huge pages of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugeOwner {
    /// The process.
    pub pid: Pid,
    /// Its command name. `None`: it exited before that could be read.
    pub comm: Option<Label>,
    /// Bytes of its pages, those included that it shares with another process since a fork.
    pub bytes: Bytes,
}

/// The huge pages that are processes' own, of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrivateHuge {
    /// Bytes of them, each page once.
    pub bytes: Bytes,
    /// The processes that have them, those with the most first.
    pub owners: Vec<HugeOwner>,
}

/// The account of the huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HugeAccount {
    /// What the kernel says.
    pub pool: HugePool,
    /// Buffers that processes hold, by kind.
    pub held: Vec<KindRow>,
    /// Segments that no process has attached. `None`: there is none.
    pub unattached: Option<KindRow>,
    /// Files that no process holds, by mount.
    pub unheld: Vec<HugeMount>,
    /// Pages that are processes' own.
    pub private: PrivateHuge,
    /// Bytes that none of these explains; below 0 if together they are more.
    pub left_over: i128,
}

/// The sorts of rows of a [`HugeAccount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugeRow<'a> {
    /// Pages that nobody uses.
    Free,
    /// Buffers of a kind that processes hold.
    Held(&'a KindRow),
    /// Segments that no process has attached.
    Unattached(&'a KindRow),
    /// Files of a hugetlbfs that no process holds.
    Unheld(&'a HugeMount),
    /// Pages that are processes' own.
    Private(&'a PrivateHuge),
    /// What none of the other rows explains.
    LeftOver,
}

impl HugeAccount {
    /// Makes the account of each pool. `buffers` are those that have huge pages. If the size of
    /// their pages is unknown, they are taken to be of the only pool in use, or else of the first.
    #[must_use]
    pub fn of(
        pools: &[HugePool],
        buffers: &[&Buffer],
        unheld: &[UnheldFile],
        points: &BTreeMap<Dev, Label>,
        private: &BTreeMap<Bytes, PrivateHuge>,
    ) -> Vec<HugeAccount> {
        let in_use = pools.iter().find(|pool| pool.total > pool.free).or(pools.first());
        let assumed = in_use.map(|pool| pool.size);
        let account = |pool: &HugePool| {
            let is_of = |page: Option<Bytes>| page.or(assumed) == Some(pool.size);
            let of_pool: Vec<&Buffer> = buffers.iter().copied().filter(|b| is_of(b.huge_page)).collect();
            let (unattached, held): (Vec<&Buffer>, Vec<&Buffer>) =
                of_pool.into_iter().partition(|b| b.id.kind == Kind::Sysv && b.is_unheld());
            let files = unheld.iter().filter(|f| f.id.kind == Kind::Hugetlbfs && is_of(f.huge_page));
            let mut account = HugeAccount {
                pool: *pool,
                held: by_kind(&held),
                unattached: by_kind(&unattached).pop(),
                unheld: by_mount(files, points),
                private: private.get(&pool.size).cloned().unwrap_or_default(),
                left_over: 0,
            };
            let rows: i128 = account.rows().iter().map(|(_, bytes)| bytes).sum();
            account.left_over = account.bytes(pool.total) - rows;
            account
        };
        pools.iter().map(account).collect()
    }

    /// The rows, in bytes. They sum up to all pages of the pool.
    #[must_use]
    pub fn rows(&self) -> Vec<(HugeRow<'_>, i128)> {
        let charged = |row: &KindRow| i128::from(row.charged.0);
        let held = self.held.iter().map(|row| (HugeRow::Held(row), charged(row)));
        let unattached = self.unattached.iter().map(|row| (HugeRow::Unattached(row), charged(row)));
        let unheld = self.unheld.iter().map(|mount| (HugeRow::Unheld(mount), i128::from(mount.charged.0)));
        let private = (HugeRow::Private(&self.private), i128::from(self.private.bytes.0));
        let free = (HugeRow::Free, self.bytes(self.pool.free));
        let end = [private, (HugeRow::LeftOver, self.left_over)];
        std::iter::once(free).chain(held).chain(unattached).chain(unheld).chain(end).collect()
    }

    /// Bytes of so many pages.
    fn bytes(&self, pages: u64) -> i128 {
        i128::from(pages) * i128::from(self.pool.size.0)
    }
}

/// The segments of which only the table is known, that must have huge pages.
///
/// `missing` is what is charged beyond `Shmem`. At most `in_swap` of it is in swap, so the rest is
/// in huge pages. A segment must have huge pages if all of these segments together have just what
/// is left over of the huge pages of one size, in whole pages of that size, and without this
/// segment they have less than that rest.
///
/// The rest can be less than they have: what is not charged to any buffer that was found, but is in
/// `Shmem`, makes up for a part of it.
#[must_use]
pub(crate) fn huge_segments<'b>(
    accounts: &[HugeAccount],
    missing: i128,
    in_swap: Bytes,
    maybe: impl Iterator<Item = &'b Buffer>,
) -> BTreeSet<crate::model::BufferId> {
    let mut left = accounts.iter().filter(|account| account.left_over != 0);
    let (Some(account), None) = (left.next(), left.next()) else { return BTreeSet::new() };
    let page = account.pool.size.0;
    let cost = |b: &Buffer| b.cost().map_or(0, |cost| cost.0);
    // The kernel does not swap huge pages.
    let fits = |b: &&Buffer| {
        cost(b) > 0 && cost(b).is_multiple_of(page) && b.swapped.unwrap_or_default() == Bytes(0)
    };
    let fitting: Vec<&Buffer> = maybe.filter(fits).collect();
    let sum: i128 = fitting.iter().map(|b| i128::from(cost(b))).sum();
    let smallest = fitting.iter().map(|b| i128::from(cost(b))).min().unwrap_or(0);
    let rest = missing - i128::from(in_swap.0);
    let agree = sum == account.left_over && sum >= rest && sum - smallest < rest;
    if agree { fitting.into_iter().map(|b| b.id).collect() } else { BTreeSet::new() }
}

fn by_mount<'f>(
    files: impl Iterator<Item = &'f UnheldFile>,
    points: &BTreeMap<Dev, Label>,
) -> Vec<HugeMount> {
    let mut mounts: BTreeMap<Dev, HugeMount> = BTreeMap::new();
    for (file, dev) in files.filter_map(|file| Some((file, file.id.dev?))) {
        let empty = || HugeMount { dev, point: points.get(&dev).cloned(), files: 0, charged: Bytes(0) };
        let mount = mounts.entry(dev).or_insert_with(empty);
        mount.files += 1;
        mount.charged = mount.charged + file.charged;
    }
    mounts.into_values().collect()
}

/// Why the last row of an account of huge pages may be too large or too small.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HugeUncertainty {
    /// Whether a pool changed while lsbuf read.
    Moved,
    /// The pools could not be read, so there is no account.
    NoPools {
        /// Why not.
        why: String,
    },
    /// Processes whose own pages could not be read.
    Unread {
        /// How many.
        processes: u64,
    },
    /// The numbers of page frames were not shown, so pages that processes share since a fork count
    /// once for each.
    NotCompared,
    /// Files that nobody holds may be missing.
    UnheldMissing,
    /// The charge of buffers is unknown.
    Uncharged {
        /// How many.
        buffers: u64,
    },
}

impl fmt::Display for HugeUncertainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HugeUncertainty::Moved => f.write_str("huge pages were taken or freed during the scan"),
            HugeUncertainty::NoPools { why } => {
                write!(f, "the pools of huge pages could not be read: {why}")
            }
            HugeUncertainty::Unread { processes } => write!(
                f,
                "the own huge pages of {} could not be read, and are left over",
                counted(*processes, "process", "processes")
            ),
            HugeUncertainty::NotCompared => f.write_str(
                "page frames are not shown without CAP_SYS_ADMIN: own pages that processes share since a fork \
                 count once for each",
            ),
            HugeUncertainty::UnheldMissing => f.write_str(
                "not every hugetlbfs could be listed: files that nobody holds may be left over",
            ),
            HugeUncertainty::Uncharged { buffers } => write!(
                f,
                "what is charged for {} of huge pages is unknown, and is left over",
                counted(*buffers, "buffer", "buffers")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BufferId, Fd, Holder, Inode};

    const PAGE: Bytes = Bytes(2 << 20);

    fn pool(size: Bytes, total: u64, free: u64) -> HugePool {
        HugePool { size, total, free, reserved: 0, surplus: 0 }
    }

    fn buffer(kind: Kind, pages: u64, held: bool) -> Buffer {
        let dev = Dev { major: 0, minor: 17 };
        let mut buffer = Buffer::new(BufferId::new(kind, Some(dev), Inode(pages)));
        buffer.huge_page = Some(PAGE);
        buffer.charged = Some(Bytes(pages * PAGE.0));
        buffer.holders.extend(held.then(|| Holder { fds: vec![Fd(3)].into(), ..Holder::new(Pid(7)) }));
        buffer
    }

    fn file(minor: u32, pages: u64) -> UnheldFile {
        let dev = Dev { major: 0, minor };
        UnheldFile {
            id: BufferId::new(Kind::Hugetlbfs, Some(dev), Inode(pages)),
            path: "/huge/x".into(),
            size: Bytes(0),
            charged: Bytes(pages * PAGE.0),
            swapped: None,
            huge_page: Some(PAGE),
            owner: 0,
            created_at: None,
            deleted: false,
            proven: true,
            payers: None,
        }
    }

    fn account(pools: &[HugePool], buffers: &[Buffer], files: &[UnheldFile], own: u64) -> Vec<HugeAccount> {
        let points = [(Dev { major: 0, minor: 40 }, Label::from("/huge"))].into();
        let owner = HugeOwner { pid: Pid(7), comm: None, bytes: Bytes(own * PAGE.0) };
        let private = PrivateHuge { bytes: Bytes(own * PAGE.0), owners: vec![owner] };
        let buffers: Vec<&Buffer> = buffers.iter().collect();
        HugeAccount::of(pools, &buffers, files, &points, &[(PAGE, private)].into())
    }

    /// Check that each part lands in its row, and that the world of 60 pages leaves nothing over.
    #[test]
    fn adds_up() {
        let buffers = [
            buffer(Kind::Memfd, 6, true),
            buffer(Kind::ShmAnon, 5, true),
            buffer(Kind::Hugetlbfs, 3, true),
            buffer(Kind::Sysv, 2, false),
        ];
        let accounts = account(&[pool(PAGE, 60, 35)], &buffers, &[file(40, 2), file(40, 1)], 6);
        let [account] = &accounts[..] else { panic!("{accounts:?}") };
        assert_eq!(account.left_over, 0);
        assert_eq!(account.held.iter().map(|row| row.charged.0 / PAGE.0).collect::<Vec<_>>(), [6, 5, 3]);
        assert_eq!(account.unattached.map(|row| row.charged), Some(Bytes(2 * PAGE.0)));
        let [mount] = &account.unheld[..] else { panic!("{account:?}") };
        let expected = (Some(Label::from("/huge")), 2, Bytes(3 * PAGE.0));
        assert_eq!((mount.point.clone(), mount.files, mount.charged), expected);
        let sum: i128 = account.rows().iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(sum, 60 * i128::from(PAGE.0));
    }

    /// Check that a buffer is in the pool of its pages, and one whose pages have an unknown size in
    /// the pool that is in use.
    #[test]
    fn two_pools() {
        let mut unknown = buffer(Kind::Sysv, 1, true);
        unknown.huge_page = None;
        let pools = [pool(Bytes(64 << 10), 5, 5), pool(PAGE, 4, 1)];
        let accounts = account(&pools, &[buffer(Kind::Memfd, 2, true), unknown], &[], 0);
        assert_eq!(accounts.iter().map(|account| account.left_over).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(accounts[1].held.len(), 2);
    }

    /// Check that segments are taken to have huge pages only if they have what is left over of
    /// these and each is needed to explain what is missing in `Shmem`: without swap, with some of
    /// it in swap, and beside memory that was not found.
    #[test]
    fn segments_that_must_be_huge() {
        let segments = [buffer(Kind::Sysv, 2, false), buffer(Kind::Sysv, 1, false)];
        let mut small = buffer(Kind::Sysv, 9, false);
        small.charged = Some(Bytes(4096));
        let mut swapped = buffer(Kind::Sysv, 5, false);
        swapped.swapped = Some(Bytes(4096));
        let accounts = account(&[pool(PAGE, 10, 7)], &[], &[], 0);
        let of = |missing: u64, in_swap: u64| {
            let maybe = segments.iter().chain([&small, &swapped]);
            huge_segments(&accounts, i128::from(missing), Bytes(in_swap), maybe).len()
        };
        let pages = |number: u64| number * PAGE.0;
        assert_eq!((of(pages(3), 0), of(pages(2), 0), of(0, 0), of(pages(4), 0)), (2, 0, 0, 0));
        assert_eq!((of(pages(3) + 8192, 12288), of(pages(3), pages(1)), of(pages(4), pages(1))), (2, 0, 2));
        assert_eq!(of(pages(3) - 8192, 4096), 2);
    }
}
