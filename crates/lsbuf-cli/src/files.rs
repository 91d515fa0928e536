//! Files that others read while they are written anew: each is written under another name and then
//! renamed, so a reader sees the old one or the new one, whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

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

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that the new file takes the place of the old one, and that nothing is left beside it,
    /// also if it cannot be put there.
    #[test]
    fn replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.prom");
        replace(&path, |out| out.write_all(b"one")).unwrap();
        replace(&path, |out| out.write_all(b"two")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("d/inside"), b"").unwrap();
        assert!(replace(&folder.path().join("d"), |_| Ok(())).is_err());
        assert!(replace(&folder.path().join("none/x"), |_| Ok(())).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
