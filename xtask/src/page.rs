//! `cargo xtask page`: is the page of `lsbuf report` right in a real browser?
//!
//! A test of the library writes pages of made worlds: a desktop, one over time, one with hostile
//! names, one with 20,000 buffers. `page.py` opens them in a Chromium without a screen and looks at
//! each view, at what the policy blocks, at keys, names for screen readers and contrast, and
//! measures how fast it is. With `--pictures` it draws the views for `docs/page` in place of that.
//!
//! Limits: one browser. A screen reader is not run; the tree that it would be given is looked at.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;

use crate::cmd;
use crate::engines::FEATURES;
use crate::workspace::Workspace;

const SCRIPT: &str = include_str!("page.py");

/// The test that writes the pages.
const WORLDS: &str = "render::page::tests::for_browser";

/// Look at the page of `lsbuf report` in a browser
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// Draw each view into this folder, in both themes and three widths, and check nothing
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Looked {
    /// So many checks passed.
    Passed(usize),
    /// There is no browser, or no Python.
    Missing(&'static str),
}

/// Makes the pages and looks at them.
pub(crate) fn check(workspace: &Workspace, pictures: Option<&Path>) -> anyhow::Result<Looked> {
    let Some(browser) = cmd::find_program("chromium") else { return Ok(Looked::Missing("chromium")) };
    if !cmd::is_program("python3") {
        return Ok(Looked::Missing("python3"));
    }
    let folder = workspace.target.join("page");
    let _ = std::fs::remove_dir_all(&folder);
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--quiet", "--package", "lsbuf", "--features", FEATURES, "--lib"]);
    cargo.args(["--", "--ignored", "--exact", WORLDS]);
    cmd::run(cargo.env("LSBUF_PAGES", &folder))?;
    let script = folder.join("page.py");
    std::fs::write(&script, SCRIPT).with_context(|| format!("writing {}", script.display()))?;
    let mut python = Command::new("python3");
    python.arg(script).arg(browser).arg(&folder).args(pictures);
    let answer = cmd::output(&mut python)?;
    print!("{answer}");
    Ok(Looked::Passed(answer.lines().count()))
}

/// `cargo xtask page`.
pub(crate) fn page(workspace: &Workspace, args: &PageArgs) -> anyhow::Result<()> {
    match check(workspace, args.pictures.as_deref())? {
        Looked::Passed(_) => Ok(()),
        Looked::Missing(program) => anyhow::bail!("{program} is missing"),
    }
}
