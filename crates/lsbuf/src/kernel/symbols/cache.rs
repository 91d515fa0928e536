//! Names of functions that were found once, kept in a file: the stack of a process that has exited
//! still has its names.
//!
//! The file begins with the eight bytes `lsbufsym`, the version (four bytes, now 1) and the CRC-32
//! of what follows (four bytes). Then come the places, the oldest first: the build id (20 bytes),
//! the offset in the file (eight bytes), the pid of the maker that the names are for (four bytes;
//! 0: they are for all) and when it was started, in nanoseconds after boot (eight bytes), the name
//! of the file (a text) and its functions (both as in [`answer`](super::answer)). A file that is
//! not exactly of this form is ignored as a whole.
//!
//! Names from the cache are printed as if they were read now, so nobody but root may be able to
//! write them. Folder and file must belong to root or to the caller, and group and others must not
//! be able to write to them. No link is followed. The file's group is that of its folder, and may
//! read it. Others may not, because what the functions of a user's own program are called is not
//! theirs to know.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, fchmod, fchown, fstat, mkdirat, openat, renameat,
    unlinkat,
};
use rustix::io::{Errno, Result, pread, write};
use rustix::process::{geteuid, getpid};

use super::answer::{Answer, put_text, take, take_answer, take_text};
use crate::kernel::read::retry;
use crate::model::{BuildId, Function, Label, Pid};

/// A process, by its pid and when it was started, in time after boot.
pub(crate) type Maker = (Pid, Duration);

/// A place in a file, and for whose stacks it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) build_id: BuildId,
    pub(crate) offset: u64,
    /// `None`: for all.
    pub(crate) maker: Option<Maker>,
}

/// What is at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The name of the file.
    pub(crate) module: Label,
    /// The functions, the innermost first.
    pub(crate) functions: Vec<Function>,
}

/// Places with their names, the oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    order: Vec<Place>,
    named: HashMap<Place, Named>,
}

const NAME: &str = "symbols";
const MAGIC: &[u8; 8] = b"lsbufsym";
const VERSION: u32 = 1;

/// The most bytes of a cache. The oldest places go first.
const MOST: usize = 4 << 20;

impl Names {
    pub(crate) fn get(&self, place: &Place) -> Option<&Named> {
        self.named.get(place)
    }

    pub(crate) fn insert(&mut self, place: Place, named: Named) {
        if self.named.insert(place, named).is_none() {
            self.order.push(place);
        }
    }

    /// All of them, as the file has them.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut entries: Vec<Vec<u8>> = Vec::new();
        let mut size = 0;
        for place in self.order.iter().rev() {
            let Some(Named { module, functions }) = self.named.get(place) else { continue };
            let mut entry = place.build_id.0.to_vec();
            entry.extend(place.offset.to_le_bytes());
            let (pid, started) = place.maker.unwrap_or((Pid(0), Duration::ZERO));
            entry.extend(pid.0.to_le_bytes());
            entry.extend(u64::try_from(started.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
            put_text(&mut entry, module);
            entry.extend(Answer(functions).to_bytes());
            size += entry.len();
            if size > MOST {
                break;
            }
            entries.push(entry);
        }
        entries.reverse();
        written(&entries.concat())
    }

    /// What a file has. `None`: it is not exactly of that form.
    pub(crate) fn parse(mut bytes: &[u8]) -> Option<Names> {
        let bytes = &mut bytes;
        let is_one = take(bytes)? == *MAGIC && u32::from_le_bytes(take(bytes)?) == VERSION;
        if !is_one || u32::from_le_bytes(take(bytes)?) != crc32fast::hash(bytes) {
            return None;
        }
        let mut names = Names::default();
        while !bytes.is_empty() {
            let build_id = BuildId(take(bytes)?);
            let offset = u64::from_le_bytes(take(bytes)?);
            let pid = u32::from_le_bytes(take(bytes)?);
            let started = Duration::from_nanos(u64::from_le_bytes(take(bytes)?));
            let maker = (pid != 0).then_some((Pid(pid), started));
            let (module, functions) = (take_text(bytes)?, take_answer(bytes)?);
            names.insert(Place { build_id, offset, maker }, Named { module, functions });
        }
        Some(names)
    }

    /// Reads the cache in a folder. `None`: there is none that can be trusted.
    pub(crate) fn read(folder: &Path) -> Option<Names> {
        let (dir, _) = trusted_folder(folder).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&dir, NAME, flags, Mode::empty()).ok()?;
        let facts = fstat(&file).ok()?;
        let is_file = FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile;
        // The header is no part of the places.
        let size = usize::try_from(facts.st_size).ok().filter(|&size| size <= MOST + 16)?;
        if !is_file || !is_trusted(&facts) {
            return None;
        }
        let mut bytes = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match retry(|| pread(&file, &mut bytes[filled..], u64::try_from(filled).unwrap_or(u64::MAX)))
                .ok()?
            {
                0 => break,
                n => filled += n,
            }
        }
        Names::parse(bytes.get(..filled)?)
    }

    /// Replaces the cache in a folder, which is made if it is missing.
    ///
    /// # Errors
    /// `EPERM`: others may write to the folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        match mkdirat(CWD, folder, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let (dir, facts) = trusted_folder(folder)?;
        // No other process uses this name. One that had this pid may have left the file behind.
        let new = format!("{NAME}.{}.new", getpid().as_raw_nonzero());
        let _ = unlinkat(&dir, &new, AtFlags::empty());
        let written = self.write_new(&dir, &new, &facts).and_then(|()| renameat(&dir, &new, &dir, NAME));
        if written.is_err() {
            let _ = unlinkat(&dir, &new, AtFlags::empty());
        }
        written
    }

    fn write_new(&self, dir: &OwnedFd, name: &str, folder: &Stat) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        let bytes = self.to_bytes();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let wrote = retry(|| write(&file, rest))?;
            rest = rest.get(wrote..).unwrap_or_default();
        }
        fchown(&file, None, Some(Gid::from_raw(folder.st_gid)))?;
        fchmod(&file, Mode::RUSR | Mode::WUSR | Mode::RGRP)
    }
}

