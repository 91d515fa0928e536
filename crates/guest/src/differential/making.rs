//! Makes a random world and pauses it.
//!
//! A process makes memory of every kind that the kernel has, uses it at random as programs do, and
//! forks others that continue with what they inherited. At the end each process tells the test
//! which fds it has left in messages, because `/proc` does not show what is in a message. Then it
//! sleeps. All processes are in one process group and are killed together.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, ensure};
use dmabuf::Udmabuf;
use rustix::fs::fstat;
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, setpgid, wait,
};
use serde::{Deserialize, Serialize};

use crate::hostile::HOSTILE;
use crate::make;
use crate::need::Need;
use crate::soak::random::Random;
use crate::sys::shm::{self, Segment};
use crate::sys::{self, Region, page_size, task};

/// The folder of the world's files, in a tmpfs.
const FOLDER: &str = "/dev/shm/differential";

/// The device and the number of an inode.
pub(super) type DevIno = (u64, u64);

/// A message of a process of the world to the test.
#[derive(Debug, Deserialize, Serialize)]
enum WorldMessage {
    /// It will fork this many processes.
    Forking(usize),
    /// It is done. The list has the inode of each fd that it sent and that no process received.
    Done(Vec<DevIno>),
}

/// A world. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct PausedWorld {
    /// The process group of all its processes.
    pub(super) group: u32,
    /// How many fds of each inode are in messages.
    pub(super) flights: BTreeMap<DevIno, u64>,
    /// Kept, because dropping a segment removes it.
    _segments: Vec<Segment>,
    folder: PathBuf,
}

impl PausedWorld {
    /// Makes the world of this seed and waits until all its processes are done.
    pub(super) fn make(seed: u64) -> anyhow::Result<PausedWorld> {
        set_child_subreaper(Some(getpid())).context("adopting")?;
        let mut random = Random::new(seed);
        let folder = PathBuf::from(FOLDER);
        fs::create_dir_all(&folder).context("making a folder")?;
        let segments = (0..random.below(4)).map(|_| Segment::create(0, 1 + random.index(4)));
        let segments = segments.collect::<anyhow::Result<Vec<_>>>()?;
        let (ours, theirs) = UnixStream::pair().context("making a socket pair")?;
        let mut theirs = Some(theirs);
        let pid = sys::fork(|| {
            let begun = setpgid(None, None).context("making a process group").and_then(|()| {
                let words = theirs.take().context("no socket")?;
                WorldProcess {
                    random: random.clone(),
                    words,
                    items: Vec::new(),
                    flights: Vec::new(),
                    post: None,
                }
                .begin(&segments, &folder)
            });
            eprintln!("a process of the world: {begun:?}");
            1
        })?;
        drop(theirs);
        let mut world = PausedWorld { group: pid, flights: BTreeMap::new(), _segments: segments, folder };
        let (mut words, mut awaited) = (BufReader::new(ours), 1_usize);
        while awaited > 0 {
            let mut line = String::new();
            ensure!(words.read_line(&mut line)? > 0, "the world has ended");
            match serde_json::from_str(&line).context("understanding a word")? {
                WorldMessage::Forking(children) => awaited += children,
                WorldMessage::Done(flights) => {
                    awaited -= 1;
                    for inode in flights {
                        *world.flights.entry(inode).or_default() += 1;
                    }
                }
            }
        }
        for segment in &world._segments {
            if random.one_in(3) {
                segment.remove()?;
            }
        }
        Ok(world)
    }
}

