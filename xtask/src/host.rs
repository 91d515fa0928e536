//! What this machine must have for the tests, and how to install it.
//!
//! Requirements are looked for as programs and files, not as packages. So nothing has to be run if
//! all are there, and programs that were installed in another way count too.

use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::apt::KEYRINGS;
use crate::arch::Arch;
use crate::cmd;

/// What a machine is to do, beyond building.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// To boot kernels.
    Kernels,
    /// To make and test packages.
    Packages,
    /// To compare with other programs.
    Engines,
}

/// One requirement, and the Debian package that has it.
struct Requirement {
    package: &'static str,
    /// What needs it; `None`: everything.
    only: Option<For>,
    present: fn() -> bool,
}

const REQUIREMENTS: &[Requirement] = &[
    Requirement { package: "gcc", only: None, present: || cmd::is_program("cc") },
    Requirement { package: "libc6-dev", only: None, present: has_static_libc },
    // The tests of lsbuf top run it in a real terminal.
    Requirement { package: "tmux", only: None, present: || cmd::is_program("tmux") },
    Requirement {
        package: "qemu-system-x86",
        only: Some(For::Kernels),
        present: || cmd::is_program(Arch::Amd64.qemu().0),
    },
    Requirement { package: "xz-utils", only: Some(For::Kernels), present: || cmd::is_program("xz") },
    Requirement { package: "tar", only: Some(For::Kernels), present: || cmd::is_program("tar") },
    Requirement { package: "dpkg", only: Some(For::Kernels), present: || cmd::is_program("dpkg-deb") },
    Requirement { package: "apt", only: Some(For::Kernels), present: || cmd::is_program("apt-get") },
    Requirement {
        package: "gpgv",
        only: Some(For::Kernels),
        present: || cmd::is_program("gpgv") || cmd::is_program("sqv"),
    },
    Requirement {
        package: "debian-archive-keyring",
        only: Some(For::Kernels),
        present: || KEYRINGS.iter().any(|path| Path::new(path).exists()),
    },
    Requirement { package: "binutils", only: Some(For::Packages), present: || cmd::is_program("strip") },
    Requirement {
        package: "dpkg-dev",
        only: Some(For::Packages),
        present: || cmd::is_program("dpkg-buildpackage"),
    },
    Requirement { package: "debhelper", only: Some(For::Packages), present: || cmd::is_program("dh") },
    Requirement { package: "lintian", only: Some(For::Packages), present: || cmd::is_program("lintian") },
    Requirement { package: "util-linux", only: Some(For::Packages), present: || cmd::is_program("unshare") },
    Requirement { package: "prometheus", only: Some(For::Engines), present: || cmd::is_program("promtool") },
    Requirement { package: "chromium", only: Some(For::Engines), present: || cmd::is_program("chromium") },
    Requirement { package: "gzip", only: Some(For::Packages), present: || cmd::is_program("gzip") },
];

/// The compiler prints the path of libc.a if it is there, else the bare name.
fn has_static_libc() -> bool {
    finds_static_libc("cc")
}

fn finds_static_libc(compiler: &str) -> bool {
    let found = cmd::output(Command::new(compiler).arg("-print-file-name=libc.a"));
    found.is_ok_and(|path| Path::new(path.trim()).is_absolute())
}

/// Makes sure that everything is there: installs it as root, else fails with the command that
/// would.
pub(crate) fn prepare(work: &[For]) -> anyhow::Result<()> {
    provide(&missing(work))?;
    for (component, argument) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        if cmd::output(cargo.args([argument, "--version"])).is_err() {
            bail!(
                "this toolchain has no cargo {argument}; install it with\n  rustup component add {component}"
            );
        }
    }
    Ok(())
}

/// Makes sure that guests of that architecture can be built and emulated.
pub(crate) fn prepare_guest(arch: Arch) -> anyhow::Result<()> {
    let (linker, packages) = arch.linker();
    let mut missing = Vec::new();
    if !cmd::is_program(linker) || !finds_static_libc(linker) {
        missing.extend(packages);
    }
    let (emulator, package) = arch.qemu();
    if !cmd::is_program(emulator) {
        missing.push(package);
    }
    provide(&missing)?;
    prepare_target(arch)
}

/// Makes sure that this toolchain can compile for that architecture.
pub(crate) fn prepare_target(arch: Arch) -> anyhow::Result<()> {
    if has_std(arch) {
        return Ok(());
    }
    let target = arch.target();
    // A toolchain of another origin than rustup has what it has.
    if is_root() && cmd::is_program("rustup") {
        println!("installing Rust's standard library for {target}");
        cmd::run(Command::new("rustup").args(["target", "add", target]))?;
    }
    if !has_std(arch) {
        bail!("this toolchain has no standard library for {target}: rustup target add {target}");
    }
    Ok(())
}

/// Whether this toolchain has the standard library of that architecture.
fn has_std(arch: Arch) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut rustc = Command::new(rustc);
    let folder = cmd::output(rustc.args(["--print", "target-libdir", "--target", arch.target()]));
    folder.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

/// Tells cargo which linker to use for that architecture, unless the environment does.
pub(crate) fn cross_link(cargo: &mut Command, arch: Arch) {
    let variable = arch.linker_variable();
    if !arch.is_native() && std::env::var_os(&variable).is_none() {
        cargo.env(variable, arch.linker().0);
    }
}

/// Installs packages as root, else fails with the command that would.
fn provide(missing: &[&str]) -> anyhow::Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if !can_install() {
        bail!(
            "this machine lacks some packages; install them with\n  \
             sudo apt-get update && sudo apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    install(missing)
}

/// Whether [`install`] may be tried.
pub(crate) fn can_install() -> bool {
    is_root() && cmd::is_program("apt-get")
}

/// Installs packages of this machine's own distribution.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    println!("installing {}", packages.join(", "));
    cmd::run(Command::new("apt-get").args(["update", "-q"]))?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-q", "-y", "--no-install-recommends"]).args(packages);
    cmd::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn missing(work: &[For]) -> Vec<&'static str> {
    let wanted = |requirement: &&Requirement| {
        requirement.only.is_none_or(|only| work.contains(&only)) && !(requirement.present)()
    };
    REQUIREMENTS.iter().filter(wanted).map(|requirement| requirement.package).collect()
}

/// Whether root runs this program.
pub(crate) fn is_root() -> bool {
    cmd::output(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}
