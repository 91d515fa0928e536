//! Answers as text: tables, raw fields, CSV, JSON; one buffer in full; the totals below a table;
//! the report of a check as TAP; a reconciliation; the end of a diagnosis.
//!
//! A [`View`] says which buffers and processes are shown, and in what order. The formats differ
//! only in how they write a [`Cell`]. Text that other processes chose passes [`crate::escape`] in
//! every format but JSON, which escapes by itself. Everything is returned or written to a
//! [`std::io::Write`]; nothing is printed.

mod align;
mod cell;
mod columns;
mod digits;
mod json;
mod layout;
mod reconcile;
mod show;
mod summary;
mod table;
#[cfg(feature = "check")]
mod tap;
mod verdict;

pub use cell::{Cell, Sizes, Style};
pub use columns::{
    BUFFER_COLUMNS, Column, DEFAULT_BUFFER_COLUMNS, DEFAULT_DMABUF_COLUMNS, DEFAULT_PROCESS_COLUMNS,
    PROCESS_COLUMNS, RARE_REFERENCE_COLUMNS,
};
pub use json::json;
pub use layout::JsonLayout;
pub use reconcile::{reconciliation, reconciliation_json};
pub use show::show;
pub use summary::{nothing, summary};
pub use table::{csv, raw, table};
#[cfg(feature = "check")]
pub use tap::tap;
pub use verdict::verdict;

use crate::model::{Ledger, Snapshot};

/// What is shown of a snapshot, and in what order.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The snapshot with its figures.
    pub ledger: &'a Ledger<'a>,
    /// Indices into [`Snapshot::buffers`].
    pub buffers: Vec<usize>,
    /// Indices into [`Snapshot::processes`].
    pub processes: Vec<usize>,
}

impl<'a> View<'a> {
    /// Everything, in the snapshot's own order.
    #[must_use]
    pub fn all(ledger: &'a Ledger<'a>) -> View<'a> {
        let snapshot = ledger.snapshot();
        View {
            ledger,
            buffers: (0..snapshot.buffers.len()).collect(),
            processes: (0..snapshot.processes.len()).collect(),
        }
    }

    /// What was found.
    #[must_use]
    pub fn snapshot(&self) -> &'a Snapshot {
        self.ledger.snapshot()
    }
}
