//! The programs of `crates/guest/maker`: one C file, built in the ways in which programs differ for
//! whoever reads their stacks.
//!
//! They have no library, so each build is a few KiB and takes a fraction of a second.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use lsbuf_guest::maker::Build;

use crate::arch::Arch;
use crate::cmd;
use crate::workspace::Workspace;

/// Flags of every build: no library, and frame pointers in every function, if no later flag says
/// another thing.
const FLAGS: &[&str] = &[
    "-O1",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-nostdlib",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-fno-asynchronous-unwind-tables",
];

/// What compiler and linker are told for one build, besides.
fn flags(build: Build) -> &'static [&'static str] {
    match build {
        Build::Fixed => &["-static", "-no-pie", "-fno-pie", "-Wl,--build-id=sha1"],
        Build::Pie => &["-static-pie", "-fPIE", "-Wl,--build-id=sha1"],
        Build::Stripped => &["-static-pie", "-fPIE", "-Wl,--build-id=sha1", "-s"],
        Build::WithoutBuildId => &["-static-pie", "-fPIE", "-Wl,--build-id=none"],
        Build::WithoutFramePointers => &[
            "-static-pie",
            "-fPIE",
            "-Wl,--build-id=sha1",
            "-Wl,--eh-frame-hdr",
            "-fomit-frame-pointer",
            "-fasynchronous-unwind-tables",
            "-DROOM=1000",
        ],
    }
}

/// Builds all of them. Returns their names, and where they are.
pub(crate) fn build(workspace: &Workspace, arch: Arch) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let source = workspace.root.join("crates/guest/maker/maker.c");
    let folder = workspace.target.join("guest").join(arch.target()).join("maker");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Build::ALL.into_iter().map(|build| one(&source, &folder, arch, build)).collect()
}

fn one(source: &Path, folder: &Path, arch: Arch, build: Build) -> anyhow::Result<(&'static str, PathBuf)> {
    let program = folder.join(build.name());
    let mut compiler = Command::new(arch.linker().0);
    cmd::run(compiler.args(FLAGS).args(flags(build)).arg("-o").arg(&program).arg(source))?;
    Ok((build.name(), program))
}
