//! `cargo xtask vm`, `demo`, `soak`, `differential` and `sh`: commands that boot kernels.

use std::cmp::Reverse;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Args;
use lsbuf_guest::need::UTIL_LINUX;
use lsbuf_guest::report::{Event, Plan, Stream};
use lsbuf_guest::scenarios::check::CONTRACT;
use lsbuf_guest::soak::LISTS_MODE;
use lsbuf_guest::{demo, scenario, suite};

use crate::arch::Arch;
use crate::cmd::{self, Usage};
use crate::coverage::{self, Share};
use crate::fetch::{self, Bootable};
use crate::host;
use crate::initramfs::{Initramfs, Programs, build_programs};
use crate::kernels;
use crate::matrix;
use crate::points::Points;
use crate::qemu::{self, Boot, GuestClock, Machine};
use crate::show;
use crate::verdict::{self, Expectation, State, Verdict};
use crate::workspace::Workspace;

/// The machine that a guest gets.
#[derive(Args, Clone, Debug)]
pub(crate) struct MachineArgs {
    /// Architecture of the guest
    #[arg(long, value_enum, default_value_t)]
    pub(crate) arch: Arch,
    /// Use KVM instead of emulation
    #[arg(long)]
    pub(crate) kvm: bool,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    pub(crate) memory: u32,
    /// Number of processors
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) processors: u32,
    /// Time limit of one boot in seconds
    #[arg(long, default_value_t = 1200)]
    pub(crate) timeout: u64,
    /// Copy this program of the host into the guest's /bin, with its libraries (repeatable)
    #[arg(long = "with", value_name = "PROGRAM")]
    pub(crate) programs: Vec<String>,
    /// What drives the guest's clock.
    #[arg(skip)]
    pub(crate) clock: GuestClock,
    /// More words for the guest's kernel.
    #[arg(skip)]
    pub(crate) words: Vec<&'static str>,
}

impl MachineArgs {
    fn machine(&self) -> Machine {
        let timeout = Duration::from_secs(self.timeout);
        Machine {
            arch: self.arch,
            kvm: self.kvm,
            memory: self.memory,
            processors: self.processors,
            timeout,
            clock: self.clock,
            words: self.words.clone(),
        }
    }
}

/// Run the scenarios in real kernels
#[derive(Args, Clone, Debug)]
pub(crate) struct VmArgs {
    /// Kernel to boot, or a pattern like '6.*' (repeatable)
    #[arg(long, value_name = "PATTERN")]
    kernel: Vec<String>,
    /// Run every scenario on every kernel of the table, also one that is not a default. Without
    /// this, and without names, each scenario runs on those default kernels that its claim needs
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Boot this kernel image instead of one of the table; any scenario may be skipped then
    #[arg(long, value_name = "VMLINUZ", conflicts_with_all = ["kernel", "all"])]
    image: Option<PathBuf>,
    /// Folder with the modules of that image
    #[arg(long, value_name = "DIR", requires = "image")]
    modules: Option<PathBuf>,
    /// List kernels and scenarios; boot nothing
    #[arg(long)]
    list: bool,
    /// How many kernels to boot at once; default: the number of processors. Each kernel's output is
    /// printed when it is done, or with 1 as it runs
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Print every comparison
    #[arg(long)]
    checks: bool,
    /// Print the output of scenarios
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    machine: MachineArgs,
    /// Scenarios to run; all of them if none is named
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
}

impl VmArgs {
    /// Whether this is all scenarios on the default kernels: then each scenario runs where its
    /// claim needs it. What was asked for by name runs on every kernel asked for.
    fn is_whole(&self) -> bool {
        self.kernel.is_empty() && !self.all && self.image.is_none() && self.scenarios.is_empty()
    }

