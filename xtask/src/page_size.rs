//! A test that nothing takes a page for 4096 bytes.
//!
//! Pages have 4, 16 or 64 KiB, as the kernel was built. A program asks `rustix::param::page_size`,
//! and a BPF program passes counts of pages on as they are. So the numbers that usually mean a page
//! of 4 KiB may not be in the code. Where one of them is something else, a comment beside or above
//! it says so with the words [`REASON`] and what it is.
//!
//! Limits: the test reads lines, not Rust. Text in quotes and code that is compiled for tests alone
//! is not looked at.

use std::fs;

use crate::workspace::sources;

/// What a comment says of a number that is something else.
const REASON: &str = "no page size";

/// Files that are compiled for tests alone, by a part of their path.
const TESTS: &[&str] = &["tests", "fuzzing", "settle_model", "benches"];

/// How a page of 4 KiB, its mask and its shift are written; blanks are left out.
const WRITTEN: &[&str] = &["4096", "4_096", "0x1000", "4<<10", "4*1024", "4095", "0xfff", "<<12", ">>12"];

/// The first of [`WRITTEN`] that is in a line of code as a number of its own.
fn page_of_4k(code: &str) -> Option<&'static str> {
    let code: String = without_text(code).chars().filter(|c| !c.is_whitespace()).collect();
    let of_a_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let alone = |(at, found): (usize, &str)| {
        let (before, after) = (&code[..at], &code[at + found.len()..]);
        // A type may follow, as in 4096u64.
        let typed = after.starts_with(['u', 'i']);
        let begins = found.starts_with(['<', '>']) || !of_a_word(before.chars().next_back());
        begins && (typed || !of_a_word(after.chars().next()))
    };
    WRITTEN.iter().find(|written| code.match_indices(**written).any(alone)).copied()
}

/// A line without what is in quotes, and without a comment at its end.
fn without_text(line: &str) -> String {
    let code = line.split("//").next().unwrap_or_default();
    code.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

fn is_comment(line: &str) -> bool {
    ["//", "/*", "*"].iter().any(|mark| line.trim_start().starts_with(mark))
}

/// The lines of a source, counted from 1, that have such a number and no reason.
fn unexplained(source: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = source.lines().collect();
    // Unit tests are at the end of their file.
    let tests = lines.windows(2).position(|two| two[0] == "#[cfg(test)]" && two[1].ends_with('{'));
    let explains = |at: usize| {
        let above = lines[..at].iter().rev().take_while(|line| is_comment(line));
        above.chain([&lines[at]]).any(|line| line.contains(REASON))
    };
    let wrong =
        |&(at, line): &(usize, &&str)| !is_comment(line) && page_of_4k(line).is_some() && !explains(at);
    let product = lines.iter().enumerate().take(tests.unwrap_or(lines.len()));
    product.filter(wrong).map(|(at, line)| (at + 1, line.trim().to_owned())).collect()
}

/// Check that no source of the crates and of the BPF programs has a page size written down.
#[test]
fn no_page_size_is_written_down() {
    let tests = |stem: &str| TESTS.contains(&stem) || stem.ends_with("_tests");
    let (root, files) = sources(&["crates"], &tests);
    let of =
        |ending: &str| files.iter().filter(|file| file.extension().is_some_and(|it| it == ending)).count();
    assert!(of("rs") > 100 && of("c") >= 4, "only {files:?}");
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let source = fs::read_to_string(file).unwrap();
            let name = file.strip_prefix(&root).unwrap().display().to_string();
            unexplained(&source).into_iter().map(move |(at, line)| format!("{name}:{at}: {line}"))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "ask the kernel for the page size, or say \"{REASON}\" and what it is in a comment:\n{}",
        wrong.join("\n")
    );
}

/// Check that each way to write it is found, and that other numbers, names and texts are not.
#[test]
fn finds_page_sizes() {
    let found = [
        "const PAGE: usize = 4096;",
        "let end = start + 0x1000;",
        "x & !0xfff",
        "x & 4095u64",
        "offset: pgoff << 12,",
        "at>>12",
        "4 << 10",
        "4 * 1024",
        "f(4_096)",
    ];
    for line in found {
        assert_eq!(unexplained(line).len(), 1, "{line}");
    }
    let others = [
        "let x = 14096;",
        "0x10000",
        "0xffff",
        "64 << 10",
        "1 << 120",
        "const N: u8 = 12;",
        "x4096",
        "say(\"valid: 4096\")",
        "// 4096 bytes",
        "const ROOM: usize = 4096; // PATH_MAX, no page size",
        "/// PATH_MAX, no page size.\n/// More.\nconst ROOM: usize = 4096;",
        "#[cfg(test)]\nmod tests {\nlet x = 4096;",
    ];
    for line in others {
        assert!(unexplained(line).is_empty(), "{line}");
    }
}
