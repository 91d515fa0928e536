//! Reads what the account of [`reconcile`](crate::reconcile) is made from: `Shmem:` before and
//! after a scan of all kinds of shared memory, and how much of every mounted tmpfs is used.
//!
//! These come from different moments. If `Shmem:` changed in between, all of it is read again.
//!
//! Limits: after three attempts the last one is the answer, with both values of `Shmem:`.

use super::options::Options;
use super::{Scanned, Scanner, segments};
use crate::error::Error;
use crate::kernel::meminfo::{self, Meminfo};
use crate::kernel::shmem::Filesystem;
use crate::kernel::shmem::usage::{self, Survey};
use crate::model::{Buffer, Bytes, Kind, Kinds, Note};
use crate::reconcile::account::{Balance, Reconciliation};

/// How often all is read if `Shmem:` changes each time.
const ATTEMPTS: usize = 3;

/// See [`crate::reconcile::reconcile`].
pub(crate) fn reconcile(options: Options) -> Result<Reconciliation, Error> {
    let mut scanner = Scanner::new(Options { kinds: Kinds::SHMEM, ..options })?;
    let mut answer = scanner.balance_once()?;
    for _ in 1..ATTEMPTS {
        if answer.shmem_before == answer.balance.shmem {
            break;
        }
        answer = scanner.balance_once()?;
    }
    Ok(answer)
}

impl Scanner {
    fn balance_once(&mut self) -> Result<Reconciliation, Error> {
        let (not_folded, before) = self.meminfo()?;
        let Scanned { snapshot, unheld, only_own } = self.scan_all()?;
        let listed = !unheld.is_empty();
        let Survey { mounts, mut unseen } = usage::survey(&self.root).map_err(|e| self.cannot_list(e))?;
        if listed {
            // The kernel's lists have those that only these processes see, too.
            unseen = 0;
        }
        let (_, Meminfo { shmem, swap_used, hugetlb }) = self.meminfo()?;
        let any_huge = hugetlb > Bytes(0);
        let mounts = mounts.into_values().collect();
        let is_huge = |b: &Buffer| self.is_huge(b);
        // A file that only lsbuf has open counts as held by nobody. Other memory has no row but that
        // of its kind.
        let others = only_own.into_iter().filter(|buffer| buffer.id.kind != Kind::Tmpfs);
        let buffers: Vec<Buffer> = snapshot.buffers.into_iter().chain(others).collect();
        let balance = Balance::of(shmem, swap_used, &buffers, mounts, &unheld, is_huge, any_huge);
        let (taken_at, host, mut coverage) = (snapshot.taken_at, snapshot.host, snapshot.coverage);
        // The account of `Shmem:` uses no reference counts.
        coverage.notes.retain(|note| !matches!(note, Note::Uncounted { .. }));
        let shmem_before = before.shmem;
        Ok(Reconciliation {
            taken_at,
            host,
            coverage,
            shmem_before,
            not_folded,
            unseen,
            listed,
            hugetlb,
            balance,
        })
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
