//! Claims about mappings: how they show in maps and map_files, and that they keep the buffer.
//!
//! A process that only maps a buffer is found by these files alone.
//!
//! Limits: the offset of a mapping is not tried with vgem. There the kernel shows an offset of the
//! device, not of the buffer, and lsbuf leaves it out.

use super::claim::Claim;
use super::judge::{Attempt, Fault, Tried, same, that};
use super::kit::{Exporter, Kit, bytes, map, map_files_link};
use crate::kernel::maps;
use crate::kernel::own::Region;
use crate::model::Inode;

const MISSED: &str =
    "mappings of such buffers are missed: a process that only maps one is not listed as a holder";

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "maps-inode",
        claim: "maps shows a mapping with the buffer's own device and inode number",
        means: MISSED,
        trial: |kit| kit.on_each_buffer(1, |buf| shows(kit, buf, &map(buf, 0, 1)?)),
    },
    Claim {
        id: "map-files-inode",
        claim: "stat through map_files gives the buffer's device, inode number, size and creator",
        means: "the size and creator of a buffer that is only mapped are not known",
        trial: behind_map_files,
    },
    Claim {
        id: "maps-offset",
        claim: "The offset in maps is the offset in the buffer",
        means: "lsbuf shows wrong offsets",
        trial: offset,
    },
    Claim {
        id: "maps-range",
        claim: "A mapping of a part of a buffer is one line in maps, with the size of that part",
        means: "MPSS, which counts mapped bytes, is wrong",
        trial: part,
    },
    Claim {
        id: "maps-split",
        claim: "A mapping that is split in two is two lines, each with the buffer's device and inode number",
        means: MISSED,
        trial: split,
    },
    Claim {
        id: "maps-unmap-half",
        claim: "After half of it is unmapped, the other half is still in maps",
        means: MISSED,
        trial: unmap_half,
    },
    Claim {
        id: "maps-without-fd",
        claim: "A mapping is still in maps after the buffer's last fd is closed",
        means: MISSED,
        trial: without_fd,
    },
];

fn shows(kit: &Kit, buf: &dmabuf::DmaBuf, region: &Region) -> Tried {
    let (inode, fact) = (kit.inode(buf)?, kit.map_fact(region)?);
    same("device in maps", inode.dev, fact.dev)?;
    same("inode in maps", inode.ino, fact.ino)
}

fn behind_map_files(kit: &Kit) -> Tried {
    kit.on_each_buffer(3, |buf| {
        let region = map(buf, 0, 1)?;
        let (expected, seen) = (kit.inode(buf)?, kit.inode_behind(&map_files_link(&region))?);
        same("device", expected.dev, seen.dev)?;
        same("inode", expected.ino, seen.ino)?;
        same("size", expected.size.0, seen.size.0)?;
        same("creator", expected.creator_uid, seen.creator_uid)
    })
}

fn offset(kit: &Kit) -> Tried {
    kit.on_each(|exporter| {
        if exporter == Exporter::Vgem {
            let why = "maps shows a GEM object at its device's own offset; lsbuf shows none";
            return Err(Fault::Untried(why.to_owned()));
        }
        let buf = kit.make(exporter, 4)?;
        for from in [0, 1, 3] {
            let fact = kit.map_fact(&map(&buf, from, 1)?)?;
            same("offset in maps", bytes(from), fact.vma.offset.unwrap_or(u64::MAX))?;
        }
        Ok(())
    })
}

fn part(kit: &Kit) -> Tried {
    kit.on_each_buffer(4, |buf| {
        let vma = kit.map_fact(&map(buf, 0, 3)?)?.vma;
        same("bytes in maps", bytes(3), vma.end - vma.start)
    })
}

fn split(kit: &Kit) -> Tried {
    kit.on_each_buffer(2, |buf| {
        let mut region = map(buf, 0, 2)?;
        region.split(rustix::param::page_size()).attempt("changing the protection of half")?;
        own_lines(&kit.maps_lines(&region)?, 2, kit.inode(buf)?.ino)
    })
}

fn unmap_half(kit: &Kit) -> Tried {
    kit.on_each_buffer(2, |buf| {
        let mut region = map(buf, 0, 2)?;
        region.shrink(rustix::param::page_size()).attempt("unmapping half")?;
        own_lines(&kit.maps_lines(&region)?, 1, kit.inode(buf)?.ino)
    })
}

fn without_fd(kit: &Kit) -> Tried {
    kit.on_each(|exporter| {
        let buf = kit.make(exporter, 1)?;
        let (region, ino) = (map(&buf, 0, 1)?, kit.inode(&buf)?.ino);
        drop(buf);
        own_lines(&kit.maps_lines(&region)?, 1, ino)
    })
}

/// Whether there are this many lines, and a scan takes each for a mapping of that buffer.
fn own_lines(lines: &[Vec<u8>], expected: usize, ino: Inode) -> Tried {
    same("lines of maps", expected, lines.len())?;
    lines.iter().try_for_each(|line| {
        let fact = maps::parse(line).attempt("maps")?;
        that(fact.is_some_and(|fact| fact.ino == ino), || format!("maps shows {}", line.escape_ascii()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that a missing line, or one with another inode or file, makes the claim false.
    #[test]
    fn lines_are_judged() {
        let line = |ino, path: &str| format!("7f10-7f20 rw-s 00000000 00:0c {ino}    {path}").into_bytes();
        let own = || line(42, "/dmabuf:x");
        assert_eq!(own_lines(&[own(), own()], 2, Inode(42)), Ok(()));
        assert!(own_lines(&[own()], 2, Inode(42)).is_err());
        assert!(own_lines(&[own(), line(43, "/dmabuf:x")], 2, Inode(42)).is_err());
        assert!(own_lines(&[line(42, "/drm mm object (deleted)")], 1, Inode(42)).is_err());
        assert!(own_lines(&[b"malformed".to_vec()], 1, Inode(42)).is_err());
    }
}
