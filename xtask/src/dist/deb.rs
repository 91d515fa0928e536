//! The Debian package: a folder in the shape of a source package, and debhelper.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::{UNITS, copyright};
use crate::cmd;
use crate::workspace::Workspace;

/// Of the package and its changelog.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Makes the package in `folder`, and returns where it is.
pub(crate) fn make(workspace: &Workspace, program: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let source = folder.join(format!("lsbuf-{VERSION}"));
    let debian = source.join("debian");
    let dist = workspace.root.join("dist");
    copy(&dist.join("debian"), &debian)?;
    copy(&dist.join("man"), &source.join("man"))?;
    copy(&dist.join("completions"), &source.join("completions"))?;
    copy(&workspace.root.join("docs"), &source.join("docs"))?;
    for name in ["README.md", "CHANGELOG.md"] {
        copy(&workspace.root.join(name), &source.join(name))?;
    }
    copy(program, &source.join("lsbuf"))?;
    for unit in UNITS {
        copy(&dist.join(unit), &debian.join(format!("lsbuf.{unit}")))?;
    }
    let completions = source.join("bash");
    copy(&dist.join("completions/lsbuf.bash"), &completions.join("lsbuf"))?;

    let maintainer = maintainer(workspace);
    let architecture = cmd::output(Command::new("dpkg").arg("--print-architecture"))?;
    let control = debian.join("control");
    let text = fs::read_to_string(&control).with_context(|| format!("reading {}", control.display()))?;
    let text = text.replace("@MAINTAINER@", &maintainer).replace("@ARCHITECTURE@", architecture.trim());
    write(&control, &text)?;
    let time = time(workspace)?;
    let date =
        cmd::output(Command::new("date").args(["--utc", "--rfc-email", "--date"]).arg(format!("@{time}")))?;
    let changelog = format!(
        "lsbuf ({VERSION}) unstable; urgency=medium\n\n  * CHANGELOG.md in this folder has the changes.\n\n \
         -- {maintainer}  {date}"
    );
    write(&debian.join("changelog"), &changelog)?;
    write(&debian.join("copyright"), &copyright::text(workspace, &rustc()?)?)?;

    let mut build = Command::new("dpkg-buildpackage");
    // Everything that the package is made of is there: cargo has built it.
    build.args(["--build=binary", "--unsigned-changes", "--no-check-builddeps"]);
    build.current_dir(&source).env("SOURCE_DATE_EPOCH", &time);
    cmd::output(&mut build)?;
    let package = folder.join(format!("lsbuf_{VERSION}_{}.deb", architecture.trim()));
    if !package.is_file() {
        bail!("dpkg-buildpackage made no {}", package.display());
    }
    Ok(package)
}

/// Who makes the package: by Debian's variables, else as git knows its user, else nobody in
/// particular.
fn maintainer(workspace: &Workspace) -> String {
    let git = |key: &str| {
        let mut git = Command::new("git");
        let value = cmd::output(git.args(["config", key]).current_dir(&workspace.root)).ok()?;
        Some(value.trim().to_owned())
    };
    let get = |variable: &str, key: &str| std::env::var(variable).ok().or_else(|| git(key));
    match (get("DEBFULLNAME", "user.name"), get("DEBEMAIL", "user.email")) {
        (Some(name), Some(address)) => format!("{name} <{address}>"),
        _ => "root <root@localhost>".to_owned(),
    }
}

/// When the source was changed last, in seconds since 1970, so that the same source makes the same
/// package.
fn time(workspace: &Workspace) -> anyhow::Result<String> {
    if let Ok(time) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(time);
    }
    let mut git = Command::new("git");
    let time = cmd::output(git.args(["log", "-1", "--format=%ct"]).current_dir(&workspace.root))
        .or_else(|_| cmd::output(Command::new("date").arg("+%s")))?;
    Ok(time.trim().to_owned())
}

/// The compiler's version, which is the standard library's too.
fn rustc() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = cmd::output(Command::new(rustc).arg("--version"))?;
    Ok(said.split_ascii_whitespace().nth(1).unwrap_or_default().to_owned())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Copies a file or a folder, with its permissions.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let context = || format!("copying {} to {}", from.display(), to.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(context)?;
    }
    if !from.is_dir() {
        return fs::copy(from, to).map(|_| ()).with_context(context);
    }
    fs::create_dir_all(to).with_context(context)?;
    for entry in fs::read_dir(from).with_context(context)? {
        let entry = entry.with_context(context)?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
