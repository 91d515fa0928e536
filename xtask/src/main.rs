//! `cargo xtask …`: everything around lsbuf that is not shipped.
//!
//! `test` checks everything, in one command, on a fresh machine. `check` is the same without the
//! tests in kernels. `bpf` compiles the committed BPF objects. `vm`, `demo`, `bench`, `soak`,
//! `differential`, `sh` and `record` boot real kernels. `cases` runs other software on this
//! machine. The exit status is 0 for success, 1 for failure and 2 for a mistake in the arguments.

mod api;
mod apt;
mod arch;
mod bench;
mod bpf;
mod cases;
mod cmd;
#[cfg(test)]
mod comments;
mod coverage;
mod cpio;
mod deb_version;
mod dist;
mod engines;
mod fetch;
mod host;
mod initramfs;
mod kernels;
mod licences;
mod maker;
mod matrix;
mod modinfo;
mod packages;
mod page;
#[cfg(test)]
mod page_size;
mod parsers;
mod pattern;
mod picture;
mod points;
mod qemu;
mod record;
mod show;
mod suite;
mod svg;
mod verdict;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Tests, real kernels and the demo of lsbuf")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run all tests, including those in real kernels; run by root, it installs what is missing
    Test {
        /// Leave out the tests in kernels
        #[arg(long)]
        quick: bool,
        /// Fail if a check cannot be made on this machine, instead of skipping it
        #[arg(long)]
        all: bool,
    },
    /// Run all tests except those in real kernels
    Check,
    Api(api::ApiArgs),
    /// Ask other programs for figures of a recording, its exports and of stacks, and compare
    Engines,
    Page(page::PageArgs),
    Cases(cases::CasesArgs),
    Bpf(bpf::BpfArgs),
    Vm(vm::VmArgs),
    Demo(vm::DemoArgs),
    Bench(bench::BenchArgs),
    Soak(vm::SoakArgs),
    /// Compare the answers of every source with a separate reading of procfs, on random worlds that
    /// do not change, in one kernel
    Differential(vm::SoakArgs),
    Sh(vm::ShArgs),
    Record(record::RecordArgs),
    /// Draw docs/top.svg anew, from the screen that a test of `lsbuf top` captured
    Picture,
    Fuzz(parsers::FuzzArgs),
    Dist(dist::DistArgs),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<cmd::Usage>() { 2 } else { 1 })
        }
    }
}

fn run(task: &Task) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match task {
        Task::Test { quick, all } => suite::run(&workspace, !quick, *all),
        Task::Check => suite::run(&workspace, false, false),
        Task::Api(arguments) => api::api(&workspace, arguments).map(|()| ExitCode::SUCCESS),
        Task::Engines => match engines::check(&workspace)? {
            engines::Engines::Same(_) => Ok(ExitCode::SUCCESS),
            engines::Engines::Missing(why) => anyhow::bail!("a package is missing: {why}"),
        },
        Task::Page(arguments) => page::page(&workspace, arguments).map(|()| ExitCode::SUCCESS),
        Task::Cases(arguments) => cases::cases(&workspace, arguments),
        Task::Bpf(arguments) => bpf::bpf(&workspace, arguments).map(|()| ExitCode::SUCCESS),
        Task::Vm(arguments) => {
            let failed = vm::vm(&workspace, arguments)?.failed;
            Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Task::Demo(arguments) => vm::demo(&workspace, arguments).map(exit_code),
        Task::Bench(arguments) => bench::bench(&workspace, arguments).map(|()| ExitCode::SUCCESS),
        Task::Soak(arguments) => vm::soak(&workspace, "soak", arguments).map(exit_code),
        Task::Differential(arguments) => vm::soak(&workspace, "differential", arguments).map(exit_code),
        Task::Sh(arguments) => vm::sh(&workspace, arguments).map(exit_code),
        Task::Picture => picture::picture(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Fuzz(arguments) => parsers::fuzz(&workspace, arguments).map(|()| ExitCode::SUCCESS),
        Task::Dist(arguments) => dist::dist(&workspace, arguments).map(|()| ExitCode::SUCCESS),
        Task::Record(arguments) => record::record(&workspace, arguments).map(|()| ExitCode::SUCCESS),
    }
}

/// Turns a guest's exit status into this process's own.
fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(1))
}
