//! `lsbuf record`, and answers of the past.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use kit::{Run, Tree, lsbuf, shmem_tree};
use serde_json::Value;

/// A recording in a folder that goes with it.
struct Recorded {
    folder: tempfile::TempDir,
    tree: Tree,
}

impl Recorded {
    /// A recording of one sample of a tree.
    fn new() -> Recorded {
        let recorded = Recorded { folder: tempfile::tempdir().unwrap(), tree: shmem_tree() };
        recorded.record(&["--count", "1"]);
        recorded
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("r.db")
    }

    fn record(&self, args: &[&str]) -> Run {
        let file = self.file();
        let run = lsbuf(&self.tree, &[&["record", file.to_str().unwrap()], args].concat());
        assert_eq!(run.status, 0, "{}", run.stderr);
        run
    }

    fn ask(&self, args: &[&str]) -> Run {
        from(&self.file(), args)
    }
}

/// Runs the command on a file of the past.
fn from(file: &Path, args: &[&str]) -> Run {
    let output = Command::new(cargo_bin("lsbuf")).args(args).arg("--from").arg(file).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { stdout: text(output.stdout), stderr: text(output.stderr), status: output.status.code().unwrap() }
}

/// Without the two figures in which two scans of one tree differ: when and how long.
fn timeless(text: &str) -> String {
    let Ok(mut document) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    document["taken_at"] = "T".into();
    document["scan"]["duration_us"] = 0.into();
    document.to_string()
}

/// Check that a recorded answer is the live one, byte for byte, in every command and format.
#[test]
fn the_past_is_asked_like_the_present() {
    let recorded = Recorded::new();
    for args in [
        &["ls"][..],
        &["ls", "--csv", "-o", "+SHAPE,UID,CREATED,DELETED,IPC,CPID,LPID,EXE,PIDS,COMMANDS,ESTIMATE"],
        &["ls", "--raw", "--sort", "INO"],
        &["ls", "--human", "--noheadings"],
        &["ls", "--json"],
        &["ls", "--json", "--compact", "--details"],
        &["ls", "-p", "12", "--name", "wl*"],
        &["ls", "--deleted", "--min-size", "4K"],
        &["ps"],
        &["ps", "--csv", "-o", "+MPSS,UID,CGROUP,SYNCS,USER,ARGS,UNIT,CONTAINER,POD,NOFILE,PPID"],
        &["ps", "--json", "--details"],
        &["sum", "--by", "command"],
        &["sum", "--by", "name", "--json"],
        &["sum", "--by", "mount", "--csv"],
    ] {
        let live = lsbuf(&recorded.tree, args);
        let past = recorded.ask(args);
        assert_eq!(timeless(&past.stdout), timeless(&live.stdout), "{args:?}");
        assert_eq!((past.stderr, past.status), (live.stderr, live.status), "{args:?}");
    }
    for args in [&["show", "0x1234", "memfd:7"][..], &["show", "0x1234", "memfd:7", "--json"]] {
        let past = recorded.ask(&[args, &["--at", "end"]].concat());
        assert_eq!(timeless(&past.stdout), timeless(&lsbuf(&recorded.tree, args).stdout), "{args:?}");
    }
}

/// Check that the JSON of an answer is answered from as a recording is.
#[test]
fn documents_are_answered_from() {
    let tree = shmem_tree();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot.json");
    std::fs::write(&file, lsbuf(&tree, &["--json", "--details"]).stdout).unwrap();
    for args in [
        &["ls"][..],
        &["ps", "-o", "+ARGS"],
        &["sum"],
        &["ls", "--json"],
        &["show", "0x1234", "memfd:7", "--json"],
    ] {
        let (live, past) = (lsbuf(&tree, args), from(&file, args));
        assert_eq!(timeless(&past.stdout), timeless(&live.stdout), "{args:?}");
        assert_eq!((past.stderr, past.status), (live.stderr, live.status), "{args:?}");
    }
    let at = from(&file, &["ls", "--at", "start"]);
    assert_eq!((at.status, at.stderr.contains("is a single answer")), (1, true), "{}", at.stderr);
}

/// Check that kinds and processes are chosen in the past as in the present.
#[test]
fn kinds_of_the_past() {
    let recorded = Recorded::new();
    for kinds in [&["--kind", "memfd"][..], &["--kind", "sysv,tmpfs"], &["-d"]] {
        let args = [&["--csv"], kinds].concat();
        assert_eq!(recorded.ask(&args).stdout, lsbuf(&recorded.tree, &args).stdout, "{kinds:?}");
    }
    let nobody = recorded.ask(&["-p", "4711"]);
    assert_eq!((nobody.status, nobody.stderr.as_str()), (1, "lsbuf: process 4711 held nothing then\n"));
}

