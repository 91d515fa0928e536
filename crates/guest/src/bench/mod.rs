//! The benchmark: one world, and every way to ask about it side by side.
//!
//! A [`world`] is made first and every [`way`] is asked once, under watch, for its memory and system calls; what it answers
//! must be what was made. Then the ways are run in turn, several times over (`race`), as commands and as scanners that
//! are kept (`warm`), so that whatever disturbs the machine disturbs all of them.
//! The [`figures`] go to the host as JSON; it prints them.
//!
//! Limits: an emulated machine's times are good for ratios only. On a developer's machine nothing is made, so nothing can
//! be compared with what is true.

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
use world::{NATIVE, World};

use crate::processes;
use crate::sys::measure::Hold;

/// Measures one world: its name, the number of rounds, and the folder of the programs. Figures go to standard output, what
/// is being done to standard error.
///
/// # Errors
///
/// The arguments are wrong, the world cannot be made, or a way sees another one.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [world, rounds, programs] = arguments else { bail!("usage: bench WORLD ROUNDS PROGRAMS") };
    let rounds: usize = rounds.parse().context("the number of rounds")?;
    let programs = PathBuf::from(programs);
    let made = if world == NATIVE { None } else { Some(World::find(world)?) };
    let (description, expected) = match made {
        None => (world::describe_native()?, None),
        Some(made) => {
            // Where system calls are counted by. Without it they are missing, and said to be.
            let _ = mount("tracefs", "/sys/kernel/tracing", "tracefs", MountFlags::empty(), None);
            (made.build()?, Some(made.references()))
        }
    };
    eprintln!("world {world}: {description}");
    let _hooks = Hold::scheduler();
    let asked: Vec<Asked> = {
        let _counted = Hold::tracepoint();
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
