//! What is exported is what was recorded.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value as Json;
use tempfile::TempDir;

use super::*;
use crate::history::{Keep, Recorder};
use crate::model::examples::{buffer, holder, snapshot};
use crate::model::{Bytes, Gaps, Snapshot};

/// A recording over midnight, with a hostile name and a process that lets go.
fn recorded(folder: &TempDir) -> Recording {
    let path = folder.path().join("r.db");
    let mut recorder = Recorder::open(&path, Keep::default()).unwrap();
    recorder.set_machine(Some("0123456789abcdef0123456789abcdef".into()));
    let at = |seconds: u64, buffers| {
        let taken_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut snapshot = Snapshot { taken_at, ..snapshot(buffers, Gaps::default()) };
        snapshot.host.boot_id = Some("d3b07384-d9a0-4c9b-8f3a-000000000001/../x".into());
        snapshot
    };
    let mut named = buffer(1, Some(4096), Some(1), vec![holder(7, 2, 0, &[4096])]);
    named.name = Some((&b"a\xff\n\"=cmd"[..]).into());
    let other = buffer(2, Some(100), Some(1), vec![holder(8, 1, 0, &[])]);
    let grown = {
        let mut b = named.clone();
        b.size = Some(Bytes(8192));
        b
    };
    recorder.append(at(86_390, vec![named.clone(), other])).unwrap();
    recorder.append(at(86_399, vec![named])).unwrap();
    recorder.append(at(86_401, vec![grown])).unwrap();
    recorder.close().unwrap();
    Recording::open(path).unwrap()
}

/// Each file's rows, by its path below the folder.
fn rows(folder: &std::path::Path) -> BTreeMap<String, Vec<Json>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
            found.insert(path.strip_prefix(folder).unwrap().display().to_string(), lines.collect());
        }
    }
    found
}

/// Check that each interval is a row in the folder of its boot and day, with all that tells what it
/// belongs to, and that neither a boot id nor a name gets out of its place.
#[test]
fn intervals_are_rows() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let written = recorded(&folder).export(&out, Format::Ndjson).unwrap();
    let rows = rows(&out);
    let boot = "boot=d3b07384-d9a0-4c9b-8f3a-000000000001";
    let names: Vec<&String> = rows.keys().collect();
    let expected: Vec<String> =
        [("buffer", 1), ("buffer", 2), ("holder", 1), ("process", 1), ("sample", 1), ("sample", 2)]
            .map(|(table, day)| format!("{table}/{boot}/date=1970-01-0{day}/part-0.ndjson"))
            .to_vec();
    assert_eq!(names, expected.iter().collect::<Vec<_>>());
    let sum: usize = rows.values().map(Vec::len).sum();
    assert_eq!((written.rows, written.files), (sum as u64, 6));
    let buffers = &rows[&expected[0]];
    assert_eq!(buffers.len(), 2);
    assert_eq!(buffers[0]["name"], r#"a\xff\x0a"=cmd"#);
    assert_eq!(buffers[0]["machine_id"], "0123456789abcdef0123456789abcdef");
    assert_eq!(
        (&buffers[0]["first_at"], &buffers[0]["last_at"]),
        (&"1970-01-01T23:59:50Z".into(), &"1970-01-01T23:59:59Z".into())
    );
    assert_eq!((&buffers[1]["ino"], &buffers[1]["last_sample"]), (&2.into(), &1.into()));
    assert_eq!(rows[&expected[1]][0]["size"], 8192);
    let holders = &rows[&expected[2]];
    assert_eq!(
        (&holders[0]["fd"], &holders[0]["map"], &holders[0]["mapped"]),
        (&2.into(), &1.into(), &4096.into())
    );
}

/// Check that a file which is there already is not replaced.
#[test]
fn nothing_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (out, recording) = (folder.path().join("out"), recorded(&folder));
    recording.export(&out, Format::Ndjson).unwrap();
    let error = recording.export(&out, Format::Ndjson).unwrap_err();
    assert!(error.to_string().ends_with("cannot be written"), "{error}");
}

/// Check that every query finds its rows, whatever the table: each has as many as it has intervals.
#[test]
fn no_interval_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let recording = recorded(&folder);
    recording.export(folder.path().join("out"), Format::Ndjson).unwrap();
    let rows = rows(&folder.path().join("out"));
    let number = |table: &str| {
        rows.iter().filter(|(path, _)| path.starts_with(table)).map(|(_, rows)| rows.len()).sum::<usize>()
    };
    let db = rusqlite::Connection::open(recording.path()).unwrap();
    for (table, exported) in [
        ("sample", "sample"),
        ("buffer_state", "buffer"),
        ("process_state", "process"),
        ("holding", "holder"),
    ] {
        let intervals: i64 =
            db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(number(exported) as i64, intervals, "{table}");
    }
}

/// Writes a world for `cargo xtask engines`, in both formats, with the right answers. They come
/// from how the world is made.
#[cfg(feature = "parquet")]
#[test]
#[ignore = "cargo xtask engines runs it"]
fn for_engines() {
    let folder = std::path::PathBuf::from(std::env::var_os("LSBUF_ENGINES").unwrap());
    fs::create_dir_all(&folder).unwrap();
    let mut recorder = Recorder::open(folder.join("r.db"), Keep::default()).unwrap();
    recorder.set_machine(Some("0123456789abcdef0123456789abcdef".into()));
    // A sample every half a minute around midnight. Each has 100 buffers that last for ten samples,
    // and one that is there all the time and grows. Two processes have one fd each of every buffer.
    let samples = 200;
    for n in 0..samples {
        let holders = || vec![holder(7, 1, 0, &[]), holder(8, 1, 0, &[4096])];
        let mut buffers: Vec<_> =
            (0..100).map(|k| buffer(1000 + n / 10 * 100 + k, Some(4096), Some(3), holders())).collect();
        buffers.insert(0, buffer(1, Some(4096 * (n + 1)), Some(3), holders()));
        let taken_at = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 - 3000 + n * 30);
        let mut snapshot = Snapshot { taken_at, ..snapshot(buffers, Gaps::default()) };
        snapshot.host.boot_id = Some("d3b07384-d9a0-4c9b-8f3a-000000000001".into());
        recorder.append(snapshot).unwrap();
    }
    recorder.close().unwrap();
    let recording = Recording::open(folder.join("r.db")).unwrap();
    for &format in Format::ALL {
        recording.export(folder.join(format.as_str()), format).unwrap();
    }
    let answers = serde_json::json!({
        "samples": samples,
        "buffers at the end": 101,
        "size at the end": 100 * 4096 + 4096 * samples,
        "buffers ever": 1 + samples / 10 * 100,
        "fds at the end": 2 * 101,
        "processes ever": 2,
        "machines": 1,
        "days": 2,
    });
    fs::write(folder.join("answers.json"), answers.to_string()).unwrap();
}
