//! The soak test of the kernel's lists: objects that are there all the time, amid others that come
//! and go as fast as the kernel allows, and lsbuf that reads the lists meanwhile.
//!
//! The BPF iterator over inodes of shared memory walks the lists of superblocks and inodes, and the
//! trees of mappings, without their locks. Here all of them change while it walks. Claims of each
//! answer:
//!
//! - no stable object is missing, unless the answer says that some may be; none is there twice;
//! - size, name, holder and number of fds of a stable object are right, and so are the residual and
//!   the number of its mappings, if the residual is exact;
//! - a file that moves between two folders has one of its two paths, or none.
//!
//! And the kernel's log has no line of an error in the end. A residual may be an estimate.
//!
//! Limits: how the steps of the processes interleave is left to chance. Nothing is in swap, and no
//! huge page is taken.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, create_dir, create_dir_all, hard_link, remove_file, rename};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, Signal, WaitOptions};
use rustix::process::{kill_process, setpriority_process, setrlimit, waitpid};
use serde_json::Value;

use super::player::raw;
use crate::answer::{Answer, LSBUF};
use crate::sys;
use crate::sys::shm::Segment;

const MEMFDS: usize = 1000;
const FILES: usize = 20;
const MAPPINGS: usize = 300;
/// Every so many of the memfds are mapped once.
const MAPPED: usize = 10;
/// How many failures are printed in full. Later ones are only counted.
const PRINTED: u64 = 30;
/// Its tmpfs.
const FOLDER: &str = "/tmp/lsbuf-lists";
/// Where its iterators are pinned.
const PINS: &str = "/tmp/lsbuf-lists-pins";
/// The memfd with many mappings.
const TREE: &str = "tree";

