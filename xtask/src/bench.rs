//! `cargo xtask bench`: times lsbuf with each of its sources, and other tools, in worlds of known
//! size and on this machine.
//!
//! A world of dma-bufs is made and measured in a guest of its own. Worlds of shared memory are made
//! on this machine, which runs the same static programs; or in a guest, if instructions are
//! counted. The output is Markdown for `docs/performance-tables.md`: the machine, the tables of
//! each world, and the figures that lsbuf is to reach.

mod plot;
mod tables;
mod targets;
mod tools;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use lsbuf_guest::bench::figures::Results;
use lsbuf_guest::bench::shared::{RESERVE, SHARED_WORLDS, SWEEP, UNHELD};
use lsbuf_guest::bench::world::{BenchWorld, NATIVE, WORLDS};
use lsbuf_guest::report::Plan;

use crate::cmd;
use crate::fetch;
use crate::host;
use crate::initramfs::{Programs, build_programs};
use crate::kernels;
use crate::qemu::GuestClock;
use crate::vm::{self, MachineArgs};
use crate::workspace::Workspace;

/// Time lsbuf's sources and other tools side by side, in worlds of known size and on this machine;
/// prints Markdown. lsof and lsfd are included if the host has them
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// World to measure in (repeatable). If nothing is chosen: all worlds of dma-bufs and this
    /// machine as it is; with --instructions: phone and desktop
    #[arg(long, value_name = "WORLD", value_parser = PossibleValuesParser::new(names()))]
    world: Vec<String>,
    /// Measure on this machine as it is, as this user: --world native
    #[arg(long)]
    native: bool,
    /// Measure all worlds of memfds and tmpfs files, made on this machine by root. One for which
    /// there is too little room is left out
    #[arg(long)]
    memfds: bool,
    /// Write how the cost of memfds grows with their references to this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Count instructions instead of time. The guest's clock is the number of instructions that it
    /// has executed, so figures repeat whatever else this machine does
    #[arg(long, conflicts_with_all = ["native", "memfds", "kvm"])]
    instructions: bool,
    /// How often each variant is run; slow ones run less often. Default: 15, with --instructions 3,
    /// with --memfds 5
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Kernel to boot
    #[arg(long, value_name = "PATTERN", default_value = "7.2")]
    kernel: String,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Words for the kernels of the benchmark's guests. Without `norandmaps` every start of a program
/// relocates it to another address, and the emulator translates its code anew: more than all else
/// that a start costs.
const WORDS: &[&str] = &["norandmaps"];

/// Programs of this machine that a guest gets if they are there.
const HOST_PROGRAMS: &[&str] = &["lsof", "lsfd"];

/// MiB that a guest's kernel and its programs take.
const OWN_MEMORY: u32 = 512;

/// The worlds of a count of instructions where none is named.
const COUNTED: &[&str] = &["phone", "desktop"];

/// The time limit for one world in seconds, unless a longer one is given.
const LIMIT: u64 = 2 * 3600;

/// The folder that the benchmark has in a guest.
const GUEST_FOLDER: &str = "/tmp/bench";

/// The worlds that are made in guests.
fn of_guests() -> impl Iterator<Item = &'static str> {
    WORLDS.iter().map(|world| world.name)
}

/// The worlds that are made on this machine.
fn of_shared_memory() -> impl Iterator<Item = &'static str> {
    SHARED_WORLDS.iter().map(|world| world.name).chain([UNHELD])
}

fn names() -> Vec<&'static str> {
    of_guests().chain([NATIVE]).chain(of_shared_memory()).collect()
}

impl BenchArgs {
    /// The worlds to measure, in the order of the table.
    fn chosen(&self) -> Vec<&'static str> {
        let mut chosen = names();
        if self.world.is_empty() && !self.native && !self.memfds {
            chosen.retain(|name| match self.instructions {
                true => COUNTED.contains(name),
                false => *name == NATIVE || of_guests().any(|guest| guest == *name),
            });
            return chosen;
        }
        let of_memfds: Vec<&str> = of_shared_memory().collect();
        chosen.retain(|name| {
            self.world.iter().any(|asked| asked == name)
                || self.native && *name == NATIVE
                || self.memfds && of_memfds.contains(name)
        });
        chosen
    }

    /// Whether a world is made in a guest. Those of memfds are if instructions are counted.
    fn has_guest(&self, world: &str) -> bool {
        of_guests().any(|guest| guest == world)
            || self.instructions && SHARED_WORLDS.iter().any(|shared| shared.name == world)
    }

    fn rounds(&self) -> String {
        let default = match self {
            BenchArgs { instructions: true, .. } => 3,
            BenchArgs { memfds: true, .. } => 5,
            _ => 15,
        };
        self.rounds.unwrap_or(default).to_string()
    }
}

