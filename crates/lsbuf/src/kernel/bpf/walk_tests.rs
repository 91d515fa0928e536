//! Tests of the iterator over inodes of shared memory while the kernel's lists change under it, and
//! with readings that stop at every place.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::fs::{File, create_dir, hard_link, remove_file, rename};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::native_tests::load;
use super::record::{Id, Record, ShmWalk};
use super::*;
use crate::model::Dev;

/// How many readings a test makes while something changes.
const READINGS: usize = 300;

/// An inode that was listed.
#[derive(Clone, Debug)]
struct Listed {
    dev: Dev,
    ino: u64,
    opens: Option<u64>,
    name: Vec<u8>,
    path: Option<Vec<u8>>,
    maps: Vec<u64>,
}

/// One reading.
#[derive(Debug, Default)]
struct Walked {
    /// Only inodes whose name begins with this are kept. There may be very many others.
    only: Vec<u8>,
    inodes: HashMap<Id, Listed>,
    /// The inode that was listed last.
    last: Option<(Dev, u64)>,
    /// How many regular files of each filesystem nobody holds.
    unheld: HashMap<Dev, u64>,
    walk: Option<ShmWalk>,
}

impl Walked {
    fn take(&mut self, record: &Record<'_>) {
        match record {
            Record::ShmInode(inode) => {
                let (dev, ino, opens) = (inode.inode.dev, inode.inode.ino.0, inode.opens);
                let (name, path) = (inode.names.name().to_vec(), inode.names.path());
                self.last = Some((dev, ino));
                if name.starts_with(&self.only) {
                    let maps = Vec::new();
                    self.inodes.insert(inode.object, Listed { dev, ino, opens, name, path, maps });
                }
            }
            Record::ShmVma(found) => {
                if let Some(inode) = self.inodes.get_mut(&found.vma.of.object) {
                    inode.maps.push(found.vma.start);
                }
            }
            Record::ShmFilesystem(found) => {
                self.unheld.insert(found.dev, found.unheld.files);
            }
            Record::ShmWalk(found) => self.walk = Some(*found),
            _ => {}
        }
    }

    fn is_cut(&self) -> bool {
        self.walk.unwrap().inodes_cut
    }

    /// The inode with that name.
    fn named(&self, name: &[u8]) -> Option<&Listed> {
        self.inodes.values().find(|inode| inode.name == name)
    }
}

/// Reads the iterator in one go.
fn walk(probes: &mut Probes) -> Walked {
    let mut walked = Walked::default();
    probes.read(Iterator::ShmemInodes, |record| walked.take(&record)).unwrap();
    walked
}

/// Loads the iterator with so many moves in each step.
fn load_with(moves: u32) -> Option<Probes> {
    let mut probes = load(&[Iterator::ShmemInodes])?;
    let loader = probes.loader.as_mut().unwrap();
    loader.moves = Some(moves);
    let mut loaded = loader.load(&[Iterator::ShmemInodes], &[]).unwrap();
    let nothing = Err(Unavailable::NotRequested);
    let at = Iterator::ShmemInodes as usize;
    probes.probes[at] = std::mem::replace(&mut loaded[at], nothing);
    assert!(probes.why_not(Iterator::ShmemInodes).is_none());
    Some(probes)
}

/// One reading that is read piece by piece.
struct Session {
    file: OwnedFd,
    kept: Vec<u8>,
    walked: Walked,
    ended: bool,
}

impl Session {
    fn open(probes: &Probes, only: &str) -> Session {
        let walked = Walked { only: only.into(), ..Walked::default() };
        Session { file: probes.open(Iterator::ShmemInodes).unwrap(), kept: Vec::new(), walked, ended: false }
    }

    /// Reads one piece.
    fn read(&mut self, size: usize) {
        let mut piece = vec![0; size];
        let n = match rustix::io::read(&self.file, &mut piece) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            n => n.unwrap(),
        };
        self.kept.extend(&piece[..n]);
        let done = record::each(&self.kept, |record| self.walked.take(&record)).unwrap();
        self.kept.drain(..done);
        self.ended = n == 0 || self.walked.walk.is_some();
    }

    fn finish(mut self, size: usize) -> Walked {
        while !self.ended {
            self.read(size);
        }
        self.walked
    }
}

fn memfd(name: &str) -> File {
    File::from(memfd_create(name, MemfdFlags::CLOEXEC).unwrap())
}

