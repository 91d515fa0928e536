//! `cargo xtask record`: records trees from real kernels, for the tests that replay them.
//!
//! Each kernel runs the same small world. What lsbuf read there, its answer and the truth become
//! one text file in `crates/lsbuf/tests/recorded`. Record again when lsbuf reads something new.
//! Addresses, times and the order of inode numbers differ from run to run; nothing else should.

use std::fs;

use anyhow::Context;
use clap::Args;
use lsbuf_guest::report::Plan;
use lsbuf_guest::tree::Tree;

use crate::fetch;
use crate::host;
use crate::initramfs::build_programs;
use crate::kernels;
use crate::vm::{self, MachineArgs};
use crate::workspace::Workspace;

/// Record what lsbuf reads in real kernels, for the tests that replay it
#[derive(Args, Clone, Debug)]
pub(crate) struct RecordArgs {
    /// Kernel to record, or a pattern like '6.*' (repeatable); every kernel of the architecture if
    /// not given
    #[arg(long, value_name = "PATTERN")]
    kernel: Vec<String>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Boots and records the selected kernels.
pub(crate) fn record(workspace: &Workspace, arguments: &RecordArgs) -> anyhow::Result<()> {
    let kernels = kernels::select(arguments.machine.arch, &arguments.kernel, arguments.kernel.is_empty())?;
    host::prepare_guest(arguments.machine.arch)?;
    let bootables = fetch::ensure(workspace, &kernels)?;
    let programs = build_programs(workspace, arguments.machine.arch, &[])?;
    let plan = Plan { mode: "record".to_owned(), arguments: Vec::new() };
    for bootable in &bootables {
        let text = vm::captured(workspace, bootable, &programs, &plan, &arguments.machine)?;
        let tree = Tree::parse(text.as_bytes()).context("parsing what the guest printed")?;
        let folder = workspace.recorded();
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join(format!("{}.tree", bootable.id));
        fs::write(&path, &text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}: {} entries, {} bytes", path.display(), tree.0.len(), text.len());
    }
    Ok(())
}
