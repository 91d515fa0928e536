//! JSON, schema `lsbuf.snapshot/1`: the contract with programs, as in
//! `docs/lsbuf.snapshot-1.schema.json`.
//!
//! The words are the model's ([`crate::model`] serializes). This module chooses the rows of a view
//! and lays the document out. Keys are stable: additions are free, a change of meaning makes a new
//! schema.
//!
//! What a terminal would obey is escaped even where JSON need not. The document is written as it is
//! made, one buffer after the other: it can be many times as large as the snapshot.

use std::io::{self, Write};

use super::View;
use super::layout::{self, JsonLayout};
use crate::model::serialize::{Rows, document};

/// Writes the view as one JSON document.
///
/// # Errors
/// Those of `out`.
pub fn json(out: &mut dyn Write, view: &View<'_>, layout: JsonLayout) -> io::Result<()> {
    let buffers = Rows(|| view.buffers.iter().filter_map(|&index| view.row(index)));
    let unheld = || view.buffers.iter().filter_map(|&index| view.unheld(index));
    let unheld = view.snapshot().unheld.as_ref().map(|_| Rows(unheld));
    let processes = Rows(|| view.processes.iter().map(|&index| view.ledger.process_row(index)));
    layout::document(out, &document(view.ledger, buffers, unheld, processes), layout)
}
