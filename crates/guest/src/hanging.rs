//! A process whose address space stays locked until the test ends it. A user without privileges can
//! make one.
//!
//! A process in its own user and mount namespace serves a FUSE filesystem with one file. A second
//! process reads the file and never gets an answer, so the page that it waits for stays locked. A
//! third process opens the file with FOPEN_DIRECT_IO and maps it privately. `fuse_file_mmap`
//! (fs/fuse/file.c) then drops the cached pages and waits for the locked one, while it holds the
//! address space's lock for writing. Every process that needs that lock to read the third process's
//! mappings waits too.
//!
//! Limits: the server implements only the part of FUSE (include/uapi/linux/fuse.h) that this needs.

use std::fs::{self, File};
use std::io::{PipeWriter, Read, Write, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, mount};
use rustix::process::{
    DumpableBehavior, Signal, getgid, getuid, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::UnshareFlags;

use crate::actor::{Actor, Held};
use crate::sys::{self, page, page_size, task};

/// The mount point of the filesystem, inside the namespace.
const AT: &str = "/tmp/hanging";

/// The interval at which a process's state is polled.
const STEP: Duration = Duration::from_millis(5);

/// The running processes: the third one hangs until this is dropped.
#[derive(Debug)]
pub struct Hanging {
    /// What the hanging process holds, by fd.
    pub held: Held,
    _actor: Actor,
}

impl Hanging {
    /// Starts the processes. `make` opens a buffer and says what is held; the process that hangs
    /// then holds it. If `user` is given, all processes become that user before they do anything
    /// else.
    ///
    /// # Errors
    ///
    /// The kernel has no FUSE, or no user namespaces.
    pub fn start(
        user: Option<u32>,
        make: impl FnOnce() -> anyhow::Result<(OwnedFd, Held)>,
    ) -> anyhow::Result<Hanging> {
        Hanging::start_as(user, make, hang)
    }

    /// The same, but the process that hangs runs a program that was started for that: its address
    /// space did not begin as a copy. Only for processes of this binary.
    ///
    /// # Errors
    ///
    /// The kernel has no FUSE, or no user namespaces.
    pub fn start_program(make: impl FnOnce() -> anyhow::Result<(OwnedFd, Held)>) -> anyhow::Result<Hanging> {
        Hanging::start_as(None, make, |tell| {
            let error = Command::new("/proc/self/exe").arg(HANG).stdout(tell).exec();
            Err(anyhow::Error::new(error).context("running a program"))
        })
    }

    fn start_as(
        user: Option<u32>,
        make: impl FnOnce() -> anyhow::Result<(OwnedFd, Held)>,
        hang: impl FnOnce(PipeWriter) -> anyhow::Result<()>,
    ) -> anyhow::Result<Hanging> {
        fs::create_dir_all(AT).with_context(|| format!("making {AT}"))?;
        let mut actor = Actor::start(b"hanging-world", |stage| {
            let (buf, held) = make()?;
            let mut buf = Some(buf);
            user.map_or(Ok(()), sys::become_user)?;
            enter_namespaces()?;
            let mut device = Some(open_device()?);
            let (mut asked, tell) = std::io::pipe()?;
            let mut tell = Some(tell);
            // Each child inherits a copy of every fd, and closes those that must not stay open.
            child(|| {
                buf = None;
                serve(device.take().context("no device")?, tell.take().context("no pipe")?)
            })?;
            (device, tell) = (None, None);
            child(|| {
                buf = None;
                File::open(file())?.read(&mut [0]).map(drop).context("reading")
            })?;
            asked.read_exact(&mut [0]).context("waiting for the server to be asked")?;
            let (mut opened, tell_opened) = std::io::pipe()?;
            if let Some(buf) = &buf {
                fcntl_setfd(buf, FdFlags::empty()).context("keeping an fd open in a program")?;
            }
            let hanging = child(|| hang(tell_opened))?;
            opened.read_exact(&mut [0]).context("waiting for the second open")?;
            drop((device, tell, buf));
            wait_for(hanging, b'D')?;
            stage.pause(&[held.of(hanging)])
        })?;
        Ok(Hanging { held: actor.paused_with_one()?, _actor: actor })
    }
}

/// The mode of the program that hangs.
pub const HANG: &str = "hang";

/// Hangs, if it runs in the namespaces of [`Hanging`]. Before, it writes a byte to its standard
/// output.
///
/// # Errors
///
/// The file cannot be opened or mapped.
pub fn run_hang(_: &[String]) -> anyhow::Result<ExitCode> {
    hang(stdout().as_fd().try_clone_to_owned()?.into()).map(|()| ExitCode::SUCCESS)
}

/// Opens the file, writes a byte to the pipe, and hangs.
fn hang(mut tell: PipeWriter) -> anyhow::Result<()> {
    let file = File::open(file())?;
    let replaced = sys::map_private(&memfd("replaced")?, 0, page_size())?;
    tell.write_all(b"x")?;
    sys::map_private_over(replaced, &file).map(drop)
}

fn memfd(name: &str) -> anyhow::Result<OwnedFd> {
    crate::make::memfd(name.as_bytes(), 1, 0)
}

fn file() -> std::path::PathBuf {
    Path::new(AT).join("file")
}

/// Forks a process that is killed when this one ends.
fn child(script: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<u32> {
    sys::fork(|| {
        let done = set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into);
        match done.and_then(|()| script()) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("hanging world: {error:#}");
                1
            }
        }
    })
}

