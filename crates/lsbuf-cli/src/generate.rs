//! `lsbuf generate`: manual pages and completions from the definitions of the arguments.
//!
//! The repository has a copy of what it writes in `dist/man` and `dist/completions`, which a test
//! compares.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::{Cli, Generate};
use crate::manual;
use crate::output::Ending;

/// Writes into the folder, which must exist.
pub(crate) fn run(what: &Generate) -> Result<Ending> {
    match what {
        Generate::Man { dir } => pages(dir)?,
        Generate::Completions { dir } => completions(dir)?,
    }
    Ok(Ending::Answered)
}

fn completions(dir: &Path) -> Result<()> {
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Cli::command(), "lsbuf", dir)
            .with_context(|| format!("writing completions for {shell} into {}", dir.display()))?;
    }
    Ok(())
}

fn pages(dir: &Path) -> Result<()> {
    for (name, page) in manual::pages(&Cli::command())? {
        let path = dir.join(name);
        fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
