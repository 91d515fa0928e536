//! Tests hostile input: whatever other processes choose as names, no format gains a line, a field
//! or a control character; and whatever is in a recorded tree, it shows nothing of this machine.
#![allow(clippy::unwrap_used, reason = "a test fails where a part of it fails")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::Tree;
use lsbuf::model::{Label, Ledger, Snapshot};
use lsbuf::render::{self, BUFFER_COLUMNS, Column, JsonLayout, PROCESS_COLUMNS, Sizes, View};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

/// Two processes and three buffers: one that both hold, one with a device, one that only the kernel
/// holds.
static WORLD: LazyLock<Snapshot> = LazyLock::new(|| {
    let mut tree = Tree::new();
    for (pid, fd) in [(12, 5), (13, 6)] {
        tree.process(pid, b"harmless");
        tree.dmabuf_fd(pid, fd, 7, b"harmless", 8192, 3);
    }
    tree.maps(13, &["7000-8000 rw-s 00001000 00:0c 7    /dmabuf:harmless"]);
    tree.dmabuf_fd(12, 9, 8, b"harmless", 4096, 1);
    tree.listed(7, b"harmless", 8192, 3, &[]);
    tree.listed(8, b"harmless", 4096, 1, &["harmless"]);
    tree.listed(9, b"harmless", 4096, 2, &[]);
    tree.scan()
});

/// Bytes that anyone may choose, often such as have a meaning in some format.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let meaningful = prop::sample::select(vec![
        &b"\n"[..],
        b"=1",
        b"'",
        b"   9 9  0  sshd:1(9f)",
        b"\xc2\xa0",
        b"\xe3\x80\x80",
        b"\xcd\x8f",
        b"\xcc\x81",
        b"\r\n",
        b"\t",
        b"\x1b[2J",
        b"\x1b]0;x\x07",
        b"\x7f",
        b"\xc2\x9b31m",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
        b"\xe2\x80\xae",
        b"\xff",
        b"\xed\xa0\x80",
        b"\"",
        b",",
        b" ",
        b"\\",
        b"\\x0a",
        b"(1f) x:1",
        b"-",
        b"?",
        b"size:\t0",
        b"\nTotal 9 objects, 9 bytes\n",
    ]);
    let piece = prop_oneof![
        meaningful.prop_map(<[u8]>::to_vec),
        prop::collection::vec(1..=u8::MAX, 0..8),
        "[a-z]{0,8}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// The same snapshot with every text replaced that other processes can choose.
fn renamed(name: &[u8], comm: &[u8], cgroup: &[u8]) -> Snapshot {
    let mut snapshot = WORLD.clone();
    for buffer in &mut snapshot.buffers {
        buffer.name = Some(Label::from(name));
        buffer.exporter = Some(Label::from(name));
        for device in buffer.attachments.iter_mut().flatten() {
            *device = Label::from(name);
        }
    }
    for process in &mut snapshot.processes {
        process.comm = Label::from(comm);
        process.cgroup = Some(Label::from(cgroup));
    }
    snapshot.host.hostname = Some(String::from_utf8_lossy(comm).into_owned());
    snapshot
}

/// A snapshot in every format, with the name of each.
fn formats(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let ledger = Ledger::of(snapshot);
    let view = View::all(&ledger);
    let mut texts = Vec::new();
    for (rows, columns) in lists(&view) {
        for width in [None, Some(80)] {
            let lines = render::table(&view, rows, columns, Sizes::Human, width);
            // Each is printed as one line, so a newline inside it would make another.
            texts.push(("table", lines.map(|line| line + "\n").collect()));
        }
        texts.push(("raw", raw(&view, rows, columns)));
        texts.push(("csv", csv(&view, rows, columns)));
    }
    texts.push(("json", written(|out| render::json(out, &view, JsonLayout::Lines))));
    texts.push(("compact JSON", written(|out| render::json(out, &view, JsonLayout::Compact))));
    for &index in &view.buffers {
        texts.push(("show", written(|out| render::show(out, &view, index))));
    }
    texts
}

fn lists<'a>(view: &'a View<'_>) -> [(&'a [usize], &'static [Column]); 2] {
    [(&view.buffers, BUFFER_COLUMNS), (&view.processes, PROCESS_COLUMNS)]
}

