//! A private copy of the parts of an ELF file that have symbols.
//!
//! The parser of symbols maps its file. If an untrusted user cut the file off meanwhile, the next
//! access would be a fatal signal, and a file of a hanging filesystem would never answer. So the
//! parts are read here, through [`guard`], into a memfd that nobody else has. Each part is at the
//! same place as in the file, and what is between is a hole. Sections that were left out are marked
//! as such in the copy, so that the parser does not look for them.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, pwrite};

use super::elf::{Bytes, Elf, SHT_NOBITS};
use crate::kernel::guard;
use crate::kernel::read::retry;

/// The most bytes that are copied of a file. The debug information of a large browser is larger;
/// its functions then have no names.
const MOST: u64 = 256 << 20;

/// How much is copied at once; no page size.
const PIECE: usize = 256 << 10;

/// A file of another process.
pub(in crate::kernel) struct File(pub(super) OwnedFd);

impl Bytes for File {
    fn read_at(&self, at: u64, into: &mut [u8]) -> Option<usize> {
        let mut filled = 0;
        while filled < into.len() {
            let next = at.checked_add(u64::try_from(filled).ok()?)?;
            match retry(|| guard::read_at(None, self.0.as_fd(), &mut into[filled..], next)).ok()? {
                0 => break,
                n => filled += n,
            }
        }
        Some(filled)
    }
}

/// Copies the header, the tables, and the sections with names.
pub(super) fn copy(file: &impl Bytes, elf: &Elf) -> Result<OwnedFd, Errno> {
    const NAME: &CStr = c"lsbuf-symbols";
    let copy = memfd_create(NAME, MemfdFlags::CLOEXEC)?;
    let parts = elf.sections.iter().filter(|section| section.has_names).map(|section| &section.bytes);
    let (mut piece, mut left) = (vec![0; PIECE], MOST);
    for part in elf.tables.iter().chain(parts) {
        left = left.checked_sub(part.end - part.start).ok_or(Errno::FBIG)?;
        let mut at = part.start;
        while at < part.end {
            let room = usize::try_from(part.end - at).unwrap_or(PIECE).min(PIECE);
            let got = file.read_at(at, &mut piece[..room]).ok_or(Errno::IO)?;
            // The file ends before the part does.
            if got == 0 {
                break;
            }
            write(&copy, &piece[..got], at)?;
            at += u64::try_from(got).map_err(|_| Errno::FBIG)?;
        }
    }
    for section in elf.sections.iter().filter(|section| !section.has_names) {
        write(&copy, &SHT_NOBITS.to_ne_bytes(), section.kind_at)?;
    }
    Ok(copy)
}

fn write(copy: &OwnedFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let wrote = retry(|| pwrite(copy, bytes, at))?;
        if wrote == 0 {
            return Err(Errno::NOSPC);
        }
        bytes = bytes.get(wrote..).unwrap_or_default();
        at = at.checked_add(u64::try_from(wrote).map_err(|_| Errno::FBIG)?).ok_or(Errno::FBIG)?;
    }
    Ok(())
}
