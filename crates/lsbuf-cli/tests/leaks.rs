//! `lsbuf leaks`.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use kit::{Run, Tree, lsbuf, shmem_tree};
use serde_json::Value;

/// Samples of the recording. In each but the first the client has one more memfd.
const SAMPLES: u64 = 25;

/// A recording of a client that leaks.
struct Recorded {
    folder: tempfile::TempDir,
    tree: Tree,
}

impl Recorded {
    fn new() -> Recorded {
        let recorded = Recorded { folder: tempfile::tempdir().unwrap(), tree: shmem_tree() };
        for nth in 0..SAMPLES {
            if nth > 0 {
                let name = format!("/memfd:=frame\x1b-{nth} (deleted)");
                let stat = format!("0:1 {} 4096 8 0 4096 1000", 100 + nth);
                recorded.tree.shmem_fd(12, 100 + u32::try_from(nth).unwrap(), name.as_bytes(), &stat);
            }
            let file = recorded.file();
            let run = lsbuf(&recorded.tree, &["record", file.to_str().unwrap(), "--count", "1", "--quiet"]);
            assert_eq!(run.status, 0, "{}", run.stderr);
        }
        recorded
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("r.db")
    }

    fn ask(&self, args: &[&str]) -> Run {
        leaks(&self.file(), args)
    }
}

fn leaks(file: &Path, args: &[&str]) -> Run {
    let output = Command::new(cargo_bin("lsbuf")).arg("leaks").arg(file).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { stdout: text(output.stdout), stderr: text(output.stderr), status: output.status.code().unwrap() }
}

