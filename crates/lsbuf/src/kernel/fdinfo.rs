//! `/proc/P/fdinfo/N` of a dma-buf: the kernel's own word on one fd.
//!
//! The lines stand in a fixed order (`seq_show` in fs/proc/fd.c, then `dma_buf_show_fdinfo`):
//! `pos`, `flags`, `mnt_id`, `ino` (Linux 5.14+), perhaps `lock:` lines, `size`, `count`, `exp_name` and,
//! only for a named buffer, `name`. The name is printed raw, so a holder can write lines of its own after it:
//! the first of each key counts, and nothing after `name` is believed. For the same reason the name itself is
//! taken from the fd's link, where it stands whole.

use super::parse::{Garbled, cut, number};
use crate::model::{Bytes, Inode, Label};

/// `O_PATH` of include/uapi/asm-generic/fcntl.h; equal on every architecture but alpha, parisc and sparc.
const O_PATH: u64 = 0o10_000_000;

/// What one fdinfo says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fdinfo {
    /// The mount; one and the same for all dma-bufs of a boot.
    pub(crate) mnt_id: u64,
    /// `None` before Linux 5.14.
    pub(crate) ino: Option<Inode>,
    /// Whether the fd only names the file (`O_PATH`) and does not hold it open.
    pub(crate) path_only: bool,
    /// Present exactly if the file is a dma-buf held open.
    pub(crate) dmabuf: Option<DmaBufInfo>,
}

/// The dma-buf's own lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DmaBufInfo {
    pub(crate) size: Bytes,
    /// References without the reader's.
    pub(crate) count: u64,
    pub(crate) exporter: Label,
}

/// Parses one fdinfo. Garbled: a line that any file has is missing or malformed, or a dma-buf's lines
/// are there in part.
pub(crate) fn parse(text: &[u8]) -> Result<Fdinfo, Garbled> {
    let (mut flags, mut mnt_id, mut ino) = (None, None, None);
    let (mut size, mut count, mut exporter) = (None, None, None);
    for line in text.split(|&b| b == b'\n') {
        let Ok((key, value)) = cut(line, b':') else { continue };
        let value = value.strip_prefix(b"\t").unwrap_or(value);
        let slot = match key {
            b"name" => break,
            b"exp_name" => {
                exporter.get_or_insert(value);
                continue;
            }
            b"flags" => &mut flags,
            b"mnt_id" => &mut mnt_id,
            b"ino" => &mut ino,
            b"size" => &mut size,
            b"count" => &mut count,
            _ => continue,
        };
        slot.get_or_insert(value);
    }
    let dmabuf = match exporter {
        Some(exporter) => Some(DmaBufInfo {
            size: Bytes(number(size.ok_or(Garbled)?, 10)?),
            count: number(count.ok_or(Garbled)?, 10)?,
            exporter: exporter.into(),
        }),
        None => None,
    };
    Ok(Fdinfo {
        mnt_id: number(mnt_id.ok_or(Garbled)?, 10)?,
        ino: ino.map(|i| number(i, 10)).transpose()?.map(Inode),
        path_only: number(flags.ok_or(Garbled)?, 8)? & O_PATH != 0,
        dmabuf,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAP: &[u8] =
        b"pos:\t0\nflags:\t02000002\nmnt_id:\t10\nino:\t7\nsize:\t65536\ncount:\t2\nexp_name:\tsystem\n";

    /// Check that each line of a whole dma-buf fdinfo lands in its field.
    #[test]
    fn a_whole_one() {
        let expected = Fdinfo {
            mnt_id: 10,
            ino: Some(Inode(7)),
            path_only: false,
            dmabuf: Some(DmaBufInfo { size: Bytes(65536), count: 2, exporter: "system".into() }),
        };
        assert_eq!(parse(HEAP), Ok(expected));
    }

    /// Check that a kernel before 5.14, which prints no `ino`, is understood.
    #[test]
    fn without_ino() {
        let info =
            parse(b"pos:\t0\nflags:\t02\nmnt_id:\t9\nsize:\t4096\ncount:\t1\nexp_name:\tdrm\n").unwrap();
        assert_eq!((info.ino, info.dmabuf.unwrap().size), (None, Bytes(4096)));
    }

    /// Check that an `O_PATH` fd shows as one and is not taken for an open dma-buf.
    #[test]
    fn path_only() {
        let info = parse(b"pos:\t0\nflags:\t012000000\nmnt_id:\t10\nino:\t7\n").unwrap();
        assert!(info.path_only && info.dmabuf.is_none());
    }

    /// Check that lock lines between `ino` and `size` do no harm.
    #[test]
    fn lock_lines() {
        let text = b"pos:\t0\nflags:\t02\nmnt_id:\t10\nino:\t7\nlock:\t1: FLOCK  ADVISORY  WRITE 71 00:0c:7 0 EOF\nsize:\t4096\ncount:\t1\nexp_name:\tsystem\n";
        assert_eq!(parse(text).unwrap().dmabuf.unwrap().size, Bytes(4096));
    }

    /// Check that an open dma-buf without its count is garbled rather than counted as 0.
    #[test]
    fn a_missing_count_is_garbled() {
        assert_eq!(parse(b"flags:\t02\nmnt_id:\t1\nino:\t7\nsize:\t4096\nexp_name:\tsystem\n"), Err(Garbled));
    }

    proptest! {
        /// Check that no name, whatever lines it forges, changes any figure.
        #[test]
        fn names_forge_nothing(name in proptest::collection::vec(any::<u8>(), 0..32)) {
            let text = [HEAP, b"name:\t", &name, b"\n"].concat();
            prop_assert_eq!(parse(&text), parse(HEAP));
        }

        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&text);
        }
    }
}
