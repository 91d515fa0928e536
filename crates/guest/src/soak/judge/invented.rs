//! What an answer has that never existed.
//!
//! This claim holds for every buffer of every answer, also while the world moves.

use std::collections::BTreeSet;

use serde_json::Value;

use super::printed::key;
use crate::make;
use crate::soak::figures::address;
use crate::soak::history::History;

/// A mapping as it was printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    start: u64,
    end: u64,
    offset: Option<u64>,
}

/// The printed mappings, by their addresses. One without addresses has those of no mapping.
fn pieces(maps: &Value) -> Vec<Piece> {
    let piece = |map: &Value| Piece {
        start: address(&map["start"]).unwrap_or_default(),
        end: address(&map["end"]).unwrap_or_default(),
        offset: map["offset"].as_u64(),
    };
    let mut pieces: Vec<Piece> = maps.as_array().into_iter().flatten().map(piece).collect();
    pieces.sort_unstable();
    pieces
}

/// Whether each piece was a mapping, or is one with those that follow it without a gap: the kernel
/// splits a mapping before it unmaps a part, and a walk without its lock can see both parts.
fn all_were(pieces: &[Piece], was: impl Fn(&Piece) -> bool) -> bool {
    let mut left = pieces;
    while let Some((&first, mut rest)) = left.split_first() {
        let mut whole = first;
        while !was(&whole) {
            let Some((next, behind)) = rest.split_first() else { return false };
            let offset = whole.offset.map(|offset| offset + (whole.end - whole.start));
            if (next.start, next.offset) != (whole.end, offset) {
                return false;
            }
            whole.end = next.end;
            rest = behind;
        }
        left = rest;
    }
    true
}

/// The properties of a printed buffer that never existed.
pub(super) fn invented(history: &History, b: &Value) -> Vec<String> {
    let Some((ino, made)) = key(b).and_then(|ino| Some((ino, history.made.get(&ino)?))) else {
        // A udmabuf's memory is a memfd until the udmabuf is made. No journal has that memfd.
        if b["kind"] == "memfd" && b["name"] == "udmabuf" {
            return Vec::new();
        }
        return vec![format!("a buffer that never existed: {b}")];
    };
    let mut wrong = Vec::new();
    // A memfd that has just been made has no size yet.
    let unsized_yet = b["kind"] == "memfd" && b["size"] == 0;
    if !b["size"].is_null() && b["size"] != made.size && !unsized_yet {
        wrong.push(format!("a size that buffer {ino} never had: {} instead of {}", b["size"], made.size));
    }
    if !b["exporter"].is_null() && b["exporter"] != made.exporter.as_str() {
        wrong.push(format!("an exporter that buffer {ino} never had: {}", b["exporter"]));
    }
    if let Some(name) = b["name"].as_str() {
        let was =
            |given: &[u8]| String::from_utf8_lossy(given) == name || given == b"<none>" && name.is_empty();
        if !history.names(ino).any(was) {
            let names: Vec<String> = history.names(ino).map(|n| n.escape_ascii().to_string()).collect();
            wrong.push(format!("a name that buffer {ino} never had: {name:?}; it had {names:?}"));
        }
    }
    for holder in b["holders"].as_array().into_iter().flatten() {
        let pid = holder["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let Some(held) = history.held(pid, ino) else {
            wrong.push(format!("process {pid} never held buffer {ino}: {holder}"));
            continue;
        };
        let numbers = |key: &str| -> BTreeSet<u32> {
            let numbers = holder[key].as_array().into_iter().flatten().filter_map(Value::as_u64);
            numbers.filter_map(|n| u32::try_from(n).ok()).collect()
        };
        let map_was = |piece: &Piece| {
            held.maps.iter().any(|&(start, end, offset)| {
                (piece.start, piece.end) == (start as u64, end as u64)
                    && (piece.offset == Some(offset) || piece.offset.is_none() && made.exporter == make::DRM)
            })
        };
        if !numbers("fds").is_subset(&held.fds)
            || !numbers("opaths").is_subset(&held.opaths)
            || !all_were(&pieces(&holder["maps"]), map_was)
        {
            wrong.push(format!(
                "references of process {pid} to buffer {ino} that never existed: {holder}; it ever held {held:?}"
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Check that the parts of a mapping that is being split are taken for it, and that other
    /// pieces are not.
    #[test]
    fn parts_of_a_mapping() {
        let map = |start: u64, end: u64, offset: u64| json!({"start": format!("{start:#x}"), "end": format!("{end:#x}"), "offset": offset});
        let was = |piece: &Piece| *piece == Piece { start: 16, end: 48, offset: Some(64) };
        let all = |maps: &[Value]| all_were(&pieces(&json!(maps)), was);
        assert!(all(&[map(16, 48, 64)]) && all(&[map(32, 48, 80), map(16, 32, 64)]) && all(&[]));
        assert!(!all(&[map(16, 32, 64)]), "the other part is missing");
        assert!(!all(&[map(16, 32, 64), map(32, 48, 64)]), "another offset");
        assert!(!all(&[map(16, 32, 64), map(33, 48, 81)]), "a gap");
        assert!(!all(&[map(16, 48, 64), map(48, 64, 96)]), "one that never was");
    }
}
