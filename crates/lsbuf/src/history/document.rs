//! One answer that was stored as `lsbuf -J` prints it.

use std::io::Read;

use crate::error::{Error, ErrorKind};
use crate::model::Snapshot;

/// Reads the snapshot of a document with the schema lsbuf.snapshot/1.
///
/// # Errors
/// If it cannot be read, or is no such document.
pub fn read_document(mut document: impl Read) -> Result<Snapshot, Error> {
    let mut text = Vec::new();
    document
        .read_to_end(&mut text)
        .map_err(|error| Error::io(error, "the document cannot be read".to_owned()))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::new(ErrorKind::NotRecording, format!("not what lsbuf -J prints: {error}")))
}
