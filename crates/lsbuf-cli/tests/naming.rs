//! A buffer is found by what other tools print of it; on recorded trees.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

mod kit;

use kit::{lsbuf, shmem_tree};

/// The first lines of the buffers that are shown, and what is said about their number.
fn shown(wanted: &str) -> (Vec<String>, Option<String>) {
    let run = lsbuf(&shmem_tree(), &["show", wanted]);
    let first = run.stdout.lines().filter(|line| !line.is_empty() && !line.starts_with(' '));
    let said = run.stderr.lines().find(|line| line.contains(" fits ")).map(str::to_owned);
    (first.map(str::to_owned).collect(), said)
}

/// Check that each form in which PostgreSQL, ipcs, lsof and maps print a buffer finds it.
#[test]
fn forms_of_other_tools() {
    for (wanted, first) in [
        ("4660", "sysv 32769: 0x00001234"),
        ("0x00001234", "sysv 32769: 0x00001234"),
        ("SYSV00001234", "sysv 32769: 0x00001234"),
        ("/SYSV0000162e (deleted)", "sysv 0: 0x0000162e"),
        ("32769", "sysv 32769: 0x00001234"),
        ("/dev/shm/leaked (deleted)", "tmpfs 6: /dev/shm/leaked"),
        ("/proc/12/fd/4", "tmpfs 6: /dev/shm/leaked"),
        ("/proc/13/map_files/7f0000000000-7f0000100000", r"memfd 7: wl_\x1bshm"),
        (r"/memfd:wl_\x1bshm (deleted)", r"memfd 7: wl_\x1bshm"),
        (r"memfd:wl_\x1bshm", r"memfd 7: wl_\x1bshm"),
    ] {
        assert_eq!(shown(wanted), (vec![first.to_owned()], None), "{wanted}");
    }
}

/// Check that what fits several buffers shows them all, and says how many fit and why.
#[test]
fn ambiguous_forms() {
    let tree = shmem_tree();
    tree.shmem_fd(12, 5, b"/dev/shm/other", "0:27 4660 100 8 1 4096 1000");
    let run = lsbuf(&tree, &["show", "4660"]);
    let line = "lsbuf: '4660' fits 2 buffers: 1 by number, 1 by key\n";
    assert!(run.stderr.starts_with(line), "{}", run.stderr);
    assert_eq!(run.stdout.matches("  size ").count(), 2, "{}", run.stdout);
}

/// Check that a text which fits nothing is no answer.
#[test]
fn nothing_fits() {
    let run = lsbuf(&shmem_tree(), &["show", "/proc/12/fd/99"]);
    assert_eq!((run.status, run.stdout.as_str()), (1, ""));
    assert!(run.stderr.contains("no buffer /proc/12/fd/99 among the 4 found"), "{}", run.stderr);
}
