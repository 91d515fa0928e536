//! The file of a page replaces nothing but an earlier page.
//!
//! Limit: between the look at the file and its replacement somebody else may put another file
//! there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// How many bytes of a page say that it is one.
const HEAD: u64 = 2048;

/// What they say, besides that it is HTML.
const GENERATOR: &[u8] = b"<meta name=\"generator\" content=\"lsbuf ";

/// Fails if the file is there, and is no earlier page.
pub(crate) fn check(path: &Path) -> Result<()> {
    let shown = path.display();
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{shown} cannot be written")),
    };
    if !metadata.is_file() {
        bail!("{shown} is no regular file, so it is not replaced (- is standard output)");
    }
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    read.with_context(|| format!("{shown} cannot be read, so it is not replaced"))?;
    let is_page = head.starts_with(b"<!DOCTYPE html>")
        && head.windows(GENERATOR.len()).any(|window| window == GENERATOR);
    if !is_page && !head.is_empty() {
        bail!("{shown} is no page of lsbuf, so it is not replaced: remove it, or name another file");
    }
    Ok(())
}
