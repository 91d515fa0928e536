//! `lsbuf report`.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assert_cmd::cargo::cargo_bin;
use kit::{lsbuf, shmem_tree};
use serde_json::{Value, json};

/// A document of a world in which the pool of two processes, [`POOL`] bytes, has a stack, and other
/// buffers are older than the recorder.
struct Document {
    folder: tempfile::TempDir,
    all: Value,
}

/// What is charged for the pool: 2048 blocks of 512 bytes.
const POOL: u64 = 2048 * 512;

impl Document {
    fn new() -> Document {
        let mut all: Value =
            serde_json::from_str(&lsbuf(&shmem_tree(), &["--json", "--details"]).stdout).unwrap();
        let frame = |name: &str, offset: u64| {
            json!({
                "build_id": "ab".repeat(20), "offset": offset, "module": "client",
                "functions": [{ "name": name, "file": null, "line": null, "inlined": false }],
            })
        };
        let made = json!({
            "state": "made", "after_boot_ns": 5, "at": "2026-01-02T03:04:05Z", "pid": 12, "started_ns": 1,
            "command": "cli ent;x", "tid": 12, "thread": "client", "uid": 0, "cgroup_id": 1,
            "stack": {
                "user": [frame("make_pool", 32), frame("main", 16)],
                "user_end": "complete",
                "kernel": [{ "function": "memfd_create", "module": null }],
            },
        });
        for buffer in all["buffers"].as_array_mut().unwrap() {
            let is_pool = buffer["kind"] == "memfd";
            buffer["origin"] = if is_pool { made.clone() } else { json!({ "state": "before" }) };
        }
        let document = Document { folder: tempfile::tempdir().unwrap(), all };
        std::fs::write(document.file(), document.all.to_string()).unwrap();
        document
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("all.json")
    }

    fn report(&self, args: &[&str]) -> (Vec<u8>, String, i32) {
        report(&self.file(), args)
    }

    fn text(&self, args: &[&str]) -> String {
        let (text, said, status) = self.report(args);
        assert_eq!(status, 0, "{said}");
        String::from_utf8(text).unwrap()
    }

    fn costs(&self) -> u64 {
        self.all["totals"]["size"].as_u64().unwrap()
    }
}

fn report(file: &Path, args: &[&str]) -> (Vec<u8>, String, i32) {
    let mut lsbuf = Command::new(cargo_bin("lsbuf"));
    let Output { stdout, stderr, status } =
        lsbuf.arg("report").arg("--from").arg(file).args(args).output().unwrap();
    (stdout, String::from_utf8(stderr).unwrap(), status.code().unwrap())
}

