//! `cargo xtask vm`, `demo`, `bench` and `sh`: what is done with booted kernels.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use lsbuf_guest::report::{Event, Plan};
use lsbuf_guest::scenarios;

use crate::cmd::{self, Usage};
use crate::fetch::{self, Bootable};
use crate::initramfs::{Initramfs, build_programs};
use crate::kernels;
use crate::qemu::{self, Boot, Machine};
use crate::show;
use crate::verdict::{self, Expectation, State, Verdict};
use crate::workspace::Workspace;

/// The machine that a guest gets.
#[derive(Args, Clone, Debug)]
pub(crate) struct MachineArgs {
    /// Use KVM instead of emulation
    #[arg(long)]
    kvm: bool,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Number of processors
    #[arg(long, default_value_t = 2)]
    processors: u32,
    /// Time limit of one boot in seconds
    #[arg(long, default_value_t = 300)]
    timeout: u64,
    /// Put this program of the host into the guest's /bin, with its libraries (repeatable)
    #[arg(long = "with", value_name = "PROGRAM")]
    programs: Vec<String>,
}

impl MachineArgs {
    fn machine(&self) -> Machine {
        let timeout = Duration::from_secs(self.timeout);
        Machine { kvm: self.kvm, memory: self.memory, processors: self.processors, timeout }
    }
}

/// Run the scenarios in real kernels
#[derive(Args, Clone, Debug)]
pub(crate) struct VmArgs {
    /// Kernel to boot, or a pattern like '6.*' (repeatable)
    #[arg(long, value_name = "PATTERN")]
    kernel: Vec<String>,
    /// Boot every kernel of the table, not just the default ones
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Boot this kernel image instead of one of the table; any scenario may then be skipped
    #[arg(long, value_name = "VMLINUZ", conflicts_with_all = ["kernel", "all"])]
    image: Option<PathBuf>,
    /// Where the modules of that image are
    #[arg(long, value_name = "DIR", requires = "image")]
    modules: Option<PathBuf>,
    /// List kernels and scenarios, and boot nothing
    #[arg(long)]
    list: bool,
    /// Print each compared pair
    #[arg(long)]
    checks: bool,
    /// Print what scenarios write
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    machine: MachineArgs,
    /// Scenarios to run; all if none is named
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
}

impl VmArgs {
    /// The default kernels with all scenarios.
    pub(crate) fn everything() -> Self {
        let machine =
            MachineArgs { kvm: false, memory: 1024, processors: 2, timeout: 300, programs: Vec::new() };
        Self {
            kernel: Vec::new(),
            all: false,
            image: None,
            modules: None,
            list: false,
            checks: false,
            verbose: false,
            machine,
            scenarios: Vec::new(),
        }
    }
}

/// What a job in one kernel needs to know.
#[derive(Args, Clone, Debug)]
pub(crate) struct JobArgs {
    /// Kernel to boot; the newest of the default ones if not given
    #[arg(long, value_name = "PATTERN")]
    kernel: Option<String>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Run one command line in a kernel, in busybox's shell if the host has busybox
#[derive(Args, Clone, Debug)]
pub(crate) struct ShArgs {
    /// Kernel to boot; the newest of the default ones if not given
    #[arg(long, value_name = "PATTERN")]
    kernel: Option<String>,
    #[command(flatten)]
    machine: MachineArgs,
    /// The command line; several words are joined with spaces
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Numbers for a summary over several boots.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) skipped: usize,
    pub(crate) failed: usize,
}

/// `cargo xtask vm`.
pub(crate) fn vm(workspace: &Workspace, arguments: &VmArgs) -> anyhow::Result<Tally> {
    let selected = scenarios::select(&arguments.scenarios).map_err(|error| Usage(error.to_string()))?;
    let kernels = kernels::select(kernels::table()?, &arguments.kernel, arguments.all)?;
    if arguments.list {
        show::list(workspace, &selected)?;
        return Ok(Tally::default());
    }
    let bootables = match &arguments.image {
        Some(image) => vec![fetch::own(image, arguments.modules.as_deref(), &["vgem".to_owned()])?],
        None => fetch::ensure(workspace, &kernels)?,
    };
    let programs = build_programs(workspace)?;
    let plan = Plan { mode: "scenarios".to_owned(), arguments: arguments.scenarios.clone() };
    let mut tally = Tally::default();
    let mut table = show::heading();
    for bootable in &bootables {
        println!("== kernel {}", bootable.id);
        let boot = boot(workspace, bootable, &programs, &plan, &arguments.machine, &mut |event| {
            show::event(event, arguments.checks, arguments.verbose);
        })?;
        let expected = Expectation {
            scenarios: selected.iter().map(|scenario| (scenario.name, scenario.needs)).collect(),
            lacks: bootable.lacks.clone(),
        };
        let verdict = verdict::judge(&expected, &boot.events, &boot.problems);
        write_report(workspace, bootable, &boot, &verdict)?;
        show::failures(&verdict);
        table.push_str(&show::row(&bootable.id, &verdict, boot.took));
        tally.passed += verdict.count(State::Passed);
        tally.skipped += verdict.count(State::ExpectedSkip);
        tally.failed += verdict.count(State::Failed);
    }
    print!("{table}");
    Ok(tally)
}

