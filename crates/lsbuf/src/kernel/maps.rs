//! The text of `/proc/P/maps`, reduced to possible dma-bufs and to shared memory. Dma-bufs are
//! recognised by their paths, shared memory by its devices.
//!
//! A line is `START-END PERMS OFFSET MAJ:MIN INODE PATH` (`show_map_vma` in fs/proc/task_mmu.c);
//! all numbers but the inode are hex. The path of a dma-buf is `/dmabuf:` and its name. The kernel
//! prints a newline in the name as `\012` and leaves backslashes as they are. So a name with `\012`
//! in it is ambiguous here, and other sources have to tell it.
//!
//! Limits: the kernel prints every VMA, so the cost grows with mappings that are no buffer's. Up to
//! Linux 6.16 each read holds the process's `mmap_lock`.

use std::os::fd::BorrowedFd;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use rustix::io::Result;

use super::LINK_PREFIX;
use super::hidden_refs::RING_LINK;
use super::parse::{Malformed, cut, number, number32};
use super::read;
use super::shmem::{ShmMap, ShmemFinder};
use crate::model::{Dev, Inode, Label, MapRef, Perms};

/// A VMA with a path that looks like a dma-buf's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MapFact {
    pub(crate) dev: Dev,
    pub(crate) ino: Inode,
    /// `None` where the text is ambiguous.
    pub(crate) name: Option<Label>,
    pub(crate) vma: MapRef,
}

/// The mappings of one address space that are of interest.
#[derive(Debug, Default)]
pub(crate) struct Mapped {
    /// VMAs that look like dma-bufs.
    pub(crate) facts: Vec<MapFact>,
    /// VMAs of shared memory.
    pub(crate) shmem: Vec<ShmMap>,
    /// Lines that may belong to a buffer and could not be parsed.
    pub(crate) malformed: u64,
    /// Whether a VMA looks like an io_uring's.
    pub(crate) ring: bool,
}

/// Reads the texts of address spaces, one after the other, with one buffer.
#[derive(Debug, Default)]
pub(crate) struct MapsReader {
    /// Grows to the longest line.
    chunk: Vec<u8>,
}

impl MapsReader {
    /// Reads an open `maps` from its start. `None`: the address space does not exist, or no longer.
    pub(crate) fn read(
        &mut self,
        maps: BorrowedFd<'_>,
        finder: Option<&mut ShmemFinder>,
    ) -> Result<Option<Mapped>> {
        static NEEDLES: LazyLock<[Finder<'_>; 2]> =
            LazyLock::new(|| [Finder::new(LINK_PREFIX), Finder::new(RING_LINK)]);
        /// Matches every line: each has a `-` between its two addresses.
        static EACH_LINE: LazyLock<[Finder<'_>; 1]> = LazyLock::new(|| [Finder::new(b"-")]);
        let chunk = &mut self.chunk;
        let mut mapped = Mapped::default();
        let any = match finder {
            None => read::lines_with(maps, &*NEEDLES, chunk, |needle, line| match (needle, parse(line)) {
                (0, Ok(fact)) => mapped.facts.extend(fact),
                (0, Err(Malformed)) => mapped.malformed += 1,
                _ => mapped.ring = true,
            })?,
            Some(finder) => read::lines_with(maps, &*EACH_LINE, chunk, |_, line| match Line::parse(line) {
                Ok(Line { dev, ino, path, vma }) if finder.interest(dev, ino).is_some() => {
                    mapped.shmem.extend(finder.mapped(dev, ino, path, !is_ambiguous(path), vma));
                }
                Ok(Line { path, .. }) if path == RING_LINK => mapped.ring = true,
                Ok(line) => mapped.facts.extend(line.of_dmabuf()),
                Err(Malformed) => mapped.malformed += 1,
            })?,
        };
        Ok(any.then_some(mapped))
    }
}

/// One parsed line.
pub(crate) struct Line<'l> {
    pub(crate) dev: Dev,
    pub(crate) ino: Inode,
    pub(crate) path: &'l [u8],
    pub(crate) vma: MapRef,
}

impl Line<'_> {
    /// `None`: it cannot be a dma-buf.
    fn of_dmabuf(self) -> Option<MapFact> {
        let Line { dev, ino, path, vma } = self;
        let name = path.strip_prefix(LINK_PREFIX)?;
        Some(MapFact { dev, ino, name: (!is_ambiguous(name)).then(|| name.into()), vma })
    }