fn raw(view: &View<'_>, rows: &[usize], columns: &[Column]) -> String {
    written(|out| render::raw(out, view, rows, columns, Sizes::Bytes, false))
}

fn csv(view: &View<'_>, rows: &[usize], columns: &[Column]) -> String {
    written(|out| render::csv(out, view, rows, columns, Sizes::Bytes, false))
}

fn written(write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Characters that a terminal obeys, or that reverse or hide text.
fn acts_on_a_terminal(c: char) -> bool {
    c.is_control() && c != '\n'
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The inverse of `escape`, written from what the command's help says.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return bytes,
            [b'\\', b'\\', after @ ..] => {
                bytes.push(b'\\');
                after
            }
            [b'\\', b'x', high, low, after @ ..] => {
                let digits = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                after
            }
            [byte, after @ ..] => {
                bytes.push(*byte);
                after
            }
        }
    }
}

fn place(columns: &[Column], name: &str) -> usize {
    columns.iter().position(|column| column.name == name).unwrap()
}

proptest! {
    /// Check that no untrusted text adds or removes a line in any format.
    #[test]
    fn no_format_gains_lines(name in bytes(), comm in bytes(), cgroup in bytes()) {
        let harmless = formats(&WORLD);
        let hostile = formats(&renamed(&name, &comm, &cgroup));
        prop_assert_eq!(harmless.len(), hostile.len());
        for ((format, expected), (_, found)) in harmless.iter().zip(&hostile) {
            let expected = match *format {
                // JSON has one more key for text that is not UTF-8.
                "json" => {
                    let document: serde_json::Value = serde_json::from_str(found).unwrap();
                    &format!("{}\n", serde_json::to_string_pretty(&document).unwrap())
                }
                _ => expected,
            };
            prop_assert_eq!(expected.matches('\n').count(), found.matches('\n').count(), "{}: {}", format, found);
        }
    }

    /// Check that no format contains a character that a terminal would obey.
    #[test]
    fn no_format_is_raw(name in bytes(), comm in bytes(), cgroup in bytes()) {
        for (format, text) in formats(&renamed(&name, &comm, &cgroup)) {
            prop_assert!(!text.contains(acts_on_a_terminal), "{}: {:?}", format, text);
        }
    }

    /// Check that JSON on one line says what JSON on many says, whatever the names are.
    #[test]
    fn compact_json_says_the_same(name in bytes(), comm in bytes(), cgroup in bytes()) {
        let texts = formats(&renamed(&name, &comm, &cgroup));
        let read = |wanted: &str| {
            let (_, text) = texts.iter().find(|(format, _)| *format == wanted).unwrap();
            serde_json::from_str::<serde_json::Value>(text).unwrap()
        };
        prop_assert_eq!(read("json"), read("compact JSON"));
    }

    /// Check that no untrusted text adds or removes a column in a table of any width.
    #[test]
    fn no_table_gains_columns(name in bytes(), comm in bytes(), cgroup in bytes()) {
        let snapshot = renamed(&name, &comm, &cgroup);
        let ledger = Ledger::of(&snapshot);
        let view = View::all(&ledger);
        for (rows, columns) in lists(&view) {
            for line in render::table(&view, rows, columns, Sizes::Human, None) {
                let fields = line.split("  ").filter(|field| !field.trim().is_empty()).count();
                prop_assert_eq!(fields, columns.len(), "{}", line);
            }
            // Here one space separates columns. (Lists of holders have spaces of their own.)
            let columns: Vec<Column> = columns.iter().copied().filter(|column| column.name != "HOLDERS").collect();
            for line in render::table(&view, rows, &columns, Sizes::Human, Some(1)) {
                prop_assert_eq!(line.split_whitespace().count(), columns.len(), "{}", line);
            }
        }
    }

    /// Check that CSV parses back to one field for each column, and to the exact bytes of name,
    /// command and cgroup.
    #[test]
    fn csv_parses_back(name in bytes(), comm in bytes(), cgroup in bytes()) {
        let snapshot = renamed(&name, &comm, &cgroup);
        let ledger = Ledger::of(&snapshot);
        let view = View::all(&ledger);
        for (rows, columns) in lists(&view) {
            let text = csv(&view, rows, columns);
            let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
            let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(records.len(), rows.len());
            for record in records {
                prop_assert_eq!(record.len(), columns.len());
                prop_assert!(record.iter().all(|field| !field.starts_with(['=', '+', '-', '@'])), "{:?}", record);
                // After the first quote comes the text itself.
                let field = |column| {
                    let text = &record[place(columns, column)];
                    unescape(text.strip_prefix('\'').unwrap_or(text))
                };
                if columns.len() == BUFFER_COLUMNS.len() {
                    prop_assert_eq!(field("NAME"), name.clone());
                } else {
                    prop_assert_eq!((field("COMMAND"), field("CGROUP")), (comm.clone(), cgroup.clone()));
                }
            }
        }
    }

    /// Check that raw output has one field for each column, separated by spaces, and gives the
    /// name's bytes back.
    #[test]
    fn raw_parses_back(name in bytes(), comm in bytes(), cgroup in bytes()) {
        let snapshot = renamed(&name, &comm, &cgroup);
        let ledger = Ledger::of(&snapshot);
        let view = View::all(&ledger);
        for (rows, columns) in lists(&view) {
            let text = raw(&view, rows, columns);
            for line in text.lines() {
                let fields: Vec<&str> = line.split(' ').collect();
                prop_assert_eq!(fields.len(), columns.len(), "{}", line);
                if columns.len() == BUFFER_COLUMNS.len() {
                    let field = fields[place(columns, "NAME")];
                    prop_assert_eq!(if field == "-" { Vec::new() } else { unescape(field) }, name.clone());
                }
            }
        }
    }

    /// Check that JSON parses back to the same text; and to the same bytes, if they are not UTF-8.
    #[test]
    fn json_parses_back(name in bytes(), comm in bytes(), cgroup in bytes()) {
        let snapshot = renamed(&name, &comm, &cgroup);
        let ledger = Ledger::of(&snapshot);
        let text = written(|out| render::json(out, &View::all(&ledger), JsonLayout::Lines));
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let says = |object: &serde_json::Value, key: &str, bytes: &[u8]| {
            prop_assert_eq!(object[key].as_str().unwrap(), String::from_utf8_lossy(bytes));
            // Text that is not UTF-8 has its bytes in a second key, and other text has no such key.
            let lossless = object.get(format!("{key}_bytes")).map(|text| unescape(text.as_str().unwrap()));
            prop_assert_eq!(lossless, std::str::from_utf8(bytes).is_err().then(|| bytes.to_vec()));
            Ok(())
        };
        for buffer in document["buffers"].as_array().unwrap() {
            says(buffer, "name", &name)?;
            says(buffer, "exporter", &name)?;
            let attached = buffer.get("attachments_bytes").map(|all| all.as_array().unwrap().clone());
            let has_some = buffer["attachments"].as_array().is_some_and(|all| !all.is_empty());
            prop_assert_eq!(attached.is_some(), has_some && std::str::from_utf8(&name).is_err());
            for device in attached.into_iter().flatten() {
                prop_assert_eq!(unescape(device.as_str().unwrap()), name.clone());
            }
        }
        for process in document["processes"].as_array().unwrap() {
            says(process, "comm", &comm)?;
            says(process, "cgroup", &cgroup)?;
        }
    }

    /// Check that a recorded tree with these texts is read back with the same texts and figures.
    #[test]
    fn figures_stay(name in bytes(), comm in bytes(), cgroup in bytes()) {
        // The kernel itself refuses a longer name or command, and a cgroup with a newline.
        let (name, comm) = (&name[..name.len().min(31)], &comm[..comm.len().min(15)]);
        let cgroup: Vec<u8> = cgroup.into_iter().filter(|&byte| byte != b'\n').collect();
        let mut tree = Tree::new();
        tree.process(12, comm);
        tree.write("proc/12/cgroup", &[b"0::/", &cgroup[..], b"\n"].concat());
        tree.dmabuf_fd(12, 5, 7, name, 8192, 1);
        tree.listed(7, name, 8192, 1, &[]);
        let snapshot = tree.scan();
        prop_assert!(snapshot.coverage.is_complete(), "{:?}", snapshot.coverage.notes);
        prop_assert_eq!((snapshot.buffers.len(), snapshot.processes.len()), (1, 1));
        let totals = Ledger::of(&snapshot).totals;
        prop_assert_eq!((totals.size.unwrap().0, totals.unattributed_refs), (8192, Some(0)));
        prop_assert_eq!(snapshot.buffers[0].name.as_ref().unwrap().as_bytes(), name);
        prop_assert_eq!(snapshot.processes[0].comm.as_bytes(), comm);
        prop_assert_eq!(snapshot.processes[0].cgroup.as_ref().unwrap().as_bytes(), [b"/", &cgroup[..]].concat());
    }
}

