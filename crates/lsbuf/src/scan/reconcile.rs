//! Reads what the accounts of [`reconcile`](crate::reconcile) are made from: `Shmem:` before and
//! after a scan of all kinds of shared memory, how much of every mounted tmpfs is used, and the
//! pools of huge pages with what [`huge`] reads.
//!
//! These come from different moments. If `Shmem:` changed in between, all of it is read again.
//!
//! Limits: after three attempts the last one is the answer, with both values of `Shmem:`.

use std::collections::BTreeMap;

use super::options::Options;
use super::{Scanned, Scanner, details, huge, lists, segments};
use crate::error::Error;
use crate::kernel::hugepages;
use crate::kernel::meminfo::{self, Meminfo};
use crate::kernel::pinned;
use crate::kernel::shmem::Filesystem;
use crate::kernel::shmem::usage::{self, Survey};
use crate::model::{
    Buffer, Bytes, Dev, HugePool, Kind, Kinds, Label, Note, Snapshot, TmpfsMount, UnheldFile, UnheldGaps,
    UnheldList,
};
use crate::reconcile::account::{Balance, Reconciliation};
use crate::reconcile::huge::huge_segments;
use crate::reconcile::{HugeAccount, HugeUncertainty, PrivateHuge};

/// How often all is read if `Shmem:` changes each time.
const ATTEMPTS: usize = 3;

/// See [`crate::reconcile::reconcile`].
pub(crate) fn reconcile(options: Options) -> Result<Reconciliation, Error> {
    // Files of a hugetlbfs that nobody holds are listed one by one: no sum of them can be read.
    let pools = pools(&options);
    let unheld = pools.iter().flatten().any(|pool| pool.total > 0);
    let mut scanner = Scanner::new(Options { kinds: Kinds::SHMEM, unheld, ..options })?;
    let (_, mut answer) = scanner.scan_and_reconcile()?;
    for _ in 1..ATTEMPTS {
        if answer.shmem_before == answer.balance.shmem {
            break;
        }
        (_, answer) = scanner.scan_and_reconcile()?;
    }
    Ok(answer)
}

/// What the account of huge pages is made from, and the account.
#[derive(Debug, Default)]
struct Huge {
    pools: Vec<HugePool>,
    unheld: Vec<UnheldFile>,
    points: BTreeMap<Dev, Label>,
    private: BTreeMap<Bytes, PrivateHuge>,
    accounts: Vec<HugeAccount>,
    uncertainties: Vec<HugeUncertainty>,
}

impl Huge {
    /// Makes the account, of these buffers as far as they have huge pages.
    fn add(&mut self, buffers: &[Buffer], is_huge: &dyn Fn(&Buffer) -> bool) {
        let huge: Vec<&Buffer> =
            buffers.iter().filter(|b| b.id.kind == Kind::Hugetlbfs || is_huge(b)).collect();
        let Huge { pools, unheld, points, private, .. } = self;
        self.accounts = HugeAccount::of(pools, &huge, unheld, points, private);
    }
}

/// How many pages of each pool are in use.
fn in_use(pools: Vec<HugePool>) -> Vec<(Bytes, u64)> {
    let used = |pool: HugePool| (pool.size, pool.total.saturating_sub(pool.free));
    pools.into_iter().map(used).filter(|&(_, used)| used > 0).collect()
}

/// The pools of huge pages. `None`: there is no sysfs that belongs to this procfs.
fn pools(options: &Options) -> Option<Vec<HugePool>> {
    hugepages::pools(options.sys_root.as_deref()?).ok()
}

