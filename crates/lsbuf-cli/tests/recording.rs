//! `docs/recording.md`: its queries answer, and it has every column.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

use std::path::PathBuf;

use lsbuf::history::{Keep, Recorder, read_document};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../../docs/recording.md");

/// A recording with known content: six samples, at 14:00, 14:02, 14:04, 14:05, 14:30 and 15:10.
struct Known {
    _folder: tempfile::TempDir,
    file: PathBuf,
}

impl Known {
    fn new() -> Known {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.db");
        let mut recorder = Recorder::open(&file, Keep::default()).unwrap();
        for (nth, time) in ["14:00", "14:02", "14:04", "14:05", "14:30", "15:10"].into_iter().enumerate() {
            let document = document(nth + 1, time).to_string();
            recorder.append(read_document(document.as_bytes()).unwrap()).unwrap();
        }
        recorder.close().unwrap();
        Known { _folder: folder, file }
    }

    /// The rows that a query returns, the columns divided by bars.
    fn ask(&self, query: &str) -> Vec<String> {
        let db = Connection::open(&self.file).unwrap();
        let mut statement = db.prepare(query).unwrap();
        let columns = statement.column_count();
        let shown = |value: ValueRef<'_>| match value {
            ValueRef::Null => "-".to_owned(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        };
        let rows = statement.query_map([], |row| {
            let cells = (0..columns).map(|column| row.get_ref(column).map(shown));
            Ok(cells.collect::<Result<Vec<_>, _>>()?.join("|"))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }
}

/// What the nth sample has:
///
/// - a memfd of a compositor and a client; from the fourth on a worker has it in place of the
///   client;
/// - a deleted file of the client, which grows in the fifth;
/// - a memfd that only the second has;
/// - two dma-bufs of a pod, from the fourth and from the fifth on.
fn document(nth: usize, time: &str) -> Value {
    let second = if nth < 4 { 12 } else { 14 };
    let mut buffers = vec![
        buffer("memfd", 7, 1 << 20, Some(1 << 20), Some("wl_shm"), &[second.min(13), second.max(13)]),
        buffer("tmpfs", 6, if nth < 5 { 9900 } else { 19_800 }, Some(65_536), Some("/dev/shm/leaked"), &[12]),
    ];
    if nth == 2 {
        buffers.push(buffer("memfd", 8, 4096, Some(4096), Some("brief"), &[12]));
    }
    if nth >= 4 {
        buffers.push(buffer("dmabuf", 40, 4 << 20, None, None, &[20]));
    }
    if nth >= 5 {
        buffers.push(buffer("dmabuf", 41, 2 << 20, None, None, &[20]));
    }
    let names = [(12, "client"), (13, "compositor"), (14, "worker"), (20, "web")];
    let there =
        |pid: u32| buffers.iter().any(|b| b["holders"].to_string().contains(&format!("\"pid\":{pid}")));
    let processes: Vec<Value> =
        names.into_iter().filter(|(pid, _)| there(*pid)).map(|(pid, comm)| process(pid, comm)).collect();
    let notes = if nth == 3 { json!(["process 99 could not be read"]) } else { json!([]) };
    json!({
        "schema": "lsbuf.snapshot/1",
        "taken_at": format!("2026-11-27T{time}:00Z"),
        "host": {"hostname": "h", "kernel": "6.18", "boot_id": "b"},
        "scan": {
            "sources": ["fd"], "complete": nth != 3, "duration_us": 1, "notes": notes,
            "processes": {"total": 4, "read": 4, "unreadable": 0, "vanished": 0}, "saw_every_process": nth != 3,
        },
        "looked_for": ["dmabuf", "memfd", "tmpfs"],
        "totals": {"in_flight_fds": 0, "io_uring_files": 0},
        "buffers": buffers,
        "processes": processes,
        "devices": [],
    })
}

fn buffer(kind: &str, ino: u64, size: u64, charged: Option<u64>, name: Option<&str>, pids: &[u32]) -> Value {
    let holders: Vec<Value> = pids
        .iter()
        .map(|pid| {
            json!({"pid": pid, "fds": [3], "opaths": [], "maps": [], "runs": false, "threads": [],
                   "fd_table_of": null, "address_space_of": null})
        })
        .collect();
    json!({
        "kind": kind, "dev": "0:1", "ino": ino, "size": size, "ipc_namespace": null, "charged": charged,
        "swapped": charged.map(|_| 0), "huge_page": null, "deleted": null, "seals": null, "segment": null,
        "same_memory": null, "name": name, "exporter": null, "count": pids.len(),
        "refs": {"fd": pids.len(), "map": 0, "private_map": 0, "in_flight": 0, "io_uring": 0, "exe": 0,
                 "kernel": 0, "opath": 0},
        "estimate": false, "estimate_reason": null, "leak_shape": null, "memory_owner": "references",
        "attachments": null, "handles": [], "kernel_holders": [], "private_copies": [], "candidates": [],
        "created_at": null, "creator_uid": 0, "open_files": [], "holders": holders,
    })
}

fn process(pid: u32, comm: &str) -> Value {
    let pod =
        if comm == "web" { json!({"uid": "u", "namespace": "shop", "name": "web-0"}) } else { Value::Null };
    json!({
        "pid": pid, "start_time": 1, "comm": comm, "uid": 0, "cgroup": "/", "sync_files": 0,
        "details": {"args": null, "args_whole": null, "exe": null, "user": null, "fd_limit": null,
                    "rss_shmem": null, "parent": null,
                    "workload": {"unit": null, "container": null, "pod": pod}},
    })
}

/// Each query of the page, with the question above it.
fn queries() -> Vec<(&'static str, &'static str)> {
    let mut parts = PAGE.split("```sql\n");
    let mut before = parts.next().unwrap();
    let mut found = Vec::new();
    for part in parts {
        let (query, after) = part.split_once("```").unwrap();
        found.push((before.trim_end().rsplit("\n\n").next().unwrap(), query));
        before = after;
    }
    found
}

/// Check that each query of the page returns what the recording has.
#[test]
fn queries_answer() {
    let known = Known::new();
    let queries = queries();
    let expected: &[(&str, &[&str])] = &[
        (
            "The largest",
            &[
                "dmabuf|40|-|4194304",
                "dmabuf|41|-|2097152",
                "memfd|7|wl_shm|1048576",
                "tmpfs|6|/dev/shm/leaked|65536",
            ],
        ),
        (
            "Who held a buffer",
            &[
                "12|client|2026-11-27 14:00:00|2026-11-27 14:04:00",
                "13|compositor|2026-11-27 14:00:00|-",
                "14|worker|2026-11-27 14:05:00|-",
            ],
        ),
        ("Which buffers are there now", &["dmabuf|41|-|2026-11-27 14:30:00"]),
        (
            "How much did the processes",
            &[
                "14:00|client|1114112",
                "14:00|compositor|1048576",
                "14:02|client|1118208",
                "14:02|compositor|1048576",
                "14:04|client|1114112",
                "14:04|compositor|1048576",
                "14:05|web|4194304",
                "14:05|compositor|1048576",
                "14:05|worker|1048576",
                "14:05|client|65536",
                "14:30|web|6291456",
                "14:30|compositor|1048576",
                "14:30|worker|1048576",
                "14:30|client|65536",
                "15:10|web|6291456",
                "15:10|compositor|1048576",
                "15:10|worker|1048576",
                "15:10|client|65536",
            ],
        ),
        ("When did a process hold the most", &["2026-11-27 14:02:00|1118208"]),
        ("Which buffers changed hands", &["memfd|7|12|14|2026-11-27 14:05:00"]),
        ("What did a pod hold", &["dmabuf|40|-|4194304"]),
        ("Which buffers are larger", &["tmpfs|6|9900|19800"]),
        ("How many buffers of each kind", &["2026-11-27 14:00|dmabuf|2|2", "2026-11-27 14:00|memfd|1|0"]),
        ("What could not be read", &["process 99 could not be read|2026-11-27 14:04:00|2026-11-27 14:04:00"]),
        (
            "Where are gaps",
            &["2026-11-27 14:05:00|2026-11-27 14:30:00", "2026-11-27 14:30:00|2026-11-27 15:10:00"],
        ),
    ];
    assert_eq!(queries.len(), expected.len());
    for ((question, query), (begins, rows)) in queries.into_iter().zip(expected) {
        assert!(question.starts_with(begins), "{question}");
        assert_eq!(known.ask(query), *rows, "{question}");
    }
}

/// Check that the page names every table, every view and every column of each table.
#[test]
fn every_column_is_described() {
    let known = Known::new();
    let names = known.ask(
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' \
         UNION SELECT info.name FROM sqlite_schema, pragma_table_info(sqlite_schema.name) AS info \
         WHERE sqlite_schema.type = 'table'",
    );
    assert!(names.len() > 60, "{names:?}");
    let missing: Vec<&String> = names.iter().filter(|name| !PAGE.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/recording.md does not name {missing:?}");
}
