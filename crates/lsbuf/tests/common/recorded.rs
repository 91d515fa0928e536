//! Unpacks trees that `cargo xtask record` made from real kernels, scans them, and damages them.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "each test program uses its part, and fails where a part fails"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lsbuf::model::{BufferRow, Kinds, Ledger, Snapshot};
use lsbuf::render::{JsonLayout, View};
use lsbuf::scan::Options;
use lsbuf_guest::tree::{Node, Tree, below, put};
use serde_json::Value;

/// An unpacked tree; removed when dropped.
pub(crate) struct Recorded {
    /// The kernel's id.
    pub(crate) id: String,
    pub(crate) tree: Tree,
    dir: tempfile::TempDir,
}

/// Every recorded tree in `folder`, in the order of kernel releases.
pub(crate) fn all(folder: &Path) -> Vec<Recorded> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| {
        let id = path.file_stem().unwrap().to_str().unwrap().to_owned();
        id.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>()
    });
    files
        .into_iter()
        .map(|path| {
            let tree = Tree::parse(&fs::read(&path).unwrap()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            tree.unpack(dir.path()).unwrap();
            Recorded { id: path.file_stem().unwrap().to_str().unwrap().to_owned(), tree, dir }
        })
        .collect()
}

impl Recorded {
    /// Dma-bufs alone: the trees do not have the inodes of shared memory.
    pub(crate) fn options(&self) -> Options {
        let sys_root = Some(self.dir.path().join("sys"));
        let proc_root = self.dir.path().join("proc");
        Options { proc_root, sys_root, kinds: Kinds::DMABUF, ..Options::default() }
    }

    /// A JSON file of the tree.
    pub(crate) fn json(&self, path: &str) -> Value {
        serde_json::from_slice(self.tree.bytes(path).unwrap()).unwrap()
    }

    /// Scans the tree with the entries in `changes` replaced, or removed where the value is `None`.
    pub(crate) fn scan_with(
        &self,
        changes: &BTreeMap<String, Option<Node>>,
    ) -> Result<Snapshot, lsbuf::Error> {
        let place = |path: &str| below(self.dir.path(), path).unwrap();
        for (path, node) in changes {
            replace(&place(path), node.as_ref());
        }
        let snapshot = lsbuf::scan(self.options());
        for path in changes.keys() {
            replace(&place(path), None);
        }
        // A loop of its own, because a changed folder may have held other changed entries.
        for path in changes.keys() {
            let own = self.tree.0.get_key_value(path);
            for (path, node) in
                own.into_iter().chain(self.tree.0.range(format!("{path}/")..format!("{path}0")))
            {
                replace(&place(path), Some(node));
            }
        }
        snapshot
    }
}

fn replace(path: &Path, node: Option<&Node>) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
    if let Some(node) = node {
        put(path, node).unwrap();
    }
}

/// The library's answer as JSON, buffers by inode and processes by pid.
pub(crate) fn json(snapshot: &Snapshot) -> Value {
    let ledger = Ledger::of(snapshot);
    let mut text = Vec::new();
    lsbuf::render::json(&mut text, &View::all(&ledger), JsonLayout::Lines).unwrap();
    sorted(serde_json::from_slice(&text).unwrap())
}

/// An answer in an order that does not depend on options.
pub(crate) fn sorted(mut answer: Value) -> Value {
    for (list, key) in [("buffers", "ino"), ("processes", "pid")] {
        answer[list].as_array_mut().unwrap().sort_by_key(|entry| entry[key].as_u64());
    }
    answer
}

