//! The worlds: processes that hold buffers, among mappings and fds that have nothing to do with them.
//!
//! Every buffer has three holders, each by one fd and one mapping of the whole. The first process is the compositor: it holds
//! more than its share, and has more fds. What else a process has: fds, a third each of eventfds and `/dev/null`, ends of pipes
//! and ends of sockets; VMAs, of which every other one is of a file, private, four to a file as a library's are, and
//! the ones between are anonymous.
//!
//! A process's fd table is no larger than what it holds asks for: none is forked from a process with many fds. So the
//! buffers are made by a process that is gone when the world is ready, and handed to one process after the other. The
//! unrelated VMAs are mapped once, before, and inherited: the kernel copies them in a fraction of the time that mapping them takes.

use std::ffi::CString;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, ensure};
use dmabuf::{DmaBuf, Heap, share};
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, setrlimit, waitpid};
use rustix::thread::set_name;

use super::figures::References;
use crate::sys;

/// The machine as it is, where nothing is made.
pub const NATIVE: &str = "native";

/// Holders of each buffer.
const HOLDERS: usize = 3;
/// Bytes of each buffer.
const SIZE: usize = 16 << 10;
/// VMAs of one file, as a library has.
const SEGMENTS: usize = 4;

/// What a world is made of.
#[derive(Debug)]
pub struct World {
    /// What it is called.
    pub name: &'static str,
    /// MiB of memory that its machine must have.
    pub memory: u32,
    processes: usize,
    buffers: usize,
    /// Buffers that the compositor holds, and fds that it has in all.
    compositor: (usize, usize),
    /// Fds of every other process, in all.
    fds: usize,
    /// Unrelated VMAs of each process.
    vmas: usize,
}

/// All worlds.
pub const WORLDS: &[World] = &[
    World {
        name: "phone",
        memory: 1024,
        processes: 60,
        buffers: 300,
        compositor: (300, 1500),
        fds: 50,
        vmas: 1000,
    },
    DESKTOP,
    World {
        name: "storm",
        memory: 3072,
        processes: 60,
        buffers: 20_000,
        compositor: (9_900, 10_000),
        fds: 900,
        vmas: 1000,
    },
    // Memory in MiB, which is no page size.
    World { name: "desktop10", memory: 4096, vmas: 10 * DESKTOP.vmas, ..DESKTOP },
];

const DESKTOP: World = World {
    name: "desktop",
    memory: 2048,
    processes: 400,
    buffers: 1000,
    compositor: (8, 100),
    fds: 100,
    vmas: 2000,
};

impl World {
    /// The one of that name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn find(name: &str) -> anyhow::Result<&'static World> {
        WORLDS.iter().find(|world| world.name == name).with_context(|| format!("no world is called {name:?}"))
    }

    /// How many references there are.
    pub(super) fn references(&self) -> References {
        let each = (self.buffers * HOLDERS) as u64;
        References { buffers: self.buffers as u64, fd: each, map: each }
    }

    /// The buffers that a process holds.
    fn held_by(&self, process: usize) -> Vec<usize> {
        let mut held = Vec::new();
        let others = self.processes - 1;
        let mut next = 0;
        for buffer in 0..self.buffers {
            let compositor = buffer < self.compositor.0;
            if compositor && process == 0 {
                held.push(buffer);
            }
            for _ in usize::from(compositor)..HOLDERS {
                if process == 1 + next % others {
                    held.push(buffer);
                }
                next += 1;
            }
        }
        held
    }

    fn fds_of(&self, process: usize) -> usize {
        if process == 0 { self.compositor.1 } else { self.fds }
    }

    /// Makes it and says what it is. Its processes are children of this one, and stay until they are killed.
    pub(super) fn build(&self) -> anyhow::Result<String> {
        let limit = Some(100_000);
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })
            .context("raising RLIMIT_NOFILE")?;
        let files = libraries(self.vmas.div_ceil(2 * SEGMENTS))?;
        let unrelated = sys::map_unrelated(self.vmas, &files, SEGMENTS)?;
        drop(files);
        let flags = SocketFlags::CLOEXEC;
        let (giving, taking) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let maker = child(|| self.give(&giving))?;
        drop(giving);
        let mut pids = Vec::new();
        for process in 0..self.processes {
            let (mut ready, told) = UnixStream::pair()?;
            pids.push(child(|| stay(self.hold(process, &taking)?, told))?);
            ensure!(
                ready.read(&mut [0])? == 1,
                "process {process} of world {} ended before it was ready",
                self.name
            );
            if process % 50 == 49 {
                eprintln!("world {}: {} processes", self.name, process + 1);
            }
        }
        sys::unmap(unrelated)?;
        let maker = i32::try_from(maker).ok().and_then(Pid::from_raw);
        waitpid(maker, WaitOptions::empty()).context("waiting for the maker of buffers")?;
        self.verify(&pids)?;
        let ((held, first), fds) = (self.compositor, self.fds);
        let compositor = if first == fds {
            String::new()
        } else {
            format!("; one of them has {first} fds and holds {held} of the buffers")
        };
        Ok(format!(
            "{} processes with {} unrelated VMAs (every other one of a file, private) and {fds} fds each{compositor}; \
             {} buffers, {HOLDERS} holders each, by fd and mapping",
            self.processes, self.vmas, self.buffers
        ))
    }

    /// Checks each process's fds and the VMAs of one against what was to be made.
    fn verify(&self, pids: &[u32]) -> anyhow::Result<()> {
        for (process, pid) in pids.iter().enumerate() {
            let fds = fds_of(pid)?;
            ensure!(fds == self.fds_of(process), "process {process} has {fds} fds");
        }
        let pid = pids.last().context("a world without processes")?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let vmas = maps.lines().filter(|line| !line.contains("/dmabuf:")).count();
        // The program's own are a few dozen.
        ensure!((self.vmas..self.vmas + 100).contains(&vmas), "a process has {vmas} unrelated VMAs");
        Ok(())
    }

    /// Makes all buffers and gives each process its own when it asks.
    fn give(&self, socket: &OwnedFd) -> anyhow::Result<()> {
        let heap = Heap::open("system")?;
        let buffers = (0..self.buffers).map(|_| heap.allocate(SIZE as u64)).collect::<Result<Vec<_>, _>>()?;
        for process in 0..self.processes {
            share::receive(socket, &mut [0])?;
            let held: Vec<&DmaBuf> = self.held_by(process).into_iter().map(|nth| &buffers[nth]).collect();
            for some in held.chunks(share::MAX_BUFS) {
                share::send(socket, some, b"b")?;
            }
        }
        Ok(())
    }

    /// What one process does before it is ready; what it returns is to be kept.
    fn hold(&self, process: usize, socket: &OwnedFd) -> anyhow::Result<(Vec<DmaBuf>, Vec<OwnedFd>)> {
        set_name(&CString::new(format!("bench{process}"))?)?;
        let wanted = self.held_by(process).len();
        share::send(socket, &[], b"n")?;
        let mut buffers = Vec::new();
        while buffers.len() < wanted {
            buffers.append(&mut share::receive(socket, &mut [0])?.bufs);
        }
        for buffer in &buffers {
            sys::map(buffer, 0, SIZE)?;
        }
        // What was inherited counts among those that have nothing to do with buffers.
        let open = fds_of("self")?.checked_sub(1).context("an fd table without the one that lists it")?;
        let missing = self.fds_of(process).checked_sub(open).context("more fds than the process may have")?;
        Ok((buffers, unrelated_fds(missing)?))
    }
}

