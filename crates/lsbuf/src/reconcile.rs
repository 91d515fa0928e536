//! `Shmem:` of `/proc/meminfo`, as free(1) shows it, beside what lsbuf finds: an account that adds up to the page.
//!
//! `Shmem:` counts the pages in memory of every file of every tmpfs (`NR_SHMEM` in mm/shmem.c). Those are
//!
//! - what processes hold, by kind, as much as is charged for it; and System V segments, attached or not;
//! - files of mounted tmpfs that no process holds: what each says is used of it, less what is held there;
//! - less the part of both that is in swap, which is charged, too;
//! - and what is left over: files that no process holds, has mapped, or can name.
//!
//! Pages of hugetlbfs, of memfd_secret and of guest_memfd are in none of it; they are told apart ([`Balance::outside`]).
//!
//! [`Balance`] is the arithmetic: its [`rows`](Balance::rows) sum up to `Shmem:` whatever was found, for what is left over
//! is one of them, with its sign. What it may consist of, and how far it can be trusted, [`Reconciliation::uncertainties`] says.
//!
//! Limits: the parts are read one after another. A machine at rest adds up; where `Shmem:` moves meanwhile the scan is
//! repeated, and then told as [`Uncertainty::Moved`]. Where some of it is in swap, only segments, and sources that tell
//! ([`Buffer::swapped`](crate::model::Buffer::swapped)), are exact; the rest is bounded by what is used of swap.

mod account;
mod uncertainty;

pub use account::{Balance, KindRow, MountRow, ReconcileRow, Reconciliation};
pub use uncertainty::{CAUSES, Uncertainty};

use crate::error::Error;
use crate::scan::Options;

/// Draws up the account of this machine, whatever kinds the options name. As root it is complete.
///
/// As root it also has each processor add up its counters, which interrupts all of them for a moment.
///
/// # Errors
/// As [`Scanner::new`](crate::scan::Scanner::new) and [`Scanner::scan`](crate::scan::Scanner::scan); and if
/// `/proc/meminfo` cannot be read or understood.
pub fn reconcile(options: Options) -> Result<Reconciliation, Error> {
    crate::scan::reconcile(options)
}
