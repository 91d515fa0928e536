//! The worlds of shared memory, which can be made on a machine in use: memfds among mappings and
//! fds that belong to no buffer, and files of a tmpfs that nobody holds.
//!
//! A world is made only if the machine has room for it.
//!
//! Limits: lsbuf and the other tools also read what else the machine has. Only the memfds of the
//! world are compared with what was made.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use super::world::{BenchWorld, Content};
use crate::sys;

/// The world of files that nobody holds.
pub const UNHELD: &str = "unheld";
/// How many files it has.
pub(super) const FILES: usize = 1_000_000;
/// How many of them are in one folder.
const FILES_OF_A_FOLDER: usize = 1000;
/// MiB that its inodes and names take, as estimated.
const UNHELD_MEMORY: u32 = 1500;
/// MiB that must remain for everything else that the machine does, and for the tools that are
/// measured.
pub const RESERVE: u32 = 3 << 10;

/// All worlds of memfds. `memory` is what the world itself takes, as estimated from the sizes of
/// the kernel's objects.
pub const SHARED_WORLDS: &[BenchWorld] = &[
    BenchWorld { name: "memfd-100", buffers: 10, fds: 50, ..MEMFDS },
    BenchWorld { name: "memfd-1k", buffers: 100, fds: 150, ..MEMFDS },
    BenchWorld { name: "memfd-10k", buffers: 1000, fds: 1050, ..MEMFDS },
    MEMFDS,
    BenchWorld { name: "memfd-1m", processes: 100, holders: 100, ..MEMFDS },
    BenchWorld {
        name: "memfd-one",
        memory: 800,
        processes: 1,
        buffers: 100_000,
        holders: 1,
        fds: 100_050,
        ..MEMFDS
    },
    BenchWorld {
        name: "other-fds",
        memory: 2500,
        processes: 75,
        buffers: 100,
        holders: 3,
        fds: 16_000,
        ..MEMFDS
    },
    MANY_VMAS,
    BenchWorld { name: "many-vmas10", memory: 3500, vmas: 10 * MANY_VMAS.vmas, ..MANY_VMAS },
];

/// The worlds that differ only in the number of references, for the plot of how cost grows.
pub const SWEEP: &[&str] = &["memfd-100", "memfd-1k", "memfd-10k", "memfd-100k", "memfd-1m"];

const MEMFDS: BenchWorld = BenchWorld {
    name: "memfd-100k",
    memory: 300,
    of: Content::Memfds,
    processes: 10,
    buffers: 10_000,
    holders: 10,
    mapped: false,
    compositor: None,
    fds: 10_050,
    vmas: 0,
};

const MANY_VMAS: BenchWorld = BenchWorld {
    name: "many-vmas",
    memory: 800,
    processes: 400,
    buffers: 1000,
    holders: 3,
    mapped: true,
    fds: 50,
    vmas: 2000,
    ..MEMFDS
};

/// What a machine has of what a world needs.
#[derive(Clone, Copy, Debug)]
struct Room {
    root: bool,
    /// How many fds a process may have.
    fds_of_a_process: u64,
    /// How many more files can be open: `fs.file-max` less those that are open.
    files: u64,
    /// MiB that are available.
    memory: u64,
}

impl Room {
    fn of_this_machine() -> anyhow::Result<Room> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| format!("reading {path}"));
        let numbers = |text: String| -> Vec<u64> {
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        };
        let first = |path: &str| {
            numbers(read(path)?).first().copied().with_context(|| format!("{path} has no number"))
        };
        let meminfo = read("/proc/meminfo")?;
        let available = meminfo.lines().find(|line| line.starts_with("MemAvailable:"));
        let available = numbers(available.context("/proc/meminfo has no MemAvailable")?.to_owned());
        Ok(Room {
            root: geteuid().is_root(),
            fds_of_a_process: fds_allowed(first("/proc/sys/fs/nr_open")?),
            files: first("/proc/sys/fs/file-max")?.saturating_sub(first("/proc/sys/fs/file-nr")?),
            memory: available.first().context("MemAvailable is no number")? >> 10,
        })
    }

    /// Why a world with these needs cannot be made; `None` if it can.
    fn lacks(&self, (files, fds_of_a_process): (usize, usize), memory: u32) -> Option<String> {
        // The files of the tools that are measured, and what else is opened meanwhile.
        let (files, fds_of_a_process) = (files as u64 + 10_000, fds_of_a_process as u64 + 1000);
        let memory = u64::from(memory + RESERVE);
        if !self.root {
            return Some(
                "it needs root: limits are raised, and tools read other users' processes".to_owned(),
            );
        }
        if self.fds_of_a_process < fds_of_a_process {
            let limit = self.fds_of_a_process;
            return Some(format!(
                "it needs {fds_of_a_process} fds in a process, and RLIMIT_NOFILE and fs.nr_open allow {limit}"
            ));
        }
        if self.files < files {
            let rest = self.files;
            return Some(format!("it needs {files} open files, and fs.file-max leaves {rest}"));
        }
        (self.memory < memory).then(|| {
            format!("it needs {memory} MiB of available memory with a reserve, and there are {}", self.memory)
        })
    }
}

