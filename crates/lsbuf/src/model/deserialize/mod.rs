//! Reads the model back from the words of the JSON schema, by serde.
//!
//! A [`Snapshot`] is read from a whole document, as `lsbuf -J` prints it, so that an answer that
//! was stored can be shown and compared like a new one. Parts of a buffer are read as they stand in
//! a document; a recording keeps them in that form.
//!
//! Limits: a document has no list of mount points, and of notes only the text. Times are read to
//! the second. The files that nobody holds ([`Snapshot::unheld`]) are not read. Figures that follow
//! from other ones are not read either: [`Ledger::of`](super::Ledger::of) computes them.

mod document;
mod origin;
pub(crate) mod parts;
mod process;
mod text;

use serde::{Deserialize, Deserializer, de};

use super::*;

/// Deserializes a type by way of another one that has the keys of the schema.
macro_rules! deserialize_by {
    ($($type:ty, $json:ty;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let json: $json = Deserialize::deserialize(deserializer)?;
                json.into_model().map_err(de::Error::custom)
            }
        }
    )*};
}

deserialize_by! {
    Snapshot, document::JsonDocument;
    Segment, parts::JsonSegment;
    Overlap, parts::JsonOverlap;
    GemHandle, parts::JsonHandle;
    KernelHolder, parts::JsonKernelHolder;
    PrivateCopies, parts::JsonPrivateCopies;
    Payers, parts::JsonPayers;
    OpenFile, parts::JsonOpenFile;
    OpenFileHolder, parts::JsonOpenFileHolder;
    Origin, origin::JsonOrigin;
    Stack, origin::JsonStack;
    KernelFrame, origin::JsonKernelFrame;
    UserFrame, origin::JsonUserFrame;
    Function, origin::JsonFunction;
    Holder, parts::JsonHolder;
    ThreadFds, parts::JsonThread;
    MapRef, parts::JsonMap;
    Device, document::JsonDevice;
    DeviceHolder, document::JsonDeviceHolder;
    Process, process::JsonProcess;
    ProcessDetails, process::JsonDetails;
}

/// Deserializes a type from its word or number.
macro_rules! deserialize_from {
    ($($type:ty, $from:ty, $read:expr;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let from: $from = Deserialize::deserialize(deserializer)?;
                let read: fn($from) -> Result<$type, String> = $read;
                read(from).map_err(de::Error::custom)
            }
        }
    )*};
}

deserialize_from! {
    Bytes, u64, |n| Ok(Bytes(n));
    Pid, u32, |n| Ok(Pid(n));
    Tid, u32, |n| Ok(Tid(n));
    Fd, u32, |n| Ok(Fd(n));
    Inode, u64, |n| Ok(Inode(n));
    Dev, String, |s| text::dev(&s).ok_or_else(|| unknown("device number", &s));
    Kind, String, |s| Kind::of_word(&s).ok_or_else(|| unknown("kind", &s));
    Source, String, |s| Source::of_word(&s).ok_or_else(|| unknown("source", &s));
    Why, String, |s| Why::of_word(&s).ok_or_else(|| unknown("estimate_reason", &s));
    KernelHolderKind, String, |s| KernelHolderKind::of_word(&s).ok_or_else(|| unknown("kernel holder", &s));
    Perms, String, |s| Perms::parse(s.as_bytes()).ok_or_else(|| unknown("protection", &s));
    Seals, Vec<String>, |words| Seals::of_words(&words).ok_or_else(|| unknown("seals", &words.join(",")));
    FdList, Vec<Fd>, |fds| Ok(fds.into());
    OpenFiles, Vec<OpenFile>, |files| Ok(OpenFiles { files });
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ShortList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ShortList<T>, D::Error> {
        Vec::deserialize(deserializer).map(ShortList::from)
    }
}

/// A value that this version does not know.
fn unknown(what: &str, value: &str) -> String {
    format!("unknown {what} {value:?}")
}

#[cfg(test)]
mod tests;
