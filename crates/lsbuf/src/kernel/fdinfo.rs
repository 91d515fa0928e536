//! `/proc/P/fdinfo/N` of a dma-buf: what the kernel itself says about one fd.
//!
//! The lines come in a fixed order (`seq_show` in fs/proc/fd.c, then `dma_buf_show_fdinfo`). First
//! come those that any file has: `pos`, `flags`, `mnt_id`, `ino` (Linux 5.14+) and perhaps `lock:`
//! lines. Then come the dma-buf's own: `size`, `count`, `exp_name` and, only if the buffer has a
//! name, `name`.
//!
//! Other files print text that untrusted programs choose: before Linux 6.18 an io_uring prints file
//! names raw. So a dma-buf's lines prove a dma-buf only if the file prints nothing else of its own.
//! The name is printed raw and last. Everything after its key is the name, whatever lines it
//! contains.

use super::parse::{Malformed, cut, number};
use crate::model::{Bytes, Inode, Label};

/// `O_PATH` of include/uapi/asm-generic/fcntl.h. It has this value on every architecture but alpha,
/// parisc and sparc.
const O_PATH: u64 = 0o10_000_000;

/// The contents of one fdinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fdinfo {
    /// The mount id. All dma-bufs have the same one until the next boot.
    pub(crate) mnt_id: u64,
    /// `None` before Linux 5.14 (commit 3845f256a8b5).
    pub(crate) ino: Option<Inode>,
    /// Whether the fd only names the file (`O_PATH`) and does not hold it open.
    pub(crate) path_only: bool,
    /// Present if, and only if, the file is a dma-buf that the fd holds open.
    pub(crate) dmabuf: Option<DmaBufInfo>,
}

/// The dma-buf's own lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DmaBufInfo {
    pub(crate) size: Bytes,
    /// The reference count, without the reference of the reader.
    pub(crate) count: u64,
    pub(crate) exporter: Label,
    /// Whole and raw. Empty if the buffer has no name.
    pub(crate) name: Label,
}

/// Parses one fdinfo. `Malformed`: a line that any file has is missing or malformed, or there are
/// lines of a dma-buf that are not exactly a dma-buf's.
pub(crate) fn parse(text: &[u8]) -> Result<Fdinfo, Malformed> {
    let (mut flags, mut mnt_id, mut ino) = (None, None, None);
    let mut own = text;
    while let Some((key, value, rest)) = common_line(own) {
        let slot = match key {
            b"flags" => Some(&mut flags),
            b"mnt_id" => Some(&mut mnt_id),
            b"ino" => Some(&mut ino),
            _ => None,
        };
        slot.map(|slot| slot.get_or_insert(value));
        own = rest;
    }
    let dmabuf = match DmaBufInfo::parse(own) {
        Err(Malformed) if memchr::memmem::find(own, b"exp_name:").is_some() => return Err(Malformed),
        dmabuf => dmabuf.ok(),
    };
    Ok(Fdinfo {
        mnt_id: number(mnt_id.ok_or(Malformed)?, 10)?,
        ino: ino.map(|i| number(i, 10)).transpose()?.map(Inode),
        path_only: number(flags.ok_or(Malformed)?, 8)? & O_PATH != 0,
        dmabuf,
    })
}

/// The lines of a text that the file's own driver prints.
pub(crate) fn own_lines(mut text: &[u8]) -> &[u8] {
    while let Some((_, _, rest)) = common_line(text) {
        text = rest;
    }
    text
}

/// Key and value of a line that any file has, and the text after it.
fn common_line(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (line, rest) = cut(text, b'\n').unwrap_or((text, b""));
    let (key, value) = cut(line, b':').ok()?;
    let common = [&b"pos"[..], b"flags", b"mnt_id", b"ino", b"lock"];
    Some((key, value.strip_prefix(b"\t")?, rest)).filter(|(key, ..)| common.contains(key))
}

