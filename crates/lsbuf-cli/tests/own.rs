//! lsbuf is not part of its own answer: what it inherits from the program that starts it, and its
//! own program, are in no figure.
//!
//! The tests run on this kernel, by procfs and, as root, by BPF iterators.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use assert_cmd::cargo::cargo_bin;
use rustix::fs::{MemfdFlags, memfd_create};
use serde_json::Value;

const SIZE: u64 = 1 << 20;

/// Held by each test: what one test does not close on exec, the lsbuf of another would inherit.
static ALONE: Mutex<()> = Mutex::new(());

/// What lsbuf answers by each source that works here, and its stderr.
fn answers(program: &Path, args: &[&str], stdout: impl Fn() -> Option<File>) -> Vec<(&'static str, Value)> {
    let by = |source| {
        let out = tempfile::NamedTempFile::new_in("/tmp").unwrap();
        let stdout = stdout().unwrap_or_else(|| out.reopen().unwrap());
        let mut command = Command::new(program);
        command.args(args).args(["-J", "--source", source]).stdout(stdout.try_clone().unwrap());
        let status = command.stderr(std::process::Stdio::null()).status().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&stdout));
        status.success().then(|| (source, serde_json::from_slice(&fs::read(path).unwrap()).unwrap()))
    };
    let found: Vec<_> = ["procfs", "bpf"].into_iter().filter_map(by).collect();
    assert_eq!(found.first().map(|(source, _)| *source), Some("procfs"));
    found
}

fn row(answer: &Value, ino: u64) -> Option<&Value> {
    answer["buffers"].as_array().unwrap().iter().find(|row| row["ino"] == ino)
}

/// Check that a memfd which lsbuf inherits from its only holder has that one holder, and that the
/// whole of it is the holder's own.
#[test]
fn an_inherited_memfd() {
    let _alone = ALONE.lock();
    let file = File::from(memfd_create("keymap", MemfdFlags::empty()).unwrap());
    rustix::io::pwrite(&file, &vec![7; SIZE as usize], 0).unwrap();
    let (ino, own) = (file.metadata().unwrap().ino(), std::process::id());
    for (source, answer) in answers(&cargo_bin("lsbuf"), &["--kind", "memfd"], || None) {
        let found = row(&answer, ino).unwrap();
        let holders = found["holders"].as_array().unwrap();
        assert_eq!(holders.len(), 1, "{source}: {found}");
        assert_eq!((&holders[0]["pid"], &found["charged"]), (&own.into(), &SIZE.into()), "{source}");
        if source == "bpf" {
            assert_eq!((&found["count"], &found["refs"]["kernel"]), (&1.into(), &0.into()), "{found}");
        }
        let process = answer["processes"].as_array().unwrap().iter().find(|p| p["pid"] == own).unwrap();
        let uses = if source == "bpf" { SIZE.into() } else { Value::Null };
        assert_eq!((&process["pss"], &process["uss"]), (&SIZE.into(), &uses), "{source}: {process}");
    }
}

/// Check that neither the program of lsbuf nor the file to which it writes is in the answer, where
/// both are on a tmpfs.
#[test]
fn its_program_and_its_output() {
    let _alone = ALONE.lock();
    let folder = tempfile::Builder::new().tempdir_in("/dev/shm").unwrap();
    let program = folder.path().join("lsbuf");
    fs::copy(cargo_bin("lsbuf"), &program).unwrap();
    let output = folder.path().join("out");
    let opened = || {
        let options = File::options().read(true).write(true).create(true).truncate(true).open(&output);
        Some(options.unwrap())
    };
    let ino = |path: &Path| fs::metadata(path).unwrap().ino();
    for (source, answer) in answers(&program, &["--kind", "tmpfs"], opened) {
        assert!(row(&answer, ino(&program)).is_none(), "{source}");
        // This test has the output open, too.
        let holders = row(&answer, ino(&output)).unwrap()["holders"].as_array().unwrap();
        assert_eq!(holders.len(), 1, "{source}: {holders:?}");
        assert_eq!(holders[0]["pid"], std::process::id(), "{source}");
    }
}

/// Check that `doctor` says how many fds lsbuf inherited.
#[test]
fn doctor_counts_them() {
    let _alone = ALONE.lock();
    let told = || {
        let run = Command::new(cargo_bin("lsbuf")).arg("doctor").output().unwrap();
        let text = String::from_utf8(run.stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with("left out"));
        let number = line.map(|line| line.split_whitespace().nth(4).unwrap().parse::<u64>().unwrap());
        number.unwrap_or(0)
    };
    let before = told();
    let kept = memfd_create("keymap", MemfdFlags::empty()).unwrap();
    assert_eq!(told(), before + 1);
    drop(kept);
}
