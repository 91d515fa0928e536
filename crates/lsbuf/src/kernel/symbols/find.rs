//! Finds the files with given build ids among those that a process executes.
//!
//! A path is never trusted: it may lead elsewhere in the process's mount namespace, or to another
//! file by now. What counts is the build id in the file. The file is opened through
//! `/proc/P/map_files`, which leads to it even if it was deleted. That needs CAP_CHECKPOINT_RESTORE
//! or CAP_SYS_ADMIN in the first user namespace. Without it the path is looked up below
//! `/proc/P/root`, without leaving it, and below our own root. Only regular files are opened: a
//! device may do something when it is opened, and a FIFO waits.
//!
//! Separate debug information is taken from `/usr/lib/debug/.build-id`, first below the process's
//! root and then below our own, if its build id is the same.
//!
//! **A build id can be forged.** It is a note that anybody can write into a file. So a file also
//! has an owner: what a file of root says counts for every stack ([`Module::is_roots`]), and what
//! another one says counts only for the stacks of the maker that it was found for.
//!
//! Limits: a process's files are looked at in the order of its mappings, and at most
//! [`MOST_FILES`]. Whoever executes a file with a forged build id, in a process that made or has a
//! buffer, decides what the functions in the stack of that buffer are called, if no file of root
//! with that build id was found.

use std::collections::{BTreeSet, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::LazyLock;
use std::time::Duration;

use memchr::memmem::Finder;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags, readlinkat};
use rustix::io::Result;
use rustix::path::Arg;

use super::copy::{File, copy};
use super::elf::Elf;
use crate::kernel::guard;
use crate::kernel::magic;
use crate::kernel::map_files;
use crate::kernel::maps::Line;
use crate::kernel::process::ProcessDir;
use crate::kernel::read;
use crate::kernel::root::ProcRoot;
use crate::kernel::tree::Folder;
use crate::model::{BuildId, Label, MapRef, Pid};

/// The most files of one process that are opened.
const MOST_FILES: usize = 4000;

/// A file that was found, as copies of what is needed of it.
#[derive(Debug)]
pub(super) struct Module {
    pub(super) build_id: BuildId,
    /// Its name without folders.
    pub(super) name: Label,
    /// Its segments.
    pub(super) elf: Elf,
    /// Whether only root can have written it, and its debug information.
    pub(super) is_roots: bool,
    /// Copies of the file and of its separate debug information, the better one first.
    pub(super) copies: Vec<OwnedFd>,
}

/// Looks for the files with these build ids in one process. `started`: it must have been started
/// then, in time after boot. Every call that could wait is marked, so this belongs into
/// [`guard::guarded`].
pub(super) fn find(
    root: &ProcRoot,
    pid: Pid,
    started: Option<Duration>,
    mut wanted: BTreeSet<BuildId>,
) -> Vec<Module> {
    let mut found = Vec::new();
    guard::now_about(Some(pid));
    let Ok(process) = ProcessDir::open(root, pid) else { return found };
    if started.is_some_and(|started| !is_same(&process, started)) {
        return found;
    }
    for (vma, path) in executed(&process).unwrap_or_default() {
        if wanted.is_empty() {
            break;
        }
        let Ok(pinned) = pin(process.dir(), &vma, &path) else { continue };
        // `maps` writes a line feed as `\012`, which a name may also have. The link has the name as
        // it is.
        let path = own_link(&pinned).unwrap_or(path);
        let Some(main) = readable(pinned) else { continue };
        let Some(build_id) = main.elf.build_id.filter(|id| wanted.remove(id)) else { continue };
        let debug = debug_file(process.dir(), &build_id);
        let both = || debug.iter().chain([&main]);
        let copies = both().filter_map(|opened| copy(&opened.file, &opened.elf).ok()).collect();
        let (name, is_roots) = (name_of(&path), both().all(|opened| opened.is_roots));
        found.push(Module { build_id, name, copies, is_roots, elf: main.elf });
    }
    guard::now_about(None);
    found
}

/// Whether the process is the one that was started then.
fn is_same(process: &ProcessDir, started: Duration) -> bool {
    process.identify().is_ok_and(|process| u128::from(process.start_time) == in_ticks(started))
}

/// A time in clock ticks, as procfs tells it.
pub(in crate::kernel) fn in_ticks(time: Duration) -> u128 {
    time.as_nanos() * u128::from(rustix::param::clock_ticks_per_second()) / 1_000_000_000
}

