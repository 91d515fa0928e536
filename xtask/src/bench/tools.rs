//! Programs of others that the benchmark runs beside lsbuf.
//!
//! What the machine has is used. smem is one file of Python, so it is taken out of Debian's package
//! if it is not installed. lsof and lsfd (util-linux 2.38 or later) need libraries of the machine's
//! own release. They must be installed, or are missing in the tables.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::apt::Apt;
use crate::arch::Arch;
use crate::cmd;
use crate::fetch;
use crate::workspace::Workspace;

/// The suites in which smem is looked for.
const SUITES: &[&str] = &["trixie"];

/// The search path for a benchmark on this machine: this process's own, and the folder of fetched
/// programs behind it. What cannot be fetched is reported and left out.
pub(super) fn search_path(workspace: &Workspace) -> anyhow::Result<OsString> {
    let folder = workspace.vm().join("tools");
    if !cmd::is_program("smem")
        && !folder.join("smem").exists()
        && let Err(why) = fetch_smem(workspace, &folder)
    {
        eprintln!("smem is not installed and cannot be fetched: {why:#}");
    }
    let own = std::env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> = std::env::split_paths(&own).chain([folder]).collect();
    std::env::join_paths(all).context("joining the search path")
}

fn fetch_smem(workspace: &Workspace, folder: &Path) -> anyhow::Result<()> {
    let suites: Vec<String> = SUITES.iter().map(|&suite| suite.to_owned()).collect();
    let apt = Apt::update(&workspace.vm().join("apt/tools"), Arch::default(), &suites)?;
    let package = apt.download(&apt.newest("smem")?)?;
    let tar = package.with_extension("tar");
    fetch::unpack_package(&package, &tar)?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let new = folder.join("smem.new");
    let file = File::create(&new).with_context(|| format!("making {}", new.display()))?;
    cmd::run(Command::new("tar").arg("-xOf").arg(&tar).arg("./usr/bin/smem").stdout(file))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).context("making smem executable")?;
    fs::rename(&new, folder.join("smem")).context("naming smem")?;
    apt.clean()
}
