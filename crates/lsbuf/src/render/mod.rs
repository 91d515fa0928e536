//! Answers as text: tables, raw fields, CSV, JSON; one buffer in full; the totals below a table;
//! the report of a check as TAP; a reconciliation; the end of a diagnosis; a page to look at.
//!
//! A [`View`] says which buffers and processes are shown, and in what order. The formats differ
//! only in how they write a [`Cell`]. Text that other processes chose passes [`crate::escape`] in
//! every format but JSON, which escapes by itself. Everything is returned or written to a
//! [`std::io::Write`]; nothing is printed.

mod align;
#[cfg(feature = "history")]
mod blocks;
mod cell;
mod columns;
mod details;
mod diff;
mod digits;
mod inherited;
mod json;
mod layout;
#[cfg(feature = "history")]
mod leaks;
#[cfg(feature = "history")]
mod leaks_json;
#[cfg(feature = "history")]
mod life;
#[cfg(feature = "history")]
mod life_json;
#[cfg(feature = "metrics")]
mod metrics;
mod origin;
mod page;
mod payer;
mod reconcile;
mod reconcile_huge;
mod report;
mod show;
mod sum;
mod summary;
mod table;
#[cfg(feature = "check")]
mod tap;
#[cfg(feature = "bpf")]
mod trace;
mod verdict;

pub use cell::{Cell, Sizes, Style};
pub use columns::{
    BUFFER_COLUMNS, Column, DEFAULT_BUFFER_COLUMNS, DEFAULT_DMABUF_COLUMNS, DEFAULT_PROCESS_COLUMNS,
    DEFAULT_UNHELD_COLUMNS, PROCESS_COLUMNS, RARE_REFERENCE_COLUMNS,
};
pub use diff::{
    DEFAULT_DIFF_COLUMNS, DIFF_COLUMNS, DIFF_GROUP_COLUMNS, DIFF_PROCESS_COLUMNS, Differences, diff_json,
    diff_summary,
};
pub use json::json;
pub use layout::JsonLayout;
#[cfg(feature = "history")]
pub use leaks::{DEFAULT_LEAK_COLUMNS, LEAK_COLUMNS, fence_evidence, leak_evidence, leak_summary};
#[cfg(feature = "history")]
pub use leaks_json::leaks_json;
#[cfg(feature = "history")]
pub use life::life;
#[cfg(feature = "history")]
pub use life_json::life_json;
#[cfg(feature = "metrics")]
pub use metrics::{MOST_SERIES, MetricsFormat, Scrape, metrics};
pub use page::{PageData, PageOrigin, page, page_policy};
pub use reconcile::{reconciliation, reconciliation_json};
#[cfg(feature = "bpf")]
pub use report::trace_pprof;
pub use report::{Weight, folded, pprof, unknown_costs};
pub use show::show;
pub use sum::{DEFAULT_SUM_COLUMNS, SUM_COLUMNS, sum_json, sum_summary};
pub use summary::{nothing, summary};
pub use table::{csv, raw, table};
#[cfg(feature = "check")]
pub use tap::tap;
#[cfg(feature = "bpf")]
pub use trace::{
    TraceCounts, trace_balance, trace_balance_json, trace_begin_json, trace_counts, trace_counts_json,
    trace_end_json, trace_heading, trace_item, trace_item_json, trace_loss,
};
pub use verdict::verdict;

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

use crate::model::{
    Account, Buffer, BufferId, BufferRow, Inode, Kind, LeakShape, Ledger, Snapshot, Sum, UnheldFile,
    UnheldList,
};

/// What is shown of a snapshot, and in what order.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The snapshot with its figures.
    pub ledger: &'a Ledger<'a>,
    /// Indices into [`Snapshot::buffers`], and behind the last of them into [`Snapshot::unheld`].
    pub buffers: Vec<usize>,
    /// Indices into [`Snapshot::processes`].
    pub processes: Vec<usize>,
    /// The groups, for columns of groups.
    pub sum: Option<&'a Sum>,
    /// The difference, for columns of what has changed.
    pub differences: Option<&'a Differences<'a>>,
    /// The groups over time, for columns of suspects.
    #[cfg(feature = "history")]
    pub suspects: Option<&'a crate::history::Suspects>,
    /// The file that nobody holds which was unpacked last, and its index: all cells of its row need
    /// it.
    unpacked: RefCell<Option<(usize, Rc<Buffer>)>>,
}

/// A buffer of a view.
#[derive(Clone, Debug)]
pub enum ViewedBuffer<'a> {
    /// One of the snapshot's buffers.
    Found(&'a Buffer),
    /// Made of a file that nobody holds.
    Unheld(Rc<Buffer>),
}

impl Deref for ViewedBuffer<'_> {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        match self {
            ViewedBuffer::Found(buffer) => buffer,
            ViewedBuffer::Unheld(buffer) => buffer,
        }
    }
}

impl<'a> View<'a> {
    /// Everything, in the snapshot's own order.
    #[must_use]
    pub fn all(ledger: &'a Ledger<'a>) -> View<'a> {
        let snapshot = ledger.snapshot();
        View {
            ledger,
            buffers: (0..snapshot.buffers.len() + snapshot.unheld.as_ref().map_or(0, UnheldList::len))
                .collect(),
            processes: (0..snapshot.processes.len()).collect(),
            sum: None,
            differences: None,
            #[cfg(feature = "history")]
            suspects: None,
            unpacked: RefCell::new(None),
        }
    }

    /// What was found.
    #[must_use]
    pub fn snapshot(&self) -> &'a Snapshot {
        self.ledger.snapshot()
    }

    /// The buffer at an index of [`View::buffers`].
    #[must_use]
    pub fn buffer(&self, index: usize) -> ViewedBuffer<'a> {
        if let Some(buffer) = self.snapshot().buffers.get(index) {
            return ViewedBuffer::Found(buffer);
        }
        let mut unpacked = self.unpacked.borrow_mut();
        if let Some((_, buffer)) = unpacked.as_ref().filter(|(nth, _)| *nth == index) {
            return ViewedBuffer::Unheld(Rc::clone(buffer));
        }
        let buffer = Rc::new(self.unheld(index).map_or_else(unknown, |file| file.to_buffer()));
        *unpacked = Some((index, Rc::clone(&buffer)));
        ViewedBuffer::Unheld(buffer)
    }

    /// What the ledger says of the buffer at an index of [`View::buffers`]; `None`: it is a file
    /// that nobody holds.
    #[must_use]
    pub fn row(&self, index: usize) -> Option<BufferRow<'a>> {
        (index < self.snapshot().buffers.len()).then(|| self.ledger.row(index))
    }

    /// Where the references are of the buffer at an index of [`View::buffers`].
    #[must_use]
    pub fn account(&self, index: usize) -> Account {
        self.row(index).map_or_else(|| Account::of_unheld(&self.buffer(index)), |row| row.account)
    }

    /// The shape of the buffer at an index of [`View::buffers`].
    #[must_use]
    pub fn shape(&self, index: usize) -> Option<LeakShape> {
        self.row(index).map_or(Some(LeakShape::Unheld), |row| row.shape)
    }

    /// The file that nobody holds at an index of [`View::buffers`]; `None`: it is another buffer.
    #[must_use]
    pub fn unheld(&self, index: usize) -> Option<UnheldFile> {
        let snapshot = self.snapshot();
        snapshot.unheld.as_ref()?.get(index.checked_sub(snapshot.buffers.len())?)
    }
}

/// What stands for a row that the view does not have.
fn unknown() -> Buffer {
    Buffer::new(BufferId::new(Kind::ShmOther, None, Inode(0)))
}