impl DmaBufInfo {
    /// Parses the file's own lines, which must be a dma-buf's and nothing else.
    fn parse(own: &[u8]) -> Result<DmaBufInfo, Malformed> {
        let (size, own) = own_line(own, b"size:\t")?;
        let (count, own) = own_line(own, b"count:\t")?;
        let (exporter, own) = own_line(own, b"exp_name:\t")?;
        let name = match own {
            b"" => own,
            named => named.strip_prefix(b"name:\t").and_then(|n| n.strip_suffix(b"\n")).ok_or(Malformed)?,
        };
        Ok(DmaBufInfo {
            size: Bytes(number(size, 10)?),
            count: number(count, 10)?,
            exporter: exporter.into(),
            name: name.into(),
        })
    }
}

fn own_line<'t>(text: &'t [u8], key: &[u8]) -> Result<(&'t [u8], &'t [u8]), Malformed> {
    cut(text.strip_prefix(key).ok_or(Malformed)?, b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAP: &[u8] =
        b"pos:\t0\nflags:\t02000002\nmnt_id:\t10\nino:\t7\nsize:\t65536\ncount:\t2\nexp_name:\tsystem\n";

    /// Check that each line of a dma-buf's fdinfo is read into its field.
    #[test]
    fn a_whole_one() {
        let expected = Fdinfo {
            mnt_id: 10,
            ino: Some(Inode(7)),
            path_only: false,
            dmabuf: Some(DmaBufInfo {
                size: Bytes(65536),
                count: 2,
                exporter: "system".into(),
                name: Label::default(),
            }),
        };
        assert_eq!(parse(HEAP), Ok(expected));
    }

    /// Check that a text of a kernel before 5.14, which prints no `ino`, is parsed.
    #[test]
    fn without_ino() {
        let info =
            parse(b"pos:\t0\nflags:\t02\nmnt_id:\t9\nsize:\t4096\ncount:\t1\nexp_name:\tdrm\n").unwrap();
        assert_eq!((info.ino, info.dmabuf.unwrap().size), (None, Bytes(4096)));
    }

    /// Check that an `O_PATH` fd is recognised, and not taken for an open dma-buf.
    #[test]
    fn path_only() {
        let info = parse(b"pos:\t0\nflags:\t012000000\nmnt_id:\t10\nino:\t7\n").unwrap();
        assert!(info.path_only && info.dmabuf.is_none());
    }

    /// Check that lock lines between `ino` and `size` are skipped.
    #[test]
    fn lock_lines() {
        let text = b"pos:\t0\nflags:\t02\nmnt_id:\t10\nino:\t7\nlock:\t1: FLOCK  ADVISORY  WRITE 71 00:0c:7 0 EOF\nsize:\t4096\ncount:\t1\nexp_name:\tsystem\n";
        assert_eq!(parse(text).unwrap().dmabuf.unwrap().size, Bytes(4096));
    }

    /// Check that a dma-buf without a count is malformed and not counted as 0.
    #[test]
    fn a_missing_count_is_malformed() {
        assert_eq!(
            parse(b"flags:\t02\nmnt_id:\t1\nino:\t7\nsize:\t4096\nexp_name:\tsystem\n"),
            Err(Malformed)
        );
    }

    /// Check that a dma-buf's lines among those of another file are neither taken for a buffer nor
    /// ignored.
    #[test]
    fn lines_in_the_wrong_place() {
        let common = "pos:\t0\nflags:\t02\nmnt_id:\t9\nino:\t7\n";
        let forged = "size:\t4096\ncount:\t1\nexp_name:\tdrm\n";
        for own in [
            format!("SqMask:\t0x3\n{forged}"),
            format!("{forged}more:\t1\n"),
            format!("UserFiles:\t1\n    0: {forged}"),
        ] {
            assert_eq!(parse(format!("{common}{own}").as_bytes()), Err(Malformed), "{own:?}");
        }
    }

    proptest! {
        /// Check that any name is read back whole, whatever lines it holds, and changes nothing
        /// else.
        #[test]
        fn names_are_whole(name in proptest::collection::vec(1u8.., 1..32)) {
            let text = [HEAP, b"name:\t", &name, b"\n"].concat();
            let mut info = parse(&text).unwrap();
            let read = std::mem::take(&mut info.dmabuf.as_mut().unwrap().name);
            prop_assert_eq!(read, Label::from(name.as_slice()));
            prop_assert_eq!(Ok(info), parse(HEAP));
        }

        /// Check that no bytes make the parser panic.
        #[test]
        fn any_bytes(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&text);
        }
    }
}
