//! What each table has in its columns: the model's values as they are stored, and read back.
//!
//! One module for each group of tables. A column has the name of its key in JSON.

mod buffer;
mod coverage;
mod origin;
mod process;
mod sample;

pub(super) use buffer::{
    BUFFER_STATE, HOLDING, boot_of, buffer_row, buffer_state, holding, read_buffer, read_buffers,
    read_holder, read_holders,
};
pub(super) use coverage::{
    COVERAGE, DEVICE, MOUNT_POINT, NOTE, coverage, device, mount_point, note, partial_samples, read_coverage,
    read_devices, read_mount_points,
};
pub(super) use origin::{ORIGIN, Stacks, last_origin, origin, read_origins};
pub(super) use process::{PROCESS_STATE, process_row, process_state, read_process, read_processes};

pub(super) use sample::{
    add_run, add_sample, boot_row, find_sample, read_host, read_run, read_sample, sample,
};

use super::table::Table;
use crate::error::Error;

/// Every table of intervals.
pub(super) const TABLES: &[Table] =
    &[BUFFER_STATE, COVERAGE, DEVICE, HOLDING, MOUNT_POINT, NOTE, ORIGIN, PROCESS_STATE];

/// Those of them that version 2 of the schema added.
pub(super) const TABLES_2: &[Table] = &[ORIGIN];

/// Why a snapshot cannot be read: SQLite refused, or a row has what no version stores.
#[derive(Debug)]
pub(super) enum Unreadable {
    Sqlite(rusqlite::Error),
    Nonsense(String),
    /// What is read cannot be put elsewhere.
    Elsewhere(Error),
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Unreadable {
        Unreadable::Sqlite(error)
    }
}

impl From<String> for Unreadable {
    fn from(text: String) -> Unreadable {
        Unreadable::Nonsense(text)
    }
}
