//! `cargo xtask api`: lists what the libraries offer to others, so that no change of it goes
//! unnoticed.
//!
//! `docs/api/CRATE.txt` has a line for each public item of a library, with its default features and
//! `history`.
//! The test run fails if the list is not what the sources have; `cargo xtask api` writes it anew,
//! and the change is read in the diff.
//!
//! Limits: the list is made from rustdoc's JSON, whose format changes from one release of Rust to
//! the next. With a release of another format nothing can be compared, and that is said. Auto
//! traits (`Send`, `Sync`), blanket and derived implementations are left out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use public_api::{Builder, MINIMUM_NIGHTLY_RUST_VERSION};

use crate::bpf::Compared;
use crate::cmd;
use crate::workspace::Workspace;

/// The libraries that others use.
const LIBRARIES: [&str; 2] = ["dmabuf", "lsbuf"];

/// The format of rustdoc's JSON that `public-api` reads in this version: that of Rust 1.95.
const FORMAT: u64 = 57;

/// List the public items of the libraries in docs/api
#[derive(Debug, clap::Args)]
pub(crate) struct ApiArgs {
    /// Change nothing: fail if a list is not what the sources have
    #[arg(long)]
    check: bool,
}

/// `cargo xtask api`.
pub(crate) fn api(workspace: &Workspace, arguments: &ApiArgs) -> anyhow::Result<()> {
    if arguments.check {
        return match check(workspace)? {
            Compared::Same => Ok(()),
            Compared::Impossible(why) => bail!("the lists cannot be compared here: {why}"),
        };
    }
    for library in LIBRARIES {
        let Some(list) = list(workspace, library)? else { bail!("{}", other_format()) };
        let path = committed(workspace, library);
        fs::write(&path, list).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Compares each list with what the sources have.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Compared> {
    for library in LIBRARIES {
        let Some(list) = list(workspace, library)? else { return Ok(Compared::Impossible(other_format())) };
        let path = committed(workspace, library);
        let known = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let changes = changes(&known, &list);
        if !changes.is_empty() {
            bail!(
                "the public items of {library} changed:\n{changes}if that is meant, run `cargo xtask api` and commit {}",
                path.display()
            );
        }
    }
    Ok(Compared::Same)
}

fn other_format() -> String {
    format!("this rustdoc's JSON is not of format {FORMAT} (public-api knows {MINIMUM_NIGHTLY_RUST_VERSION})")
}

fn committed(workspace: &Workspace, library: &str) -> PathBuf {
    workspace.root.join("docs/api").join(format!("{library}.txt"))
}

/// A library's public items, one a line; `None`: rustdoc's JSON has another format.
fn list(workspace: &Workspace, library: &str) -> anyhow::Result<Option<String>> {
    // Only rustdoc may take unstable options: for cargo, the variable would change what it builds
    // anew.
    let rustdoc = workspace.target.join("unstable-rustdoc");
    fs::write(&rustdoc, "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n")
        .and_then(|()| fs::set_permissions(&rustdoc, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("writing {}", rustdoc.display()))?;
    let mut cargo = workspace.cargo();
    cargo.args(["rustdoc", "--quiet", "--package", library, "--lib"]);
    if library == "lsbuf" {
        cargo.args(["--features", "history"]);
    }
    cargo.arg("--");
    cargo.args(["-Zunstable-options", "--output-format", "json", "--cap-lints", "allow"]);
    cargo.env("RUSTDOC", &rustdoc);
    cmd::output(&mut cargo)?;
    let path = workspace.target.join("doc").join(format!("{library}.json"));
    let json = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let value: serde_json::Value = serde_json::from_str(&json).context("parsing rustdoc's JSON")?;
    if value.get("format_version").and_then(serde_json::Value::as_u64) != Some(FORMAT) {
        return Ok(None);
    }
    let api = Builder::from_rustdoc_json(&path)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .with_context(|| format!("reading {}", path.display()))?;
    Ok(Some(api.items().map(|item| format!("{item}\n")).collect()))
}

/// Lines that are gone and lines that are new, in the manner of diff.
fn changes(known: &str, list: &str) -> String {
    let gone = known.lines().filter(|line| !list.lines().any(|other| other == *line));
    let new = list.lines().filter(|line| !known.lines().any(|other| other == *line));
    gone.map(|line| format!("- {line}\n")).chain(new.map(|line| format!("+ {line}\n"))).collect()
}

#[cfg(test)]
mod tests {
    use super::changes;

    /// Check that a changed item shows as one that is gone and one that is new, and the others do
    /// not.
    #[test]
    fn changed_lines() {
        assert_eq!(changes("a\nb(u32)\n", "a\nb(u64)\n"), "- b(u32)\n+ b(u64)\n");
        assert_eq!(changes("a\n", "a\n"), "");
    }
}
