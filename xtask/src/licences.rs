//! Checks that every crate in the build may be used: an allow list must satisfy its SPDX licence
//! expression.
//!
//! `cargo deny` does this and more. But it has to be installed first and downloads a database of
//! advisories, and a test run on a fresh machine should not depend on that. Limits: only what the
//! crates declare is read, not their files. Only crates for the target of host and guest count.

use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cmd;

/// Licences that ask for no more than a notice.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
}

/// Looks at all crates in the metadata that `cargo` prints. Returns how many there are.
pub(crate) fn check(mut cargo: Command) -> anyhow::Result<usize> {
    cargo.args(["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    let metadata: Metadata =
        serde_json::from_str(&cmd::output(&mut cargo)?).context("parsing cargo metadata")?;
    let refused: Vec<String> = metadata
        .packages
        .iter()
        .filter(|package| !package.license.as_deref().is_some_and(is_allowed))
        .map(|package| {
            let licence = package.license.as_deref().unwrap_or("no licence");
            format!("{} {} ({licence})", package.name, package.version)
        })
        .collect();
    if !refused.is_empty() {
        bail!("crates whose licence is not allowed: {}", refused.join(", "));
    }
    Ok(metadata.packages.len())
}

/// Whether the allow list satisfies an expression. One that cannot be parsed is not satisfied.
fn is_allowed(expression: &str) -> bool {
    // Old crates write a slash for OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_ascii_whitespace().collect();
    let mut rest = words.as_slice();
    any(&mut rest) == Some(true) && rest.is_empty()
}

/// Takes the next word if it is `wanted`.
fn word(rest: &mut &[&str], wanted: &str) -> bool {
    match rest.split_first() {
        Some((first, tail)) if *first == wanted => {
            *rest = tail;
            true
        }
        _ => false,
    }
}

/// `all OR all …`.
fn any(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = all(rest)?;
    while word(rest, "OR") {
        allowed |= all(rest)?;
    }
    Some(allowed)
}

/// `one AND one …`, which binds tighter than OR.
fn all(rest: &mut &[&str]) -> Option<bool> {
    let mut allowed = one(rest)?;
    while word(rest, "AND") {
        allowed &= one(rest)?;
    }
    Some(allowed)
}

/// A licence, perhaps with an exception, or an expression in parentheses.
fn one(rest: &mut &[&str]) -> Option<bool> {
    if word(rest, "(") {
        let allowed = any(rest)?;
        return word(rest, ")").then_some(allowed);
    }
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    let mut licence = (*first).to_owned();
    if word(rest, "WITH") {
        let (exception, tail) = rest.split_first()?;
        *rest = tail;
        licence = format!("{licence} WITH {exception}");
    }
    Some(ALLOWED.contains(&licence.as_str()))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    /// Check the expressions that occur, their precedence, and that nonsense is refused.
    #[test]
    fn expressions() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-3.0",
            "MIT OR GPL-3.0 AND LGPL-2.1",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in
            ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0 WITH other", "", "MIT OR", "(MIT", "MIT MIT", ")"]
        {
            assert!(!is_allowed(refused), "{refused}");
        }
    }
}
