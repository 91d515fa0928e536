//! Checks that every crate in the build may be used: an allow list must satisfy its SPDX licence
//! expression.
//!
//! `cargo deny` does this and more. But it has to be installed first and downloads a database of
//! advisories, and a test run on a fresh machine should not depend on that. Limits: only what the
//! crates declare is read, not their files. Only crates for the target of host and guest count.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
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
    resolve: Resolve,
}

/// A crate.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// Its SPDX expression.
    pub(crate) license: Option<String>,
    /// Where it was downloaded from; none for a crate of this workspace.
    source: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

impl Package {
    /// Whether it is a crate of this workspace.
    pub(crate) fn is_local(&self) -> bool {
        self.source.is_none()
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> anyhow::Result<&Path> {
        self.manifest_path.parent().with_context(|| format!("{} has no folder", self.name))
    }

    /// Whether only the compiler runs it.
    fn is_macro(&self) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

/// The graph of dependencies.
#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    /// None for what is linked; else `build` or `dev`.
    kind: Option<String>,
}

/// Looks at all crates in the metadata that `cargo` prints. Returns how many there are.
pub(crate) fn check(cargo: Command) -> anyhow::Result<usize> {
    let metadata = metadata(cargo)?;
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

/// The crates whose code is in the program of the crate `name`, itself included, by name.
pub(crate) fn linked(cargo: Command, name: &str) -> anyhow::Result<Vec<Package>> {
    let Metadata { packages, resolve } = metadata(cargo)?;
    let nodes: HashMap<&str, &Node> = resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let macros: HashSet<&str> = packages.iter().filter(|p| p.is_macro()).map(|p| p.id.as_str()).collect();
    let first = packages.iter().find(|package| package.name == name);
    let mut open = vec![first.with_context(|| format!("there is no crate {name}"))?.id.as_str()];
    let mut linked = HashSet::new();
    while let Some(id) = open.pop() {
        if macros.contains(id) || !linked.insert(id.to_owned()) {
            continue;
        }
        let node = nodes.get(id).with_context(|| format!("cargo metadata resolves no {id}"))?;
        let normal = node.deps.iter().filter(|d| d.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        open.extend(normal.map(|dependency| dependency.pkg.as_str()));
    }
    let mut packages: Vec<Package> = packages.into_iter().filter(|p| linked.contains(&p.id)).collect();
    packages.sort_unstable_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    Ok(packages)
}

fn metadata(mut cargo: Command) -> anyhow::Result<Metadata> {
    cargo.args(["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    // As packages are built.
    cargo.arg("--all-features");
    serde_json::from_str(&cmd::output(&mut cargo)?).context("parsing cargo metadata")
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
