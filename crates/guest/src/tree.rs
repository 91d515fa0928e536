//! A recorded tree of a procfs and a sysfs as one text file, which people can review and git can
//! compare.
//!
//! The first line is `lsbuf-tree/1`. The entries follow, in the order of their paths:
//!
//! ```text
//! # a remark
//! d proc/12/fd               a folder; a folder that holds something needs no entry
//! l proc/12/fd/5 /dmabuf:x   a link and its target
//! f proc/12/cgroup           a file; its lines follow,
//! |0::/                      each behind a bar,
//! >0::                       or behind this mark if no newline ends it
//! ```
//!
//! A backslash is `\\`, and a tab is `\t`. Every other byte that is not printable ASCII is `\xNN`.
//! So is a blank in a path or target.
//!
//! Limits: paths are UTF-8, relative and without `..`. Modes and owners are not kept.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};

const FIRST_LINE: &[u8] = b"lsbuf-tree/1\n";

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder.
    Folder,
    /// A symbolic link with its target.
    Link(Vec<u8>),
    /// A file with its bytes.
    File(Vec<u8>),
}

/// A whole tree, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, Node>);

impl Tree {
    /// Adds a file.
    pub fn file(&mut self, path: String, bytes: Vec<u8>) {
        self.0.insert(path, Node::File(bytes));
    }

    /// The bytes of a file.
    ///
    /// # Errors
    ///
    /// There is no such file.
    pub fn bytes(&self, path: &str) -> anyhow::Result<&[u8]> {
        match self.0.get(path) {
            Some(Node::File(bytes)) => Ok(bytes),
            Some(Node::Folder | Node::Link(_)) | None => bail!("the tree has no file {path}"),
        }
    }

    /// The text of the tree, with `remarks` at its top.
    pub fn to_text(&self, remarks: &str) -> Vec<u8> {
        let mut text = FIRST_LINE.to_vec();
        for remark in remarks.lines() {
            text.extend_from_slice(format!("# {remark}\n").as_bytes());
        }
        for (path, node) in &self.0 {
            let kind = match node {
                Node::Folder => b"d ",
                Node::Link(_) => b"l ",
                Node::File(_) => b"f ",
            };
            text.extend_from_slice(kind);
            escape(path.as_bytes(), true, &mut text);
            if let Node::Link(target) = node {
                text.push(b' ');
                escape(target, true, &mut text);
            }
            text.push(b'\n');
            if let Node::File(bytes) = node {
                for line in bytes.split_inclusive(|&b| b == b'\n') {
                    let whole = line.strip_suffix(b"\n");
                    text.push(if whole.is_some() { b'|' } else { b'>' });
                    escape(whole.unwrap_or(line), false, &mut text);
                    text.push(b'\n');
                }
            }
        }
        text
    }

    /// Reads the text of a tree.
    ///
    /// # Errors
    ///
    /// The text does not have the form that the module describes. The error names the line.
    pub fn parse(text: &[u8]) -> anyhow::Result<Tree> {
        let body = text.strip_prefix(FIRST_LINE).context("not a recorded tree")?;
        let mut tree = Tree::default();
        let mut open: Option<&mut Vec<u8>> = None;
        for (nth, line) in body.split(|&b| b == b'\n').enumerate() {
            let place = || format!("line {} of the tree", nth + 2);
            let rest = line.get(1..).unwrap_or_default();
            match line.first() {
                None | Some(b'#') => {}
                Some(&mark @ (b'|' | b'>')) => {
                    let bytes = open.as_mut().with_context(place)?;
                    unescape(rest, bytes).with_context(place)?;
                    if mark == b'|' {
                        bytes.push(b'\n');
                    }
                }
                Some(&kind) => {
                    let mut words = rest.split(|&b| b == b' ').skip(1);
                    let path = path(words.next().unwrap_or_default()).with_context(place)?;
                    let node = match kind {
                        b'd' => Node::Folder,
                        b'l' => {
                            let mut target = Vec::new();
                            unescape(words.next().with_context(place)?, &mut target).with_context(place)?;
                            Node::Link(target)
                        }
                        b'f' => Node::File(Vec::new()),
                        _ => return Err(anyhow::anyhow!("an unknown kind of entry")).with_context(place),
                    };
                    ensure!(!tree.0.contains_key(&path), "{}: {path} for the second time", place());
                    open = match tree.0.entry(path).or_insert(node) {
                        Node::File(bytes) => Some(bytes),
                        Node::Folder | Node::Link(_) => None,
                    };
                }
            }
        }
        Ok(tree)
    }

