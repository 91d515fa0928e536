//! A measured snapshot as text: table, raw, CSV, JSON, one buffer's account; the summary below a
//! table; a check as TAP; the account of shared memory; the end of a diagnosis.
//!
//! A [`View`] says which buffers and processes are shown and in what order; the formats only differ in how a
//! [`Cell`] is written. Strangers' text passes `escape` in every format but JSON, which escapes by itself.
//! Everything is returned or written to a [`std::io::Write`]; nothing is printed.

mod cell;
mod columns;
mod escape;
mod json;
mod layout;
mod reconcile;
mod show;
mod summary;
mod table;
mod tap;
mod verdict;

pub use cell::{Cell, Sizes, Style};
pub use columns::{
    BUFFER_COLUMNS, Column, DEFAULT_BUFFER_COLUMNS, DEFAULT_DMABUF_COLUMNS, DEFAULT_PROCESS_COLUMNS,
    PROCESS_COLUMNS,
};
pub use escape::{escape, unescape};
pub use json::json;
pub use reconcile::{reconciliation, reconciliation_json};
pub use show::show;
pub use summary::{nothing, summary};
pub use table::{csv, raw, table};
pub use tap::tap;
pub use verdict::verdict;

use crate::model::{Ledger, Snapshot};

/// What is shown of a snapshot, and in what order.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// What was found.
    pub snapshot: &'a Snapshot,
    /// Its figures, made from that very snapshot.
    pub ledger: &'a Ledger,
    /// Indices into [`Snapshot::buffers`].
    pub buffers: Vec<usize>,
    /// Indices into [`Snapshot::processes`].
    pub processes: Vec<usize>,
}

impl<'a> View<'a> {
    /// Everything, in the snapshot's own order.
    #[must_use]
    pub fn all(snapshot: &'a Snapshot, ledger: &'a Ledger) -> View<'a> {
        View {
            snapshot,
            ledger,
            buffers: (0..snapshot.buffers.len()).collect(),
            processes: (0..snapshot.processes.len()).collect(),
        }
    }
}