/// A folder that is removed in the end, or a tmpfs that is unmounted first.
struct Folder {
    path: PathBuf,
    mounted: bool,
}

impl Folder {
    fn new(name: &str) -> Folder {
        let path = PathBuf::from(format!("/dev/shm/lsbuf-{name}-{}", std::process::id()));
        create_dir(&path).unwrap();
        Folder { path, mounted: false }
    }

    /// With a tmpfs on it, if this process may mount one.
    fn mounted(name: &str) -> Option<Folder> {
        let mut folder = Folder::new(name);
        match mount("tmpfs", &folder.path, "tmpfs", MountFlags::empty(), None::<&CStr>) {
            Err(why) => {
                eprintln!("skipped: mounting: {why}");
                None
            }
            Ok(()) => {
                folder.mounted = true;
                Some(folder)
            }
        }
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    fn dev(&self) -> u64 {
        std::fs::metadata(&self.path).unwrap().dev()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.mounted {
            let _ = unmount(&self.path, UnmountFlags::DETACH);
        }
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Calls `work` again and again in another thread while `meanwhile` runs.
fn amid<T>(mut work: impl FnMut() + Send, meanwhile: impl FnOnce() -> T) -> T {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                work();
            }
        });
        // So that a panic ends the thread, too.
        struct End<'e>(&'e AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _end = End(&ended);
        meanwhile()
    })
}

/// Check that a file is listed while the oldest of its 40 names is open.
#[test]
fn many_names() {
    let Some(mut probes) = load(&[Iterator::ShmemInodes]) else { return };
    let folder = Folder::new("names");
    let file = File::create(folder.at("first")).unwrap();
    (0..40).for_each(|nth| hard_link(folder.at("first"), folder.at(format!("{nth}"))).unwrap());
    let ino = file.metadata().unwrap().ino();
    let find = |walked: &Walked| walked.inodes.values().find(|inode| inode.ino == ino).cloned();
    assert_eq!(find(&walk(&mut probes)).unwrap().opens, Some(1));
    drop(file);
    assert!(find(&walk(&mut probes)).is_none());
}

/// Check that a file with more names than are looked at is listed, without a number of open files.
#[test]
fn too_many_names() {
    let Some(mut probes) = load(&[Iterator::ShmemInodes]) else { return };
    let folder = Folder::new("more-names");
    let file = File::create(folder.at("first")).unwrap();
    (0..400).for_each(|nth| hard_link(folder.at("first"), folder.at(format!("{nth}"))).unwrap());
    let ino = file.metadata().unwrap().ino();
    let walked = walk(&mut probes);
    let found = walked.inodes.values().find(|inode| inode.ino == ino).unwrap();
    assert_eq!(found.opens, None);
}

/// Check that an open file is listed in each reading while another of its names comes and goes.
#[test]
fn a_name_that_comes_and_goes() {
    let Some(mut probes) = load(&[Iterator::ShmemInodes]) else { return };
    let folder = Folder::new("comes");
    let (first, second) = (folder.at("first"), folder.at("second"));
    let file = File::create(&first).unwrap();
    let ino = file.metadata().unwrap().ino();
    let comes_and_goes = || {
        hard_link(&first, &second).unwrap();
        remove_file(&second).unwrap();
    };
    amid(comes_and_goes, || {
        for nth in 0..READINGS {
            let walked = walk(&mut probes);
            let found = walked.inodes.values().find(|inode| inode.ino == ino);
            let found = found.unwrap_or_else(|| panic!("not in reading {nth}"));
            assert!(found.opens.is_none_or(|opens| opens >= 1), "{found:?}");
        }
    });
}

/// Check that while a file is moved between two folders under two names, no reading has a path that
/// it never had.
#[test]
fn a_file_that_moves() {
    let Some(mut probes) = load(&[Iterator::ShmemInodes]) else { return };
    let folder = Folder::new("moves");
    create_dir(folder.at("one")).unwrap();
    create_dir(folder.at("two")).unwrap();
    let (here, there) = (folder.at("one/aaaaaaaaaaaa"), folder.at("two/bbbbbb"));
    let below = |path: &PathBuf| path.as_os_str().as_bytes()["/dev/shm".len()..].to_vec();
    let real: HashSet<Vec<u8>> = [below(&here), below(&there)].into();
    let file = File::create(&here).unwrap();
    let ino = file.metadata().unwrap().ino();
    let moves = || {
        rename(&here, &there).unwrap();
        rename(&there, &here).unwrap();
    };
    let mut known = 0;
    amid(moves, || {
        for _ in 0..READINGS {
            let walked = walk(&mut probes);
            let found = walked.inodes.values().find(|inode| inode.ino == ino).unwrap();
            let Some(path) = &found.path else { continue };
            assert!(real.contains(path), "{}", String::from_utf8_lossy(path));
            known += 1;
        }
    });
    assert!(known > 0);
}