/// A tree with one process that holds a buffer, and a file next to the tree, which must not be
/// shown.
fn tree_beside_a_secret() -> (Tree, PathBuf) {
    let mut tree = Tree::new();
    tree.process(12, b"holder");
    tree.dmabuf_fd(12, 5, 7, b"cam", 8192, 1);
    tree.listed(7, b"cam", 8192, 1, &[]);
    tree.write("secret", b"root:topsecret\n");
    let secret = tree.path("secret");
    (tree, secret)
}

/// Puts a link in place of one of the tree's files or folders.
fn replace(tree: &Tree, below: &str, target: &Path) {
    let path = tree.path(below);
    if path.is_dir() {
        fs::remove_dir_all(&path).unwrap()
    } else {
        _ = fs::remove_file(&path)
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

/// Check that links in a recorded tree are not followed to a text file, inside or outside of the
/// tree.
#[test]
fn links_are_not_followed() {
    for below in ["sys/kernel/hostname", "12/cgroup", "12/fdinfo/5", "12/stat"] {
        for absolute in [true, false] {
            let (tree, secret) = tree_beside_a_secret();
            let up = PathBuf::from("../".repeat(below.matches('/').count() + 1)).join("secret");
            replace(&tree, &format!("proc/{below}"), if absolute { &secret } else { &up });
            let shown = format!("{:?}", tree.scan());
            assert!(!shown.contains("topsecret"), "{below}: {shown}");
        }
    }
    let (tree, _) = tree_beside_a_secret();
    replace(&tree, "proc/sys/kernel/hostname", Path::new("osrelease"));
    assert_eq!(tree.scan().host.hostname, None);
}

/// Check that links are not followed to a folder either, such as one of this machine's own
/// processes.
#[test]
fn folders_are_not_followed() {
    for (below, target) in [
        ("12", "/proc/self"),
        ("12/fd", "/proc/self/fd"),
        ("sys/kernel", "/proc/sys/kernel"),
        ("12/fdinfo", "/"),
    ] {
        let (tree, _) = tree_beside_a_secret();
        replace(&tree, &format!("proc/{below}"), Path::new(target));
        if below == "sys/kernel" {
            let error = lsbuf::scan(tree.options()).unwrap_err();
            assert_eq!(error.kind(), lsbuf::ErrorKind::NotProcfs);
            continue;
        }
        let snapshot = tree.scan();
        assert!(!snapshot.coverage.is_complete(), "{below}");
        assert_eq!(snapshot.buffers[0].holders, [], "{below}");
    }
}

/// Check that a FIFO, a device and an endless file are refused at once, and that the answer is then
/// partial.
#[test]
fn only_files_of_a_bounded_size() {
    let beyond = 1 << 40;
    for below in ["12/maps", "12/stat", "12/fdinfo/5", "sys/kernel/hostname", ".lsbuf/shared"] {
        let (tree, _) = tree_beside_a_secret();
        let path = tree.path(&format!("proc/{below}"));
        let make: [&dyn Fn(); 3] = [
            &|| {
                mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
            },
            // Only root can make devices.
            &|| _ = mknodat(CWD, &path, FileType::CharacterDevice, Mode::RUSR, makedev(1, 5)),
            &|| fs::File::create(&path).unwrap().set_len(beyond).unwrap(),
        ];
        for make in make {
            _ = fs::remove_file(&path);
            make();
            let snapshot = tree.scan();
            let is_partial = !snapshot.coverage.is_complete();
            assert_eq!(is_partial, below.starts_with("12/"), "{below}: {:?}", snapshot.coverage.notes);
            assert_eq!(snapshot.host.hostname.is_none(), below.ends_with("hostname"));
        }
    }
}
