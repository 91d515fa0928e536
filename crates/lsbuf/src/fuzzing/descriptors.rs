//! Promises about the parsers of fdinfo: of a dma-buf, and of any file.

use std::fmt::Write;

use super::{LONGEST_NAME, halves};
use crate::kernel::fdinfo::{self as text_of, DmaBufInfo, Fdinfo};
use crate::kernel::fdinfo_table::{FdKind, kind};
use crate::kernel::hidden_refs::FileKeeper;

/// An fdinfo is read back as it was printed. A name changes nothing else, whatever lines it forges.
pub fn fdinfo(data: &[u8]) {
    let (text, name) = halves(data);
    let Ok(mut info) = text_of::parse(text) else { return };
    assert_eq!(text_of::parse(&print(&info)).as_ref(), Ok(&info));
    if let Some(dmabuf) = &mut info.dmabuf {
        dmabuf.name = name.into();
        assert_eq!(text_of::parse(&print(&info)), Ok(info));
    }
}

/// The kind of file is read back from its fdinfo as it was printed. Neither the name of a dma-buf
/// nor text that an untrusted program puts into the fdinfo of another file changes the kind.
pub fn fdinfo_table(data: &[u8]) {
    let (text, words) = halves(data);
    let known = kind(text);
    let printed = match &known {
        Ok(FdKind::DmaBuf(info) | FdKind::PathOnly(info)) => Some(print(info)),
        Ok(FdKind::Keeper(FileKeeper::Socket(ino))) => Some(other(Some(*ino), b"scm_fds: 1\n")),
        Ok(FdKind::Keeper(FileKeeper::Ring)) => Some(other(Some(7), b"SqMask:\t0x3\n")),
        Ok(FdKind::NamelessSocket) => Some(other(None, b"scm_fds: 1\n")),
        Ok(FdKind::Other) | Err(_) => None,
    };
    if let Some(printed) = printed {
        assert_eq!(kind(&printed), known);
    }
    if let Ok(FdKind::DmaBuf(mut info)) = known {
        let name = words.split(|&b| b == 0).next().unwrap_or_default();
        info.dmabuf.iter_mut().for_each(|dmabuf| dmabuf.name = name[..name.len().min(LONGEST_NAME)].into());
        assert_eq!(kind(&print(&info)), Ok(FdKind::DmaBuf(info)));
    }
    for ino in [None, Some(7)] {
        for first in [&b"SqMask:\t0x3\nUserFiles:\t1\n    0: "[..], b"SqThread:\t-1\nUserFiles:\t1\n    0: "]
        {
            let ring = other(ino, &[first, words, b"\nUserBufs:\t0\n"].concat());
            assert_eq!(kind(&ring), Ok(FdKind::Keeper(FileKeeper::Ring)));
        }
        let file = kind(&other(ino, &[b"path:\t", words, b"\n"].concat()));
        assert!(matches!(file, Ok(FdKind::Other) | Err(_)), "{file:?}");
    }
}

/// The fdinfo of another file, with lines of its own.
fn other(ino: Option<u64>, own: &[u8]) -> Vec<u8> {
    let ino = ino.map(|ino| format!("ino:\t{ino}\n")).unwrap_or_default();
    [format!("pos:\t0\nflags:\t02\nmnt_id:\t10\n{ino}").as_bytes(), own].concat()
}

/// The fdinfo as the kernel prints it.
fn print(info: &Fdinfo) -> Vec<u8> {
    let flags = if info.path_only { 0o10_000_002 } else { 2 };
    let mut printed = format!("pos:\t0\nflags:\t0{flags:o}\nmnt_id:\t{}\n", info.mnt_id);
    if let Some(ino) = info.ino {
        let _ = writeln!(printed, "ino:\t{ino}");
    }
    let mut printed = printed.into_bytes();
    if let Some(DmaBufInfo { size, count, exporter, name }) = &info.dmabuf {
        printed.extend_from_slice(format!("size:\t{}\ncount:\t{count}\nexp_name:\t", size.0).as_bytes());
        printed.extend_from_slice(exporter.as_bytes());
        printed.push(b'\n');
        if !name.is_empty() {
            printed.extend_from_slice(&[b"name:\t", name.as_bytes(), b"\n"].concat());
        }
    }
    printed
}
