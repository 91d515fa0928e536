//! Checks that the published crates can be packaged: `cargo package` builds each from its archive
//! alone, outside the workspace, and each archive has what it must have.
//!
//! Limits: a registry's own rules are not checked. The archives have no address of a repository,
//! and cargo's warning about that is the only one allowed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cmd;
use crate::vm::Tally;
use crate::workspace::Workspace;

/// The published crates, each after those that it depends on.
const PACKAGES: [&str; 3] = ["dmabuf", "lsbuf", "lsbuf-cli"];

/// What each archive must have, besides sources.
const FILES: [&str; 3] = ["README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// The warning that is allowed.
const NO_ADDRESS: &str = "warning: manifest has no documentation, homepage or repository";

/// Packages all of them together: cargo then takes the later ones' dependencies from the archives
/// of the earlier ones, where a registry does not have them.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Tally> {
    let target = workspace.target.join("packages");
    forget(&target)?;
    let mut cargo = workspace.cargo();
    cargo.env("CARGO_TARGET_DIR", &target);
    // Who checks has often not committed yet.
    cargo.args(["package", "--allow-dirty", "--color", "never"]);
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    let output = cargo.output().context("starting cargo package")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("cargo package failed:\n{said}");
    }
    if let Some(warning) = unexpected(&said) {
        bail!("cargo package says: {warning}");
    }
    for package in PACKAGES {
        let version = env!("CARGO_PKG_VERSION");
        let folder = format!("{package}-{version}");
        let archive = target.join("package").join(format!("{folder}.crate"));
        let names = cmd::output(Command::new("tar").arg("-tf").arg(&archive))?;
        for file in FILES {
            if !names.lines().any(|name| name == format!("{folder}/{file}")) {
                bail!("{} has no {file}", archive.display());
            }
        }
        let size = archive.metadata().with_context(|| format!("reading {}", archive.display()))?.len();
        println!("   {package}: {} kB", size.div_ceil(1000));
    }
    Ok(Tally { passed: PACKAGES.len(), ..Tally::default() })
}

/// Removes what an earlier check unpacked and built. Cargo takes a version of a package for
/// something that never changes, so it would build the later packages with the earlier ones of that
/// time.
fn forget(target: &Path) -> anyhow::Result<()> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let sources = home.context("cargo has no home")?.join("registry/src");
    let mut stale = vec![target.to_owned()];
    for registry in fs::read_dir(&sources).into_iter().flatten().flatten() {
        // That of the check has no host in its name.
        if registry.file_name().as_encoded_bytes().starts_with(b"-") {
            let folder = |package| registry.path().join(format!("{package}-{}", env!("CARGO_PKG_VERSION")));
            stale.extend(PACKAGES.map(folder));
        }
    }
    for folder in stale.iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

/// The first warning in what cargo printed that is not the allowed one.
fn unexpected(said: &str) -> Option<&str> {
    said.lines().find(|line| line.starts_with("warning") && *line != NO_ADDRESS)
}

#[cfg(test)]
mod tests {
    use super::{NO_ADDRESS, unexpected};

    /// Check that only the one warning passes.
    #[test]
    fn warnings() {
        let other = "warning: ignoring test `scan`";
        assert_eq!(unexpected(&format!("{NO_ADDRESS}\n   Packaging lsbuf")), None);
        assert_eq!(unexpected(&format!("{NO_ADDRESS}\n{other}\n")), Some(other));
    }
}
