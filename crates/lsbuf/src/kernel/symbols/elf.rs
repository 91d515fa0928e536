//! What is needed of an ELF file before its symbols are read: the build id, where its segments are,
//! which sections have symbols, and which have the tables for unwinding.
//!
//! The file may be an untrusted user's, so every number in it may be a lie. All sizes have limits,
//! no step is repeated because the file says so, and a part that does not fit is left out. The
//! build id is found as the kernel finds it (`parse_build_id_buf` in lib/buildid.c): the first note
//! `NT_GNU_BUILD_ID` of the owner `GNU` with one to twenty bytes.
//!
//! Limits: only files in this machine's byte order, which are all that it runs. A file with more
//! than 65,535 sections counts as one without sections.

use std::ops::Range;

use crate::model::BuildId;

/// Where a file's bytes come from.
pub(crate) trait Bytes {
    /// Reads bytes at `at`, as many as there are. `None`: that failed.
    fn read_at(&self, at: u64, into: &mut [u8]) -> Option<usize>;
}

impl Bytes for &[u8] {
    fn read_at(&self, at: u64, into: &mut [u8]) -> Option<usize> {
        let rest = usize::try_from(at).ok().and_then(|at| self.get(at..)).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Some(len)
    }
}

/// The most program headers that are looked at. The kernel runs no program with more than fit in
/// 64 KiB.
const SEGMENTS: usize = 1170;

/// The most bytes of one segment of notes, and of all names of sections.
const NOTES: u64 = 64 << 10;
const NAMES: u64 = 4 << 20;

/// The most segments of notes that are read.
const NOTE_SEGMENTS: usize = 16;

/// An ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elf {
    /// The build id. `None`: it has none.
    pub(crate) build_id: Option<BuildId>,
    /// The segments that are mapped.
    pub(crate) segments: Vec<Segment>,
    /// The bytes of the header and of the two tables, by their place in the file.
    pub(crate) tables: Vec<Range<u64>>,
    /// The sections, in the order of the file.
    pub(crate) sections: Vec<Section>,
    /// The section `.eh_frame`, which says how to find the caller of each function.
    pub(crate) eh_frame: Option<Table>,
    /// The section `.eh_frame_hdr`, which has an index of it.
    pub(crate) eh_frame_hdr: Option<Table>,
}

/// A section that is mapped when the file runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// The address that the linker gave to it.
    pub(crate) address: u64,
    /// Its bytes in the file.
    pub(crate) bytes: Range<u64>,
}

/// A part of the file that is mapped when it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    offset: u64,
    size: u64,
    address: u64,
}

#[cfg(test)]
impl Segment {
    /// A segment with the first bytes of the file, from that address on.
    pub(crate) fn first(size: u64, address: u64) -> Segment {
        Segment { offset: 0, size, address }
    }
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    /// Where the four bytes of its type are in the file.
    pub(crate) kind_at: u64,
    /// Whether it has symbols, names of symbols, or debug information.
    pub(crate) has_names: bool,
    /// Its bytes in the file.
    pub(crate) bytes: Range<u64>,
}

impl Elf {
    /// Reads what is described above. `None`: it is no ELF file of this machine.
    pub(crate) fn read(file: &impl Bytes) -> Option<Elf> {
        let header = Header::read(file)?;
        let mut elf = Elf::default();
        elf.tables.push(0..header.layout.header);
        let mut notes = Vec::new();
        if let Some((entries, at)) = table(file, &header.segments, SEGMENTS) {
            for entry in entries.chunks_exact(header.segments.each) {
                let Some((kind, segment)) = header.layout.segment(entry) else { break };
                match kind {
                    PT_LOAD => elf.segments.push(segment),
                    PT_NOTE => notes.push(segment),
                    _ => {}
                }
            }
            elf.tables.push(at);
        }
        let read_notes = |segment: &Segment| {
            let bytes = read(file, segment.offset, segment.size.min(NOTES))?;
            build_id(&bytes)
        };
        elf.build_id = notes.iter().take(NOTE_SEGMENTS).find_map(read_notes);
        Some(elf).map(|elf| elf.with_sections(file, &header))
    }

