//! The benchmark: one world, and every way to read it, side by side.
//!
//! A [`world`] is made first. Every [`way`] runs once, not timed, to measure its memory and system
//! calls; its answer must be what was made. Then the ways run in turn for several rounds (`race`),
//! as commands and as scanners that stay (`warm`). So a disturbance of the machine affects all of
//! them. The [`figures`] go to the host as JSON, which prints them.
//!
//! Limits: the times of an emulated machine are good only for ratios. The world `native` is the
//! machine as it is. There nothing is made, so no answer can be compared with the truth.

pub mod figures;
mod race;
mod warm;
pub mod way;
pub mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, mount};

use figures::Results;
use way::{Asked, WAYS};
use world::{BenchWorld, NATIVE};

use crate::processes;
use crate::sys::measure::EventHooks;

/// Measures one world. The arguments are its name, the number of rounds, and the folder of the
/// programs. The figures go to standard output, and progress goes to standard error.
///
/// # Errors
///
/// The arguments are wrong, the world cannot be made, or a way's answer is not what was made.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [world, rounds, programs] = arguments else { bail!("usage: bench WORLD ROUNDS PROGRAMS") };
    let rounds: usize = rounds.parse().context("the number of rounds")?;
    let programs = PathBuf::from(programs);
    let made = if world == NATIVE { None } else { Some(BenchWorld::find(world)?) };
    let (description, expected) = match made {
        None => (world::describe_native()?, None),
        Some(made) => {
            // tracefs has the tracepoint that counts system calls. Without it the figure is
            // missing, with the reason.
            let _ = mount("tracefs", "/sys/kernel/tracing", "tracefs", MountFlags::empty(), None);
            (made.build()?, Some(made.references()))
        }
    };
    eprintln!("world {world}: {description}");
    let _hooks = EventHooks::scheduler();
    let asked: Vec<Asked> = {
        let _counted = EventHooks::tracepoint();
        WAYS.iter().map(|way| Asked::new(way, &programs, expected)).collect::<Result<_, _>>()?
    };
    let ways = race::race(&asked, rounds, &programs, expected)?;
    if made.is_some() {
        processes::kill_children();
    }
    let results = Results {
        world: world.clone(),
        description,
        references: expected,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        processors: std::thread::available_parallelism()?.get(),
        ways,
    };
    println!("{}", serde_json::to_string(&results)?);
    Ok(ExitCode::SUCCESS)
}
