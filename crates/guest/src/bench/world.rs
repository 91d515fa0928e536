//! The benchmark's worlds: processes that hold buffers, among mappings and fds that belong to no
//! buffer.
//!
//! Every buffer has three holders. Each holds it by one fd and one mapping of the whole buffer. The
//! first process is the compositor: it holds more buffers than the others and has more fds. The
//! other fds of a process are eventfds, `/dev/null`, and ends of pipes and sockets. Of its other
//! VMAs, every second one is a private mapping of a file, four to a file as for a library; the ones
//! between are anonymous.
//!
//! The kernel sizes a forked fd table by the parent's fds, so no process is forked from one with
//! many fds. A separate process makes the buffers, passes them to one process after the other, and
//! has exited when the world is ready. The unrelated VMAs are mapped once, before, and inherited:
//! the kernel copies them in a fraction of the time that mapping them takes.

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

/// How many holders each buffer has.
const HOLDERS: usize = 3;
/// Bytes of each buffer.
const SIZE: usize = 16 << 10;
/// How many VMAs a file has, like a library.
const SEGMENTS: usize = 4;

/// A world, and what it is made of.
#[derive(Debug)]
pub struct BenchWorld {
    /// The world's name.
    pub name: &'static str,
    /// The memory that its machine must have, in MiB.
    pub memory: u32,
    processes: usize,
    buffers: usize,
    /// How many buffers the compositor holds, and how many fds it has in all.
    compositor: (usize, usize),
    /// How many fds every other process has in all.
    fds: usize,
    /// How many unrelated VMAs each process has.
    vmas: usize,
}

/// All worlds.
pub const WORLDS: &[BenchWorld] = &[
    BenchWorld {
        name: "phone",
        memory: 1024,
        processes: 60,
        buffers: 300,
        compositor: (300, 1500),
        fds: 50,
        vmas: 1000,
    },
    DESKTOP,
    BenchWorld {
        name: "storm",
        memory: 3072,
        processes: 60,
        buffers: 20_000,
        compositor: (9_900, 10_000),
        fds: 900,
        vmas: 1000,
    },
    // Memory in MiB, which is no page size.
    BenchWorld { name: "desktop10", memory: 4096, vmas: 10 * DESKTOP.vmas, ..DESKTOP },
];

const DESKTOP: BenchWorld = BenchWorld {
    name: "desktop",
    memory: 2048,
    processes: 400,
    buffers: 1000,
    compositor: (8, 100),
    fds: 100,
    vmas: 2000,
};

impl BenchWorld {
    /// The world with this name.
    ///
    /// # Errors
    ///
    /// No world has it.
    pub fn find(name: &str) -> anyhow::Result<&'static BenchWorld> {
        WORLDS.iter().find(|world| world.name == name).with_context(|| format!("no world is called {name:?}"))
    }

    /// How many references the world has.
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

    /// Makes the world and returns its description. Its processes are children of this one, and
    /// stay until they are killed.
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

    /// Compares each process's fds and one process's VMAs with what was to be made.
    fn verify(&self, pids: &[u32]) -> anyhow::Result<()> {
        for (process, pid) in pids.iter().enumerate() {
            let fds = fds_of(pid)?;
            ensure!(fds == self.fds_of(process), "process {process} has {fds} fds");
        }
        let pid = pids.last().context("a world without processes")?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let vmas = maps.lines().filter(|line| !line.contains("/dmabuf:")).count();
        // The program's own VMAs are a few dozen.
        ensure!((self.vmas..self.vmas + 100).contains(&vmas), "a process has {vmas} unrelated VMAs");
        Ok(())
    }

    /// Makes all buffers and gives each process its share when the process asks for it.
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

    /// Prepares one process. The caller keeps what it returns.
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
        // Inherited fds count as unrelated ones.
        let open = fds_of("self")?.checked_sub(1).context("an fd table without the one that lists it")?;
        let missing = self.fds_of(process).checked_sub(open).context("more fds than the process may have")?;
        Ok((buffers, unrelated_fds(missing)?))
    }
}

/// Forks a process that runs `script` and ends.
fn child(script: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<u32> {
    sys::fork(|| match script() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bench: {error:#}");
            1
        }
    })
}

/// Tells `told` that it is ready, and keeps `holds` until it is killed.
fn stay<T>(holds: T, mut told: UnixStream) -> anyhow::Result<()> {
    told.write_all(b"r").context("saying that it is ready")?;
    loop {
        std::thread::park();
        std::hint::black_box(&holds);
    }
}

/// `count` files of [`SEGMENTS`] pages each, with names like libraries.
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

/// `count` fds: eventfds, `/dev/null`, and ends of pipes and sockets.
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

/// How many fds a process has. It is one more if the process asks about itself.
fn fds_of(process: impl Display) -> anyhow::Result<usize> {
    let path = format!("/proc/{process}/fd");
    Ok(std::fs::read_dir(&path).with_context(|| format!("listing {path}"))?.count())
}

/// The machine as it is: its processes, fds and VMAs, as far as this user may see them.
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

    /// Check that every buffer of every world has its holders, that they are different processes,
    /// and that no process holds more than its fds allow.
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

    /// Check that the number of fds is right whatever mixture reaches it.
    #[test]
    fn fds_are_counted() {
        for count in [0, 1, 5, 12] {
            assert_eq!(unrelated_fds(count).unwrap().len(), count);
        }
    }
}
