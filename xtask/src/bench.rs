//! `cargo xtask bench`: times lsbuf with each of its sources, and other tools, in worlds of known
//! size and on this machine.
//!
//! Each world is made and measured in a guest of its own. This machine runs the same static
//! programs. The output is Markdown for `docs/performance.md`: the machine, two tables for each
//! world, and the figures that lsbuf is to reach.

mod tables;
mod targets;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use lsbuf_guest::bench::figures::Results;
use lsbuf_guest::bench::world::{NATIVE, WORLDS};
use lsbuf_guest::report::Plan;

use crate::cmd;
use crate::fetch;
use crate::host;
use crate::initramfs::{Programs, build_programs};
use crate::kernels;
use crate::vm::{self, MachineArgs};
use crate::workspace::Workspace;

/// Time lsbuf's sources and other tools side by side, in worlds of known size and on this machine;
/// prints Markdown. lsof is included if the host has it
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    /// World to measure in (repeatable); all of them if neither this nor --native is given
    #[arg(long, value_name = "WORLD", value_parser = PossibleValuesParser::new(names()))]
    world: Vec<String>,
    /// Measure on this machine, as this user: --world native
    #[arg(long)]
    native: bool,
    /// How often each variant is run; slow ones run less often
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Kernel to boot
    #[arg(long, value_name = "PATTERN", default_value = "7.2")]
    kernel: String,
    #[command(flatten)]
    machine: MachineArgs,
}

/// The time limit for one world in seconds, unless a longer one is given.
const LIMIT: u64 = 2 * 3600;

fn names() -> Vec<&'static str> {
    WORLDS.iter().map(|world| world.name).chain([NATIVE]).collect()
}

/// The worlds to measure, in the order of the table.
fn chosen(asked: &[String], native: bool) -> Vec<&'static str> {
    let mut chosen = names();
    if native || !asked.is_empty() {
        chosen.retain(|name| asked.iter().any(|asked| asked == name) || native && *name == NATIVE);
    }
    chosen
}

/// Measures all worlds and prints the results as they come.
pub(crate) fn bench(workspace: &Workspace, arguments: &BenchArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let worlds = chosen(&arguments.world, arguments.native);
    let arch = arguments.machine.arch;
    if worlds.contains(&NATIVE) && !arch.is_native() {
        bail!(cmd::Usage(format!("this machine is no {}: name a --world", arch.name())));
    }
    host::prepare_guest(arch)?;
    let programs = build_programs(workspace, arch, &["lsbuf-bench"])?;
    println!("{}", this_machine()?);
    let mut all = Vec::new();
    for world in worlds {
        let begun = Instant::now();
        let (results, machine) = if world == NATIVE {
            (native(&programs, arguments)?, "this machine".to_owned())
        } else {
            guest(workspace, &programs, arguments, world).with_context(|| format!("world {world}"))?
        };
        println!("{}", tables::of(&results, &machine, begun.elapsed()));
        all.push(results);
    }
    println!("{}", targets::summary(&all));
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
    let world = WORLDS.iter().find(|world| world.name == name).context("no such world")?;
    let mut machine = arguments.machine.clone();
    machine.memory = machine.memory.max(world.memory);
    machine.timeout = machine.timeout.max(LIMIT);
    if arguments.machine.arch.is_native() && cmd::is_program("lsof") {
        machine.programs.push("lsof".to_owned());
    }
    let kernel = kernels::select_one(arguments.machine.arch, Some(&arguments.kernel))?;
    let bootable = fetch::ensure(workspace, &[kernel])?.pop().context("no kernel")?;
    let words = [name.to_owned(), arguments.rounds.to_string(), "/bin".to_owned()];
    let plan = Plan { mode: "bench".to_owned(), arguments: words.into() };
    let text = vm::captured(workspace, &bootable, programs, &plan, &machine)?;
    let by = if machine.kvm { "KVM" } else { "emulation (TCG)" };
    Ok((read(&text)?, format!("a guest under {by} with {} MiB", machine.memory)))
}

/// Measures this machine as it is.
fn native(programs: &Programs, arguments: &BenchArgs) -> anyhow::Result<Results> {
    let mut command = Command::new(programs.folder.join("lsbuf-guest"));
    command.args(["bench", NATIVE, &arguments.rounds.to_string()]).arg(&programs.folder);
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
    use super::*;

    /// Check that all worlds are chosen if none is named, and else the named ones alone, in the
    /// table's order.
    #[test]
    fn worlds_are_chosen() {
        let asked = |names: &[&str], native| {
            chosen(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), native)
        };
        assert_eq!(asked(&[], false), names());
        assert_eq!(asked(&[], true), [NATIVE]);
        assert_eq!(asked(&["storm", "phone"], false), ["phone", "storm"]);
        assert_eq!(asked(&["phone"], true), ["phone", NATIVE]);
    }
}
