//! `cargo xtask dist`: what users install: a static program, and a Debian package with it.
//!
//! The program is the one that the tests run in kernels. It is linked statically, so that it runs
//! on every distribution, and so that one package fits every release of Debian and Ubuntu. The
//! package is made by Debian's own tools (debhelper) from `dist/debian`. What changes with each
//! build is filled in here: maintainer, changelog, and the licences of the libraries in the
//! program.
//!
//! Limit: only x86-64.

mod copyright;
mod deb;
mod test;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::arch::Arch;
use crate::cmd;
use crate::host::{self, For};
use crate::initramfs;
use crate::vm::Tally;
use crate::workspace::Workspace;

/// The systemd units of the package.
const UNITS: [&str; 4] =
    ["lsbuf-probes.service", "lsbuf-record.service", "lsbuf-serve.service", "lsbuf-serve.socket"];

/// Make the static program and the Debian package, in target/dist
#[derive(Debug, clap::Args)]
pub(crate) struct DistArgs {
    /// Also run lintian, then install, use and remove the package in a folder of its own
    #[arg(long)]
    test: bool,
}

/// `cargo xtask dist`.
pub(crate) fn dist(workspace: &Workspace, arguments: &DistArgs) -> anyhow::Result<()> {
    host::prepare(&[For::Packages])?;
    if arguments.test {
        return check(workspace).map(|_| ());
    }
    make(workspace).map(|_| ())
}

/// Makes both and tests them.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Tally> {
    let package = make(workspace)?;
    test::lintian(&package)?;
    let checks = test::install(workspace, &package)?;
    Ok(Tally { passed: checks + 1, ..Tally::default() })
}

/// Makes both, and returns where the package is.
fn make(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let folder = workspace.target.join("dist");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let built =
        initramfs::build_static(workspace, Arch::Amd64, &["lsbuf-cli"]).context("building the program")?;
    let program = folder.join("lsbuf");
    cmd::run(Command::new("strip").arg("-o").arg(&program).arg(built.join("lsbuf")))?;
    let package = deb::make(workspace, &program, &folder)?;
    for path in [&program, &package] {
        let size = path.metadata().with_context(|| format!("reading {}", path.display()))?.len();
        println!("   {}: {} kB", shown(workspace, path), size.div_ceil(1000));
    }
    Ok(package)
}

/// A path as the user of this workspace would write it.
fn shown(workspace: &Workspace, path: &Path) -> String {
    path.strip_prefix(&workspace.root).unwrap_or(path).display().to_string()
}
