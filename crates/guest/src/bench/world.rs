//! The benchmark's worlds: processes that hold buffers, among mappings and fds that belong to no
//! buffer.
//!
//! Every buffer has the same number of holders. Each holds it by one fd, and in most worlds by one
//! mapping of the whole buffer. In some worlds the first process is the compositor: it holds more
//! buffers than the others and has more fds. The other fds of a process are eventfds, `/dev/null`,
//! and ends of pipes and sockets. Of its other VMAs, every second one is a private mapping of a
//! file, four to a file as for a library; the ones between are anonymous.
//!
//! The worlds of dma-bufs are here, those of memfds in [`shared`](super::shared).
//!
//! The kernel sizes a forked fd table by the parent's fds, so no process is forked from one with
//! many fds. A separate process makes the buffers, passes them to one process after the other, and
//! has exited when the world is ready. The unrelated VMAs are mapped once, before, and inherited:
//! the kernel copies them in a fraction of the time that mapping them takes.

use std::ffi::CString;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, ensure};
use dmabuf::Heap;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create, statfs};
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, set_parent_process_death_signal, setrlimit, waitpid,
};
use rustix::thread::set_name;

use super::figures::References;
use super::shared::SHARED_WORLDS;
use crate::sys;

/// The machine as it is, where nothing is made.
pub const NATIVE: &str = "native";

/// Bytes of each dma-buf.
const SIZE: usize = 16 << 10;
/// How many VMAs a file has, like a library.
const SEGMENTS: usize = 4;
/// The magic number of a tmpfs.
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// How many fds one message carries: as many as [`sys::receive_any`] takes.
const FDS_OF_A_MESSAGE: usize = 8;

/// What the buffers of a world are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// Dma-bufs of the system heap.
    DmaBufs,
    /// Memfds of one page, which is allocated.
    Memfds,
}

/// A world, and what it is made of.
#[derive(Debug)]
pub struct BenchWorld {
    /// The world's name.
    pub name: &'static str,
    /// The memory that its machine must have, in MiB.
    pub memory: u32,
    pub(super) of: Content,
    pub(super) processes: usize,
    pub(super) buffers: usize,
    /// How many holders each buffer has.
    pub(super) holders: usize,
    /// Whether a holder maps the buffer, too.
    pub(super) mapped: bool,
    /// How many buffers the compositor holds, and how many fds it has in all.
    pub(super) compositor: Option<(usize, usize)>,
    /// How many fds every other process has in all.
    pub(super) fds: usize,
    /// How many unrelated VMAs each process has.
    pub(super) vmas: usize,
}

/// All worlds of dma-bufs.
pub const WORLDS: &[BenchWorld] = &[
    BenchWorld {
        name: "phone",
        memory: 1024,
        processes: 60,
        buffers: 300,
        compositor: Some((300, 1500)),
        fds: 50,
        vmas: 1000,
        ..DESKTOP
    },
    DESKTOP,
    BenchWorld {
        name: "storm",
        memory: 3072,
        processes: 60,
        buffers: 20_000,
        compositor: Some((9_900, 10_000)),
        fds: 900,
        vmas: 1000,
        ..DESKTOP
    },
    // Memory in MiB, which is no page size.
    BenchWorld { name: "desktop10", memory: 4096, vmas: 10 * DESKTOP.vmas, ..DESKTOP },
];