/// Measures all worlds and prints the results as they come.
pub(crate) fn bench(workspace: &Workspace, arguments: &BenchArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let worlds = arguments.chosen();
    let arch = arguments.machine.arch;
    let here = worlds.iter().find(|world| !arguments.has_guest(world));
    if let Some(here) = here {
        if !arch.is_native() {
            bail!(cmd::Usage(format!("{here} is on this machine, which is no {}", arch.name())));
        }
        if arguments.instructions {
            bail!(cmd::Usage(format!("{here} is on this machine, where instructions are not counted")));
        }
    }
    host::prepare_guest(arch)?;
    let programs = build_programs(workspace, arch, &["lsbuf-bench"])?;
    println!("{}", this_machine()?);
    let unit = if arguments.instructions { tables::Unit::Instructions } else { tables::Unit::Milliseconds };
    let mut all = Vec::new();
    for &world in &worlds {
        let begun = Instant::now();
        let (results, machine) = if arguments.has_guest(world) {
            guest(workspace, &programs, arguments, world).with_context(|| format!("world {world}"))?
        } else {
            let results = on_this_machine(workspace, &programs, arguments, world);
            (results.with_context(|| format!("world {world}"))?, "this machine".to_owned())
        };
        println!("{}", tables::of(&results, &machine, begun.elapsed(), unit));
        all.push(results);
    }
    let judged: Vec<&str> = of_guests().chain([NATIVE]).collect();
    if worlds.iter().any(|world| judged.contains(world)) {
        println!("{}", targets::summary(&all));
    }
    if let Some(file) = &arguments.plot {
        all.retain(|results| SWEEP.contains(&results.world.as_str()));
        let svg = plot::of(&all).context("too few worlds were made for a plot")?;
        fs::write(file, svg).with_context(|| format!("writing {}", file.display()))?;
    }
    println!("The whole run took {:.0} s.", started.elapsed().as_secs_f64());
    Ok(())
}

/// Measures one world in a guest. Returns the results and a description of the guest.
fn guest(
    workspace: &Workspace,
    programs: &Programs,
    arguments: &BenchArgs,
    name: &str,
) -> anyhow::Result<(Results, String)> {
    let world = BenchWorld::find(name)?;
    let mut machine = arguments.machine.clone();
    let is_shared = SHARED_WORLDS.iter().any(|shared| shared.name == name);
    let needed = if is_shared { world.memory + RESERVE + OWN_MEMORY } else { world.memory };
    machine.memory = machine.memory.max(needed);
    machine.timeout = machine.timeout.max(LIMIT);
    machine.words.extend(WORDS);
    if arguments.instructions {
        machine.clock = GuestClock::Instructions;
        machine.processors = 1;
    }
    if arguments.machine.arch.is_native() {
        let there = HOST_PROGRAMS.iter().filter(|program| cmd::is_program(program));
        machine.programs.extend(there.map(|&program| program.to_owned()));
    }
    let kernel = kernels::select_one(arguments.machine.arch, Some(&arguments.kernel))?;
    let bootable = fetch::ensure(workspace, &[kernel])?.pop().context("no kernel")?;
    let words = [name.to_owned(), arguments.rounds(), "/bin".to_owned(), GUEST_FOLDER.to_owned()];
    let plan = Plan { mode: "bench".to_owned(), arguments: words.into() };
    let text = vm::captured(workspace, &bootable, programs, &plan, &machine)?;
    let by = match machine {
        MachineArgs { kvm: true, .. } => "KVM",
        MachineArgs { clock: GuestClock::Instructions, .. } => "emulation (TCG, a clock of instructions)",
        _ => "emulation (TCG)",
    };
    Ok((read(&text)?, format!("a guest under {by} with {} MiB", machine.memory)))
}

/// A folder for one world on this machine. It is removed when this goes.
struct BenchFolder(PathBuf);

