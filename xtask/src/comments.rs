//! A test of comments: they wrap at 100 columns, and use the terms of docs/glossary.md.
//!
//! Limits: it finds a word, not a sentence that is hard to understand. Comments behind code on the
//! same line are not looked at.

use std::fs;

use crate::workspace::sources;

/// Columns of a comment's line, its indentation included.
const WIDTH: usize = 100;

/// Words that only this project gave a meaning. The glossary has the usual ones.
const INVENTED: &[&str] =
    &["disguise", "in vain", "newcomer", "patience", "restless", "stranger", "surroundings", "want of"];

/// What is wrong with a line, if it is a comment.
fn fault(line: &str) -> Option<String> {
    let text = line.trim_start();
    if !["//", "/*", "* "].iter().any(|mark| text.starts_with(mark)) {
        return None;
    }
    let width = line.chars().map(|c| if c == '\t' { 8 } else { 1 }).sum::<usize>();
    if width > WIDTH {
        return Some(format!("{width} columns"));
    }
    let text = text.to_lowercase();
    INVENTED.iter().find(|word| text.contains(**word)).map(|word| format!("\"{word}\""))
}

/// Check that no comment is wider, and that none has an invented word.
#[test]
fn comments_are_plain() {
    // This list of words is here alone.
    let (root, files) = sources(&["crates", "xtask", "fuzz"], &|stem| ["comments", "target"].contains(&stem));
    assert!(files.len() > 300, "only {files:?}");
    let mut wrong = Vec::new();
    for file in &files {
        let name = file.strip_prefix(&root).unwrap().display();
        for (at, line) in fs::read_to_string(file).unwrap().lines().enumerate() {
            wrong.extend(fault(line).map(|fault| format!("{name}:{}: {fault}: {}", at + 1, line.trim())));
        }
    }
    assert!(wrong.is_empty(), "comments to mend (docs/glossary.md, CONTRIBUTING.md):\n{}", wrong.join("\n"));
}

/// Check that each fault is found in comments of each kind, and code is left alone.
#[test]
fn faults() {
    let wide = format!("// {}", "x".repeat(98));
    assert_eq!(fault(&wide).as_deref(), Some("101 columns"));
    assert_eq!(fault("    /// For want of rights.").as_deref(), Some("\"want of\""));
    assert_eq!(fault("\t * A Stranger's name.").as_deref(), Some("\"stranger\""));
    assert_eq!(fault("let stranger = 1;"), None);
    assert_eq!(fault("// Plain."), None);
}
