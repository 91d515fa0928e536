//! The tables for unwinding of one file, as copies of its sections `.eh_frame` and `.eh_frame_hdr`.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, StatxFlags};

use crate::kernel::guard;
use crate::kernel::symbols::copy::File;
use crate::kernel::symbols::elf::{Bytes, Elf, Table};
use crate::kernel::symbols::find::readable;

/// The most bytes of a section that are read. Those of the largest browsers have half of it.
pub(super) const MOST: u64 = 64 << 20;

/// A file that is executed.
#[derive(Debug)]
pub(super) struct Code {
    /// Without its sections.
    pub(super) elf: Elf,
    /// `.eh_frame`, if it has one.
    pub(super) frames: Option<Section>,
    /// `.eh_frame_hdr`, if it has one.
    pub(super) index: Option<Section>,
}

/// A section.
#[derive(Debug)]
pub(super) struct Section {
    /// The address that the linker gave to it.
    pub(super) address: u64,
    pub(super) bytes: Vec<u8>,
}

impl Code {
    /// How many bytes of tables it has.
    pub(super) fn size(&self) -> usize {
        [&self.frames, &self.index].into_iter().flatten().map(|section| section.bytes.len()).sum()
    }

    fn new(mut elf: Elf, file: &File) -> Code {
        let (frames, index) = (elf.eh_frame.take(), elf.eh_frame_hdr.take());
        elf.sections = Vec::new();
        let section = |table: Option<Table>| table.and_then(|table| Section::read(&table, file));
        Code { frames: section(frames), index: section(index), elf }
    }
}

impl Section {
    /// `None`: it is too long, or the file ends before it does.
    fn read(table: &Table, file: &File) -> Option<Section> {
        let size = table.bytes.end.checked_sub(table.bytes.start).filter(|&size| size <= MOST)?;
        // A file that ends before is found out before so much memory is taken.
        let last = table.bytes.end.checked_sub(1)?;
        file.read_at(last, &mut [0]).filter(|&got| got == 1)?;
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        let got = file.read_at(table.bytes.start, &mut bytes)?;
        (got == bytes.len()).then_some(Section { address: table.address, bytes })
    }
}

/// What tells a file from all others, and from itself before it was changed: device, inode number,
/// size, and when it was changed.
pub(super) type FileKey = (u32, u32, u64, u64, i64, u32);

/// The tables of a pinned file, which are read only if they are not known already. `None`: it is no
/// regular ELF file.
pub(super) fn of(pinned: OwnedFd, files: &mut HashMap<FileKey, Arc<Code>>) -> Option<Arc<Code>> {
    let mask = StatxFlags::INO | StatxFlags::SIZE | StatxFlags::CTIME;
    let facts = guard::stat_at(pinned.as_fd(), c"", AtFlags::EMPTY_PATH, mask).ok()?;
    let changed = facts.stx_ctime;
    let key = (
        facts.stx_dev_major,
        facts.stx_dev_minor,
        facts.stx_ino,
        facts.stx_size,
        changed.tv_sec,
        changed.tv_nsec,
    );
    if let Some(code) = files.get(&key) {
        return Some(Arc::clone(code));
    }
    let opened = readable(pinned)?;
    let code = Arc::new(Code::new(opened.elf, &opened.file));
    files.insert(key, Arc::clone(&code));
    Some(code)
}
