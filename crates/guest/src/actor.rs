//! Processes that hold buffers on a scenario's behalf.
//!
//! A scenario holds no buffers itself. It forks actors, and each runs a script. Where the script
//! pauses, it says what it holds and waits until the scenario tells it to go on. What it says is
//! the truth that lsbuf's answer is compared with. When the scenario drops an actor, the actor is
//! killed, so that none of its references outlives it.

use std::ffi::CString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use dmabuf::DmaBuf;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::set_name;
use serde::{Deserialize, Serialize};

use crate::sys::{self, Region};

/// References by the fd table of a thread that does not use its process's table.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct ThreadTable {
    /// The first of the threads that use this table.
    pub tid: u32,
    /// Fd numbers.
    pub fds: Vec<u32>,
    /// Fd numbers opened with `O_PATH`.
    pub opaths: Vec<u32>,
}

/// One process's references to one buffer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The holding process.
    pub pid: u32,
    /// The buffer's inode number, read from the inode.
    pub ino: u64,
    /// The buffer's size, read from the inode.
    pub size: u64,
    /// The bytes that the inode counts as allocated. It is 0 for a dma-buf, where they mean
    /// nothing.
    pub charged: u64,
    /// Fd numbers.
    pub fds: Vec<u32>,
    /// Fd numbers opened with `O_PATH`.
    pub opaths: Vec<u32>,
    /// Mappings: first address, end address, and the offset in the buffer at which the mapping
    /// begins.
    pub maps: Vec<(usize, usize, u64)>,
    /// Fd tables of threads that do not use the process's table.
    pub threads: Vec<ThreadTable>,
    /// The process that this one shares its fd table with, if lsbuf lists the fds under that one.
    pub fd_table_of: Option<u32>,
    /// The process that this one shares its address space with, if lsbuf lists the mappings under
    /// that one.
    pub address_space_of: Option<u32>,
}

impl Held {
    /// A buffer that this process holds through `buf` alone.
    ///
    /// # Errors
    ///
    /// The inode cannot be read.
    pub fn by(buf: &DmaBuf) -> anyhow::Result<Held> {
        let identity = buf.identity()?;
        let fds = vec![sys::number(buf)];
        Ok(Held { pid: std::process::id(), ino: identity.ino, size: identity.size, fds, ..Held::default() })
    }

    /// A file that this process holds through `fd` alone.
    ///
    /// # Errors
    ///
    /// The inode cannot be read.
    pub fn by_file(fd: impl AsFd) -> anyhow::Result<Held> {
        let stat = rustix::fs::fstat(&fd).context("asking for an inode")?;
        Ok(Held {
            pid: std::process::id(),
            ino: stat.st_ino,
            size: stat.st_size.cast_unsigned(),
            charged: stat.st_blocks.cast_unsigned() * 512,
            fds: vec![sys::number(fd)],
            ..Held::default()
        })
    }

    /// A buffer of which only the number matters, or a number that takes its place.
    pub fn of_number(ino: u64) -> Held {
        Held { pid: std::process::id(), ino, ..Held::default() }
    }

    /// Adds a second fd.
    #[must_use]
    pub fn and_fd(mut self, fd: impl AsFd) -> Held {
        self.fds.push(sys::number(fd));
        self
    }

    /// Adds a mapping that begins at `offset` in the buffer.
    #[must_use]
    pub fn and_map(mut self, region: Region, offset: u64) -> Held {
        self.maps.push((region.start, region.start + region.len, offset));
        self
    }

    /// Adds an fd opened with `O_PATH`.
    #[must_use]
    pub fn and_opath(mut self, path: &OwnedFd) -> Held {
        self.opaths.push(sys::number(path));
        self
    }

    /// Removes all fds.
    #[must_use]
    pub fn without_fds(mut self) -> Held {
        self.fds.clear();
        self
    }

    /// Moves all fds to the table of the calling thread, which is not the process's.
    #[must_use]
    pub fn by_thread(mut self) -> Held {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let (fds, opaths) = (std::mem::take(&mut self.fds), std::mem::take(&mut self.opaths));
        self.threads.push(ThreadTable { tid, fds, opaths });
        self
    }

    /// Adds what another task of the same process holds.
    #[must_use]
    pub fn and(mut self, mut other: Held) -> Held {
        self.fds.append(&mut other.fds);
        self.opaths.append(&mut other.opaths);
        self.maps.append(&mut other.maps);
        self.threads.append(&mut other.threads);
        self
    }

    /// Says that the fds are in the table of process `pid`, which this process shares.
    #[must_use]
    pub fn in_table_of(mut self, pid: u32) -> Held {
        self.fd_table_of = Some(pid);
        self
    }

