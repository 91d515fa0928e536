//! Tests that the programs in `examples/` run and print what they promise. `cargo test` builds
//! them.

#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};

fn start(example: &str, arguments: &[&str]) -> Child {
    let own = std::env::current_exe().unwrap();
    let path: PathBuf = own.parent().unwrap().parent().unwrap().join("examples").join(example);
    assert!(path.exists(), "{} is not built: run `cargo test` for the whole package", path.display());
    Command::new(path).args(arguments).stdout(Stdio::piped()).spawn().unwrap()
}

fn output(example: &str, arguments: &[&str]) -> String {
    let output = start(example, arguments).wait_with_output().unwrap();
    assert!(output.status.success(), "{example}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn memfd(bytes: u64) -> (OwnedFd, u64) {
    let file = memfd_create("example", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, bytes).unwrap();
    let ino = fstat(&file).unwrap().st_ino;
    (file, ino)
}

/// Check that a process that holds a memfd is among the holders.
#[test]
fn largest_holders() {
    let (_file, _) = memfd(1);
    let pid = std::process::id().to_string();
    let text = output("largest_holders", &["1000000"]);
    assert!(text.lines().any(|line| line.split_whitespace().next() == Some(&pid)), "{text}");
}

/// Check that a holder is reported when it appears and when it has released the buffer, and that
/// the program then ends.
#[test]
fn watch_buffer() {
    let (file, ino) = memfd(1);
    let mut watching = start("watch_buffer", &["memfd", &ino.to_string()]);
    let mut lines = BufReader::new(watching.stdout.take().unwrap());
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let pid = std::process::id();
    assert!(first.starts_with(&format!("+ {pid} ")), "{first}");
    drop(file);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, format!("- {pid}\nmemfd {ino} is held by no process that could be read\n"));
    assert!(watching.wait().unwrap().success());
}

/// Check that a scan by procfs alone ends, whatever dma-bufs there are.
#[test]
fn procfs_only() {
    let text = output("procfs_only", &[]);
    let last = text.lines().last().unwrap();
    assert_eq!(last, format!("{} dma-bufs", text.lines().count() - 1));
}