/// Check that a life is told: when a buffer was there, and who held it from when to when.
#[test]
fn lives() {
    let recorded = Recorded::new();
    recorded.record(&["--count", "1"]);
    std::fs::remove_file(recorded.tree.path("proc/12/fd/4")).unwrap();
    std::fs::remove_file(recorded.tree.path("proc/12/fdinfo/4")).unwrap();
    recorded.record(&["--count", "1"]);
    let gone = recorded.ask(&["show", "/dev/shm/leaked"]);
    assert_eq!(gone.status, 0, "{}", gone.stderr);
    assert!(gone.stdout.contains("gone after"), "{}", gone.stdout);
    assert!(gone.stdout.contains("client:12  1 fd"), "{}", gone.stdout);
    let there = recorded.ask(&["show", "memfd:7"]);
    assert!(there.stdout.contains("still there at") && there.stdout.contains("to still"), "{}", there.stdout);
    assert_eq!(recorded.ask(&["show", "4711"]).status, 1);
    // A run that does not look for memfds cannot tell whether one is gone.
    recorded.record(&["--count", "1", "-d"]);
    let unknown = recorded.ask(&["show", "memfd:7"]);
    assert!(unknown.stdout.contains("still there at"), "{}", unknown.stdout);
}

/// Check that the JSON of a life fits the schema, that it says between which samples the file was
/// let go and died, that what is still there has no end, and that a hostile name is harmless.
#[test]
fn lives_in_json() {
    let recorded = Recorded::new();
    for file in ["fd/4", "fdinfo/4"] {
        std::fs::remove_file(recorded.tree.path(&format!("proc/12/{file}"))).unwrap();
    }
    recorded.record(&["--count", "1"]);
    let run = recorded.ask(&["show", "/dev/shm/leaked", "memfd:7", "memfd:7", "--json"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(!run.stdout.contains('\x1b'), "{}", run.stdout);
    let document: Value = serde_json::from_str(&run.stdout).unwrap();
    let schema = serde_json::from_str(include_str!("../../../docs/lsbuf.life-1.schema.json")).unwrap();
    let errors: Vec<String> =
        jsonschema::validator_for(&schema).unwrap().iter_errors(&document).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!([&document["first_sample"]["sample"], &document["last_sample"]["sample"]], [1, 2]);
    let [gone, there] = &document["lives"].as_array().unwrap()[..] else { panic!("{document}") };
    let samples = |between: &Value| (between["after"]["sample"].as_u64(), between["by"]["sample"].as_u64());
    assert_eq!((samples(&gone["born"]), samples(&gone["died"])), ((None, Some(1)), (Some(1), Some(2))));
    assert_eq!((&gone["name"], &gone["states"][0]["charged"]), (&"/dev/shm/leaked".into(), &32768.into()));
    let holder = &gone["holders"][0];
    assert_eq!((&holder["comm"], &holder["held"][0]["fd"]), (&"client".into(), &1.into()));
    assert_eq!(
        (samples(&holder["received"]), samples(&holder["let_go"])),
        ((None, Some(1)), (Some(1), Some(2)))
    );
    assert_eq!((&there["died"], &there["states"][0]["until"]["sample"]), (&Value::Null, &2.into()));
    assert!(there["holders"].as_array().unwrap().iter().all(|holder| holder["let_go"].is_null()));
    let compact = recorded.ask(&["show", "memfd:7", "--json", "--compact"]);
    assert_eq!(compact.stdout.lines().count(), 1);
    let missing = recorded.ask(&["show", "4711", "memfd:7", "--json"]);
    assert_eq!((missing.status, missing.stderr.contains("4711")), (1, true), "{}", missing.stderr);
}

/// Check that a recording is continued, and that --count and --for end it.
#[test]
fn recording_ends() {
    let recorded = Recorded::new();
    let run = recorded.record(&["--count", "3", "--every", "10ms"]);
    assert!(run.stderr.starts_with("lsbuf: 3 samples; "), "{}", run.stderr);
    recorded.record(&["--for", "50ms", "--every", "20ms", "--quiet"]);
    let db = rusqlite::Connection::open(recorded.file()).unwrap();
    let samples: i64 = db.query_row("SELECT count(*) FROM sample", [], |row| row.get(0)).unwrap();
    assert!((5..=8).contains(&samples), "{samples}");
}

/// Check that each mistake is one line that says what is valid.
#[test]
fn mistakes() {
    let recorded = Recorded::new();
    let line = |run: Run, status: i32, has: &str| {
        assert_eq!((run.status, run.stderr.lines().count()), (status, 1), "{}", run.stderr);
        assert!(run.stderr.contains(has), "{}", run.stderr);
    };
    line(recorded.ask(&["--at", "noon"]), 2, "valid: start, end, -10m (before the end), 14:05");
    line(recorded.ask(&["--at", "1970-01-01T00:00:00Z"]), 1, "it spans 20");
    line(recorded.ask(&["--at", "-9d"]), 1, "it spans 20");
    line(recorded.ask(&["--source", "procfs"]), 2, "cannot be used with");
    line(from(Path::new("/nowhere/r.db"), &["ps"]), 1, "/nowhere/r.db cannot be opened");
    line(from(Path::new("/proc/version"), &["ps"]), 1, "/proc/version is not a recording");
    line(from(&recorded.tree.path("proc"), &["ps"]), 1, "");
    let file = recorded.file();
    let record = |args: &[&str]| lsbuf(&recorded.tree, &[&["record", file.to_str().unwrap()], args].concat());
    line(record(&["--every", "0s"]), 2, "the shortest interval is 10ms");
    line(record(&["--every", "soon"]), 2, "valid: 500ms, 90s, 10m, 1h30m, 7d");
    line(record(&["--count", "0"]), 2, "0");
}
