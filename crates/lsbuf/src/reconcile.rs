//! Explains the line `Shmem` of `/proc/meminfo`, which free(1) calls shared, by what lsbuf finds:
//! an account that adds up to it, to the page.
//!
//! `Shmem` counts the pages in memory of every file of every tmpfs (`NR_SHMEM` in mm/shmem.c). The
//! account has
//!
//! - what is charged for buffers that processes hold, by kind, and for System V segments, attached
//!   or not;
//! - files of each tmpfs that no process holds. By BPF iterators the kernel's lists of inodes tell
//!   this. Without them it is what a mounted tmpfs says is used of it, less what is held there;
//! - less the part of both that is in swap, because that is charged, too;
//! - what is left over: without the lists, files that lsbuf cannot find, such as a GPU driver's
//!   objects that no process has mapped ([`Reconciliation::causes`]).
//!
//! Pages of hugetlbfs, memfd_secret and guest_memfd are not in `Shmem`; they are listed apart
//! ([`Balance::outside`]).
//!
//! [`Balance`] is the arithmetic. Its [`rows`](Balance::rows) always sum up to `Shmem`, because
//! what is left over is one of them, with its sign. [`Reconciliation::uncertainties`] says why that
//! row may be off, and [`Reconciliation::causes`] what it may consist of.
//!
//! Limits: the parts are read one after another, so only a machine at rest adds up exactly. If
//! `Shmem` changes during the scan, the scan is repeated, and in the end [`Uncertainty::Moved`]
//! says so. With swap in use, the part in swap is exact only for segments and for sources that
//! report it ([`Buffer::swapped`](crate::model::Buffer::swapped)); for others there is only an
//! upper bound, the swap in use.

pub(crate) mod account;
pub(crate) mod huge;
mod uncertainty;

pub use account::{Balance, KindRow, MountRow, ReconcileRow, Reconciliation};
pub use huge::{HugeAccount, HugeMount, HugeOwner, HugeRow, HugeUncertainty, PrivateHuge};
pub use uncertainty::Uncertainty;

use crate::error::Error;
use crate::scan::Options;

/// Makes the account of this machine, for all kinds, whatever kinds the options name. As root it is
/// complete.
///
/// As root it first has every processor add up its counters, which interrupts all of them for a
/// moment.
///
/// # Errors
/// As [`Scanner::new`](crate::scan::Scanner::new) and
/// [`Scanner::scan`](crate::scan::Scanner::scan); and if `/proc/meminfo` cannot be read or
/// understood.
pub fn reconcile(options: Options) -> Result<Reconciliation, Error> {
    crate::scan::reconcile(options)
}
