//! The benchmark: one world, and every way to read it, side by side.
//!
//! A [`world`] is made first. Every [`way`] runs once, not timed, to measure its memory and system
//! calls; its answer must be what was made. Then the ways run in turn for several rounds (`race`),
//! as commands and as scanners that stay (`warm`). So a disturbance of the machine affects all of
//! them. The [`figures`] go to the host as JSON, which prints them.
//!
//! Worlds of dma-bufs are made in a guest. Worlds of shared memory ([`shared`]) can also be made on
//! a machine in use, by processes that end with this one. What is mounted or pinned for them is in
//! a mount namespace that ends with it, too.
//!
//! Limits: the times of an emulated machine are good only for ratios. The world `native` is the
//! machine as it is. There nothing is made, so no answer can be compared with the truth.

pub mod figures;
mod race;
pub mod shared;
mod warm;
pub mod way;
pub mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, geteuid, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

use figures::{References, Results};
use shared::{SHARED_WORLDS, UNHELD};
use way::{Asked, BenchPins, Setting};
use world::{BenchWorld, NATIVE};

use crate::processes;
use crate::sys::measure::EventHooks;
use crate::sys::task;

/// Measures one world. The arguments are its name, the number of rounds, the folder of the
/// programs, and an empty folder that belongs to the benchmark. The figures go to standard output,
/// and progress goes to standard error.
///
/// # Errors
///
/// The arguments are wrong, the world cannot be made, or a scan finds something else than was made.
pub fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [world, rounds, programs, folder] = arguments else {
        bail!("usage: bench WORLD ROUNDS PROGRAMS FOLDER")
    };
    let rounds: usize = rounds.parse().context("the number of rounds")?;
    let (programs, folder) = (PathBuf::from(programs), PathBuf::from(folder));
    let made = measured(world, rounds, programs, folder);
    // Also if something failed: the processes of a world take much memory.
    processes::kill_children();
    println!("{}", serde_json::to_string(&made?)?);
    Ok(ExitCode::SUCCESS)
}

/// Makes a world and measures it.
fn measured(world: &str, rounds: usize, programs: PathBuf, folder: PathBuf) -> anyhow::Result<Results> {
    let is_shared = world == UNHELD || SHARED_WORLDS.iter().any(|shared| shared.name == world);
    if is_shared || world == NATIVE {
        set_parent_process_death_signal(Some(Signal::KILL)).context("asking to end with the parent")?;
    }
    let found = if [NATIVE, UNHELD].contains(&world) { None } else { Some(BenchWorld::find(world)?) };
    if is_shared && let Some(why) = shared::shortage(found)? {
        return Ok(results(world, why.clone(), None, Vec::new(), Some(why)));
    }
    if (is_shared || world == NATIVE) && geteuid().is_root() {
        mounts_of_its_own()?;
    }
    // Only in a guest, because it records what the whole machine does.
    let is_guests = !is_shared && world != NATIVE;
    let _recorder = is_guests.then(|| BenchPins::record(&programs, &folder));
    // tracefs has the tracepoint that counts system calls. Without it the figure is missing, with
    // the reason.
    let _ = mount("tracefs", "/sys/kernel/tracing", "tracefs", MountFlags::empty(), None);
    let (description, setting) = if world == NATIVE {
        let description = format!("this machine as it is: {}", world::describe_machine()?);
        (description, Setting::of_dma_bufs(programs, folder, None))
    } else if let Some(found) = found {
        let expected = found.references();
        let before = if is_shared { beside()? } else { String::new() };
        // Another benchmark on this machine has memfds, too.
        let name = format!("lsbuf-{}-benchmark", std::process::id());
        let description = found.build(&folder, &name)? + &before;
        let setting = if is_shared {
            Setting::of_memfds(programs, folder, expected, &name)
        } else {
            Setting::of_dma_bufs(programs, folder, Some(expected))
        };
        (description, setting)
    } else {
        let setting = Setting::of_unheld(programs, folder);
        (shared::make_unheld(&setting.files(), shared::FILES)? + &beside()?, setting)
    };
    eprintln!("world {world}: {description}");
    let _hooks = EventHooks::scheduler();
    let _pins = BenchPins::install(&setting);
    let asked: Vec<Asked<'_>> = {
        let _counted = EventHooks::tracepoint();
        setting.ways.iter().map(|way| Asked::new(way, &setting)).collect::<Result<_, _>>()?
    };
    let ways = race::race(&asked, rounds)?;
    Ok(results(world, description, setting.expected, ways, None))
}

/// What every way also reads on a machine that does other things, too.
fn beside() -> anyhow::Result<String> {
    Ok(format!("; beside it the machine has {}", world::describe_machine()?))
}

/// Enters a mount namespace whose mounts nobody else sees. They are gone when the last process in
/// it has ended.
fn mounts_of_its_own() -> anyhow::Result<()> {
    task::enter_new(UnshareFlags::NEWNS).context("entering a mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(Path::new("/"), private).context("making mounts private")
}

fn results(
    world: &str,
    description: String,
    references: Option<References>,
    ways: Vec<figures::WayResults>,
    not_made: Option<String>,
) -> Results {
    Results {
        world: world.to_owned(),
        description,
        references,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        ways,
        not_made,
    }
}
