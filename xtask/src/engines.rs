//! `cargo xtask engines`: do other programs read a recording, its exports, the stacks of `lsbuf
//! report` and metrics as lsbuf wrote them? Do the alerts for Prometheus fire when they should, and
//! does it answer what the dashboard asks?
//!
//! DuckDB, a viewer that has parsers of folded stacks and of pprof's profiles, and the parsers of
//! Prometheus' client library are installed from PyPI into a folder below `target`, because no
//! package of the distribution has them. A small world is made for each, so that the figures are
//! known. Python's own SQLite reads the recording itself. Prometheus' own promtool reads the
//! metrics too, and tests the rules.
//!
//! Limits: without Python, or without a way to install these, nothing is compared, and that is
//! said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::cmd;
use crate::workspace::Workspace;

/// The library's features for what other programs read; the same for all, so that it is built once.
pub(crate) const FEATURES: &str = "metrics,parquet,symbols";

/// What is asked, with versions.
const PACKAGES: [&str; 3] = ["duckdb==2.0.1", "flamegraph-textual==0.1.2", "prometheus-client==0.26.0"];

/// Programs that ask for figures and compare them, on a line each: of a recording, of stacks, of
/// metrics.
const SCRIPTS: [(&str, &str); 3] = [
    ("engines.py", include_str!("engines.py")),
    ("profiles.py", include_str!("profiles.py")),
    ("metrics.py", include_str!("metrics.py")),
];

/// The tests that write what is asked.
const WORLDS: [&str; 3] = [
    "history::export::tests::for_engines",
    "render::metrics::tests::for_engines",
    "render::report::tests::for_engines",
];

/// What became of it.
#[derive(Debug)]
pub(crate) enum Engines {
    /// All gave the same figures, so many of them.
    Same(usize),
    /// The packages are not to be had.
    Missing(String),
}

/// Compares the engines.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Engines> {
    let packages = match packages(workspace) {
        Ok(packages) => packages,
        Err(error) => return Ok(Engines::Missing(format!("{error:#}"))),
    };
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--quiet", "--package", "lsbuf", "--features", FEATURES, "--lib"]);
    cargo.args(["--", "--ignored", "--exact"]).args(WORLDS);
    let folder = workspace.target.join("engines");
    let _ = fs::remove_dir_all(folder.join("world"));
    cmd::run(cargo.env("LSBUF_ENGINES", folder.join("world")))?;
    let mut figures = 0;
    for (name, text) in SCRIPTS {
        let script = folder.join(name);
        fs::write(&script, text).with_context(|| format!("writing {}", script.display()))?;
        let answer = cmd::output(python(&packages).arg(script).arg(folder.join("world")))?;
        print!("{answer}");
        figures += answer.lines().count();
    }
    if !cmd::is_program("promtool") {
        return Ok(Engines::Missing("promtool, of Debian's package prometheus".to_owned()));
    }
    figures += promtool(workspace, &folder.join("world/metrics.txt"))?;
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--quiet", "--package", "lsbuf-cli", "--test", "prometheus", "--", "--ignored"]);
    cmd::run(&mut cargo)?;
    println!("   prometheus: answers every query of the dashboard");
    Ok(Engines::Same(figures + 1))
}

/// Has promtool read metrics, and test the rules. Returns how many checks it has made.
fn promtool(workspace: &Workspace, metrics: &Path) -> anyhow::Result<usize> {
    let rules = workspace.root.join("dist/prometheus");
    let metrics = fs::File::open(metrics).with_context(|| format!("opening {}", metrics.display()))?;
    let checks: [(&[&str], Stdio); 3] = [
        (&["check", "metrics"], metrics.into()),
        (&["check", "rules", "lsbuf.rules.yml"], Stdio::null()),
        (&["test", "rules", "lsbuf.rules.test.yml"], Stdio::null()),
    ];
    let made = checks.len();
    for (args, input) in checks {
        cmd::output(Command::new("promtool").args(args).current_dir(&rules).stdin(input))?;
        println!("   promtool {}: passed", args.join(" "));
    }
    Ok(made)
}

/// The folder with the packages.
fn packages(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let folder = workspace.target.join("engines").join("packages");
    let has_it = || {
        let test = python(&folder)
            .args(["-c", "import duckdb, flamegraph_textual.parsers, prometheus_client"])
            .output();
        test.is_ok_and(|output| output.status.success())
    };
    if !has_it() {
        let mut install = Command::new("python3");
        install.args(["-m", "pip", "install", "--quiet", "--target"]).arg(&folder).args(PACKAGES);
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
