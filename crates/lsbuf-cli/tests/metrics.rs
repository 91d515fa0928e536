//! `lsbuf metrics`: what it prints, the file that it replaces, and mistakes; on a recorded tree.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use kit::{lsbuf, shmem_tree};

/// Check the figures of kinds against those that `lsbuf sum` has, and that what was not read has no
/// series: a recorded tree has no account of `Shmem`.
#[test]
fn figures() {
    let run = lsbuf(&shmem_tree(), &["metrics"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    for line in [
        r#"lsbuf_buffers{kind="memfd",state="held"} 1"#,
        r#"lsbuf_buffers{kind="sysv",state="held"} 1"#,
        r#"lsbuf_buffers{kind="sysv",state="kernel_only"} 1"#,
        r#"lsbuf_cost_bytes{kind="memfd",state="held"} 1048576"#,
        r#"lsbuf_cost_bytes{kind="sysv",state="held"} 12288"#,
        r#"lsbuf_shape_buffers{kind="sysv",shape="unattached"} 1"#,
        "lsbuf_series_dropped 0",
    ] {
        assert!(run.stdout.lines().any(|found| found == line), "{line}: {}", run.stdout);
    }
    assert!(!run.stdout.contains("lsbuf_shmem_total_bytes") && !run.stdout.contains("lsbuf_scans_total"));
    // Only the kernel's own list has dma-bufs that no process holds.
    let unlisted = r#"lsbuf_buffers{kind="dmabuf",state="kernel_only"}"#;
    assert!(run.stdout.contains(unlisted));
    let run = lsbuf(&shmem_tree(), &["metrics", "--source", "procfs"]);
    assert!(!run.stdout.contains(unlisted), "{}", run.stdout);
}

/// Check that the same samples come in the other form.
#[test]
fn openmetrics() {
    let samples = |text: &str| -> Vec<String> {
        let changes = ["lsbuf_scan_duration", "lsbuf_last_scan"];
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter(|line| !changes.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
    };
    let tree = shmem_tree();
    let (text, open) = (lsbuf(&tree, &["metrics"]), lsbuf(&tree, &["metrics", "--openmetrics"]));
    assert_eq!(samples(&text.stdout), samples(&open.stdout));
    assert!(open.stdout.ends_with("# EOF\n"));
}

/// Check that the file is written whole, and that nothing is printed.
#[test]
fn textfile() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lsbuf.prom");
    std::fs::write(&file, "older and longer ".repeat(10_000)).unwrap();
    let run = lsbuf(&shmem_tree(), &["metrics", "--textfile", file.to_str().unwrap()]);
    assert_eq!((run.status, run.stdout.as_str()), (0, ""));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# HELP lsbuf_build_info ") && text.ends_with("lsbuf_series_dropped 0\n"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Check that mistakes have one line that says what is valid.
#[test]
fn mistakes() {
    for (args, says) in [
        (&["metrics", "--max-series", "1"][..], "100..=5000"),
        (&["metrics", "--textfile", "/nonexistent/x"], "/nonexistent/x cannot be written"),
        (&["metrics", "--textfile", "x", "--openmetrics"], "cannot be used with"),
    ] {
        let run = lsbuf(&shmem_tree(), args);
        assert!(run.status != 0 && run.stderr.contains(says), "{args:?}: {}", run.stderr);
        assert_eq!(run.stderr.lines().filter(|line| line.contains(says)).count(), 1, "{}", run.stderr);
    }
}
