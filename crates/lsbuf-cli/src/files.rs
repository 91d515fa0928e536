//! Files that others read while they are written anew.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Puts a file in the place of another, so that a reader sees the old one or the new one, whole.
/// Everybody may read it.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let Some(name) = path.file_name() else { bail!("{} is no name of a file", path.display()) };
    let mut beside = std::ffi::OsString::from(".");
    beside.push(name);
    beside.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = write(&beside, contents).and_then(|()| fs::rename(&beside, path));
    written
        .inspect_err(|_| drop(fs::remove_file(&beside)))
        .with_context(|| format!("{} cannot be written", path.display()))
}

fn write(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(contents)
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
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("d/inside"), b"").unwrap();
        assert!(replace(&folder.path().join("d"), b"").is_err());
        assert!(replace(&folder.path().join("none/x"), b"").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
