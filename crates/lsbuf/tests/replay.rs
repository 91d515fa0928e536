//! Tests trees that were recorded from real kernels: they give the answer that the live kernel
//! gave, and the truth according to the test processes of the recording; and whatever is damaged in
//! a tree, the accounts of the answer add up.

#[path = "common/recorded.rs"]
mod recorded;

use std::path::Path;

use lsbuf_guest::answer::Answer;
use proptest::prelude::*;
use recorded::{Recorded, assert_balanced, damage, json, sorted};
use serde_json::Value;

/// What a replay cannot know: when it was, how long it took, and the processes that were not
/// recorded.
const LIVE_ONLY: &[&str] = &[".taken_at", ".scan.duration_us", ".scan.processes"];

fn trees() -> Vec<Recorded> {
    recorded::all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recorded")))
}

/// Compares everything in the live answer. The replay may have more, which lsbuf has learnt since.
fn compare(place: &str, live: &Value, replayed: &Value) {
    if LIVE_ONLY.contains(&place) {
        return;
    }
    match (live, replayed) {
        (Value::Object(live), Value::Object(replayed)) => {
            for (key, live) in live {
                let place = format!("{place}.{key}");
                // A missing key breaks programs that read it, also if it was null.
                let replayed = replayed.get(key);
                assert!(replayed.is_some(), "{place} has gone");
                replayed.into_iter().for_each(|replayed| compare(&place, live, replayed));
            }
        }
        (Value::Array(live), Value::Array(replayed)) => {
            assert_eq!(live.len(), replayed.len(), "{place}");
            for (nth, (live, replayed)) in live.iter().zip(replayed).enumerate() {
                compare(&format!("{place}.{nth}"), live, replayed);
            }
        }
        _ => assert_eq!(live, replayed, "{place}"),
    }
}

/// Check that the comparison notices a missing key, also if it was null, and accepts a new one.
#[test]
fn keys_that_come_and_go() {
    let recorded = serde_json::json!({ "buffers": [{ "name": null, "ino": 7 }] });
    let same = |replayed: Value| std::panic::catch_unwind(|| compare("", &recorded, &replayed)).is_ok();
    assert!(same(serde_json::json!({ "buffers": [{ "name": null, "ino": 7, "kind": "memfd" }] })));
    assert!(!same(serde_json::json!({ "buffers": [{ "ino": 7 }] })));
    assert!(!same(serde_json::json!({ "buffers": [{ "name": "cam", "ino": 7 }] })));
}

/// Check that every amd64 kernel of the table is recorded. Recordings are text, which other
/// machines print alike.
#[test]
fn every_kernel_is_recorded() {
    let table = include_str!("../../../xtask/kernels.toml");
    let amd64 = table.split("[[kernel]]").skip(1).filter(|kernel| !kernel.contains("\narch = "));
    let id = |line: &'static str| line.strip_prefix("id = \"")?.strip_suffix('"');
    let ids: Vec<&str> = amd64.filter_map(|kernel| kernel.lines().find_map(id)).collect();
    let recorded: Vec<String> = trees().into_iter().map(|tree| tree.id).collect();
    assert_eq!(recorded, ids);
}

/// Check that a replay gives the live answer, including the inodes' facts and the notes.
#[test]
fn a_replay_is_the_live_answer() {
    for tree in trees() {
        let replayed = json(&lsbuf::scan(tree.options()).unwrap());
        compare("", &sorted(tree.json("live.json")), &replayed);
    }
}

/// Check that a replay gives what the test processes said, and no other buffer.
#[test]
fn a_replay_is_the_truth() {
    for tree in trees() {
        let answer = Answer(json(&lsbuf::scan(tree.options()).unwrap()));
        let truth = tree.json("truth.json");
        let truth = truth.as_array().unwrap();
        for told in truth {
            let line = answer.line(told["ino"].as_u64().unwrap()).unwrap();
            assert_eq!(told["line"], line, "{}", tree.id);
        }
        assert_eq!(answer.list("buffers").len(), truth.len(), "{}", tree.id);
        assert_eq!(answer.0["scan"]["complete"], true, "{}", tree.id);
    }
}

/// Check that without the kernel's list, and by `map_files`, a replay finds the same holders.
#[test]
fn other_sources_agree() {
    use lsbuf::scan::{Mappings, Options, Sources};
    for tree in trees() {
        let holders = |sources: Sources| -> Vec<_> {
            let snapshot = lsbuf::scan(Options { sources, ..tree.options() }).unwrap();
            let held = snapshot.buffers.into_iter().filter(|b| !b.holders.is_empty());
            held.map(|b| {
                let holders: Vec<_> = b
                    .holders
                    .into_iter()
                    .map(|h| (h.pid, h.fds, h.opaths, h.maps.iter().map(|m| m.start).collect::<Vec<_>>()))
                    .collect();
                (b.id.ino, b.size, b.name, holders)
            })
            .collect()
        };
        let maps = holders(Sources::default());
        let without_list = Sources { kernel_list: false, ..Sources::default() };
        assert_eq!(holders(without_list), maps, "{}", tree.id);
        let map_files = Sources { mappings: Mappings::MapFiles, ..Sources::default() };
        assert_eq!(holders(map_files), maps, "{}", tree.id);
    }
}

/// Check that whatever is damaged in a tree, no scan panics and the accounts of every answer add
/// up; and that the tree is restored afterwards, so that damage of one case does not affect the
/// next.
#[test]
fn damaged_trees() {
    for tree in trees() {
        let undamaged = json(&lsbuf::scan(tree.options()).unwrap());
        let script = proptest::collection::vec(any::<u8>(), 1..120);
        // Each case scans a whole machine, once for each of the six trees.
        let cases = ProptestConfig::default().cases / 8;
        proptest!(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }, |(script in script)| {
            if let Ok(snapshot) = tree.scan_with(&damage(&tree.tree, &script)) {
                assert_balanced(&snapshot);
            }
        });
        compare("", &undamaged, &json(&lsbuf::scan(tree.options()).unwrap()));
    }
}