/// Check that names of any bytes are passed on as they are, and that only the name is told of a
/// file that is deeper than folders are looked at.
#[test]
fn names_of_any_bytes_and_depth() {
    let Some(mut probes) = load(&[Iterator::ShmemInodes]) else { return };
    let folder = Folder::new("bytes");
    let longest = [b'x'; 255];
    let names: [&[u8]; 6] = [b"a\nb", b"\xff\xfe", b"x (deleted)", b"\\040 \t", b"\x01", &longest];
    let _files: Vec<File> =
        names.iter().map(|name| File::create(folder.at(OsStr::from_bytes(name))).unwrap()).collect();
    let mut deep = folder.path.clone();
    for _ in 0..70 {
        deep.push("d");
        create_dir(&deep).unwrap();
    }
    let _deepest = File::create(deep.join("deepest")).unwrap();
    let walked = walk(&mut probes);
    for name in names {
        let path = walked.named(name).unwrap().path.clone().unwrap();
        assert_eq!(path, [&folder.path.as_os_str().as_bytes()["/dev/shm".len()..], b"/", name].concat());
    }
    assert_eq!(walked.named(b"deepest").unwrap().path, None);
}

/// Check that the list is whole, and each mapping once, if the walk stops after every few moves.
#[test]
#[allow(unsafe_code)]
fn stops_everywhere() {
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
    let page = page_size();
    let name = |nth: usize| format!("stops-{}-{nth}", std::process::id());
    let made: Vec<File> = (0..50).map(|nth| memfd(&name(nth))).collect();
    let mut mapped: Vec<_> = (0..60)
        .map(|_| {
            // SAFETY: the kernel chooses the place, and nothing is read or written there.
            unsafe { mmap(std::ptr::null_mut(), page, ProtFlags::READ, MapFlags::SHARED, &made[7], 0) }
                .unwrap()
        })
        .collect();
    mapped.sort_unstable();
    for moves in [2, 3, 5, 17, 64] {
        let Some(probes) = load_with(moves) else { break };
        let walked = Session::open(&probes, "memfd:stops-").finish(16 * page);
        // So many other files may be here that there are not enough steps.
        assert!(!walked.is_cut() || moves < 17);
        for nth in (0..made.len()).filter(|_| !walked.is_cut()) {
            let found = walked.named(format!("memfd:{}", name(nth)).as_bytes()).unwrap();
            let mut maps = found.maps.clone();
            maps.sort_unstable();
            let expected = if nth == 7 { mapped.iter().map(|at| at.addr() as u64).collect() } else { vec![] };
            assert_eq!(maps, expected, "{moves} moves");
        }
    }
    for at in mapped {
        // SAFETY: the mapping was made above, and nothing refers to it.
        unsafe { munmap(at, page) }.unwrap();
    }
}

/// Check that files that nobody holds are counted once, however often the walk has to go back
/// because the file at which it stopped was removed.
#[test]
fn counted_once() {
    const FILES: u64 = 400;
    // Held and other files take turns. With an odd number, half of the steps stop at a held one.
    let Some(probes) = load_with(15) else { return };
    let Some(folder) = Folder::mounted("counted") else { return };
    let held = |nth: u64| {
        drop(File::create(folder.at(nth.to_string())).unwrap());
        let path = folder.at("held");
        let file = File::create(&path).unwrap();
        remove_file(path).unwrap();
        (file.metadata().unwrap().ino(), file)
    };
    let mut held: HashMap<u64, File> = (0..FILES).map(held).collect();
    let own = folder.dev();
    let dev = Dev { major: rustix::fs::major(own), minor: rustix::fs::minor(own) };
    let (mut session, mut removed) = (Session::open(&probes, "held"), 0);
    while !session.ended {
        session.read(64);
        let last = session.walked.last.filter(|(of, _)| *of == dev);
        removed += usize::from(last.is_some_and(|(_, ino)| held.remove(&ino).is_some()));
    }
    assert!(!session.walked.is_cut());
    assert!(removed > 20, "{removed}");
    assert_eq!(session.walked.unheld[&dev], FILES);
}