impl BenchFolder {
    fn make(workspace: &Workspace) -> anyhow::Result<BenchFolder> {
        let path = workspace.target.join("bench").join(std::process::id().to_string());
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(BenchFolder(path))
    }
}

impl Drop for BenchFolder {
    fn drop(&mut self) {
        if let Err(why) = fs::remove_dir_all(&self.0) {
            eprintln!("removing {}: {why}", self.0.display());
        }
    }
}

/// Measures a world that is made on this machine, or the machine as it is.
fn on_this_machine(
    workspace: &Workspace,
    programs: &Programs,
    arguments: &BenchArgs,
    world: &str,
) -> anyhow::Result<Results> {
    let folder = BenchFolder::make(workspace)?;
    let mut command = Command::new(programs.folder.join("lsbuf-guest"));
    command.args(["bench", world, &arguments.rounds()]).arg(&programs.folder).arg(&folder.0);
    if world != NATIVE {
        command.env("PATH", tools::search_path(workspace)?);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("starting the benchmark")?;
    if !output.status.success() {
        bail!("the benchmark failed ({})", output.status);
    }
    read(&String::from_utf8_lossy(&output.stdout))
}

fn read(text: &str) -> anyhow::Result<Results> {
    serde_json::from_str(text).context("parsing the benchmark's results")
}

/// A line that describes this machine.
fn this_machine() -> anyhow::Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let (cpu, memory) = (read("/proc/cpuinfo")?, read("/proc/meminfo")?);
    let value = |text: &str, key: &str| -> Option<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
    };
    let model = value(&cpu, "model name").unwrap_or_else(|| "unknown CPU".to_owned());
    let memory = value(&memory, "MemTotal").unwrap_or_else(|| "unknown".to_owned());
    let processors = std::thread::available_parallelism()?;
    let kernel = read("/proc/sys/kernel/osrelease")?;
    Ok(format!("Machine: {model}, {processors} processors, {memory} of memory, Linux {}.\n", kernel.trim()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Parsed {
        #[command(flatten)]
        arguments: BenchArgs,
    }

    fn parsed(words: &[&str]) -> BenchArgs {
        Parsed::try_parse_from(["bench"].iter().chain(words)).unwrap().arguments
    }

    /// Check that the usual worlds are chosen if none is named, and else the named ones alone, in
    /// the table's order.
    #[test]
    fn worlds_are_chosen() {
        let asked = |words: &[&str]| parsed(words).chosen();
        let usual: Vec<&str> = of_guests().chain([NATIVE]).collect();
        assert_eq!(asked(&[]), usual);
        assert_eq!(asked(&["--native"]), [NATIVE]);
        assert_eq!(asked(&["--world", "storm", "--world", "phone"]), ["phone", "storm"]);
        assert_eq!(asked(&["--world", "phone", "--native"]), ["phone", NATIVE]);
        assert_eq!(asked(&["--instructions"]), ["phone", "desktop"]);
        assert_eq!(asked(&["--memfds"]), of_shared_memory().collect::<Vec<_>>());
        assert_eq!(asked(&["--world", UNHELD, "--native"]), [NATIVE, UNHELD]);
    }

    /// Check that memfds are made in a guest only where instructions are counted.
    #[test]
    fn memfds_have_guests() {
        let memfds = ["--world", "memfd-1k"];
        assert!(!parsed(&memfds).has_guest("memfd-1k"));
        assert!(parsed(&[&memfds[..], &["--instructions"]].concat()).has_guest("memfd-1k"));
        assert!(parsed(&[]).has_guest("phone") && !parsed(&["--instructions"]).has_guest(NATIVE));
    }

    /// Check that each sort of run has its number of rounds, unless one is given.
    #[test]
    fn rounds_have_defaults() {
        let rounds = |words: &[&str]| parsed(words).rounds();
        assert_eq!([rounds(&[]), rounds(&["--instructions"]), rounds(&["--memfds"])], ["15", "3", "5"]);
        assert_eq!(rounds(&["--instructions", "--rounds", "2"]), "2");
    }

    /// Check that every world of the plot is one that is made on this machine.
    #[test]
    fn the_plot_has_worlds() {
        assert!(SWEEP.iter().all(|name| of_shared_memory().any(|world| world == *name)));
    }
}
