//! The file of a page: it is written under another name and then renamed, and it replaces nothing
//! but an earlier page.
//!
//! Limit: between the look at the file and its replacement somebody else may put another file
//! there.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

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

/// Writes the file whole, or leaves what is there.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let written = Unfinished::beside(path).and_then(|mut unfinished| {
        let mut out = BufWriter::with_capacity(64 << 10, &mut unfinished.file);
        write(&mut out)?;
        out.flush()?;
        drop(out);
        unfinished.finish(path)
    });
    written.with_context(|| format!("{} cannot be written", path.display()))
}

/// A file under another name in the same folder, which goes if it is not finished.
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Unfinished {
    fn beside(path: &Path) -> io::Result<Unfinished> {
        let mut name = OsString::from(".");
        name.push(path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?);
        name.push(format!(".{}", std::process::id()));
        let path = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(Unfinished { path, file })
    }

    fn finish(self, path: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, path)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After it was renamed there is nothing to remove. If it cannot be removed, it stays.
        let _ = fs::remove_file(&self.path);
    }
}