/// The mode: `soak-lists SECONDS [LSBUF]`, with the path of the command if it is not the guest's.
///
/// # Errors
///
/// The first argument is no number, the world cannot be made, or lsbuf gives no answer.
pub fn run_lists(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let (seconds, lsbuf) = match arguments {
        [seconds] => (seconds, LSBUF),
        [seconds, lsbuf] => (seconds, lsbuf.as_str()),
        _ => anyhow::bail!("usage: soak-lists SECONDS [LSBUF]"),
    };
    let time = Duration::from_secs(seconds.parse()?);
    // A number of files, which is no page size.
    let files = Some(4096);
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files }).context("raising a limit")?;
    let pins = |what| {
        let done = Command::new(lsbuf).args(["probes", what, "--pins", PINS]).output();
        let output = done.context("running lsbuf probes")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    create_dir_all(FOLDER).context("making a folder")?;
    mount("tmpfs", FOLDER, "tmpfs", MountFlags::empty(), None).context("mounting a tmpfs")?;
    let done = pins("install").and_then(|()| soak(time, lsbuf));
    pins("remove")?;
    unmount(FOLDER, UnmountFlags::DETACH).context("unmounting the tmpfs")?;
    Ok(if done? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the test. Returns the number of errors.
fn soak(time: Duration, lsbuf: &str) -> anyhow::Result<u64> {
    let mut log = KernelLog::open()?;
    let tree = memfd(TREE)?;
    let players = Players::start(&tree)?;
    let world = World::new(tree)?;
    let (begun, mut tally) = (Instant::now(), Tally::default());
    while begun.elapsed() < time {
        let before = Instant::now();
        let mut command = Command::new(lsbuf);
        command.args(["--json", "--source", "bpf", "--kind", "memfd,tmpfs,sysv,hugetlbfs", "--pins", PINS]);
        let answer = Answer::from(&mut command)?;
        tally.longest = tally.longest.max(before.elapsed());
        world.judge(&answer, &mut tally);
    }
    drop(players);
    for line in log.errors()? {
        tally.error(format!("the kernel's log: {line}"));
    }
    tally.print(begun.elapsed());
    Ok(tally.errors)
}

fn memfd(name: &str) -> anyhow::Result<OwnedFd> {
    memfd_create(name, MemfdFlags::CLOEXEC).context("making a memfd")
}

/// The processes that change the lists. They are killed when this is dropped.
struct Players(Vec<u32>);

impl Players {
    fn start(tree: &OwnedFd) -> anyhow::Result<Players> {
        let folder = Path::new(FOLDER);
        for name in ["one", "two", "mounts"] {
            create_dir(folder.join(name)).context("making a folder")?;
        }
        File::create(moving()[0].as_path()).context("making the file that moves")?;
        let mut players = Players(Vec::new());
        players.add(|| memfd("comes").map(drop))?;
        players.add(|| memfd("goes").map(drop))?;
        let mut ring: Vec<Option<OwnedFd>> = (0..900).map(|_| None).collect();
        let mut at = 0;
        players.add(move || {
            at = (at + 1) % ring.len();
            ring[at] = Some(memfd("ring")?);
            Ok(())
        })?;
        let place = folder.join("mounts");
        players.add(move || {
            mount("tmpfs", &place, "tmpfs", MountFlags::empty(), None).context("mounting")?;
            let file = File::create(place.join("file")).context("making a file")?;
            drop(file);
            unmount(&place, UnmountFlags::DETACH).context("unmounting")
        })?;
        let mapped = tree.try_clone().context("duplicating an fd")?;
        let len = sys::page_size();
        players.add(move || {
            let regions = [0; 4].map(|_| sys::map(&mapped, 0, len));
            regions.into_iter().try_for_each(|region| sys::unmap(region?))
        })?;
        let [here, there] = moving();
        players.add(move || {
            rename(&here, &there).context("renaming")?;
            rename(&there, &here).context("renaming")
        })?;
        let (linked, second) = (folder.join("linked"), folder.join("second"));
        File::create(&linked).context("making the file with two names")?;
        players.add(move || {
            hard_link(&linked, &second).context("linking")?;
            remove_file(&second).context("unlinking")
        })?;
        players.add(|| Segment::create(0, 1).map(drop))?;
        players.add(|| {
            let huge = memfd_create("huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB);
            huge.map(drop).context("making a memfd of huge pages")
        })?;
        Ok(players)
    }

    /// Starts a process that does this again and again. One that fails ends.
    fn add(&mut self, mut step: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.0.push(sys::fork(|| {
            // Many players leave little of two processors to a scan.
            let _ = setpriority_process(None, 5);
            loop {
                if let Err(error) = step() {
                    eprintln!("a player ends: {error:#}");
                    return 1;
                }
            }
        })?);
        Ok(())
    }
}

impl Drop for Players {
    fn drop(&mut self) {
        for pid in self.0.drain(..).filter_map(|pid| raw(pid).ok()) {
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

/// The two paths of the file that moves.
fn moving() -> [PathBuf; 2] {
    ["one/here", "two/there-is-the-file"].map(|name| Path::new(FOLDER).join(name))
}

/// What is expected of an object that is there all the time.
#[derive(Debug)]
struct Stable {
    /// One of them; empty: of the file that moves.
    name: String,
    size: u64,
    maps: usize,
    file: OwnedFd,
}

/// The objects that are there all the time, by device and number.
struct World(BTreeMap<(u64, u64), Stable>);

impl World {
    fn new(tree: OwnedFd) -> anyhow::Result<World> {
        let mut world = World(BTreeMap::new());
        for nth in 0..MEMFDS {
            let name = format!("stable-{nth}");
            let file = memfd(&name)?;
            let size = (nth as u64 % 7 + 1) * sys::page();
            rustix::fs::ftruncate(&file, size).context("sizing a memfd")?;
            let maps = usize::from(nth % MAPPED == 0);
            (0..maps).try_for_each(|_| sys::map(&file, 0, sys::page_size()).map(drop))?;
            world.add(Stable { name, size, maps, file })?;
        }
        let (create, mode) = (OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RWXU);
        let open = |path: &Path| rustix::fs::open(path, create, mode).context("opening a file");
        for nth in 0..FILES {
            let path = Path::new(FOLDER).join(format!("file-{nth}"));
            let file = open(&path)?;
            world.add(Stable { name: path.display().to_string(), size: 0, maps: 0, file })?;
        }
        let moves = moving();
        let find = || moves.iter().find_map(|path| File::open(path).ok());
        let file = std::iter::repeat_with(find).take(1000).flatten().next().context("opening what moves")?;
        world.add(Stable { name: String::new(), size: 0, maps: 0, file: file.into() })?;
        let linked = File::open(Path::new(FOLDER).join("linked")).context("opening what has two names")?;
        world.add(Stable { name: "?".to_owned(), size: 0, maps: 0, file: linked.into() })?;
        rustix::fs::ftruncate(&tree, sys::page()).context("sizing a memfd")?;
        (0..MAPPINGS).try_for_each(|_| sys::map_apart(&tree, 0, sys::page_size()).map(drop))?;
        world.add(Stable { name: TREE.to_owned(), size: sys::page(), maps: MAPPINGS, file: tree })?;
        Ok(world)
    }

    fn add(&mut self, stable: Stable) -> anyhow::Result<()> {
        let file = File::from(stable.file.as_fd().try_clone_to_owned().context("duplicating an fd")?);
        let facts = file.metadata().context("asking for a file's number")?;
        let before = self.0.insert((facts.dev(), facts.ino()), stable);
        ensure!(before.is_none(), "two objects with one number");
        Ok(())
    }

    /// Judges an answer.
    fn judge(&self, answer: &Answer, tally: &mut Tally) {
        tally.answers += 1;
        let mut found: HashMap<(u64, u64), u64> = HashMap::new();
        for buffer in answer.list("buffers").iter().filter(|buffer| buffer["kind"] != "sysv") {
            let Some(number) = number(buffer) else { continue };
            if let Some(stable) = self.0.get(&number) {
                *found.entry(number).or_default() += 1;
                if let Some(wrong) = stable.differs(buffer, tally) {
                    tally.error(format!("{}: {wrong}; {}", stable.name, answer.0["scan"]));
                }
            }
        }
        let notes = answer.0["scan"]["notes"].as_array().into_iter().flatten();
        let says_so = notes.filter_map(Value::as_str).any(|note| note.contains("missing"));
        tally.with_note += u64::from(says_so);
        for (number, stable) in &self.0 {
            match found.get(number) {
                Some(1) => {}
                None if says_so => tally.missing_with_note += 1,
                times => {
                    let times = times.copied().unwrap_or(0);
                    tally.error(format!("{} is there {times} times; {}", stable.name, answer.0["scan"]));
                }
            }
        }
    }
}

/// The device and inode number of a buffer.
fn number(buffer: &Value) -> Option<(u64, u64)> {
    let (major, minor) = buffer["dev"].as_str()?.split_once(':')?;
    let dev = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some((dev, buffer["ino"].as_u64()?))
}

impl Stable {
    /// What is wrong in the answer.
    fn differs(&self, buffer: &Value, tally: &mut Tally) -> Option<String> {
        tally.accounts += 1;
        let exact = buffer["estimate"] == false;
        tally.estimates += u64::from(!exact);
        if buffer["size"] != self.size {
            return Some(format!("size {}", buffer["size"]));
        }
        let name = buffer["name"].as_str();
        let right = match (&*self.name, name) {
            ("?", _) => true,
            ("", name) => name.is_none_or(|name| moving().iter().any(|path| Path::new(name) == path)),
            (expected, name) => name == Some(expected),
        };
        tally.nameless += u64::from(name.is_none());
        if !right {
            return Some(format!("name {name:?}"));
        }
        let holders = buffer["holders"].as_array()?;
        let Some(holder) = holders.iter().find(|holder| holder["pid"] == std::process::id()) else {
            return Some(format!("not held: {holders:?}"));
        };
        let of = |what: &str| holder[what].as_array().map_or(0, Vec::len);
        if of("fds") != 1 {
            return Some(format!("{} fds", of("fds")));
        }
        let kernel = &buffer["refs"]["kernel"];
        if exact && *kernel != 0 {
            return Some(format!("{kernel} references of the kernel, exactly"));
        }
        let maps = of("maps");
        if maps != self.maps && (exact || maps > self.maps) {
            return Some(format!("{maps} mappings, {kernel} references of the kernel"));
        }
        tally.maps_missing += u64::from(maps != self.maps);
        None
    }
}

/// The figures of the test.
#[derive(Debug, Default)]
struct Tally {
    answers: u64,
    accounts: u64,
    estimates: u64,
    nameless: u64,
    with_note: u64,
    missing_with_note: u64,
    /// How often mappings were missing, and the residual was an estimate.
    maps_missing: u64,
    longest: Duration,
    errors: u64,
}

impl Tally {
    fn error(&mut self, what: String) {
        self.errors += 1;
        if self.errors <= PRINTED {
            println!("ERROR (answer {}): {what}", self.answers);
        }
    }

    fn print(&self, took: Duration) {
        let Tally { answers, accounts, estimates, nameless, with_note, missing_with_note, .. } = self;
        let verdict = if self.errors == 0 { "passed" } else { "FAILED" };
        println!(
            "soak of the lists {verdict}: {} s, {answers} answers (the longest took {:?}), {accounts} accounts \
             ({estimates} estimates, {nameless} without a name, {} without all mappings), {with_note} answers \
             say that objects may be missing ({missing_with_note} are), {} errors",
            took.as_secs(),
            self.longest,
            self.maps_missing,
            self.errors,
        );
    }
}

/// What the kernel logs from now on.
struct KernelLog(OwnedFd);

impl KernelLog {
    fn open() -> anyhow::Result<KernelLog> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).context("opening /dev/kmsg")?;
        rustix::fs::seek(&log, rustix::fs::SeekFrom::End(0)).context("going to the end of /dev/kmsg")?;
        Ok(KernelLog(log))
    }

    /// The lines that tell of a mistake in the kernel.
    fn errors(&mut self) -> anyhow::Result<Vec<String>> {
        const WORDS: [&str; 6] = ["BUG", "WARNING", "Oops", "stall", "lockup", "Call Trace"];
        let (mut lines, mut line) = (Vec::new(), [0; 8192]);
        loop {
            match rustix::io::read(&self.0, &mut line) {
                Ok(n) => {
                    let text = String::from_utf8_lossy(&line[..n]);
                    lines.extend(WORDS.iter().any(|word| text.contains(word)).then(|| text.into_owned()));
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(lines),
                // Lines were overwritten before they were read.
                Err(rustix::io::Errno::PIPE) => {}
                Err(error) => return Err(error).context("reading /dev/kmsg"),
            }
        }
    }
}