    fn with_sections(mut self, file: &impl Bytes, header: &Header) -> Elf {
        let Some((entries, at)) = table(file, &header.sections, usize::from(u16::MAX)) else { return self };
        let found: Vec<(RawSection, u64)> = entries
            .chunks_exact(header.sections.each)
            .zip((at.start..).step_by(header.sections.each))
            .map_while(|(entry, at)| Some((header.layout.section(entry)?, at + 4)))
            .collect();
        let names = found
            .get(header.names)
            .and_then(|(names, _)| read(file, names.offset, names.size.min(NAMES)))
            .unwrap_or_default();
        self.tables.push(at);
        for (raw, kind_at) in found {
            let name = usize::try_from(raw.name).ok().and_then(|at| names.get(at..)).unwrap_or_default();
            let is_debug = name.starts_with(b".debug_") && !name.starts_with(b".debug_sup\0");
            let has_names = (matches!(raw.kind, SHT_SYMTAB | SHT_STRTAB | SHT_DYNSYM)
                || raw.kind == SHT_PROGBITS && is_debug)
                && raw.flags & SHF_COMPRESSED == 0;
            let bytes = range(raw.offset, if raw.kind == SHT_NOBITS { 0 } else { raw.size });
            let table = || bytes.clone().map(|bytes| Table { address: raw.address, bytes });
            if name.starts_with(b".eh_frame\0") {
                self.eh_frame = table();
            } else if name.starts_with(b".eh_frame_hdr\0") {
                self.eh_frame_hdr = table();
            }
            self.sections.extend(bytes.map(|bytes| Section { kind_at, has_names, bytes }));
        }
        self
    }

    /// The address that the linker gave to a byte of the file. `None`: it is in no segment.
    pub(crate) fn address_of(&self, offset: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let into = offset.checked_sub(segment.offset).filter(|&into| into < segment.size)?;
            segment.address.checked_add(into)
        })
    }
}

