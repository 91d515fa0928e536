//! What an answer says about itself and its buffers, and the keys by which the journal knows them.

use serde_json::Value;

use crate::answer::Answer;
use crate::soak::names::memfd_key;

/// Whether an answer comes from that source.
pub(super) fn is_from(answer: &Answer, source: &str) -> bool {
    answer.0["scan"]["sources"].as_array().is_some_and(|sources| sources.iter().any(|s| s == source))
}

/// Whether an answer says that it is complete.
pub(super) fn is_complete(answer: &Answer) -> bool {
    answer.0["scan"]["complete"] == Value::Bool(true)
}

/// Whether an answer says that memfds may be missing from it.
pub(super) fn may_miss(answer: &Answer) -> bool {
    let mut notes = answer.0["scan"]["notes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    !is_complete(answer) && notes.any(|note| note.contains("may be missing"))
}

/// Whether the source of an answer counts references to memfds.
pub(super) fn counts_memfds(answer: &Answer) -> bool {
    is_from(answer, "bpf:task_file")
}

/// The key, in the journal, of a listed buffer.
pub(super) fn key(b: &Value) -> Option<u64> {
    let ino = b["ino"].as_u64()?;
    match b["kind"].as_str()? {
        "dmabuf" => Some(ino),
        "memfd" => Some(memfd_key(ino)),
        _ => None,
    }
}

/// A buffer of the answer, by its key in the journal.
pub(super) fn find(answer: &Answer, ino: u64) -> Option<&Value> {
    answer.list("buffers").iter().find(|b| key(b) == Some(ino))
}

/// How an error names a buffer, by its key in the journal.
pub(super) fn named(ino: u64) -> String {
    if ino >= memfd_key(0) { format!("memfd {}", ino - memfd_key(0)) } else { ino.to_string() }
}
