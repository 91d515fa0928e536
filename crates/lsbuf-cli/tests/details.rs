//! Whose processes are these: the columns and JSON keys of details, by the command.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use std::process::Command;
use std::time::Duration;

use assert_cmd::cargo::cargo_bin;
use kit::{Tree, lsbuf, shmem_tree};
use lsbuf::model::{Detail, Pid, Snapshot};
use lsbuf::scan::{Options, Scanner};

fn world() -> Tree {
    let tree = shmem_tree();
    tree.write("proc/12/cmdline", b"client\0--pool\0a\n\x1b[31mb\0");
    tree.write(
        "proc/12/limits",
        b"Max open files            256                  4096                 files     \n",
    );
    tree.write("proc/12/cgroup", b"0::/system.slice/client.service\n");
    tree.write("proc/stat", b"btime 0\n");
    tree.process(99, b"init (1)");
    tree
}

/// Check that the columns of details stand in the table, on one line and escaped, and that what
/// cannot be read is unknown.
#[test]
fn columns() {
    let run = lsbuf(&world(), &["ps", "-n", "-o", "PID,NOFILE,UNIT,POD,USER,SHMRSS,ARGS", "--sort", "PID"]);
    let lines: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["14", "?", "-", "-", "1000", "?", "?"], "{}", run.stdout);
    assert_eq!(
        lines[2],
        ["12", "256", "client.service", "-", "1000", "?", "client", "--pool", r"a\x0a\x1b[31mb"]
    );
}

/// Check that a scanner that may use again what it has read of a process does, until the command
/// changes.
#[test]
fn read_again() {
    let tree = world();
    let of_client = |snapshot: &Snapshot| {
        let client = snapshot.process(Pid(12)).unwrap();
        client.details.as_ref().unwrap().args.as_ref().unwrap().words[1].clone()
    };
    let options = Options { details: Detail::Args.into(), ..tree.options() };
    let hour = Duration::from_secs(3600);
    let stat = std::fs::read_to_string(tree.path("proc/12/stat")).unwrap();
    for (details_for, expected) in
        [(Duration::ZERO, ["--pool", "--new", "--newer"]), (hour, ["--pool", "--pool", "--newer"])]
    {
        tree.write("proc/12/cmdline", b"client\0--pool\0");
        tree.write("proc/12/stat", stat.as_bytes());
        let mut scanner = Scanner::new(Options { details_for, ..options.clone() }).unwrap();
        let first = of_client(&scanner.scan().unwrap());
        tree.write("proc/12/cmdline", b"client\0--new\0");
        let second = of_client(&scanner.scan().unwrap());
        tree.write("proc/12/cmdline", b"other\0--newer\0");
        tree.write("proc/12/stat", stat.replace("(client)", "(other)").as_bytes());
        let third = of_client(&scanner.scan().unwrap());
        assert_eq!([first, second, third], expected.map(lsbuf::model::Label::from), "{details_for:?}");
    }
}

/// Check that a sort by such a column reads it.
#[test]
fn sorting() {
    let run = lsbuf(&world(), &["ps", "-n", "-r", "-o", "PID", "--sort", "NOFILE"]);
    assert_eq!(run.stdout.lines().next(), Some("12"), "{}", run.stdout);
}

/// Check that people see SYNCS as soon as a shown process has one, and that the columns for
/// programs do not depend on it.
#[test]
fn sync_files_are_shown() {
    let has = |args: &[&str]| lsbuf(&world(), args).stdout.lines().next().unwrap().contains("SYNCS");
    assert_eq!((has(&["ps"]), has(&["ps", "-p", "12"])), (true, false));
    assert_eq!((has(&["ps", "-r"]), has(&["ps", "--csv"])), (false, false));
}

/// Check that creator and last user of a segment are named with their command, escaped so that it
/// cannot pass for another process.
#[test]
fn segment_users() {
    let tree = world();
    let table = std::fs::read_to_string(tree.path("proc/sysvipc/shm")).unwrap();
    // The second segment was made in second 50, when process 99 ran.
    let table = table.replace(
        "          0          0          0                    0",
        "          0          0         50                    0",
    );
    tree.write("proc/sysvipc/shm", table.as_bytes());
    let run = lsbuf(&tree, &["--kind", "sysv", "-r", "-n", "-o", "INO,CPID,LPID", "--sort", "INO"]);
    assert_eq!(run.stdout, "32769 init\\x20\\x281\\x29:99 ?\n0 99 14\n");
    let shown = lsbuf(&tree, &["show", "32769"]).stdout;
    assert!(shown.contains("  creator   init\\x20\\x281\\x29:99\n"), "{shown}");
}

/// Check that `show` tells holders apart by their command lines.
#[test]
fn show_has_command_lines() {
    let shown = lsbuf(&world(), &["show", "/dev/shm/leaked"]).stdout;
    assert!(
        shown.contains("    client:12  args client --pool a\\x0a\\x1b[31mb\n    client:12  fd 4\n"),
        "{shown}"
    );
}

/// Check that JSON has details only if asked for, and that they keep the schema.
#[test]
fn json() {
    let schema = serde_json::from_str(include_str!("../../../docs/lsbuf.snapshot-1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let document =
        |args: &[&str]| -> serde_json::Value { serde_json::from_str(&lsbuf(&world(), args).stdout).unwrap() };
    assert!(document(&["ps", "-J"])["processes"][0].get("details").is_none());
    for args in [&["ps", "-J", "--details"][..], &["ls", "-J", "--details"], &["show", "memfd:7", "-J"]] {
        let found = document(args);
        let errors: Vec<String> = schema.iter_errors(&found).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{args:?} {errors:?}");
        let details = &found["processes"][0]["details"];
        assert_eq!(details["args"], serde_json::json!(["client", "--pool", "a\n\u{1b}[31mb"]), "{args:?}");
        assert_eq!((&details["fd_limit"], &details["exe"]), (&256.into(), &serde_json::Value::Null));
        let workload = serde_json::json!({ "unit": "client.service", "container": null, "pod": null });
        assert_eq!(details["workload"], workload);
        assert_eq!(
            details["user"],
            serde_json::Value::Null,
            "users of this machine are not those of a recording"
        );
    }
}

/// Check on this machine that a process is told by its command line, program, user and limit.
#[test]
fn this_machine() {
    let held = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    std::fs::write(held.path(), "held").unwrap();
    let own = std::process::id().to_string();
    let output = Command::new(cargo_bin("lsbuf"))
        .args(["ps", "--source", "procfs", "-J", "--details", "-p", &own])
        .output()
        .unwrap();
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let details = &document["processes"][0]["details"];
    let args: Vec<String> = std::env::args().collect();
    assert_eq!(details["args"], serde_json::json!(args));
    let exe = std::env::current_exe().unwrap();
    assert_eq!(details["exe"], exe.to_str().unwrap());
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(details["fd_limit"].to_string(), limit.split_whitespace().next().unwrap());
}
