//! The copies in `dist/man` and `dist/completions` against what the program writes.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::cargo::cargo_bin;

/// Check that the manual pages in the repository are those of this program.
#[test]
fn manual_pages_are_current() {
    compare("man");
}

/// Check that the completions in the repository are those of this program.
#[test]
fn completions_are_current() {
    compare("completions");
}

fn compare(what: &str) {
    let made = tempfile::tempdir().unwrap();
    let status = Command::new(cargo_bin("lsbuf")).args(["generate", what]).arg(made.path()).status().unwrap();
    assert!(status.success());
    let copies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist").join(what);
    let (made, copies) = (read(made.path()), read(&copies));
    let renew = format!("run: cargo run -- generate {what} dist/{what}");
    assert!(made.keys().eq(copies.keys()), "dist/{what} has other files; {renew}");
    for (name, text) in &made {
        assert!(copies[name] == *text, "dist/{what}/{name} is not what lsbuf generates; {renew}");
        let hidden = ["check-helper", "generate"].iter().find(|word| text.contains(**word));
        assert_eq!(hidden, None, "{name} has a hidden command");
    }
}

fn read(folder: &Path) -> BTreeMap<String, String> {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
    };
    fs::read_dir(folder).unwrap().map(file).collect()
}
