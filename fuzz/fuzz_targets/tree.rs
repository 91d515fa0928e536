//! Scans recorded procfs trees that are damaged as the input says. No scan may panic, and every
//! answer must balance.
#![no_main]

#[path = "../../crates/lsbuf/tests/common/recorded.rs"]
mod recorded;

use std::path::Path;
use std::sync::LazyLock;

use recorded::Recorded;

static TREES: LazyLock<Vec<Recorded>> = LazyLock::new(|| {
    recorded::all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/lsbuf/tests/recorded")))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&which, script)) = data.split_first() else { return };
    let tree = &TREES[usize::from(which) % TREES.len()];
    if let Ok(snapshot) = tree.scan_with(&recorded::damage(&tree.tree, script)) {
        recorded::assert_balanced(&snapshot);
        let _ = recorded::json(&snapshot);
    }
});