/// The file with these places.
pub(crate) fn written(places: &[u8]) -> Vec<u8> {
    let check = crc32fast::hash(places);
    [&MAGIC[..], &VERSION.to_le_bytes(), &check.to_le_bytes(), places].concat()
}

/// Opens a folder that nobody but root or the caller can write to.
fn trusted_folder(folder: &Path) -> Result<(OwnedFd, Stat)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(CWD, folder, flags, Mode::empty())?;
    let facts = fstat(&dir)?;
    if is_trusted(&facts) { Ok((dir, facts)) } else { Err(Errno::PERM) }
}

fn is_trusted(facts: &Stat) -> bool {
    let is_owned = facts.st_uid == 0 || facts.st_uid == geteuid().as_raw();
    is_owned && !Mode::from_raw_mode(facts.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(count: u64) -> Names {
        let mut names = Names::default();
        for offset in 0..count {
            let maker = (offset % 2 == 1).then_some((Pid(7), Duration::from_nanos(offset)));
            let functions = vec![Function::new("f".into())];
            let named = Named { module: Label::from("lib\n.so"), functions };
            names.insert(Place { build_id: BuildId([3; 20]), offset, maker }, named);
        }
        names
    }

    /// Check that names come back, and only for whom they were.
    #[test]
    fn round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("lsbuf");
        names(9).write(&cache).unwrap();
        names(5).write(&cache).unwrap();
        assert_eq!(Names::read(&cache), Some(names(5)));
        let mode = fs::metadata(cache.join(NAME)).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, fs::read_dir(&cache).unwrap().count()), (0o640, 1));
    }

    /// Check that every single damaged byte, and every cut, makes the cache none.
    #[test]
    fn damage() {
        let good = names(3).to_bytes();
        assert_eq!(Names::parse(&good), Some(names(3)));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(Names::parse(&bad), None, "at {at}");
            assert_eq!(Names::parse(&good[..at]), None, "cut at {at}");
        }
    }

    /// Check that a cache is not read, nor written, where others can write, nor through a link, nor
    /// if it is no file, nor if it is too large.
    #[test]
    fn not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("lsbuf");
        names(3).write(&cache).unwrap();
        let file = cache.join(NAME);
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        mode(&cache, 0o775);
        assert_eq!((Names::read(&cache), names(3).write(&cache)), (None, Err(Errno::PERM)));
        mode(&cache, 0o755);
        mode(&file, 0o642);
        assert_eq!(Names::read(&cache), None);
        mode(&file, 0o640);
        assert!(Names::read(&cache).is_some());
        symlink(&cache, folder.path().join("link")).unwrap();
        assert_eq!(Names::read(&folder.path().join("link")), None);
        fs::rename(&file, cache.join("elsewhere")).unwrap();
        symlink("elsewhere", &file).unwrap();
        assert_eq!(Names::read(&cache), None);
        fs::remove_file(&file).unwrap();
        fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
        mode(&file, 0o640);
        assert_eq!(Names::read(&cache), None);
        fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(CWD, &file, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(Names::read(&cache), None);
    }

    /// Check that a cache that would be too large has the newest places, and can be read.
    #[test]
    fn the_oldest_go_first() {
        let names = names(80_000);
        let back = Names::parse(&names.to_bytes()).unwrap();
        assert!(names.to_bytes().len() <= MOST + 16);
        assert!(back.order.len() < names.order.len());
        assert_eq!(back.order.last(), names.order.last());
    }
}