/// The first executable mapping of each file, and the file's path.
fn executed(process: &ProcessDir) -> Result<Vec<(MapRef, Vec<u8>)>> {
    static EXECUTABLE: LazyLock<[Finder<'_>; 2]> =
        LazyLock::new(|| [Finder::new(b"xp "), Finder::new(b"xs ")]);
    let (mut known, mut found) = (HashSet::new(), Vec::new());
    read::lines_with(process.image()?.maps(), &*EXECUTABLE, &mut Vec::new(), |_, line| {
        let Ok(Line { dev, ino, path, vma }) = Line::parse(line) else { return };
        let is_executable = vma.perms.is_some_and(|perms| perms.is_executable());
        if is_executable && path.starts_with(b"/") && found.len() < MOST_FILES && known.insert((dev, ino)) {
            found.push((vma, path.to_vec()));
        }
    })?;
    Ok(found)
}

/// Pins the file of a mapping. A path in `maps` is below our root if it can be reached from there,
/// else below that of the mount, which is the process's root in a container.
pub(in crate::kernel) fn pin(process: &Folder, vma: &MapRef, path: &[u8]) -> Result<OwnedFd> {
    process
        .pin(map_files::link(vma).as_str())
        .or_else(|_| below(&process.pin(c"root")?, path))
        .or_else(|_| below(&own_root()?, path))
}

fn own_root() -> Result<OwnedFd> {
    guard::open_at(None, CWD, c"/", OFlags::PATH | OFlags::CLOEXEC)
}

/// Pins a path below a folder that stands for the root.
fn below(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    path.into_with_c_str(|path| guard::open_below(root.as_fd(), path, flags, resolve))
}

/// An open ELF file.
pub(in crate::kernel) struct Opened {
    pub(in crate::kernel) file: File,
    pub(in crate::kernel) elf: Elf,
    is_roots: bool,
}

/// Opens a pinned file for reading, if it is a regular one, and reads it as an ELF file.
pub(in crate::kernel) fn readable(pinned: OwnedFd) -> Option<Opened> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let mask = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::UID;
    let facts = guard::stat_at(pinned.as_fd(), c"", flags, mask).ok()?;
    if FileType::from_raw_mode(facts.stx_mode.into()) != FileType::RegularFile {
        return None;
    }
    let others_write = Mode::from_raw_mode(facts.stx_mode.into()).intersects(Mode::WGRP | Mode::WOTH);
    // The server of a FUSE filesystem says what it likes of owner and mode.
    let is_roots = facts.stx_uid == 0
        && !others_write
        && guard::magic_of(pinned.as_fd()).is_ok_and(|magic| magic != magic::FUSE);
    let path = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File(path.into_with_c_str(|path| guard::open_at(None, CWD, path, flags)).ok()?);
    let elf = Elf::read(&file)?;
    Some(Opened { file, elf, is_roots })
}

/// Separate debug information, of which the path was made from the build id.
fn debug_file(process: &Folder, build_id: &BuildId) -> Option<Opened> {
    let text = build_id.to_string();
    // Those that the linker computes have twenty bytes.
    let (begin, rest) = text.split_at_checked(2)?;
    let path = format!("/usr/lib/debug/.build-id/{begin}/{rest}.debug");
    [process.pin(c"root"), own_root()].into_iter().flatten().find_map(|root| {
        let found = below(&root, path.as_bytes()).ok().and_then(readable)?;
        (found.elf.build_id == Some(*build_id)).then_some(found)
    })
}

/// The path of a pinned file, which marks deleted files.
fn own_link(pinned: &OwnedFd) -> Option<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", pinned.as_raw_fd());
    readlinkat(CWD, link, Vec::new()).ok().map(CString::into_bytes)
}

/// The last part of a path that marks deleted files.
fn name_of(path: &[u8]) -> Label {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Label::from(path.rsplit(|&byte| byte == b'/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{mknodat, open};

    use super::*;

    /// Check that a FIFO, a folder and a device are not opened.
    #[test]
    fn no_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        for path in [fifo.as_path(), folder.path(), "/dev/null".as_ref()] {
            let pinned = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            assert!(readable(pinned).is_none(), "{}", path.display());
        }
    }

    /// Check that links in the path do not lead out of the root.
    #[test]
    fn below_a_root() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("own"), "").unwrap();
        for (link, to) in
            [("up", "../../../../../../proc/version"), ("absolute", "/proc/version"), ("in", "/own")]
        {
            std::os::unix::fs::symlink(to, folder.path().join(link)).unwrap();
        }
        let root = open(folder.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        assert!(below(&root, b"/up").is_err());
        assert!(below(&root, b"/absolute").is_err());
        assert!(below(&root, b"/in").is_ok());
    }
}