const DESKTOP: BenchWorld = BenchWorld {
    name: "desktop",
    memory: 2048,
    of: Content::DmaBufs,
    processes: 400,
    buffers: 1000,
    holders: 3,
    mapped: true,
    compositor: Some((8, 100)),
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
        let mut all = WORLDS.iter().chain(SHARED_WORLDS);
        all.find(|world| world.name == name).with_context(|| format!("no world is called {name:?}"))
    }

    /// How many references the world has.
    pub(super) fn references(&self) -> References {
        let each = (self.buffers * self.holders) as u64;
        References { buffers: self.buffers as u64, fd: each, map: if self.mapped { each } else { 0 } }
    }

    /// How many fds its processes have in all, and the most that one process has: one of the
    /// world's, or one that makes it.
    pub(super) fn all_fds(&self) -> (usize, usize) {
        let fds = (0..self.processes).map(|process| self.fds_of(process));
        (fds.clone().sum(), fds.chain([self.buffers, self.libraries()]).max().unwrap_or(0))
    }

    /// How many files the unrelated VMAs are mappings of.
    fn libraries(&self) -> usize {
        self.vmas.div_ceil(2 * SEGMENTS)
    }

    /// The buffers that a process holds.
    fn held_by(&self, process: usize) -> Vec<usize> {
        let mut held = Vec::new();
        // The compositor is not among those that hold the other references in turn.
        let (compositor, first) = self.compositor.map_or((0, 0), |(holds, _)| (holds, 1));
        let others = self.processes - first;
        let mut next = 0;
        for buffer in 0..self.buffers {
            let composed = buffer < compositor;
            if composed && process == 0 {
                held.push(buffer);
            }
            for _ in usize::from(composed)..self.holders {
                if process == first + next % others {
                    held.push(buffer);
                }
                next += 1;
            }
        }
        held
    }

    fn fds_of(&self, process: usize) -> usize {
        match self.compositor {
            Some((_, fds)) if process == 0 => fds,
            _ => self.fds,
        }
    }

    /// Makes the world and returns its description. Its processes are children of this one. They
    /// stay until they are killed or this process ends. Files are made below `folder`, and memfds
    /// get that name.
    pub(super) fn build(&self, folder: &Path, name: &str) -> anyhow::Result<String> {
        // A few more, because a process has some open when it begins.
        let limit = Some(self.all_fds().1 as u64 + 1000);
        setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })
            .context("raising RLIMIT_NOFILE")?;
        let files = libraries(folder, self.libraries())?;
        let unrelated = if self.vmas == 0 {
            None
        } else {
            Some(sys::map_unrelated(self.vmas, &files, SEGMENTS).context("mapping unrelated files")?)
        };
        drop(files);
        let flags = SocketFlags::CLOEXEC;
        let (giving, taking) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let maker = child(|| self.give(&giving, name))?;
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
        if let Some(unrelated) = unrelated {
            sys::unmap(unrelated)?;
        }
        let maker = i32::try_from(maker).ok().and_then(Pid::from_raw);
        waitpid(maker, WaitOptions::empty()).context("waiting for the maker of buffers")?;
        self.verify(&pids)?;
        Ok(self.description())
    }

    fn description(&self) -> String {
        let compositor = match self.compositor {
            Some((held, fds)) if fds != self.fds => {
                format!("; one of them has {fds} fds and holds {held} of the buffers")
            }
            _ => String::new(),
        };
        let vmas = if self.vmas == 0 {
            String::new()
        } else {
            format!("{} unrelated VMAs (every other one of a file, private) and ", self.vmas)
        };
        let processes = if self.processes == 1 { "process" } else { "processes" };
        let each = if self.processes == 1 { "" } else { " each" };
        let buffers = match self.of {
            Content::DmaBufs => "buffers",
            Content::Memfds => "memfds of one page",
        };
        let holders = if self.holders == 1 { "holder" } else { "holders" };
        let by = if self.mapped { "by fd and mapping" } else { "by fd" };
        format!(
            "{} {processes} with {vmas}{} fds{each}{compositor}; {} {buffers}, {} {holders} each, {by}",
            self.processes, self.fds, self.buffers, self.holders
        )
    }

    /// Compares each process's fds and one process's VMAs with what was to be made.
    fn verify(&self, pids: &[u32]) -> anyhow::Result<()> {
        for (process, pid) in pids.iter().enumerate() {
            let fds = fds_of(pid)?;
            ensure!(fds == self.fds_of(process), "process {process} has {fds} fds");
        }
        let pid = pids.last().context("a world without processes")?;
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let vmas =
            maps.lines().filter(|line| !["/dmabuf:", "/memfd:"].iter().any(|buffer| line.contains(buffer)));
        let vmas = vmas.count();
        // The program's own VMAs are a few dozen.
        ensure!((self.vmas..self.vmas + 100).contains(&vmas), "a process has {vmas} unrelated VMAs");
        Ok(())
    }

    /// Makes all buffers and gives each process its share when the process asks for it.
    fn give(&self, socket: &OwnedFd, name: &str) -> anyhow::Result<()> {
        let buffers = self.make(name)?;
        for process in 0..self.processes {
            rustix::io::read(socket, &mut [0; 1]).context("waiting for a process")?;
            let held = self.held_by(process);
            let held: Vec<BorrowedFd<'_>> = held.into_iter().map(|nth| buffers[nth].as_fd()).collect();
            for some in held.chunks(FDS_OF_A_MESSAGE) {
                sys::send_any(socket, some)?;
            }
        }
        Ok(())
    }

    fn make(&self, name: &str) -> anyhow::Result<Vec<OwnedFd>> {
        match self.of {
            Content::DmaBufs => {
                let heap = Heap::open("system")?;
                let make = |_| Ok(heap.allocate(SIZE as u64)?.into());
                (0..self.buffers).map(make).collect()
            }
            Content::Memfds => {
                let make = |_| {
                    let memfd = memfd_create(name, MemfdFlags::CLOEXEC).context("making a memfd")?;
                    rustix::fs::ftruncate(&memfd, sys::page())?;
                    rustix::io::write(&memfd, b"x").context("allocating a page of a memfd")?;
                    Ok(memfd)
                };
                (0..self.buffers).map(make).collect()
            }
        }
    }

    /// Bytes of each buffer.
    fn size(&self) -> usize {
        match self.of {
            Content::DmaBufs => SIZE,
            Content::Memfds => sys::page_size(),
        }
    }

    /// Prepares one process. The caller keeps what it returns.
    fn hold(&self, process: usize, socket: &OwnedFd) -> anyhow::Result<Vec<OwnedFd>> {
        set_name(&CString::new(format!("bench{process}"))?)?;
        let wanted = self.held_by(process).len();
        rustix::io::write(socket, b"n").context("asking for buffers")?;
        let mut held = Vec::new();
        while held.len() < wanted {
            held.append(&mut sys::receive_any(socket)?);
        }
        if self.mapped {
            for buffer in &held {
                sys::map(buffer, 0, self.size())?;
            }
        }
        // Inherited fds count as unrelated ones.
        let open = fds_of("self")?.checked_sub(1).context("an fd table without the one that lists it")?;
        let missing = self.fds_of(process).checked_sub(open).context("more fds than the process may have")?;
        held.append(&mut unrelated_fds(missing)?);
        Ok(held)
    }
}