    /// The default kernels with all scenarios.
    pub(crate) fn everything() -> Self {
        let machine = MachineArgs {
            arch: Arch::default(),
            kvm: false,
            memory: 1024,
            processors: 2,
            timeout: 2400,
            programs: Vec::new(),
            clock: GuestClock::default(),
            words: Vec::new(),
        };
        Self {
            kernel: Vec::new(),
            all: false,
            image: None,
            modules: None,
            list: false,
            jobs: None,
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
    /// Kernel to boot; the newest default one if not given
    #[arg(long, value_name = "PATTERN")]
    kernel: Option<String>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Run the demo in one kernel, or run a command line in the demo's world
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    job: JobArgs,
    /// Command line to run in the demo's world, such as 'lsbuf doctor'
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Let lsbuf scan a world that changes at random, in one kernel, and check every answer
#[derive(Args, Clone, Debug)]
pub(crate) struct SoakArgs {
    /// Duration in minutes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Seed of the random steps; taken from the clock if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Let objects come and go as fast as they can, amid stable ones that must be in every answer;
    /// only for soak
    #[arg(long, conflicts_with = "seed")]
    lists: bool,
    #[command(flatten)]
    job: JobArgs,
}

/// Run a command line in a kernel, with busybox's shell if the host has busybox
#[derive(Args, Clone, Debug)]
pub(crate) struct ShArgs {
    /// Kernel to boot; the newest default one if not given
    #[arg(long, value_name = "PATTERN")]
    kernel: Option<String>,
    #[command(flatten)]
    machine: MachineArgs,
    /// Command line; several words are joined with spaces
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Numbers for a summary over several boots.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) skipped: usize,
    pub(crate) left_out: usize,
    pub(crate) failed: usize,
}

/// `cargo xtask vm`.
pub(crate) fn vm(workspace: &Workspace, arguments: &VmArgs) -> anyhow::Result<Tally> {
    let selected = suite::select(&arguments.scenarios).map_err(|error| Usage(error.to_string()))?;
    let arch = arguments.machine.arch;
    let kernels = kernels::select(arch, &arguments.kernel, arguments.all)?;
    if arguments.list {
        show::list(workspace, &selected)?;
        return Ok(Tally::default());
    }
    host::prepare_guest(arch)?;
    let bootables = match &arguments.image {
        Some(image) => vec![fetch::own(image, arguments.modules.as_deref(), &["vgem".to_owned()])?],
        None => fetch::ensure(workspace, &kernels)?,
    };
    let programs = build_programs(workspace, arch, &[])?;
    let runs = scenario::runs(&selected);
    let shares = coverage::shares(&runs, &bootables, arguments.is_whole());
    let checked = selected.iter().any(|scenario| scenario.name == CONTRACT);
    let all = kernels::points()?;
    let expected = |bootable: &Bootable, share: &Share| Expectation {
        runs: share.selected(&runs),
        lacks: bootable.lacks.clone(),
        points: checked.then(|| Points { all: all.clone(), contract: bootable.contract.clone() }),
    };
    let jobs = arguments.jobs.map_or_else(|| matrix::at_once(bootables.len()), usize::from);
    if jobs > 1 {
        println!("{} kernels, {jobs} at once; each is printed when it is done", bootables.len());
    }
    let mut order: Vec<(usize, &Bootable, &Share)> = Vec::new();
    order.extend(
        bootables.iter().zip(&shares).enumerate().map(|(place, (kernel, share))| (place, kernel, share)),
    );
    // The longest first, so that the last one is short and no processor idles for long.
    order.sort_by_key(|(_, _, share)| Reverse(share.able()));
    let machine = with_util_linux(&arguments.machine);
    let boots = matrix::each(&order, jobs, &mut show::now, |(_, bootable, share), say| {
        say(&format!("== kernel {}\n", bootable.id));
        let plan = Plan { mode: "scenarios".to_owned(), arguments: share.names(&runs) };
        let boot = boot(workspace, bootable, &programs, &plan, &machine, &mut |event| {
            say(&show::event(event, arguments.checks, arguments.verbose));
        })?;
        let verdict = verdict::judge(&expected(bootable, share), &boot.events, &boot.problems);
        write_report(workspace, bootable, &boot, &verdict)?;
        say(&show::failures(&verdict));
        anyhow::Ok((verdict, boot.took))
    });
    let mut tally = Tally::default();
    let mut table = show::heading();
    // Said again at the end, because the output of six boots is long.
    let mut failures = String::new();
    let mut done: Vec<_> = order.iter().zip(boots).collect();
    done.sort_by_key(|((place, ..), _)| *place);
    for ((_, bootable, _), boot) in done {
        let (verdict, took) = boot.with_context(|| format!("kernel {}", bootable.id))?;
        table.push_str(&show::row(&bootable.id, &verdict, took));
        let wrong = show::failures(&verdict);
        if !wrong.is_empty() {
            failures.push_str(&format!("kernel {}\n{wrong}", bootable.id));
        }
        tally.passed += verdict.count(State::Passed);
        tally.skipped += verdict.count(State::ExpectedSkip);
        tally.left_out += verdict.count(State::LeftOut);
        tally.failed += verdict.count(State::Failed);
    }
    print!("{table}{failures}");
    let (report, log) = (report_path(workspace, "KERNEL"), log_path(workspace, "KERNEL"));
    println!("every check: {}; console: {}", report.display(), log.display());
    Ok(tally)
}

/// `cargo xtask demo`. Returns the demonstration's exit status.
pub(crate) fn demo(workspace: &Workspace, arguments: &DemoArgs) -> anyhow::Result<i32> {
    let job = &arguments.job;
    kernels::require(&kernels::select_one(job.machine.arch, job.kernel.as_ref())?, "the demo", demo::NEEDS)?;
    let plan = Plan { mode: "demo".to_owned(), arguments: arguments.command.clone() };
    let machine = if arguments.command.is_empty() { job.machine.clone() } else { with_shell(&job.machine) };
    run_mode(workspace, job.kernel.as_ref(), &plan, &machine)
}

/// `cargo xtask soak` and `cargo xtask differential`, by the name of the guest's mode. Returns its
/// exit status.
pub(crate) fn soak(workspace: &Workspace, mode: &str, arguments: &SoakArgs) -> anyhow::Result<i32> {
    let seconds = arguments.minutes * 60;
    let by_clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seed = arguments.seed.unwrap_or_else(by_clock);
    let (mode, mut words) =
        if arguments.lists { (LISTS_MODE, vec![]) } else { (mode, vec![seed.to_string()]) };
    words.insert(0, seconds.to_string());
    let plan = Plan { mode: mode.to_owned(), arguments: words };
    let mut machine = arguments.job.machine.clone();
    // The limit of other boots is for what surrounds the soak.
    machine.timeout += seconds;
    run_mode(workspace, arguments.job.kernel.as_ref(), &plan, &machine)
}

/// `cargo xtask sh`. Returns the command's exit status.
pub(crate) fn sh(workspace: &Workspace, arguments: &ShArgs) -> anyhow::Result<i32> {
    let plan = Plan { mode: "sh".to_owned(), arguments: arguments.command.clone() };
    run_mode(workspace, arguments.kernel.as_ref(), &plan, &with_shell(&arguments.machine))
}

/// The same machine with the host's busybox, if it has one that runs there.
fn with_shell(machine: &MachineArgs) -> MachineArgs {
    let mut machine = machine.clone();
    if machine.arch.is_native() && cmd::is_program("busybox") {
        machine.programs.push("busybox".to_owned());
    }
    machine
}

/// The same machine with the host's programs for command lines of lsbuf, if they run there.
fn with_util_linux(machine: &MachineArgs) -> MachineArgs {
    let mut machine = machine.clone();
    if machine.arch.is_native() && UTIL_LINUX.iter().all(|name| cmd::is_program(name)) {
        let more = UTIL_LINUX.iter().map(|&name| name.to_owned());
        machine.programs.extend(more);
    }
    machine
}

/// Boots one kernel with `plan` and passes on what the guest writes.
fn run_mode(
    workspace: &Workspace,
    kernel: Option<&String>,
    plan: &Plan,
    machine: &MachineArgs,
) -> anyhow::Result<i32> {
    let kernel = kernels::select_one(machine.arch, kernel)?;
    host::prepare_guest(machine.arch)?;
    let bootable = fetch::ensure(workspace, &[kernel])?.pop().context("no kernel")?;
    let programs = build_programs(workspace, machine.arch, &[])?;
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

/// Boots one kernel with `plan` and returns what its mode writes to standard output, which must end
/// well. What it writes to standard error is passed on.
pub(crate) fn captured(
    workspace: &Workspace,
    bootable: &Bootable,
    programs: &Programs,
    plan: &Plan,
    machine: &MachineArgs,
) -> anyhow::Result<String> {
    let mut text = String::new();
    let boot = boot(workspace, bootable, programs, plan, machine, &mut |event| match event {
        Event::Output { stream: Stream::Stdout, text: more, .. } => text.push_str(more),
        Event::Output { stream: Stream::Stderr, text, .. } => show::pass_on(Stream::Stderr, text),
        Event::Failure { detail } => eprintln!("guest: {}", show::visible(detail)),
        Event::Hello { .. }
        | Event::Check { .. }
        | Event::Point { .. }
        | Event::Scenario { .. }
        | Event::Done { .. } => {}
    })?;
    for problem in &boot.problems {
        eprintln!("{problem}");
    }
    if boot.status() != Some(0) || !boot.problems.is_empty() {
        bail!("kernel {}: {} failed", bootable.id, plan.mode);
    }
    Ok(text)
}

/// Boots one kernel with `plan` and hands each event on as it comes.
pub(crate) fn boot(
    workspace: &Workspace,
    bootable: &Bootable,
    programs: &Programs,
    plan: &Plan,
    arguments: &MachineArgs,
    on_event: &mut dyn FnMut(&Event),
) -> anyhow::Result<Boot> {
    let mut initramfs = Initramfs::new(programs, plan, &bootable.modules)?;
    for program in &arguments.programs {
        initramfs.add_host_program(program)?;
    }
    let suffix = if plan.mode == "scenarios" { String::new() } else { format!("-{}", plan.mode) };
    let console = log_path(workspace, &format!("{}{suffix}", bootable.id));
    let (machine, image) = (arguments.machine(), initramfs.finish());
    let first = qemu::boot(&machine, &bootable.vmlinuz, &image, &console, on_event)?;
    if !first.is_emulators_fault() {
        return Ok(first);
    }
    println!(
        "kernel {}: the emulator broke the boot ({}); once again",
        bootable.id,
        first.problems.join("; ")
    );
    qemu::boot(&machine, &bootable.vmlinuz, &image, &console, on_event)
}

/// Where the kernel's messages of that boot go.
fn log_path(workspace: &Workspace, boot: &str) -> PathBuf {
    workspace.vm().join("logs").join(format!("{boot}.console"))
}

/// Where the report of that kernel goes.
fn report_path(workspace: &Workspace, kernel: &str) -> PathBuf {
    workspace.vm().join(format!("report-{kernel}.json"))
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
    let path = report_path(workspace, &bootable.id);
    fs::write(&path, serde_json::to_vec_pretty(&report)?)
        .with_context(|| format!("writing {}", path.display()))
}
