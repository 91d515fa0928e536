//! Totals over a set of kinds, such as all shared memory: the figures of one summary line.
//!
//! A part is added up from the [`KindTotals`] of a [`Ledger`], so it covers the whole machine,
//! whatever rows are shown. Memory that buffers of two kinds share counts for both.

use std::collections::HashSet;

use super::ledger::knows_unheld;
use super::{Buffer, Bytes, Kind, KindTotals, Kinds, Ledger, Pid};

/// The totals of some kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// Distinct buffers.
    pub buffers: u64,
    /// Their sizes together. `None`: one is unknown, or the sum does not fit into 64 bits. This
    /// holds for the other sums, too.
    pub size: Option<Bytes>,
    /// The sum of the known sizes, at most 2^64 - 1. `size` is no less.
    pub size_at_least: Bytes,
    /// What they cost together ([`Buffer::cost`]).
    pub cost: Option<Bytes>,
    /// The sum of the known costs, at most 2^64 - 1. `cost` is no less.
    pub at_least: Bytes,
    /// The cost of those that at least one process holds.
    pub held: Option<Bytes>,
    /// The cost of those that only processes hold that could not be read
    /// ([`Buffer::is_held_unseen`]).
    pub held_unseen: Option<Bytes>,
    /// The cost of those that no process holds. `None` also if dma-bufs are among the kinds and no
    /// source listed them.
    pub kernel_only: Option<Bytes>,
    /// Processes that hold at least one of them.
    pub holders: u64,
    /// References that no process explains. `None`: those of one buffer are unknown.
    pub kernel_refs: Option<u64>,
    /// Whether `kernel_refs` has an estimate in it.
    pub estimate: bool,
}

impl Part {
    /// Adds up the totals of `kinds`.
    #[must_use]
    pub fn of(ledger: &Ledger<'_>, kinds: Kinds) -> Part {
        let totals = || ledger.kinds.iter().filter(|totals| kinds.has(totals.kind));
        let rows = || ledger.rows().filter(|row| kinds.has(row.buffer.id.kind));
        let buffers = || rows().map(|row| row.buffer);
        let holders: HashSet<Pid> = buffers().flat_map(|b| &b.holders).map(|holder| holder.pid).collect();
        let all_listed = !kinds.has(Kind::DmaBuf) || knows_unheld(ledger.snapshot());
        Part {
            buffers: totals().map(|totals| totals.buffers).sum(),
            size: Bytes::total(totals().map(|totals| totals.size)),
            size_at_least: Bytes::at_least(buffers().map(|buffer| buffer.size)),
            cost: Bytes::total(totals().map(KindTotals::cost)),
            at_least: Bytes::at_least(totals().map(|totals| Some(totals.at_least))),
            held: Bytes::total(totals().map(|totals| totals.held)),
            held_unseen: Bytes::total(buffers().filter(|b| b.is_held_unseen()).map(Buffer::cost)),
            kernel_only: all_listed
                .then(|| Bytes::total(totals().map(|totals| totals.kernel_only)))
                .flatten(),
            holders: holders.len() as u64,
            kernel_refs: rows().try_fold(0u64, |sum, row| sum.checked_add(row.account.kernel()?)),
            estimate: rows().any(|row| row.account.is_estimate()),
        }
    }
}