/// Forks a process that runs `script` and ends. It is killed when its parent ends.
fn child(script: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<u32> {
    sys::fork(|| {
        match set_parent_process_death_signal(Some(Signal::KILL))
            .context("asking to end with the parent")
            .and_then(|()| script())
        {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("bench: {error:#}");
                1
            }
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
fn libraries(folder: &Path, count: usize) -> anyhow::Result<Vec<File>> {
    let folder = folder.join("usr/lib/x86_64-linux-gnu");
    std::fs::create_dir_all(&folder).context("making a folder for libraries")?;
    // Files of a tmpfs are shared memory. A guest has no other filesystem, but can mount one.
    if count > 0 && statfs(&folder)?.f_type == TMPFS_MAGIC {
        mount("ramfs", &folder, "ramfs", MountFlags::empty(), None).context("mounting a ramfs")?;
    }
    let library = |nth: usize| {
        let path = folder.join(format!("libbenchmark-{nth}.so.1.0.0"));
        let file = File::create_new(&path).with_context(|| format!("making {}", path.display()))?;
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

/// What the machine has at the moment: processes, fds and VMAs, as far as this user may see them.
pub(super) fn describe_machine() -> anyhow::Result<String> {
    let (mut processes, mut fds, mut vmas) = (0, 0, 0);
    for entry in std::fs::read_dir("/proc")?.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()) {
            processes += 1;
            fds += fds_of(entry.file_name().display()).unwrap_or(0);
            let maps = std::fs::read(entry.path().join("maps")).unwrap_or_default();
            vmas += maps.iter().filter(|&&byte| byte == b'\n').count();
        }
    }
    Ok(format!("{processes} processes and kernel threads, {fds} fds, {vmas} VMAs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that every buffer of every world has its holders, that they are different processes,
    /// and that no process holds more than its fds allow.
    #[test]
    fn buffers_have_their_holders() {
        for world in WORLDS.iter().chain(SHARED_WORLDS) {
            let mut holders = vec![0; world.buffers];
            for process in 0..world.processes {
                let held = world.held_by(process);
                assert!(held.len() + 10 <= world.fds_of(process), "{}: process {process}", world.name);
                assert!(held.is_sorted_by(|a, b| a < b), "{}: process {process}", world.name);
                held.iter().for_each(|&buffer| holders[buffer] += 1);
            }
            assert!(holders.iter().all(|&holders| holders == world.holders), "{}", world.name);
            if let Some((held, _)) = world.compositor {
                assert_eq!(world.held_by(0).len(), held, "{}", world.name);
            }
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
