//! The only filesystem of a guest: lsbuf and the guest's programs, the modules, the plan, and
//! programs of the host.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use lsbuf_guest::report::{PLAN_PATH, Plan};

use crate::arch::Arch;
use crate::cmd;
use crate::cpio::Archive;
use crate::host;
use crate::maker;
use crate::workspace::Workspace;

/// The programs of this workspace that a guest gets.
#[derive(Debug)]
pub(crate) struct Programs {
    /// What they run on.
    arch: Arch,
    /// Where they are.
    pub(crate) folder: PathBuf,
    names: Vec<&'static str>,
    /// The programs that make buffers for the tests, and where they are.
    makers: Vec<(&'static str, PathBuf)>,
}

/// Builds the programs of a guest, linked statically because the guest has no libraries. Each of
/// `more` is a package with a program of the same name.
pub(crate) fn build_programs(
    workspace: &Workspace,
    arch: Arch,
    more: &[&'static str],
) -> anyhow::Result<Programs> {
    let packages: Vec<&str> = ["lsbuf-cli", "lsbuf-guest"].iter().chain(more).copied().collect();
    let folder = build_static(workspace, arch, &packages).context("building the guest's programs")?;
    let names = ["lsbuf", "lsbuf-guest"].iter().chain(more).copied().collect();
    let makers = maker::build(workspace, arch).context("building the makers of buffers")?;
    Ok(Programs { arch, folder, names, makers })
}

/// Builds packages with their programs linked statically. Returns the folder with the programs.
pub(crate) fn build_static(workspace: &Workspace, arch: Arch, packages: &[&str]) -> anyhow::Result<PathBuf> {
    // A folder of its own, because the flags differ from those of the ordinary build: in one
    // folder, each build would discard the work of the other.
    let target = workspace.target.join("guest");
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "--release", "--target", arch.target()]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    // As packages have it, so that what is tested is what is installed.
    cargo.args(["--features", "lsbuf-cli/parquet"]);
    cargo.arg("--target-dir").arg(&target).env("RUSTFLAGS", "-C target-feature=+crt-static");
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    host::cross_link(&mut cargo, arch);
    cmd::run(&mut cargo)?;
    Ok(target.join(arch.target()).join("release"))
}

/// An initramfs under construction.
#[derive(Debug)]
pub(crate) struct Initramfs {
    arch: Arch,
    archive: Archive,
    libraries: BTreeSet<String>,
}

impl Initramfs {
    /// One that boots into the guest program with `plan`.
    pub(crate) fn new(
        programs: &Programs,
        plan: &Plan,
        modules: &[(String, Vec<u8>)],
    ) -> anyhow::Result<Self> {
        let mut archive = Archive::default();
        for name in &programs.names {
            archive.program(&format!("/bin/{name}"), &read(&programs.folder.join(name))?);
        }
        for (name, path) in &programs.makers {
            archive.program(&format!("/bin/{name}"), &read(path)?);
        }
        archive.link("/init", "/bin/lsbuf-guest");
        archive.file("/etc/passwd", b"root:x:0:0::/tmp:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n");
        archive.file("/etc/group", b"root:x:0:\nuser:x:1000:\n");
        archive.file(PLAN_PATH, &serde_json::to_vec(plan)?);
        archive.directory("/modules");
        for (name, bytes) in modules {
            archive.file(&format!("/modules/{name}"), bytes);
        }
        let order: String = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
        archive.file("/modules/order", order.as_bytes());
        Ok(Self { arch: programs.arch, archive, libraries: BTreeSet::new() })
    }

    /// Adds a program of this machine as `/bin/NAME`, and the shared libraries that it needs under
    /// the paths that they have here.
    pub(crate) fn add_host_program(&mut self, name: &str) -> anyhow::Result<()> {
        if !self.arch.is_native() {
            let arch = self.arch.name();
            bail!(cmd::Usage(format!("this machine's {name} does not run in an {arch} guest")));
        }
        let path = cmd::find_program(name).with_context(|| format!("this machine has no program {name}"))?;
        self.archive.program(&format!("/bin/{name}"), &read(&path)?);
        // ldd fails on a static program, which needs nothing.
        let listing = cmd::output(Command::new("ldd").arg(&path)).unwrap_or_default();
        for library in libraries(&listing)? {
            if self.libraries.insert(library.to_owned()) {
                self.archive.program(library, &read(Path::new(library))?);
            }
        }
        Ok(())
    }

    /// The finished archive.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.archive.finish()
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// The absolute paths in what ldd prints, the loader's included.
fn libraries(listing: &str) -> anyhow::Result<Vec<&str>> {
    let mut paths = Vec::new();
    for line in listing.lines() {
        let (name, place) = line.trim().split_once(" => ").unwrap_or((line.trim(), line.trim()));
        match place.split(' ').next() {
            Some("not") => bail!("the library {name} is missing on this machine"),
            Some(path) if path.starts_with('/') => paths.push(path),
            _ => {}
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::libraries;

    /// Check that libraries and loader are found, the kernel's own is not, and a missing one is an
    /// error.
    #[test]
    fn reads_ldd() {
        let listing =
            "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/libc.so.6 (0x1)\n\t/lib64/ld.so.2 (0x2)\n";
        assert_eq!(libraries(listing).unwrap(), ["/lib/libc.so.6", "/lib64/ld.so.2"]);
        assert_eq!(libraries("\tstatically linked\n").unwrap(), [""; 0]);
        assert!(libraries("\tlibx.so => not found\n").is_err());
    }
}