/// Panics if the accounts of the answer do not add up.
pub(crate) fn assert_balanced(snapshot: &Snapshot) {
    let ledger = Ledger::of(snapshot);
    for BufferRow { buffer, account, .. } in ledger.rows() {
        let found = account.fd + account.map;
        if let (Some(kernel), false, Some(count)) = (account.kernel(), account.is_estimate(), buffer.count) {
            let hidden = [account.in_flight, account.io_uring];
            let hidden: u64 = hidden.iter().map(|part| part.expect("exact, and yet unknown")).sum();
            assert_eq!(count, found + hidden + kernel, "{buffer:?} {account:?}");
        }
        assert!(
            account.kernel().is_none_or(|kernel| Some(kernel + found) <= buffer.count),
            "{buffer:?} {account:?}"
        );
        assert!(
            buffer.holders.iter().all(|h| snapshot.processes.iter().any(|p| p.pid == h.pid)),
            "{buffer:?}"
        );
    }
    let totals = &ledger.totals;
    if let (Some(size), Some(held), Some(kernel_only)) = (totals.size, totals.held, totals.kernel_only) {
        assert_eq!(size, held + kernel_only, "{totals:?}");
    }
    if let (Some(held), Some(pss)) = (totals.held, totals.pss) {
        assert_eq!(held, pss, "{totals:?}");
    }
    let counts = snapshot.coverage.processes;
    assert_eq!(counts.total, counts.read + counts.unreadable + counts.vanished, "{counts:?}");
}

/// Damages a tree as `script` says; every series of bytes is a valid script.
pub(crate) fn damage(tree: &Tree, script: &[u8]) -> BTreeMap<String, Option<Node>> {
    let paths: Vec<&String> =
        tree.0.keys().filter(|path| path.starts_with("proc/") || path.starts_with("sys/")).collect();
    let mut bytes = script.iter().copied();
    let mut changes = BTreeMap::new();
    for _ in 0..8 {
        let Some(kind) = bytes.next() else { break };
        let mut number = |below: usize| {
            let wide = usize::from(bytes.next().unwrap_or(0)) << 8 | usize::from(bytes.next().unwrap_or(0));
            wide % below.max(1)
        };
        let path = paths[number(paths.len())];
        let now = changes.get(path).cloned().unwrap_or_else(|| tree.0.get(path).cloned());
        let (mut text, link) = match now {
            Some(Node::File(text)) => (text, false),
            Some(Node::Link(target)) => (target, true),
            Some(Node::Folder) | None => (Vec::new(), false),
        };
        let at = number(text.len());
        let node = |text: Vec<u8>| match link {
            // No path contains a NUL, is empty, or is longer than a page.
            true => {
                let target: Vec<u8> = text.into_iter().filter(|&b| b != 0).take(4000).collect();
                if target.is_empty() { Node::Folder } else { Node::Link(target) }
            }
            false => Node::File(text),
        };
        match kind % 9 {
            0 => text.truncate(at),
            1 => {
                if let Some(byte) = text.get_mut(at) {
                    *byte ^= 1 << number(8);
                }
            }
            2 => {
                let some: Vec<u8> = (0..number(24)).map(|_| number(256) as u8).collect();
                text.splice(at..at, some);
            }
            3 => {
                // Replaces a number by another one, often an extreme one.
                let digits = text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                let numbers = ["0", "1", "18446744073709551615", "9223372036854775808", "4294967296", "7"];
                text.splice(at..at + digits, numbers[number(numbers.len())].bytes());
            }
            4 => {
                let begin = text[..at].iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
                let end = text[at..].iter().position(|&b| b == b'\n').map_or(text.len(), |len| at + len + 1);
                let line = text[begin..end].to_vec();
                for _ in 0..=number(3) {
                    text.splice(end..end, line.iter().copied());
                }
            }
            5 => {
                let other = paths[number(paths.len())];
                let theirs = changes.get(other).cloned().unwrap_or_else(|| tree.0.get(other).cloned());
                changes.insert(other.clone(), Some(node(text)));
                changes.insert(path.clone(), theirs);
                continue;
            }
            6 => {
                changes.insert(path.clone(), None);
                continue;
            }
            7 => {
                changes.insert(path.clone(), Some(Node::Folder));
                continue;
            }
            _ => text.reverse(),
        }
        changes.insert(path.clone(), Some(node(text)));
    }
    // A path below something that is not a folder any more cannot exist.
    let lost = |path: &String| {
        changes.iter().any(|(other, node)| {
            path.strip_prefix(other.as_str()).is_some_and(|rest| rest.starts_with('/'))
                && *node != Some(Node::Folder)
        })
    };
    let lost: Vec<String> = changes.keys().filter(|path| lost(path)).cloned().collect();
    lost.iter().for_each(|path| _ = changes.remove(path));
    changes
}