/// Forks a process that does `script` and nothing else.
fn child(script: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<u32> {
    sys::fork(|| match script() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bench: {error:#}");
            1
        }
    })
}

/// Says to `told` that it is ready, and holds what it holds until it is killed.
fn stay<T>(holds: T, mut told: UnixStream) -> anyhow::Result<()> {
    told.write_all(b"r").context("saying that it is ready")?;
    loop {
        std::thread::park();
        std::hint::black_box(&holds);
    }
}

/// That many files of the length of [`SEGMENTS`] pages, called as libraries are.
fn libraries(count: usize) -> anyhow::Result<Vec<File>> {
    let folder = "/tmp/usr/lib/x86_64-linux-gnu";
    std::fs::create_dir_all(folder).context("making a folder for libraries")?;
    let library = |nth: usize| {
        let path = format!("{folder}/libbenchmark-{nth}.so.1.0.0");
        let file = File::create_new(&path).with_context(|| format!("making {path}"))?;
        file.set_len((SEGMENTS * sys::page_size()) as u64)?;
        Ok(file)
    };
    (0..count).map(library).collect()
}

/// That many fds: eventfds, `/dev/null`, and ends of pipes and of sockets.
fn unrelated_fds(count: usize) -> anyhow::Result<Vec<OwnedFd>> {
    let mut fds: Vec<OwnedFd> = Vec::new();
    for kind in (0..3).cycle() {
        if fds.len() >= count {
            break;
        }
        match kind {
            0 => fds.extend([eventfd(0, EventfdFlags::CLOEXEC)?, File::open("/dev/null")?.into()]),
            1 => fds.extend(<[OwnedFd; 2]>::from(pipe_with(PipeFlags::CLOEXEC)?)),
            _ => fds.extend(<[UnixStream; 2]>::from(UnixStream::pair()?).map(OwnedFd::from)),
        }
    }
    fds.truncate(count);
    Ok(fds)
}

/// How many fds a process has; one more if it asks about itself.
fn fds_of(process: impl Display) -> anyhow::Result<usize> {
    let path = format!("/proc/{process}/fd");
    Ok(std::fs::read_dir(&path).with_context(|| format!("listing {path}"))?.count())
}

/// The machine as it is: what there is to walk, as far as this user may see it.
pub(super) fn describe_native() -> anyhow::Result<String> {
    let (mut processes, mut fds, mut vmas) = (0, 0, 0);
    for entry in std::fs::read_dir("/proc")?.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()) {
            processes += 1;
            fds += fds_of(entry.file_name().display()).unwrap_or(0);
            let maps = std::fs::read(entry.path().join("maps")).unwrap_or_default();
            vmas += maps.iter().filter(|&&byte| byte == b'\n').count();
        }
    }
    Ok(format!("this machine as it is: {processes} processes and kernel threads, {fds} fds, {vmas} VMAs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that every buffer of every world has its holders, each another, and no process more than its fds.
    #[test]
    fn buffers_have_their_holders() {
        for world in WORLDS {
            let mut holders = vec![0; world.buffers];
            for process in 0..world.processes {
                let held = world.held_by(process);
                assert!(held.len() + 10 <= world.fds_of(process), "{}: process {process}", world.name);
                assert!(held.is_sorted_by(|a, b| a < b), "{}: process {process}", world.name);
                held.iter().for_each(|&buffer| holders[buffer] += 1);
            }
            assert!(holders.iter().all(|&holders| holders == HOLDERS), "{}", world.name);
            assert_eq!(world.held_by(0).len(), world.compositor.0, "{}", world.name);
        }
    }

    /// Check that the number of fds is met whatever a round of kinds comes to.
    #[test]
    fn fds_are_counted() {
        for count in [0, 1, 5, 12] {
            assert_eq!(unrelated_fds(count).unwrap().len(), count);
        }
    }
}
