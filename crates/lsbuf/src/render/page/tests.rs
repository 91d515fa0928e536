//! The page has its data and nothing else: no name becomes markup, the policy names this script and
//! this style, and a redacted page tells no name. `cargo xtask page` looks at it in a browser.

mod world;

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::history::read_document;
use crate::model::{Ledger, Snapshot};
use crate::render::View;

/// The page of a snapshot.
fn page_of(data: &PageData) -> String {
    let mut out = Vec::new();
    page(&mut out, Some(data), PageOrigin::File).unwrap();
    String::from_utf8(out).unwrap()
}

fn data_of(snapshot: &Snapshot) -> PageData {
    let ledger = Ledger::of(snapshot);
    PageData::new(&View::all(&ledger)).unwrap()
}

/// What a browser would parse.
fn island_of(page: &str) -> &str {
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    rest.split_once("</script>").unwrap().0
}

fn snapshot_of(document: &Value) -> Snapshot {
    read_document(document.to_string().as_bytes()).unwrap()
}

/// A hash as a policy names it.
fn hash_of(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let hash = Sha256::digest(text.as_bytes());
    let mut coded = String::from("sha256-");
    for three in hash.chunks(3) {
        let bits =
            three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for nth in 0..4 {
            let is_there = nth <= three.len();
            coded.push(if is_there {
                char::from(DIGITS[(bits >> (18 - 6 * nth)) as usize & 63])
            } else {
                '='
            });
        }
    }
    coded
}