    pub(crate) fn parse(line: &[u8]) -> std::result::Result<Line<'_>, Malformed> {
        let (start, rest) = cut(line, b'-')?;
        let (end, rest) = cut(rest, b' ')?;
        let (perms, rest) = cut(rest, b' ')?;
        let (offset, rest) = cut(rest, b' ')?;
        let (dev, rest) = cut(rest, b' ')?;
        // If a path follows, the kernel pads the inode with blanks. Without a path the line may end
        // in a blank.
        let (ino, path) = cut(rest, b' ').unwrap_or((rest, b""));
        let vma = MapRef {
            start: number(start, 16)?,
            end: number(end, 16)?,
            offset: Some(number(offset, 16)?),
            perms: Some(Perms::parse(perms).ok_or(Malformed)?),
        };
        if vma.end < vma.start {
            return Err(Malformed);
        }
        let (major, minor) = cut(dev, b':')?;
        let dev = Dev { major: number32(major, 16)?, minor: number32(minor, 16)? };
        Ok(Line { dev, ino: Inode(number(ino, 10)?), path: path.trim_ascii_start(), vma })
    }
}

/// Whether a path has the four characters that the kernel prints for a newline. The path itself may
/// contain these characters, too.
fn is_ambiguous(path: &[u8]) -> bool {
    path.windows(4).any(|w| w == b"\\012")
}

/// Parses one line. `None`: it cannot be a dma-buf.
pub(crate) fn parse(line: &[u8]) -> std::result::Result<Option<MapFact>, Malformed> {
    Line::parse(line).map(Line::of_dmabuf)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Check that each column of a dma-buf's line lands in its field.
    #[test]
    fn a_dmabuf() {
        let line = b"7f0000001000-7f0000003000 rw-s 00001000 00:0c 42                         /dmabuf:cam 0";
        let expected = MapFact {
            dev: Dev { major: 0, minor: 12 },
            ino: Inode(42),
            name: Some("cam 0".into()),
            vma: MapRef {
                start: 0x7f00_0000_1000,
                end: 0x7f00_0000_3000,
                offset: Some(0x1000),
                perms: Perms::parse(b"rw-s"),
            },
        };
        assert_eq!(parse(line), Ok(Some(expected)));
    }

    /// Check that an unnamed buffer's name is known to be empty rather than unknown.
    #[test]
    fn unnamed() {
        let fact = parse(b"1000-2000 r--s 00000000 00:0c 42      /dmabuf:").unwrap().unwrap();
        assert_eq!(fact.name, Some(Label::default()));
    }

    /// Check that an ambiguous name is left unknown and not guessed.
    #[test]
    fn an_escaped_newline_leaves_the_name_unknown() {
        let fact = parse(b"1000-2000 r--s 00000000 00:0c 42      /dmabuf:a\\012b").unwrap().unwrap();
        assert_eq!(fact.name, None);
    }

    /// Check that anonymous, special and file mappings are parsed and ignored.
    #[test]
    fn others_are_ignored() {
        for line in [
            &b"7ffd1000-7ffd3000 rw-p 00000000 00:00 0                                  [stack]"[..],
            b"7f1000-7f3000 rw-p 00000000 00:00 0 ",
            b"7f1000-7f3000 r-xp 00002000 fe:00 247282                     /usr/bin/head",
            b"7f1000-7f3000 rw-s 00000000 00:01 3                          /memfd:/dmabuf:x (deleted)",
            b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
        ] {
            assert_eq!(parse(line), Ok(None), "{}", line.escape_ascii());
        }
    }

    /// Check that a line cut short is malformed.
    #[test]
    fn cut_short() {
        assert_eq!(parse(b"7f1000-7f3000 rw-s 0000"), Err(Malformed));
    }

    proptest! {
        /// Check that any VMA printed as the kernel prints it is read back.
        #[test]
        fn round_trip(start in 0u64..1 << 47, len in 0u64..1 << 40, offset: u64, minor in 0u32..1 << 20, ino: u64) {
            let end = start + len;
            let line = format!("{start:08x}-{end:08x} rw-s {offset:08x} 00:{minor:02x} {ino}          /dmabuf:n");
            let fact = parse(line.as_bytes()).unwrap().unwrap();
            prop_assert_eq!((fact.vma.start, fact.vma.end, fact.vma.offset), (start, end, Some(offset)));
            prop_assert_eq!((fact.dev, fact.ino), (Dev { major: 0, minor }, Inode(ino)));
        }

        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }
    }
}