    /// Says that the mappings are in the address space of process `pid`, which this process shares.
    #[must_use]
    pub fn in_space_of(mut self, pid: u32) -> Held {
        self.address_space_of = Some(pid);
        self
    }

    /// How many fds keep the buffer, without those that are counted under another process.
    pub fn own_fds(&self) -> usize {
        let own = if self.fd_table_of.is_none() { self.fds.len() } else { 0 };
        own + self.threads.iter().map(|table| table.fds.len()).sum::<usize>()
    }

    /// As [`Held::own_fds`], for the fds opened with `O_PATH`.
    pub fn own_opaths(&self) -> usize {
        let own = if self.fd_table_of.is_none() { self.opaths.len() } else { 0 };
        own + self.threads.iter().map(|table| table.opaths.len()).sum::<usize>()
    }

    /// How many mappings keep the buffer, without those that are counted under another process.
    pub fn own_maps(&self) -> usize {
        if self.address_space_of.is_none() { self.maps.len() } else { 0 }
    }

    /// The same references for another process: what a fork makes.
    #[must_use]
    pub fn of(mut self, pid: u32) -> Held {
        self.pid = pid;
        self
    }
}

/// A running actor, as the scenario sees it.
#[derive(Debug)]
pub struct Actor {
    /// Its process id.
    pub pid: u32,
    socket: BufReader<UnixStream>,
}

/// A running actor, as its own script sees it.
#[derive(Debug)]
pub struct Stage {
    socket: BufReader<UnixStream>,
}

impl Actor {
    /// Forks an actor with the command name `comm`.
    ///
    /// # Errors
    ///
    /// The kernel refuses to fork.
    pub fn start(
        comm: &[u8],
        script: impl FnOnce(&mut Stage) -> anyhow::Result<()>,
    ) -> anyhow::Result<Actor> {
        let comm = CString::new(comm).context("a command name with a NUL")?;
        let (ours, theirs) = UnixStream::pair().context("making a socket pair")?;
        let pid = sys::fork(move || {
            let mut stage = Stage { socket: BufReader::new(theirs) };
            let played = set_name(&comm).context("naming").and_then(|()| script(&mut stage));
            match played {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("actor {comm:?}: {error:#}");
                    1
                }
            }
        })?;
        Ok(Actor { pid, socket: BufReader::new(ours) })
    }

    /// Waits until the actor pauses, and returns what it holds.
    ///
    /// # Errors
    ///
    /// It ended instead.
    pub fn paused(&mut self) -> anyhow::Result<Vec<Held>> {
        let mut line = String::new();
        if self.socket.read_line(&mut line).context("listening to an actor")? == 0 {
            bail!("actor {} ended before it paused", self.pid);
        }
        serde_json::from_str(&line).with_context(|| format!("understanding an actor: {line:?}"))
    }

    /// [`Actor::paused`] for an actor that holds one buffer.
    ///
    /// # Errors
    ///
    /// It ended, or holds another number of buffers.
    pub fn paused_with_one(&mut self) -> anyhow::Result<Held> {
        let [held] = <[Held; 1]>::try_from(self.paused()?)
            .map_err(|held| anyhow::anyhow!("an actor holds {} buffers, not one", held.len()))?;
        Ok(held)
    }

    /// Lets a paused actor go on.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn go_on(&mut self) -> anyhow::Result<()> {
        self.socket.get_mut().write_all(b"\n").context("telling an actor to go on")
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended already. Afterwards it is gone in any case.
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

impl Stage {
    /// Says what this process holds, and waits until the scenario tells it to go on.
    ///
    /// # Errors
    ///
    /// The scenario has ended.
    pub fn pause(&mut self, held: &[Held]) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(held)?;
        line.push('\n');
        self.socket.get_mut().write_all(line.as_bytes()).context("reporting to the scenario")?;
        self.wait()
    }

    /// Waits until the scenario tells this actor to go on, or returns at once if it has done so
    /// already.
    ///
    /// # Errors
    ///
    /// The scenario has ended.
    pub fn wait(&mut self) -> anyhow::Result<()> {
        let mut answer = String::new();
        if self.socket.read_line(&mut answer)? == 0 {
            bail!("the scenario has ended");
        }
        Ok(())
    }

    /// Whether the scenario has already told this actor to go on, or has ended. The next pause then
    /// returns at once.
    ///
    /// # Errors
    ///
    /// The socket cannot be polled.
    pub fn is_told(&self) -> anyhow::Result<bool> {
        let mut asked = [PollFd::new(self.socket.get_ref(), PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut asked, Some(&at_once)).context("looking at a socket")? > 0)
    }
}
