//! Processes that hold buffers on a scenario's behalf.
//!
//! An actor is forked from the scenario, which itself holds nothing, and runs a script. Where the script pauses it says
//! what it holds, which is the truth that lsbuf's answer is compared with, and waits to be told to go on. When the
//! scenario drops it, it is killed: no reference outlives its part.

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

/// References of a thread by an fd table that is not its process's.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Table {
    /// The first of the threads that use it.
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
    /// The buffer, by what its own inode says.
    pub ino: u64,
    /// Its size by its own inode.
    pub size: u64,
    /// Bytes that its own inode counts as taken; left 0 for a dma-buf, where they mean nothing.
    pub charged: u64,
    /// Fd numbers.
    pub fds: Vec<u32>,
    /// Fd numbers opened with `O_PATH`.
    pub opaths: Vec<u32>,
    /// Ranges of addresses, and where in the buffer each begins.
    pub maps: Vec<(usize, usize, u64)>,
    /// Fd tables besides the process's own.
    pub threads: Vec<Table>,
    /// The process whose fd table this one uses, if it is not its own: the slots are that one's.
    pub fd_table_of: Option<u32>,
    /// The process whose address space this one uses, if it is not its own.
    pub address_space_of: Option<u32>,
}

impl Held {
    /// A buffer held by this process through `buf` alone.
    ///
    /// # Errors
    ///
    /// The inode cannot be read.
    pub fn by(buf: &DmaBuf) -> anyhow::Result<Held> {
        let identity = buf.identity()?;
        let fds = vec![sys::number(buf)];
        Ok(Held { pid: std::process::id(), ino: identity.ino, size: identity.size, fds, ..Held::default() })
    }

    /// A file held by this process through `fd` alone.
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

    /// And through another fd.
    #[must_use]
    pub fn and_fd(mut self, fd: impl AsFd) -> Held {
        self.fds.push(sys::number(fd));
        self
    }

    /// And through a mapping that begins at `offset` of the buffer.
    #[must_use]
    pub fn and_map(mut self, region: Region, offset: u64) -> Held {
        self.maps.push((region.start, region.start + region.len, offset));
        self
    }

    /// And through an fd opened with `O_PATH`.
    #[must_use]
    pub fn and_opath(mut self, path: &OwnedFd) -> Held {
        self.opaths.push(sys::number(path));
        self
    }

    /// But no longer through fds.
    #[must_use]
    pub fn without_fds(mut self) -> Held {
        self.fds.clear();
        self
    }

    /// But by the table of the calling thread, which is not the process's own.
    #[must_use]
    pub fn by_thread(mut self) -> Held {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let (fds, opaths) = (std::mem::take(&mut self.fds), std::mem::take(&mut self.opaths));
        self.threads.push(Table { tid, fds, opaths });
        self
    }

    /// And what another task of the same process holds.
    #[must_use]
    pub fn and(mut self, mut other: Held) -> Held {
        self.fds.append(&mut other.fds);
        self.opaths.append(&mut other.opaths);
        self.maps.append(&mut other.maps);
        self.threads.append(&mut other.threads);
        self
    }

    /// But the slots are those of another process's table.
    #[must_use]
    pub fn in_table_of(mut self, pid: u32) -> Held {
        self.fd_table_of = Some(pid);
        self
    }

    /// But the mappings are those of another process's address space.
    #[must_use]
    pub fn in_space_of(mut self, pid: u32) -> Held {
        self.address_space_of = Some(pid);
        self
    }

    /// How many fds keep the buffer that are no other process's.
    pub fn own_fds(&self) -> usize {
        let own = if self.fd_table_of.is_none() { self.fds.len() } else { 0 };
        own + self.threads.iter().map(|table| table.fds.len()).sum::<usize>()
    }

    /// [`Held::own_fds`] of those opened with `O_PATH`.
    pub fn own_opaths(&self) -> usize {
        let own = if self.fd_table_of.is_none() { self.opaths.len() } else { 0 };
        own + self.threads.iter().map(|table| table.opaths.len()).sum::<usize>()
    }

    /// How many mappings keep the buffer that are no other process's.
    pub fn own_maps(&self) -> usize {
        if self.address_space_of.is_none() { self.maps.len() } else { 0 }
    }

    /// The same references of another process: what a fork makes.
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
    /// Forks an actor with that command name.
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

    /// Waits until the actor pauses, and returns what it says it holds.
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
        // It may have ended by itself; what counts is that it is gone afterwards.
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

impl Stage {
    /// Says what this process holds and waits for the scenario.
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

    /// Waits for the scenario, or takes its word if it has told to go on already.
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

    /// Whether the scenario has said to go on already, so that the next pause will be none; or has ended.
    ///
    /// # Errors
    ///
    /// The socket cannot be asked.
    pub fn is_told(&self) -> anyhow::Result<bool> {
        let mut asked = [PollFd::new(self.socket.get_ref(), PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut asked, Some(&at_once)).context("looking at a socket")? > 0)
    }
}
