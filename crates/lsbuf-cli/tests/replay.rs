//! The command on trees recorded from real kernels says what the library says of them.
#![allow(clippy::unwrap_used, reason = "a helper fails where its test fails")]

#[path = "../../lsbuf/tests/common/recorded.rs"]
mod recorded;

use std::path::Path;
use std::process::Command;

use assert_cmd::cargo::cargo_bin;

/// Check that `--proc-root` prints the library's answer for every kernel, in the published form.
#[test]
fn proc_root_is_the_librarys_answer() {
    let schema = serde_json::from_str(include_str!("../../../docs/lsbuf.snapshot-1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for tree in recorded::all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../lsbuf/tests/recorded"))) {
        let options = tree.options();
        let output = Command::new(cargo_bin("lsbuf"))
            .args(["--json", "--dmabuf"])
            .arg("--proc-root")
            .arg(&options.proc_root)
            .arg("--sys-root")
            .arg(options.sys_root.as_ref().unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", tree.id);
        let mut printed = recorded::sorted(serde_json::from_slice(&output.stdout).unwrap());
        let errors: Vec<String> = schema.iter_errors(&printed).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", tree.id);
        let mut expected = recorded::json(&lsbuf::scan(options).unwrap());
        for answer in [&mut printed, &mut expected] {
            answer["taken_at"] = "T".into();
            answer["scan"]["duration_us"] = 0.into();
        }
        assert_eq!(printed, expected, "{}", tree.id);
    }
}
