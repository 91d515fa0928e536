//! The parts of a buffer that most buffers do not have, in the words of the JSON schema. A
//! recording keeps them in one column.

use serde::Serialize;

use super::{JsonSegment, Rows, escape, lost_bytes};
use crate::model::{Buffer, GemHandle, KernelHolder, OpenFile, Overlap, Payers, PrivateCopies, Seals};

/// What a document has of a buffer's parts. Those that are not there are left out.
#[derive(Serialize)]
pub(crate) struct JsonParts<'a, N, E> {
    #[serde(skip_serializing_if = "Option::is_none")]
    seals: Option<Seals>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<JsonSegment<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    same_memory: Option<&'a [Overlap]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments: Option<N>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attachments_bytes: Option<E>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    handles: &'a [GemHandle],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    kernel_holders: &'a [KernelHolder],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    private_copies: &'a [PrivateCopies],
    #[serde(skip_serializing_if = "Option::is_none")]
    payers: Option<&'a Payers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    open_files: Option<&'a [OpenFile]>,
}

/// The parts of a buffer. `None`: it has none of them.
pub(crate) fn parts(buffer: &Buffer) -> Option<impl Serialize + '_> {
    let Buffer { id, seals, segment, overlaps, attachments, payers, open_files, .. } = buffer;
    let lists = [buffer.handles.len(), buffer.kernel_holders.len(), buffer.private_copies.len()];
    let has_any = seals.is_some()
        || segment.is_some()
        || overlaps.is_some()
        || attachments.is_some()
        || payers.is_some()
        || open_files.is_some()
        || lists.iter().any(|&length| length > 0);
    has_any.then(|| {
        let names = attachments.as_deref();
        let lost_any = names.is_some_and(|names| names.iter().any(|name| lost_bytes(Some(name)).is_some()));
        JsonParts {
            seals: *seals,
            segment: segment.as_deref().map(|segment| JsonSegment::of(segment, id.ino)),
            same_memory: overlaps.as_deref(),
            attachments: names,
            attachments_bytes: names
                .filter(|_| lost_any)
                .map(|names| Rows(|| names.iter().map(|name| escape(name.as_bytes())))),
            handles: &buffer.handles,
            kernel_holders: &buffer.kernel_holders,
            private_copies: &buffer.private_copies,
            payers: payers.as_deref(),
            open_files: open_files.as_deref().map(|open| &open.files[..]),
        }
    })
}