    /// Writes the whole tree below `folder`.
    ///
    /// # Errors
    ///
    /// A path leads out of the folder, or something cannot be written.
    pub fn unpack(&self, folder: &Path) -> anyhow::Result<()> {
        self.0.iter().try_for_each(|(path, node)| put(&below(folder, path)?, node))
    }
}

/// The path in the file system of a tree's path below `folder`.
///
/// # Errors
///
/// It leads out of the folder.
pub fn below(folder: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(inside && !path.is_empty(), "{path:?} is no path below a folder");
    Ok(folder.join(path))
}

/// Writes one entry, where nothing exists yet.
///
/// # Errors
///
/// It cannot be written.
pub fn put(path: &Path, node: &Node) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match node {
        Node::Folder => fs::create_dir_all(path),
        Node::Link(target) => symlink(OsStr::from_bytes(target), path),
        Node::File(bytes) => fs::write(path, bytes),
    }
    .with_context(|| format!("writing {}", path.display()))
}

fn path(word: &[u8]) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    unescape(word, &mut bytes)?;
    String::from_utf8(bytes).context("a path that is no text")
}

fn escape(bytes: &[u8], is_word: bool, text: &mut Vec<u8>) {
    for &byte in bytes {
        match byte {
            b'\\' => text.extend_from_slice(b"\\\\"),
            b'\t' => text.extend_from_slice(b"\\t"),
            b' ' if !is_word => text.push(byte),
            b'!'..=b'~' => text.push(byte),
            _ => text.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
}

fn unescape(mut text: &[u8], bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    loop {
        let (byte, rest) = match text {
            [] => return Ok(()),
            [b'\\', b'\\', rest @ ..] => (b'\\', rest),
            [b'\\', b't', rest @ ..] => (b'\t', rest),
            [b'\\', b'x', high, low, rest @ ..] => {
                let digit = |&b: &u8| char::from(b).to_digit(16);
                let (high, low) = (digit(high).context("no digit")?, digit(low).context("no digit")?);
                (u8::try_from(high << 4 | low)?, rest)
            }
            [b'\\', ..] => bail!("an unknown escape"),
            [byte, rest @ ..] => (*byte, rest),
        };
        bytes.push(byte);
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> impl Strategy<Value = Node> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..60);
        prop_oneof![Just(Node::Folder), bytes().prop_map(Node::Link), bytes().prop_map(Node::File)]
    }

    proptest! {
        /// Check that any tree is read back as it was written, and that its text is printable.
        #[test]
        fn round_trip(nodes in proptest::collection::btree_map("[a-z0-9/. ]{1,9}", node(), 0..8)) {
            let tree = Tree(nodes);
            let text = tree.to_text("one\ntwo");
            prop_assert!(text.iter().all(|&b| b == b'\n' || (b' '..=b'~').contains(&b)));
            prop_assert_eq!(Tree::parse(&text).unwrap(), tree);
        }

        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Tree::parse(&[FIRST_LINE, &body].concat());
        }
    }

    /// Check that a tree cannot write outside of its folder.
    #[test]
    fn no_way_out() {
        for path in ["../x", "/etc/x", "a/../../x", ""] {
            assert!(below(Path::new("/tmp/folder"), path).is_err(), "{path}");
        }
    }

    /// Check that an unpacked tree has its folders, links and files.
    #[test]
    fn unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"lsbuf-tree/1\nd a/b\nl a/l /dmabuf:\\x20x\nf a/f\n|one\n>two\n";
        Tree::parse(text).unwrap().unpack(dir.path()).unwrap();
        assert!(dir.path().join("a/b").is_dir());
        assert_eq!(fs::read_link(dir.path().join("a/l")).unwrap(), Path::new("/dmabuf: x"));
        assert_eq!(fs::read(dir.path().join("a/f")).unwrap(), b"one\ntwo");
    }
}