fn document(text: &str) -> Value {
    let document: Value = serde_json::from_str(text).unwrap();
    let schema = serde_json::from_str(include_str!("../../../docs/lsbuf.leaks-1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = schema.iter_errors(&document).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    document
}

/// Check that the leak is the one suspect, in every format, with its evidence, and that its name
/// is harmless in each.
#[test]
fn a_leak_is_found() {
    let recorded = Recorded::new();
    let csv = recorded.ask(&["--csv", "-o", "STATE,BORN,DIED,LEFT,BYTES,COMMAND,KIND,NAME,RESTARTS"]);
    assert_eq!(
        csv.stdout,
        "STATE,BORN,DIED,LEFT,BYTES,COMMAND,KIND,NAME,RESTARTS\n\
         growing,24,0,24,98304,client,memfd,'=frame\\x1b-#,0\n"
    );
    let raw = recorded.ask(&["--raw", "-n", "--all", "-o", "STATE,KIND,COMMAND,OLDER,BORN"]);
    let mut rows: Vec<&str> = raw.stdout.lines().collect();
    rows[1..].sort_unstable();
    assert_eq!(
        rows,
        [
            "growing memfd client 0 24",
            "plateau memfd client 1 0",
            "plateau memfd compositor 1 0",
            "plateau sysv - 1 0",
            "plateau sysv worker 1 0",
            "plateau tmpfs client 1 0"
        ]
    );
    let table = recorded.ask(&[]);
    for part in [
        "growing: client in ",
        "has memfd named =frame\\x1b-#\n",
        "24 born, 0 died, 24 left with 98304 bytes; of 0 older ones 0 died\n",
        "1 group is a suspect; others: 5 plateau (--all shows them)\n25 samples in ",
    ] {
        assert!(table.stdout.contains(part), "{part}: {}", table.stdout);
    }
    assert!(!table.stdout.contains('\x1b'));
    let quiet = recorded.ask(&["--quiet"]).stdout;
    assert!(quiet.contains("growing") && !quiet.contains("24 born"), "{quiet}");
}

/// Check that JSON fits the schema, that what is born has died or is left in it, and that --all
/// adds groups but changes no figure.
#[test]
fn json() {
    let recorded = Recorded::new();
    let some = document(&recorded.ask(&["--json"]).stdout);
    let all = document(&recorded.ask(&["--json", "--all", "--compact"]).stdout);
    assert_eq!((some["groups"].as_array().unwrap().len(), all["groups"].as_array().unwrap().len()), (1, 6));
    assert_eq!(some["groups"][0], all["groups"][0]);
    assert_eq!(some["states"], all["states"]);
    assert_eq!((&some["samples"], &some["partial_samples"]), (&25.into(), &0.into()));
    for group in all["groups"].as_array().unwrap() {
        let number = |key: &str| group[key].as_u64().unwrap();
        assert_eq!(number("born"), number("died") + number("left"), "{group}");
    }
    assert_eq!(some["groups"][0]["name"], "=frame\u{1b}-#");
    // The compositor has four sync_files all the time.
    assert_eq!((&all["sync_files"][0]["last"], &all["sync_files"][0]["rising"]), (&4.into(), &false.into()));
}

/// Check the exit status for a suspect, and that filters decide what counts.
#[test]
fn failing() {
    let recorded = Recorded::new();
    let status = |args: &[&str]| recorded.ask(&[&["--fail-on", "growing", "--quiet"], args].concat()).status;
    assert_eq!(status(&[]), 4);
    assert_eq!(status(&["--name", "=frame*", "--kind", "memfd", "--command", "cl*", "--min-size", "4K"]), 4);
    for args in [["--kind", "sysv"], ["--name", "pool"], ["--command", "compositor"], ["--min-size", "1M"]] {
        assert_eq!(status(&args), 0, "{args:?}");
    }
    // Within the last 2 of 25 samples nothing can be said.
    let samples = document(&recorded.ask(&["--json", "--since", "end"]).stdout)["samples"].clone();
    assert_eq!((samples, status(&["--since", "end"])), (1.into(), 0));
}

/// Check that a machine is watched for as long as was asked, and judged as a recording is.
#[test]
fn watching() {
    let tree = shmem_tree();
    let run = lsbuf(&tree, &["leaks", "--for", "400ms", "--every", "10ms", "--all", "--json"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    let document = document(&run.stdout);
    let samples = document["samples"].as_u64().unwrap();
    assert!((2..=41).contains(&samples), "{samples}");
    assert_eq!(document["groups"].as_array().unwrap().len(), 5);
    assert_eq!(document["states"]["growing"], 0);
    let table = lsbuf(&tree, &["leaks", "--for", "50ms", "--every", "10ms"]);
    assert!(table.stdout.starts_with("no group grows; others: 5 "), "{}", table.stdout);
}

/// Check that each mistake is one line that says what is valid.
#[test]
fn mistakes() {
    let tree = shmem_tree();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.db");
    lsbuf(&tree, &["record", file.to_str().unwrap(), "--count", "2", "--every", "10ms", "--quiet"]);
    let line = |run: Run, status: i32, has: &str| {
        assert_eq!((run.status, run.stderr.lines().count()), (status, 1), "{}", run.stderr);
        assert!(run.stderr.contains(has), "{}", run.stderr);
    };
    line(leaks(&file, &["--since", "end", "--until", "start"]), 1, "--since is later than --until");
    line(leaks(&file, &["--since", "noon"]), 2, "valid: start, end, -10m (before the end), 14:05");
    line(leaks(&file, &["--for", "1m"]), 2, "cannot be used with");
    line(leaks(&file, &["--fail-on", "churn"]), 2, "growing");
    line(leaks(&file, &["-o", "CAT"]), 2, "valid: STATE, OLDER");
    line(leaks(Path::new("/nowhere/r.db"), &[]), 1, "/nowhere/r.db cannot be opened");
    line(leaks(Path::new("/proc/version"), &[]), 1, "/proc/version is not a recording");
    let json = folder.path().join("a.json");
    std::fs::write(&json, lsbuf(&tree, &["--json"]).stdout).unwrap();
    line(leaks(&json, &[]), 1, "is a single answer, not a recording");
    line(lsbuf(&tree, &["leaks", "--since", "start"]), 1, "--since and --until need a FILE");
    line(lsbuf(&tree, &["leaks", "--every", "0s"]), 2, "the shortest interval is 10ms");
}
