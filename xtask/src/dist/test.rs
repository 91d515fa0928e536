//! Tests of the package: lintian; then it is installed, used and removed as its users would.
//!
//! This machine's own packages are not touched. dpkg keeps its books in a folder of the test and
//! unpacks there. The program is run in that folder as its root, where it finds no library and no
//! file but those of the package, and a procfs.
//!
//! Limits: the maintainer scripts run on this machine with `DPKG_ROOT` set, as dpkg offers for
//! roots without a shell; no systemd runs in the folder, so no unit is started.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::{UNITS, shown};
use crate::cmd;
use crate::host;
use crate::workspace::Workspace;

/// Fails if lintian has an error or a warning; prints all that it says.
pub(crate) fn lintian(package: &Path) -> anyhow::Result<()> {
    let mut lintian = Command::new("lintian");
    // With --show-overrides what is overridden would fail, too.
    lintian.args(["--fail-on", "error,warning", "--display-info", "--color", "never"]);
    if host::is_root() {
        lintian.arg("--allow-root");
    }
    cmd::run(lintian.arg(package))
}

/// Installs the package, uses what is in it, removes and purges it. Returns how many claims were
/// checked.
pub(crate) fn install(workspace: &Workspace, package: &Path) -> anyhow::Result<usize> {
    let root = Root::make(&workspace.target.join("dist/root"))?;
    let before = root.files()?;
    root.dpkg("--install", package)?;
    println!("   installed in {}", shown(workspace, &root.folder));

    let version = root.run("", &["--version"])?;
    ensure!(version.trim() == concat!("lsbuf ", env!("CARGO_PKG_VERSION")), "--version says {version}");
    let listed = root.run("mount -t proc proc proc && ", &["ls", "--csv"])?;
    ensure!(listed.starts_with("KIND,INO,"), "ls --csv says {listed}");
    let dist = workspace.root.join("dist");
    for name in names(&dist.join("man"))? {
        root.has_packed(&format!("usr/share/man/man1/{name}.gz"), &dist.join("man").join(&name))?;
    }
    for (place, name) in [
        ("usr/share/bash-completion/completions/lsbuf", "lsbuf.bash"),
        ("usr/share/fish/vendor_completions.d/lsbuf.fish", "lsbuf.fish"),
        ("usr/share/zsh/vendor-completions/_lsbuf", "_lsbuf"),
    ] {
        let same = root.read(place)? == read(&dist.join("completions").join(name))?;
        ensure!(same, "/{place} is not dist/completions/{name}");
    }
    let licences = String::from_utf8_lossy(&root.read("usr/share/doc/lsbuf/copyright")?).into_owned();
    ensure!(
        licences.contains("clap_builder") && licences.contains("GNU C library"),
        "copyright lacks a library"
    );
    for unit in UNITS {
        let found = root.files()?.into_iter().filter(|path| path.ends_with(unit)).collect::<Vec<_>>();
        ensure!(
            matches!(&found[..], [one] if one.parent().is_some_and(|folder| folder.ends_with("lib/systemd/system"))),
            "{unit} should be there once, and enabled nowhere: {found:?}"
        );
    }
    let recording = root.folder.join("var/lib/lsbuf/buffers.db");
    fs::create_dir_all(root.folder.join("var/lib/lsbuf")).context("making the recording's folder")?;
    fs::write(&recording, "").context("making a recording")?;

    root.dpkg("--remove", Path::new("lsbuf"))?;
    ensure!(!root.folder.join("usr/bin/lsbuf").exists(), "the program is there after its removal");
    ensure!(recording.exists(), "the recording went with the program");
    root.dpkg("--purge", Path::new("lsbuf"))?;
    let left: Vec<_> = root.files()?.difference(&before).cloned().collect();
    ensure!(left.is_empty(), "left after the purge: {left:?}");
    println!("   used, removed and purged: nothing is left");
    Ok(9)
}

/// A folder that is the root of another system.
struct Root {
    folder: PathBuf,
}

impl Root {
    /// One with nothing in it but dpkg's own books and two empty folders.
    fn make(folder: &Path) -> anyhow::Result<Root> {
        let books = folder.join("var/lib/dpkg");
        for path in ["info", "parts", "triggers", "updates"] {
            fs::create_dir_all(books.join(path)).context("making dpkg's folders")?;
        }
        fs::write(books.join("status"), "").context("making dpkg's list")?;
        // What every system has. In systemd's folder dpkg's helper keeps which units are enabled.
        for path in ["proc", "var/lib/systemd"] {
            fs::create_dir_all(folder.join(path)).with_context(|| format!("making {path}"))?;
        }
        Ok(Root { folder: folder.to_owned() })
    }

    fn dpkg(&self, action: &str, what: &Path) -> anyhow::Result<()> {
        let mut dpkg = as_root();
        dpkg.arg("dpkg").arg("--root").arg(&self.folder).arg("--log").arg(self.folder.with_extension("log"));
        // Images of containers often leave manual pages and documents out of every package.
        dpkg.args(["--path-include=*", "--force-script-chrootless", action]).arg(what);
        cmd::output(dpkg.env("PATH", path())).map(|_| ())
    }

    /// What the program prints, with this folder as its root, after other work in the folder.
    fn run(&self, before: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut shell = as_root();
        shell.args(["sh", "-c"]).arg(format!("{before}exec chroot . /usr/bin/lsbuf \"$@\"")).arg("sh");
        cmd::output(shell.args(arguments).current_dir(&self.folder).env("PATH", path()))
    }

    /// Fails unless a file is the other one, compressed.
    fn has_packed(&self, place: &str, original: &Path) -> anyhow::Result<()> {
        let unpacked = cmd::output_bytes(Command::new("gzip").arg("-dc").arg(self.folder.join(place)))?;
        ensure!(unpacked == read(original)?, "/{place} is not {}", original.display());
        Ok(())
    }

    fn read(&self, place: &str) -> anyhow::Result<Vec<u8>> {
        read(&self.folder.join(place))
    }

    /// Everything but dpkg's own books.
    fn files(&self) -> anyhow::Result<BTreeSet<PathBuf>> {
        let mut files = BTreeSet::new();
        let mut open = vec![self.folder.clone()];
        while let Some(folder) = open.pop() {
            for name in names(&folder)? {
                let path = folder.join(name);
                if path.ends_with("var/lib/dpkg") {
                    continue;
                }
                if path.is_dir() && !path.is_symlink() {
                    open.push(path.clone());
                }
                files.insert(path);
            }
        }
        Ok(files)
    }
}

/// Runs a command as root of namespaces of its own, where mounts and users are nobody else's.
fn as_root() -> Command {
    let mut command = Command::new("unshare");
    if !host::is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--pid", "--fork", "--"]);
    command
}

/// With the folders of administrators, which a user's own may lack.
fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin:/usr/bin:/bin"
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.with_context(|| format!("reading {}", folder.display()))?.file_name();
        name.into_string().map_err(|name| anyhow::anyhow!("{} is no text", name.display()))
    };
    entries.map(name).collect()
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