impl Scanner {
    /// Takes one snapshot, and makes the account of `Shmem:` from it
    /// ([`reconcile`](crate::reconcile)). The account is that of a single attempt: if `Shmem:`
    /// changed meanwhile, [`Reconciliation::uncertainties`] says so.
    ///
    /// # Errors
    /// As [`Scanner::scan`] and [`reconcile`](crate::reconcile::reconcile()).
    pub fn scan_and_reconcile(&mut self) -> Result<(Snapshot, Reconciliation), Error> {
        let (not_folded, before) = self.meminfo()?;
        let pools_before = pools(&self.options);
        let Scanned { mut snapshot, unheld, only_own } = self.scan_all()?;
        let listed = !unheld.is_empty();
        let Survey { mounts, mut unseen } = usage::survey(&self.root).map_err(|e| self.cannot_list(e))?;
        if listed {
            // The kernel's lists have those that only these processes see, too.
            unseen = 0;
        }
        // A file that only lsbuf has open counts as held by nobody. Other memory has no row but
        // that of its kind.
        let others = only_own.into_iter().filter(|buffer| buffer.id.kind != Kind::Tmpfs);
        let mut buffers = std::mem::take(&mut snapshot.buffers);
        let found = buffers.len();
        buffers.extend(others);
        let mut huge = self.huge(pools_before, &buffers, snapshot.unheld.as_ref())?;
        let (_, Meminfo { shmem, swap_used, hugetlb }) = self.meminfo()?;
        // If all huge pages are accounted for, no other segment can have any.
        let any_huge = match huge.accounts.is_empty() {
            true => hugetlb > Bytes(0),
            false => huge.accounts.iter().any(|account| account.left_over > 0),
        };
        let mounts: Vec<TmpfsMount> = mounts.into_values().collect();
        let is_huge = |b: &Buffer| self.is_huge(b);
        let balance = |is_huge: &dyn Fn(&Buffer) -> bool, any_huge| {
            Balance::of(shmem, swap_used, &buffers, mounts.clone(), &unheld, is_huge, any_huge)
        };
        let mut account = balance(&is_huge, any_huge);
        if account.maybe_huge.0 > 0 {
            let maybe =
                buffers.iter().filter(|b| b.id.kind == Kind::Sysv && b.id.dev.is_none() && !is_huge(b));
            let found = huge_segments(&huge.accounts, -account.left_over, account.maybe_swapped, maybe);
            if !found.is_empty() {
                let is_huge = |b: &Buffer| self.is_huge(b) || found.contains(&b.id);
                account = balance(&is_huge, false);
                huge.add(&buffers, &is_huge);
            }
        }
        buffers.truncate(found);
        snapshot.buffers = buffers;
        let mut coverage = snapshot.coverage.clone();
        // The account of `Shmem:` uses no reference counts. What the list of files that nobody
        // holds lacks concerns that of huge pages alone.
        coverage.notes.retain(|note| {
            let of_list = matches!(note, Note::UnheldMissing(_) | Note::UnheldUnproven { .. });
            !of_list && !matches!(note, Note::Uncounted { .. })
        });
        let reconciliation = Reconciliation {
            taken_at: snapshot.taken_at,
            host: snapshot.host.clone(),
            coverage,
            shmem_before: before.shmem,
            not_folded,
            unseen,
            listed,
            hugetlb,
            balance: account,
            huge: huge.accounts,
            huge_uncertainties: huge.uncertainties,
            pinned: pinned::by_rings(&self.root, &lists::own_pids(&self.root)),
        };
        Ok((snapshot, reconciliation))
    }

    /// The account of huge pages, and why it may be off.
    fn huge(
        &self,
        before: Option<Vec<HugePool>>,
        buffers: &[Buffer],
        listed: Option<&UnheldList>,
    ) -> Result<Huge, Error> {
        let mut huge = Huge::default();
        let Some(sys) = self.options.sys_root.as_deref() else { return Ok(huge) };
        let read = match hugepages::pools(sys) {
            Ok(read) => read,
            Err(error) => {
                let why = std::io::Error::from(error).to_string();
                huge.uncertainties.push(HugeUncertainty::NoPools { why });
                return Ok(huge);
            }
        };
        huge.pools = read.into_iter().filter(|pool| pool.total > 0).collect();
        if huge.pools.is_empty() {
            return Ok(huge);
        }
        huge.unheld = listed.iter().flat_map(|list| list.iter()).collect();
        huge.unheld.retain(|file| file.id.kind == Kind::Hugetlbfs);
        let files: Vec<Buffer> = huge.unheld.iter().map(UnheldFile::to_buffer).collect();
        huge.points = details::mount_points(&self.root, &files);
        let private = huge::private(&self.root, self.options.deadline).map_err(|e| self.cannot_list(e))?;
        huge.private = private.pages;
        huge.add(buffers, &|b| self.is_huge(b));
        let uncharged =
            huge.accounts.iter().flat_map(|account| account.held.iter().chain(&account.unattached));
        let uncharged = uncharged.map(|row| row.unknown).sum();
        let gaps = listed.is_none_or(|list| list.gaps() != UnheldGaps::default());
        let moved = before.map(in_use) != pools(&self.options).map(in_use);
        let reasons = [
            moved.then_some(HugeUncertainty::Moved),
            (private.unread > 0).then_some(HugeUncertainty::Unread { processes: private.unread }),
            private.not_compared.then_some(HugeUncertainty::NotCompared),
            gaps.then_some(HugeUncertainty::UnheldMissing),
            (uncharged > 0).then_some(HugeUncertainty::Uncharged { buffers: uncharged }),
        ];
        huge.uncertainties.extend(reasons.into_iter().flatten());
        Ok(huge)
    }

    /// Reads meminfo after folding the kernel's per-CPU counters into it; and why they could not be
    /// folded.
    fn meminfo(&mut self) -> Result<(Option<String>, Meminfo), Error> {
        let folded = meminfo::fold(self.root.dir());
        let not_folded = folded.err().map(|e| std::io::Error::from(e).to_string());
        let read = meminfo::read(self.root.dir());
        let failed = |e| Error::io(e, format!("cannot read {}", self.root.path().join("meminfo").display()));
        Ok((not_folded, read.map_err(failed)?))
    }

    /// Whether a buffer has huge pages: by its inode; or by its device, if the inode could not be
    /// read; or by what its table of segments says.
    fn is_huge(&self, buffer: &Buffer) -> bool {
        let overcounted = |(size, segment)| segments::is_overcounted(size, segment);
        if buffer.size.zip(buffer.segment.as_deref()).is_some_and(overcounted) {
            return true;
        }
        let filesystem =
            self.filesystems.as_ref().zip(buffer.id.dev).and_then(|(known, dev)| known.of_device(dev));
        buffer.huge_page.is_some() || filesystem == Some(Filesystem::KernelHuge)
    }
}
