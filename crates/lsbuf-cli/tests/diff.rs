//! `lsbuf diff`.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use std::path::{Path, PathBuf};
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use kit::{Run, Tree, lsbuf, shmem_tree};
use serde_json::Value;

/// Two answers of a tree: between them the client has closed a deleted file and got another fd of
/// the pool, and the compositor has exited.
struct Answers {
    folder: tempfile::TempDir,
    tree: Tree,
}

impl Answers {
    fn new() -> Answers {
        let answers = Answers { folder: tempfile::tempdir().unwrap(), tree: shmem_tree() };
        answers.tree.write("proc/sys/kernel/random/boot_id", b"d3b07384-d9a0-4c9b-8f3a-000000000001\n");
        let tree = &answers.tree;
        let record = |args: &[&str]| {
            let db = answers.path("r.db");
            let run = lsbuf(tree, &[&["record", db.to_str().unwrap(), "--count", "1"], args].concat());
            assert_eq!(run.status, 0, "{}", run.stderr);
        };
        std::fs::write(answers.path("a.json"), lsbuf(tree, &["--json"]).stdout).unwrap();
        record(&[]);
        for file in ["fd/4", "fdinfo/4"] {
            std::fs::remove_file(tree.path(&format!("proc/12/{file}"))).unwrap();
        }
        tree.shmem_fd(12, 5, b"/memfd:new (deleted)", "0:1 70 4096 8 0 4096 1000");
        std::fs::remove_dir_all(tree.path("proc/13")).unwrap();
        std::fs::write(answers.path("b.json"), lsbuf(tree, &["--json"]).stdout).unwrap();
        record(&[]);
        answers
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn diff(&self, args: &[&str]) -> Run {
        diff(self.folder.path(), args)
    }
}

fn diff(folder: &Path, args: &[&str]) -> Run {
    let output =
        Command::new(cargo_bin("lsbuf")).arg("diff").args(args).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { stdout: text(output.stdout), stderr: text(output.stderr), status: output.status.code().unwrap() }
}

const CHANGES: &str = "CHANGE,KIND,INO,COST,+COST,NAME,GAINED,LOST\n\
                       died,tmpfs,6,32768,-32768,/dev/shm/leaked,,client:12\n\
                       born,memfd,70,4096,+4096,new,client:12,\n\
                       holders,memfd,7,1048576,0,wl_\\x1bshm,,compositor:13\n";

/// Check that the same changes are found between two documents, two times of a recording, and a
/// document and a machine.
#[test]
fn answers_are_compared() {
    let answers = Answers::new();
    for args in [
        &["a.json", "b.json", "--csv"][..],
        &["--from", "r.db", "start", "end", "--csv"],
        &["--from", "r.db", "start", "b.json", "--csv"],
    ] {
        let run = answers.diff(args);
        assert_eq!((run.stdout.as_str(), run.status), (CHANGES, 0), "{args:?} {}", run.stderr);
    }
    let earlier = answers.path("a.json");
    let now = lsbuf(&answers.tree, &["diff", earlier.to_str().unwrap(), "now", "--csv"]);
    assert_eq!(now.stdout, CHANGES, "{}", now.stderr);
}

/// Check that filters choose among the changed buffers, by what they were as well.
#[test]
fn changes_are_filtered() {
    let answers = Answers::new();
    let rows = |args: &[&str]| {
        answers.diff(&[&["a.json", "b.json", "--csv", "-n", "-o", "INO"], args].concat()).stdout
    };
    assert_eq!(rows(&["--name", "/dev/shm/*"]), "6\n");
    assert_eq!(rows(&["--min-size", "1M"]), "7\n");
    assert_eq!(rows(&["--kind", "memfd"]), "70\n7\n");
    assert_eq!(rows(&["-p", "13"]), "7\n");
}

/// Check the sums by process and by key, in a table and in JSON that fits the schema.
#[test]
fn changes_are_summed_up() {
    let answers = Answers::new();
    let by_process =
        answers.diff(&["a.json", "b.json", "--by", "process", "--csv", "-o", "PID,RSS,+RSS,+BUFS,+FDS"]);
    assert_eq!(by_process.stdout, "PID,RSS,+RSS,+BUFS,+FDS\n12,1052672,-28672,0,0\n13,0,-1048576,-1,0\n");
    let by_kind =
        answers.diff(&["a.json", "b.json", "--by", "kind", "--csv", "-o", "KEY,BUFS,BORN,DIED,+COST"]);
    assert_eq!(by_kind.stdout, "KEY,BUFS,BORN,DIED,+COST\nmemfd,2,1,0,+4096\ntmpfs,0,0,1,-32768\n");
    let schema = serde_json::from_str(include_str!("../../../docs/lsbuf.diff-1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for by in [&[][..], &["--by", "process"], &["--by", "command"]] {
        let run = answers.diff(&[&["a.json", "b.json", "--json"], by].concat());
        let document: Value = serde_json::from_str(&run.stdout).unwrap();
        let errors: Vec<String> = schema.iter_errors(&document).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{by:?}: {errors:?}");
        assert_eq!(document["buffers"].as_array().unwrap().len(), 3);
        assert_eq!(document["buffers"][0]["cost_change"], -32768);
    }
}

/// Check that a command's exit status is kept, also that of a signal, and that --fail-on-leftover
/// changes it only where the command has succeeded and left something.
#[test]
fn a_command_is_watched() {
    let folder = tempfile::tempdir().unwrap();
    let watch = |args: &[&str], script: &str| {
        let args =
            [&["--watch", "100ms", "--name", "no such name"], args, &["--", "sh", "-c", script]].concat();
        diff(folder.path(), &args).status
    };
    assert_eq!(watch(&[], "exit 7"), 7);
    assert_eq!(watch(&[], "kill -TERM $$"), 128 + 15);
    assert_eq!(watch(&["--fail-on-leftover"], "exit 0"), 0);
    let missing = diff(folder.path(), &["--watch", "1s", "--", "/nowhere/command"]);
    assert_eq!(
        (missing.status, missing.stderr.as_str()),
        (1, "lsbuf: /nowhere/command cannot be run: No such file or directory (os error 2)\n")
    );
}

/// Check that each mistake is one line that says what is valid.
#[test]
fn mistakes() {
    let answers = Answers::new();
    let line = |args: &[&str], status: i32, has: &str| {
        let run = answers.diff(args);
        let last = run.stderr.lines().last().unwrap_or_default();
        assert!(run.status == status && last.contains(has), "{args:?}: {} {}", run.status, run.stderr);
    };
    line(&[], 2, "<A>");
    line(&["r.db"], 1, "valid: lsbuf diff --from r.db TIME TIME");
    line(&["--from", "r.db", "noon"], 1, "valid: start, end");
    line(&["a.json", "b.json", "--by", "cat"], 2, "valid: process, name, command");
    line(&["a.json", "b.json", "-o", "CAT"], 1, "no such column; valid: CHANGE, KIND");
    line(&["a.json", "b.json", "--sort", "CAT"], 1, "no such column; valid: CHANGE");
    line(&["nowhere.json"], 1, "nowhere.json cannot be opened");
    line(&["--watch", "1s"], 2, "COMMAND");
}
