//! The executable mappings of a process, with the tables of those files that stacks lead to.
//!
//! A stack is full of numbers, and only some are return addresses. But a return address is always
//! among them (or in a register), so no file is opened to which no number leads.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;
use rustix::io::{Errno, Result};

use super::code::{self, Code, FileKey};
use crate::kernel::guard;
use crate::kernel::maps::Line;
use crate::kernel::process::ProcessDir;
use crate::kernel::read;
use crate::kernel::root::ProcRoot;
use crate::kernel::symbols::Maker;
use crate::kernel::symbols::find::{in_ticks, pin};
use crate::kernel::task;
use crate::model::{CodePlace, MapRef};

/// The most executable mappings of a process that are looked at.
const MOST_MAPPINGS: usize = 20_000;

/// The most files of one process whose tables are read for one call.
const MOST_FILES: usize = 1000;

/// A process that runs a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) maker: Maker,
    /// Where the code and the stack of the program begin.
    pub(super) start: (u64, u64),
}

/// Executable mappings, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) mappings: Vec<Mapping>,
}

/// An executable mapping.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
    /// `None`: no file, one that could not be read, or one to which nothing leads.
    pub(super) code: Option<Arc<Code>>,
}

impl Space {
    /// The mapping with that address.
    pub(super) fn at(&self, address: u64) -> Option<&Mapping> {
        let after = self.mappings.partition_point(|mapping| mapping.start <= address);
        self.mappings.get(after.checked_sub(1)?).filter(|mapping| address < mapping.end)
    }
}

impl Mapping {
    /// The place of an address, as the kernel tells it: without a build id it is only the address.
    pub(super) fn place(&self, address: u64) -> CodePlace {
        let build_id = self.code.as_ref().and_then(|code| code.elf.build_id);
        match (build_id, self.in_file(address)) {
            (Some(build_id), Some(offset)) => CodePlace::File { build_id, offset },
            _ => CodePlace::Address(address),
        }
    }

    /// Where in the file that address is.
    pub(super) fn in_file(&self, address: u64) -> Option<u64> {
        address.checked_sub(self.start)?.checked_add(self.offset)
    }
}

/// Reads the mappings of a process, and the tables of the files that these sorted numbers lead to.
/// Returns them with all files that are known then. `None`: it is not the same process, or it does
/// not run the same program. Every call that could wait is marked, so this belongs into
/// [`guard::guarded`].
pub(super) fn read(
    root: &ProcRoot,
    owner: Owner,
    words: &[u64],
    mut files: HashMap<FileKey, Arc<Code>>,
) -> Option<(Space, HashMap<FileKey, Arc<Code>>)> {
    let Owner { maker: (pid, started), start } = owner;
    guard::now_about(Some(pid));
    let process = ProcessDir::open(root, pid).ok()?;
    let executable = executable(&process).ok()?;
    // Read after the mappings: if they are of another program, this is, too.
    let mut stat = Vec::new();
    process.dir().read_record(c"stat", &mut stat).ok()?;
    let (_, ticks) = task::stat(&stat).ok()?;
    if u128::from(ticks) != in_ticks(started) || task::image_start(&stat).ok()? != start {
        return None;
    }
    let (mut space, mut opened) = (Space::default(), 0);
    for (vma, path) in executable {
        let first = words.partition_point(|word| *word < vma.start);
        let leads_there = words.get(first).is_some_and(|word| *word <= vma.end);
        let mut code = None;
        if leads_there && path.starts_with(b"/") && opened < MOST_FILES {
            opened += 1;
            code = pin(process.dir(), &vma, &path).ok().and_then(|pinned| code::of(pinned, &mut files));
        }
        let offset = vma.offset.unwrap_or_default();
        space.mappings.push(Mapping { start: vma.start, end: vma.end, offset, code });
    }
    guard::now_about(None);
    Some((space, files))
}

/// The executable mappings of a process, with their paths, in the order of their addresses.
fn executable(process: &ProcessDir) -> Result<Vec<(MapRef, Vec<u8>)>> {
    static EXECUTABLE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"x"));
    let mut found: Vec<(MapRef, Vec<u8>)> = Vec::new();
    let needles = std::slice::from_ref(&*EXECUTABLE);
    read::lines_with(process.image()?.maps(), needles, &mut Vec::new(), |_, line| {
        let Ok(Line { path, vma, .. }) = Line::parse(line) else { return };
        let is_executable = vma.perms.is_some_and(|perms| perms.is_executable());
        if is_executable && found.len() <= MOST_MAPPINGS {
            found.push((vma, path.to_vec()));
        }
    })?;
    found.sort_unstable_by_key(|(vma, _)| vma.start);
    if found.len() > MOST_MAPPINGS { Err(Errno::TOOBIG) } else { Ok(found) }
}