impl Drop for PausedWorld {
    fn drop(&mut self) {
        // The processes may be gone already.
        if let Some(group) = i32::try_from(self.group).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        while let Ok(Some(_)) = wait(WaitOptions::empty()) {}
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a process holds of one piece of memory.
#[derive(Debug)]
struct HeldMemory {
    fds: Vec<OwnedFd>,
    opaths: Vec<OwnedFd>,
    maps: Vec<Region>,
    pages: usize,
    /// It is a file that can be opened again and mapped privately.
    is_file: bool,
}

impl HeldMemory {
    fn new(fd: OwnedFd, pages: usize, is_file: bool) -> HeldMemory {
        HeldMemory { fds: vec![fd], opaths: Vec::new(), maps: Vec::new(), pages, is_file }
    }
}

#[derive(Debug)]
struct WorldProcess {
    random: Random,
    words: UnixStream,
    items: Vec<HeldMemory>,
    flights: Vec<DevIno>,
    /// The two ends of a socket pair that keeps messages.
    post: Option<(OwnedFd, OwnedFd)>,
}

impl WorldProcess {
    /// Makes the world's memory, in the first process.
    fn begin(&mut self, segments: &[Segment], folder: &Path) -> anyhow::Result<()> {
        for nth in 0..3 + self.random.below(7) {
            let item = self.item(nth, folder)?;
            self.items.push(item);
        }
        for segment in segments {
            for _ in 0..self.random.below(3) {
                segment.attach()?;
            }
        }
        if self.random.one_in(2) {
            shm::map_anonymous(1 + self.random.index(3))?;
        }
        self.live(0)
    }

    fn item(&mut self, nth: u64, folder: &Path) -> anyhow::Result<HeldMemory> {
        let pages = 1 + self.random.index(8);
        let written = self.random.below(pages as u64 + 1);
        match self.random.below(6) {
            0 | 1 => {
                let name = HOSTILE[self.random.index(HOSTILE.len())];
                Ok(HeldMemory::new(make::memfd(name, pages as u64, written)?, pages, true))
            }
            2 | 3 => {
                let hostile = HOSTILE[self.random.index(HOSTILE.len())];
                let bytes: Vec<u8> =
                    hostile.iter().map(|&byte| if byte == b'/' { b'|' } else { byte }).collect();
                let path = folder.join(OsStr::from_bytes(&[format!("{nth}").as_bytes(), &bytes].concat()));
                let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
                file.set_len((pages * page_size()) as u64)?;
                make::write_pages(&file, written)?;
                if self.random.one_in(2) {
                    fs::remove_file(&path)?;
                }
                Ok(HeldMemory::new(file.into(), pages, true))
            }
            4 if Need::Udmabuf.probe() => {
                let buf = Udmabuf::open()?.allocate((pages * page_size()) as u64)?;
                Ok(HeldMemory::new(buf.as_fd().try_clone_to_owned()?, pages, false))
            }
            _ if Need::Heap.probe() || Need::Vgem.probe() => {
                let (buf, _) = make::plain((pages * page_size()) as u64)?;
                Ok(HeldMemory::new(buf.as_fd().try_clone_to_owned()?, pages, false))
            }
            _ => Ok(HeldMemory::new(make::memfd(b"plain", pages as u64, written)?, pages, true)),
        }
    }

    /// Takes random steps, forks, reports, and sleeps forever.
    fn live(&mut self, depth: u64) -> anyhow::Result<()> {
        for _ in 0..self.random.below(40) {
            self.step()?;
        }
        let children = if depth < 3 { self.random.index(4) } else { 0 };
        self.say(&WorldMessage::Forking(children))?;
        for _ in 0..children {
            let seed = self.random.next();
            sys::fork(|| {
                (self.random, self.flights) = (Random::new(seed), Vec::new());
                let lived = self.live(depth + 1);
                eprintln!("a process of the world: {lived:?}");
                1
            })?;
        }
        for _ in 0..self.random.below(6) {
            self.step()?;
        }
        if self.random.one_in(4) {
            task::fork_sharing_fds()?;
        }
        if self.random.one_in(4) {
            task::fork_sharing_memory()?;
        }
        if self.random.one_in(4) {
            self.start_thread()?;
        }
        let flights = std::mem::take(&mut self.flights);
        self.say(&WorldMessage::Done(flights))?;
        loop {
            thread::park();
        }
    }

    fn say(&mut self, word: &WorldMessage) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        self.words.write_all(&line).context("saying a word")
    }

    /// Starts a thread with its own fd table, in which one more fd is open.
    fn start_thread(&self) -> anyhow::Result<()> {
        let fd = self.items.iter().find_map(|item| item.fds.first());
        let fd = fd.map(|fd| fd.try_clone()).transpose()?;
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let lived = task::with_own_fds(|| {
                let more = fd.as_ref().map(|fd| fd.try_clone()).transpose()?;
                tell.send(())?;
                loop {
                    thread::park();
                    // The fd stays open as long as the thread lives.
                    let _ = &more;
                }
            });
            lived.unwrap_or_else(|error: anyhow::Error| eprintln!("a thread of the world: {error:#}"));
        });
        told.recv().context("a thread has ended")
    }

    fn step(&mut self) -> anyhow::Result<()> {
        let step = self.random.below(12);
        let roll = self.random.index(usize::MAX);
        let at = self.random.index(self.items.len());
        let Some(item) = self.items.get_mut(at) else { return Ok(()) };
        let pick = |len: usize| (len > 0).then(|| roll % len.max(1));
        let fd = pick(item.fds.len()).and_then(|nth| item.fds.get(nth));
        match (step, fd) {
            (0 | 1, Some(fd)) => {
                let lowest = if roll & 0x1_0000 == 0 { 3 } else { i32::try_from(roll >> 17 & 0x2ff)? };
                let more = fcntl_dupfd_cloexec(fd, lowest)?;
                item.fds.push(more);
            }
            (2 | 3, Some(_)) => drop(item.fds.swap_remove(roll % item.fds.len())),
            (4, Some(fd)) if item.is_file => {
                let again = sys::open_again(fd)?;
                item.fds.push(again);
            }
            (5, Some(fd)) => {
                let path = sys::open_path(fd)?;
                item.opaths.push(path);
            }
            (6 | 7, Some(fd)) => {
                let first = (roll >> 4) % item.pages;
                let len = (1 + (roll >> 13) % (item.pages - first)) * page_size();
                let private = item.is_file && roll & 0x2_0000 > 0;
                let map = if private { sys::map_private } else { sys::map };
                item.maps.push(map(fd, (first * page_size()) as u64, len)?);
            }
            (8, _) if !item.maps.is_empty() => {
                let whole = item.maps.swap_remove(roll % item.maps.len());
                let pages = whole.len / page_size();
                let first = (roll >> 4) % pages;
                let (gone, after) =
                    (first * page_size(), (first + 1 + (roll >> 13) % (pages - first)) * page_size());
                sys::unmap(Region { start: whole.start + gone, len: after - gone })?;
                let left = [(0, gone), (after, whole.len)].into_iter().filter(|(from, to)| to > from);
                item.maps.extend(left.map(|(from, to)| Region { start: whole.start + from, len: to - from }));
            }
            (9, _) if !item.maps.is_empty() => {
                let nth = roll % item.maps.len();
                item.maps[nth] = sys::relocate(item.maps[nth])?;
            }
            (10, Some(fd)) => {
                let post = match &self.post {
                    Some(post) => post,
                    None => {
                        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                        self.post.insert(pair)
                    }
                };
                let stat = fstat(fd)?;
                let copies = 1 + (roll >> 4) % 3;
                match sys::send_any(&post.0, &vec![fd.as_fd(); copies]) {
                    Ok(()) => self.flights.extend(vec![(stat.st_dev, stat.st_ino); copies]),
                    Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::AGAIN) => {}
                    Err(error) => return Err(error),
                }
            }
            (11, _) if roll.is_multiple_of(3) => item.opaths.clear(),
            _ => {}
        }
        Ok(())
    }
}
