//! What the tests of the command share: to run it on a recorded tree, and a world of shared memory.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test program uses its part, and fails where a part fails"
)]

#[path = "../../../lsbuf/tests/common/mod.rs"]
mod common;

use std::process::Command;

use assert_cmd::cargo::cargo_bin;
pub(crate) use common::Tree;

/// A compositor and a client share a pool; the client has leaked a deleted file, and a worker keeps
/// a segment that is marked for removal beside one that nobody has attached.
pub(crate) fn shmem_tree() -> Tree {
    let tree = Tree::new();
    tree.process(12, b"client");
    tree.process(13, b"compositor");
    tree.process(14, b"worker");
    tree.with_shmem(&[12, 13, 14]);
    tree.shmem_fd(12, 3, b"/memfd:wl_\x1bshm (deleted)", "0:1 7 1048576 2048 0 4096 1000");
    tree.maps(
        13,
        &[
            "7f0000000000-7f0000100000 rw-s 00000000 00:01 7    /memfd:wl_\x1bshm (deleted)",
            "7f0000200000-7f0000201000 r--p 00000000 00:01 7    /memfd:wl_\x1bshm (deleted)",
        ],
    );
    tree.shmem_fd(12, 4, b"/dev/shm/leaked (deleted)", "0:27 6 9900 64 0 4096 1000");
    tree.maps(14, &["7f0000000000-7f0000004000 rw-s 00000000 00:01 0    /SYSV0000162e (deleted)"]);
    let table = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n\
        \x20        0          0  1600                16384    99    14      1  1000  1000  1000  1000          0          0          0                 8192                 4096\n\
        \x20     4660      32769   600                65536    99     0      0  1000  1000  1000  1000          0          0          0                    0                    0\n";
    tree.write("proc/sysvipc/shm", table.as_bytes());
    for fd in 10..14 {
        tree.fd(13, fd, b"anon_inode:sync_file", b"pos:\t0\nflags:\t02\nmnt_id:\t9\n");
    }
    tree.write_list();
    tree
}

/// What a command printed, and how it exited.
pub(crate) struct Run {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: i32,
}

/// Runs the command on a recorded tree, the path of which is replaced by `TREE/`.
pub(crate) fn lsbuf(tree: &Tree, args: &[&str]) -> Run {
    let output = Command::new(cargo_bin("lsbuf"))
        .args(args)
        .arg("--proc-root")
        .arg(tree.path("proc"))
        .arg("--sys-root")
        .arg(tree.path("sys"))
        .output()
        .unwrap();
    let text =
        |bytes| String::from_utf8(bytes).unwrap().replace(&tree.path("").display().to_string(), "TREE/");
    Run { stdout: text(output.stdout), stderr: text(output.stderr), status: output.status.code().unwrap() }
}