/// The build id in a segment of notes.
pub(crate) fn build_id(notes: &[u8]) -> Option<BuildId> {
    const HEADER: usize = 12;
    let mut rest = notes;
    // Each step takes twelve bytes or more.
    while let Some((header, after)) = rest.split_at_checked(HEADER) {
        let (owner, size, kind) = (word(header, 0)?, word(header, 4)?, word(header, 8)?);
        let (owner, size) = (usize::try_from(owner).ok()?, usize::try_from(size).ok()?);
        let value_at = owner.checked_next_multiple_of(4)?;
        let is_it = kind == NT_GNU_BUILD_ID && owner == 4 && after.get(..4) == Some(b"GNU\0");
        if is_it && (1..=20).contains(&size) {
            let mut id = BuildId([0; 20]);
            id.0[..size].copy_from_slice(after.get(value_at..value_at.checked_add(size)?)?);
            return Some(id);
        }
        rest = after.get(value_at.checked_add(size.checked_next_multiple_of(4)?)?..)?;
    }
    None
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;
const SHT_PROGBITS: u32 = 1;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
/// A section that has no bytes in the file.
pub(crate) const SHT_NOBITS: u32 = 8;
const SHT_DYNSYM: u32 = 11;
const SHF_COMPRESSED: u64 = 0x800;

/// A table of headers in the file: where, how many entries, and how large each is.
struct Headers {
    at: u64,
    count: usize,
    each: usize,
}

struct Header {
    layout: Layout,
    segments: Headers,
    sections: Headers,
    /// The index of the section with the sections' names.
    names: usize,
}

/// What differs between files of 32 and of 64 bits.
struct Layout {
    wide: bool,
    /// Size of the file's header.
    header: u64,
}

struct RawSection {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
}

impl Header {
    fn read(file: &impl Bytes) -> Option<Header> {
        const NATIVE: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
        let bytes = read(file, 0, 64)?;
        let &[0x7f, b'E', b'L', b'F', class @ (1 | 2), NATIVE, ..] = bytes.as_slice() else { return None };
        let wide = class == 2;
        let layout = Layout { wide, header: if wide { 64 } else { 52 } };
        let counts = if wide { 54 } else { 42 };
        let [each_segment, segments, each_section, sections, names] =
            [0, 2, 4, 6, 8].map(|at| half(&bytes, counts + at).map(usize::from));
        let (at_segments, at_sections) = if wide { (32, 40) } else { (28, 32) };
        let table = |at, count, each: Option<usize>, least| {
            let (at, each) = (layout.number(&bytes, at)?, each?);
            // A file may have no such table. Its entries then have no size.
            let count = if each < least || at == 0 { 0 } else { count };
            Some(Headers { at, count, each: each.max(least) })
        };
        let (least_segment, least_section) = if wide { (56, 64) } else { (32, 40) };
        Some(Header {
            segments: table(at_segments, segments?, each_segment, least_segment)?,
            sections: table(at_sections, sections?, each_section, least_section)?,
            names: names?,
            layout,
        })
    }
}

impl Layout {
    /// An address, offset or size.
    fn number(&self, bytes: &[u8], at: usize) -> Option<u64> {
        if self.wide {
            bytes.get(at..)?.first_chunk().map(|&bytes| u64::from_ne_bytes(bytes))
        } else {
            word(bytes, at).map(u64::from)
        }
    }

    fn segment(&self, entry: &[u8]) -> Option<(u32, Segment)> {
        let [offset, address, size] = if self.wide { [8, 16, 32] } else { [4, 8, 16] };
        let segment = Segment {
            offset: self.number(entry, offset)?,
            address: self.number(entry, address)?,
            size: self.number(entry, size)?,
        };
        Some((word(entry, 0)?, segment))
    }

    fn section(&self, entry: &[u8]) -> Option<RawSection> {
        let [flags, address, offset, size] = if self.wide { [8, 16, 24, 32] } else { [8, 12, 16, 20] };
        Some(RawSection {
            name: word(entry, 0)?,
            kind: word(entry, 4)?,
            flags: self.number(entry, flags)?,
            address: self.number(entry, address)?,
            offset: self.number(entry, offset)?,
            size: self.number(entry, size)?,
        })
    }
}

/// The bytes of a table, if it has entries and at most `most`, and where they are.
fn table(file: &impl Bytes, table: &Headers, most: usize) -> Option<(Vec<u8>, Range<u64>)> {
    let count = Some(table.count).filter(|count| (1..=most).contains(count))?;
    let size = u64::try_from(count.checked_mul(table.each)?).ok()?;
    // Entries can be said to be larger than they are. Those of a real file are 64 bytes at most.
    let size = Some(size).filter(|&size| size <= NAMES)?;
    Some((read(file, table.at, size)?, range(table.at, size)?))
}

fn range(at: u64, size: u64) -> Option<Range<u64>> {
    Some(at..at.checked_add(size)?)
}

/// So many bytes, or as many as the file has from there on. `None`: it has none, or the read
/// failed.
fn read(file: &impl Bytes, at: u64, size: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let filled = file.read_at(at, &mut bytes).filter(|&filled| filled > 0)?;
    bytes.truncate(filled);
    Some(bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u16::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
        let padded = |bytes: &[u8]| {
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len().next_multiple_of(4), 0);
            padded
        };
        let words = [owner.len() as u32, value.len() as u32, kind].map(u32::to_ne_bytes).concat();
        [words, padded(owner), padded(value)].concat()
    }

    /// Check that the build id is found after other notes, and that a short one ends in zeros.
    #[test]
    fn build_ids_among_notes() {
        let notes = [note(b"GNU\0", 1, &[9; 16]), note(b"Go\0", 3, &[8; 20]), note(b"GNU\0", 3, &[7; 8])];
        let mut expected = [0; 20];
        expected[..8].fill(7);
        assert_eq!(build_id(&notes.concat()), Some(BuildId(expected)));
    }

    /// Check that notes whose sizes overflow, point behind the end, or are zero for ever end the
    /// search.
    #[test]
    fn notes_that_lie() {
        for size in [u32::MAX, u32::MAX - 3, 1 << 31, 1000] {
            let huge = [size, size, 3].map(u32::to_ne_bytes).concat();
            assert_eq!(build_id(&[huge, note(b"GNU\0", 3, &[7; 20])].concat()), None);
        }
        assert_eq!(build_id(&vec![0; 64 << 10]), None);
        assert_eq!(build_id(&note(b"GNU\0", 3, &[7; 21])), None);
        assert_eq!(build_id(&note(b"GNU\0", 3, &[7; 20])[..30]), None);
    }

    /// Check that an offset in no segment has no address, and that addresses do not wrap.
    #[test]
    fn addresses() {
        let segment = |offset, size, address| Segment { offset, size, address };
        let elf = Elf {
            segments: vec![segment(0x1000, 0x100, 0x40_1000), segment(0x2000, u64::MAX, u64::MAX - 1)],
            ..Elf::default()
        };
        assert_eq!(elf.address_of(0x10ff), Some(0x40_10ff));
        assert_eq!(elf.address_of(0x1100), None);
        assert_eq!(elf.address_of(0x2001), Some(u64::MAX));
        assert_eq!(elf.address_of(0x2002), None);
    }
}
