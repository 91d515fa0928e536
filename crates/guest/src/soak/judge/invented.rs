//! What an answer has that never existed.
//!
//! This claim holds for every buffer of every answer, also while the world moves.

use std::collections::BTreeSet;

use serde_json::Value;

use super::printed::key;
use crate::make;
use crate::soak::figures::address;
use crate::soak::history::History;

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
        let map_was = |m: &Value| {
            held.maps.iter().any(|&(start, end, offset)| {
                (address(&m["start"]), address(&m["end"])) == (Some(start as u64), Some(end as u64))
                    && (m["offset"] == offset || m["offset"].is_null() && made.exporter == make::DRM)
            })
        };
        if !numbers("fds").is_subset(&held.fds)
            || !numbers("opaths").is_subset(&held.opaths)
            || !holder["maps"].as_array().into_iter().flatten().all(map_was)
        {
            wrong.push(format!(
                "references of process {pid} to buffer {ino} that never existed: {holder}; it ever held {held:?}"
            ));
        }
    }
    wrong
}