/// `cargo xtask demo`. Returns the demonstration's exit status.
pub(crate) fn demo(workspace: &Workspace, arguments: &JobArgs) -> anyhow::Result<i32> {
    let plan = Plan { mode: "demo".to_owned(), arguments: Vec::new() };
    run_mode(workspace, arguments.kernel.as_ref(), &plan, &arguments.machine)
}

/// `cargo xtask bench`. Returns the benchmark's exit status.
pub(crate) fn bench(workspace: &Workspace, arguments: &JobArgs) -> anyhow::Result<i32> {
    let plan = Plan { mode: "bench".to_owned(), arguments: Vec::new() };
    let mut machine = arguments.machine.clone();
    machine.programs.extend(["lsof", "strace"].into_iter().filter(|p| cmd::is_program(p)).map(str::to_owned));
    run_mode(workspace, arguments.kernel.as_ref(), &plan, &machine)
}

/// `cargo xtask sh`. Returns the command's exit status.
pub(crate) fn sh(workspace: &Workspace, arguments: &ShArgs) -> anyhow::Result<i32> {
    let plan = Plan { mode: "sh".to_owned(), arguments: arguments.command.clone() };
    let mut machine = arguments.machine.clone();
    if cmd::is_program("busybox") {
        machine.programs.push("busybox".to_owned());
    }
    run_mode(workspace, arguments.kernel.as_ref(), &plan, &machine)
}

/// Boots one kernel with `plan` and passes on what the guest writes.
fn run_mode(
    workspace: &Workspace,
    kernel: Option<&String>,
    plan: &Plan,
    machine: &MachineArgs,
) -> anyhow::Result<i32> {
    let kernel = kernels::select_one(kernel)?;
    let bootable = fetch::ensure(workspace, &[kernel])?.pop().context("no kernel")?;
    let programs = build_programs(workspace)?;
    let boot = boot(workspace, &bootable, &programs, plan, machine, &mut |event| match event {
        Event::Output { stream, text, .. } => show::pass_on(*stream, text),
        Event::Failure { detail } => eprintln!("guest: {}", show::visible(detail)),
        _ => {}
    })?;
    for problem in &boot.problems {
        eprintln!("{problem}");
    }
    Ok(boot.status().unwrap_or(1))
}

fn boot(
    workspace: &Workspace,
    bootable: &Bootable,
    programs: &Path,
    plan: &Plan,
    arguments: &MachineArgs,
    on_event: &mut dyn FnMut(&Event),
) -> anyhow::Result<Boot> {
    let mut initramfs = Initramfs::new(programs, plan, &bootable.modules)?;
    for program in &arguments.programs {
        initramfs.add_host_program(program)?;
    }
    let suffix = if plan.mode == "scenarios" { String::new() } else { format!("-{}", plan.mode) };
    let console = workspace.vm().join("logs").join(format!("{}{suffix}.console", bootable.id));
    qemu::boot(&arguments.machine(), &bootable.vmlinuz, &initramfs.finish(), &console, on_event)
}

/// Keeps everything that was reported, for people and programs that come later.
fn write_report(
    workspace: &Workspace,
    bootable: &Bootable,
    boot: &Boot,
    verdict: &Verdict,
) -> anyhow::Result<()> {
    let report = serde_json::json!({
        "kernel": bootable.id,
        "seconds": boot.took.as_secs_f64(),
        "verdict": verdict,
        "events": boot.events,
    });
    let path = workspace.vm().join(format!("report-{}.json", bootable.id));
    fs::write(&path, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("writing {}", path.display()))
}