/// Check that no filesystem is passed over if the one that is walked is unmounted, and others are
/// mounted, which may get its memory.
#[test]
fn a_filesystem_that_goes() {
    let Some(probes) = load_with(16) else { return };
    for round in 0..5 {
        let Some(walked) = Folder::mounted("goes-1") else { return };
        let Some(after) = Folder::mounted("goes-2") else { return };
        let name = |nth: usize| format!("goes-{}-{round}-{nth}", std::process::id());
        let many: Vec<File> =
            (0..200).map(|nth| File::create(walked.at(format!("w{nth}"))).unwrap()).collect();
        let stable: Vec<File> = (0..20).map(|nth| File::create(after.at(name(nth))).unwrap()).collect();
        let gone = walked.dev();
        let mut session = Session::open(&probes, "");
        let is_there = |(dev, _): (Dev, u64)| rustix::fs::makedev(dev.major, dev.minor) == gone;
        while !session.walked.last.is_some_and(is_there) {
            session.read(64);
        }
        drop(many);
        drop(walked);
        // The memory of a superblock is freed a grace period later.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let new: Vec<Folder> = (0..12).map_while(|nth| Folder::mounted(&format!("goes-3-{nth}"))).collect();
        let new_files: Vec<File> = new.iter().map(|new| File::create(new.at("new")).unwrap()).collect();
        let found = session.finish(64);
        for nth in 0..stable.len() {
            assert!(
                found.named(name(nth).as_bytes()).is_some() || found.is_cut(),
                "round {round}, file {nth}"
            );
        }
        let numbers: HashSet<(u64, u64)> =
            new_files.iter().map(|file| file.metadata().unwrap()).map(|new| (new.dev(), new.ino())).collect();
        for inode in found.inodes.values().filter(|inode| inode.name == b"new") {
            let number = (rustix::fs::makedev(inode.dev.major, inode.dev.minor), inode.ino);
            assert!(numbers.contains(&number), "{inode:?}");
        }
    }
}

/// Check that each of many readings at once is whole or says that it is not, and that nearly all
/// are whole if there are cursors enough. Other tests change the lists meanwhile, which can cut
/// one.
#[test]
fn readings_at_once() {
    let Some(probes) = load(&[Iterator::ShmemInodes]) else { return };
    let name = |nth: usize| format!("memfd:at-once-{}-{nth}", std::process::id());
    let made: Vec<File> = (0..400).map(|nth| memfd(&name(nth)["memfd:".len()..])).collect();
    for (readings, may_be_cut) in [(300, false), (1200, true)] {
        let open = |_| Session::open(&probes, "memfd:at-once-");
        let mut sessions: Vec<Session> = (0..readings).map(open).collect();
        while sessions.iter().any(|session| !session.ended) {
            sessions.iter_mut().filter(|session| !session.ended).for_each(|session| session.read(64 << 10));
        }
        let (cut, whole): (Vec<Session>, _) =
            sessions.into_iter().partition(|session| session.walked.is_cut());
        for session in whole {
            let names: HashSet<&[u8]> = session.walked.inodes.values().map(|inode| &inode.name[..]).collect();
            assert!((0..made.len()).all(|nth| names.contains(name(nth).as_bytes())));
        }
        assert!(may_be_cut || cut.len() * 10 < readings, "{} of {readings} are cut", cut.len());
    }
}

/// Check that readings that are given up half way take nothing from those that follow.
#[test]
fn readings_given_up() {
    let Some(mut probes) = load(&[Iterator::ShmemInodes]) else { return };
    let made: Vec<File> = (0..400).map(|nth| memfd(&format!("given-up-{nth}"))).collect();
    for _ in 0..3000 {
        Session::open(&probes, "").read(64);
    }
    let walked = walk(&mut probes);
    assert!(!walked.is_cut());
    let inode = made[0].as_fd();
    let ino = rustix::fs::fstat(inode).unwrap().st_ino;
    assert!(walked.inodes.values().any(|inode| inode.ino == ino));
}