fn number(line: &str) -> u64 {
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Check that each stack is a line, that a name cannot make frames, and that the numbers come to
/// the totals of the document.
#[test]
fn folded_stacks() {
    let document = Document::new();
    let bytes = document.text(&["--folded"]);
    let lines: Vec<&str> = bytes.lines().collect();
    let pool = format!(r"cli ent\x3bx;main;make_pool;memfd_create_[k] {POOL}");
    assert_eq!((lines.len(), lines[1]), (2, pool.as_str()), "{bytes}");
    assert!(lines[0].starts_with("[before the recorder] "), "{bytes}");
    assert_eq!(lines.iter().map(|line| number(line)).sum::<u64>(), document.costs());
    let objects = document.text(&["--folded", "--objects"]);
    let buffers = document.all["buffers"].as_array().unwrap().len() as u64;
    assert_eq!(objects.lines().map(number).sum::<u64>(), buffers);
}

/// Check that filters choose buffers as in ls.
#[test]
fn filters() {
    let document = Document::new();
    let pool = document.text(&["--folded", "--kind", "memfd"]);
    assert_eq!((pool.lines().count(), number(pool.trim_end())), (1, POOL));
    let others = document.text(&["--folded", "--deleted", "--kind", "tmpfs"]);
    assert_eq!(others, format!("[before the recorder] {}\n", 64 * 512));
    assert_eq!(document.text(&["--folded", "--name", "nothing"]), "");
}

/// Check that a profile is the same in a file and on standard output, and has names and build ids.
#[test]
fn profiles() {
    let document = Document::new();
    let file = document.folder.path().join("b.pb");
    document.text(&["--pprof", file.to_str().unwrap()]);
    let written = std::fs::read(&file).unwrap();
    let (printed, _, status) = document.report(&["--pprof", "-"]);
    assert!(status == 0 && written == printed);
    let build_id = "ab".repeat(20);
    for text in ["inuse_objects", "inuse_space", "make_pool", "client", "[kernel.kallsyms]", &build_id] {
        assert!(printed.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
    }
}

/// Check that without origins all is unknown, and that this is said.
#[test]
fn without_origins() {
    let tree = shmem_tree();
    let run = lsbuf(&tree, &["report", "--folded"]);
    assert_eq!((run.status, run.stdout.lines().count()), (0, 1));
    assert!(run.stdout.starts_with("[unknown] "), "{}", run.stdout);
    assert!(run.stderr.contains("no flight recorder is installed"), "{}", run.stderr);
}

/// Check that each mistake is answered by one line.
#[test]
fn mistakes() {
    let document = Document::new();
    for (args, status, expected) in [
        (&[][..], 2, "--folded"),
        (&["--folded", "--pprof", "-"], 2, "cannot be used with"),
        (&["--pprof", "-", "--objects"], 2, "cannot be used with"),
        (&["--objects"], 2, "--folded"),
        (&["--pprof", "/nowhere/b.pb"], 1, "/nowhere/b.pb cannot be written"),
        (&["--folded", "--at", "start"], 1, "is a single answer"),
    ] {
        let (text, said, found) = document.report(args);
        assert_eq!((text.len(), found, said.lines().count()), (0, status, 1), "{args:?}: {said}");
        assert!(said.contains(expected), "{args:?}: {said}");
    }
}

fn page(file: &Path) -> (String, Value) {
    let text = std::fs::read_to_string(file).unwrap();
    let (_, island) = text.split_once("id=\"data\">").unwrap();
    let data = serde_json::from_str(island.split_once("</script>").unwrap().0).unwrap();
    (text, data)
}

/// Check that a page has the document, also on standard output, and that an earlier page is
/// replaced.
#[test]
fn pages() {
    let document = Document::new();
    let file = document.folder.path().join("b.html");
    for _ in 0..2 {
        assert_eq!(document.text(&[file.to_str().unwrap()]), "");
    }
    let (text, data) = page(&file);
    assert!(text.starts_with("<!DOCTYPE html>") && text.contains("default-src 'none'; script-src 'sha256-"));
    assert_eq!(document.text(&["-"]), text);
    let snapshot = &data["snapshot"];
    assert_eq!(
        (&snapshot["schema"], &snapshot["totals"]),
        (&document.all["schema"], &document.all["totals"])
    );
    let mut buffers = document.all["buffers"].clone();
    for buffer in buffers.as_array_mut().unwrap() {
        buffer.as_object_mut().unwrap().remove("open_files");
        if buffer["origin"]["state"] == "made" {
            buffer["origin"]["client"] = json!({ "state": "unknown", "why": "not_watched" });
        }
    }
    // The list of ls is ordered by cost, and that of a page is not.
    let ordered = |buffers: &Value| {
        let mut texts: Vec<String> = buffers.as_array().unwrap().iter().map(Value::to_string).collect();
        texts.sort();
        texts
    };
    assert_eq!(ordered(&snapshot["buffers"]), ordered(&buffers));
    assert_eq!(
        (&data["history"], &data["leaks"], &data["redacted"]),
        (&Value::Null, &Value::Null, &json!(false))
    );
    // No command line, which may have passwords, and no file under another name.
    assert!(
        snapshot["processes"].as_array().unwrap().iter().all(|process| process["details"]["args"].is_null())
    );
    let files = std::fs::read_dir(document.folder.path()).unwrap().count();
    assert_eq!(files, 2, "b.html and all.json");
    let pool = document.text(&["-", "--kind", "memfd"]);
    assert!(pool.contains("make_pool") && !pool.contains("leaked"));
}

/// Check that a page of a recording has the time before its last sample, and the suspects.
#[test]
fn pages_of_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let recording = folder.path().join("r.db");
    let db = recording.to_str().unwrap();
    let run = lsbuf(&shmem_tree(), &["record", db, "--every", "100ms", "--count", "3"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let file = folder.path().join("r.html");
    let (_, said, status) = report(&recording, &[file.to_str().unwrap()]);
    assert_eq!(status, 0, "{said}");
    let (_, data) = page(&file);
    assert_eq!((&data["history"]["samples"], &data["leaks"]["samples"]), (&json!(3), &json!(3)));
    assert_eq!(data["history"]["points"].as_array().unwrap().len(), 3);
    let bytes =
        data["history"]["groups"].as_array().unwrap().iter().map(|group| group["bytes"][2].as_u64().unwrap());
    assert_eq!(json!(bytes.sum::<u64>()), data["snapshot"]["totals"]["size"]);
    assert_eq!(data["leaks"]["schema"], "lsbuf.leaks/1");
    report(&recording, &[file.to_str().unwrap(), "--at", "start"]);
    assert_eq!(page(&file).1["history"]["samples"], 1);
}

/// Check that a redacted page has figures and no names.
#[test]
fn redacted_pages() {
    let document = Document::new();
    let file = document.folder.path().join("r.html");
    document.text(&[file.to_str().unwrap(), "--redact"]);
    let (text, data) = page(&file);
    assert_eq!((&data["redacted"], &data["snapshot"]["totals"]), (&json!(true), &document.all["totals"]));
    for name in ["compositor", "wl_", "leaked", "make_pool", "cli ent", "abababab"] {
        assert!(!text.contains(name), "{name}");
    }
    assert!(text.contains("command-1") && text.contains("path-1") && text.contains("function-1"));
}

/// Check that nothing but an earlier page is replaced, and that a failure leaves what was there.
#[test]
fn pages_replace_pages_alone() {
    let document = Document::new();
    let folder = document.folder.path();
    let all = std::fs::read(document.file()).unwrap();
    let (_, said, status) = document.report(&[document.file().to_str().unwrap()]);
    assert!(status == 1 && said.contains("is no page of lsbuf"), "{said}");
    assert_eq!(std::fs::read(document.file()).unwrap(), all);
    let link = folder.join("link.html");
    std::os::unix::fs::symlink("all.json", &link).unwrap();
    for special in [link.to_str().unwrap(), "/dev/null", folder.to_str().unwrap()] {
        let (_, said, status) = document.report(&[special]);
        assert!(status == 1 && said.contains("is no regular file"), "{said}");
    }
    let page = folder.join("b.html");
    document.text(&[page.to_str().unwrap()]);
    let before = std::fs::read(&page).unwrap();
    let (_, said, status) = report(Path::new("/nowhere"), &[page.to_str().unwrap()]);
    assert!(status == 1 && said.contains("/nowhere cannot be opened"), "{said}");
    assert_eq!(std::fs::read(&page).unwrap(), before);
}