/// How many fds a process of this user may have. The hard limit is raised to `fs.nr_open` if that
/// is allowed: root needs CAP_SYS_RESOURCE for it, which containers often take away.
fn fds_allowed(nr_open: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    match limit.maximum {
        Some(hard) if hard < nr_open => {
            let raised = Rlimit { maximum: Some(nr_open), ..limit };
            if setrlimit(Resource::Nofile, raised).is_ok() { nr_open } else { hard }
        }
        _ => nr_open,
    }
}

/// Why this machine cannot have that world now; `None` if it can.
pub(super) fn shortage(world: Option<&BenchWorld>) -> anyhow::Result<Option<String>> {
    let room = Room::of_this_machine()?;
    Ok(match world {
        Some(world) => {
            // The maker has one more file for each buffer.
            let (files, most) = world.all_fds();
            room.lacks((files + world.buffers, most), world.memory)
        }
        None => room.lacks((0, 0), UNHELD_MEMORY),
    })
}

/// Mounts a tmpfs on `folder` and makes the files that nobody holds. They have a length and no
/// page. Returns the description.
pub(super) fn make_unheld(folder: &Path, files: usize) -> anyhow::Result<String> {
    ensure!(files.is_multiple_of(FILES_OF_A_FOLDER), "folders of equal size");
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    mount("lsbuf-benchmark", folder, "tmpfs", MountFlags::empty(), Some(c"nr_inodes=0,size=1g,mode=0755"))
        .context("mounting a tmpfs")?;
    for nth in 0..files / FILES_OF_A_FOLDER {
        let folder = folder.join(format!("{nth:04}"));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        for nth in 0..FILES_OF_A_FOLDER {
            let path = folder.join(format!("{nth:03}"));
            let file = fs::File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
            file.set_len(sys::page())?;
        }
    }
    Ok(format!("{files} files on a tmpfs that nobody holds, {FILES_OF_A_FOLDER} in a folder"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Room = Room { root: true, fds_of_a_process: 1 << 20, files: 2 << 20, memory: 64 << 10 };

    /// Check that every world can be made on a machine with room, and that each need is named where
    /// it is not met.
    #[test]
    fn what_is_missing_is_named() {
        let lacks = |room: Room| room.lacks((1_000_000, 100_000), 2000);
        assert_eq!(lacks(PLENTY), None);
        for (room, word) in [
            (Room { root: false, ..PLENTY }, "root"),
            (Room { fds_of_a_process: 1024, ..PLENTY }, "fs.nr_open allow 1024"),
            (Room { files: 900_000, ..PLENTY }, "fs.file-max leaves 900000"),
            (Room { memory: 4000, ..PLENTY }, "there are 4000"),
        ] {
            let why = lacks(room).unwrap();
            assert!(why.contains(word), "{why}");
        }
    }

    /// Check that the worlds are as large as their names and the benchmark's page say.
    #[test]
    fn sizes_of_worlds() {
        let references = |name: &str| {
            let world = SHARED_WORLDS.iter().find(|world| world.name == name).unwrap();
            world.references().all()
        };
        for (name, expected) in [
            ("memfd-100", 100),
            ("memfd-1k", 1000),
            ("memfd-10k", 10_000),
            ("memfd-100k", 100_000),
            ("memfd-1m", 1_000_000),
            ("memfd-one", 100_000),
            ("many-vmas", 6000),
            ("many-vmas10", 6000),
        ] {
            assert_eq!(references(name), expected, "{name}");
        }
        let other = SHARED_WORLDS.iter().find(|world| world.name == "other-fds").unwrap();
        assert_eq!(other.all_fds().0, 1_200_000);
    }
}
