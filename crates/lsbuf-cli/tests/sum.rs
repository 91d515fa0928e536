//! `lsbuf sum`: groups, the line that proves them, formats and mistakes; on a recorded tree.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use kit::{lsbuf, shmem_tree};

/// The client holds the pool with the compositor, and a deleted file alone. The worker has a
/// segment of 12288 bytes in memory and swap, and another segment is unattached. By hand: 1048576 +
/// 32768 for the client, 1048576 for the compositor, and the pool counts twice.
const PROOF: &str = "4 groups, 2142208 in all; less 1048576 that count again, as 1 buffer is in several groups: \
    1093632 in 4 buffers";

/// Check the groups by command, and the line that takes away what counts twice.
#[test]
fn by_command() {
    let run = lsbuf(&shmem_tree(), &["sum"]);
    let rows: Vec<Vec<&str>> = run.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["KEY", "BUFS", "SIZE", "COST", "PSS", "USS", "SHARED", "FDS", "MAPS", "PROCS"]);
    // The deleted file's count is unknown, so it is unknown what the client's exit frees.
    assert_eq!(rows[1], ["client", "2", "1058476", "1081344", "557056", "?", "1048576", "2", "0", "1"]);
    assert_eq!(rows[2], ["compositor", "1", "1048576", "1048576", "524288", "0", "1048576", "0", "2", "1"]);
    assert_eq!(rows[3], ["worker", "1", "16384", "12288", "12288", "12288", "0", "0", "1", "1"]);
    assert_eq!(rows[4], ["-", "1", "65536", "0", "0", "0", "0", "0", "0", "0"]);
    assert_eq!(run.stdout.lines().nth(6), Some(PROOF), "{}", run.stdout);
}

/// Check that keys of a buffer put each into one group, with names folded and escaped.
#[test]
fn by_keys_of_buffers() {
    let groups = |by: &str| {
        let run = lsbuf(&shmem_tree(), &["sum", "--by", by, "-r", "-n", "-o", "KEY,BUFS", "--sort", "KEY"]);
        run.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(groups("kind"), ["memfd 1", "sysv 2", "tmpfs 1"]);
    assert_eq!(groups("mount"), ["(none) 3", r"0:27\x20/dev/shm 1"]);
    assert_eq!(groups("exporter"), ["(none) 4"]);
    let tree = shmem_tree();
    tree.shmem_fd(14, 3, b"/memfd:frame_17_2 (deleted)", "0:1 71 4096 8 0 4096 1000");
    tree.shmem_fd(14, 4, b"/memfd:frame_18_31 (deleted)", "0:1 72 4096 8 0 4096 1000");
    let run = lsbuf(&tree, &["sum", "--by", "name", "-r", "-n", "-o", "KEY,BUFS,COST", "--sort", "BUFS"]);
    assert_eq!(run.stdout.lines().next(), Some("frame_#_# 2 8192"));
    assert!(run.stdout.contains("\nwl_\\x1bshm 1 1048576\n"), "{}", run.stdout);
}

/// Check that filters choose the buffers that are summed, as in the list.
#[test]
fn filters() {
    let run = lsbuf(&shmem_tree(), &["sum", "-r", "-n", "-o", "KEY,COST", "-p", "13"]);
    assert_eq!(run.stdout, "client 1048576\ncompositor 1048576\n");
    let run = lsbuf(&shmem_tree(), &["sum", "-r", "-n", "-o", "KEY,COST", "--deleted", "--kind", "tmpfs"]);
    assert_eq!(run.stdout, "client 32768\n");
    let run = lsbuf(&shmem_tree(), &["sum", "--exporter", "nosuch"]);
    assert!(run.stdout.is_empty() && run.stderr.contains("none of 4 buffers matches"), "{}", run.stderr);
}

/// Check that JSON adds up, keeps its schema, and has the rows in the order that was asked for.
#[test]
fn json() {
    let schema = serde_json::from_str(include_str!("../../../docs/lsbuf.sum-1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for by in lsbuf::model::SumKey::ALL {
        let run = lsbuf(&shmem_tree(), &["sum", "--by", by.as_str(), "-J", "--sort", "KEY"]);
        let document: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        let errors: Vec<String> = schema.iter_errors(&document).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{by:?} {errors:?}");
        let groups = document["groups"].as_array().unwrap();
        let sum = |key: &str| groups.iter().map(|group| group[key].as_u64().unwrap()).sum::<u64>();
        let total = |key: &str| document["sum"][key].as_u64().unwrap();
        assert_eq!(sum("cost"), total("cost") + total("counted_again"), "{by:?}");
        assert_eq!((sum("pss"), total("cost")), (total("held"), 1_093_632), "{by:?}");
    }
}

/// Check that an unknown key is refused with those that there are.
#[test]
fn unknown_key() {
    let run = lsbuf(&shmem_tree(), &["sum", "--by", "colour"]);
    let valid = "valid: name, command, cgroup, unit, container, pod, workload, user, exporter, kind, mount";
    assert_eq!((run.status, run.stdout.as_str()), (2, ""));
    assert!(run.stderr.contains(valid), "{}", run.stderr);
}
