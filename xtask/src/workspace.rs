//! Where things are: the workspace, its target folder, and what this program keeps in it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::cmd;

/// The folders of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    /// The root of the repository.
    pub(crate) root: PathBuf,
    /// Cargo's target folder, as set by the configuration or the environment.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo for them.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--no-deps", "--format-version", "1"]);
        let metadata: serde_json::Value =
            serde_json::from_str(&cmd::output(&mut command)?).context("parsing cargo metadata")?;
        let folder = |key: &str| {
            let value = metadata.get(key).and_then(|value| value.as_str());
            value.map(PathBuf::from).with_context(|| format!("cargo metadata has no {key}"))
        };
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")? })
    }

    /// The folder for kernels, the private package state, logs and reports.
    pub(crate) fn vm(&self) -> PathBuf {
        self.target.join("vm")
    }

    /// The folder of the recorded trees.
    pub(crate) fn recorded(&self) -> PathBuf {
        self.root.join("crates/lsbuf/tests/recorded")
    }

    /// The BPF iterators: sources and committed objects.
    pub(crate) fn bpf(&self) -> PathBuf {
        self.root.join("crates/lsbuf/bpf")
    }

    /// A cargo command that works on this workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }
}

/// The cargo that runs this program, so that all steps use the same toolchain.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The root of the repository, and the sources in Rust and C below these folders of it. Files and
/// folders whose name up to the first dot is `skipped` are left out.
#[cfg(test)]
pub(crate) fn sources(folders: &[&str], skipped: &dyn Fn(&str) -> bool) -> (PathBuf, Vec<PathBuf>) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    let mut files = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let inside = std::fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path());
            open.extend(inside.filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                !skipped(name.split('.').next().unwrap_or_default())
            }));
        } else if path.extension().is_some_and(|ending| ["rs", "c", "h"].iter().any(|known| ending == *known))
        {
            files.push(path);
        }
    }
    (root, files)
}
