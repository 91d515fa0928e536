//! `cargo xtask engines`: do other engines answer from a recording and from its exports as lsbuf
//! does?
//!
//! DuckDB is installed from PyPI into a folder below `target`, because no package of the
//! distribution has it. A small world is recorded from a recorded tree, so that the figures are
//! known. Python's own SQLite reads the recording itself.
//!
//! Limits: without Python, or without a way to install DuckDB, nothing is compared, and that is
//! said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::cmd;
use crate::workspace::Workspace;

/// The version of DuckDB that is asked.
const DUCKDB: &str = "duckdb==2.0.1";

/// The figures that each engine is asked for, on a line each.
const SCRIPT: &str = include_str!("engines.py");

/// What became of it.
#[derive(Debug)]
pub(crate) enum Engines {
    /// All engines gave the same figures, so many of them.
    Same(usize),
    /// DuckDB is not to be had.
    Missing(String),
}

/// Compares the engines.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Engines> {
    let packages = match packages(workspace) {
        Ok(packages) => packages,
        Err(error) => return Ok(Engines::Missing(format!("{error:#}"))),
    };
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--quiet", "--package", "lsbuf", "--features", "parquet", "--lib"]);
    cargo.args(["history::export::tests::for_engines", "--", "--ignored", "--exact"]);
    let folder = workspace.target.join("engines");
    let _ = fs::remove_dir_all(folder.join("world"));
    cmd::run(cargo.env("LSBUF_ENGINES", folder.join("world")))?;
    let script = folder.join("engines.py");
    fs::write(&script, SCRIPT).with_context(|| format!("writing {}", script.display()))?;
    let answer = cmd::output(python(&packages).arg(script).arg(folder.join("world")))?;
    print!("{answer}");
    Ok(Engines::Same(answer.lines().count()))
}

/// The folder with DuckDB.
fn packages(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let folder = workspace.target.join("engines").join("packages");
    let has_it = || {
        let test = python(&folder).args(["-c", "import duckdb"]).output();
        test.is_ok_and(|output| output.status.success())
    };
    if !has_it() {
        let mut install = Command::new("python3");
        install.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&folder).arg(DUCKDB);
        cmd::run(&mut install)?;
    }
    Ok(folder)
}

/// Python with what is in that folder.
fn python(packages: &Path) -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages);
    python
}