/// Check that the policy names the script and the style that the page has. If a file beside this
/// module was changed, the right constants are in the message.
#[test]
fn policy_names_what_is_there() {
    let page = page_of(&data_of(&world::small()));
    let between = |begin: &str, end: &str| page.rsplit_once(begin).unwrap().1.split_once(end).unwrap().0;
    let script = hash_of(between("<script>", "</script>"));
    let style = hash_of(between("<style>", "</style>"));
    assert_eq!((SCRIPT_HASH, STYLE_HASH), (script.as_str(), style.as_str()));
    assert_eq!(hash_of(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    for (origin, connects) in [(PageOrigin::File, false), (PageOrigin::Server, true)] {
        let policy = page_policy(origin);
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(policy.contains("connect-src 'self'"), connects, "{policy}");
        let mut served = Vec::new();
        super::page(&mut served, None, origin).unwrap();
        let served = String::from_utf8(served).unwrap();
        assert!(served.contains(&format!("content=\"{policy}\"")) && island_of(&served) == "null");
    }
}

/// Check that the script has nothing that makes markup or code of text, and nothing that ends it.
#[test]
fn script_makes_no_markup() {
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "Function(",
        "setTimeout(\"",
        "</script",
        "<!--",
        "srcdoc",
        "javascript:",
        "DOMParser",
        "createContextualFragment",
    ] {
        assert!(!SCRIPT.contains(word), "{word}");
    }
    assert!(!STYLE.contains('<') && !STYLE.contains("url("), "a style loads nothing");
    assert!(!PAGE.split_whitespace().any(|word| word.starts_with("on") && word.contains('=')));
}

/// Check that no name ends the element of the data, and that the data are the document.
#[test]
fn hostile_names_stay_text() {
    let snapshot = world::hostile();
    let page = page_of(&data_of(&snapshot));
    let ordinary = page_of(&data_of(&world::small()));
    assert_eq!(page.matches('<').count(), ordinary.matches('<').count());
    assert_eq!(page.matches('>').count(), ordinary.matches('>').count());
    let island = island_of(&page);
    assert!(!island.contains(['<', '>', '&', '\u{2028}', '\u{2029}', '\u{202e}', '\u{7}']));
    let data: Value = serde_json::from_str(island).unwrap();
    assert_eq!(data["snapshot"], serde_json::to_value(Ledger::of(&snapshot)).unwrap());
    assert_eq!(
        (&data["leaks"], &data["history"], &data["redacted"]),
        (&Value::Null, &Value::Null, &Value::Bool(false))
    );
}

/// Each key that has text in a schema, with the key that it is in.
fn texts(schema: &Value, parent: &str, key: &str, found: &mut BTreeSet<(String, String)>) {
    let is = |word: &str| match &schema["type"] {
        Value::Array(types) => types.iter().any(|one| one == word),
        one => one == word,
    };
    let has_words = schema["enum"].as_array().is_some_and(|words| words.iter().any(Value::is_string));
    if is("string") || has_words || schema["const"].is_string() || schema["$ref"].is_string() {
        found.insert((parent.to_owned(), key.to_owned()));
    }
    for (inner, schema) in schema["properties"].as_object().into_iter().flatten() {
        texts(schema, key, inner, found);
    }
    if schema["items"].is_object() {
        // A text of a list is that of its key, and an object of a list is in that key.
        let of_list = &schema["items"];
        if of_list["properties"].is_object() {
            for (inner, schema) in of_list["properties"].as_object().into_iter().flatten() {
                texts(schema, key, inner, found);
            }
        } else {
            texts(of_list, parent, key, found);
        }
    }
}

/// Check that each key with text of the schemas is in the list of rules, so that a new key is
/// thought of. Bytes of a text go with it.
#[test]
fn every_text_has_a_rule() {
    let mut found = BTreeSet::new();
    for schema in ["snapshot", "leaks"] {
        let path = format!("{}/../../docs/lsbuf.{schema}-1.schema.json", env!("CARGO_MANIFEST_DIR"));
        let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        texts(&schema, "", "", &mut found);
    }
    assert!(found.len() > 70, "{found:?}");
    let forgotten: Vec<_> = found
        .iter()
        .filter(|(parent, key)| !key.ends_with("_bytes") && redact::rule(parent, key).is_none())
        .collect();
    assert!(forgotten.is_empty(), "no rule for {forgotten:?}");
}

/// Check that none of the texts of a world is in its redacted page, also in a note, in what two
/// documents have, and where the text is not UTF-8.
#[test]
fn redacted_page_tells_no_name() {
    let (data, marks) = world::marked();
    let open = page_of(&data);
    let redacted = page_of(&data.redacted().unwrap());
    for mark in &marks {
        assert!(open.contains(mark.as_str()), "{mark} is not in the open page");
        assert!(!redacted.contains(mark.as_str()), "{mark} is in the redacted page");
    }
    let island: Value = serde_json::from_str(island_of(&redacted)).unwrap();
    assert_eq!(island["redacted"], true);
    let open: Value = serde_json::from_str(island_of(&open)).unwrap();
    // It is still a document of the schema, with the same figures.
    let again = snapshot_of(&island["snapshot"]);
    assert_eq!(serde_json::to_value(Ledger::of(&again)).unwrap()["totals"], open["snapshot"]["totals"]);
    let buffers = island["snapshot"]["buffers"].as_array().unwrap();
    for (then, now) in open["snapshot"]["buffers"].as_array().unwrap().iter().zip(buffers) {
        assert_eq!((&then["size"], &then["ino"], &then["refs"]), (&now["size"], &now["ino"], &now["refs"]));
    }
    // The same text has the same alias: a maker is the process that holds it.
    let made = buffers.iter().find(|buffer| buffer["origin"].is_object()).unwrap();
    let holder = &made["holders"][0]["pid"];
    let processes = island["snapshot"]["processes"].as_array().unwrap();
    let process = processes.iter().find(|process| process["pid"] == *holder).unwrap();
    assert_eq!((&made["origin"]["command"], &made["origin"]["pid"]), (&process["comm"], holder));
}

/// Check pids, paths and names in the words of a note, and that its figures stay.
#[test]
fn notes_are_redacted() {
    let mut document = serde_json::json!({
        "processes": [{ "pid": 4711, "comm": "secretd" }],
        "buffers": [{ "segment": { "remove_command": "nsenter --ipc=/proc/4711/ns/ipc ipcrm -m 3" } }],
        "unheld": [{ "path": "/dev/shm/secret", "path_bytes": "/dev/shm/secret", "forgotten": "a new key" }],
        "scan": { "notes": [
            "processes 4711, 9, 10 were inside a fork, exec or send, in every reading: 12 buffers",
            "5 processes (4711, 8, 3, ...) ran",
            "could not open /run/user/1000/bus: 7 buffers of secretd, and secretdd",
        ] },
    });
    redact::redact(&mut [&mut document]);
    assert_eq!(document["buffers"][0]["segment"]["remove_command"], Value::Null);
    assert_eq!(document["unheld"][0], serde_json::json!({ "path": "path-1", "forgotten": "text-1" }));
    let notes = &document["scan"]["notes"];
    assert_eq!(notes[0], "processes 1, 2, 3 were inside a fork, exec or send, in every reading: 12 buffers");
    assert_eq!(notes[1], "5 processes (1, 4, 5, ...) ran");
    assert_eq!(notes[2], "could not open path-2: 7 buffers of command-1, and secretdd");
}

/// Writes worlds for `cargo xtask page`, which looks at them in a browser.
#[test]
#[ignore = "cargo xtask page runs it"]
fn for_browser() {
    let folder = std::path::PathBuf::from(std::env::var_os("LSBUF_PAGES").unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let write = |name: &str, data: &PageData| std::fs::write(folder.join(name), page_of(data)).unwrap();
    write("small.html", &data_of(&world::small()));
    write("hostile.html", &data_of(&world::hostile()));
    write("large.html", &data_of(&world::large(20_000)));
    write("recorded.html", &world::recorded());
    write("redacted.html", &world::recorded().redacted().unwrap());
    let mut served = Vec::new();
    super::page(&mut served, None, PageOrigin::Server).unwrap();
    std::fs::write(folder.join("served.html"), served).unwrap();
    let document = serde_json::to_string(&Ledger::of(&world::small())).unwrap();
    std::fs::write(folder.join("snapshot.json"), document).unwrap();
}