/// Becomes root of its own user and mount namespace.
fn enter_namespaces() -> anyhow::Result<()> {
    // After a change of user, a process is not dumpable and may not write its own uid_map.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    task::enter_new(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
    fs::write("/proc/self/setgroups", "deny").context("giving up groups")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1")).context("mapping the user")?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1")).context("mapping the group")
}

/// Opens the FUSE device and mounts its filesystem. The device must be opened in the namespace that
/// mounts.
fn open_device() -> anyhow::Result<File> {
    let device = File::options().read(true).write(true).open("/dev/fuse").context("opening /dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0\0", sys::number(&device));
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes())?;
    mount("hanging", AT, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options).context("mounting FUSE")?;
    Ok(device)
}

/// Waits until a process is in this state.
fn wait_for(pid: u32, state: u8) -> anyhow::Result<()> {
    for _ in 0..2000 {
        let stat = fs::read(format!("/proc/{pid}/stat"))?;
        let at = stat.iter().rposition(|&byte| byte == b')').context("no command name")? + 2;
        if stat.get(at) == Some(&state) {
            return Ok(());
        }
        std::thread::sleep(STEP);
    }
    bail!("{pid} does not come to state {}", char::from(state))
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// The nodes of the root directory and of the file.
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// Answers every request but reads. For each read it writes a byte to the pipe. The first open uses
/// the page cache, later ones do not.
fn serve(mut device: File, mut tell: impl Write) -> anyhow::Result<()> {
    let mut request = vec![0; 1 << 17];
    let mut opens = 0_u32;
    loop {
        let len = device.read(&mut request).context("reading a request")?;
        ensure!(len >= 40, "a request of {len} bytes");
        let opcode = u32::from_ne_bytes(request[4..8].try_into()?);
        let unique = u64::from_ne_bytes(request[8..16].try_into()?);
        let node = u64::from_ne_bytes(request[16..24].try_into()?);
        let answer = match opcode {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            READ => {
                tell.write_all(b"x").context("telling of a read")?;
                continue;
            }
            INIT => Some(init()),
            // The node, its generation, how long entry and attributes are valid, and the
            // attributes.
            LOOKUP => Some([words(&[FILE, 0, 3600, 3600, 0]), attributes(FILE)].concat()),
            GETATTR => Some([words(&[3600, 0]), attributes(node)].concat()),
            OPEN => {
                opens += 1;
                // Without the second flag, the open itself drops the cached pages, and waits
                // without any lock.
                const DIRECT_IO_KEEP_CACHE: u64 = 1 | 2;
                Some(words(&[0, if opens == 1 { 0 } else { DIRECT_IO_KEEP_CACHE }]))
            }
            _ => None,
        };
        let error = if answer.is_some() { 0 } else { -libc::ENOSYS };
        let body = answer.unwrap_or_default();
        let len = u32::try_from(16 + body.len())?;
        let head = [&len.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes()].concat();
        // A request that was interrupted meanwhile no longer exists.
        let _ = device.write(&[head, body].concat());
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `fuse_init_out`: version 7.31, no readahead, no flags, and the largest write.
fn init() -> Vec<u8> {
    let halves: [u32; 6] = [7, 31, 0, 0, 0, page_size() as u32];
    let mut body: Vec<u8> = halves.iter().flat_map(|half| half.to_ne_bytes()).collect();
    body.resize(64, 0);
    body
}

/// `fuse_attr`: inode, size, blocks, three timestamps, their nanoseconds, the mode, links, owner,
/// and the block size.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, links, size) = if node == ROOT { (0o40755, 2, 0) } else { (0o100_644, 1, page()) };
    let halves: [u32; 10] = [0, 0, 0, mode, links, 0, 0, 0, page_size() as u32, 0];
    let halves = halves.iter().flat_map(|half| half.to_ne_bytes());
    words(&[node, size, size / 512, 0, 0, 0]).into_iter().chain(halves).collect()
}
